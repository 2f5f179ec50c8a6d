package enforcement_test

import (
	"crypto/rand"
	"os"
	"strings"
	"testing"

	"tollgate/models/enforcement"
	"tollgate/models/modelstest"
)

// TestTheLogIsBroughtHome writes several times what the write-ahead log of SQLite is to hold, without a pause, and looks at its size.
func TestTheLogIsBroughtHome(t *testing.T) {
	const batches, size, most = 120, 500, 96 << 20
	f := newFixture(t, modelstest.SQLite(t))
	batch := make([]enforcement.Happened, size)
	for range batches {
		for i := range batch {
			// Keys in no order: each is on another page of their index.
			batch[i] = enforcement.Happened{Person: by("ada@example.com"), Quantity: 1, IdempotencyKey: rand.Text(), OccurredAt: f.now}
		}
		if _, err := f.Record(f.ctx, batch); err != nil {
			t.Fatal(err)
		}
	}
	log, err := os.Stat(strings.TrimPrefix(f.db.URL, "sqlite:") + "-wal")
	if err != nil {
		t.Fatal(err)
	}
	if log.Size() > most {
		t.Errorf("%d events left a log of %d bytes, want at most %d", batches*size, log.Size(), most)
	}
	t.Logf("a log of %d bytes", log.Size())
	if n := f.clean(t); n != batches*size {
		t.Errorf("%d events", n)
	}
}
