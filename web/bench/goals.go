//go:build linux

package main

import (
	"fmt"
	"slices"
	"time"
)

// row is a row of the table of goals.
type row struct {
	What, Goal, Result, Met string
}

// goalRows compares the results with the goals. A goal that was not measured has no row.
func (b *bench) goalRows() []row {
	var rows []row
	add := func(what, goal, result string, met bool) {
		word := "no"
		if met {
			word = "yes"
		}
		rows = append(rows, row{what, goal, result, word})
	}
	ratio := func(what string, goal float64, over, under string) {
		ratios := b.ratios(over, under)
		if len(ratios) == 0 {
			return
		}
		middle := median(ratios)
		add(what, fmt.Sprintf("≥ %.2f", goal), spread(ratios), middle >= goal)
	}
	of := func(call, server string) string { return call + " " + server }

	ratio("consume, PostgreSQL, divided by the floor", 0.60, of(consumeCall, postgresServer), of(consumeCall, floorServer))
	ratio("consume, SQLite, divided by the floor", 0.65, of(consumeCall, sqliteServer), of(consumeCall, floorServer))
	ratio("consume, PostgreSQL, divided by the Redis counter", 1.5, of(consumeCall, postgresServer), of(consumeCall, redisServer))
	ratio("consume, PostgreSQL, divided by one statement per call", 4.5,
		of(consumeCall, postgresServer), of(consumeCall, oneStatementServer))
	ratio("check, PostgreSQL, divided by the floor", 0.65, of(checkCall, postgresServer), of(checkCall, floorServer))
	for _, r := range b.results[openLoopKey(busyRate)] {
		add(fmt.Sprintf("p99 of consume at %d calls/s, open loop, PostgreSQL", busyRate), "< 10 ms", short(r.P99),
			r.P99 < 10*time.Millisecond)
	}
	ratio("consume for one person, PostgreSQL, divided by consume for many people", 0.9,
		of(onePersonCall, postgresServer), of(consumeCall, postgresServer))
	ratio("overage of one organization with a spend limit, PostgreSQL, divided by many organizations", 0.7,
		of(oneOrganizationCall, postgresServer), of(manyOrganizationsCall, postgresServer))
	if s := b.server(postgresServer); s != nil && len(b.results) > 0 {
		add("peak resident memory before the two overage measurements, PostgreSQL", "< 80 MiB", mebibytes(s.peak), s.peak < 80<<20)
	}
	for _, s := range b.gates() {
		if took := b.decision[s.name]; len(took) > 0 {
			add("start to first decision, existing database, "+title(s.name), "< 300 ms", short(median(took)),
				median(took) < 300*time.Millisecond)
		}
	}
	return rows
}

// ratios returns the rates of one measurement divided by those of another, for each round: what
// slows the machine in a round slows both.
func (b *bench) ratios(over, under string) []float64 {
	above, below := b.results[over], b.results[under]
	ratios := make([]float64, min(len(above), len(below)))
	for i := range ratios {
		ratios[i] = above[i].PerSecond / below[i].PerSecond
	}
	return ratios
}

// spread formats the median of the rounds, with the lowest and the highest value.
func spread(values []float64) string {
	if len(values) == 1 {
		return fmt.Sprintf("%.2f", values[0])
	}
	return fmt.Sprintf("%.2f (%.2f to %.2f)", median(values), slices.Min(values), slices.Max(values))
}

// median returns the middle value. Of an even number of values, it is the lower one in the middle.
func median[T float64 | time.Duration | int64](values []T) T {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[(len(sorted)-1)/2]
}

func mebibytes(bytes int64) string { return fmt.Sprintf("%.0f MiB", float64(bytes)/(1<<20)) }

// title returns a server's name in the report.
func title(server string) string {
	return map[string]string{
		floorServer: "the floor", postgresServer: "PostgreSQL", sqliteServer: "SQLite",
		oneStatementServer: "one statement per call", redisServer: "Redis counter",
		redisAOFServer: "Redis counter, log synced each second",
	}[server]
}
