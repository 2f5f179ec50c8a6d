package enforcement_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"tollgate/models"
	"tollgate/models/enforcement"
)

// counted reads one of the gate's counters.
func (f *fixture) counted(t *testing.T, name string) float64 {
	t.Helper()
	families, err := f.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() == name {
			return family.GetMetric()[0].GetCounter().GetValue()
		}
	}
	t.Fatalf("there is no metric %s", name)
	return 0
}

const (
	remembered = "tollgate_gate_remembered_groups_total"
	moved      = "tollgate_gate_moved_groups_total"
)

// TestRememberedRecordsAreCompared changes a person without the gate's knowledge, in every way that
// changes a decision. Before each change, the gate has decided on the remembered record, so it
// would do so again.
func TestRememberedRecordsAreCompared(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		other := f.another(t, 4096)
		mine := f.another(t, 4096) // f.metrics has this gate's metrics
		const email = "ada@example.com"
		subscribe := func(plan models.PlanID) {
			t.Helper()
			f.now = f.now.Add(time.Second)
			if _, err := models.Subscribe(f.ctx, f.db, f.catalogue, f.now, models.Subscriber{Email: email}, plan); err != nil {
				t.Fatal(err)
			}
		}
		consume := func(g *enforcement.Gate, quantity int64, key string) enforcement.Answer {
			t.Helper()
			a, err := g.Consume(f.ctx, by(email), quantity, key)
			if err != nil {
				t.Fatal(err)
			}
			return a
		}
		n := 0
		next := func() string { n++; return fmt.Sprint("mine", n) }
		// warm makes calls until the gate decides on a remembered record.
		warm := func() {
			t.Helper()
			before := f.counted(t, remembered)
			for range 2000 {
				consume(mine, 1, next())
				if f.counted(t, remembered) > before {
					return
				}
			}
			t.Fatal("none of 2000 calls was decided on a remembered record")
		}
		subscribe("pro")
		used := func() int64 {
			t.Helper()
			r, err := models.CurrentUsage(f.ctx, f.db, f.now, email)
			if err != nil {
				t.Fatal(err)
			}
			return r.SuggestionsUsed
		}

		warm()
		was := used()
		if a := consume(other, 7, "theirs"); a.Standing.Used != was+7 {
			t.Errorf("another gate has %d used, want %d", a.Standing.Used, was+7)
		}
		stale := f.counted(t, moved)
		if a := consume(mine, 1, next()); a.Standing.Used != was+8 {
			t.Errorf("%d used after another gate used 7 and this one 1, want %d", a.Standing.Used, was+8)
		}
		if f.counted(t, moved) == stale {
			t.Error("the gate did not decide on the remembered record, so this test shows nothing")
		}

		warm()
		if a := consume(mine, 7, "theirs"); !a.Replayed {
			t.Error("a key that another gate recorded was granted again")
		}

		warm()
		h, err := other.Hold(f.ctx, by(email), 3, "hold", time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		if a := consume(mine, 1, next()); a.Standing.Held != 3 {
			t.Errorf("%d units are held, want the 3 of another gate", a.Standing.Held)
		}
		warm()
		f.now = h.Hold.ExpiresAt
		if a := consume(mine, 1, next()); a.Standing.Held != 0 {
			t.Errorf("%d units are held after the hold has expired", a.Standing.Held)
		}

		warm()
		f.exec(t, "UPDATE users SET spend_limit_cents = 0 WHERE email = ?", email)
		over := f.catalogue.Free().Included + 1000
		if a := consume(mine, over, next()); a.Verdict.Reason != models.SpendLimitReached {
			t.Errorf("beyond a spend limit of 0: %+v", a.Verdict)
		}

		f.exec(t, "UPDATE users SET spend_limit_cents = NULL WHERE email = ?", email)
		warm()
		subscribe("free")
		if a := consume(mine, 1000, next()); a.Verdict.Reason != models.IncludedExhausted {
			t.Errorf("1000 units on the free plan: %+v", a.Verdict)
		}

		f.now = time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)
		if a := consume(mine, 1, next()); a.Standing.Used != 1 {
			t.Errorf("the first unit of a new period makes %d used", a.Standing.Used)
		}
		f.clean(t)
	})
}

// TestSingleProcessUsesRememberedRecords checks that a single process decides on remembered
// records, which is fast.
func TestSingleProcessUsesRememberedRecords(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		var wg sync.WaitGroup
		for i := range 20 {
			wg.Go(func() {
				for n := range 5 {
					email := fmt.Sprintf("p%d@example.com", i)
					if _, err := f.Consume(f.ctx, by(email), 1, fmt.Sprint(email, n)); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		if events := f.clean(t); events != 100 {
			t.Errorf("%d events, want 5 for each of 20 people", events)
		}
		if n := f.counted(t, remembered); n == 0 {
			t.Error("no group was decided on remembered records")
		}
	})
}

// TestChangesOfOtherTablesDoNotMatter writes on another connection to a table on which no decision
// depends. On SQLite, this changes the version of the whole file, but the gate must not decide
// again under locks.
func TestChangesOfOtherTablesDoNotMatter(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		email := func(i int) string { return fmt.Sprintf("p%d@example.com", i) }
		n := 0
		consume := func(i int) {
			t.Helper()
			n++
			if _, err := f.Consume(f.ctx, by(email(i)), 1, fmt.Sprint("key", n)); err != nil {
				t.Fatal(err)
			}
		}
		const people = 10
		for i := range people {
			consume(i)
			consume(i)
		}
		stale, quick := f.counted(t, moved), f.counted(t, remembered)
		for i := range people {
			f.exec(t, "INSERT INTO audit_log (id, at, actor, action, subject) VALUES (?, ?, 'test', 'test', 'test')",
				fmt.Sprintf("00000000-0000-0000-0000-%012d", i), f.now)
			consume(i)
		}
		if got := f.counted(t, moved) - stale; got != 0 {
			t.Errorf("%v of %d groups had a stale record, want none", got, people)
		}
		if got := f.counted(t, remembered) - quick; got != people {
			t.Errorf("%v of %d groups were decided on remembered records, want all", got, people)
		}
		f.clean(t)
	})
}

// TestOneStaleRecordInAGroup makes another gate change one person before a group of many people is
// decided. The gate must notice the one stale record, although all others are current.
func TestOneStaleRecordInAGroup(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		other := f.another(t, 4096)
		mine := f.another(t, 4096)
		const people, rounds = 20, 30
		email := func(i int) string { return fmt.Sprintf("p%d@example.com", i) }
		for i := range people {
			if _, err := models.Subscribe(f.ctx, f.db, f.catalogue, f.now, models.Subscriber{Email: email(i)}, "pro"); err != nil {
				t.Fatal(err)
			}
		}
		for n := range rounds {
			if n%3 == 2 {
				if _, err := other.Consume(f.ctx, by(email(0)), 7, fmt.Sprint("theirs", n)); err != nil {
					t.Fatal(err)
				}
			}
			var wg sync.WaitGroup
			for i := range people {
				wg.Go(func() {
					if _, err := mine.Consume(f.ctx, by(email(i)), 1, fmt.Sprint(i, "-", n)); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
		}
		if f.counted(t, moved) == 0 {
			t.Error("no group had a stale record, so this test shows nothing")
		}
		r, err := models.CurrentUsage(f.ctx, f.db, f.now, email(0))
		if want := int64(rounds + 7*rounds/3); err != nil || r.SuggestionsUsed != want {
			t.Errorf("%d units used, %v; want %d", r.SuggestionsUsed, err, want)
		}
		f.clean(t)
	})
}
