package models_test

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"tollgate/models"
	"tollgate/models/modelstest"
)

// TestTheServerEndsTheFirstConnection opens a database over a link that is slower than the
// idle_session_timeout, so that the server ends the first connection as idle.
func TestTheServerEndsTheFirstConnection(t *testing.T) {
	address := modelstest.Postgres(t)
	name := databaseOf(t, address)
	alter(t, address, `ALTER DATABASE "`+name+`" SET idle_session_timeout = '50ms'`)
	watcher, err := pgx.Connect(t.Context(), address+"&statement_timeout=0&idle_session_timeout=0")
	if err != nil {
		t.Fatal(err)
	}
	defer watcher.Close(context.Background()) //nolint:errcheck // it only reads
	_, slow := modelstest.NewSlowLink(t, address, 150*time.Millisecond)
	opened := make(chan error)
	go func() {
		db, err := models.Open(t.Context(), slow)
		if err == nil {
			err = db.Close()
		}
		opened <- err
	}()
	for idle := false; !idle; {
		if err := watcher.QueryRow(t.Context(), `SELECT EXISTS (SELECT 1 FROM pg_stat_activity
			WHERE datname = current_database() AND state = 'idle' AND pid <> pg_backend_pid())`).Scan(&idle); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := watcher.Exec(t.Context(), `ALTER DATABASE "`+name+`" RESET idle_session_timeout`); err != nil {
		t.Fatal(err)
	}
	if err := <-opened; err != nil {
		t.Error(err)
	}
}
