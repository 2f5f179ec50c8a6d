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

// probes is how often the gate wrote to the database to see whether it takes a write.
func (f *fixture) probes(t *testing.T) (n int) {
	t.Helper()
	if err := f.db.QueryRowContext(f.ctx, "SELECT COALESCE(MAX(version), 0) FROM usage_versions WHERE workspace_id = ?", uuid.Nil).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// A gate without calls finds out by a write whether it can record, at most once a second; with calls it needs none.
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
		for i := 0; time.Since(recorded) < 1200*time.Millisecond; i++ { // longer than a probe's outcome is used
			f.consume(t, "ada@example.com", 1, fmt.Sprint(i%5))
			f.consume(t, fmt.Sprintf("new%d@example.com", i), 1, "a"+fmt.Sprint(i))
			if err := f.Ready(f.ctx); err != nil {
				t.Fatal(err)
			}
			time.Sleep(20 * time.Millisecond)
		}
		if n := f.probes(t); n != before {
			t.Errorf("%d probes while calls were recorded, want none", n-before)
		}
	})
}

// One locked record does not take the server out of a load balancer.
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
		t.Errorf("with one locked record the gate is not ready: %v", err)
	}
}

// A database that takes no writes does, also when no call has tried to record.
func TestReadyWithAReadOnlyDatabase(t *testing.T) {
	for name, test := range map[string]struct {
		address func(testing.TB) string
		set     string
	}{
		"sqlite":   {modelstest.SQLite, "PRAGMA query_only = %s"},
		"postgres": {modelstest.Postgres, "SET default_transaction_read_only = %s"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, test.address(t))
			f.db.SetMaxOpenConns(1)
			f.exec(t, fmt.Sprintf(test.set, "on"))
			err := f.Ready(f.ctx)
			if fault := (*models.Error)(nil); !errors.As(err, &fault) || fault.Code != models.CodeUnavailable {
				t.Errorf("with a read-only database: %v", err)
			}
			f.exec(t, fmt.Sprintf(test.set, "off"))
			f.recovers(t)
		})
	}
}
