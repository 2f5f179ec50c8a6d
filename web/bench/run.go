//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"
)

// bench is one run.
type bench struct {
	options
	dir  string
	root string
	// binary is the path of the product's binary, once it is built.
	binary   string
	progress io.Writer
	servers  []*server
	// stops has the functions that stop what was started.
	stops []func() error
	// series is the number of the last load.
	series uint32
	// results has a result for each round, by call and server.
	results map[string][]result
	// decision has the times from a start to the first decision, by server.
	decision map[string][]time.Duration
	// poolTries has the rate of one statement per call with each pool size.
	poolTries []poolTry
	pool      int
	facts     []fact
	// pages has the measurements of the pages: first with a tenth of the events, then with all.
	pages []pageShop
	// grown has the databases of the growth.
	grown []*grown
}

// server is one of the servers that are compared.
type server struct {
	name    string
	process *process
	addr    string
	token   string
	// gate is set if the server is the product.
	gate *gate
	// database and usedColumn are the address of the ledger and its column of used units. They are
	// empty without a ledger.
	database, usedColumn string
	// answers is the number of calls for which the ledger must have an event.
	answers int64
	// peak is the most resident memory that the process used until the end of the closed loops, in
	// bytes.
	peak int64
}

// result is the result of one load.
type result struct {
	outcome
	// ServerCPU is the processor time of the server's process, without its database.
	ServerCPU time.Duration
	// Resident is the most resident memory that was seen during the load, in bytes.
	Resident int64
}

func run(ctx context.Context, o options, out, progress io.Writer) (err error) {
	dir, err := os.MkdirTemp("", "tollgate-bench-")
	if err != nil {
		return err
	}
	b := &bench{
		options: o, dir: dir, progress: progress,
		results: map[string][]result{}, decision: map[string][]time.Duration{},
	}
	defer func() { err = errors.Join(err, b.stop(), os.RemoveAll(dir)) }()
	if o.Compare != "" {
		if err := b.describe(ctx); err != nil {
			return err
		}
		return b.compare(ctx, out)
	}
	steps := []func(context.Context) error{b.describe}
	if o.wantsServers() {
		steps = append(steps, b.startServers, b.introduce, b.tryPools, b.compareSizes, b.closedLoops, b.openLoops, b.organizations,
			b.starts, b.checkLedgers)
	}
	steps = append(steps, b.measurePages)
	if o.wantsGrowth() {
		steps = append(steps, b.measureGrowth)
	}
	for _, step := range steps {
		if err := step(ctx); err != nil {
			return err
		}
	}
	var reports []func(context.Context, io.Writer) error
	switch {
	case o.wantsServers():
		reports = append(reports, b.report)
	case o.wantsPages():
		reports = append(reports, b.reportPages)
	}
	if o.wantsGrowth() {
		reports = append(reports, b.reportGrowth)
	}
	for _, report := range reports {
		if err := report(ctx, out); err != nil {
			return err
		}
	}
	return nil
}

// stop stops everything that was started, in reverse order.
func (b *bench) stop() error {
	var errs []error
	for _, stop := range slices.Backward(b.stops) {
		errs = append(errs, stop())
	}
	b.stops = nil
	return errors.Join(errs...)
}

func (b *bench) say(format string, args ...any) { fmt.Fprintf(b.progress, format+"\n", args...) }

// describe collects the facts for which no server is needed.
func (b *bench) describe(ctx context.Context) (err error) {
	if b.root, err = moduleRoot(ctx); err != nil {
		return err
	}
	if b.facts, err = b.machineFacts(ctx); err != nil {
		return err
	}
	b.facts = append(b.facts, toolFacts(ctx, b.root)...)
	return nil
}

func (b *bench) server(name string) *server {
	for _, s := range b.servers {
		if s.name == name {
			return s
		}
	}
	return nil
}

// gates returns the servers that are the product.
func (b *bench) gates() []*server {
	return slices.DeleteFunc(slices.Clone(b.servers), func(s *server) bool { return s.gate == nil })
}

// load runs a load on a server and measures the server's process.
func (b *bench) load(ctx context.Context, s *server, l load) (result, error) {
	b.series++
	l.Series, l.Addr, l.Token = b.series, s.addr, s.token
	l.Name = l.Path + " of " + s.name
	if l.People == 0 {
		l.People = b.People
	}
	pid := s.process.cmd.Process.Pid
	before, err := cpuTime(pid)
	if err != nil {
		return result{}, err
	}
	watching, done := context.WithCancel(ctx)
	most := make(chan int64)
	go func() { most <- watchResident(watching, pid) }()
	o, err := runLoad(ctx, l)
	done()
	r := result{outcome: o, Resident: <-most}
	if err != nil {
		return r, fmt.Errorf("%w\n%s", err, s.process.tail())
	}
	after, err := cpuTime(pid)
	if err != nil {
		return r, err
	}
	r.ServerCPU = after - before
	if l.Keyed {
		s.answers += o.Answers
	}
	return r, nil
}

