//go:build linux

package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"tollgate/models"
	"tollgate/models/billing"
	"tollgate/models/modelstest"
)

// growthMeasure is the name of the growth's measurement for -only. It takes long, so it is measured
// only if -only names it.
const growthMeasure = "growth"

const (
	growthHeading = "## Growth"
	// growthGoal is the rate of consume with the most events, divided by the rate with the fewest.
	growthGoal = 0.9
	// sealedAtOnce is the number of events that the sealing is measured with, of sealedBy customers.
	sealedAtOnce = 20_000
	sealedBy     = 1_000
	// docs/postgres.md says when to set this and shared_buffers.
	maxWALSize = "8GB"
	// growthKeep is the shortest --keep-events, so that the oldest of six months are deleted.
	growthKeep = "90d"
)

// grown is one database of the measurement.
type grown struct {
	*server
	events int64
	size   string
	// rates has the rates of growthCalls, by call, for each round.
	rates map[string][]float64
	// pages has the latencies of growthPages.
	pages [][]time.Duration
	// sealed is how long the sealing took; 0 if it was not measured.
	sealed time.Duration
	// alone is the rates of consume while only this database is measured, and pruned those while old
	// events are deleted. deleted is the number of these events.
	alone, pruned []float64
	deleted       int64
}

func (g *grown) postgres() bool { return !strings.HasPrefix(g.database, "sqlite:") }

// timedCall is consume with idempotency keys that grow with time.
const timedCall = "consume, keys by time"

func growthCalls() []string { return []string{timedCall, consumeCall, checkCall} }

func growthPages() []string { return []string{"/usage", "/usage/activity", "/org"} }

// measureGrowth measures the same calls on databases with more and more events. All are measured in
// turn, round after round, so that a change of the machine's speed affects all of them.
func (b *bench) measureGrowth(ctx context.Context) (err error) {
	if err := b.build(ctx); err != nil {
		return err
	}
	buffers, err := sharedBuffers()
	if err != nil {
		return err
	}
	postgres, err := modelstest.StartPostgres(ctx, modelstest.PostgresOptions{Durable: true, MaxConnections: 400,
		Settings: map[string]string{"shared_buffers": buffers, "max_wal_size": maxWALSize}})
	if err != nil {
		return err
	}
	b.stops = append(b.stops, postgres.Stop)
	for _, events := range b.Sizes {
		name := fmt.Sprintf("growth_%d", events)
		if err := postgres.CreateDatabase(ctx, name); err != nil {
			return err
		}
		if err := b.grow(ctx, name, postgres.URL(name), events); err != nil {
			return fmt.Errorf("growth: %d events on PostgreSQL: %w", events, err)
		}
	}
	for _, events := range b.LiteSizes {
		name := fmt.Sprintf("growth_sqlite_%d", events)
		if err := b.grow(ctx, name, "sqlite:"+filepath.Join(b.dir, name+".db"), events); err != nil {
			return fmt.Errorf("growth: %d events on SQLite: %w", events, err)
		}
	}
	for round := range b.Rounds {
		for _, call := range growthCalls() {
			for _, g := range b.grown {
				rate, err := b.growthRate(ctx, g, call)
				if err != nil {
					return err
				}
				g.rates[call] = append(g.rates[call], rate)
				b.say("round %d of %d: %s, %s: %.0f/s", round+1, b.Rounds, call, g.name, rate)
			}
		}
	}
	for _, g := range b.grown {
		if err := b.growthReads(ctx, g); err != nil {
			return fmt.Errorf("growth: %s: %w", g.name, err)
		}
	}
	sizes := b.grownOn(true) // SQLite's events are all of the current month, so none is old
	if len(sizes) == 0 {
		return nil
	}
	if err := b.prune(ctx, sizes[len(sizes)-1]); err != nil {
		return fmt.Errorf("growth: %w", err)
	}
	return nil
}

// sharedBuffers returns a quarter of the machine's memory in the form that PostgreSQL's
// shared_buffers takes. PostgreSQL's documentation suggests this size for a server of its own.
func sharedBuffers() (string, error) {
	var machine unix.Sysinfo_t
	if err := unix.Sysinfo(&machine); err != nil {
		return "", fmt.Errorf("read the size of the memory: %w", err)
	}
	return fmt.Sprintf("%dMB", machine.Totalram*uint64(machine.Unit)>>22), nil
}

// grownOn returns the databases of one kind, the smallest first.
func (b *bench) grownOn(postgres bool) (some []*grown) {
	for _, g := range b.grown {
		if g.postgres() == postgres {
			some = append(some, g)
		}
	}
	return some
}

