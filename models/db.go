// Package models is everything that is true: plans, periods, the decision, tables, queries and migrations. It runs without HTTP
// and without the gate, on SQLite and on PostgreSQL alike.
package models

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/url"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect/pgdialect"
	"github.com/uptrace/bun/dialect/sqlitedialect"
	"github.com/uptrace/bun/migrate"
	_ "modernc.org/sqlite" // the driver "sqlite"
)

//go:embed migrations
var migrationFiles embed.FS

// DB is an open database of either kind.
type DB struct {
	*bun.DB
	// URL is what the database was opened with. It may hold a password: never log it.
	URL string
	// Postgres says that this is PostgreSQL; otherwise it is SQLite.
	Postgres bool
	// Applied are the migrations that Open applied.
	Applied []string

	lockTimeout time.Duration
}

// Impatient is the same database, whose transactions of InTx wait for each lock for so long at most and then end with an
// error that IsLockTimeout knows; they do not try again. SQLite has no locks of rows to wait for.
func (db *DB) Impatient(wait time.Duration) *DB {
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
		err = db.openSQLite()
	case strings.HasPrefix(address, "postgres://"), strings.HasPrefix(address, "postgresql://"):
		err = db.openPostgres()
	default:
		err = ErrDatabaseURL
	}
	if err != nil {
		return nil, fmt.Errorf("open the database: %w", err)
	}
	if db.Applied, err = db.Migrate(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("open the database: %w", err), db.Close())
	}
	return db, nil
}

// SQLiteDSN turns "sqlite:FILE" into the driver's address with the settings that the product stands on: a write-ahead
// log, so that readers never wait; every commit on the disk before it is answered; and transactions that take the
// write lock at their start, as a later upgrade of a read lock fails at once instead of waiting.
func SQLiteDSN(address string) (string, error) {
	file := strings.TrimPrefix(address, "sqlite:")
	if file == "" || strings.ContainsAny(file, "?\x00") || file == ":memory:" {
		return "", fmt.Errorf("%w: %q names no file", ErrDatabaseURL, address)
	}
	set := url.Values{
		"_busy_timeout": {"5000"},
		"_journal_mode": {"WAL"},
		"_synchronous":  {"FULL"},
		"_foreign_keys": {"1"},
		"_txlock":       {"immediate"},
		// Random idempotency keys change a page of their index each. Bringing the log's pages home once in 64 MiB and not once in
		// 4 MiB writes each page less often; what is committed is in the log and on the disk either way.
		"_pragma":      {"wal_autocheckpoint(16384)"},
		"_time_format": {"sqlite"},
		"_timezone":    {"UTC"},
	}
	return file + "?" + set.Encode(), nil
}

func (db *DB) openSQLite() error {
	dsn, err := SQLiteDSN(db.URL)
	if err != nil {
		return err
	}
	std, err := sql.Open("sqlite", dsn)
	if err != nil {
		return err
	}
	std.SetMaxOpenConns(8)
	std.SetMaxIdleConns(8)
	db.DB = bun.NewDB(std, sqlitedialect.New())
	return nil
}

// PostgresPatience are settings of every connection to PostgreSQL. A process that freezes in the middle of a transaction,
// or whose machine went away, loses the transaction after three seconds, so that nobody waits for its locks for longer.
var PostgresPatience = map[string]string{"idle_in_transaction_session_timeout": "3000", "lock_timeout": "4000"}

func (db *DB) openPostgres() error {
	cfg, err := pgx.ParseConfig(db.URL)
	if err != nil {
		return err
	}
	// bun writes its arguments into the statement, so a cache of prepared statements would only grow.
	cfg.DefaultQueryExecMode = pgx.QueryExecModeExec
	cfg.RuntimeParams["timezone"] = "UTC"
	cfg.RuntimeParams["application_name"] = "tollgate"
	maps.Copy(cfg.RuntimeParams, PostgresPatience)
	std := stdlib.OpenDB(*cfg)
	std.SetMaxOpenConns(16)
	std.SetMaxIdleConns(16)
	std.SetConnMaxIdleTime(5 * time.Minute)
	db.DB, db.Postgres = bun.NewDB(std, pgdialect.New()), true
	return nil
}

// migrationLock is the number of the PostgreSQL advisory lock that lets one process migrate at a time.
const migrationLock = 0x746f6c6c

// Migrate applies the migrations that the database lacks and returns their names.
func (db *DB) Migrate(ctx context.Context) (_ []string, err error) {
	dir := "migrations/sqlite"
	if db.Postgres {
		dir = "migrations/postgres"
		conn, connErr := db.DB.DB.Conn(ctx)
		if connErr != nil {
			return nil, connErr
		}
		defer func() { err = errors.Join(err, conn.Close()) }()
		// However long the process that migrates may take.
		if _, err := conn.ExecContext(ctx, `SET lock_timeout = 0`); err != nil {
			return nil, err
		}
		defer func() {
			_, resetErr := conn.ExecContext(context.WithoutCancel(ctx), `RESET lock_timeout`)
			err = errors.Join(err, resetErr)
		}()
		if _, err := conn.ExecContext(ctx, `SELECT pg_advisory_lock($1)`, migrationLock); err != nil {
			return nil, err
		}
		defer func() {
			_, unlockErr := conn.ExecContext(context.WithoutCancel(ctx), `SELECT pg_advisory_unlock($1)`, migrationLock)
			err = errors.Join(err, unlockErr)
		}()
	}
	files, err := fs.Sub(migrationFiles, dir)
	if err != nil {
		return nil, err
	}
	migrations := migrate.NewMigrations()
	if err := migrations.Discover(files); err != nil {
		return nil, err
	}
	m := migrate.NewMigrator(db.DB, migrations, migrate.WithMarkAppliedOnSuccess(true))
	if err := m.Init(ctx); err != nil {
		return nil, err
	}
	var names []string
	for {
		group, err := m.Migrate(ctx)
		for _, applied := range group.Migrations {
			names = append(names, applied.Name+"_"+applied.Comment)
		}
		if err == nil {
			return names, nil
		}
		if db.Postgres || !isColumnThere(err) {
			return nil, fmt.Errorf("migrate: %w", err)
		}
		// The one that failed is the group's last.
		if err := m.MarkApplied(ctx, &group.Migrations[len(group.Migrations)-1]); err != nil {
			return nil, fmt.Errorf("migrate: %w", err)
		}
	}
}

// isColumnThere says that a migration of SQLite, which has no ADD COLUMN IF NOT EXISTS, found its column. The column comes
// first in its transaction, so all of the migration was done, and only the mark is missing: the process that did it ended
// before it set the mark, or sets it right now.
func isColumnThere(err error) bool { return strings.Contains(err.Error(), "duplicate column name") }

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
	for try := 1; ; try++ {
		err := db.RunInTx(ctx, nil, run)
		if err == nil || try == 5 || !IsRetryable(err) && !IsDuplicate(err) || db.lockTimeout > 0 && IsLockTimeout(err) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(time.Duration(try*try) * 5 * time.Millisecond):
		}
	}
}

// ForUpdateSkipLocked is ForUpdate, and leaves out the rows that others hold.
func (db *DB) ForUpdateSkipLocked(q *bun.SelectQuery) *bun.SelectQuery {
	if db.Postgres {
		return q.For("UPDATE SKIP LOCKED")
	}
	return q
}

// ForUpdate locks the rows that a query selects. SQLite needs no such clause: its transactions hold the write lock.
func (db *DB) ForUpdate(q *bun.SelectQuery) *bun.SelectQuery {
	if db.Postgres {
		return q.For("UPDATE")
	}
	return q
}
