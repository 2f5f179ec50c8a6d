//go:build linux

package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"tollgate/models/modelstest"
)

// report prints the tables, and writes the report to the file.
func (b *bench) report(ctx context.Context, out io.Writer) error {
	goals := [][]string{{"", "goal", "result", "met"}}
	for _, r := range b.goalRows() {
		goals = append(goals, []string{r.What, r.Goal, r.Result, r.Met})
	}
	rates := b.rateTable()
	if _, err := fmt.Fprintf(out, "\n%s\n%s", table(goals), table(rates)); err != nil {
		return err
	}
	if len(b.pages) > 0 {
		if _, err := fmt.Fprintf(out, "\n%s", table(b.pagesTable())); err != nil {
			return err
		}
	}
	if b.Output == "" {
		return nil
	}
	var text strings.Builder
	fmt.Fprintf(&text, "# Benchmarks\n\n%s\n\n%s\n\n%s\n## Measured\n\n%s\n%s\n",
		wrapped("", "`make bench` wrote this page on %s. All numbers are from one run, "+
			"except those of sections that name another command.",
			time.Now().UTC().Format(time.DateOnly)),
		wrapped("", "A row with \"divided by\" compares two rates, in calls per second. The floor, the Redis counter and \"one statement per "+
			"call\" are servers without Tollgate; the section \"How\" describes them. Each round gives a ratio. The table shows the median of "+
			"the rounds, with the lowest and the highest value in parentheses."),
		table(goals),
		table(rates),
		wrapped("", "Rates, latencies and processor times are medians of the rounds. In a closed loop, %d connections keep the server "+
			"at its limit, so these latencies show how long the queue is. They say nothing about a server with spare capacity.", connections))
	if loops := b.openLoopTable(); len(loops) > 1 {
		fmt.Fprintf(&text, "\n%s\n\n%s", wrapped("", "The next table is from an open loop of %s with Tollgate on PostgreSQL: calls are "+
			"sent at fixed intervals, even if responses are late. A latency is measured from the time at which the call was due.",
			b.OpenLoop), table(loops))
	}
	if len(b.pages) > 0 {
		text.WriteString("\n" + b.pagesSection(ctx))
	}
	text.WriteString("\n## How\n\n" + strings.Join(b.how(), "\n") + "\n\n## Where\n\n" + table(b.factTable()))

	// The growth is measured on its own, so the file keeps what it has about it.
	old, err := b.written()
	if err != nil {
		return err
	}
	report := text.String()
	if _, growth, _ := cutSection(old, growthHeading); growth != "" {
		report = withSection(report, growthHeading, growth)
	}
	return b.write(report)
}

// output returns the path of the report.
func (b *bench) output() string {
	if filepath.IsAbs(b.Output) {
		return b.Output
	}
	return filepath.Join(b.root, b.Output)
}

func (b *bench) write(text string) error {
	if err := os.WriteFile(b.output(), []byte(text), 0o644); err != nil { //nolint:gosec // a document
		return fmt.Errorf("write the report: %w", err)
	}
	return nil
}

// rateTable returns a row for each closed loop.
func (b *bench) rateTable() [][]string {
	lines := [][]string{{
		"closed loop", "calls/s", "p50", "p99", "server's CPU per call", "client's CPU per call", "memory", "peak memory",
	}}
	loops := b.closedLoopPlan()
	for i, m := range append(loops, b.organizationPlan()...) {
		results := b.results[m.call+" "+m.server.name]
		if len(results) == 0 {
			continue
		}
		var rates []float64
		var p50, p99, serverCPU, clientCPU []time.Duration
		var memory []int64
		for _, r := range results {
			rates = append(rates, r.PerSecond)
			p50, p99 = append(p50, r.P50), append(p99, r.P99)
			serverCPU = append(serverCPU, r.ServerCPU/time.Duration(r.Answers))
			clientCPU = append(clientCPU, r.CPU/time.Duration(r.Answers))
			memory = append(memory, r.Resident)
		}
		call := m.call
		if long, ok := callNames[call]; ok {
			call = long
		}
		peak := mebibytes(m.server.peak)
		if i >= len(loops) {
			peak = "-" // it was read before these loops
		}
		lines = append(lines, []string{
			call + ", " + title(m.server.name), strconv.FormatFloat(median(rates), 'f', 0, 64), short(median(p50)),
			short(median(p99)), short(median(serverCPU)), short(median(clientCPU)), mebibytes(median(memory)), peak,
		})
	}
	return lines
}

