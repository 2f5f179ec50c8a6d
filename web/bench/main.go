//go:build linux

// Command bench compares Tollgate with what a user could write or choose instead, in one run on one
// machine, and writes the ratios to docs/benchmarks.md. Run it with `go run ./web/bench` or `make
// bench`.
//
// It starts each server in its own process, on a free port of the loopback address, and stops only
// what it started.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	if len(os.Args) > 1 && strings.HasPrefix(os.Args[1], rolePrefix) {
		err = playRole(ctx, os.Args[1], os.Stdin, os.Stdout)
	} else {
		err = runFromFlags(ctx, os.Args[1:], os.Stdout, os.Stderr)
	}
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// options has the lengths and sizes of the measurements.
type options struct {
	// Duration is the length of one measurement of a closed loop, and Rounds is how often each is
	// repeated.
	Duration time.Duration
	Rounds   int
	// OpenLoop is the length of one measurement of an open loop.
	OpenLoop time.Duration
	// Only has the names of the servers and calls to measure. If it is empty, all are measured.
	Only []string
	// Compare is the file of another build of the product to compare with. If it is empty, the
	// measurements of the report are made.
	Compare string
	// Output is the file that the report is written to. If it is empty, no report is written.
	Output string
	// People is how many people make calls. Pools has the pool sizes to try for one statement per
	// call. Starts is how often a start is measured.
	People int
	Pools  []int
	Starts int
	// Members and Events are the sizes of the database for the pages. Requests is how often each page
	// is requested.
	Members  int
	Events   int64
	Requests int
	// Sizes and LiteSizes are the numbers of events for the growth on PostgreSQL and on SQLite.
	Sizes, LiteSizes []int64
}

// The names of the servers and the calls for -only.
const (
	floorServer        = "floor"
	postgresServer     = "postgres"
	sqliteServer       = "sqlite"
	oneStatementServer = "one-statement"
	redisServer        = "redis"
	redisAOFServer     = "redis-aof"

	consumeCall   = "consume"
	checkCall     = "check"
	onePersonCall = "one-person"
	// These are consumes whose overage counts toward a spend limit: of one organization, and of many.
	oneOrganizationCall   = "one-organization"
	manyOrganizationsCall = "many-organizations"
	openLoopCall          = "open-loop"
	startCall             = "start"
)

func allServers() []string {
	return []string{floorServer, postgresServer, sqliteServer, oneStatementServer, redisServer, redisAOFServer}
}

func allCalls() []string {
	return []string{consumeCall, checkCall, onePersonCall, oneOrganizationCall, openLoopCall, startCall}
}

// wants reports whether a server or a call is measured: if -only names it, or names none of its
// kind.
func (o options) wants(name string) bool {
	kind := allServers()
	if slices.Contains(allCalls(), name) {
		kind = allCalls()
	}
	named := func(n string) bool { return slices.Contains(o.Only, n) }
	return named(name) || !slices.ContainsFunc(kind, named)
}

// wantsPages reports whether the pages are measured: unless -only names only other things.
func (o options) wantsPages() bool { return len(o.Only) == 0 || slices.Contains(o.Only, pagesMeasure) }

// wantsGrowth reports whether the growth is measured.
func (o options) wantsGrowth() bool { return slices.Contains(o.Only, growthMeasure) }

// wantsServers reports whether anything else is measured: unless -only names only the pages or the growth.
func (o options) wantsServers() bool {
	return len(o.Only) == 0 ||
		slices.ContainsFunc(o.Only, func(name string) bool { return name != pagesMeasure && name != growthMeasure })
}

const defaultOutput = "docs/benchmarks.md"

func runFromFlags(ctx context.Context, args []string, out, progress io.Writer) error {
	o := options{People: 10_000, Pools: []int{16, 32, 64, 128}, Starts: 5, Requests: 50,
		Sizes: []int64{10_000, 1_000_000, 10_000_000, 50_000_000}, LiteSizes: []int64{10_000, 1_000_000, 10_000_000}}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(progress)
	flags.DurationVar(&o.Duration, "duration", 8*time.Second, "length of one measurement")
	flags.DurationVar(&o.OpenLoop, "open-loop", 15*time.Second, "length of one measurement with a fixed rate of calls")
	flags.IntVar(&o.Rounds, "rounds", 3, "number of times that each measurement is repeated")
	flags.IntVar(&o.Members, "members", 10_000, "number of members of the organization whose pages are measured")
	flags.Int64Var(&o.Events, "events", 10_000_000, "number of events of these members (at least 10)")
	names := slices.Concat(allServers(), allCalls(), []string{pagesMeasure, growthMeasure})
	only := flags.String("only", "", "comma-separated list of what to measure: "+strings.Join(names, ", "))
	flags.StringVar(&o.Compare, "compare", "", "the `file` of another build of Tollgate. Only consume is measured, "+
		"with the two builds in turn, and no report is written")
	flags.Func("sizes", "comma-separated numbers of `events` for -only growth on PostgreSQL", numbers(&o.Sizes))
	flags.Func("sqlite-sizes", "comma-separated numbers of `events` for -only growth on SQLite", numbers(&o.LiteSizes))
	flags.StringVar(&o.Output, "o", "", "the `file` to write the report to (default "+defaultOutput+
		", none with -only). With -only pages or growth, only that section of the file is replaced")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *only != "" {
		o.Only = strings.Split(*only, ",")
	} else if o.Output == "" {
		o.Output = defaultOutput
	}
	for _, name := range o.Only {
		if !slices.Contains(names, name) {
			return fmt.Errorf("invalid -only %q: unknown name %q", *only, name)
		}
	}
	if o.Compare != "" && !o.comparable() {
		return fmt.Errorf("invalid -only %q: with -compare, it can name only %s and %s", *only, postgresServer, sqliteServer)
	}
	if o.Duration <= 0 || o.OpenLoop <= 0 || o.Rounds <= 0 || o.Members <= 0 || o.Events < 10 || flags.NArg() > 0 {
		return fmt.Errorf("durations and numbers must be positive, -events at least 10, and no arguments may follow the flags: %q", args)
	}
	return run(ctx, o, out, progress)
}

// numbers parses a comma-separated list of positive numbers, which may be empty.
func numbers(into *[]int64) func(string) error {
	return func(text string) error {
		*into = nil
		if text == "" {
			return nil
		}
		for number := range strings.SplitSeq(text, ",") {
			n, err := strconv.ParseInt(number, 10, 64)
			if err != nil || n <= 0 {
				return fmt.Errorf("%q is not a positive number", number)
			}
			*into = append(*into, n)
		}
		return nil
	}
}
