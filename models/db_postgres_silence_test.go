package models_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"tollgate/models"
	"tollgate/models/modelstest"
)

// After packets were lost on all connections of the pool, only the first statement runs out of
// time.
func TestLostConnectionsOfThePool(t *testing.T) {
	t.Parallel()
	link, address := modelstest.NewSlowLink(t, modelstest.Postgres(t), 0)
	db, err := models.Open(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	const conns = 8
	var all sync.WaitGroup
	for range conns {
		all.Go(func() {
			if _, err := db.ExecContext(t.Context(), "SELECT pg_sleep(0.2)"); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	link.Mute()()
	within := func(patience time.Duration) error {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		_, err := db.ExecContext(ctx, "SELECT 1")
		return err
	}
	if err := within(300 * time.Millisecond); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("a statement on a lost connection ended with %v", err)
	}
	for i := range conns {
		if err := within(4 * models.SilencePatience); err != nil {
			t.Errorf("statement %d after that: %v", i+1, err)
		}
	}
}
