package models

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/uptrace/bun"
)

// endedAfter is how long ago a period must have ended before its sums are cached. It is much longer
// than clocks differ and transactions take, so a transaction that still adds to such a period
// changes the version of its workspace.
const endedAfter = time.Hour

// maxCachedSums bounds the size of each cache.
const maxCachedSums = 4096

// PastUsageCache caches what organizations used in past periods. Only rare changes affect those
// sums: late events, and people who change their organization. Each of them changes the version of
// a workspace in the same transaction, and sums of one version are not used with another, so all
// figures equal those of the database. The zero value is an empty cache. It is safe for concurrent
// use.
type PastUsageCache struct {
	months sumCache[monthSum]
	days   sumCache[daySum]
	// periods are the sums of periods whose records have all ended.
	periods periodCache
}

// periodCache caches the figures of past periods.
type periodCache struct {
	mu   sync.Mutex
	sums map[sumKey]periodSums
}

func (c *periodCache) get(key sumKey) (periodSums, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	sums, ok := c.sums[key]
	return sums, ok
}

func (c *periodCache) put(key sumKey, sums periodSums) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sums == nil || len(c.sums) >= maxCachedSums {
		c.sums = map[sumKey]periodSums{}
	}
	c.sums[key] = sums
}

// sumCache caches sums of ended usage records by organization and range.
type sumCache[T any] struct {
	mu   sync.Mutex
	sums map[sumKey]endedSums[T]
}

// sumKey selects an organization's records that began at from or later and before before.
type sumKey struct {
	organization uuid.UUID
	from, before int64 // in microseconds since 1970
}

// endedSums are the sums of the records that ended at until or earlier.
type endedSums[T any] struct {
	version string
	until   time.Time
	sums    []T
}

// recordRange selects the usage records of an organization's current members that began at from or
// later and before before. Most of them ended at currentStart, when the current billing period
// began.
type recordRange struct {
	organization               uuid.UUID
	from, before, currentStart time.Time
}

// load returns the sums of the records in a range. It reads those of ended periods only if they are
// not cached; read sums up the records that a query selects.
func (c *sumCache[T]) load(ctx context.Context, db bun.IDB, now time.Time, in recordRange, read readSums[T]) ([]T, error) {
	workspaces, version, err := workspacesOf(ctx, db, in.organization)
	if err != nil || len(workspaces) == 0 {
		return nil, err
	}
	records := func() *bun.SelectQuery {
		return db.NewSelect().TableExpr("usage_records AS r").Where("r.present_workspace_id IN (?)", bun.List(workspaces)).
			Where("r.billing_period_start >= ? AND r.billing_period_start < ?", in.from, in.before)
	}
	key := sumKey{in.organization, in.from.UnixMicro(), in.before.UnixMicro()}
	c.mu.Lock()
	cached := c.sums[key]
	c.mu.Unlock()
	until := now.Add(-endedAfter)
	// Records that ended after the cached ones are read each time, so the cache is renewed when
	// there may be many.
	expired := cached.until.Before(in.currentStart) && !until.Before(in.currentStart) ||
		until.Sub(cached.until) > 24*time.Hour || cached.until.After(until)
	if expired || cached.version != version {
		cached = endedSums[T]{version: version, until: until}
		if cached.sums, err = read(ctx, records().Where("r.billing_period_end <= ?", until)); err != nil {
			return nil, err
		}
		c.store(key, cached)
	}
	rest, err := read(ctx, records().Where("r.billing_period_end > ?", cached.until).
		Where("r.billing_period_start > ?", cached.until.Add(-maxPeriod)))
	return append(rest, cached.sums...), err
}

func (c *sumCache[T]) store(key sumKey, sums endedSums[T]) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sums == nil || len(c.sums) >= maxCachedSums {
		c.sums = map[sumKey]endedSums[T]{}
	}
	c.sums[key] = sums
}

// readSums sums up the usage records r that a query selects.
type readSums[T any] func(ctx context.Context, records *bun.SelectQuery) ([]T, error)

// monthSum is the sum of the records that began at one instant.
type monthSum struct {
	Start                        time.Time
	Used, Included, Units, Cents int64
}

func readMonths(ctx context.Context, records *bun.SelectQuery) (sums []monthSum, err error) {
	err = records.ColumnExpr("r.billing_period_start AS start").ColumnExpr("CAST(SUM(r.suggestions_used) AS bigint) AS used").
		ColumnExpr("CAST(SUM(r.suggestions_included + r.granted) AS bigint) AS included").
		ColumnExpr("CAST(SUM(r.overage_used) AS bigint) AS units, CAST(SUM(r.overage_cents) AS bigint) AS cents").
		GroupExpr("r.billing_period_start").Scan(ctx, &sums)
	return sums, err
}

