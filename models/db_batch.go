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

// batchTx is a transaction on PostgreSQL that sends its statements in batches, each in one round
// trip, because a round trip to the database may take half a second. bun's writes go through it as
// through any connection. Queries are added with read.
type batchTx struct {
	db    *DB
	conn  *pgx.Conn
	batch *pgx.Batch
}

// inBatchTx is InTx for PostgreSQL, in few round trips.
func (db *DB) inBatchTx(ctx context.Context, do func(ctx context.Context, t *batchTx) error) error {
	return db.again(ctx, func() error {
		conn, err := db.DB.DB.Conn(ctx)
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close() }() // gives it back
		return conn.Raw(func(driver any) error {
			t := &batchTx{db: db, conn: driver.(*stdlib.Conn).Conn(), batch: &pgx.Batch{}}
			t.batch.Queue("BEGIN")
			// Make the planner use indexes. These statements read few rows, and to the planner, a
			// table that grew since it was last analyzed looks small.
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

// read adds a query. When the batch is sent, row gets each of its rows.
func (t *batchTx) read(query string, row func(rows scanner) error) {
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

// readInto adds a query for whole rows of a table.
func readInto[T any](t *batchTx, query fmt.Stringer, into *[]T) {
	text := query.String()
	t.note(text)
	t.batch.Queue(text).Query(func(rows pgx.Rows) (err error) {
		*into, err = pgx.CollectRows(rows, pgx.RowToStructByName[T])
		return err
	})
}

// send sends the batch and reads the results.
func (t *batchTx) send(ctx context.Context) error {
	batch := t.batch
	t.batch = &pgx.Batch{}
	return t.conn.SendBatch(ctx, batch).Close()
}

func (t *batchTx) note(query string) {
	if t.db.Sent != nil {
		t.db.Sent(query)
	}
}

// scanner is a row of database/sql or of pgx.
type scanner interface{ Scan(into ...any) error }

var errNotRead = errors.New("only writes may be added to a group of statements")

// ExecContext adds a write.
func (t *batchTx) ExecContext(_ context.Context, query string, args ...any) (sql.Result, error) {
	if len(args) > 0 {
		return nil, errNotRead // bun has written them into the statement
	}
	t.batch.Queue(query)
	return noResult{}, nil
}

// QueryContext and QueryRowContext always fail, because their callers need the result before the
// batch is sent.
func (t *batchTx) QueryContext(context.Context, string, ...any) (*sql.Rows, error) {
	return nil, errNotRead
}

// QueryRowContext always fails; see QueryContext.
func (t *batchTx) QueryRowContext(context.Context, string, ...any) *sql.Row { panic(errNotRead) }

// noResult is the result of a write that was not sent yet.
type noResult struct{}

func (noResult) LastInsertId() (int64, error) { return 0, errNotRead }
func (noResult) RowsAffected() (int64, error) { return 0, nil }

var _ bun.IConn = (*batchTx)(nil)

// eachRow runs a query and passes each of its rows to row.
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

// ledgerConn is a transaction that writes, either at once or in a batch, and that can read at once.
type ledgerConn interface {
	bun.IConn
	rows(ctx context.Context, query string, row func(scanner) error) error
}

// inTx is a bun transaction as a ledgerConn.
type inTx struct{ bun.Tx }

func (t inTx) rows(ctx context.Context, query string, row func(scanner) error) error {
	return eachRow(ctx, t.Tx, t.NewRaw(query), row)
}

// rows runs a query at once.
func (t *batchTx) rows(ctx context.Context, query string, row func(scanner) error) error {
	t.read(query, row)
	return t.send(ctx)
}
