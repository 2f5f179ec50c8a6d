package cli

import (
	"testing"
	"time"

	"tollgate/models"
	"tollgate/models/modelstest"
)

// A server opens three connections before its first call, so that no call waits for one. Other
// commands open a connection when they need it.
func TestAServerOpensConnectionsFirst(t *testing.T) {
	catalogue, err := models.LoadCatalogue("")
	if err != nil {
		t.Fatal(err)
	}
	db, err := models.Open(t.Context(), modelstest.Postgres(t))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	// A connection that was closed may be counted for a moment.
	wantConnections := func(want int) {
		t.Helper()
		n, end := 0, time.Now().Add(10*time.Second)
		for n != want && time.Now().Before(end) {
			if err := db.QueryRowContext(t.Context(), "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database()").
				Scan(&n); err != nil {
				t.Fatal(err)
			}
		}
		if n != want {
			t.Errorf("%d connections, want %d", n, want)
		}
	}
	wantConnections(1)
	if err := (Deployment{DB: db, Catalogue: catalogue}).Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantConnections(3)
}