// growthWarmUp is how long calls are made before a measurement. The load of the other databases has
// replaced this one's pages in memory, and the first change of a page after a checkpoint writes the
// whole page to the log. So a short warm-up would measure the start, which a server has once.
func (b *bench) growthWarmUp() time.Duration { return 3 * b.Duration }

// growthRate returns the rate of a call.
func (b *bench) growthRate(ctx context.Context, g *grown, call string) (float64, error) {
	l := load{Path: "/v1/consume", Keyed: true, Timed: call == timedCall, People: b.Members, Warm: b.growthWarmUp(), Measure: b.Duration}
	if call == checkCall {
		l.Path, l.Keyed = "/v1/check", false
	}
	r, err := b.load(ctx, g.server, l)
	return r.PerSecond, err
}

// grow creates a database with the events, starts the gate and makes one call for each person.
func (b *bench) grow(ctx context.Context, name, database string, events int64) error {
	begin := time.Now()
	gate, err := newGate(ctx, b.binary, b.dir, name, database)
	if err != nil {
		return err
	}
	g := &grown{rates: map[string][]float64{}, server: &server{name: name, token: gate.token, gate: gate, database: database}}
	if g.postgres() {
		months := max(1, min(pageMonths, int(events)/b.Members))
		if g.events, g.size, err = b.fill(ctx, database, filling{events, months, benchIncluded}); err != nil {
			return err
		}
	}
	if err := b.startGrown(ctx, g); err != nil {
		return err
	}
	if _, err := b.load(ctx, g.server, load{Path: "/v1/consume", Keyed: true, Introduce: true, People: b.Members}); err != nil {
		return err
	}
	if !g.postgres() {
		if err := g.process.stop(); err != nil {
			return err
		}
		g.process = nil
		if g.events, g.size, err = multiply(ctx, database, events); err != nil {
			return err
		}
		if err := b.startGrown(ctx, g); err != nil {
			return err
		}
	}
	b.stops = append(b.stops, func() error { return g.process.stop() })
	b.grown = append(b.grown, g)
	b.say("growth: %s: %d events, %s, in %s", name, g.events, g.size, time.Since(begin).Round(time.Second))
	return nil
}

func (b *bench) startGrown(ctx context.Context, g *grown) (err error) {
	if g.process, g.addr, err = g.gate.serve(ctx); err != nil {
		return err
	}
	return g.gate.ready(ctx, g.process, g.addr)
}

// multiply copies the events of each record of a SQLite database until there are enough, and counts
// them in the records.
func multiply(ctx context.Context, database string, events int64) (made int64, size string, err error) {
	path := strings.TrimPrefix(database, "sqlite:")
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=synchronous(off)&_pragma=cache_size(-400000)")
	if err != nil {
		return 0, "", err
	}
	defer db.Close() //nolint:errcheck // everything is committed
	db.SetMaxOpenConns(1)
	var columns, values []string
	rows, err := db.QueryContext(ctx, "SELECT name FROM pragma_table_info('usage_events')")
	if err != nil {
		return 0, "", err
	}
	defer rows.Close()
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return 0, "", err
		}
		value := "e." + name
		switch name {
		case "id":
			value = `lower(hex(randomblob(4)) || '-' || hex(randomblob(2)) || '-7' || substr(hex(randomblob(2)), 2) || '-8' ||
				substr(hex(randomblob(2)), 2) || '-' || hex(randomblob(6)))`
		case "idempotency_key":
			value = "lower(hex(randomblob(18)))"
		case "used_after":
			value = "e.used_after + k.n"
		}
		columns, values = append(columns, name), append(values, value)
	}
	if err := rows.Err(); err != nil {
		return 0, "", err
	}
	var before int64
	if err := db.QueryRowContext(ctx, "SELECT count(*) FROM usage_events").Scan(&before); err != nil {
		return 0, "", err
	}
	copies := max(0, events/before-1)
	for _, statement := range []string{
		"CREATE TEMP TABLE firsts AS SELECT * FROM usage_events ORDER BY user_id",
		fmt.Sprintf(`WITH RECURSIVE k (n) AS (SELECT 1 WHERE %[1]d > 0 UNION ALL SELECT n + 1 FROM k WHERE n < %[1]d)
			INSERT INTO usage_events (%[2]s) SELECT %[3]s FROM firsts e CROSS JOIN k`,
			copies, strings.Join(columns, ", "), strings.Join(values, ", ")),
		// The last number of daily is the units of the day of all these events.
		fmt.Sprintf(`UPDATE usage_records SET suggestions_used = suggestions_used * %[1]d,
			daily = rtrim(daily, '0123456789') || (suggestions_used * %[1]d)`, copies+1),
		"ANALYZE",
	} {
		if _, err := db.ExecContext(ctx, statement); err != nil {
			return 0, "", fmt.Errorf("%w in %s", err, statement)
		}
	}
	if err := db.QueryRowContext(ctx, "SELECT count(*) FROM usage_events").Scan(&made); err != nil {
		return 0, "", err
	}
	if _, err := db.ExecContext(ctx, "PRAGMA wal_checkpoint(TRUNCATE)"); err != nil {
		return 0, "", err
	}
	file, err := os.Stat(path)
	if err != nil {
		return 0, "", err
	}
	return made, fmt.Sprintf("%d MB", file.Size()>>20), nil
}

