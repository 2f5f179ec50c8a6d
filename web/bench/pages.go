//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"tollgate/models/modelstest"
)

// pagesMeasure is the name of the pages' measurement for -only.
const pagesMeasure = "pages"

// pageWarmUp is how often each page is requested before the measurement.
const pageWarmUp = 3

// pageMonths is the number of billing periods with records, including the current one.
const pageMonths = 6

// pageShop is one measurement of the pages, with its database.
type pageShop struct {
	events         int64
	made, verified time.Duration
	size           string
	// latencies has the latencies of each page's requests, in the order of pageLines.
	latencies [][]time.Duration
}

// pageLine is a row of the table. The slowest of its addresses counts.
type pageLine struct {
	title     string
	goal      time.Duration
	addresses func(members int) []string
}

// pageLines returns the measured pages, with the goals for their medians.
func pageLines() []pageLine {
	only := func(addresses ...string) func(int) []string { return func(int) []string { return addresses } }
	lines := []pageLine{
		{"/usage", 5 * time.Millisecond, only("/usage")}, {"/usage/activity", 10 * time.Millisecond, only("/usage/activity")},
		{"/org", 25 * time.Millisecond, only("/org")},
	}
	now := time.Now().UTC()
	month := func(back int) string {
		return time.Date(now.Year(), now.Month()-time.Month(back), 1, 0, 0, 0, 0, time.UTC).Format("2006-01")
	}
	lines = append(lines, pageLine{
		"/org, a past period", 25 * time.Millisecond, only("/org?period="+month(1), "/org?period="+month(4)),
	}, pageLine{
		"/org/members, a past period", 25 * time.Millisecond, only("/org/members?period="+month(1),
			"/org/members?sort=last&period="+month(1), "/org/members?sort=level&q=7&period="+month(1)),
	})
	for _, sort := range []string{"name", "email", "used", "included", "percent", "level", "overage", "last"} {
		lines = append(lines, pageLine{"/org/members by " + sort, 25 * time.Millisecond, func(members int) (addresses []string) {
			last := (members + 24) / 25
			for _, order := range []string{"asc", "desc"} {
				for _, page := range []int{1, (last + 1) / 2, last} {
					addresses = append(addresses, fmt.Sprintf("/org/members?sort=%s&order=%s&page=%d", sort, order, page))
				}
			}
			return addresses
		}})
	}
	return append(lines,
		pageLine{
			"/org/members, a search", 25 * time.Millisecond,
			only("/org/members?q=person+77", "/org/members?q=7", "/org/members?q=unknown"),
		},
		pageLine{
			"/org/members, one level", 25 * time.Millisecond,
			only("/org/members?level=safe", "/org/members?level=exceeded", "/org/members?level=warning&q=7&sort=last"),
		})
}

// measurePages creates an organization with a tenth of the events and one with all of them, and
// measures their pages.
func (b *bench) measurePages(ctx context.Context) (err error) {
	if !b.wantsPages() {
		return nil
	}
	if err := b.build(ctx); err != nil {
		return err
	}
	postgres, err := modelstest.StartPostgres(ctx, modelstest.PostgresOptions{Durable: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, postgres.Stop()) }()
	for _, events := range []int64{b.Events / 10, b.Events} {
		name := fmt.Sprintf("pages_%d", events)
		if err := postgres.CreateDatabase(ctx, name); err != nil {
			return err
		}
		s, err := b.pagesOf(ctx, name, postgres.URL(name), events)
		if err != nil {
			return fmt.Errorf("pages: %w", err)
		}
		b.pages = append(b.pages, s)
	}
	return nil
}

func (b *bench) build(ctx context.Context) (err error) {
	if b.binary == "" {
		b.binary, err = buildProduct(ctx, b.root, b.dir)
	}
	return err
}

