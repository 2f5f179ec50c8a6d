package billing

import (
	"flag"
	"fmt"
	"strings"
	"testing"

	"tollgate/models/modelstest"
)

// `make soak` runs more and longer schedules than the suite. Repeat a failed schedule with -seed
// and the same -days.
var (
	days      = flag.Int("days", 3, "days in a schedule, before the days that it takes to settle")
	schedules = flag.Int("schedules", 1, "number of schedules to simulate on each database")
	seedFlag  = flag.Uint64("seed", 0, "simulate only this schedule")
)

var databases = map[string]func(testing.TB) string{"sqlite": modelstest.SQLite, "postgres": modelstest.Postgres}

// simulate runs a schedule and returns the problems found.
func simulate(t testing.TB, address string, s schedule) []string {
	t.Helper()
	w := newWorld(t, address, s)
	w.run()
	problems := w.problems()
	if s.without == none {
		t.Logf("seed %d, to %s: %v", s.seed, w.now.Format("01-02 15:04"), w.counts)
	}
	if n := w.counts["events"]; n < 40*s.days || w.counts["reports"] < 10*s.days {
		problems = append(problems, fmt.Sprintf("only %d events and %d reports were made", n, w.counts["reports"]))
	}
	return problems
}

// seeds returns the seeds of the schedules to run: those of the suite, unless a flag says otherwise.
func seeds(suite []uint64) []uint64 {
	switch {
	case *seedFlag != 0:
		return []uint64{*seedFlag}
	case *schedules > 1:
		all := make([]uint64, *schedules)
		for i := range all {
			all[i] = uint64(i + 1)
		}
		return all
	}
	return suite
}

// run runs schedules on each database. suite has the seeds that the suite runs.
func run(t *testing.T, dropped float64, suite map[string][]uint64) {
	t.Helper()
	for name, address := range databases {
		t.Run(name, func(t *testing.T) {
			for _, seed := range seeds(suite[name]) {
				t.Run(fmt.Sprint(seed), func(t *testing.T) {
					if problems := simulate(t, address(t), schedule{seed: seed, days: *days, dropped: dropped}); len(problems) > 0 {
						t.Errorf("repeat it with -args -seed=%d -days=%d\n%s", seed, *days, strings.Join(problems, "\n"))
					}
				})
			}
		})
	}
}

// Three gates record some days of usage. A quarter of the calls to Stripe fail. There are crashes,
// an outage, webhooks that arrive up to days late, changes of billing periods, and restores. In the
// end, Stripe has what was decided in each of its billing periods, or the difference is shown with
// its amount and period.
func TestSimulation(t *testing.T) { run(t, 0, map[string][]uint64{"sqlite": {1}, "postgres": {1}}) }

// The same, but Stripe accepts one in a hundred meter events and never counts it.
func TestSimulationWithDrops(t *testing.T) { run(t, 0.01, map[string][]uint64{"sqlite": {7, 10}}) }

// mutants are the parts of the design to leave out, each with the first seed that shows the effect.
var mutants = map[string]struct {
	mutant
	days  int
	first uint64
}{
	"identifier": {noIdentifier, 1, 2}, "guard": {longGuard, 2, 1}, "private minutes": {sharedMinutes, 1, 1},
	"frozen values": {resummed, 1, 1}, "boundaries": {noBoundaries, 2, 1}, "busy answers": {busyUnsent, 2, 8},
	"late changes": {noUnseal, 2, 1},
}

// Each part of the design is needed: without it, a schedule finds wrong bills.
func TestSimulationNoticesWhatIsLeftOut(t *testing.T) {
	for name, m := range mutants {
		t.Run(name, func(t *testing.T) {
			for i := range uint64(20) {
				seed := (i+m.first-1)%20 + 1
				problems := simulate(t, modelstest.SQLite(t), schedule{seed: seed, days: m.days, without: m.mutant})
				if len(problems) > 0 {
					t.Logf("seed %d: %d problems, such as: %s", seed, len(problems), problems[0])
					return
				}
			}
			t.Errorf("20 schedules without %s found no problem", name)
		})
	}
}
