// Package models is everything that is true: plans, periods, the decision, tables, queries and migrations. It runs without HTTP
// and without the gate, on SQLite and on PostgreSQL alike.
package models

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect"
)

// DB is an open database of either kind.
type DB struct {
	*bun.DB
	// URL is what the database was opened with. It may hold a password: never log it.
	URL string
	// Postgres says that this is PostgreSQL; otherwise it is SQLite.
	Postgres bool
	// Applied are the migrations that Open applied.
	Applied []string
	// Sent, unless nil, sees each query of a group that is sent to PostgreSQL at once; bun's hooks see all other statements.
	Sent func(query string)

	lockTimeout time.Duration

	server      *postgresServer // nil with SQLite
	stopKeeping func()          // nil with SQLite

	// Of SQLite alone: see SQLitePool and keep.
	file       *sqliteFile
	connector  driver.Connector
	keeperPool *sql.DB
	keeper     *sql.Conn
}

// Address returns the URL without its password.
func (db *DB) Address() string { return redact(db.URL) }

// WithLockTimeout is the same database, whose transactions of InTx wait for each lock for so long at most and then end with an
// error that IsLockTimeout knows; they do not try again. SQLite has no locks of rows to wait for.
func (db *DB) WithLockTimeout(wait time.Duration) *DB {
	d := *db
	d.lockTimeout = wait
	return &d
}

// ErrDatabaseURL names the two forms that a database address has.
var ErrDatabaseURL = errors.New(`the database must be "sqlite:FILE" or "postgres://USER@HOST/NAME"`)

// Open opens the database at a "sqlite:FILE" or "postgres://…" address and brings its tables up to date, so that any
// command works on an empty one. Several processes may do so at once.
func Open(ctx context.Context, address string) (_ *DB, err error) {
	db := &DB{URL: address}
	switch {
	case strings.HasPrefix(address, "sqlite:"):
		err = db.openSQLite(ctx)
	case strings.HasPrefix(address, "postgres://"), strings.HasPrefix(address, "postgresql://"):
		err = db.openPostgres(ctx)
	default:
		err = ErrDatabaseURL
	}
	if err != nil {
		return nil, fmt.Errorf("open database %q: %w", redact(address), err)
	}
	if db.Applied, err = db.Migrate(ctx); err != nil {
		if db.Postgres {
			err = explainPostgres(err)
		}
		return nil, errors.Join(fmt.Errorf("open database %q: %w", redact(address), err), db.Close())
	}
	return db, nil
}

// Close closes all connections of the database's own pool.
func (db *DB) Close() error {
	if db.stopKeeping != nil {
		db.stopKeeping()
	}
	var kept error
	if db.keeper != nil {
		kept = db.keeper.Close()
	}
	if db.keeperPool != nil {
		kept = errors.Join(kept, db.keeperPool.Close())
	}
	return errors.Join(kept, db.DB.Close())
}

// InTx runs do in one transaction and commits it when do returns nil. A transaction that lost against another one
// (a deadlock, a serialization failure, a key taken meanwhile, SQLite's lock held too long) is tried again, up to five times in all.
func (db *DB) InTx(ctx context.Context, do func(ctx context.Context, tx bun.Tx) error) error {
	run := do
	if db.Postgres && db.lockTimeout > 0 {
		run = func(ctx context.Context, tx bun.Tx) error {
			if _, err := tx.ExecContext(ctx, fmt.Sprintf("SET LOCAL lock_timeout = %d", db.lockTimeout.Milliseconds())); err != nil {
				return err
			}
			return do(ctx, tx)
		}
	}
	return db.again(ctx, func() error { return db.RunInTx(ctx, nil, run) })
}

// again runs a transaction, and runs it again when it lost against another one.
func (db *DB) again(ctx context.Context, run func() error) error {
	for try := 1; ; try++ {
		err := run()
		if err == nil {
			return db.CheckFile(0) // what was committed into a file that is gone is lost
		}
		if try == 5 || !IsRetryable(err) && !IsDuplicate(err) || db.lockTimeout > 0 && IsLockTimeout(err) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(time.Duration(try*try) * 5 * time.Millisecond):
		}
	}
}

// ForUpdate locks the rows that a query selects. SQLite needs no such clause: its transactions hold the write lock.
func ForUpdate(q *bun.SelectQuery) *bun.SelectQuery { return lockRows(q, "UPDATE") }

// ForUpdateSkipLocked is ForUpdate without the rows that another transaction has locked.
func ForUpdateSkipLocked(q *bun.SelectQuery) *bun.SelectQuery {
	return lockRows(q, "UPDATE SKIP LOCKED")
}

func lockRows(q *bun.SelectQuery, how string) *bun.SelectQuery {
	if q.DB().Dialect().Name() == dialect.PG {
		return q.For(how)
	}
	return q
}

// Now returns the clock's time as both databases store it: UTC, in whole microseconds.
func Now(clock func() time.Time) time.Time { return clock().UTC().Truncate(time.Microsecond) }
