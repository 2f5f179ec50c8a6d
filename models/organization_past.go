package models

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/uptrace/bun"
)

// endedAfter is how long ago a period must have ended for its sums to be remembered. It is far more than clocks differ by and
// a transaction takes, so that whoever still counts on such a period knows it to be over, and changes its workspace's version.
const endedAfter = time.Hour

// maxRememberedOrganizations bounds what PastUsageCache holds.
const maxRememberedOrganizations = 4096

// PastUsageCache remembers what organizations used in periods that are over, as it changes only by what is rare: late events,
// and people who move. Each of these changes the version of a workspace in its transaction, and what was read after one
// version is not used with another; so the figures are always those of the database. The zero value is ready, and may be
// used by several goroutines.
type PastUsageCache struct {
	mu     sync.Mutex
	months map[uuid.UUID]ended[monthSum]
	days   map[uuid.UUID]ended[daySum]
}

// ended is the sums of the records that started from a time on and ended until another.
type ended[T any] struct {
	version     string
	from, until time.Time
	sums        []T
}

// monthSum is what records with one start come to.
type monthSum struct {
	Start                        time.Time
	Used, Included, Units, Cents int64
}

// daySum is the units by UTC date of records with one start, from its date on.
type daySum struct {
	start time.Time
	units []int64
}

// sumsOf returns the sums of an organization's records that started from a time on and before another: those of ended periods
// from memory where it has them. Most records ended at turn, when the current period began.
func sumsOf[T any](ctx context.Context, e *PastUsageCache, memory *map[uuid.UUID]ended[T], db bun.IDB, now time.Time, id uuid.UUID, from, turn, before time.Time,
	read func(records *bun.SelectQuery) ([]T, error),
) ([]T, error) {
	workspaces, version, err := workspacesOf(ctx, db, id)
	if err != nil || len(workspaces) == 0 {
		return nil, err
	}
	records := func() *bun.SelectQuery {
		return db.NewSelect().TableExpr("usage_records AS r").Where("r.present_workspace_id IN (?)", bun.List(workspaces)).
			Where("r.billing_period_start >= ? AND r.billing_period_start < ?", from, before)
	}
	e.mu.Lock()
	known := (*memory)[id]
	e.mu.Unlock()
	until := now.Add(-endedAfter)
	// What ended since is read each time, so it is remembered once that is much.
	old := known.until.Before(turn) && !until.Before(turn) || until.Sub(known.until) > 24*time.Hour || known.until.After(until)
	if old || known.version != version || !known.from.Equal(from) {
		known = ended[T]{version: version, from: from, until: until}
		if known.sums, err = read(records().Where("r.billing_period_end <= ?", until)); err != nil {
			return nil, err
		}
		e.mu.Lock()
		if *memory == nil || len(*memory) >= maxRememberedOrganizations {
			*memory = map[uuid.UUID]ended[T]{}
		}
		(*memory)[id] = known
		e.mu.Unlock()
	}
	rest, err := read(records().Where("r.billing_period_end > ?", known.until).Where("r.billing_period_start > ?", known.until.Add(-maxPeriod)))
	return append(rest, known.sums...), err
}

// OrganizationMonths sums up the usage of the organization's present members over its newest billing periods, n of them, oldest
// first. The current one is as the summary says. Before it, a person's own period counts to that of the organization in which
// it began, with that person's limit then.
func (e *PastUsageCache) OrganizationMonths(ctx context.Context, db bun.IDB, now time.Time, current *OrganizationSummary, founded time.Time, n int) ([]PastPeriod, error) {
	months := periodsBack(current.Period, founded, n)
	last := &months[n-1]
	last.Used, last.Included, last.BeforeSignUp = current.TotalSuggestions, current.Included, false
	last.Overage, last.OverageCents = current.OverageUnits, current.OverageCents
	sums, err := sumsOf(ctx, e, &e.months, db, now, current.ID, months[0].Period.Start, current.Period.Start, current.Period.Start, func(records *bun.SelectQuery) (sums []monthSum, err error) {
		err = records.ColumnExpr("r.billing_period_start AS start").ColumnExpr("CAST(SUM(r.suggestions_used) AS bigint) AS used").
			ColumnExpr("CAST(SUM(r.suggestions_included + r.granted) AS bigint) AS included").
			ColumnExpr("CAST(SUM(r.overage_used) AS bigint) AS units, CAST(SUM(r.overage_cents) AS bigint) AS cents").
			GroupExpr("r.billing_period_start").Scan(ctx, &sums)
		return sums, err
	})
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

// OrganizationDays sums up the usage of the organization's present members by day of a period and of the one before, each from
// its first UTC date on.
func (e *PastUsageCache) OrganizationDays(ctx context.Context, db bun.IDB, now time.Time, period Period, id uuid.UUID) (days, previous []int64, err error) {
	before := period.Previous()
	// A record that began before a period may reach into it.
	from := before.Start.Add(-maxPeriod + time.Microsecond)
	sums, err := sumsOf(ctx, e, &e.days, db, now, id, from, period.Start, period.End, func(records *bun.SelectQuery) ([]daySum, error) {
		var rows []struct {
			Start time.Time
			Daily string
		}
		if err := records.ColumnExpr("r.billing_period_start AS start").ColumnExpr("string_agg(r.daily, ';') AS daily").Where("r.daily <> ''").
			GroupExpr("r.billing_period_start").Scan(ctx, &rows); err != nil {
			return nil, err
		}
		sums := make([]daySum, len(rows))
		for i := range rows {
			sums[i] = daySum{rows[i].Start.UTC(), sumOfDays(rows[i].Daily)}
		}
		return sums, nil
	})
	if err != nil {
		return nil, nil, fmt.Errorf("sum up the days of the organization %s: %w", id, err)
	}
	return daysWithin(period, sums), daysWithin(before, sums), nil
}

// sumOfDays adds up many Daily, separated by semicolons.
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

// daysWithin takes the days of a period from sums.
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
