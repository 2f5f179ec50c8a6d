package enforcement_test

import (
	"crypto/rand"
	"database/sql"
	"errors"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"tollgate/models/enforcement"
	"tollgate/models/modelstest"
)

// TestTheLogIsBroughtHome checks that checkpoints bound the size of SQLite's write-ahead log. It
// writes several times the maximum size without a pause, while a reader is active half of the time,
// which keeps the log from being reset.
func TestTheLogIsBroughtHome(t *testing.T) {
	const batches, size, most = 300, 500, 208 << 20
	f := newFixture(t, modelstest.SQLite(t))
	done := make(chan struct{})
	var reader sync.WaitGroup
	defer reader.Wait()
	defer close(done)
	reader.Go(func() {
		for {
			select {
			case <-done:
				return
			case <-time.After(5 * time.Millisecond):
			}
			tx, err := f.db.BeginTx(f.ctx, &sql.TxOptions{ReadOnly: true})
			if err != nil {
				t.Error(err)
				return
			}
			var n int
			err = tx.QueryRowContext(f.ctx, "SELECT COUNT(*) FROM users").Scan(&n)
			time.Sleep(5 * time.Millisecond) // a slow reader
			if err := errors.Join(err, tx.Rollback()); err != nil {
				t.Error(err)
			}
		}
	})
	batch := make([]enforcement.PastEvent, size)
	var longest int64
	for range batches {
		for i := range batch {
			// Random keys, so that each is on a different page of their index.
			batch[i] = enforcement.PastEvent{Person: by("ada@example.com"), Quantity: 1, IdempotencyKey: rand.Text(), OccurredAt: f.now}
		}
		if _, err := f.Record(f.ctx, batch); err != nil {
			t.Fatal(err)
		}
		log, err := os.Stat(strings.TrimPrefix(f.db.URL, "sqlite:") + "-wal")
		if err != nil {
			t.Fatal(err)
		}
		longest = max(longest, log.Size())
	}
	if longest > most {
		t.Errorf("the log grew to %d bytes, want at most %d", longest, most)
	}
	t.Logf("the log grew to %d bytes", longest)
	if n := f.clean(t); n != batches*size {
		t.Errorf("%d events, want %d", n, batches*size)
	}
}
