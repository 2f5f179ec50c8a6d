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
)

// report prints the tables, and writes the whole report to the file.
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
	fmt.Fprintf(&text, "# Benchmarks\n\nWritten by `make bench` on %s; not edited by hand. Every number was measured in "+
		"that one run.\n\n%s\n", time.Now().UTC().Format(time.DateOnly), table(goals))
	text.WriteString("A ratio is taken round by round and is the median of the rounds, with the lowest and the highest in " +
		"brackets.\n\n## Measured\n\n")
	fmt.Fprintf(&text, "%s\nThe rates, latencies and processor times are medians of the rounds. A latency in a closed loop is that "+
		"of a server driven to its end by %d connections: it tells how long the queue is, and nothing about a service "+
		"with room to spare.\n", table(rates), connections)
	if loops := b.openLoopTable(); len(loops) > 1 {
		fmt.Fprintf(&text, "\nThe gate on PostgreSQL in an open loop of %s: calls are sent evenly at their times, however late "+
			"answers are, and a latency counts from the time the call was to be sent at.\n\n%s", b.OpenLoop, table(loops))
	}
	if len(b.pages) > 0 {
		text.WriteString("\n" + b.pagesSection(ctx))
	}
	text.WriteString("\n## How\n\n" + strings.Join(b.how(), "\n") + "\n\n## Where\n\n" + table(b.factTable()))

	return b.write(text.String())
}

// output is the file that the report is written to.
func (b *bench) output() string {
	if filepath.IsAbs(b.Output) {
		return b.Output
	}
	return filepath.Join(b.root, b.Output)
}

func (b *bench) write(text string) error {
	if err := os.WriteFile(b.output(), []byte(text), 0o644); err != nil { //nolint:gosec // a document
		return fmt.Errorf("report: %w", err)
	}
	return nil
}

// rateTable has a line for each closed loop.
func (b *bench) rateTable() [][]string {
	lines := [][]string{{
		"closed loop", "calls/s", "p50", "p99", "server's CPU a call", "client's CPU a call", "in RAM", "at its peak",
	}}
	for _, m := range b.closedLoopPlan() {
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
		call := strings.ReplaceAll(m.call, "one-person", "consume, one person's record")
		lines = append(lines, []string{
			call + ", " + title(m.server.name), strconv.FormatFloat(median(rates), 'f', 0, 64), short(median(p50)),
			short(median(p99)), short(median(serverCPU)), short(median(clientCPU)), mebibytes(median(memory)),
			mebibytes(m.server.peak),
		})
	}
	return lines
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

// how says what was compared with what, as far as this run did it.
func (b *bench) how() []string {
	lines := []string{
		fmt.Sprintf("- One run, rounds: %d. In each round every server is measured once, for %s, after %s of the same calls; "+
			"client, server and database share the machine, and each is a process of its own.",
			b.Rounds, b.Duration, warm(b.Duration)),
		fmt.Sprintf("- The client: %d keep-alive HTTP/1.1 connections on one thread and one epoll, requests written out "+
			"beforehand, each call with an idempotency key of its own, random ones of %d people. It reads every answer and "+
			"the run ends with an error at the first that is not a 200 with `\"allowed\":true`.", connections, b.People),
		"- The floor: an Echo handler with `c.Bind` and `c.JSON` of the same fields and length (within a tenth; the bench " +
			"refuses to run otherwise), without a database, an API key or any middleware.",
	}
	for _, s := range b.gates() {
		lines = append(lines, fmt.Sprintf("- The gate on %s: the product's binary as built by `go build`, with API keys, at its "+
			"defaults but for a catalogue whose plan nobody exhausts, so that answers stay of one length. After the load, "+
			"`tollgate verify` found no difference, and %d answers made just as many events and counted units.",
			title(s.name), s.answers))
	}
	if s := b.server(oneStatementServer); s != nil {
		tries := make([]string, len(b.poolTries))
		for i, try := range b.poolTries {
			tries[i] = fmt.Sprintf("%d: %.0f/s", try.connections, try.perSecond)
		}
		lines = append(lines, fmt.Sprintf("- One statement a call: Echo, pgxpool, one prepared statement that updates the counter "+
			"within its limit and inserts the event under its unique key, on the same PostgreSQL. Pool of %d connections, the "+
			"best of those tried (%s). Its %d answers made just as many events.", b.pool, strings.Join(tries, ", "), s.answers))
	}
	if b.server(redisServer) != nil || b.server(redisAOFServer) != nil {
		lines = append(lines, "- The Redis counter: Echo, go-redis with its default pool, one script a call that checks the limit, "+
			"remembers the key for a day and counts. Redis as Debian ships it, without an append-only file: a crash loses "+
			"what was counted since the last snapshot, minutes of it. With the log synced each second it loses about a second. "+
			"The gate loses nothing that it answered.")
	}
	return append(lines, "- PostgreSQL: a cluster fresh from initdb, with the settings below and no other tuning; the database "+
		"is empty at first and holds the run's events at the end. SQLite: `synchronous=FULL`.")
}

// table is a Markdown table that reads as one in a terminal too.
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
