package enforcement_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/uptrace/bun"

	"tollgate/models"
	"tollgate/models/enforcement"
)

// past is a ledger with a random history of many months.
type past struct {
	*fixture
	random *rand.Rand
	people []string
	acme   uuid.UUID
	first  time.Time
	keys   int
	// consumed are the recorded calls of consume.
	consumed []consumedCall
}

type consumedCall struct {
	email, key string
	quantity   int64
	at         time.Time
	event      uuid.UUID
}

// newPast records a random history through the gate. The clock is then at its end.
func newPast(t *testing.T, f *fixture, seed uint64, months, callsAMonth int) *past {
	t.Helper()
	p := &past{
		fixture: f, random: rand.New(rand.NewPCG(seed, seed)),
		people: []string{"ada@example.com", "bob@example.com", "carol@example.com", "dan@example.com"},
		first:  time.Date(2023, 1, 9, 12, 0, 0, 0, time.UTC),
	}
	f.now = p.first
	acme, err := models.CreateOrganization(f.ctx, f.db, f.now, "Acme", []string{"T1"})
	must(t, err)
	p.acme = acme.ID
	for _, s := range []struct {
		to   models.Subscriber
		plan models.PlanID
	}{{models.Subscriber{OrganizationID: &acme.ID}, "business"}, {models.Subscriber{Email: "carol@example.com"}, "starter"}} {
		_, err := models.Subscribe(f.ctx, f.db, f.catalogue, f.now, s.to, s.plan)
		must(t, err)
	}
	for month := range months {
		for range callsAMonth {
			f.now = f.now.Add(time.Duration(p.random.Int64N(int64(60 * 24 * time.Hour / time.Duration(callsAMonth)))))
			p.act(t)
		}
		if next := p.first.AddDate(0, month+1, 0); f.now.Before(next) {
			f.now = next
		}
		p.report(t)
		p.settleVoids(t)
	}
	f.clean(t)
	return p
}

// later sets the clock to some months later, and records an event: without a recent one, retention does
// not believe the clock.
func (p *past) later(t *testing.T, months int) {
	t.Helper()
	p.now = p.now.AddDate(0, months, 0)
	a, err := p.Consume(p.ctx, by("erin@example.com"), 1, p.key())
	if must(t, err); !a.Verdict.Allowed {
		t.Fatalf("the recent event is refused: %+v", a)
	}
}

func (p *past) key() string {
	p.keys++
	return fmt.Sprint("k", p.keys)
}

// person returns a call's person. Ada and Bob are in the organization.
func (p *past) person(email string) enforcement.Person {
	who := by(email)
	if i := slices.Index(p.people, email); i < 2 {
		who.Slack = models.SlackIdentity{TeamID: "T1", UserID: fmt.Sprint("U", i)}
	}
	return who
}

// act makes one random call.
func (p *past) act(t *testing.T) {
	t.Helper()
	email := p.people[min(3, p.random.IntN(6))%len(p.people)]
	if email == "dan@example.com" && p.random.IntN(4) > 0 { // Dan is on the free plan, and Carol pays
		email = "carol@example.com"
	}
	quantity := 1 + p.random.Int64N(20)
	switch n := p.random.IntN(20); {
	case n < 11:
		key := p.key()
		a, err := p.Consume(p.ctx, p.person(email), quantity, key)
		must(t, err)
		if a.Verdict.Allowed {
			p.consumed = append(p.consumed, consumedCall{email, key, quantity, p.now, a.EventID})
		}
	case n < 15:
		a, err := p.Hold(p.ctx, p.person(email), quantity, p.key(), time.Hour)
		must(t, err)
		if a.Hold == nil {
			return
		}
		switch p.random.IntN(4) {
		case 0: // it lapses
		case 1:
			_, err = p.Release(p.ctx, a.Hold.ID)
		default:
			_, err = p.Settle(p.ctx, a.Hold.ID, 1+p.random.Int64N(quantity))
		}
		must(t, err)
	case n < 17:
		outcomes, err := p.Record(p.ctx, []enforcement.PastEvent{{
			Person: p.person(email), Quantity: quantity, IdempotencyKey: p.key(), OccurredAt: p.now.AddDate(0, 0, -p.random.IntN(300)),
		}})
		must(t, err)
		must(t, outcomes[0].Err)
	default:
		if len(p.consumed) == 0 {
			return
		}
		c := p.consumed[len(p.consumed)-1-p.random.IntN(min(len(p.consumed), 60))]
		_, err := models.Void(p.ctx, p.db, p.catalogue, p.now, models.NewVoid{
			Actor: models.ActorShell, Email: c.email, IdempotencyKey: c.key, Reason: "by mistake", Reported: true,
		})
		must(t, err)
	}
}