// callNames has the names of calls in the report, if they differ.
var callNames = map[string]string{
	onePersonCall:         "consume, one person's record",
	oneOrganizationCall:   "overage, one organization with a spend limit",
	manyOrganizationsCall: "overage, many organizations with spend limits",
}

func (b *bench) openLoopTable() [][]string {
	lines := [][]string{{"calls/s", "p50", "p99", "p99.9", "max", "calls measured"}}
	for _, rate := range []int{busyRate, quietRate} {
		for _, r := range b.results[openLoopKey(rate)] {
			lines = append(lines, []string{
				strconv.Itoa(rate), short(r.P50), short(r.P99), short(r.P999), short(r.Max), strconv.FormatInt(r.Measured, 10),
			})
		}
	}
	return lines
}

func (b *bench) factTable() [][]string {
	lines := [][]string{{"", ""}}
	for _, f := range b.facts {
		lines = append(lines, []string{f.Name, f.Value})
	}
	return lines
}

// how explains what this run compared.
func (b *bench) how() []string {
	lines := []string{
		wrapped("- ", "One run with %d rounds. In each round, every server is measured once, for %s, after a warm-up of %s with the same calls. "+
			"Client, server and database share the machine, and each has its own process.",
			b.Rounds, b.Duration, warm(b.Duration)),
		wrapped("- ", "The client has %d keep-alive HTTP/1.1 connections on one thread with one epoll instance. Requests are built in advance. "+
			"Each call has its own idempotency key and is for a random one of %d people. The client reads every response. The run "+
			"fails at the first response that is not a 200 with `\"allowed\":true`.", connections, b.People),
		wrapped("- ", "The floor is an Echo handler with `c.Bind` and `c.JSON`, without a database, an API key or middleware. Its "+
			"responses have the same fields as Tollgate's. The benchmark fails if their lengths differ by more than a tenth."),
	}
	for _, s := range b.gates() {
		lines = append(lines, wrapped("- ", "Tollgate on %s is the binary from `go build`, with API keys and default "+
			"settings. Only its plan catalog differs: it includes more units than anyone uses, so that all responses have the same "+
			"length. After the load, `tollgate verify` found no difference. The database had %d events and %d counted units, one for each "+
			"response.", title(s.name), s.answers, s.answers))
	}
	if s := b.server(oneStatementServer); s != nil {
		tries := make([]string, len(b.poolTries))
		for i, try := range b.poolTries {
			tries[i] = fmt.Sprintf("%d: %.0f/s", try.connections, try.perSecond)
		}
		lines = append(lines, wrapped("- ", "\"One statement per call\" is Echo with pgxpool, on the same PostgreSQL. One prepared statement "+
			"updates the counter within its limit and inserts the event with its unique key. The pool has %d connections, the best "+
			"of the sizes tried (%s). The database had %d events, one for each response.",
			b.pool, strings.Join(tries, ", "), s.answers))
	}
	if b.server(redisServer) != nil || b.server(redisAOFServer) != nil {
		lines = append(lines, wrapped("- ", "\"Redis counter\" is Echo with go-redis and its default pool. One script per call checks "+
			"the limit, stores the key for a day and counts. Redis has Debian's settings, without an append-only file: a crash "+
			"loses the counts since the last snapshot, which can be minutes old. With a log that is synced each second, a crash loses the "+
			"counts of about a second. Tollgate loses no call that it has answered."))
	}
	return append(lines, wrapped("- ", "PostgreSQL is a new cluster from initdb, with the settings below and no other tuning. The "+
		"database is empty at first and has the run's events at the end. SQLite uses `synchronous=FULL`."))
}

// wrapped formats a paragraph of the report. The first line begins with prefix.
func wrapped(prefix, format string, args ...any) string {
	return modelstest.Wrap(prefix, fmt.Sprintf(format, args...))
}

// table returns a Markdown table that is also readable in a terminal.
func table(lines [][]string) string {
	widths := make([]int, len(lines[0]))
	for _, line := range lines {
		for i, cell := range line {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell), 3)
		}
	}
	var text strings.Builder
	for n, line := range lines {
		for i, cell := range line {
			text.WriteString("| " + cell + strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell)+1))
		}
		text.WriteString("|\n")
		if n == 0 {
			for _, width := range widths {
				text.WriteString("|" + strings.Repeat("-", width+2))
			}
			text.WriteString("|\n")
		}
	}
	return text.String()
}
