// Package models has the data and its rules: plans, periods, the decision, tables, queries and
// migrations. It needs no HTTP and no gate, and works the same on SQLite and on PostgreSQL.
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

// DB is an open database, SQLite or PostgreSQL.
type DB struct {
	*bun.DB
	// URL is the address that the database was opened with. It may contain a password, so never log
	// it.
	URL string
	// Postgres means PostgreSQL; otherwise the database is SQLite.
	Postgres bool
	// Applied lists the migrations that Open applied.
	Applied []string
	// Unknown lists the migrations that a newer release applied before Open.
	Unknown []string
	// Sent, unless nil, gets each query of a batch that is sent to PostgreSQL. bun's hooks get all
	// other statements.
	Sent func(query string)

	lockTimeout time.Duration

	server      *postgresServer // nil with SQLite
	stopKeeping func()          // nil without KeepWarm

	// The following fields are only used with SQLite; see SQLitePool and keep.
	file       *sqliteFile
	connector  driver.Connector
	keeperPool *sql.DB
	keeper     *sql.Conn
}

// Address returns the URL without its password.
func (db *DB) Address() string { return redact(db.URL) }

// WithLockTimeout returns the same database with a limit on how long transactions of InTx wait for
// each lock. After that, they fail with an error for which IsLockTimeout is true, and do not retry.
// SQLite has no row locks.
func (db *DB) WithLockTimeout(wait time.Duration) *DB {
	d := *db
	d.lockTimeout = wait
	return &d
}

// ErrDatabaseURL means that a database address has neither of the two forms.
var ErrDatabaseURL = errors.New(`the database must be "sqlite:FILE" or "postgres://USER@HOST/NAME"`)

// Open opens the database at a "sqlite:FILE" or "postgres://…" address and applies missing
// migrations, so that any command works on an empty database. Several processes may do so at once.
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
			err = explainPostgres(address, err)
		}
		return nil, errors.Join(fmt.Errorf("open database %q: %w", redact(address), err), db.Close())
	}
	return db, nil
}

// Close closes all connections of the pool.
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
	closed := db.DB.Close()
	if db.Postgres {
		return kept // a connection that PostgreSQL has ended already cannot be closed in order, and nothing is lost
	}
	return errors.Join(kept, closed)
}

// OpenExisting opens a database like Open, but does not create a missing SQLite file.
func OpenExisting(ctx context.Context, address string) (*DB, error) {
	if strings.HasPrefix(address, "sqlite:") && isCreatable(address) {
		return nil, fmt.Errorf("open database %q: no such file; name the database in --database or --config", address)
	}
	return Open(ctx, address)
}

// InTx runs do in a transaction, and commits it if do returns nil. A transaction that failed
// because of another one (a deadlock, a serialization failure, a duplicate key, SQLite's lock) is
// retried, up to five attempts in all.
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

// again runs a transaction, and retries it if it failed because of another one.
func (db *DB) again(ctx context.Context, run func() error) error {
	for try := 1; ; try++ {
		err := run()
		if err == nil {
			return db.CheckFile(0) // what was committed into a file that is gone is lost
		}
		if errors.Is(err, sql.ErrTxDone) && ctx.Err() != nil {
			return errors.Join(ctx.Err(), err) // the driver's pool has rolled back because ctx ended
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

// ForUpdate locks the rows that a query selects. SQLite needs no such clause: its transactions hold
// the write lock.
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

// positionFunction returns the name of the SQL function that returns where a text begins in another
// one, from 1 on; 0 if it is not there.
func positionFunction(postgres bool) string {
	if postgres {
		return "strpos"
	}
	return "instr"
}
