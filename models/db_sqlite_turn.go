package models

import (
	"context"
	"database/sql/driver"
	"strings"
	"time"

	"modernc.org/sqlite"
)

// turnWait is how long a writer waits for its turn. After that, it tries without one, so that a
// write that is started inside another transaction fails as it would without turns.
const turnWait = 5 * time.Second

// writeTurns lets the connections of one process write in the order in which they asked. SQLite has
// no such order: a connection that finds the write lock taken tries again after up to 100 ms, while
// others that come later take the lock in between. A busy process could keep a writer waiting until
// it gave up (TestWritersTakeTurns). The lock itself stays SQLite's, for other processes.
type writeTurns chan struct{}

func newWriteTurns() writeTurns { return make(writeTurns, 1) }

// take waits for the turn, and returns whether the caller has it and must give it back.
func (t writeTurns) take(ctx context.Context) (bool, error) {
	select {
	case t <- struct{}{}:
		return true, nil
	default:
	}
	timer := time.NewTimer(turnWait)
	defer timer.Stop()
	select {
	case t <- struct{}{}: // Go serves senders in the order in which they came
		return true, nil
	case <-ctx.Done():
		return false, ctx.Err()
	case <-timer.C:
		return false, nil
	}
}

func (t writeTurns) giveBack() { <-t }

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

// turnConn takes a turn for each transaction that writes and for each single write with Exec.
type turnConn struct {
	sqliteConn
	turns   writeTurns
	hasTurn bool
	inTx    bool
}

func (c *turnConn) take(ctx context.Context) (err error) {
	c.hasTurn, err = c.turns.take(ctx)
	return err
}

func (c *turnConn) end() {
	c.inTx = false
	if c.hasTurn {
		c.hasTurn = false
		c.turns.giveBack()
	}
}

// BeginTx implements driver.ConnBeginTx.
func (c *turnConn) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	if !opts.ReadOnly {
		if err := c.take(ctx); err != nil {
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
	defer t.conn.end()
	return t.Tx.Commit()
}

// Rollback implements driver.Tx.
func (t *turnTx) Rollback() error {
	defer t.conn.end()
	return t.Tx.Rollback()
}

// ExecContext implements driver.ExecerContext. The gate begins and ends its transactions with it.
func (c *turnConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	verb, _, _ := strings.Cut(query, " ")
	switch {
	case verb == "COMMIT" || verb == "ROLLBACK":
		defer c.end()
	case c.inTx:
	case verb == "BEGIN":
		if err := c.take(ctx); err != nil {
			return nil, err
		}
		result, err := c.sqliteConn.ExecContext(ctx, query, args)
		if c.inTx = true; err != nil {
			c.end()
		}
		return result, err
	case verb == "INSERT" || verb == "UPDATE" || verb == "DELETE" || verb == "WITH":
		if err := c.take(ctx); err != nil {
			return nil, err
		}
		defer c.end()
	}
	return c.sqliteConn.ExecContext(ctx, query, args)
}

// Close implements driver.Conn.
func (c *turnConn) Close() error {
	defer c.end()
	return c.sqliteConn.Close()
}