// growthReads measures the pages, and on PostgreSQL the sealing.
func (b *bench) growthReads(ctx context.Context, g *grown) error {
	admin := personEmail(0)
	if _, err := g.gate.command(ctx, "user", "set", admin, "--role", "admin"); err != nil {
		return err
	}
	client, err := g.gate.signIn(ctx, g.addr, admin)
	if err != nil {
		return err
	}
	defer client.CloseIdleConnections()
	for _, page := range growthPages() {
		took, err := b.timePage(ctx, client, "http://"+g.addr+page)
		if err != nil {
			return err
		}
		g.pages = append(g.pages, took)
		b.say("growth: %s: %s p50 %s, p99 %s", g.name, page, short(median(took)), short(late(took)))
	}
	if err := g.gate.verify(ctx); err != nil {
		return err
	}
	if !g.postgres() {
		return nil
	}
	g.sealed, err = seal(ctx, g.database, g.gate.plans)
	b.say("growth: %s: %d events of %d customers sealed in %s", g.name, sealedAtOnce, sealedBy, short(g.sealed))
	return err
}

// seal adds unreported overage and returns how long it takes to seal it. The overage is two hours
// old, because an hour's events are sealed once the hour has ended.
func seal(ctx context.Context, database, plans string) (took time.Duration, err error) {
	db, err := models.Open(ctx, database)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	month := models.CalendarMonth(time.Now())
	if _, err := db.ExecContext(ctx, `INSERT INTO usage_events (id, user_id, record_id, email, quantity, overage_quantity, overage_cents,
			idempotency_key, occurred_at, recorded_at, plan_id, billing_period_start, billing_period_end, used_after, held_after, included,
			overage_rate_cents, stripe_customer_id)
		SELECT gen_random_uuid(), md5(c::text)::uuid, -c, 'sealed-' || c || '@example.com', 1, 1, 20, gen_random_uuid()::text,
			now() - interval '2 hours', now(), ?, ?, ?, 1, 0, 0, 20, 'cus_' || c
		FROM generate_series(1, ?) n, LATERAL (SELECT 1 + n % ? AS c) c`,
		benchPlan, month.Start, month.End, sealedAtOnce, sealedBy); err != nil {
		return 0, err
	}
	catalogue, err := models.LoadCatalogue(plans)
	if err != nil {
		return 0, err
	}
	client, err := billing.NewClient(billing.ClientOptions{Key: "sk_test_bench"})
	if err != nil {
		return 0, err
	}
	reporter := billing.NewReporter(billing.ReporterOptions{
		DB: db, Client: client, Catalogue: catalogue, Now: time.Now, Log: slog.New(slog.DiscardHandler), Every: time.Minute,
	})
	begin := time.Now()
	reports, err := reporter.Seal(ctx)
	if err == nil && reports == 0 {
		err = errors.New("nothing was sealed")
	}
	return time.Since(begin), err
}

// prune measures consume on the largest database alone. Then it starts its gate again with the
// shortest time for which events can be stored, and measures consume while the oldest are deleted.
func (b *bench) prune(ctx context.Context, g *grown) error {
	count := func() (n int64, err error) {
		db, err := models.Open(ctx, g.database)
		if err != nil {
			return 0, err
		}
		defer func() { err = errors.Join(err, db.Close()) }()
		err = db.NewRaw("SELECT COALESCE(SUM(units), 0) FROM usage_pruned").Scan(ctx, &n)
		return n, err
	}
	for range b.Rounds {
		rate, err := b.growthRate(ctx, g, consumeCall)
		if err != nil {
			return err
		}
		g.alone = append(g.alone, rate)
	}
	if err := g.process.stop(); err != nil {
		return err
	}
	g.gate.keepEvents = growthKeep
	if err := b.startGrown(ctx, g); err != nil {
		return err
	}
	// The first call of each person reads their record.
	if _, err := b.load(ctx, g.server, load{Path: "/v1/consume", Keyed: true, Each: true, People: b.Members}); err != nil {
		return err
	}
	for round := 0; round < b.Rounds || g.deleted == 0; round++ {
		if round == b.Rounds+10 {
			return errors.New("no events were deleted")
		}
		rate, err := b.growthRate(ctx, g, consumeCall)
		if err != nil {
			return err
		}
		g.pruned = append(g.pruned, rate)
		if g.deleted, err = count(); err != nil {
			return err
		}
	}
	b.say("growth: %s: consume while %d events were deleted: %.0f/s", g.name, g.deleted, median(g.pruned))
	return nil
}

