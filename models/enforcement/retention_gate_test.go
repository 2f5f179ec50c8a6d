package enforcement

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"tollgate/models"
	"tollgate/models/modelstest"
)

// between is a ledger that calls a function before each transaction, which is after the group's
// calls were identified.
type between struct {
	ledger
	do func()
}

func (b between) transact(ctx context.Context, l lookups, decide func(*found) *changes) error {
	b.do()
	return b.ledger.transact(ctx, l, decide)
}

// openWorker returns a worker that is not running, and a gate on the same database.
func openWorker(t *testing.T, address string, now time.Time) (*worker, *Gate) {
	t.Helper()
	db, err := models.Open(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	catalogue, err := models.LoadCatalogue("")
	if err != nil {
		t.Fatal(err)
	}
	g, err := Open(t.Context(), db, Options{
		Catalogue: catalogue, Now: func() time.Time { return now }, Log: slog.New(slog.NewTextHandler(io.Discard, nil)), QueueLimit: 10,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Close)
	l, err := openLedger(t.Context(), db)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.close)
	return newWorker(g, l, newQueue(10)), g
}

func (r request) call() *call {
	return &call{ops: []op{{request: r}}, until: time.Now().Add(time.Minute), done: make(chan ending, 1)}
}

// TestHoldDeletedMeanwhile deletes a hold, its event or both after the call was identified, as
// retention may.
func TestHoldDeletedMeanwhile(t *testing.T) {
	modelstest.OnBoth(t, func(t *testing.T, address string) {
		w, g := openWorker(t, address, time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC))
		whole := w.ledger
		for _, test := range []struct {
			name    string
			settled bool
			deleted []string
			kind    kind
		}{
			{"settle", false, []string{"usage_holds"}, settle},
			{"release", false, []string{"usage_holds"}, release},
			{"settle again", true, []string{"usage_events", "usage_holds"}, settle},
			{"settle again without the event", true, []string{"usage_events"}, settle},
		} {
			t.Run(test.name, func(t *testing.T) {
				a, err := g.Hold(t.Context(), Person{Email: "ada@example.com"}, 1, test.name, time.Hour)
				if err != nil || a.Hold == nil {
					t.Fatal(a, err)
				}
				if test.settled {
					if _, err := g.Settle(t.Context(), a.Hold.ID, 1); err != nil {
						t.Fatal(err)
					}
				}
				w.ledger = between{whole, func() {
					for _, table := range test.deleted {
						if _, err := w.db.NewDelete().Table(table).Where("user_id = ?", a.Standing.UserID).Exec(t.Context()); err != nil {
							t.Error(err)
						}
					}
				}}
				c := request{kind: test.kind, holdID: a.Hold.ID, quantity: 1}.call()
				w.guard([]*call{c}, func(calls []*call) { w.group(calls, 1) })
				if c.err != nil || !errors.Is(c.ops[0].err, errNoHold) {
					t.Errorf("the call got %v, %v; want %v", c.err, c.ops[0].err, errNoHold)
				}
			})
		}
	})
}

