package models

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/uptrace/bun"
)

// trips is a transaction on PostgreSQL whose statements are sent in groups, each group in one round trip: a link between
// Tollgate and its database may take half a second. Writes of bun go through it as through any connection; what is read
// is added with read.
type trips struct {
	db    *DB
	conn  *pgx.Conn
	batch *pgx.Batch
}

// inTrips is InTx for PostgreSQL, in few round trips.
func (db *DB) inTrips(ctx context.Context, do func(ctx context.Context, t *trips) error) error {
	return db.again(ctx, func() error {
		conn, err := db.DB.DB.Conn(ctx)
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close() }() // gives it back
		return conn.Raw(func(driver any) error {
			t := &trips{db: db, conn: driver.(*stdlib.Conn).Conn(), batch: &pgx.Batch{}}
			t.batch.Queue("BEGIN")
			// The planner looks rows up by index: a few are read, and tables that grew since they were last analyzed look small to it.
			set := "SELECT set_config('enable_seqscan', 'off', true), set_config('enable_hashjoin', 'off', true), " +
				"set_config('enable_mergejoin', 'off', true), set_config('enable_material', 'off', true), set_config('jit', 'off', true)"
			if db.lockTimeout > 0 {
				set += fmt.Sprintf(", set_config('lock_timeout', '%d', true)", db.lockTimeout.Milliseconds())
			}
			t.batch.Queue(set)
			err := do(ctx, t)
			if err == nil {
				t.batch.Queue("COMMIT")
				err = t.send(ctx)
			}
			if err != nil && !t.conn.IsClosed() && t.conn.PgConn().TxStatus() != 'I' {
				undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
				defer cancel()
				if _, undoErr := t.conn.Exec(undo, "ROLLBACK"); undoErr != nil {
					_ = t.conn.Close(undo) // the server rolls back
				}
			}
			return err
		})
	})
}

// read adds a query, whose rows are given to row when the group is sent.
func (t *trips) read(query string, row func(rows scanner) error) {
	t.note(query)
	t.batch.Queue(query).Query(func(rows pgx.Rows) error {
		for rows.Next() {
			if row == nil {
				continue // locked, and that is all
			}
			if err := row(rows); err != nil {
				return err
			}
		}
		return rows.Err()
	})
}

// readInto adds a query of whole rows of a table.
func readInto[T any](t *trips, query fmt.Stringer, into *[]T) {
	text := query.String()
	t.note(text)
	t.batch.Queue(text).Query(func(rows pgx.Rows) (err error) {
		*into, err = pgx.CollectRows(rows, pgx.RowToStructByName[T])
		return err
	})
}

// send sends what was added and reads the answers.
func (t *trips) send(ctx context.Context) error {
	batch := t.batch
	t.batch = &pgx.Batch{}
	return t.conn.SendBatch(ctx, batch).Close()
}

func (t *trips) note(query string) {
	if t.db.Sent != nil {
		t.db.Sent(query)
	}
}

// scanner is a row of either way to read one.
type scanner interface{ Scan(into ...any) error }

var errNotRead = errors.New("only writes may be added to a group of statements")

// ExecContext adds a write.
func (t *trips) ExecContext(_ context.Context, query string, args ...any) (sql.Result, error) {
	if len(args) > 0 {
		return nil, errNotRead // bun has written them into the statement
	}
	t.batch.Queue(query)
	return noResult{}, nil
}

// QueryContext and QueryRowContext are not for groups: whoever calls them needs the answer at once.
func (t *trips) QueryContext(context.Context, string, ...any) (*sql.Rows, error) {
	return nil, errNotRead
}

// QueryRowContext is as QueryContext is.
func (t *trips) QueryRowContext(context.Context, string, ...any) *sql.Row { panic(errNotRead) }

// noResult is what is known of a write before it is sent.
type noResult struct{}

func (noResult) LastInsertId() (int64, error) { return 0, errNotRead }
func (noResult) RowsAffected() (int64, error) { return 0, nil }

var _ bun.IConn = (*trips)(nil)

// eachRow sends a query and gives each of its rows to row.
func eachRow(ctx context.Context, db bun.IDB, query fmt.Stringer, row func(scanner) error) error {
	rows, err := db.QueryContext(ctx, query.String())
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := row(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// ledgerConn is a transaction that writes, or adds its writes to a group, and can read at once.
type ledgerConn interface {
	bun.IConn
	rows(ctx context.Context, query string, row func(scanner) error) error
}

// inTx is a transaction of bun as a ledgerConn.
type inTx struct{ bun.Tx }

func (t inTx) rows(ctx context.Context, query string, row func(scanner) error) error {
	return eachRow(ctx, t.Tx, t.NewRaw(query), row)
}

// rows reads at once what a group's writes depend on.
func (t *trips) rows(ctx context.Context, query string, row func(scanner) error) error {
	t.read(query, row)
	return t.send(ctx)
}
