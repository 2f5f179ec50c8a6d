package models_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/uptrace/bun"

	"tollgate/models"
)

// TestWritersTakeTurns writes from many connections without a pause: a third with transactions, a
// third with single statements and a third as the gate does. The writers like the gate's wait for
// a few writes, and the others for some dozens; without turns, for over 1,000 (of 1,800).
func TestWritersTakeTurns(t *testing.T) {
	const writers, writes = 12, 150
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

// turnWriter returns a function that writes one row, on a connection of its own if w is 2, 5, 8 or 11.
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
		if w == 1 {
			return func() error { return db.QueryRowContext(ctx, insert+" RETURNING writer").Scan(new(int)) }
		}
		write := map[int]string{4: insert, 7: "UPDATE turns SET writer = 7 WHERE writer = 7", 10: "DELETE FROM turns WHERE writer = 10"}[w]
		return func() error {
			_, err := db.ExecContext(ctx, write)
			return err
		}
	}
	conn := turnConn(t, db)
	return func() error { return execAll(ctx, conn, "BEGIN IMMEDIATE", insert, "COMMIT") }
}

func turnConn(t *testing.T, db *models.DB) *sql.Conn {
	t.Helper()
	conn, err := db.DB.DB.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func execAll(ctx context.Context, conn *sql.Conn, statements ...string) error {
	for _, s := range statements {
		if _, err := conn.ExecContext(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

// TestATurnIsGivenBack ends a connection's writes in all ways. Each time, another connection gets its
// turn at once.
func TestATurnIsGivenBack(t *testing.T) {
	db := openTurns(t)
	other := turnConn(t, db)
	if err := execAll(t.Context(), other, "CREATE TABLE turns (writer INTEGER PRIMARY KEY)", "INSERT INTO turns VALUES (1)"); err != nil {
		t.Fatal(err)
	}
	const again = "INSERT INTO turns VALUES (1)" // a duplicate
	inTx := func(conn *sql.Conn, do func(tx *sql.Tx) error) error {
		tx, err := conn.BeginTx(t.Context(), nil)
		if err != nil {
			return err
		}
		return do(tx)
	}
	for name, do := range map[string]func(conn *sql.Conn) error{
		"a statement that fails":   func(conn *sql.Conn) error { return execAll(t.Context(), conn, again) },
		"an UPDATE":                func(conn *sql.Conn) error { return execAll(t.Context(), conn, "UPDATE turns SET writer = 1") },
		"a DELETE":                 func(conn *sql.Conn) error { return execAll(t.Context(), conn, "DELETE FROM turns WHERE writer = 2") },
		"a BEGIN and a COMMIT":     func(conn *sql.Conn) error { return execAll(t.Context(), conn, "BEGIN IMMEDIATE", "COMMIT") },
		"a BEGIN and a ROLLBACK":   func(conn *sql.Conn) error { return execAll(t.Context(), conn, "BEGIN IMMEDIATE", "ROLLBACK") },
		"a COMMIT without a BEGIN": func(conn *sql.Conn) error { return execAll(t.Context(), conn, "COMMIT") },
		"a BEGIN that fails":       func(conn *sql.Conn) error { return execAll(canceled(t), conn, "BEGIN IMMEDIATE") },
		"a commit":                 func(conn *sql.Conn) error { return inTx(conn, (*sql.Tx).Commit) },
		"a rollback":               func(conn *sql.Conn) error { return inTx(conn, (*sql.Tx).Rollback) },
		"a savepoint that is rolled back": func(conn *sql.Conn) error {
			return inTx(conn, func(tx *sql.Tx) error {
				for _, s := range []string{"SAVEPOINT s", "INSERT INTO turns VALUES (2)", "ROLLBACK TO s"} {
					if _, err := tx.ExecContext(t.Context(), s); err != nil {
						return errors.Join(err, tx.Rollback())
					}
				}
				return tx.Commit()
			})
		},
		"rows that are read": func(conn *sql.Conn) error {
			rows, err := conn.QueryContext(t.Context(), "DELETE FROM turns WHERE writer = 3 RETURNING writer")
			if err != nil {
				return err
			}
			defer rows.Close()
			for rows.Next() {
			}
			return rows.Err()
		},
		"a query that fails": func(conn *sql.Conn) error {
			return conn.QueryRowContext(t.Context(), again+" RETURNING writer").Scan(new(int))
		},
		"a context that ends": func(conn *sql.Conn) error {
			ctx, cancel := context.WithCancel(t.Context())
			tx, err := conn.BeginTx(ctx, nil)
			cancel()
			if err != nil {
				return err
			}
			return tx.Commit()
		},
		"a connection that is closed": func(*sql.Conn) error {
			pool := db.SQLitePool()
			_, err := pool.ExecContext(t.Context(), "BEGIN IMMEDIATE")
			return errors.Join(err, pool.Close())
		},
	} {
		t.Run(name, func(t *testing.T) {
			ended := do(turnConn(t, db))
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if err := execAll(ctx, other, "INSERT INTO turns VALUES (4)", "DELETE FROM turns WHERE writer = 4"); err != nil {
				t.Errorf("the next write after %v: %v", ended, err)
			}
		})
	}
}

func canceled(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}

// TestAWaitForATurnEnds waits for a write that does not end, with and without a deadline. A read-only
// transaction does not wait.
func TestAWaitForATurnEnds(t *testing.T) {
	db := openTurns(t)
	first := turnConn(t, db)
	if err := execAll(t.Context(), first, "CREATE TABLE turns (writer INTEGER)", "BEGIN IMMEDIATE"); err != nil {
		t.Fatal(err)
	}
	const insert = "INSERT INTO turns VALUES (1)"
	var waiting sync.WaitGroup
	began := time.Now()
	for range 3 {
		waiting.Go(func() {
			_, err := db.ExecContext(t.Context(), insert)
			if took := time.Since(began); !models.IsRetryable(err) || took < 4*time.Second || took > 8*time.Second {
				t.Errorf("a write that waits for 5 s: %v after %v", err, took)
			}
		})
	}
	for name, wait := range map[string]func(ctx context.Context) error{
		"a statement":   func(ctx context.Context) error { _, err := db.ExecContext(ctx, insert); return err },
		"a transaction": func(ctx context.Context) error { return execAll(ctx, turnConn(t, db), "BEGIN IMMEDIATE") },
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		began := time.Now()
		if err := wait(ctx); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) > time.Second {
			t.Errorf("%s with 50 ms: %v after %v", name, err, time.Since(began))
		}
		cancel()
	}
	reader, err := db.BeginTx(t.Context(), &sql.TxOptions{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := reader.Commit(); err != nil || time.Since(began) > 2*time.Second {
		t.Errorf("a read-only transaction: %v after %v", err, time.Since(began))
	}
	waiting.Wait()
}

// TestTheGateWaitsForOneWrite: an answer waits for at most one of many other writes.
func TestTheGateWaitsForOneWrite(t *testing.T) {
	db := openTurns(t)
	gate := turnConn(t, db)
	if err := execAll(t.Context(), gate, "CREATE TABLE turns (writer INTEGER)"); err != nil {
		t.Fatal(err)
	}
	const held = 50 * time.Millisecond
	ctx, cancel := context.WithCancel(t.Context())
	var others sync.WaitGroup
	for range 5 {
		others.Go(func() {
			for ctx.Err() == nil {
				err := db.InTx(t.Context(), func(context.Context, bun.Tx) error {
					time.Sleep(held)
					return nil
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	var waits []time.Duration
	for range 11 {
		time.Sleep(held / 3)
		began := time.Now()
		if err := execAll(t.Context(), gate, "BEGIN IMMEDIATE"); err != nil {
			t.Fatal(err)
		}
		waits = append(waits, time.Since(began))
		if err := execAll(t.Context(), gate, "COMMIT"); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	others.Wait()
	slices.Sort(waits)
	if median := waits[len(waits)/2]; median > 2*held {
		t.Errorf("the gate waited for %v", waits)
	}
}

// TestTheLogIsCopiedAfterManyWrites: a writer copies the write-ahead log into the file long before
// SQLite itself would do so within a commit.
func TestTheLogIsCopiedAfterManyWrites(t *testing.T) {
	db := openTurns(t)
	path := strings.TrimPrefix(db.URL, "sqlite:")
	before := fileSize(t, path)
	for _, write := range []string{
		"CREATE TABLE turns (text TEXT)",
		"INSERT INTO turns WITH RECURSIVE k (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM k WHERE n < 5000) SELECT printf('%200d', n) FROM k",
	} {
		if after := fileSize(t, path); after != before {
			t.Errorf("the file grew from %d to %d bytes before there were many writes", before, after)
		}
		if _, err := db.ExecContext(t.Context(), write); err != nil {
			t.Fatal(err)
		}
	}
	if after := fileSize(t, path); after < before+5000*200 {
		t.Errorf("the file grew from %d to only %d bytes", before, after)
	}
}

func fileSize(t *testing.T, path string) int64 {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
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
