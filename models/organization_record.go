package models

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/uptrace/bun"
)

// OrganizationRecord is the overage of an organization in one billing period of its subscription.
// It exists only while the organization has a spend limit, and later for the periods that ended
// under one.
//
// It counts exactly the usage records that point to it (UsageRecord.OrganizationRecordID): those
// whose payer is its payer and that began in its period. Whatever changes the overage of such a
// record changes this row in the same transaction, after the record. All transactions lock the rows
// in this order: users, usage records by email, organization records by ID.
type OrganizationRecord struct {
	bun.BaseModel `bun:"table:organization_records"`

	ID             int64     `bun:",pk,autoincrement"`
	OrganizationID uuid.UUID `bun:",type:uuid"`
	// Payer is the result of PayerOf for the subscription.
	Payer              string
	BillingPeriodStart time.Time
	BillingPeriodEnd   time.Time
	// SpendLimitCents is the limit that decisions enforce; nil while none is in force.
	SpendLimitCents *int64
	// Counted is false while the overage from before the limit is being counted.
	Counted bool
	// OverageCents is the price of the overage, and OverageCentsHeld the price of the overage on
	// hold. After HoldsExpireAt, the latter may include holds that have expired.
	OverageCents, OverageCentsHeld int64
	// HoldsExpireAt is at or before the earliest expiry of an open hold; nil without open holds.
	HoldsExpireAt *time.Time
	CreatedAt     time.Time
}

// Spend returns the state that a decision depends on.
func (o *OrganizationRecord) Spend() OrganizationSpend {
	return OrganizationSpend{Cents: o.OverageCents + o.OverageCentsHeld, LimitCents: o.SpendLimitCents}
}

// HoldsLapsed reports whether some of the holds may have expired.
func (o *OrganizationRecord) HoldsLapsed(now time.Time) bool {
	return o.HoldsExpireAt != nil && !o.HoldsExpireAt.After(now)
}

// OrganizationRecordsByID reads rows without locking them.
func OrganizationRecordsByID(ctx context.Context, db bun.IDB, ids []int64) (map[int64]*OrganizationRecord, error) {
	var rows []*OrganizationRecord
	if err := db.NewSelect().Model(&rows).Where("id IN (?)", bun.List(ids)).Scan(ctx); err != nil {
		return nil, fmt.Errorf("read %d organization records: %w", len(ids), err)
	}
	found := make(map[int64]*OrganizationRecord, len(rows))
	for _, r := range rows {
		found[r.ID] = r
	}
	return found, nil
}

// organizationRecord reads a payer's record for a time; nil without one.
func organizationRecord(ctx context.Context, db bun.IDB, payer string, at time.Time) (*OrganizationRecord, error) {
	var rows []OrganizationRecord
	err := db.NewSelect().Model(&rows).Where("payer = ? AND billing_period_start <= ? AND billing_period_end > ?", payer, at, at).
		Order("billing_period_start DESC").Limit(1).Scan(ctx)
	if err != nil || len(rows) == 0 {
		return nil, err
	}
	return &rows[0], nil
}

// spending connects the usage records of people whose rows are locked to the records of their
// organizations.
type spending struct {
	// rows are the records of the payers, by payer.
	rows map[string][]*OrganizationRecord
	// before is what the records counted when they were locked.
	before map[int64]spent
}

// paidPeriod is a billing period of an organization.
type paidPeriod struct {
	organization uuid.UUID
	payer        string
	period       Period
}

// paidPeriod returns the billing period that contains t; ok is false without a spend limit of the
// organization that has the subscription.
func (e *Entitlement) paidPeriod(t time.Time) (p paidPeriod, ok bool) {
	if e.OrganizationID == nil || e.OrganizationSpendLimitCents == nil {
		return paidPeriod{}, false
	}
	return paidPeriod{*e.OrganizationID, e.payer(), e.PeriodAt(t)}, true
}

// spent is the overage that one organization's record counts.
type spent struct {
	cents, held int64
	// expire is the earliest expiry of a hold; zero without holds.
	expire time.Time
}

func (s spent) plus(r *UsageRecord) spent {
	s.cents += r.OverageCents
	s.held += r.OverageCentsHeld
	if r.HoldsExpireAt != nil && (s.expire.IsZero() || r.HoldsExpireAt.Before(s.expire)) {
		s.expire = r.HoldsExpireAt.UTC()
	}
	return s
}

// spendOf sums up records by the organization's record that they point to.
func spendOf(people persons) map[int64]spent {
	sums := map[int64]spent{}
	for _, p := range people {
		for _, r := range p.records {
			if r.OrganizationRecordID != nil {
				sums[*r.OrganizationRecordID] = sums[*r.OrganizationRecordID].plus(r)
			}
		}
	}
	return sums
}