// daySum is the units of the records that began at one instant, by UTC date, starting with the date
// of that instant.
type daySum struct {
	start time.Time
	units []int64
}

func readDays(ctx context.Context, records *bun.SelectQuery) ([]daySum, error) {
	var rows []struct {
		Start time.Time
		Daily string
	}
	if err := records.ColumnExpr("r.billing_period_start AS start").ColumnExpr("string_agg(r.daily, ';') AS daily").
		Where("r.daily <> ''").GroupExpr("r.billing_period_start").Scan(ctx, &rows); err != nil {
		return nil, err
	}
	sums := make([]daySum, len(rows))
	for i := range rows {
		sums[i] = daySum{rows[i].Start.UTC(), sumOfDays(rows[i].Daily)}
	}
	return sums, nil
}

// OrganizationMonths sums up the usage of the organization's current members in its newest n
// billing periods, oldest first. The current period has the figures of the summary. In past
// periods, a member's own period counts toward the period of the organization in which it began,
// with the limit that the member had then.
func (c *PastUsageCache) OrganizationMonths(
	ctx context.Context, db bun.IDB, now time.Time, current *OrganizationSummary, founded time.Time, n int,
) ([]PastPeriod, error) {
	months := periodsBack(current.Period, founded, n)
	last := &months[n-1]
	last.Used, last.Included, last.BeforeSignUp = current.TotalSuggestions, current.Included, false
	last.Overage, last.OverageCents = current.OverageUnits, current.OverageCents
	past := recordRange{
		organization: current.ID, from: months[0].Period.Start, before: current.Period.Start, currentStart: current.Period.Start,
	}
	sums, err := c.months.load(ctx, db, now, past, readMonths)
	if err != nil {
		return nil, fmt.Errorf("sum up the months of the organization %s: %w", current.ID, err)
	}
	for _, sum := range sums {
		for i := range months[:n-1] {
			if m := &months[i]; m.Period.Contains(sum.Start.UTC()) {
				m.Used, m.Included, m.BeforeSignUp = m.Used+sum.Used, m.Included+sum.Included, false
				m.Overage, m.OverageCents = m.Overage+sum.Units, m.OverageCents+sum.Cents
			}
		}
	}
	return months, nil
}

// OrganizationDays sums up the usage of the organization's current members by day, for a period and
// the one before it. Each result starts with the first UTC date of its period.
func (c *PastUsageCache) OrganizationDays(
	ctx context.Context, db bun.IDB, now time.Time, period Period, organization uuid.UUID,
) (days, previous []int64, err error) {
	before := period.Previous()
	both := recordRange{
		organization: organization, before: period.End, currentStart: period.Start,
		from: before.Start.Add(-maxPeriod + time.Microsecond), // a record that began before a period may extend into it
	}
	sums, err := c.days.load(ctx, db, now, both, readDays)
	if err != nil {
		return nil, nil, fmt.Errorf("sum up the days of the organization %s: %w", organization, err)
	}
	return daysWithin(period, sums), daysWithin(before, sums), nil
}

// sumOfDays adds up several Daily values, separated by semicolons.
func sumOfDays(all string) []int64 {
	var days []int64
	var units int64
	day := 0
	for i := range len(all) + 1 {
		if i < len(all) && all[i] >= '0' && all[i] <= '9' {
			units = units*10 + int64(all[i]-'0')
			continue
		}
		if day == len(days) {
			days = append(days, 0)
		}
		days[day] += units
		units = 0
		if day++; i < len(all) && all[i] == ';' {
			day = 0
		}
	}
	return days
}

// daysWithin returns the days of a period.
func daysWithin(period Period, sums []daySum) []int64 {
	first, last := date(period.Start), date(period.End.Add(-time.Microsecond))
	days := make([]int64, int(last.Sub(first)/(24*time.Hour))+1)
	for _, sum := range sums {
		if !sum.start.After(period.Start.Add(-maxPeriod)) || !sum.start.Before(period.End) {
			continue
		}
		offset := int(date(sum.start).Sub(first) / (24 * time.Hour))
		for day, units := range sum.units {
			if at := offset + day; at >= 0 && at < len(days) {
				days[at] += units
			}
		}
	}
	return days
}
