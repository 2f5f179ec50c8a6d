package models

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"io"
	"net"

	"github.com/jackc/pgx/v5/pgconn"
	"modernc.org/sqlite"
)

// SQLite's result codes (https://www.sqlite.org/rescode.html).
const (
	sqlitePerm     = 3
	sqliteBusy     = 5
	sqliteLocked   = 6
	sqliteNoMem    = 7
	sqliteReadOnly = 8
	sqliteIOErr    = 10
	sqliteCorrupt  = 11
	sqliteFull     = 13
	sqliteCantOpen = 14
	sqliteProtocol = 15
	sqliteNotADB   = 26

	sqliteCommitHook = 531
	sqlitePrimaryKey = 1555
	sqliteUnique     = 2067
)

// IsRetryable reports whether a transaction changed nothing and may succeed if it is run again
// unchanged.
func IsRetryable(err error) bool {
	switch sqlState(err) {
	case "40001", "40P01", "55P03":
		return true
	}
	code := sqliteCode(err)
	return code == sqliteBusy || code == sqliteLocked
}

// IsLockTimeout reports whether a transaction waited too long for a lock.
func IsLockTimeout(err error) bool { return sqlState(err) == "55P03" }

// IsDuplicate reports whether a row with the same unique key exists. The transaction changed
// nothing.
func IsDuplicate(err error) bool {
	if sqlState(err) == "23505" {
		return true
	}
	code := sqliteFullCode(err)
	return code == sqliteUnique || code == sqlitePrimaryKey
}

// IsUnavailable reports whether the database is unreachable, full or stalled, as opposed to an
// invalid statement.
func IsUnavailable(err error) bool {
	if err == nil {
		return false
	}
	if IsRetryable(err) || errors.Is(err, context.DeadlineExceeded) {
		return true
	}
	if state := sqlState(err); state != "" {
		switch state[:2] {
		case "08", "53", "57", "58", "25": // connection, resources, operator intervention, system, read-only
			return true
		}
		return false
	}
	if IsFileUnusable(err) {
		return true
	}
	if code := sqliteCode(err); code != 0 {
		switch code {
		case sqlitePerm, sqliteNoMem, sqliteReadOnly, sqliteIOErr, sqliteCorrupt, sqliteFull, sqliteCantOpen, sqliteProtocol, sqliteNotADB:
			return true // the file or its disk; a statement that is wrong has other codes
		}
		return false
	}
	return pgconn.SafeToRetry(err) || errors.Is(err, sql.ErrConnDone) || errors.Is(err, sql.ErrTxDone) || isNetwork(err)
}

func sqlState(err error) string {
	var pg interface{ SQLState() string }
	if errors.As(err, &pg) {
		return pg.SQLState()
	}
	return ""
}

// sqliteCode returns SQLite's primary result code, and sqliteFullCode the extended one; 0 if the
// error is not from SQLite. errNoTurn has the code of SQLite's own lock.
func sqliteCode(err error) int { return sqliteFullCode(err) & 0xff }

func sqliteFullCode(err error) int {
	var e *sqlite.Error
	switch {
	case errors.As(err, &e):
		return e.Code()
	case errors.Is(err, errNoTurn):
		return sqliteBusy
	}
	return 0
}

// isNetwork reports whether a connection to the database failed or broke.
func isNetwork(err error) bool {
	var netErr net.Error
	var connectErr *pgconn.ConnectError
	return errors.As(err, &netErr) || errors.As(err, &connectErr) || errors.Is(err, io.EOF) ||
		errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) || errors.Is(err, driver.ErrBadConn)
}

// IsCanceled reports whether a query ended because its context was canceled, as when the client is
// gone.
func IsCanceled(err error) bool {
	return errors.Is(err, context.Canceled) || sqlState(err) == "57014" || sqliteCode(err) == 9 // SQLITE_INTERRUPT
}

// IsIOError reports whether SQLite could not read or write its file.
func IsIOError(err error) bool { return sqliteCode(err) == 10 } // SQLITE_IOERR

// IsInvalidText reports whether PostgreSQL refused a text with a NUL or invalid UTF-8. Code that
// reads input refuses such texts itself; this catches the cases that it misses.
func IsInvalidText(err error) bool { return sqlState(err) == "22021" || sqlState(err) == "22P05" }
