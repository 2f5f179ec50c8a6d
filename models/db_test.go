package models_test

import (
	"context"
	"database/sql"
	"errors"
	"testing"

	"github.com/uptrace/bun"
)

// A transaction whose context ends just before the commit returns the context's error.
func TestCanceledTransaction(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		ctx, cancel := context.WithCancel(f.ctx)
		defer cancel()
		err := f.db.InTx(ctx, func(_ context.Context, tx bun.Tx) error {
			cancel()
			for { // until the pool has rolled back
				if _, err := tx.ExecContext(f.ctx, "SELECT 1"); err != nil {
					return nil
				}
			}
		})
		if !errors.Is(err, context.Canceled) || !errors.Is(err, sql.ErrTxDone) {
			t.Errorf("the transaction returned %v", err)
		}
	})
}
