package models

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/uptrace/bun"
)

// DefaultHistoryMonths is how many billing periods UsageHistory returns unless it is asked for others.
const DefaultHistoryMonths = 6

// CurrentUsage returns a person's usage record of the billing period that contains now; nil when there is none.
func CurrentUsage(ctx context.Context, db bun.IDB, now time.Time, email string) (*UsageRecord, error) {
	var records []UsageRecord
	// The lower bound lets an index on the start find the record without reading the ones before it.
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

// UsageHistory returns a person's newest usage records, the current one included, newest first; months at most, and
// none for a period in which nothing was asked for.
func UsageHistory(ctx context.Context, db bun.IDB, now time.Time, email string, months int) ([]UsageRecord, error) {
	var records []UsageRecord
	err := db.NewSelect().Model(&records).Where("user_id = (?)", idOf(db, email)).Where("billing_period_start <= ?", now).
		Order("billing_period_start DESC").Limit(int64(months)).Scan(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the usage history of %s: %w", email, err)
	}
	return records, nil
}

// StandingHistory is UsageHistory as it is once PrepareRecords has run: the current record of a person whose plan changed has what the
// new plan gives, and one that the plan's own period began in, or whose payer changed, ends there. Only if units must move to another
// record for that, RefitRecords runs.
func StandingHistory(ctx context.Context, db *DB, c *Catalogue, now time.Time, email string, months int) ([]Standing, error) {
	standings, moves, err := standingHistory(ctx, db, c, now, email, months)
	if err == nil && moves {
		if err = RefitRecords(ctx, db, c, now, []uuid.UUID{standings[0].UserID}); err == nil {
			standings, _, err = standingHistory(ctx, db, c, now, email, months)
		}
	}
	return standings, err
}

func standingHistory(ctx context.Context, db *DB, c *Catalogue, now time.Time, email string, months int) (standings []Standing, moves bool, err error) {
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

// HistoryMonths is how many billing periods the pages show.
const HistoryMonths = 6

// PastPeriod is what was used in one billing period, which may be the current one.
type PastPeriod struct {
	Period Period
	// Plan is the plan of the period: for a past period, that of its last record; without a record, today's plan.
	Plan PlanID
	// BeforeSignUp says that there was nobody to use anything, which is not the same as 0.
	BeforeSignUp bool
	// Used and Included are units; Included is the period's own limit, not today's.
	Used, Included int64
	// Overage is the units that were used beyond a limit: in each record for itself, so that an organization has overage as soon
	// as one of its members has. OverageCents is its price in cents, before tax.
	Overage, OverageCents int64
	// Current says that the period is not over.
	Current bool
}

// MovedOverage is overage that was decided in another billing period than the one that it occurred in, and stays billed.
type MovedOverage struct {
	Period Period
	// In and Out are the units that came to the period and left it.
	In, Out int64
}

// MovedOverages lists the periods of the records that overage moved between, as far as they are not before since.
func MovedOverages(records []UsageRecord, since time.Time) (moved []MovedOverage) {
	for i := range records {
		if r := &records[i]; (r.OverageMovedIn > 0 || r.OverageMovedOut > 0) && r.BillingPeriodEnd.After(since) {
			moved = append(moved, MovedOverage{Period: r.Period(), In: r.OverageMovedIn, Out: r.OverageMovedOut})
		}
	}
	return moved
}

// periodsBack lists the n periods up to the current one, oldest first, with nothing used in them: monthly steps back from
// its start.
func periodsBack(current Period, signedUp time.Time, n int) []PastPeriod {
	months := make([]PastPeriod, n)
	p := current
	for i := n - 1; i >= 0; i-- {
		months[i] = PastPeriod{Period: p, BeforeSignUp: !p.End.After(signedUp), Current: i == n-1}
		p = Period{Start: AnchoredMonth(current.Start, p.Start.Add(-time.Microsecond)).Start, End: p.Start} // the anchor's day, also after a short month
	}
	return months
}

// Months lists a person's n newest billing periods, oldest first. The current one is as the standing says; those before are as
// their records say; a period without a record has nothing used, and the limit of today.
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
			// A period that a new subscription cut short shares its month with the next one: the larger limit is the month's.
			m.Included = max(m.Included, s.Included)
			if !start.Before(newest[j]) {
				m.Plan, newest[j] = r.PlanID, start
			}
		}
	}
	return months
}

// RecordsSince returns the usage records of some people whose period began after since, oldest first, by email.
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
