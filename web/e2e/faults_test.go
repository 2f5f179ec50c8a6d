//go:build linux

package e2e_test

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"tollgate/models/modelstest"
)

const (
	// shortFailure is how long each failure lasts at least. With -soak, it lasts for a part of the
	// soak, and longFailure is the most.
	shortFailure, longFailure = 500 * time.Millisecond, 10 * time.Second
	soakPart                  = 60
	// failureShows is how long a failure may take to show in the answers.
	failureShows = 15 * time.Second
	// moreDescriptors and moreMemory are how much more a process may use after a failure than before,
	// and returnsWithin is how long it may take until then.
	moreDescriptors = 10
	moreMemory      = 64 << 20
	returnsWithin   = 20 * time.Second
)

// effect is what the calls during a failure must show, so that no failure is without one.
type effect int

const (
	// harmless means that every call is answered, and none with an error.
	harmless effect = iota
	// refuses means that every call is answered, some with 503.
	refuses
	// breaks means that some calls get no answer.
	breaks
	// delays means that every call is answered, and some take longer than visibleDelay.
	delays
)

const visibleDelay = 180 * time.Millisecond

// failure is one row of the matrix.
type failure struct {
	name             string
	sqlite, postgres action
}

// action is a failure on one database.
type action struct {
	// does says what the test does or, without begin, why the failure does not exist.
	does string
	// start starts the processes; nil starts them on a new database.
	start func(o *trial) *site
	begin func(o *trial) (end func())
	shows effect
	// recovers is how long the processes may take to decide again; 0 means the constant recovers.
	recovers time.Duration
	// restarts means that a process ends, and is started again as systemd does.
	restarts bool
	// mounts means that the failure needs a small file system, which only root can mount.
	mounts bool
	// jumps means that a clock jumps.
	jumps bool
	// byClients means that only clients misbehave. Then the database makes little difference, and the
	// short form tries it only on SQLite.
	byClients bool
}

// trial is one failure that is tried on one database.
type trial struct {
	*world
	t            *testing.T
	kind         string
	lasts, quiet time.Duration
	clients      int

	// What some failures need. Their start sets it.
	cluster *modelstest.Cluster
	link    *modelstest.SlowLink
	disk    string
}

// outcome is what was measured.
type outcome struct {
	during        traffic
	recovery      time.Duration
	before, after usage
}

// traffic counts the answers of calls. A retry is a call of its own.
type traffic struct{ answered, refused, failed int64 }

func (c *client) traffic() traffic {
	r, f := c.unavailable.Load(), c.broken.Load()+c.unsent.Load()
	return traffic{c.calls.Load() - r - f, r, f}
}

func (n traffic) since(before traffic) traffic {
	return traffic{n.answered - before.answered, n.refused - before.refused, n.failed - before.failed}
}

// usage is what the process uses that uses most.
type usage struct {
	memory      int64
	descriptors int
}

// usage measures all processes, without the connections of idle clients.
func (s *site) usage() usage {
	s.t.Helper()
	s.client.http.CloseIdleConnections()
	var most usage
	for _, p := range s.servers {
		memory, err := p.memory("VmRSS")
		must(s.t, err)
		n, err := p.descriptors()
		must(s.t, err)
		most = usage{max(most.memory, memory), max(most.descriptors, n)}
	}
	return most
}

// The matrix: under load, each failure happens on each database. Afterward the same processes
// decide calls again by themselves, no answered unit is lost or counted twice, a repeated call gets
// its first answer, and memory and descriptors are as before. The table in docs/reliability.md is
// generated from a long run.
func TestFaults(t *testing.T) {
	if *soak == 0 {
		t.Parallel() // nothing else disturbs the measurements of a long run
	}
	var mu sync.Mutex
	outcomes := map[string]outcome{}
	t.Run("all", func(t *testing.T) {
		for _, f := range failures() {
			for _, kind := range kinds {
				a := f.on(kind.name)
				if a.begin == nil || a.byClients && *soak == 0 && kind.name != "SQLite" {
					continue
				}
				if a.mounts && os.Geteuid() != 0 {
					t.Logf("%s on %s: only root can mount a small file system", f.name, kind.name)
					continue
				}
				t.Run(f.name+"/"+kind.name, func(t *testing.T) {
					o := &trial{t: t, kind: kind.name, lasts: shortFailure, quiet: 300 * time.Millisecond, clients: 2}
					if *soak > 0 {
						o.lasts, o.quiet, o.clients = soakedFailure(), 2*time.Second, 16
					} else {
						t.Parallel()
					}
					out := o.run(a)
					mu.Lock()
					defer mu.Unlock()
					outcomes[f.name+kind.name] = out
				})
			}
		}
	})
	if *writeReliability && !t.Failed() {
		writeOutcomes(t, outcomes)
	}
}

