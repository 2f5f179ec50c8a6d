package models

import (
	"context"
	"errors"
)

// IsCanceled reports whether a query ended because its context was canceled, as when the client is gone.
func IsCanceled(err error) bool {
	return errors.Is(err, context.Canceled) || sqlState(err) == "57014" || sqliteCode(err) == 9 // SQLITE_INTERRUPT
}

// IsIOError reports whether SQLite could not read or write its file.
func IsIOError(err error) bool { return sqliteCode(err) == 10 } // SQLITE_IOERR

// IsInvalidText reports whether PostgreSQL refused a text that has a NUL or is not UTF-8. Whatever takes texts from outside
// refuses these itself; this is for one that is forgotten.
func IsInvalidText(err error) bool { return sqlState(err) == "22021" || sqlState(err) == "22P05" }
