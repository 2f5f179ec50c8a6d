package enforcement

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"tollgate/models"
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

// panickingServer is a ledger whose server panicked after the commit was sent.
type panickingServer struct{ ledger }

func (panickingServer) transact(context.Context, lookups, func(*found) *changes) error {
	p := &postgres{conn: &pgconn.PgConn{}} // not open
	return p.unsure(&pgconn.PgError{SeverityUnlocalized: "PANIC", Code: "XX000"})
}

// TestUnconfirmedCommitIsNeverAnInternalError checks that calls whose commit was not confirmed get
// the 503 that says so, whatever the server's error code is.
func TestUnconfirmedCommitIsNeverAnInternalError(t *testing.T) {
	w := newWorker(&Gate{now: time.Now}, panickingServer{}, newQueue(10))
	var calls []*call
	for _, key := range []string{"a", "b"} {
		r := request{kind: consume, person: Person{Email: key + "@example.com"}, quantity: 1, key: key}
		calls = append(calls, &call{ops: []op{{request: r}}, until: time.Now().Add(time.Minute), done: make(chan ending, 1)})
	}
	w.transact(calls)
	for _, c := range calls {
		if e := (*models.Error)(nil); !errors.As(c.err, &e) || e.Detail != unconfirmed(nil).Detail {
			t.Errorf("a call got %v, want %v", c.err, unconfirmed(nil))
		}
	}
}
