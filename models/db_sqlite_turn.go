package models

import (
	"context"
	"database/sql/driver"
	"errors"
	"strings"
	"sync/atomic"
	"time"

	"modernc.org/sqlite"
)

// turnWait is how long a writer waits for its turn: as long as SQLite waits for its lock.
const turnWait = 5 * time.Second

// errNoTurn means that a writer waited too long. IsRetryable and IsUnavailable are true, as for
// SQLite's own lock.
var errNoTurn = errors.New("database is locked: other writes of this process take too long")

// writeTurns lets the connections of one process write in the order in which they asked. SQLite has
// no such order: a connection that finds the write lock taken tries again after up to 100 ms, while
// others that come later take the lock in between. A busy process could keep a writer waiting until
// it gave up (TestWritersTakeTurns). The lock itself stays SQLite's, for other processes.
//
// Both channels have room for one. Go serves waiting senders in the order in which they came.
type writeTurns struct {
	// turn is held while a connection writes.
	turn chan struct{}
	// lane is taken first by a connection other than the gate's, which holds it until its write ends.
	// So at most one of them waits for the turn beside the gate, and an answer waits for at most one
	// other write.
	lane chan struct{}
	// rows is about how many rows connections other than the gate's wrote since the last checkpoint.
	rows atomic.Int64
}

// rowsToCheckpoint rows change fewer pages than logPages, even if each of them changes five.
const rowsToCheckpoint = 4096

func newWriteTurns() *writeTurns {
	return &writeTurns{turn: make(chan struct{}, 1), lane: make(chan struct{}, 1)}
}

// sqliteConn is what the driver's connections can do.
type sqliteConn interface {
	driver.Conn
	driver.ConnBeginTx
	driver.ConnPrepareContext
	driver.ExecerContext
	driver.QueryerContext
	driver.Pinger
	driver.SessionResetter
	driver.Validator
	sqlite.HookRegisterer
}

// turnConn takes a turn for each transaction that writes, and for each statement that writes outside
// of one. Prepared statements take none: the gate executes them in its transactions.
type turnConn struct {
	sqliteConn
	turns *writeTurns
	// held are the channels that the connection holds.
	held []chan struct{}
	inTx bool
	// rows is how many rows the transaction has written.
	rows int64
}

// take waits for the turn.
func (c *turnConn) take(ctx context.Context, channels ...chan struct{}) error {
	if len(c.held) > 0 {
		return nil
	}
	timer := time.NewTimer(turnWait)
	defer timer.Stop()
	for _, channel := range channels {
		select {
		case channel <- struct{}{}:
			c.held = append(c.held, channel)
			continue
		case <-ctx.Done():
			c.end()
			return ctx.Err()
		case <-timer.C:
			c.end()
			return errNoTurn
		}
	}
	return nil
}

// end gives the turn back.
func (c *turnConn) end() {
	for _, channel := range c.held {
		<-channel
	}
	c.held, c.inTx, c.rows = c.held[:0], false, 0
}

// wrote gives the turn back after a commit, and copies the write-ahead log into the file if it has
// grown. SQLite itself would do so within the commit, and everyone would wait for the disk.
func (c *turnConn) wrote() {
	rows := c.turns.rows.Add(c.rows)
	c.end()
	if rows >= rowsToCheckpoint && c.turns.rows.CompareAndSwap(rows, 0) {
		// An error loses nothing: the log stays and grows.
		_, _ = c.sqliteConn.ExecContext(context.Background(), "PRAGMA wal_checkpoint(PASSIVE)", nil)
	}
}

// BeginTx implements driver.ConnBeginTx.
func (c *turnConn) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	if !opts.ReadOnly {
		if err := c.take(ctx, c.turns.lane, c.turns.turn); err != nil {
			return nil, err
		}
	}
	tx, err := c.sqliteConn.BeginTx(ctx, opts)
	if err != nil {
		c.end()
		return nil, err
	}
	c.inTx = true
	return &turnTx{Tx: tx, conn: c}, nil
}

type turnTx struct {
	driver.Tx
	conn *turnConn
}

// Commit implements driver.Tx.
func (t *turnTx) Commit() error {
	defer t.conn.wrote()
	return t.Tx.Commit()
}

// Rollback implements driver.Tx.
func (t *turnTx) Rollback() error {
	defer t.conn.end()
	return t.Tx.Rollback()
}

// ExecContext implements driver.ExecerContext. The gate begins and ends its transactions with it.
func (c *turnConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	switch {
	case query == "COMMIT" || query == "ROLLBACK":
		defer c.end()
	case query == "BEGIN IMMEDIATE":
		if err := c.take(ctx, c.turns.turn); err != nil {
			return nil, err
		}
		result, err := c.sqliteConn.ExecContext(ctx, query, args)
		if c.inTx = true; err != nil {
			c.end()
		}
		return result, err
	case !c.inTx && writes(query):
		if err := c.take(ctx, c.turns.lane, c.turns.turn); err != nil {
			return nil, err
		}
		defer c.wrote()
	}
	result, err := c.sqliteConn.ExecContext(ctx, query, args)
	if err == nil && len(c.held) > 0 {
		rows, _ := result.RowsAffected() // the driver returns no error
		c.rows += rows
	}
	return result, err
}

// QueryContext implements driver.QueryerContext. A statement with RETURNING is committed when its
// rows are closed.
func (c *turnConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	if c.inTx || !writes(query) {
		return c.sqliteConn.QueryContext(ctx, query, args)
	}
	if err := c.take(ctx, c.turns.lane, c.turns.turn); err != nil {
		return nil, err
	}
	rows, err := c.sqliteConn.QueryContext(ctx, query, args)
	if err != nil {
		c.end()
		return nil, err
	}
	return &turnRows{Rows: rows, conn: c}, nil
}

type turnRows struct {
	driver.Rows
	conn *turnConn
}

// Close implements driver.Rows.
func (r *turnRows) Close() error {
	defer r.conn.wrote()
	return r.Rows.Close()
}

// writes reports whether a statement writes. Outside of transactions, bun and our own code write only
// with statements that begin with one of these verbs.
func writes(query string) bool {
	verb, _, _ := strings.Cut(query, " ")
	return verb == "INSERT" || verb == "UPDATE" || verb == "DELETE"
}

// Close implements driver.Conn.
func (c *turnConn) Close() error {
	defer c.end()
	return c.sqliteConn.Close()
}
