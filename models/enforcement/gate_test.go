package enforcement_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"pgregory.net/rapid"

	"tollgate/models"
	"tollgate/models/enforcement"
	"tollgate/models/modelstest"
)

func TestMain(m *testing.M) { modelstest.Main(m, models.Open) }

// onBoth runs a test on each database, with a clock that the test can set.
func onBoth(t *testing.T, test func(t *testing.T, f *fixture)) {
	t.Helper()
	modelstest.OnBoth(t, func(t *testing.T, address string) { test(t, newFixture(t, address)) })
}

type fixture struct {
	*enforcement.Gate
	db        *models.DB
	catalogue *models.Catalogue
	ctx       context.Context
	metrics   *prometheus.Registry

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
	f.Gate = f.another(t, 4096)
	return f
}

// another opens one more gate on the same database, as another process would.
func (f *fixture) another(t *testing.T, limit int) *enforcement.Gate {
	t.Helper()
	f.metrics = prometheus.NewRegistry() // of the last gate that was opened
	g, err := enforcement.Open(f.ctx, f.db, enforcement.Options{
		Catalogue: f.catalogue, Now: f.clock, Log: slog.New(slog.DiscardHandler), QueueLimit: limit, Metrics: f.metrics,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Close)
	return g
}

func (f *fixture) exec(t *testing.T, query string, args ...any) {
	t.Helper()
	if _, err := f.db.ExecContext(f.ctx, query, args...); err != nil {
		t.Fatal(err)
	}
}

// clean fails the test if a recount differs from the stored counters, and returns the number of
// events.
func (f *fixture) clean(t *testing.T) (events int) {
	t.Helper()
	if err := models.Verify(f.ctx, f.db, func(d models.Difference) { t.Error(d) }); err != nil {
		t.Fatal(err)
	}
	if err := f.db.NewSelect().TableExpr("usage_events").ColumnExpr("COUNT(*)").Scan(f.ctx, &events); err != nil {
		t.Fatal(err)
	}
	return events
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
			t.Fatalf("check after the last unit: %+v, %v", a, err)
		}
	})
}

func TestConcurrentCallsNeverExceedTheLimit(t *testing.T) {
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
				t.Errorf("%s was granted %d units, want 5", email, n)
			}
		}
	})
}

// TestGatesShareOneDatabase runs several gates for the same people and keys at the same time, in
// different orders.
func TestGatesShareOneDatabase(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		gates := []*enforcement.Gate{f.Gate, f.another(t, 4096), f.another(t, 4096)}
		const people, tries = 10, 40
		var mu sync.Mutex
		ids := map[string]uuid.UUID{} // of events, by key
		var wg sync.WaitGroup
		for i := range people * tries {
			for n, g := range gates {
				wg.Go(func() {
					j := (i*(n*2+1) + n*7) % (people * tries)
					key := fmt.Sprint("key", j)
					a, err := g.Consume(f.ctx, by(fmt.Sprintf("p%d@example.com", j%people)), 1, key)
					if err != nil {
						t.Error(err)
						return
					}
					mu.Lock()
					defer mu.Unlock()
					if first, ok := ids[key]; ok && a.Verdict.Allowed && first != a.EventID {
						t.Errorf("%s was granted twice", key)
					}
					if a.Verdict.Allowed {
						ids[key] = a.EventID
					}
				})
			}
		}
		wg.Wait()
		if events := f.clean(t); events != people*5 || len(ids) != people*5 {
			t.Errorf("%d events for %d granted keys, want %d", events, len(ids), people*5)
		}
	})
}

