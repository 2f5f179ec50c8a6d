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

// TestWhatIsRememberedIsNeverBelieved changes a person behind the gate's back, in every way that changes a decision. Before each
// change the gate has decided upon memory, so it would do so again.
func TestWhatIsRememberedIsNeverBelieved(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		other := f.another(t, 4096)
		mine := f.another(t, 4096) // the one that f.metrics is of
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
		// warm makes the gate decide upon memory, however careful it has become.
		warm := func() {
			t.Helper()
			before := f.counted(t, remembered)
			for range 2000 {
				consume(mine, 1, next())
				if f.counted(t, remembered) > before {
					return
				}
			}
			t.Fatal("2000 consumes in a row and none was decided upon memory")
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
			t.Errorf("another gate counted to %d, want %d", a.Standing.Used, was+7)
		}
		faults := f.counted(t, moved)
		if a := consume(mine, 1, next()); a.Standing.Used != was+8 {
			t.Errorf("used %d after another gate's 7 and one, want %d", a.Standing.Used, was+8)
		}
		if f.counted(t, moved) == faults {
			t.Error("the gate did not decide upon memory, so this test shows nothing")
		}

		warm()
		if a := consume(mine, 7, "theirs"); !a.Replayed {
			t.Error("a key that another gate recorded was granted anew")
		}

		warm()
		h, err := other.Hold(f.ctx, by(email), 3, "hold", time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		if a := consume(mine, 1, next()); a.Standing.Held != 3 {
			t.Errorf("%d units are held, want another gate's 3", a.Standing.Held)
		}
		warm()
		f.now = h.Hold.ExpiresAt
		if a := consume(mine, 1, next()); a.Standing.Held != 0 {
			t.Errorf("%d units are held after the hold's end", a.Standing.Held)
		}

		warm()
		f.exec(t, "UPDATE users SET spend_limit_cents = 0 WHERE email = ?", email)
		over := f.catalogue.Free().Included + 1000
		if a := consume(mine, over, next()); a.Verdict.Reason != models.SpendLimitReached {
			t.Errorf("beyond a limit of nothing: %+v", a.Verdict)
		}

		f.exec(t, "UPDATE users SET spend_limit_cents = NULL WHERE email = ?", email)
		warm()
		subscribe("free")
		if a := consume(mine, 1000, next()); a.Verdict.Reason != models.IncludedExhausted {
			t.Errorf("a thousand on the free plan: %+v", a.Verdict)
		}

		f.now = time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)
		if a := consume(mine, 1, next()); a.Standing.Used != 1 {
			t.Errorf("the first unit of a new period is number %d", a.Standing.Used)
		}
		f.clean(t)
	})
}

// TestOneProcessAloneRemembers keeps the quick way from being lost without notice.
func TestOneProcessAloneRemembers(t *testing.T) {
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
			t.Error("no group was decided upon memory")
		}
	})
}

// TestAnotherTablesChangeIsNoFault writes on another connection what no decision depends on, such as the last use of a key. A whole
// SQLite file has one version, so this is where the gate would forget everybody, again and again.
func TestAnotherTablesChangeIsNoFault(t *testing.T) {
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
		faults, quick := f.counted(t, moved), f.counted(t, remembered)
		for i := range people {
			f.exec(t, "INSERT INTO audit_log (id, at, actor, action, subject) VALUES (?, ?, 'test', 'test', 'test')", fmt.Sprintf("00000000-0000-0000-0000-%012d", i), f.now)
			consume(i)
		}
		if got := f.counted(t, moved) - faults; got != 0 {
			t.Errorf("%v of %d groups were taken for out of date", got, people)
		}
		if got := f.counted(t, remembered) - quick; got != people {
			t.Errorf("%v of %d groups were decided upon memory", got, people)
		}
		f.clean(t)
	})
}

// TestOneOfAGroupHasMoved has another gate change one person before a group of many is decided. The others are as they are remembered,
// and must not make up for the one who is not.
func TestOneOfAGroupHasMoved(t *testing.T) {
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
			t.Error("no group was found out of date, so this test shows nothing")
		}
		r, err := models.CurrentUsage(f.ctx, f.db, f.now, email(0))
		if want := int64(rounds + 7*rounds/3); err != nil || r.SuggestionsUsed != want {
			t.Errorf("%d units used, %v; want %d", r.SuggestionsUsed, err, want)
		}
		f.clean(t)
	})
}
