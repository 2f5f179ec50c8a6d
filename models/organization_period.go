package models

import (
	"context"
	"fmt"
	"time"

	"github.com/uptrace/bun"
)

// OrganizationPeriod is an organization's usage in a billing period that has ended: that of its
// current members, as in OrganizationMonths.
type OrganizationPeriod struct {
	// OrganizationSummary has the figures of the period. Its plan is that of most members at the time;
	// empty without usage records. SpendLimitCents and Spent are of the organization's record of the
	// period.
	OrganizationSummary

	// Founded is false if the organization did not exist yet and no member used anything.
	Founded bool
	// Months are the newest six, or the six up to this period if it is older.
	Months []PastPeriod
}

// OrganizationPast returns an organization's usage in a past period. current is the organization's
// usage now, and founded is when the organization was created.
func (c *PastUsageCache) OrganizationPast(
	ctx context.Context, db bun.IDB, now time.Time, current *OrganizationSummary, founded time.Time, q PeriodQuery,
) (OrganizationPeriod, error) {
	past := OrganizationPeriod{OrganizationSummary: OrganizationSummary{ID: current.ID, Name: current.Name, Period: q.In(current.Period)}}
	n := 1
	for start := current.Period.Start; start.After(q.Start) && (start.After(founded) || n < HistoryMonths); n++ {
		start = monthsAfter(current.Period.Start, -n)
	}
	switch {
	case !q.End.After(founded):
		n = HistoryMonths
	case n > HistoryMonths:
		n += HistoryMonths - 1
	}
	months, err := c.OrganizationMonths(ctx, db, now, current, founded, max(n, HistoryMonths))
	if err != nil {
		return past, err
	}
	past.Months = months[:HistoryMonths]
	if err := past.sumUp(ctx, db); err != nil {
		return past, fmt.Errorf("sum up a past period of the organization %s: %w", current.ID, err)
	}
	past.Founded = past.ActiveUsers > 0 || past.Period.End.After(founded)
	return past, nil
}

// sumUp reads the figures of the members' records that began in the period, and the limit.
func (p *OrganizationPeriod) sumUp(ctx context.Context, db bun.IDB) error {
	workspaces, _, err := workspacesOf(ctx, db, p.ID)
	if err != nil || len(workspaces) == 0 {
		return err
	}
	var rows []struct {
		Place                          int
		Email, Name                    string
		People, Active, Exceeding      int64
		Used, Included, Overage, Cents int64
	}
	// One pass over the records. A person can have several in a period; the largest limit counts.
	err = db.NewRaw(`WITH m AS MATERIALIZED (SELECT r.user_id, MAX(r.email) AS email, MAX(r.plan_id) AS plan,
			CAST(SUM(r.suggestions_used) AS bigint) AS used, CAST(SUM(r.overage_used) AS bigint) AS overage,
			CAST(SUM(r.overage_cents) AS bigint) AS cents, CAST(SUM(r.suggestions_included + r.granted) AS bigint) AS included,
			MAX(r.suggestions_included + r.granted) AS largest
			FROM usage_records r WHERE r.present_workspace_id IN (?) AND r.billing_period_start >= ? AND r.billing_period_start < ?
			GROUP BY r.user_id)
		SELECT 0 AS place, '' AS email, '' AS name, COUNT(*) AS people, COUNT(CASE WHEN m.used > 0 THEN 1 END) AS active,
			COUNT(CASE WHEN m.overage > 0 THEN 1 END) AS exceeding, CAST(COALESCE(SUM(m.used), 0) AS bigint) AS used,
			CAST(COALESCE(SUM(m.included), 0) AS bigint) AS included, CAST(COALESCE(SUM(m.overage), 0) AS bigint) AS overage,
			CAST(COALESCE(SUM(m.cents), 0) AS bigint) AS cents FROM m
		UNION ALL SELECT * FROM (SELECT 1, plan, '', COUNT(*) AS people, 0, 0, 0, 0, 0, 0 FROM m GROUP BY plan ORDER BY people DESC, plan LIMIT 1) p
		UNION ALL SELECT 2, t.email, u.name, 0, 0, 0, t.used, t.largest, t.overage, 0
			FROM (SELECT * FROM m WHERE used > 0 ORDER BY used DESC, email LIMIT ?) t JOIN users u ON u.id = t.user_id
		ORDER BY 1, 7 DESC, 2`,
		bun.List(workspaces), p.Period.Start, p.Period.End, topUsers).Scan(ctx, &rows)
	if err != nil {
		return err
	}
	for _, r := range rows {
		switch r.Place {
		case 0:
			p.ActiveUsers, p.OveragePeople, p.TotalSuggestions, p.Included = r.Active, r.Exceeding, r.Used, r.Included
			p.OverageUnits, p.OverageCents = r.Overage, r.Cents
		case 1:
			p.Plan = PlanID(r.Email)
		default:
			s := Standing{Used: r.Used, Overage: r.Overage, Included: r.Included}
			p.TopUsers = append(p.TopUsers, RankedUser{
				Rank: len(p.TopUsers) + 1, Email: r.Email, Name: r.Name, Used: r.Used, Overage: r.Overage, Included: r.Included,
				PercentUsed: s.PercentUsed(), WarningLevel: s.Level(),
			})
		}
	}
	// Members who signed up later count if they have usage in the period.
	err = db.NewRaw(`SELECT (SELECT COUNT(*) FROM users u WHERE u.workspace_id IN (?) AND u.created_at < ?)
		+ (SELECT COUNT(DISTINCT r.user_id) FROM usage_records r JOIN users u ON u.id = r.user_id
			WHERE r.present_workspace_id IN (?) AND r.billing_period_start >= ? AND r.billing_period_start < ? AND r.suggestions_used > 0
				AND u.created_at >= ?)`,
		bun.List(workspaces), p.Period.End, bun.List(workspaces), p.Period.Start, p.Period.End, p.Period.End).Scan(ctx, &p.TotalUsers)
	if err != nil {
		return err
	}
	p.average()
	return p.readLimit(ctx, db)
}

// readLimit reads the spend limit that was in force at the end of the period.
func (p *OrganizationPeriod) readLimit(ctx context.Context, db bun.IDB) error {
	var limited []OrganizationRecord
	err := db.NewSelect().Model(&limited).Where("organization_id = ? AND billing_period_start >= ? AND billing_period_start < ?",
		p.ID, p.Period.Start, p.Period.End).Where("spend_limit_cents IS NOT NULL").Order("billing_period_start DESC").Limit(1).Scan(ctx)
	if err == nil && len(limited) > 0 {
		p.Spent, p.SpendLimitCents = &limited[0], limited[0].SpendLimitCents
	}
	return err
}
