package enforcement

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"tollgate/models"
	"tollgate/models/modelstest"
)

// unconfirming is a ledger whose connection fails after the commit, before the confirmation.
type unconfirming struct {
	ledger
	fails bool
}

func (l *unconfirming) transact(ctx context.Context, look lookups, decide func(*found) *changes) error {
	err := l.ledger.transact(ctx, look, decide)
	if err == nil && l.fails {
		return errors.Join(errUnconfirmed, context.DeadlineExceeded)
	}
	return err
}

// TestUnconfirmedCommitIsNotUndone checks that the worker does not use the old record after a
// commit that succeeded without a confirmation. On SQLite, a connection's own commits do not change
// the version by which a record is compared, so the next call would undo the commit.
func TestUnconfirmedCommitIsNotUndone(t *testing.T) {
	modelstest.OnBoth(t, func(t *testing.T, address string) {
		ctx := t.Context()
		db, err := models.Open(ctx, address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = db.Close() })
		catalogue, err := models.LoadCatalogue("")
		if err != nil {
			t.Fatal(err)
		}
		g, err := Open(ctx, db, Options{Catalogue: catalogue, Now: time.Now, Log: slog.New(slog.DiscardHandler), QueueLimit: 10})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(g.Close)
		inner, err := openLedger(ctx, db)
		if err != nil {
			t.Fatal(err)
		}
		l := &unconfirming{ledger: inner}
		q := newQueue(10)
		q.records = true
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			newWorker(g, l, q).write()
		}()
		t.Cleanup(func() { q.close(); <-ended; inner.close() })
		submit := func(kind kind, key string) error {
			c := &call{ctx: ctx, done: make(chan ending, 1)}
			c.one[0].request = request{kind: kind, person: Person{Email: "ada@example.com"}, quantity: 1, key: key, ttl: time.Hour}
			c.ops = c.one[:]
			if _, err := g.submit(q, c); err != nil {
				return err
			}
			return c.one[0].err
		}
		if err := errors.Join(submit(consume, "first"), submit(consume, "second")); err != nil {
			t.Fatal(err)
		}
		l.fails = true
		if e := (*models.Error)(nil); !errors.As(submit(hold, "held"), &e) || e.Detail != unconfirmed(nil).Detail {
			t.Errorf("a hold without a confirmation got %v", e)
		}
		l.fails = false
		// A call that arrives while the worker ends the calls of the failed group gets the same error.
		for try := 1; ; try++ {
			if err := submit(consume, "third"); err == nil {
				break
			} else if try == 20 {
				t.Fatal(err)
			}
		}
		r, err := models.CurrentUsage(ctx, db, time.Now().UTC(), "ada@example.com")
		if err != nil || r.SuggestionsUsed != 3 || r.UnitsHeld != 1 {
			t.Errorf("the record has %d used and %d held, %v; want 3 and 1", r.SuggestionsUsed, r.UnitsHeld, err)
		}
	})
}