func (f *failure) on(kind string) *action {
	if kind == "SQLite" {
		return &f.sqlite
	}
	return &f.postgres
}

// run tries the failure.
func (o *trial) run(a *action) outcome {
	t := o.t
	start := a.start
	if start == nil {
		start = (*trial).newSite
	}
	o.world = newWorld(start(o), worldOptions{
		duration: time.Minute, members: 12, others: 1, pace: 40 * time.Millisecond, jumps: a.jumps,
	})
	ctx, stop := context.WithTimeout(t.Context(), 3*time.Minute)
	defer stop()
	var callers sync.WaitGroup
	t.Cleanup(func() { stop(); callers.Wait() })
	all := make([]*caller, o.clients)
	for i := range all {
		all[i] = &caller{world: o.world, name: fmt.Sprintf("caller%d", i)}
		callers.Go(func() { all[i].run(ctx) })
	}
	o.warm()

	out := outcome{before: o.usage()}
	pids := o.pids()
	disperse, dispersed := o.crowd(ctx)
	before := o.client.traffic()
	o.client.forgetSlowest()
	begun := time.Now()
	end := a.begin(o)
	disperse()
	pause(ctx, o.lasts)
	o.wantEffect(a.shows, before)
	lasted := time.Since(begun)
	out.during = o.client.traffic().since(before)
	ended := time.Now()
	end()
	if !a.restarts {
		ended = time.Now() // the start of a process is a part of its recovery, but that of the database is not
	}
	out.recovery = o.recovery(ended, cmp.Or(a.recovers, recovers))
	dispersed()
	o.wantAnswers(a.shows, out.during)
	if !a.restarts && !slices.Equal(o.pids(), pids) {
		t.Error("a process ended")
	}
	stop()
	callers.Wait()
	out.after = o.wantUsageReturns(out.before)
	o.wantNothingLost()
	t.Logf("during %s: %d answered, %d refused, %d without an answer; recovered after %s; "+
		"memory %d and %d MiB, descriptors %d and %d; %d events",
		lasted.Round(time.Millisecond), out.during.answered, out.during.refused, out.during.failed, out.recovery.Round(time.Millisecond),
		out.before.memory>>20, out.after.memory>>20, out.before.descriptors, out.after.descriptors, len(o.answers))
	return out
}

func (o *trial) pids() (pids []int) {
	for _, p := range o.servers {
		if p.alive() == nil {
			pids = append(pids, p.pid())
		}
	}
	return pids
}

// warm waits until the callers have made calls of all kinds, so that the processes use as much
// memory as they do under this load.
func (o *trial) warm() {
	o.t.Helper()
	want := int64(60 * o.clients)
	within(o.t, startPatience, "the processes are warm", func() bool { return o.client.traffic().answered > want })
}

// forgetSlowest starts the measurement of the slowest call again.
func (c *client) forgetSlowest() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.slowest, c.slow = 0, ""
}

// wantEffect waits until the failure shows in the calls.
func (o *trial) wantEffect(e effect, before traffic) {
	o.t.Helper()
	within(o.t, failureShows, "the failure shows in the calls", func() bool {
		n := o.client.traffic().since(before)
		switch e {
		case refuses:
			return n.refused > 0
		case breaks:
			return n.failed > 0
		case delays:
			o.client.mu.Lock()
			defer o.client.mu.Unlock()
			return o.client.slowest > visibleDelay
		default:
			return n.answered > 0
		}
	})
}

// wantAnswers checks what the failure may not do.
func (o *trial) wantAnswers(e effect, n traffic) {
	o.t.Helper()
	if e != breaks && n.failed > 0 {
		o.t.Errorf("%d calls had no answer; each must be answered", n.failed)
	}
	if (e == harmless || e == delays) && n.refused > 0 {
		o.t.Errorf("%d calls got 503; each must be decided", n.refused)
	}
}