// startSpending reads the organizations' records that the people's records may point to, and
// creates those of the current periods. For people who have nothing to do with a spend limit of an
// organization, it does nothing.
func startSpending(ctx context.Context, db *DB, conn ledgerConn, now time.Time, people persons) (*spending, error) {
	var current []paidPeriod
	payers := map[string]bool{}
	for _, p := range people {
		if w, limited := p.entitlement.paidPeriod(now); limited {
			payers[w.payer] = true
			if !slices.Contains(current, w) {
				current = append(current, w)
			}
		}
		for _, r := range p.records {
			if r.OrganizationRecordID != nil && r.Payer != nil {
				payers[*r.Payer] = true
			}
		}
	}
	s := &spending{before: spendOf(people), rows: map[string][]*OrganizationRecord{}}
	if len(payers) == 0 {
		return s, nil
	}
	if err := s.read(ctx, db, conn, payers); err != nil {
		return nil, err
	}
	slices.SortFunc(current, func(a, b paidPeriod) int {
		return cmp.Or(cmp.Compare(a.payer, b.payer), a.period.Start.Compare(b.period.Start))
	})
	changed := false
	for _, w := range current {
		did, err := s.fitPeriod(ctx, db, conn, w, now, people)
		if err != nil {
			return nil, err
		}
		changed = changed || did
	}
	if changed {
		return s, s.read(ctx, db, conn, payers)
	}
	return s, nil
}

// fitPeriod makes sure that exactly one record of the payer counts a current period. If Tollgate
// learned that periods began or ended at other times, it changes the records that are there. Those
// are counted again, and meanwhile their limit stays in force.
func (s *spending) fitPeriod(ctx context.Context, db *DB, conn ledgerConn, w paidPeriod, now time.Time,
	people persons) (changed bool, err error) {
	var own *OrganizationRecord
	early := false
	update := func(o *OrganizationRecord, set string, args ...any) {
		if changed = true; err == nil {
			_, err = db.NewUpdate().Conn(conn).Model(o).Set(set, args...).WherePK().Exec(ctx)
		}
	}
	for _, o := range s.rows[w.payer] { // ordered by period
		switch {
		case o.removed():
		case o.BillingPeriodStart.Before(w.period.Start):
			if o.BillingPeriodEnd.After(w.period.Start) {
				early = true
				update(o, "billing_period_end = ?", w.period.Start)
			}
		case !o.BillingPeriodStart.Before(w.period.End):
		case own != nil: // its usage records move to own
			update(o, "counted = TRUE, spend_limit_cents = NULL")
			update(own, "counted = FALSE")
		case !o.BillingPeriodStart.Equal(w.period.Start):
			own = o
			update(o, "billing_period_start = ?, billing_period_end = ?, counted = FALSE", w.period.Start, w.period.End)
		default:
			if own = o; !o.BillingPeriodEnd.Equal(w.period.End) {
				update(o, "billing_period_end = ?", w.period.End)
			}
		}
	}
	if own == nil && err == nil {
		changed = true
		_, err = conn.ExecContext(ctx, newOrganizationRecord(db, w, !early, now, people.ids()).String())
	}
	return changed, err
}

// newOrganizationRecord inserts the record of a period, unless another transaction has. The limit
// is in force at once. If fresh is false or there are usage records of other people, the new record
// does not count everything yet. Reading the limit locks it until the record is visible to whoever
// changes it.
func newOrganizationRecord(db *DB, w paidPeriod, fresh bool, now time.Time, people []uuid.UUID) *bun.RawQuery {
	lock := bun.Safe("")
	if db.Postgres {
		lock = "FOR SHARE"
	}
	return db.NewRaw(`WITH o AS (SELECT id, spend_limit_cents,
			? AND NOT EXISTS (SELECT 1 FROM usage_records r WHERE r.payer = ? AND r.payer <> '' AND r.billing_period_start >= ?
			AND r.billing_period_start < ?
				AND r.user_id NOT IN (?)) AS counted
		FROM organizations WHERE id = ? ?)
		INSERT INTO organization_records (organization_id, payer, billing_period_start, billing_period_end, spend_limit_cents,
		counted, created_at)
		SELECT id, ?, ?, ?, spend_limit_cents, counted, ? FROM o WHERE spend_limit_cents IS NOT NULL
		ON CONFLICT (payer, billing_period_start) DO NOTHING`,
		fresh, w.payer, w.period.Start, w.period.End, bun.List(people), w.organization, lock, w.payer, w.period.Start, w.period.End, now)
}

