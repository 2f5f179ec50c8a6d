package models

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/uptrace/bun"
	"golang.org/x/sync/errgroup"
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

// OrganizationPast returns an organization's usage in the past period that q selects. current is the
// organization's current billing period.
func (c *PastUsageCache) OrganizationPast(
	ctx context.Context, db *DB, catalogue *Catalogue, now time.Time, o *Organization, current Period, q PeriodQuery,
) (OrganizationPeriod, error) {
	past := OrganizationPeriod{OrganizationSummary: OrganizationSummary{ID: o.ID, Name: o.Name, Period: q.In(current)}}
	n := 1
	for start := current.Start; start.After(q.Start) && (start.After(o.CreatedAt) || n < HistoryMonths); n++ {
		start = monthsAfter(current.Start, -n)
	}
	switch {
	case !q.End.After(o.CreatedAt):
		n = HistoryMonths
	case n > HistoryMonths:
		n += HistoryMonths - 1
	}
	var both errgroup.Group
	both.Go(Recovered(func() error {
		// The newest of the months is the current one.
		summary, err := OrganizationTotals(ctx, db, catalogue, now, o.ID)
		if err != nil {
			return err
		}
		months, err := c.OrganizationMonths(ctx, db, now, &summary, o.CreatedAt, max(n, HistoryMonths))
		past.Months = months[:min(len(months), HistoryMonths)]
		return err
	}))
	both.Go(Recovered(func() error {
		if err := past.sumUp(ctx, db, c, now); err != nil {
			return fmt.Errorf("sum up a past period of the organization %s: %w", o.ID, err)
		}
		return nil
	}))
	err := both.Wait()
	past.Founded = past.ActiveUsers > 0 || past.Period.End.After(o.CreatedAt)
	return past, err
}

// PastSummary returns the summary of an organization's period that has ended, as OrganizationPast
// does.
func (c *PastUsageCache) PastSummary(
	ctx context.Context, db bun.IDB, now time.Time, o *Organization, period Period,
) (OrganizationSummary, error) {
	past := OrganizationPeriod{OrganizationSummary: OrganizationSummary{ID: o.ID, Name: o.Name, Period: period}}
	if err := past.sumUp(ctx, db, c, now); err != nil {
		return OrganizationSummary{}, fmt.Errorf("sum up a past period of the organization %s: %w", o.ID, err)
	}
	return past.OrganizationSummary, nil
}

// periodSums are the sums of the members' records that began in a period.
type periodSums struct {
	version                                         string
	active, exceeding, used, included, units, cents int64
	plan                                            PlanID
	top                                             []RankedUser
	people                                          []uuid.UUID // of top
}