// report puts the overage of Carol, and sometimes all units of Bob, into reports in random states, as
// if they had Stripe customers.
func (p *past) report(t *testing.T) {
	t.Helper()
	states := []models.ReportState{
		models.ReportVerified, models.ReportVerified, models.ReportVerified, models.ReportGivenUp, models.ReportAccepted, models.ReportExpired,
		models.ReportDead, models.ReportSealed,
	}
	customer := func(email string) string { return "cus_" + strings.TrimSuffix(email, "@example.com") }
	for _, email := range []string{"carol@example.com", "bob@example.com"} {
		counts := models.CountsOverage
		if email == "bob@example.com" {
			counts = models.CountsQuantity
		}
		user, err := models.UserByEmail(p.ctx, p.db, email)
		if isCode(err, models.CodeUnknownUser) {
			continue
		}
		must(t, err)
		var events []models.UsageEvent
		must(t, p.db.NewSelect().Model(&events).Where("user_id = ? AND stripe_customer_id IS NULL", user.ID).Order("recorded_at", "id").
			Scan(p.ctx))
		var ids []uuid.UUID
		var value int64
		for _, e := range events {
			switch {
			case e.VoidedAt != nil || p.random.IntN(20) == 0: // not sealed
			case counts == models.CountsQuantity:
				ids, value = append(ids, e.ID), value+e.Quantity
			case e.OverageQuantity > 0:
				ids, value = append(ids, e.ID), value+e.OverageQuantity
			}
		}
		p.exec(t, "UPDATE usage_events SET stripe_customer_id = ? WHERE user_id = ? AND stripe_customer_id IS NULL", customer(email), user.ID)
		if len(ids) == 0 {
			continue
		}
		report := p.insertReport(t, customer(email), value, counts, states[p.random.IntN(len(states))])
		p.exec(t, "UPDATE usage_events SET stripe_report_id = ? WHERE user_id = ? AND id IN (?)", report, user.ID, bun.List(ids))
	}
}

func (p *past) insertReport(t *testing.T, customer string, value int64, counts models.ReportCounts, state models.ReportState) uuid.UUID {
	t.Helper()
	p.keys++
	r := models.StripeReport{
		ID: uuid.New(), Identifier: p.key(), StripeCustomerID: customer, MeterEventName: "suggestions_pro", Value: value, Counts: counts,
		Minute: p.now.Truncate(time.Minute).Add(time.Duration(p.keys) * time.Minute), State: state, CreatedAt: p.now,
		PeriodStart: p.now.AddDate(0, -1, 0), PeriodEnd: p.now,
	}
	_, err := p.db.NewInsert().Model(&r).Exec(p.ctx)
	must(t, err)
	return r.ID
}

// settleVoids ends some of the voids of reported events.
func (p *past) settleVoids(t *testing.T) {
	t.Helper()
	var voids []models.UsageVoid
	must(t, p.db.NewSelect().Model(&voids).Where("state = ? AND stripe_report_id IS NULL", models.VoidWaiting).Order("voided_at").Scan(p.ctx))
	for i := range voids {
		v := &voids[i]
		var e models.UsageEvent
		must(t, p.db.NewSelect().Model(&e).Where("user_id = ? AND id = ?", v.UserID, v.EventID).Scan(p.ctx))
		switch p.random.IntN(5) {
		case 0, 4: // it keeps waiting
			continue
		case 1:
			v.State, v.CreditNoteID, v.NextAttemptAt = models.VoidCredited, new("cn_1"), nil
		case 2:
			state := []models.ReportState{models.ReportVerified, models.ReportVerified, models.ReportAccepted}[p.random.IntN(3)]
			id := p.insertReport(t, *e.StripeCustomerID, -v.OverageQuantity, models.CountsVoid, state)
			v.State, v.StripeReportID, v.OccurredAt = models.VoidReported, &id, &e.OccurredAt
			if p.random.IntN(3) > 0 {
				v.NextAttemptAt = nil
			}
		case 3:
			v.State, v.NextAttemptAt = models.VoidNotBilled, nil
		}
		_, err := p.db.NewUpdate().Model(v).Column("state", "credit_note_id", "next_attempt_at", "stripe_report_id", "occurred_at").WherePK().
			Exec(p.ctx)
		must(t, err)
	}
}

// retention returns the deletion of events that are older than a text of --keep-events.
func (p *past) retention(t *testing.T, keep string) models.Retention {
	t.Helper()
	k, err := models.ParseKeepEvents(keep)
	must(t, err)
	return models.Retention{
		DB: p.db, Catalogue: p.catalogue, Keep: k, Clock: func(context.Context) (time.Time, error) { return p.now, nil },
	}
}

