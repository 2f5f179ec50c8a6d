package models

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/uptrace/bun"
)

// DefaultHistoryMonths is the number of billing periods that UsageHistory returns by default.
const DefaultHistoryMonths = 6

// CurrentUsage returns a person's usage record of the billing period that contains now; nil without
// one.
func CurrentUsage(ctx context.Context, db bun.IDB, now time.Time, email string) (*UsageRecord, error) {
	var records []UsageRecord
	// With the lower bound, an index on the start finds the record without reading the earlier
	// ones.
	err := db.NewSelect().Model(&records).Where("user_id = (?)", idOf(db, email)).
		Where("billing_period_start <= ? AND billing_period_start > ?", now, now.Add(-maxPeriod)).Where("billing_period_end > ?", now).Scan(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the current usage of %s: %w", email, err)
	}
	if len(records) == 0 {
		return nil, nil
	}
	return &records[0], nil
}

// idOf selects the ID of the person with an email.
func idOf(db bun.IDB, email string) *bun.SelectQuery {
	return db.NewSelect().Model((*User)(nil)).Column("id").Where("email = ?", email)
}

// UsageHistory returns a person's newest usage records, including the current one, newest first; at
// most months. A period without any call has no record.
func UsageHistory(ctx context.Context, db bun.IDB, now time.Time, email string, months int) ([]UsageRecord, error) {
	var records []UsageRecord
	err := db.NewSelect().Model(&records).Where("user_id = (?)", idOf(db, email)).Where("billing_period_start <= ?", now).
		Order("billing_period_start DESC").Limit(int64(months)).Scan(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the usage history of %s: %w", email, err)
	}
	return records, nil
}

// StandingHistory returns UsageHistory as it is after PrepareRecords: the current record has what
// the current plan gives, and a record ends where a period of the plan began or the payer changed.
// It calls RefitRecords only if units must move to another record.
func StandingHistory(ctx context.Context, db *DB, c *Catalogue, now time.Time, email string, months int) ([]Standing, error) {
	standings, moves, err := standingHistory(ctx, db, c, now, email, months)
	if err == nil && moves {
		if err = RefitRecords(ctx, db, c, now, []uuid.UUID{standings[0].UserID}); err == nil {
			standings, _, err = standingHistory(ctx, db, c, now, email, months)
		}
	}
	return standings, err
}

func standingHistory(ctx context.Context, db *DB, c *Catalogue, now time.Time, email string, months int,
) (standings []Standing, moves bool, err error) {
	records, err := UsageHistory(ctx, db, now, email, months)
	if err != nil || len(records) == 0 {
		return nil, false, err
	}
	if _, ready := c.Standing(&records[0], now); !ready && records[0].Period().Contains(now) {
		ahead, err := ReadAhead(ctx, db, c, now, []RecordKey{{UserID: records[0].UserID}})
		if err != nil {
			return nil, false, err
		}
		if p := ahead.people[records[0].UserID]; p != nil {
			p.records = nil
			for i := range records {
				p.keep(&records[i])
			}
			for _, changed := range p.fit(now) {
				moves = moves || changed.moves
			}
			moves = moves || records[0].grantsLapsed(now)
			if records[0].Period().Contains(now) {
				c.entitle(&records[0], &p.entitlement)
			}
		}
	}
	standings = make([]Standing, len(records))
	for i := range records {
		standings[i], _ = c.Standing(&records[i], now)
	}
	return standings, moves, nil
}

// HistoryMonths is the number of billing periods on the pages.
const HistoryMonths = 6

// PastPeriod is the usage in one billing period, which may be the current one.
type PastPeriod struct {
	Period Period
	// Plan is the plan of the period's last record, or the current plan without a record.
	Plan PlanID
	// BeforeSignUp means that the person did not exist yet, which is different from no usage.
	BeforeSignUp bool
	// Used and Included are in units. Included is the limit of that period, not the current one.
	Used, Included int64
	// Overage is the units beyond the limit of each record. An organization has overage as soon as
	// one member has. OverageCents is its price in cents, before tax.
	Overage, OverageCents int64
	// Current means that the period has not ended.
	Current bool
}

