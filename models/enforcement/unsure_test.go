package enforcement

import (
	"errors"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
)

// TestAFatalErrorConfirmsNothing compares what the server says after a commit was sent: an ERROR means that it failed, and a FATAL
// one, as at a shutdown, that the outcome is unknown.
func TestAFatalErrorConfirmsNothing(t *testing.T) {
	p := &postgres{conn: &pgconn.PgConn{}} // which is not open
	for severity, confirmed := range map[string]bool{"ERROR": true, "FATAL": false, "PANIC": false} {
		err := p.unsure(&pgconn.PgError{Severity: "translated", SeverityUnlocalized: severity, Code: "57P01"})
		if errors.Is(err, errUnconfirmed) == confirmed {
			t.Errorf("%s: %v", severity, err)
		}
	}
}