func (p *past) pass(t *testing.T, keep string) models.Deletions {
	t.Helper()
	r := p.retention(t, keep)
	deleted, err := r.Pass(p.ctx)
	must(t, err)
	return deleted
}

// waits returns why each event must stay; an empty text if it must be deleted. It is written without
// a look at the code that it checks.
func (p *past) waits(t *testing.T, events map[uuid.UUID]*models.UsageEvent, horizon time.Time) map[uuid.UUID]string {
	t.Helper()
	var records []models.UsageRecord
	must(t, p.db.NewSelect().Model(&records).Scan(p.ctx))
	ends := map[int64]time.Time{}
	for _, r := range records {
		ends[r.ID] = r.BillingPeriodEnd
	}
	var reports []models.StripeReport
	must(t, p.db.NewSelect().Model(&reports).Scan(p.ctx))
	final := map[uuid.UUID]bool{}
	for _, r := range reports {
		final[r.ID] = r.State == models.ReportVerified || r.State == models.ReportGivenUp
	}
	var all []models.UsageVoid
	must(t, p.db.NewSelect().Model(&all).Scan(p.ctx))
	voids := map[uuid.UUID]models.UsageVoid{}
	for _, v := range all {
		voids[v.EventID] = v
	}
	reasons := map[uuid.UUID]string{}
	for id, e := range events {
		v := voids[id]
		switch {
		case !e.RecordedAt.Before(horizon):
			reasons[id] = "its key is guaranteed"
		case ends[e.RecordID].After(horizon):
			reasons[id] = "its period ended later"
		case v.EventID == id && !v.VoidedAt.Before(horizon):
			reasons[id] = "its void is young"
		case v.EventID == id && v.NextAttemptAt != nil:
			reasons[id] = "its void is not resolved"
		case v.StripeReportID != nil && !final[*v.StripeReportID]:
			reasons[id] = "its negative report is open"
		case e.StripeReportID != nil && !final[*e.StripeReportID]:
			reasons[id] = "its report is open"
		case e.StripeReportID != nil && !e.RecordedAt.Before(p.now.AddDate(0, 0, -500)):
			reasons[id] = "balances read it"
		case v.EventID != id && e.StripeReportID == nil && e.StripeCustomerID != nil && e.OverageQuantity > 0:
			reasons[id] = "it is in no report yet"
		default:
			reasons[id] = ""
		}
	}
	return reasons
}

func (p *past) events(t *testing.T) map[uuid.UUID]*models.UsageEvent {
	t.Helper()
	var all []*models.UsageEvent
	must(t, p.db.NewSelect().Model(&all).Scan(p.ctx))
	events := map[uuid.UUID]*models.UsageEvent{}
	for _, e := range all {
		events[e.ID] = e
	}
	return events
}

// figures are what pages and the API show, from records and sums.
type figures struct {
	Records      []models.UsageRecord
	History      map[string][]models.UsageRecord
	Organization models.OrganizationSummary
	Months       []models.PastPeriod
	Days         []int64
}

func (p *past) figures(t *testing.T) figures {
	t.Helper()
	f := figures{History: map[string][]models.UsageRecord{}}
	must(t, p.db.NewSelect().Model(&f.Records).Order("id").Scan(p.ctx))
	for i := range f.Records { // a pass expires holds that nothing expired before
		f.Records[i].UnitsHeld, f.Records[i].OverageHeld, f.Records[i].OverageCentsHeld, f.Records[i].HoldsExpireAt = 0, 0, 0, nil
	}
	for _, email := range p.people {
		records, err := models.UsageHistory(p.ctx, p.db, p.now, email, 40)
		must(t, err)
		for i := range records {
			records[i].UnitsHeld, records[i].OverageHeld, records[i].OverageCentsHeld, records[i].HoldsExpireAt = 0, 0, 0, nil
		}
		f.History[email] = records
	}
	var err error
	f.Organization, err = models.OrganizationUsage(p.ctx, p.db, p.catalogue, p.now, p.acme)
	must(t, err)
	var cache models.PastUsageCache
	f.Months, err = cache.OrganizationMonths(p.ctx, p.db, p.now, &f.Organization, p.first, 24)
	must(t, err)
	_, f.Days, err = cache.OrganizationDays(p.ctx, p.db, p.now, f.Organization.Period, p.acme)
	must(t, err)
	return f
}

func same(t *testing.T, got, want any) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("the figures are\n%+v\nand were\n%+v", got, want)
	}
}

// isCode reports whether an error has a code.
func isCode(err error, code models.Code) bool {
	var e *models.Error
	return errors.As(err, &e) && e.Code == code
}