// MovedOverage is overage that occurred in another billing period than the one that it was decided
// in. It stays billed.
type MovedOverage struct {
	Period Period
	// In and Out are the units that moved into the period and out of it.
	In, Out int64
}

// MovedOverages returns the periods with moved overage that start at since or later.
func MovedOverages(records []UsageRecord, since time.Time) (moved []MovedOverage) {
	for i := range records {
		if r := &records[i]; (r.OverageMovedIn > 0 || r.OverageMovedOut > 0) && r.BillingPeriodEnd.After(since) {
			moved = append(moved, MovedOverage{Period: r.Period(), In: r.OverageMovedIn, Out: r.OverageMovedOut})
		}
	}
	return moved
}

// periodsBack returns the newest n periods without usage, oldest first: monthly steps back from the
// start of the current one.
func periodsBack(current Period, signedUp time.Time, n int) []PastPeriod {
	months := make([]PastPeriod, n)
	p := current
	for i := n - 1; i >= 0; i-- {
		months[i] = PastPeriod{Period: p, BeforeSignUp: !p.End.After(signedUp), Current: i == n-1}
		// the anchor's day, also after a short month
		p = Period{Start: AnchoredMonth(current.Start, p.Start.Add(-time.Microsecond)).Start, End: p.Start}
	}
	return months
}

// Months returns a person's newest n billing periods, oldest first. The current one has the figures
// of the standing, and past ones those of their records. A period without a record has no usage and
// today's limit.
func Months(current Standing, records []UsageRecord, signedUp time.Time, n int) []PastPeriod {
	months := periodsBack(current.Period, signedUp, n)
	last := &months[n-1]
	last.Used, last.Included, last.BeforeSignUp = current.Used, current.Included, false
	last.Overage, last.OverageCents = current.Overage, current.OverageCents
	for i := range months[:n-1] {
		months[i].Included, months[i].Plan = current.Included, current.Plan
	}
	last.Plan = current.Plan
	newest := make([]time.Time, n) // the start of the record that gave a month its plan
	for i := range records {
		r := &records[i]
		start := r.BillingPeriodStart.UTC()
		for j := range months[:n-1] {
			m := &months[j]
			if !m.Period.Contains(start) {
				continue
			}
			s := Standing{Used: r.SuggestionsUsed, Overage: r.OverageUsed, OverageCents: r.OverageCents, Included: r.SuggestionsIncluded + r.Granted}
			if m.BeforeSignUp || m.Used == 0 && m.OverageCents == 0 {
				m.Included = 0
			}
			m.Used, m.Overage, m.OverageCents, m.BeforeSignUp = m.Used+s.Used, m.Overage+s.Overage, m.OverageCents+s.OverageCents, false
			// A period that a new subscription cut short shares its month with the next one. The
			// month has the larger limit.
			m.Included = max(m.Included, s.Included)
			if !start.Before(newest[j]) {
				m.Plan, newest[j] = r.PlanID, start
			}
		}
	}
	return months
}

// RecordsSince returns the usage records of some people that began after since, by email, oldest
// first.
func RecordsSince(ctx context.Context, db bun.IDB, since time.Time, emails []string) (map[string][]UsageRecord, error) {
	byEmail := make(map[string][]UsageRecord, len(emails))
	if len(emails) == 0 {
		return byEmail, nil
	}
	var records []UsageRecord
	err := db.NewSelect().Model(&records).Where("email IN (?)", bun.List(emails)).Where("billing_period_start > ?", since).
		Order("email", "billing_period_start").Scan(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the usage records of %d people: %w", len(emails), err)
	}
	for _, r := range records {
		byEmail[r.Email] = append(byEmail[r.Email], r)
	}
	return byEmail, nil
}