// TestOneBadCallFailsAlone makes the database refuse the row of one call of a group.
func TestOneBadCallFailsAlone(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		if f.db.Postgres {
			f.exec(t, `CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql
				AS $$ BEGIN RAISE EXCEPTION 'poison' USING ERRCODE = '22000'; END $$`)
			f.exec(t, `CREATE TRIGGER refuse BEFORE INSERT ON usage_events FOR EACH ROW
				WHEN (NEW.idempotency_key LIKE 'poison%') EXECUTE FUNCTION refuse()`)
		} else {
			f.exec(t, `CREATE TRIGGER refuse BEFORE INSERT ON usage_events
				WHEN NEW.idempotency_key LIKE 'poison%' BEGIN SELECT RAISE(ABORT, 'poison'); END`)
		}
		var wg sync.WaitGroup
		for i := range 200 {
			wg.Go(func() {
				key, bad := fmt.Sprint("key", i), i%50 == 7
				if bad {
					key = fmt.Sprint("poison", i)
				}
				a, err := f.Consume(f.ctx, by(fmt.Sprintf("p%d@example.com", i%50)), 1, key)
				if bad != (err != nil) || !bad && !a.Verdict.Allowed {
					t.Errorf("%s: %+v, %v", key, a.Verdict, err)
				}
			})
		}
		wg.Wait()
		if events := f.clean(t); events != 196 {
			t.Errorf("%d events, want 196", events)
		}
	})
}

// TestCallerThatGivesUp ends calls early. Whether or not such a call is counted, its retry gets the
// right answer.
func TestCallerThatGivesUp(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		var wg sync.WaitGroup
		for i := range 300 {
			wg.Go(func() {
				ctx, leave := context.WithTimeout(f.ctx, time.Duration(i)*20*time.Microsecond)
				defer leave()
				email, key := fmt.Sprintf("p%d@example.com", i), fmt.Sprint("key", i)
				first, err := f.Consume(ctx, by(email), 1, key)
				again := f.consume(t, email, 1, key)
				if !again.Verdict.Allowed || again.Standing.Used != 1 {
					t.Errorf("%s: the retry got %+v", key, again)
				}
				if err == nil && (!again.Replayed || again.EventID != first.EventID) {
					t.Errorf("%s: the retry of an answered call got %+v", key, again)
				}
			})
		}
		wg.Wait()
		if events := f.clean(t); events != 300 {
			t.Errorf("%d events, want 300", events)
		}
	})
}

// TestFullQueueRefuses blocks the only writer and checks that calls beyond the queue's limit are
// refused immediately.
func TestFullQueueRefuses(t *testing.T) {
	f := newFixture(t, modelstest.SQLite(t))
	f.consume(t, "ada@example.com", 1, "first")
	small := f.another(t, 10)
	tx, err := f.db.BeginTx(f.ctx, nil) // takes SQLite's write lock
	if err != nil {
		t.Fatal(err)
	}
	errs := make(chan error, 100)
	for i := range cap(errs) {
		go func() {
			_, err := small.Consume(f.ctx, by("ada@example.com"), 1, fmt.Sprint("k", i))
			errs <- err
		}()
	}
	var e *models.Error
	for range cap(errs) / 2 {
		if err := <-errs; !errors.As(err, &e) || e.Code != models.CodeOverloaded || e.RetryAfter <= 0 {
			t.Fatalf("a call beyond the limit: %v", err)
		}
	}
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	granted := 0
	for range cap(errs) / 2 {
		if err := <-errs; err == nil {
			granted++
		}
	}
	if granted < 10 {
		t.Errorf("%d calls were decided after the wait, want at least the 10 in the queue", granted)
	}
	f.clean(t)
}

// TestCloseFinishesAcceptedCalls closes the gate under load: each call is decided or refused.
func TestCloseFinishesAcceptedCalls(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		g := f.another(t, 4096)
		var wg sync.WaitGroup
		var decided atomic.Int64
		for i := range 500 {
			wg.Go(func() {
				a, err := g.Consume(f.ctx, by(fmt.Sprintf("p%d@example.com", i)), 1, fmt.Sprint("k", i))
				var e *models.Error
				if err == nil && a.Verdict.Allowed {
					decided.Add(1)
				} else if !errors.As(err, &e) || e.Code != models.CodeUnavailable {
					t.Errorf("%+v, %v", a, err)
				}
			})
		}
		g.Close()
		wg.Wait()
		if events := f.clean(t); int64(events) != decided.Load() {
			t.Errorf("%d events for %d granted calls", events, decided.Load())
		}
	})
}

