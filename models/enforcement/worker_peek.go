package enforcement

import (
	"context"
	"errors"
	"slices"
	"time"

	"tollgate/models"
)

// answers reports whether the database answers.
func (w *worker) answers() bool {
	ctx, cancel := context.WithTimeout(context.Background(), answersPatience)
	defer cancel()
	_, err := w.db.ExecContext(ctx, "SELECT 1")
	return err == nil
}

// peek answers checks.
func (w *worker) peek(calls []*call) {
	calls = w.identify(calls)
	for pass := range maxPasses {
		if len(calls) == 0 {
			return
		}
		start := time.Now()
		ctx, cancel := w.inTime(calls)
		now := models.Now(w.now)
		wants := make([]models.RecordKey, len(calls))
		for i, c := range calls {
			wants[i] = c.one[0].recordKey(now)
		}
		standings, err := w.standings(ctx, wants, now, pass > 0)
		cancel()
		if err != nil {
			calls = w.failed(calls, err, start)
			continue
		}
		var again []*call
		for i, c := range calls {
			o, s := &c.one[0], &standings[i]
			if o.lapsed = 0; s.moves || o.mustLink(s.slack, s.Email) {
				again = append(again, c)
				continue
			}
			o.answer = Answer{Standing: s.Standing, Verdict: models.Decide(s.Standing, o.quantity)}
			if id := s.lapsed; id != 0 && o.answer.Verdict.Reason == models.OrganizationSpendLimitReached {
				again, o.lapsed = append(again, c), id
				if !slices.Contains(w.lapsed, id) {
					w.lapsed = append(w.lapsed, id)
				}
			}
		}
		if again = w.expireHolds(again, now); len(again) == 0 {
			return
		}
		calls = w.prepareBisecting(again, func(ctx context.Context, db *models.DB, calls []*call) error {
			var linking []*op
			var moving []models.RecordKey
			for i := range calls {
				switch o := &calls[i].one[0]; {
				case o.lapsed != 0: // its person and record are ready
				case o.mustLink(models.SlackIdentity{}, ""):
					linking = append(linking, o)
				default:
					moving = append(moving, o.recordKey(now))
				}
			}
			if len(linking) > 0 {
				people, err := models.LinkPeople(ctx, db, now, linksOf(linking))
				if err != nil {
					return err
				}
				w.remember(ctx, linking, people)
			}
			if len(moving) == 0 {
				return nil
			}
			return models.PrepareRecords(ctx, db, w.catalogue, now, moving)
		})
	}
	failAll(calls, models.Unavailable(errors.New("people or usage records were still not ready after several attempts")))
}

// farAway is the time of a read from which on the database is far away, or slow. If people's records
// were missing, too, the next reads that may depend on each other are made at the same time.
const farAway = 100 * time.Millisecond

// standings reads people's standings. If a person's record is missing or not ready, it computes
// what the record will be. likely means that all of them probably need that, so it reads both at
// the same time. It also does so if the database is far away, to save a round trip.
func (w *worker) standings(ctx context.Context, wants []models.RecordKey, now time.Time, likely bool) ([]peeked, error) {
	read := func(wants []models.RecordKey) (*models.Foreseen, error) {
		return models.ReadAhead(ctx, w.db, w.catalogue, now, wants)
	}
	if likely || w.far {
		done := make(chan struct{})
		var all *models.Foreseen
		var err error
		// If it is not needed, it ends by itself: a canceled query closes its connection.
		reading, cancel := context.WithTimeout(context.WithoutCancel(ctx), AnswerWithin)
		go func() {
			defer close(done)
			defer cancel()
			all, err = models.ReadAhead(reading, w.db, w.catalogue, now, wants)
		}()
		read = func([]models.RecordKey) (*models.Foreseen, error) { <-done; return all, err }
	}
	start := time.Now()
	records, err := w.ledger.peek(ctx, wants)
	slow := time.Since(start) >= farAway
	if w.far = false; err != nil {
		return nil, err
	}
	standings := make([]peeked, len(wants))
	var unready []int
	var missing []models.RecordKey
	organizations, err := w.organizations(ctx, records)
	if err != nil {
		return nil, err
	}
	for i, r := range records {
		if r != nil {
			var ready bool
			if standings[i].Standing, ready = w.catalogue.Standing(r, now); ready {
				standings[i].slack = r.Slack()
				if id := r.OrganizationRecordID; id != nil {
					if o := organizations[*id]; o != nil {
						standings[i].add(o, now)
					}
				}
				continue
			}
		}
		unready, missing = append(unready, i), append(missing, wants[i])
	}
	if len(unready) == 0 {
		return standings, nil
	}
	w.far = slow
	ahead, err := read(missing)
	if err != nil {
		return nil, err
	}
	for _, i := range unready {
		standings[i].Standing, standings[i].slack, standings[i].moves = ahead.Standing(wants[i], records[i])
		if o := ahead.OrganizationRecord(wants[i]); o != nil {
			standings[i].add(o, now)
		}
	}
	return standings, nil
}

// organizations reads the organizations' records that the usage records point to.
func (w *worker) organizations(ctx context.Context, records []*models.UsageRecord) (map[int64]*models.OrganizationRecord, error) {
	var ids []int64
	for _, r := range records {
		if r != nil && r.OrganizationRecordID != nil && !slices.Contains(ids, *r.OrganizationRecordID) {
			ids = append(ids, *r.OrganizationRecordID)
		}
	}
	if len(ids) == 0 {
		return nil, nil
	}
	return models.OrganizationRecordsByID(ctx, w.db, ids)
}

// peeked is a person's standing, read without a lock.
type peeked struct {
	models.Standing
	slack models.SlackIdentity
	// moves means that the person's events must first move to another record, because Tollgate
	// learned late of a period.
	moves bool
	// lapsed is the ID of the organization's record, if its spend may include holds that have
	// expired; otherwise 0.
	lapsed int64
}

// add adds what the organization spends.
func (p *peeked) add(o *models.OrganizationRecord, now time.Time) {
	p.Organization = o.Spend()
	if o.HoldsLapsed(now) {
		p.lapsed = o.ID
	}
}