func (s *spending) read(ctx context.Context, db *DB, conn ledgerConn, payers map[string]bool) error {
	for payer := range payers {
		s.rows[payer] = nil
	}
	query := db.NewSelect().Model((*OrganizationRecord)(nil)).
		Column("id", "payer", "billing_period_start", "billing_period_end", "spend_limit_cents", "counted").
		Where("payer IN (?)", bun.List(slices.Sorted(maps.Keys(payers)))).Order("payer", "billing_period_start")
	// A row to which a record may point must not be deleted before that is visible.
	return conn.rows(ctx, lockRows(query, "KEY SHARE").String(), func(row scanner) error {
		o := &OrganizationRecord{}
		err := row.Scan(&o.ID, &o.Payer, &o.BillingPeriodStart, &o.BillingPeriodEnd, &o.SpendLimitCents, &o.Counted)
		s.rows[o.Payer] = append(s.rows[o.Payer], o)
		return err
	})
}

// removed reports whether the limit was removed, so that the row will be deleted.
func (o *OrganizationRecord) removed() bool { return o.Counted && o.SpendLimitCents == nil }

// find returns a payer's record for a time; nil without one.
func (s *spending) find(payer string, at time.Time) *OrganizationRecord {
	for _, o := range s.rows[payer] {
		if !o.removed() && !at.Before(o.BillingPeriodStart) && at.Before(o.BillingPeriodEnd) {
			return o
		}
	}
	return nil
}

// readPast reads the records of the organizations that paid for the people at the past instants
// that were prepared. An organization that already had a limit in an earlier period gets the records
// of periods in which nothing was used so far.
func (s *spending) readPast(ctx context.Context, db *DB, conn ledgerConn, now time.Time, people persons) error {
	more := map[string]bool{}
	for _, p := range people {
		for _, w := range p.past {
			if _, read := s.rows[w.payer]; !read {
				more[w.payer] = true
			}
		}
	}
	if len(more) > 0 {
		if err := s.read(ctx, db, conn, more); err != nil {
			return err
		}
	}
	clear(more)
	for _, id := range people.ids() {
		for _, w := range people[id].past {
			rows := s.rows[w.payer]
			if len(rows) == 0 || !rows[0].BillingPeriodStart.Before(w.period.Start) || s.find(w.payer, w.period.Start) != nil {
				continue
			}
			more[w.payer] = true
			if _, err := conn.ExecContext(ctx, newOrganizationRecord(db, w, true, now, people.ids()).String()); err != nil {
				return err
			}
		}
	}
	if len(more) == 0 {
		return nil
	}
	return s.read(ctx, db, conn, more)
}

// finish points the people's records to the records of their organizations, and adds the
// differences to those.
func (s *spending) finish(ctx context.Context, db *DB, conn ledgerConn, now time.Time, people persons) error {
	if err := s.readPast(ctx, db, conn, now, people); err != nil || len(s.rows) == 0 {
		return err
	}
	for _, id := range people.ids() {
		for _, r := range people[id].records {
			if r.Payer == nil {
				continue
			}
			var points *int64
			if o := s.find(*r.Payer, r.BillingPeriodStart); o != nil {
				points = &o.ID
			}
			if points == nil && r.OrganizationRecordID == nil || points != nil && r.OrganizationRecordID != nil &&
				*points == *r.OrganizationRecordID {
				continue
			}
			r.OrganizationRecordID = points
			if _, err := db.NewUpdate().Conn(conn).Model((*UsageRecord)(nil)).Set("organization_record_id = ?", points).
				Where("user_id = ? AND billing_period_start = ?", r.UserID, r.BillingPeriodStart).Exec(ctx); err != nil {
				return err
			}
		}
	}
	after := spendOf(people)
	changed := maps.Clone(after)
	for id := range s.before {
		changed[id] = after[id]
	}
	for _, id := range slices.Sorted(maps.Keys(changed)) {
		if err := addSpent(ctx, db, conn, id, s.before[id], after[id]); err != nil {
			return err
		}
	}
	return nil
}

// addSpent adds the difference of two sums to an organization's record.
func addSpent(ctx context.Context, db *DB, conn bun.IConn, id int64, before, after spent) error {
	if before == after {
		return nil
	}
	q := db.NewUpdate().Conn(conn).Model((*OrganizationRecord)(nil)).
		Set("overage_cents = overage_cents + ?", after.cents-before.cents).
		Set("overage_cents_held = overage_cents_held + ?", after.held-before.held).Where("id = ?", id)
	if !after.expire.IsZero() {
		q = q.Set("holds_expire_at = CASE WHEN holds_expire_at < ? THEN holds_expire_at ELSE ? END", after.expire, after.expire)
	}
	_, err := q.Exec(ctx)
	return err
}