// TestAgainstAModel makes random calls at random times and compares each answer with a simple model
// of the rules.
func TestAgainstAModel(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		round := 0
		rapid.Check(t, func(rt *rapid.T) {
			round++
			type held struct {
				id       uuid.UUID
				quantity int64
				expires  time.Time
				period   time.Time
			}
			email := fmt.Sprintf("model%d@example.com", round)
			f.now = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
			used := map[time.Time]int64{} // by the start of the period
			var holds []held
			month := func() time.Time { return models.CalendarMonth(f.now).Start }
			live := func() (units int64) {
				for _, h := range holds {
					if h.expires.After(f.now) && h.period.Equal(month()) {
						units += h.quantity
					}
				}
				return units
			}
			quantity := rapid.Int64Range(1, 4)
			for step := range rapid.IntRange(1, 25).Draw(rt, "steps") {
				key := fmt.Sprintf("%s-%d", email, step)
				switch rapid.IntRange(0, 6).Draw(rt, "call") {
				case 0, 1:
					q := quantity.Draw(rt, "consume")
					want := used[month()]+live()+q <= 5
					a, err := f.Consume(f.ctx, by(email), q, key)
					if err != nil || a.Verdict.Allowed != want {
						rt.Fatalf("consume %d: %+v, %v; want allowed %v", q, a, err, want)
					}
					if want {
						used[month()] += q
					}
				case 2:
					q, ttl := quantity.Draw(rt, "hold"), time.Duration(rapid.IntRange(1, 200).Draw(rt, "ttl"))*time.Hour
					want := used[month()]+live()+q <= 5
					a, err := f.Hold(f.ctx, by(email), q, key, ttl)
					if err != nil || a.Verdict.Allowed != want {
						rt.Fatalf("hold %d: %+v, %v; want allowed %v", q, a, err, want)
					}
					if want {
						expires, last := f.now.Add(ttl), models.CalendarMonth(f.now).End.Add(models.HoldsOutlivePeriod)
						if expires.After(last) {
							expires = last
						}
						holds = append(holds, held{a.Hold.ID, q, expires, month()})
					}
				case 3:
					if len(holds) > 0 {
						h := holds[0]
						holds = holds[1:]
						_, err := f.Settle(f.ctx, h.id, h.quantity)
						if open := h.expires.After(f.now); open != (err == nil) {
							rt.Fatalf("settle: %v; want open %v", err, open)
						} else if open {
							used[h.period] += h.quantity
						}
					}
				case 4:
					if len(holds) > 0 {
						if _, err := f.Release(f.ctx, holds[len(holds)-1].id); err != nil {
							rt.Fatalf("release: %v", err)
						}
						holds = holds[:len(holds)-1]
					}
				case 5:
					q, back := quantity.Draw(rt, "record"), time.Duration(rapid.IntRange(0, 40).Draw(rt, "back"))*24*time.Hour
					at := f.now.Add(-back)
					_, err := f.Record(f.ctx, []enforcement.PastEvent{
						{Person: by(email), Quantity: q, IdempotencyKey: key, OccurredAt: at},
					})
					if err != nil {
						rt.Fatalf("record: %v", err)
					}
					used[models.CalendarMonth(at).Start] += q
				case 6:
					f.now = f.now.Add(time.Duration(rapid.IntRange(1, 150).Draw(rt, "hours")) * time.Hour)
				}
				a, err := f.Check(f.ctx, by(email), 1)
				s := a.Standing
				if err != nil || s.Used != used[month()] || s.Held != live() || !s.Period.Start.Equal(month()) {
					rt.Fatalf("after step %d: used %d, held %d since %v, %v; want %d, %d since %v",
						step, s.Used, s.Held, s.Period.Start, err, used[month()], live(), month())
				}
			}
		})
		f.clean(t)
	})
}
