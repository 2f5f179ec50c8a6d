//go:build linux

// The bench measures Tollgate against what a user would write or pick in its place, all in one run on one machine,
// and writes the ratios to docs/benchmarks.md. Run it as `go run ./web/bench`, or `make bench`.
//
// It starts everything itself on free ports of the loopback address, each server in a process of its own, and stops
// just what it started.
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

// options say how long and how much to measure.
type options struct {
	// Duration is the length of one measurement of a closed loop, Rounds how often each is repeated.
	Duration time.Duration
	Rounds   int
	// OpenLoop is the length of one measurement of an open loop.
	OpenLoop time.Duration
	// Only names the servers and the calls to measure; empty is all.
	Only []string
	// Output is the file that the report is written to; empty is none.
	Output string
	// People is how many people call. Pools are the pool sizes tried for one statement a call; Starts is how often a
	// start is timed.
	People int
	Pools  []int
	Starts int
	// Members and Events are what the pages are measured with. Requests is how often each page is asked for.
	Members  int
	Events   int64
	Requests int
}

// The servers and the calls, as -only names them.
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
	openLoopCall  = "open-loop"
	startCall     = "start"
)

func allServers() []string {
	return []string{floorServer, postgresServer, sqliteServer, oneStatementServer, redisServer, redisAOFServer}
}

func allCalls() []string {
	return []string{consumeCall, checkCall, onePersonCall, openLoopCall, startCall}
}

// wants says whether -only leaves a server or a call in: it does when it names it, or none of its kind.
func (o options) wants(name string) bool {
	kind := allServers()
	if slices.Contains(allCalls(), name) {
		kind = allCalls()
	}
	named := func(n string) bool { return slices.Contains(o.Only, n) }
	return named(name) || !slices.ContainsFunc(kind, named)
}

// wantsPages says whether the pages are measured: they are unless -only names other things.
func (o options) wantsPages() bool { return len(o.Only) == 0 || slices.Contains(o.Only, pagesMeasure) }

// wantsServers says whether anything else is: it is unless -only names the pages alone.
func (o options) wantsServers() bool {
	return len(o.Only) == 0 || slices.ContainsFunc(o.Only, func(name string) bool { return name != pagesMeasure })
}

const defaultOutput = "docs/benchmarks.md"

func runFromFlags(ctx context.Context, args []string, out, progress io.Writer) error {
	o := options{People: 10_000, Pools: []int{16, 32, 64, 128}, Starts: 5, Requests: 50}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(progress)
	flags.DurationVar(&o.Duration, "duration", 8*time.Second, "length of one measurement")
	flags.DurationVar(&o.OpenLoop, "open-loop", 15*time.Second, "length of one measurement at a fixed rate of calls")
	flags.IntVar(&o.Rounds, "rounds", 3, "how often each measurement is repeated")
	flags.IntVar(&o.Members, "members", 10_000, "how many members the organization has whose pages are measured")
	flags.Int64Var(&o.Events, "events", 10_000_000, "how many events are behind them")
	names := slices.Concat(allServers(), allCalls(), []string{pagesMeasure})
	only := flags.String("only", "", "a comma list of what to measure: "+strings.Join(names, ", "))
	flags.StringVar(&o.Output, "o", "", "the `file` to write the report to (default "+defaultOutput+", none with -only). With -only pages, their section in it")
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
			return fmt.Errorf("-only %s: there is no %q", *only, name)
		}
	}
	if o.Duration <= 0 || o.OpenLoop <= 0 || o.Rounds <= 0 || o.Members <= 0 || o.Events < 10 || flags.NArg() > 0 {
		return fmt.Errorf("the durations and numbers must be positive, and nothing may follow the flags: %q", args)
	}
	return run(ctx, o, out, progress)
}