// sumUp adds the figures of the members' records that began in the period, and the limit.
func (p *OrganizationPeriod) sumUp(ctx context.Context, db bun.IDB, c *PastUsageCache, now time.Time) error {
	workspaces, version, err := workspacesOf(ctx, db, p.ID)
	if err != nil || len(workspaces) == 0 {
		return err
	}
	key := sumKey{p.ID, p.Period.Start.UnixMicro(), p.Period.End.UnixMicro()}
	sums, known := c.periods.get(key)
	if !known || sums.version != version {
		var ended time.Time
		if sums, ended, err = readPeriod(ctx, db, workspaces, p.Period); err != nil {
			return err
		}
		if sums.version = version; !ended.After(now.Add(-endedAfter)) {
			c.periods.put(key, sums)
		}
	}
	p.ActiveUsers, p.OveragePeople, p.TotalSuggestions, p.Included = sums.active, sums.exceeding, sums.used, sums.included
	p.OverageUnits, p.OverageCents, p.Plan = sums.units, sums.cents, sums.plan
	if p.TopUsers, err = sums.named(ctx, db); err != nil {
		return err
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

// readPeriod sums up the records of a period, and returns when the last one ended.
func readPeriod(ctx context.Context, db bun.IDB, workspaces []uuid.UUID, period Period) (sums periodSums, ended time.Time, err error) {
	var rows []struct {
		Place                                                   int
		Plan                                                    PlanID
		UserID                                                  *uuid.UUID `bun:",type:uuid"`
		People, Active, Exceeding, Used, Included, Units, Cents int64
		Ended                                                   *time.Time
	}
	// One pass over the records. A person can have several in a period; the largest limit counts.
	err = db.NewRaw(`WITH m AS MATERIALIZED (SELECT r.user_id, MAX(r.email) AS email, MAX(r.plan_id) AS plan,
			CAST(SUM(r.suggestions_used) AS bigint) AS used, CAST(SUM(r.overage_used) AS bigint) AS overage,
			CAST(SUM(r.overage_cents) AS bigint) AS cents, CAST(SUM(r.suggestions_included + r.granted) AS bigint) AS included,
			MAX(r.suggestions_included + r.granted) AS largest, MAX(r.billing_period_end) AS ended
			FROM usage_records r WHERE r.present_workspace_id IN (?) AND r.billing_period_start >= ? AND r.billing_period_start < ?
			GROUP BY r.user_id)
		SELECT * FROM (SELECT 2 AS place, plan, user_id, 0 AS people, 0 AS active, 0 AS exceeding, used, largest AS included, overage AS units,
				cents, ended FROM m WHERE used > 0 ORDER BY used DESC, email LIMIT ?) t
		UNION ALL SELECT 0, '', CAST(NULL AS uuid), COUNT(*), COUNT(CASE WHEN m.used > 0 THEN 1 END), COUNT(CASE WHEN m.overage > 0 THEN 1 END),
			CAST(COALESCE(SUM(m.used), 0) AS bigint), CAST(COALESCE(SUM(m.included), 0) AS bigint),
			CAST(COALESCE(SUM(m.overage), 0) AS bigint), CAST(COALESCE(SUM(m.cents), 0) AS bigint), MAX(m.ended) FROM m
		UNION ALL SELECT * FROM (SELECT 1, plan, CAST(NULL AS uuid), COUNT(*) AS people, 0, 0, 0, 0, 0, 0, MAX(ended) FROM m GROUP BY plan
			ORDER BY people DESC, plan LIMIT 1) p`,
		bun.List(workspaces), period.Start, period.End, topUsers).Scan(ctx, &rows)
	ended = period.End
	for _, r := range rows {
		switch r.Place {
		case 0:
			sums.active, sums.exceeding, sums.used, sums.included = r.Active, r.Exceeding, r.Used, r.Included
			sums.units, sums.cents = r.Units, r.Cents
			if r.Ended != nil {
				ended = latest(ended, *r.Ended)
			}
		case 1:
			sums.plan = r.Plan
		default:
			sums.top = append(sums.top, RankedUser{Used: r.Used, Overage: r.Units, Included: r.Included})
			sums.people = append(sums.people, *r.UserID)
		}
	}
	return sums, ended, err
}

// named returns the top users with their current names and addresses, which are not cached.
func (s *periodSums) named(ctx context.Context, db bun.IDB) ([]RankedUser, error) {
	if len(s.people) == 0 {
		return nil, nil
	}
	var users []User
	if err := db.NewSelect().Model(&users).Column("id", "email", "name").Where("id IN (?)", bun.List(s.people)).Scan(ctx); err != nil {
		return nil, err
	}
	top := slices.Clone(s.top)
	for i := range top {
		u := &top[i]
		for j := range users {
			if users[j].ID == s.people[i] {
				u.Email, u.Name = users[j].Email, users[j].Name
			}
		}
		standing := Standing{Used: u.Used, Overage: u.Overage, Included: u.Included}
		u.PercentUsed, u.WarningLevel = standing.PercentUsed(), standing.Level()
	}
	slices.SortFunc(top, func(a, b RankedUser) int { return cmp.Or(cmp.Compare(b.Used, a.Used), cmp.Compare(a.Email, b.Email)) })
	for i := range top {
		top[i].Rank = i + 1
	}
	return top, nil
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

// CurrentPeriodOf returns the current billing period of an organization: its subscription's at
// Stripe, or else the calendar month.
func CurrentPeriodOf(ctx context.Context, db bun.IDB, now time.Time, id uuid.UUID) (Period, error) {
	e, err := organizationEntitlement(ctx, db, id)
	if err != nil {
		return Period{}, fmt.Errorf("read the billing period of the organization %s: %w", id, err)
	}
	if e == nil {
		e = &Entitlement{}
	}
	return e.PeriodAt(now), nil
}