// growthTable compares the sizes of each kind of database with the smallest one.
func (b *bench) growthTable() [][]string {
	const ratio = "ratio to the first row"
	lines := [][]string{append(append([]string{"events", "database", "size", timedCall, ratio, "consume, random keys", ratio, "check", ratio},
		growthPages()...), "sealing")}
	for _, sizes := range [][]*grown{b.grownOn(true), b.grownOn(false)} {
		for _, g := range sizes {
			line := []string{strconv.FormatInt(g.events, 10), "PostgreSQL", g.size}
			if !g.postgres() {
				line[1] = "SQLite"
			}
			for _, call := range growthCalls() {
				line = append(line, fmt.Sprintf("%.0f/s", median(g.rates[call])), spread(quotients(g.rates[call], sizes[0].rates[call])))
			}
			for _, took := range g.pages {
				line = append(line, short(median(took)))
			}
			sealing := "-"
			if g.sealed > 0 {
				sealing = fmt.Sprintf("%.0f events/s", sealedAtOnce/g.sealed.Seconds())
			}
			lines = append(lines, append(line, sealing))
		}
	}
	return lines
}

// quotients divides the rates of each round.
func quotients(above, below []float64) []float64 {
	ratios := make([]float64, min(len(above), len(below)))
	for i := range ratios {
		ratios[i] = above[i] / below[i]
	}
	return ratios
}

func (b *bench) growthSection(ctx context.Context) string {
	var text strings.Builder
	fmt.Fprintf(&text, "%s\n\n%s\n\n%s", growthHeading,
		wrapped("", "Measured with `go run ./web/bench -only growth -sizes %s -sqlite-sizes %s` on %s at commit %s. Each row is a separate "+
			"database with %d people. Each of %d rounds measures three kinds of calls on each database: consume with keys that "+
			"sort by time, consume with random keys, and check. It measures each for %s, after a warm-up of %s. PostgreSQL has a quarter of "+
			"the memory as its shared_buffers, and max_wal_size=%s.%s The stored events have random idempotency keys. The goal, "+
			"for both kinds of keys: with the most events, consume reaches at least %.1f times its rate with the fewest. The ratios "+
			"compare a row with the first row of the same kind of database. Each is the median of the rounds' ratios, with the lowest "+
			"and the highest one, so it can differ from the ratio of the rates in the table. The page columns have the median time of %d "+
			"requests by an admin, right after the load. The section Pages shows the times on a server that had no load before. The "+
			"column \"sealing\" is the rate at which %d "+
			"events of %d customers are put into reports. After the load, `tollgate verify` found no difference.",
			joined(b.Sizes), joined(b.LiteSizes), time.Now().UTC().Format(time.DateOnly), revision(ctx, b.root), b.Members, b.Rounds,
			b.Duration, b.growthWarmUp(), maxWALSize, b.busyText(), growthGoal, b.Requests, sealedAtOnce, sealedBy), table(b.growthTable()))
	for _, g := range b.grown {
		if len(g.pruned) == 0 {
			continue
		}
		fmt.Fprintf(&text, "\n%s\n", wrapped("", "Two more measurements used only the largest database on PostgreSQL. For the table, the "+
			"databases take turns, so these two rates cannot be compared with those of the table. Without a deletion, the rate of consume with "+
			"random keys was %.0f/s. After a restart with `--keep-events %s`, it was %.0f/s while %d events were deleted. This run does not "+
			"explain the difference between the two.", median(g.alone), growthKeep, median(g.pruned), g.deleted))
	}
	return text.String()
}

// joined formats sizes as the flags take them.
func joined(sizes []int64) string {
	texts := make([]string, len(sizes))
	for i, n := range sizes {
		texts[i] = strconv.FormatInt(n, 10)
	}
	return strings.Join(texts, ",")
}

// reportGrowth prints the table, and replaces the section in the file.
func (b *bench) reportGrowth(ctx context.Context, out io.Writer) error {
	section := b.growthSection(ctx)
	if _, err := fmt.Fprintf(out, "\n%s", section); err != nil || b.Output == "" {
		return err
	}
	return b.replaceSection(growthHeading, section)
}
