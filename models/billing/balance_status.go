package billing

import (
	"context"
	"fmt"
	"time"

	"github.com/uptrace/bun"

	"tollgate/models"
)

// OverageStatus says where the overage of current billing periods is, and of those that ended in
// the last 35 days.
type OverageStatus struct {
	// Steps has each step in the order of models.OverageSteps. Reasons has each reason in the order
	// of models.OverageReasons. The sum of unexplained amounts ignores their signs.
	Steps, Reasons []models.OverageShare
	// CheckedAt is when the newest balance was computed; nil without one.
	CheckedAt *time.Time
	// Balances are up to a hundred balances with overage that is neither invoiced nor waiting,
	// unexplained ones first.
	Balances []models.OverageBalance
}

// readOverage reads where the overage of billing periods that ended after since is.
func readOverage(ctx context.Context, db bun.IDB, since time.Time) (*OverageStatus, error) {
	var sums []struct {
		Part         models.OveragePart
		Units, Cents int64
		Checked      bun.NullTime
	}
	if err := db.NewRaw(`SELECT part, CAST(SUM(CASE WHEN part = ? THEN ABS(units) ELSE units END) AS bigint) AS units,
			CAST(SUM(CASE WHEN part = ? THEN ABS(cents) ELSE cents END) AS bigint) AS cents, MAX(checked_at) AS checked
		FROM stripe_balances WHERE period_end > ? GROUP BY part`, models.OverageUnexplained, models.OverageUnexplained,
		since).Scan(ctx, &sums); err != nil {
		return nil, fmt.Errorf("sum balances: %w", err)
	}
	s := &OverageStatus{}
	of := func(parts []models.OveragePart) []models.OverageShare {
		shares := make([]models.OverageShare, len(parts))
		for i, part := range parts {
			shares[i].Part = part
			for _, sum := range sums {
				if sum.Part != part {
					continue
				}
				shares[i].OverageSum = models.OverageSum{Units: sum.Units, Cents: sum.Cents}
				if at := sum.Checked.UTC(); !sum.Checked.IsZero() && (s.CheckedAt == nil || at.After(*s.CheckedAt)) {
					s.CheckedAt = &at
				}
			}
		}
		return shares
	}
	s.Steps, s.Reasons = of(models.OverageSteps), of(models.OverageReasons)
	var keys []struct {
		Payer, MeterEventName string
		PeriodStart           time.Time
	}
	resolved := append([]models.OveragePart{models.OverageWaiting}, models.OverageSteps...)
	if err := db.NewRaw(`SELECT payer, meter_event_name, period_start FROM stripe_balances WHERE period_end > ? AND part NOT IN (?)
		GROUP BY 1, 2, 3 ORDER BY MAX(CASE WHEN part = ? THEN 1 ELSE 0 END) DESC, SUM(ABS(cents)) DESC, 1, 2, 3 LIMIT ?`,
		since, bun.List(resolved), models.OverageUnexplained, listed).Scan(ctx, &keys); err != nil {
		return nil, fmt.Errorf("list balances: %w", err)
	}
	if len(keys) == 0 {
		return s, nil
	}
	q := db.NewSelect().Model((*balanceRow)(nil)).WhereGroup(" AND ", func(q *bun.SelectQuery) *bun.SelectQuery {
		for _, k := range keys {
			q = q.WhereOr("payer = ? AND meter_event_name = ? AND period_start = ?", k.Payer, k.MeterEventName, k.PeriodStart)
		}
		return q
	})
	found, err := readBalances(ctx, db, q)
	if err != nil {
		return nil, err
	}
	for _, k := range keys {
		for _, b := range found {
			if b.Payer == k.Payer && b.MeterEventName == k.MeterEventName && b.Period.Start.Equal(k.PeriodStart) {
				s.Balances = append(s.Balances, b)
			}
		}
	}
	return s, nil
}
