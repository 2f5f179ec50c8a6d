package client

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A spool does not grow without end, and remembers holds.
func TestSpoolIsRewritten(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "spool")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	size := func() int64 {
		t.Helper()
		info, err := os.Stat(path)
		must(err)
		if info.Mode().Perm() != 0o600 {
			t.Errorf("the mode is %s", info.Mode())
		}
		return info.Size()
	}
	s, err := openSpool(path)
	must(err)
	entries := []*entry{{Kind: kindEvent, Quantity: 1, IdempotencyKey: "hold", OfHold: true, OccurredAt: time.Now()}}
	for i := range 25 {
		entries = append(entries, &entry{Kind: kindEvent, Quantity: 1, IdempotencyKey: strconv.Itoa(i) + strings.Repeat("x", 50_000)})
	}
	for _, e := range entries {
		must(s.append(e))
	}
	if n := size(); n < compactAt {
		t.Fatalf("%d bytes", n)
	}
	must(s.finish(entries))
	if n := size(); n > 1000 {
		t.Errorf("%d bytes are left", n)
	}
	consumed := &entry{Kind: kindEvent, Quantity: 1, IdempotencyKey: "consumed"}
	must(s.append(consumed))
	must(s.finish([]*entry{consumed}))
	last := &entry{Kind: kindSettle, Quantity: 1, IdempotencyKey: "last", HoldID: "1", OfHold: true}
	must(s.append(last))
	must(s.close())
	s, err = openSpool(path)
	must(err)
	if len(s.pending) != 1 || *s.pending[0] != *last || len(s.recent) != 1 || s.recent[0].IdempotencyKey != "hold" {
		t.Errorf("pending: %v, recent: %v", s.pending, s.recent)
	}
	must(s.close())
}
