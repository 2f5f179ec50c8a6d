package models

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect/sqlitedialect"
	"modernc.org/sqlite" // and the driver "sqlite"
)

// sqliteStart is how long a start waits for a lock of another program on the file.
const sqliteStart = 10 * time.Second

// logPages is the size of the write-ahead log in pages (96 MiB) from which SQLite itself tries a
// checkpoint in each commit. Tollgate makes a checkpoint earlier, after a commit (turnConn and the
// gate), but readers can keep the log from being reset. The log is this large because each random
// idempotency key changes another page of its index: with few checkpoints, each page is written to
// the file less often. Committed data is in the log on disk either way.
const logPages = 24576

// sqlitePath returns the absolute path of a "sqlite:FILE" address.
func sqlitePath(address string) (string, error) {
	file, uri := strings.CutPrefix(strings.TrimPrefix(address, "sqlite:"), "file:")
	if strings.ContainsAny(file, "?\x00") {
		file = ""
	}
	if uri { // as SQLite reads it; source: https://www.sqlite.org/uri.html
		file, _, _ = strings.Cut(file, "#")
		if rest, ok := strings.CutPrefix(file, "//"); ok {
			host, path, _ := strings.Cut(rest, "/")
			if file = "/" + path; host != "" && host != "localhost" {
				file = ""
			}
		}
		var err error
		if file, err = url.PathUnescape(file); err != nil || strings.Contains(file, "\x00") {
			file = ""
		}
	}
	if file == "" || file == ":memory:" {
		return "", fmt.Errorf("%w: %q names no file", ErrDatabaseURL, address)
	}
	if filepath.IsAbs(file) {
		return file, nil
	}
	wd, err := os.Getwd()
	// Do not use filepath.Abs, which assumes that the folder before ".." is not a symbolic link.
	return wd + string(filepath.Separator) + file, err
}

// sqliteDSN returns the driver's address of an absolute path, with the settings that Tollgate
// needs: a write-ahead log, so that readers never wait; a sync at every commit; and transactions
// that take the write lock when they begin, because upgrading a read lock later fails at once
// instead of waiting.
func sqliteDSN(path string) string {
	set := url.Values{
		"mode":          {"rw"}, // never create a file: only createSQLite does
		"_busy_timeout": {"5000"},
		"_journal_mode": {"WAL"},
		"_synchronous":  {"FULL"},
		"_foreign_keys": {"1"},
		"_txlock":       {"immediate"},
		"_pragma":       {fmt.Sprintf("wal_autocheckpoint(%d)", logPages)},
		"_time_format":  {"sqlite"},
		"_timezone":     {"UTC"},
	}
	u := url.URL{Scheme: "file", Path: filepath.ToSlash(path), RawQuery: set.Encode()}
	return u.String()
}

func (db *DB) openSQLite(ctx context.Context) error {
	path, err := sqlitePath(db.URL)
	if err != nil {
		return err
	}
	if err := createSQLite(path); err != nil {
		return err
	}
	if db.file, err = newSQLiteFile(path); err != nil {
		return inWords(err)
	}
	if err := writableSQLite(path); err != nil {
		return err
	}
	base, err := sqlite.NewConnector(sqliteDSN(path))
	if err != nil {
		return err
	}
	db.connector = &sqliteConnector{Connector: base, file: db.file, turns: newWriteTurns()}
	std := db.SQLitePool()
	std.SetMaxOpenConns(8)
	std.SetMaxIdleConns(8)
	db.DB = bun.NewDB(std, sqlitedialect.New())
	if err := db.keep(ctx); err != nil {
		return errors.Join(explainSQLite(path, err), db.Close())
	}
	return nil
}

// SQLitePool returns a new pool of connections to the open file. It creates no file, does not open
// a file that replaced it, and commits nothing after the file was replaced or deleted.
func (db *DB) SQLitePool() *sql.DB { return sql.OpenDB(db.connector) }

// keep opens a connection that stays open as long as the database does. Until then, SQLite does not
// delete or create -wal and -shm files, whose identity is checked like the file's own.
func (db *DB) keep(ctx context.Context) (err error) {
	db.keeperPool = db.SQLitePool()
	deadline := time.Now().Add(sqliteStart)
	// Changing the journal mode does not wait for a lock, so processes that start at once on a new
	// file may find it busy.
	for {
		if db.keeper, err = db.keeperPool.Conn(ctx); err == nil || sqliteCode(err) != sqliteBusy || time.Now().After(deadline) {
			break
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(10 * time.Millisecond):
		}
	}
	if err != nil {
		return err
	}
	var tables int
	if err := db.keeper.QueryRowContext(ctx, "SELECT COUNT(*) FROM sqlite_master").Scan(&tables); err != nil {
		return err
	}
	return db.file.keep()
}

// sqliteConnector opens connections to one file and to no other.
type sqliteConnector struct {
	driver.Connector
	file  *sqliteFile
	turns *writeTurns
}

