package models_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/uptrace/bun"

	"tollgate/models"
)

// TestWritersTakeTurns writes from many connections without a pause: a third with transactions, a
// third with single statements and a third as the gate does. A writer waits for about one write of
// each other one; without turns, for over 1,000 (of 1,800).
func TestWritersTakeTurns(t *testing.T) {
	const writers, writes = 9, 200
	db := openTurns(t)
	db.SetMaxOpenConns(writers)
	if _, err := db.ExecContext(t.Context(), "CREATE TABLE turns (writer INTEGER)"); err != nil {
		t.Fatal(err)
	}
	var committed atomic.Int64
	overtaken := make([]int64, writers)
	var all sync.WaitGroup
	for w := range writers {
		write := turnWriter(t, db, w)
		all.Go(func() {
			for range writes {
				before := committed.Load()
				if err := write(); err != nil {
					t.Errorf("writer %d: %v", w, err)
					return
				}
				overtaken[w] = max(overtaken[w], committed.Add(1)-1-before)
			}
		})
	}
	all.Wait()
	// Go may pause a writer just before it asks for its turn, so a few dozen are possible.
	if most := slices.Max(overtaken); most > 15*writers {
		t.Errorf("a writer waited for %d other writes: %d", most, overtaken)
	}
}

// turnWriter returns a function that writes one row, on a connection of its own if w is 2, 5 or 8.
func turnWriter(t *testing.T, db *models.DB, w int) func() error {
	t.Helper()
	ctx := t.Context()
	insert := fmt.Sprintf("INSERT INTO turns VALUES (%d)", w)
	switch w % 3 {
	case 0:
		return func() error {
			return db.InTx(ctx, func(ctx context.Context, tx bun.Tx) error {
				_, err := tx.ExecContext(ctx, insert)
				return err
			})
		}
	case 1:
		return func() error {
			_, err := db.ExecContext(ctx, insert)
			return err
		}
	}
	conn, err := db.Conn(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return func() error {
		for _, statement := range []string{"BEGIN IMMEDIATE", insert, "COMMIT"} {
			if _, err := conn.ExecContext(ctx, statement); err != nil {
				return err
			}
		}
		return nil
	}
}

// TestATurnIsGivenBack ends transactions in all ways; each time, the next writer gets its turn at
// once.
func TestATurnIsGivenBack(t *testing.T) {
	db := openTurns(t)
	exec := func(ctx context.Context, statements ...string) error {
		conn, err := db.Conn(ctx)
		if err != nil {
			return err
		}
		defer conn.Close()
		for _, s := range statements {
			if _, err = conn.ExecContext(ctx, s); err != nil {
				break
			}
		}
		return err
	}
	if err := exec(t.Context(), "CREATE TABLE turns (writer INTEGER PRIMARY KEY)", "INSERT INTO turns VALUES (1)"); err != nil {
		t.Fatal(err)
	}
	const again = "INSERT INTO turns VALUES (1)" // a duplicate
	for name, do := range map[string]func(ctx context.Context) error{
		"a single statement that fails": func(ctx context.Context) error { return exec(ctx, again) },
		"a transaction that fails": func(ctx context.Context) error {
			return db.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
				_, err := tx.ExecContext(ctx, again)
				return err
			})
		},
		"a transaction that panics": func(ctx context.Context) (err error) {
			defer func() { err, _ = recover().(error) }()
			return db.RunInTx(ctx, nil, func(context.Context, bun.Tx) error { panic(context.Canceled) })
		},
		"a context that ends": func(ctx context.Context) error {
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			return db.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
				cancel()
				_, err := tx.ExecContext(ctx, "DELETE FROM turns")
				return err
			})
		},
		"a connection that is closed": func(ctx context.Context) error {
			pool := db.SQLitePool()
			if _, err := pool.ExecContext(ctx, "BEGIN IMMEDIATE"); err != nil {
				return err
			}
			return pool.Close()
		},
		"a BEGIN that fails": func(ctx context.Context) error { return exec(ctx, "BEGIN IMMEDIATELY") },
		"a rollback":         func(ctx context.Context) error { return exec(ctx, "BEGIN IMMEDIATE", "ROLLBACK") },
	} {
		failed := do(t.Context())
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		if err := exec(ctx, "DELETE FROM turns WHERE writer > 1"); err != nil {
			t.Errorf("after %s (%v): %v", name, failed, err)
		}
		cancel()
	}
}

// TestAWaitForATurnEnds waits for a writer that does not end: until the context ends, and with a
// write inside another transaction.
func TestAWaitForATurnEnds(t *testing.T) {
	db := openTurns(t)
	if _, err := db.ExecContext(t.Context(), "CREATE TABLE turns (writer INTEGER)"); err != nil {
		t.Fatal(err)
	}
	err := db.RunInTx(t.Context(), nil, func(ctx context.Context, _ bun.Tx) error {
		ctx, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
		defer cancel()
		_, err := db.ExecContext(ctx, "INSERT INTO turns VALUES (1)")
		return err
	})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a write during another one's transaction: %v", err)
	}
}

func openTurns(t *testing.T) *models.DB {
	t.Helper()
	db, err := models.Open(t.Context(), "sqlite:"+filepath.Join(t.TempDir(), "turns.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}
