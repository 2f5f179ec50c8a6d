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
// creates those of the current periods. It returns nil if the people have nothing to do with a
// spend limit of an organization.
func startSpending(ctx context.Context, db *DB, conn ledgerConn, now time.Time, people persons) (*spending, error) {
	type current struct {
		organization uuid.UUID
		payer        string
		period       Period
	}
	var windows []current
	payers := map[string]bool{}
	for _, p := range people {
		e := &p.entitlement
		if e.OrganizationID != nil && e.OrganizationSpendLimitCents != nil {
			payers[e.payer()] = true
			if w := (current{*e.OrganizationID, e.payer(), e.PeriodAt(now)}); !slices.Contains(windows, w) {
				windows = append(windows, w)
			}
		}
		for _, r := range p.records {
			if r.OrganizationRecordID != nil && r.Payer != nil {
				payers[*r.Payer] = true
			}
		}
	}
	if len(payers) == 0 {
		return nil, nil
	}
	s := &spending{before: spendOf(people)}
	if err := s.read(ctx, db, conn, payers); err != nil {
		return nil, err
	}
	slices.SortFunc(windows, func(a, b current) int {
		return cmp.Or(cmp.Compare(a.payer, b.payer), a.period.Start.Compare(b.period.Start))
	})
	made := false
	for _, w := range windows {
		switch known := s.find(w.payer, w.period.Start); {
		case known == nil:
			made = true
			if _, err := conn.ExecContext(ctx, newOrganizationRecord(db, w.organization, w.payer, w.period, now, people.ids()).
				String()); err != nil {
				return nil, err
			}
		case known.BillingPeriodStart.Equal(w.period.Start) && !known.BillingPeriodEnd.Equal(w.period.End):
			known.BillingPeriodEnd = w.period.End
			if _, err := db.NewUpdate().Conn(conn).Model(known).Column("billing_period_end").WherePK().Exec(ctx); err != nil {
				return nil, err
			}
		}
	}
	if made {
		return s, s.read(ctx, db, conn, payers)
	}
	return s, nil
}

// newOrganizationRecord inserts the record of a period, unless another transaction has. The limit
// is in force at once if all records of the period are those of the given people, or point to the
// new record already. Reading the limit locks it until the record is visible to whoever changes it.
func newOrganizationRecord(db *DB, organization uuid.UUID, payer string, period Period, now time.Time, people []uuid.UUID) *bun.RawQuery {
	lock := bun.Safe("")
	if db.Postgres {
		lock = "FOR SHARE"
	}
	return db.NewRaw(`WITH o AS (SELECT id, spend_limit_cents,
			NOT EXISTS (SELECT 1 FROM usage_records r WHERE r.payer = ? AND r.payer <> '' AND r.billing_period_start >= ?
			AND r.billing_period_start < ?
				AND r.organization_record_id IS NULL AND r.user_id NOT IN (?)) AS counted
		FROM organizations WHERE id = ? ?)
		INSERT INTO organization_records (organization_id, payer, billing_period_start, billing_period_end, spend_limit_cents,
		counted, created_at)
		SELECT id, ?, ?, ?, CASE WHEN counted THEN spend_limit_cents END, counted, ? FROM o WHERE spend_limit_cents IS NOT NULL
		ON CONFLICT (payer, billing_period_start) DO NOTHING`,
		payer, period.Start, period.End, bun.List(people), organization, lock, payer, period.Start, period.End, now)
}

func (s *spending) read(ctx context.Context, db *DB, conn ledgerConn, payers map[string]bool) error {
	s.rows = map[string][]*OrganizationRecord{}
	query := db.NewSelect().Model((*OrganizationRecord)(nil)).
		Column("id", "payer", "billing_period_start", "billing_period_end", "spend_limit_cents", "counted").
		Where("payer IN (?)", bun.List(slices.Sorted(maps.Keys(payers)))).Order("id")
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
		if !at.Before(o.BillingPeriodStart) && at.Before(o.BillingPeriodEnd) {
			return o
		}
	}
	return nil
}

// finish points the people's records to the records of their organizations, and adds the
// differences to those.
func (s *spending) finish(ctx context.Context, db *DB, conn ledgerConn, people persons) error {
	for _, id := range people.ids() {
		for _, r := range people[id].records {
			if r.Payer == nil {
				continue
			}
			var points *int64
			if o := s.find(*r.Payer, r.BillingPeriodStart); o != nil && !o.removed() {
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
