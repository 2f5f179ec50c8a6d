package models

import (
	"database/sql"
	"fmt"
	"net/url"
	"strings"

	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect/sqlitedialect"
	_ "modernc.org/sqlite" // the driver "sqlite"
)

// SQLiteDSN turns "sqlite:FILE" into the driver's address with the settings that the product stands on: a write-ahead
// log, so that readers never wait; every commit on the disk before it is answered; and transactions that take the
// write lock at their start, as a later upgrade of a read lock fails at once instead of waiting.
func SQLiteDSN(address string) (string, error) {
	file := strings.TrimPrefix(address, "sqlite:")
	if file == "" || strings.ContainsAny(file, "?\x00") || file == ":memory:" {
		return "", fmt.Errorf("%w: %q names no file", ErrDatabaseURL, address)
	}
	set := url.Values{
		"_busy_timeout": {"5000"},
		"_journal_mode": {"WAL"},
		"_synchronous":  {"FULL"},
		"_foreign_keys": {"1"},
		"_txlock":       {"immediate"},
		// Random idempotency keys change a page of their index each. Bringing the log's pages home once in 64 MiB and not once in
		// 4 MiB writes each page less often; what is committed is in the log and on the disk either way.
		"_pragma":      {"wal_autocheckpoint(16384)"},
		"_time_format": {"sqlite"},
		"_timezone":    {"UTC"},
	}
	return file + "?" + set.Encode(), nil
}

func (db *DB) openSQLite() error {
	dsn, err := SQLiteDSN(db.URL)
	if err != nil {
		return err
	}
	std, err := sql.Open("sqlite", dsn)
	if err != nil {
		return err
	}
	std.SetMaxOpenConns(8)
	std.SetMaxIdleConns(8)
	db.DB = bun.NewDB(std, sqlitedialect.New())
	return nil
}
