package enforcement_test

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"tollgate/models"
	"tollgate/models/enforcement"
	"tollgate/models/modelstest"
)

func TestMain(m *testing.M) { modelstest.Main(m) }

// onBoth runs a test on each database, with a clock that the test may move.
func onBoth(t *testing.T, test func(t *testing.T, f *fixture)) {
	t.Helper()
	for name, address := range map[string]func(testing.TB) string{"sqlite": modelstest.SQLite, "postgres": modelstest.Postgres} {
		t.Run(name, func(t *testing.T) { test(t, newFixture(t, address(t))) })
	}
}

type fixture struct {
	*enforcement.Gate
	db        *models.DB
	catalogue *models.Catalogue
	ctx       context.Context

	now time.Time
}

func newFixture(t *testing.T, address string) *fixture {
	t.Helper()
	f := &fixture{ctx: t.Context(), now: time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)}
	var err error
	if f.catalogue, err = models.LoadCatalogue(""); err != nil {
		t.Fatal(err)
	}
	if f.db, err = models.Open(f.ctx, address); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.db.Close() })
	f.Gate, err = enforcement.Open(f.ctx, f.db, enforcement.Options{Catalogue: f.catalogue, Now: f.clock, Log: slog.New(slog.DiscardHandler), QueueLimit: 4096})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	return f
}

func (f *fixture) clock() time.Time { return f.now }

func by(email string) enforcement.Person { return enforcement.Person{Email: email} }

func (f *fixture) consume(t *testing.T, email string, quantity int64, key string) enforcement.Answer {
	t.Helper()
	a, err := f.Consume(f.ctx, by(email), quantity, key)
	if err != nil {
		t.Fatalf("consume %d of %s: %v", quantity, email, err)
	}
	return a
}

func TestFreePersonGetsFive(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		for i := range 7 {
			a := f.consume(t, "ada@example.com", 1, fmt.Sprint("k", i))
			if want := i < 5; a.Verdict.Allowed != want || a.Standing.Used != int64(min(i+1, 5)) {
				t.Fatalf("call %d: allowed %v with %d used", i, a.Verdict.Allowed, a.Standing.Used)
			}
		}
		a, err := f.Check(f.ctx, by("ada@example.com"), 1)
		if err != nil || a.Verdict.Allowed || a.Standing.Used != 5 {
			t.Fatalf("check after the last: %+v, %v", a, err)
		}
	})
}

func TestManyCallersNeverOvershoot(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		var wg sync.WaitGroup
		var mu sync.Mutex
		allowed := map[string]int{}
		for i := range 2000 {
			wg.Go(func() {
				email := fmt.Sprintf("p%d@example.com", i%20)
				a, err := f.Consume(f.ctx, by(email), 1, fmt.Sprint("key", i))
				if err != nil {
					t.Error(err)
				}
				if a.Verdict.Allowed {
					mu.Lock()
					allowed[email]++
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		for email, n := range allowed {
			if n != 5 {
				t.Errorf("%s was granted %d", email, n)
			}
		}
	})
}
