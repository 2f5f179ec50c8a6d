package enforcement

import (
	"testing"
	"time"

	"tollgate/models"
	"tollgate/models/modelstest"
)

// TestStartSurvivesALockedTable locks a table for longer than a call waits for a lock, while the
// gate prepares its statements. After that, the connection must have the timeouts for calls.
func TestStartSurvivesALockedTable(t *testing.T) {
	db, err := models.Open(t.Context(), modelstest.Postgres(t))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	tx, err := db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback() }()
	if _, err := tx.ExecContext(t.Context(), "LOCK TABLE usage_events IN ACCESS EXCLUSIVE MODE"); err != nil {
		t.Fatal(err)
	}
	unlock := time.AfterFunc(1500*time.Millisecond, func() { _ = tx.Rollback() })
	defer unlock.Stop()
	p, err := openPostgres(t.Context(), db)
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	p.mu.Lock()
	defer p.mu.Unlock()
	for name, want := range map[string]string{"statement_timeout": "4s", "lock_timeout": "1s"} {
		answers, err := p.conn.Exec(t.Context(), "SHOW "+name).ReadAll()
		if err != nil || string(answers[0].Rows[0][0]) != want {
			t.Errorf("%s is not %q: %v, %v", name, want, answers, err)
		}
	}
}
