package models

import (
	"context"
	"time"

	"github.com/uptrace/bun"
)

// stepPatience is how long one step may take. A step that hangs must not keep its locks.
const stepPatience = 30 * time.Second

// restFunc rests after a step, given the time that it took, so that the database serves its callers
// most of the time. It may be nil.
type restFunc func(ctx context.Context, took time.Duration) error

// stepRows is the maximum number of rows that one step of a long task changes. SQLite has one
// writer, and the gate waits for each step.
func (db *DB) stepRows() int {
	if db.Postgres {
		return 1000
	}
	return 200
}

// step runs one transaction of a long task, and rests.
func (db *DB) step(ctx context.Context, rest restFunc, do func(ctx context.Context, tx bun.Tx) error) error {
	start := time.Now()
	bounded, cancel := context.WithTimeout(ctx, stepPatience)
	defer cancel()
	if err := db.InTx(bounded, do); err != nil {
		return err
	}
	if rest == nil {
		return ctx.Err()
	}
	return rest(ctx, time.Since(start))
}
