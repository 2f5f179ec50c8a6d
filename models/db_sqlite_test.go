package models_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/uptrace/bun"

	"tollgate/models"
)

// Each connection has the settings on which the gate's speed and guarantees depend.
func TestSQLiteSettings(t *testing.T) {
	db, err := models.Open(t.Context(), "sqlite:"+filepath.Join(t.TempDir(), "settings.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	for pragma, want := range map[string]string{"journal_mode": "wal", "synchronous": "2", "foreign_keys": "1", "busy_timeout": "5000",
		"wal_autocheckpoint": "24576"} {
		var got string
		if err := db.QueryRowContext(t.Context(), "PRAGMA "+pragma).Scan(&got); err != nil || got != want {
			t.Errorf("%s is %s, %v; want %s", pragma, got, err, want)
		}
	}
}

// A file that becomes read-only is unusable, until it is writable again.
func TestReadOnlyFileIsUnusable(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.db")
	db, err := models.Open(t.Context(), "sqlite:"+path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	for mode, unusable := range map[os.FileMode]bool{0o444: true, 0o600: false} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if err := db.CheckFile(0); models.IsFileUnusable(err) != unusable || models.IsUnavailable(err) != unusable {
			t.Errorf("mode %o: %v", mode, err)
		}
	}
}

// The opened file is the one that SQLite itself would open for an address.
func TestSQLiteAddresses(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := errors.Join(os.MkdirAll("deep/in", 0o700), os.Symlink("deep/in", "link")); err != nil {
		t.Fatal(err)
	}
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for address, file := range map[string]string{
		"sqlite:a b.db": "a b.db", "sqlite:c%20d.db": "c%20d.db", "sqlite:e#f.db": "e#f.db", "sqlite:file:g%20h.db": "g h.db",
		"sqlite:file:i.db#j":                     "i.db",
		"sqlite:file://localhost" + wd + "/k.db": "k.db", "sqlite:file://" + wd + "/l.db": "l.db", "sqlite:link/../m.db": "deep/m.db",
		"sqlite:" + wd + "/link/../n.db": "deep/n.db",
	} {
		db, err := models.Open(t.Context(), address)
		if err != nil {
			t.Errorf("%s: %v", address, err)
			continue
		}
		if err := db.Close(); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(file); err != nil {
			t.Errorf("%s: %v", address, err)
		}
	}
	for _, address := range []string{"sqlite:", "sqlite::memory:", "sqlite:file::memory:", "sqlite:x?mode=ro",
		"sqlite:file://elsewhere/x.db", "sqlite:file:%zz"} {
		if _, err := models.Open(t.Context(), address); !errors.Is(err, models.ErrDatabaseURL) {
			t.Errorf("%s: %v", address, err)
		}
	}
}

// Errors of the file or its disk are errors of the database, not of a statement. Callers get 503.
func TestSQLiteUnavailable(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tollgate.db")
	db := openFile(t, path)
	std := db.DB.DB
	conn, err := std.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	exec := func(query string) error {
		_, err := conn.ExecContext(t.Context(), query)
		return err
	}
	const write = `INSERT INTO audit_log (id, at, actor, action, subject) VALUES ('1', '2026-01-01 00:00:00+00:00', '', '', '')`
	if err := exec("PRAGMA query_only = ON"); err != nil {
		t.Fatal(err)
	}
	if err := exec(write); err == nil || !models.IsUnavailable(err) {
		t.Errorf("read-only: %v", err)
	}
	if err := exec("PRAGMA query_only = OFF"); err != nil {
		t.Fatal(err)
	}
	if err := exec("INSERT INTO nothing VALUES (1)"); err == nil || models.IsUnavailable(err) {
		t.Errorf("an invalid statement: %v", err)
	}
	if err := os.WriteFile(path+".text", bytes.Repeat([]byte("no database "), 100), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := models.Open(t.Context(), "sqlite:"+path+".text"); !models.IsUnavailable(err) {
		t.Errorf("a file that is not a database: %v", err)
	}

	// If the file is missing, commits and new connections fail.
	if err := db.CheckFile(0); err != nil {
		t.Error(err)
	}
	if err := os.Rename(path, path+".away"); err != nil {
		t.Fatal(err)
	}
	if err := db.CheckFile(0); !models.IsFileUnusable(err) || !models.IsUnavailable(err) {
		t.Errorf("the missing file: %v", err)
	}
	other, err := models.Open(t.Context(), "sqlite:"+path+"2") // takes long enough for the hook to check again
	if err != nil {
		t.Fatal(err)
	}
	_ = other.Close()
	if err := exec(write); !models.IsFileUnusable(err) || !models.IsUnavailable(err) {
		t.Errorf("a commit without the file: %v", err)
	}
	pool := db.SQLitePool()
	defer func() { _ = pool.Close() }()
	if err := pool.PingContext(t.Context()); !models.IsFileUnusable(err) {
		t.Errorf("a new connection without the file: %v", err)
	}
	if err := db.InTx(t.Context(), func(ctx context.Context,
		tx bun.Tx) error {
		_, err := tx.ExecContext(ctx, write)
		return err
	}); !models.IsFileUnusable(err) {
		t.Errorf("a transaction without the file: %v", err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("a file was created")
	}
	if err := os.Rename(path+".away", path); err != nil {
		t.Fatal(err)
	}
	if err := exec(write); err != nil {
		t.Errorf("after the file is restored: %v", err)
	}
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
}
