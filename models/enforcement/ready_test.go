package enforcement_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"

	"tollgate/models"
	"tollgate/models/modelstest"
)

// probes returns how many test writes the gate made.
func (f *fixture) probes(t *testing.T) (n int) {
	t.Helper()
	const query = "SELECT COALESCE(MAX(version), 0) FROM usage_versions WHERE workspace_id = ?"
	if err := f.db.QueryRowContext(f.ctx, query, uuid.Nil).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// TestReadyProbesOnlyWithoutCalls checks that a gate makes a test write at most once per second,
// and none while calls are recorded.
func TestReadyProbesOnlyWithoutCalls(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		begun := time.Now()
		for range 50 {
			if err := f.Ready(f.ctx); err != nil {
				t.Fatal(err)
			}
		}
		if n, most := f.probes(t), 1+int(time.Since(begun)/time.Second); n < 1 || n > most {
			t.Errorf("%d probes, want 1 to %d", n, most)
		}
		before, recorded := f.probes(t), time.Now()
		for i := 0; time.Since(recorded) < 1200*time.Millisecond; i++ { // longer than the outcome of a probe is valid
			f.consume(t, "ada@example.com", 1, fmt.Sprint(i%5))
			f.consume(t, fmt.Sprintf("new%d@example.com", i), 1, "a"+fmt.Sprint(i))
			if err := f.Ready(f.ctx); err != nil {
				t.Fatal(err)
			}
		}
		if n := f.probes(t); n != before {
			t.Errorf("%d probes while calls were recorded, want none", n-before)
		}
	})
}

// TestReadyWithALockedRecord checks that a locked record does not make the server unready.
func TestReadyWithALockedRecord(t *testing.T) {
	f := newFixture(t, modelstest.Postgres(t))
	f.consume(t, "ada@example.com", 1, "first")
	tx, err := f.db.BeginTx(f.ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback() }() // nothing was changed
	if _, err := tx.ExecContext(f.ctx, "SELECT 1 FROM usage_records WHERE email = 'ada@example.com' FOR UPDATE"); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Consume(f.ctx, by("ada@example.com"), 1, "second"); err == nil {
		t.Fatal("a locked record was written")
	}
	if err := f.Ready(f.ctx); err != nil {
		t.Errorf("the gate is not ready with one locked record: %v", err)
	}
}

// TestReadyWithAReadOnlyDatabase checks that the gate is not ready if the database refuses writes,
// even if no call has tried to record.
func TestReadyWithAReadOnlyDatabase(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		set := "PRAGMA query_only = "
		if f.db.Postgres {
			set = "SET default_transaction_read_only = "
		}
		f.db.SetMaxOpenConns(1)
		f.exec(t, set+"on")
		err := f.Ready(f.ctx)
		if e := (*models.Error)(nil); !errors.As(err, &e) || e.Code != models.CodeUnavailable {
			t.Errorf("with a read-only database: %v", err)
		}
		f.exec(t, set+"off")
		f.recovers(t)
	})
}
