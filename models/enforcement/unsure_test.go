package enforcement

import (
	"errors"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
)

// TestFatalErrorConfirmsNothing checks errors of the server after a commit was sent. An ERROR means
// that the commit failed. After a FATAL error, such as at a shutdown, the outcome is unknown.
func TestFatalErrorConfirmsNothing(t *testing.T) {
	p := &postgres{conn: &pgconn.PgConn{}} // not open
	for severity, confirmed := range map[string]bool{"ERROR": true, "FATAL": false, "PANIC": false} {
		err := p.unsure(&pgconn.PgError{Severity: "translated", SeverityUnlocalized: severity, Code: "57P01"})
		if errors.Is(err, errUnconfirmed) == confirmed {
			t.Errorf("%s: %v", severity, err)
		}
	}
}