func (b *bench) pagesOf(ctx context.Context, name, database string, events int64) (s pageShop, err error) {
	g := &gate{binary: b.binary, home: filepath.Join(b.dir, name), name: name, database: database}
	if err := os.MkdirAll(g.home, 0o700); err != nil {
		return s, err
	}
	begin := time.Now()
	if _, err := g.command(ctx, "migrate"); err != nil {
		return s, err
	}
	organization, err := g.command(ctx, "organization", "create", "Acme", "--slack-team", slackTeam)
	if err != nil {
		return s, err
	}
	if _, err := g.command(ctx, "subscribe", "--organization", organization, "--plan", benchPlan); err != nil {
		return s, err
	}
	if s.events, s.size, err = b.fill(ctx, database, filling{events, pageMonths, 100}); err != nil {
		return s, err
	}
	s.made = time.Since(begin)
	b.say("pages: %d members and %d events made in %s, %s", b.Members, s.events, s.made.Round(time.Second), s.size)
	begin = time.Now()
	if err := g.verify(ctx); err != nil {
		return s, err
	}
	s.verified = time.Since(begin)
	b.say("pages: verify found no difference in %s", s.verified.Round(time.Second))
	admin := personEmail(0)
	if _, err := g.command(ctx, "user", "set", admin, "--role", "admin"); err != nil {
		return s, err
	}
	p, addr, err := g.serve(ctx)
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	if err := g.ready(ctx, p, addr); err != nil {
		return s, err
	}
	client, err := g.signIn(ctx, addr, admin)
	if err != nil {
		return s, err
	}
	for _, line := range pageLines() {
		var slowest []time.Duration
		for _, address := range line.addresses(b.Members) {
			took, err := b.timePage(ctx, client, "http://"+addr+address)
			if err != nil {
				return s, err
			}
			if slowest == nil || median(took) > median(slowest) {
				slowest = took
			}
		}
		s.latencies = append(s.latencies, slowest)
		b.say("pages: %-28s p50 %s, p99 %s", line.title, short(median(slowest)), short(late(slowest)))
	}
	client.CloseIdleConnections()
	return s, nil
}

// late returns the 99th percentile.
func late(took []time.Duration) time.Duration {
	sorted := slices.Sorted(slices.Values(took))
	return sorted[len(sorted)*99/100]
}

// signIn signs in with a one-time link.
func (g *gate) signIn(ctx context.Context, addr, email string) (*http.Client, error) {
	link, err := g.command(ctx, "sign-in", email)
	if err != nil {
		return nil, err
	}
	address, err := url.Parse(link)
	if err != nil {
		return nil, err
	}
	jar, err := cookiejar.New(nil)
	if err != nil {
		return nil, err
	}
	client := &http.Client{Jar: jar}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+addr+address.Path, nil)
	if err != nil {
		return nil, err
	}
	answer, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	if _, err := io.Copy(io.Discard, answer.Body); err != nil {
		return nil, err
	}
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("sign in: %s", answer.Status)
	}
	return client, nil
}

// timePage requests a page several times, one request after another, and returns the times until
// the last byte.
func (b *bench) timePage(ctx context.Context, client *http.Client, address string) ([]time.Duration, error) {
	took := make([]time.Duration, 0, b.Requests)
	for n := range pageWarmUp + b.Requests {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
		if err != nil {
			return nil, err
		}
		begin := time.Now()
		answer, err := client.Do(request)
		if err != nil {
			return nil, err
		}
		body, err := io.ReadAll(answer.Body)
		answer.Body.Close()
		elapsed := time.Since(begin)
		switch {
		case err != nil:
			return nil, err
		case answer.StatusCode != http.StatusOK || strings.Contains(string(body), "could not be loaded") || answer.Request.URL.Path == "/sign-in":
			return nil, fmt.Errorf("%s is incomplete: %s", address, answer.Status)
		}
		if n >= pageWarmUp {
			took = append(took, elapsed)
		}
	}
	return took, nil
}

// filling is what fill inserts.
type filling struct {
	events int64
	// months is the number of billing periods with records, including the current one.
	months int
	// included is the included units of each record. Further units are overage.
	included int64
}