// Connect checks the file before SQLite opens it, so that it changes nothing in another file, and
// again afterwards.
func (c *sqliteConnector) Connect(ctx context.Context) (driver.Conn, error) {
	if err := c.file.check(); err != nil {
		return nil, err
	}
	conn, err := c.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	if err := c.file.check(); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	whole, ok := conn.(sqliteConn)
	if !ok {
		return nil, errors.Join(errors.New("the SQLite driver lacks an interface"), conn.Close())
	}
	whole.RegisterCommitHook(func() int32 {
		// Code that answers after a commit checks again. This check prevents all other writes to a
		// file that is gone.
		if c.file.checkWithin(fileCheckAge) != nil {
			return 1 // SQLite rolls the transaction back
		}
		return 0
	})
	return &turnConn{sqliteConn: whole, turns: c.turns}, nil
}

// createSQLite creates the file if it is missing, readable only by its owner. SQLite gives the -wal
// and -shm files the same mode. It does not create a file next to files of a deleted database:
// SQLite would delete their content or mix it into the new file.
func createSQLite(path string) error {
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target // the others are next to it
	}
	info, err := os.Stat(path)
	switch {
	case err == nil && info.IsDir():
		return errors.New("is a directory; name a file in --database")
	case err == nil && info.Size() > 0:
		return nil
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return inWords(err)
	}
	missing := err != nil
	if left := leftover(path, missing); left != "" {
		// Another process may have created the file in the meantime.
		if info, err := os.Stat(path); err == nil && info.Size() > 0 {
			return nil
		}
		state := "the file is empty"
		if missing {
			state = "no such file"
		}
		return fmt.Errorf("%s, but %q still exists and may have the newest events; put the database file back next to it, or move the "+
			"leftover file away to begin with an empty database", state, left)
	}
	if !missing {
		return nil
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600) //nolint:gosec // the operator names the file
	switch {
	case err == nil:
		return f.Close()
	case errors.Is(err, fs.ErrExist):
		if _, err := os.Stat(path); err == nil {
			return nil // by another process, just now
		}
		return errors.New("a symbolic link to a file that does not exist; create that file or change --database")
	case errors.Is(err, fs.ErrNotExist):
		return errors.New("no such directory; create it or change --database")
	}
	return inWords(err)
}

// writableSQLite returns an error unless both the file and its directory, in which SQLite creates
// two more files, are writable. SQLite itself would open such a file read-only and leave read-only
// files behind.
func writableSQLite(path string) error {
	file, err := filepath.EvalSymlinks(path)
	if err != nil {
		return inWords(err)
	}
	for _, at := range []struct{ path, what string }{{file, "file"}, {filepath.Dir(file), "directory"}} {
		if err := writable(at.path); err != nil {
			return &explained{words: fmt.Sprintf("the %s is read-only (%s); make the file and its directory writable or change --database",
				at.what, err), cause: err}
		}
	}
	return nil
}

// isCreatable reports whether Open would create the file of a SQLite address.
func isCreatable(address string) bool {
	path, err := sqlitePath(address)
	if err != nil {
		return false
	}
	_, missing := os.Lstat(path)
	_, noFolder := os.Stat(filepath.Dir(path))
	return errors.Is(missing, fs.ErrNotExist) && noFolder == nil && leftover(path, true) == ""
}

// leftover returns the path of a file next to the database that may contain some of its data; empty
// if there is none. Next to an empty file, that is a log with content; a journal belongs to a
// process that is creating the database, or was killed while it did.
func leftover(path string, missing bool) string {
	for _, suffix := range []string{"-wal", "-shm", "-journal"} {
		if info, err := os.Lstat(path + suffix); err == nil && (missing || suffix == "-wal" && info.Size() > 0) {
			return path + suffix
		}
	}
	return ""
}

// inWords returns the cause of a file error without the path, which the message already contains.
func inWords(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return errors.New("no such file")
	case errors.Is(err, fs.ErrPermission):
		return errors.New("permission denied; make the file and its directory writable or change --database")
	}
	if path := (*fs.PathError)(nil); errors.As(err, &path) {
		return path.Err
	}
	return err
}

// explainSQLite returns an error that explains why a file could not be opened.
func explainSQLite(path string, err error) error {
	var words string
	switch sqliteCode(err) {
	case sqliteReadOnly:
		words = "the file is read-only; make it and its directory writable or change --database"
	case sqliteCantOpen, sqlitePerm:
		words = "permission denied; make the file and its directory readable and writable or change --database"
		if info, statErr := os.Stat(path); statErr != nil {
			return inWords(statErr)
		} else if !info.Mode().IsRegular() {
			words = "not a regular file; change --database"
		}
	case sqliteNotADB:
		words = "not a SQLite database; change --database"
	case sqliteCorrupt:
		words = "the file is damaged; restore a backup"
	case sqliteFull:
		words = "the disk is full"
	case sqliteIOErr:
		words = "the disk reports an error while reading or writing"
	case sqliteBusy, sqliteLocked:
		words = "another program holds a lock on the file; close that program and try again"
	default:
		return err
	}
	return &explained{words: words, cause: err}
}

// explained is an error with a readable text whose cause is still available to errors.As.
type explained struct {
	words string
	cause error
}

func (e *explained) Error() string { return e.words }
func (e *explained) Unwrap() error { return e.cause }