// recovery returns how long it takes from the end of a failure until each process has decided calls
// of ten people and no call fails anymore.
func (o *trial) recovery(ended time.Time, limit time.Duration) time.Duration {
	o.t.Helper()
	const people = 10
	spread(o.t.Context(), people*len(o.servers), people*len(o.servers), func(i int) {
		o.consumeAt(o.servers[i/people], o.members[i%people], fmt.Sprintf("recovery-%d-%d", ended.UnixNano(), i))
	})
	took := time.Since(ended)
	within(o.t, limit+o.quiet+time.Second, "no call fails anymore", func() bool {
		o.client.mu.Lock()
		defer o.client.mu.Unlock()
		took = max(took, o.client.failed.Sub(ended))
		return time.Since(ended) > took+o.quiet
	})
	for _, p := range o.servers {
		eventually(o.t, p.name+" is ready", func() bool {
			status, err := p.get(o.t.Context(), "/readyz")
			return err == nil && status == http.StatusOK
		})
	}
	if took > limit {
		o.t.Errorf("the processes took %s to decide again, want at most %s", took.Round(time.Millisecond), limit)
	}
	return took
}

// crowd makes calls without pauses, at most until disperse, so that many are in progress when the failure
// begins. A person's calls go to one process, which then decides them from memory. dispersed waits
// until all calls are decided.
func (o *trial) crowd(ctx context.Context) (disperse, dispersed func()) {
	o.t.Helper()
	const callers, each, some = 24, 60, 200
	ctx, disperse = context.WithCancel(ctx)
	var all sync.WaitGroup
	o.t.Cleanup(func() { disperse(); all.Wait() })
	before := o.client.traffic()
	for i := range callers {
		all.Go(func() {
			for n := 0; n < each && ctx.Err() == nil; n++ {
				o.consumeAt(o.servers[i%len(o.servers)], o.members[i%len(o.members)], fmt.Sprintf("crowd-%d-%d", i, n))
			}
		})
	}
	within(o.t, startPatience, "the crowd calls", func() bool { return o.client.traffic().since(before).answered > some })
	return disperse, all.Wait
}

// consumeAt consumes one unit at one process, and repeats the call until it is decided.
func (o *trial) consumeAt(p *server, who *someone, key string) {
	who.atMost.Add(1)
	r := o.client.insist(o.t.Context(), []string{p.addr}, 0, http.MethodPost, "/v1/consume", body{"email": who.email, "idempotency_key": key})
	d, err := r.decision()
	if err != nil || !d.Allowed || d.EventID == nil {
		o.t.Errorf("%s: %+v, %v", key, d, err)
		return
	}
	who.atLeast.Add(1)
	o.record(key, grant{*d.EventID, who.email, 1}, d.Replayed)
}

// wantUsageReturns waits until the processes use about as much as before the failure.
func (o *trial) wantUsageReturns(before usage) usage {
	o.t.Helper()
	var now usage
	end := time.Now().Add(returnsWithin)
	for ; ; pause(o.t.Context(), 20*time.Millisecond) {
		if now = o.usage(); now.memory <= before.memory+moreMemory && now.descriptors <= before.descriptors+moreDescriptors {
			return now
		}
		if time.Now().After(end) {
			o.t.Errorf("%s after the failure, the process that uses most has %d MiB and %d descriptors; before it, %d MiB and %d",
				returnsWithin, now.memory>>20, now.descriptors, before.memory>>20, before.descriptors)
			return now
		}
	}
}

// wantNothingLost compares all answers with the database, and repeats all calls that recorded
// something.
func (o *trial) wantNothingLost() {
	o.t.Helper()
	o.wantLedger(o.answers)
	if !o.jumps {
		o.wantUsage()
	}
	consumed, settled := ledger{}, ledger{}
	for key, g := range o.answers {
		if id, ok := strings.CutPrefix(key, "hold "); ok {
			settled[id] = g
		} else {
			consumed[key] = g
		}
	}
	o.wantReplays(consumed)
	o.wantSettled(settled)
	o.wantLedger(o.answers)
	o.judge()
	o.verify()
}

// wantSettled repeats each settlement, which must get its first answer.
func (o *trial) wantSettled(holds ledger) {
	o.t.Helper()
	ids, addresses := slices.Collect(maps.Keys(holds)), o.addresses()
	spread(o.t.Context(), 16, len(ids), func(i int) {
		g := holds[ids[i]]
		d, err := o.client.insist(o.t.Context(), addresses, i, http.MethodPost, "/v1/holds/"+ids[i]+"/settle",
			body{"quantity": g.quantity}).decision()
		if err != nil || !d.Replayed || d.EventID == nil || *d.EventID != g.id {
			o.t.Errorf("hold %s settled again was answered with %+v, want event %s replayed: %v", ids[i], d, g.id, err)
		}
	})
}