// watchResident reads the resident memory ten times per second until ctx ends. If the process has
// ended, the load returns an error.
func watchResident(ctx context.Context, pid int) (most int64) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		if now, _, err := resident(pid); err == nil {
			most = max(most, now)
		}
		select {
		case <-ctx.Done():
			return most
		case <-tick.C:
		}
	}
}

// warm returns how long calls are made before a measurement of length d begins.
func warm(d time.Duration) time.Duration { return min(d/4, time.Second) }

// closedLoops measures each server in turn, round after round, so that a change of the machine's
// speed affects all.
func (b *bench) closedLoops(ctx context.Context) error {
	if err := b.measure(ctx, b.closedLoopPlan()); err != nil {
		return err
	}
	for _, s := range b.servers {
		var err error
		if _, s.peak, err = resident(s.process.cmd.Process.Pid); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return nil
}

// measure makes each measurement once in each round.
func (b *bench) measure(ctx context.Context, plan []measurement) error {
	for round := range b.Rounds {
		for _, m := range plan {
			l := load{
				Path: "/v1/consume", Keyed: true, Warm: warm(b.Duration), Measure: b.Duration,
			}
			switch m.call {
			case checkCall:
				l.Path, l.Keyed = "/v1/check", false
			case onePersonCall:
				l.People = 1
			case oneOrganizationCall:
				l.FirstPerson = firstLimited
			case manyOrganizationsCall:
				l.FirstPerson = firstLimited + b.People
			}
			r, err := b.load(ctx, m.server, l)
			if err != nil {
				return err
			}
			key := m.call + " " + m.server.name
			b.results[key] = append(b.results[key], r)
			b.say("round %d of %d: %-24s %8.0f/s, p50 %s, p99 %s", round+1, b.Rounds, key, r.PerSecond, short(r.P50), short(r.P99))
		}
	}
	return nil
}

// measurement is one kind of call on one server.
type measurement struct {
	call   string
	server *server
}

func (b *bench) closedLoopPlan() []measurement {
	var plan []measurement
	add := func(call string, servers ...string) {
		for _, name := range servers {
			if s := b.server(name); s != nil && b.wants(call) {
				plan = append(plan, measurement{call, s})
			}
		}
	}
	add(consumeCall, allServers()...)
	add(onePersonCall, postgresServer)
	add(checkCall, floorServer, postgresServer, sqliteServer)
	return plan
}

// The rates of the open loops, in calls per second.
const (
	busyRate  = 2_000
	quietRate = 50
)

// openLoops measures the latency of the gate on PostgreSQL at given rates of calls.
func (b *bench) openLoops(ctx context.Context) error {
	s := b.server(postgresServer)
	if s == nil || !b.wants(openLoopCall) {
		return nil
	}
	for _, rate := range []int{busyRate, quietRate} {
		r, err := b.load(ctx, s, load{
			Path: "/v1/consume", Keyed: true, Warm: warm(b.OpenLoop), Measure: b.OpenLoop, Rate: rate,
		})
		if err != nil {
			return err
		}
		b.results[openLoopKey(rate)] = []result{r}
		b.say("open loop at %d/s: p50 %s, p99 %s, p99.9 %s, max %s", rate, short(r.P50), short(r.P99), short(r.P999), short(r.Max))
	}
	return nil
}

func openLoopKey(rate int) string { return fmt.Sprintf("%s %d", openLoopCall, rate) }

// starts measures the time from each gate's start to its first decision, on the databases that the
// loads have filled.
func (b *bench) starts(ctx context.Context) error {
	for _, s := range b.gates() {
		if err := s.process.stop(); err != nil {
			return err
		}
		s.process = nil
		if !b.wants(startCall) {
			continue
		}
		for n := range b.Starts {
			took, err := s.gate.firstDecision(ctx, n)
			if err != nil {
				return err
			}
			s.answers++
			b.decision[s.name] = append(b.decision[s.name], took)
		}
		b.say("start to first decision, %s: %v", s.name, b.decision[s.name])
	}
	return nil
}

// checkLedgers compares the answers with the stored events. A rate has no value if calls were lost.
func (b *bench) checkLedgers(ctx context.Context) error {
	for _, s := range b.servers {
		if s.database == "" {
			continue
		}
		if s.gate != nil {
			if err := s.gate.verify(ctx); err != nil {
				return err
			}
		}
		l, err := readLedger(ctx, s.database, s.usedColumn)
		if err == nil {
			err = l.against(s.answers)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		b.say("%s: %d answers, %d events, %d units counted", s.name, s.answers, l.events, l.units)
	}
	return nil
}
