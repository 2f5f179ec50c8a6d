package models_test

import (
	"path/filepath"
	"testing"

	"tollgate/models"
)

// TestSQLiteSettings holds a connection to what the gate's speed and its promises stand on.
func TestSQLiteSettings(t *testing.T) {
	db, err := models.Open(t.Context(), "sqlite:"+filepath.Join(t.TempDir(), "settings.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	for pragma, want := range map[string]string{"journal_mode": "wal", "synchronous": "2", "foreign_keys": "1", "busy_timeout": "5000", "wal_autocheckpoint": "16384"} {
		var got string
		if err := db.QueryRowContext(t.Context(), "PRAGMA "+pragma).Scan(&got); err != nil || got != want {
			t.Errorf("%s is %s, %v; want %s", pragma, got, err, want)
		}
	}
}