// fill inserts the members, their records and the events. A record has between one event and twice
// the average. Each event has one unit, and the events are spread over all days of the record. fill
// returns the number of events and the size of the database.
func (b *bench) fill(ctx context.Context, database string, f filling) (made int64, size string, err error) {
	conn, err := pgx.Connect(ctx, database)
	if err != nil {
		return 0, "", err
	}
	defer conn.Close(ctx) //nolint:errcheck // everything is committed
	average := max(1, f.events/int64(b.Members*f.months))
	for _, statement := range []string{
		"SET timezone = 'UTC'; SET synchronous_commit = off; SET maintenance_work_mem = '256MB'; SET max_parallel_maintenance_workers = 0",
		fmt.Sprintf(`INSERT INTO users (id, email, name, workspace_id, slack_user_id, created_at)
			SELECT gen_random_uuid(), 'user-' || to_char(n + 1, 'FM00000') || '@example.com', 'Person ' || n,
				(SELECT id FROM workspaces), 'U' || n, date_trunc('month', now()) - interval '7 months'
			FROM generate_series(0, %d) n`, b.Members-1),
		// The days of a record are the past days of its month. The day of its first event depends on the
		// person.
		fmt.Sprintf(`INSERT INTO usage_records (user_id, email, billing_period_start, billing_period_end, plan_id,
				suggestions_included, suggestions_used, overage_used, overage_cents, overage_rate_cents,
				workspace_id, slack_team_id, slack_user_id, entitled, daily, created_at)
			SELECT u.id, u.email, m.start, m.start + interval '1 month', '%[1]s',
				%[5]d, m.units, GREATEST(0, m.units - %[5]d), GREATEST(0, m.units - %[5]d) * %[2]d, %[2]d,
				u.workspace_id, '%[3]s', u.slack_user_id, true,
				(SELECT regexp_replace(string_agg((m.units / m.days +
						CASE WHEN (d - m.hash %% m.days + m.days) %% m.days < m.units %% m.days THEN 1 ELSE 0 END)::text, ',' ORDER BY d),
					'^0(,0)*$|(,0)+$', '') FROM generate_series(0, m.days - 1) d), m.start
			FROM (SELECT *, abs(hashtext(email)) AS hash FROM users) u,
				generate_series(date_trunc('month', now()) - interval '%[4]d months', now(), interval '1 month') start,
			LATERAL (SELECT start, u.hash,
				GREATEST(1, LEAST(start + interval '1 month', now())::date - start::date)::integer AS days,
				1 + (abs(hashtext(u.email || start::text)) %% %[6]d)::bigint AS units) m ORDER BY m.start, random()`,
			benchPlan, benchOverageRate, slackTeam, f.months-1, f.included, 2*average-1),
		// To build the indexes at the end takes less than half of the time.
		"ALTER TABLE usage_events DROP CONSTRAINT usage_events_user_id_idempotency_key_key; DROP INDEX usage_events_record",
	} {
		if _, err := conn.Exec(ctx, statement); err != nil {
			return 0, "", fmt.Errorf("%w in %s", err, statement)
		}
	}
	for month := range f.months {
		tag, err := conn.Exec(ctx, `INSERT INTO usage_events (id, user_id, record_id, email, workspace_id,
				quantity, overage_quantity, overage_cents, idempotency_key, occurred_at, recorded_at, plan_id,
				billing_period_start, billing_period_end, used_after, held_after, included, overage_rate_cents)
			SELECT gen_random_uuid(), r.user_id, r.id, r.email, r.workspace_id, 1, (n >= r.suggestions_included)::integer,
				(n >= r.suggestions_included)::integer * r.overage_rate_cents, gen_random_uuid()::text, at, at, r.plan_id,
				r.billing_period_start, r.billing_period_end, n + 1, 0, r.suggestions_included, r.overage_rate_cents
			FROM (SELECT *, abs(hashtext(email)) AS hash,
					GREATEST(1, LEAST(billing_period_end, now())::date - billing_period_start::date)::integer AS days
				FROM usage_records) r,
				generate_series(0, r.suggestions_used - 1) n,
				LATERAL (SELECT r.billing_period_start + interval '1 day' * ((r.hash % r.days + n) % r.days) +
					interval '1 second' * (n * 7919 % 86400) AS at) e
			WHERE r.billing_period_start = date_trunc('month', now()) - interval '1 month' * $1`, f.months-1-month)
		if err != nil {
			return 0, "", fmt.Errorf("insert events: %w", err)
		}
		made += tag.RowsAffected()
		b.say("%d events", made)
	}
	for _, statement := range []string{
		"ALTER TABLE usage_events ADD CONSTRAINT usage_events_user_id_idempotency_key_key UNIQUE (user_id, idempotency_key)",
		"CREATE INDEX usage_events_record ON usage_events (record_id, occurred_at)",
		"VACUUM ANALYZE", "CHECKPOINT",
	} {
		if _, err := conn.Exec(ctx, statement); err != nil {
			return 0, "", fmt.Errorf("%w in %s", err, statement)
		}
	}
	err = conn.QueryRow(ctx, "SELECT pg_size_pretty(pg_database_size(current_database()))").Scan(&size)
	return made, size, err
}