// TestPanicEndsTheTransaction checks that a panic while a group is decided leaves no lock behind.
func TestPanicEndsTheTransaction(t *testing.T) {
	modelstest.OnBoth(t, func(t *testing.T, address string) {
		now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
		w, g := openWorker(t, address, now)
		a, err := g.Consume(t.Context(), Person{Email: "ada@example.com"}, 1, "a")
		if err != nil {
			t.Fatal(err)
		}
		look := lookups{wants: []models.RecordKey{{UserID: a.Standing.UserID, At: now}}}
		panicked := func() (panicked any) {
			defer func() { panicked = recover() }()
			_ = w.ledger.transact(t.Context(), look, func(*found) *changes { panic("decide") })
			return nil
		}()
		if panicked != "decide" {
			t.Fatalf("it panicked with %v", panicked)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		if _, err := w.db.ExecContext(ctx, "UPDATE usage_records SET limit_raises = limit_raises"); err != nil {
			t.Errorf("after the panic, another connection got %v", err)
		}
	})
}

// countRows returns the number of users, workspaces and usage records.
func countRows(t *testing.T, db *models.DB) (n int) {
	t.Helper()
	if err := db.QueryRowContext(t.Context(), `SELECT (SELECT COUNT(*) FROM users) + (SELECT COUNT(*) FROM workspaces) +
		(SELECT COUNT(*) FROM usage_records)`).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// TestLateEventBeforeTheMark records late events around the time before which events are deleted.
// The mark counts, and not a flag of the process; a retry of a stored event is a duplicate.
func TestLateEventBeforeTheMark(t *testing.T) {
	modelstest.OnBoth(t, func(t *testing.T, address string) {
		now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
		w, g := openWorker(t, address, now)
		mark := now.AddDate(0, -3, 0)
		record := func(key string, at time.Time) Outcome {
			t.Helper()
			outcomes, err := g.Record(t.Context(), []PastEvent{
				{Person: Person{Email: "ada@example.com"}, Quantity: 1, IdempotencyKey: key, OccurredAt: at},
			})
			if err != nil {
				t.Fatal(err)
			}
			return outcomes[0]
		}
		if o := record("stored", mark.Add(-time.Hour)); o.Err != nil {
			t.Fatal(o.Err)
		}
		if _, err := w.db.ExecContext(t.Context(), "INSERT INTO retention VALUES (1, ?)", mark); err != nil {
			t.Fatal(err)
		}
		if o := record("stored", mark.Add(-time.Hour)); o.Err != nil || !o.Answer.Replayed {
			t.Errorf("a retry of a stored event: %+v", o)
		}
		if o := record("at", mark); o.Err != nil || o.Answer.Replayed {
			t.Errorf("an event at the mark: %+v", o)
		}
		const want = "invalid_request: This event was not recorded, because it occurred before 2026-08-23T12:00:00Z. " +
			"Events from before then may have been deleted, so Tollgate cannot tell whether it was recorded earlier. Do not send it again."
		for range 2 {
			if o := record("before", mark.Add(-time.Microsecond)); o.Err == nil || o.Err.Error() != want {
				t.Errorf("an event before the mark: %+v", o)
			}
		}
		// What is refused creates nothing. A Slack identity is looked for, because it determines the
		// person, whatever email the event gives.
		bob := models.SlackIdentity{TeamID: "T1", UserID: "U1"}
		past := func(p Person, key string, at time.Time) Outcome {
			t.Helper()
			outcomes, err := g.Record(t.Context(), []PastEvent{{Person: p, Quantity: 1, IdempotencyKey: key, OccurredAt: at}})
			if err != nil {
				t.Fatal(err)
			}
			return outcomes[0]
		}
		if o := past(Person{Email: "bob@example.com", Slack: bob}, "bob's", mark); o.Err != nil {
			t.Fatal(o.Err)
		}
		if _, err := w.db.ExecContext(t.Context(), "UPDATE retention SET pruned_before = ?", mark.Add(time.Second)); err != nil {
			t.Fatal(err)
		}
		for _, email := range []string{"bob@example.com", "robert@example.com"} {
			if o := past(Person{Email: email, Slack: bob}, "bob's", mark); o.Err != nil || !o.Answer.Replayed {
				t.Errorf("a retry of Bob's event with the email %s: %+v", email, o)
			}
		}
		before := countRows(t, w.db)
		for _, p := range []Person{
			{Email: "new@example.com"}, {Email: "new@example.com", Slack: models.SlackIdentity{TeamID: "T1", UserID: "U2"}},
			{Email: "ada@example.com"}, {Email: "bob@example.com", Slack: bob}, {Slack: bob}, {Email: "ada@example.com", Slack: bob},
		} {
			o := past(p, "late", mark.AddDate(0, -2, 0))
			if o.Err == nil || !strings.HasSuffix(o.Err.Error(), "Do not send it again.") {
				t.Errorf("%+v: a late event: %+v", p, o)
			}
		}
		if after := countRows(t, w.db); after != before {
			t.Errorf("there are %d users and records, and were %d before the events that were refused", after, before)
		}
		// A consume is never late.
		if a, err := g.Consume(t.Context(), Person{Email: "ada@example.com"}, 1, "now"); err != nil || !a.Verdict.Allowed {
			t.Errorf("a consume: %+v, %v", a, err)
		}
		if err := models.Verify(t.Context(), w.db, func(d models.Difference) { t.Error(d) }); err != nil {
			t.Fatal(err)
		}
	})
}