// pagesTable compares the pages with all events with those with a tenth of them.
func (b *bench) pagesTable() [][]string {
	fewer, all := b.pages[0], b.pages[1]
	few := " at " + millionEvents(fewer.events)
	table := [][]string{{"page", "goal for p50", "p50", "p99", "p50" + few, "p99" + few, "met"}}
	for i, line := range pageLines() {
		met := "yes"
		if median(all.latencies[i]) >= line.goal {
			met = "no"
		}
		table = append(table, []string{
			line.title, "< " + short(line.goal), short(median(all.latencies[i])), short(late(all.latencies[i])),
			short(median(fewer.latencies[i])), short(late(fewer.latencies[i])), met,
		})
	}
	return table
}

const pagesHeading = "## Pages"

// millionEvents formats a number of events: "0.96 M events".
func millionEvents(n int64) string {
	return strconv.FormatFloat(float64(n)/1e6, 'f', 2, 64) + " M events"
}

// pagesSection returns the section of the report on the pages.
func (b *bench) pagesSection(ctx context.Context) string {
	all := b.pages[1]
	return fmt.Sprintf("%s\n\n%s\n\n%s\n\n%s", pagesHeading,
		wrapped("", "Measured with `go run ./web/bench -only pages` on %s at commit %s. The database is PostgreSQL with one organization of "+
			"%d members, a record for each member in each of %d months, and %d events (%s). Filling it took %s. `tollgate verify` "+
			"took %s and found no difference. The columns \"at %s\" are from a database with about a tenth of the events.%s",
			time.Now().UTC().Format(time.DateOnly), revision(ctx, b.root), b.Members, pageMonths,
			all.events, all.size, all.made.Round(time.Second), all.verified.Round(time.Second), millionEvents(b.pages[0].events), b.busyText()),
		wrapped("", "An admin who signed in with a one-time link requests each page %d times, one request after another on one "+
			"connection. Each time is measured until the last byte of the response. Some rows cover several addresses: both sort directions; "+
			"the first, middle and last page; three searches; or three warning levels. Such a row shows the slowest of its addresses.", b.Requests),
		table(b.pagesTable()))
}

// busyText says how busy the machine was with other work. It starts with a space.
func (b *bench) busyText() string {
	for _, f := range b.facts {
		if strings.HasPrefix(f.Name, "busy") {
			return " Other work used " + f.Value + "."
		}
	}
	return ""
}

// cutSection returns one of a report's sections, with what is before and after it. Without such a
// section, it returns the place for a new one.
func cutSection(report, heading string) (before, section, after string) {
	before, rest, found := strings.Cut(report, heading+"\n")
	if found {
		section, after, more := strings.Cut(rest, "\n## ")
		if more {
			after = "\n## " + after
		}
		return before, heading + "\n" + section, after
	}
	if before, after, found = strings.Cut(report, "## How\n"); found {
		return before, "", "\n## How\n" + after
	}
	return strings.TrimRight(report, "\n") + "\n\n", "", ""
}

// withSection returns the report with one of its sections replaced.
func withSection(report, heading, section string) string {
	before, _, after := cutSection(report, heading)
	return before + section + after
}

// reportPages prints the table, and replaces the section on the pages in the file.
func (b *bench) reportPages(ctx context.Context, out io.Writer) error {
	if _, err := fmt.Fprintf(out, "\n%s", table(b.pagesTable())); err != nil || b.Output == "" {
		return err
	}
	return b.replaceSection(pagesHeading, b.pagesSection(ctx))
}

// replaceSection replaces one section of the report.
func (b *bench) replaceSection(heading, section string) error {
	text, err := b.written()
	if err != nil {
		return err
	}
	return b.write(withSection(text, heading, section))
}

// written returns the report that the file has; empty without a file.
func (b *bench) written() (string, error) {
	text, err := os.ReadFile(b.output())
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("report: %w", err)
	}
	return string(text), nil
}
