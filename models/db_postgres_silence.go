package models

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
)

// SilencePatience is how long an idle connection that may be lost may take to answer a ping.
const SilencePatience = time.Second

// silence remembers when a connection last got no answer. A network that drops packets affects all
// connections. Without this, each of them would let a call run out of time before it is replaced.
type silence struct{ at atomic.Pointer[time.Time] }

// note records the outcome of a statement or of a round trip.
func (s *silence) note(err error) {
	if errors.Is(err, context.DeadlineExceeded) {
		now := time.Now()
		s.at.Store(&now)
	}
}

// since reports whether a connection got no answer after this time.
func (s *silence) since(used time.Time) bool {
	at := s.at.Load()
	return at != nil && at.After(used)
}

// TraceQueryStart is a part of pgx.QueryTracer.
func (*silence) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	return ctx
}

// TraceQueryEnd notes statements of the pool that got no answer.
func (s *silence) TraceQueryEnd(_ context.Context, _ *pgx.Conn, data pgx.TraceQueryEndData) {
	s.note(data.Err)
}

// shouldPing pings an idle connection of the pool, which takes a round trip, if it may be lost. It
// reports whether the connection is broken: the pool's own ping then fails, and the pool uses
// another connection. A connection that was idle for seconds is only checked for whether the server
// closed it; a firewall needs minutes to drop it.
func (s *silence) shouldPing(ctx context.Context, p stdlib.ShouldPingParams) bool {
	switch {
	case p.IdleDuration > time.Minute || s.since(time.Now().Add(-p.IdleDuration)):
		// The pool's own ping would wait for as long as the caller can.
		ctx, cancel := context.WithTimeout(ctx, SilencePatience)
		defer cancel()
		err := p.Conn.Ping(ctx)
		s.note(err) // connections that were used in the meantime may be lost too
		return err != nil
	case p.IdleDuration < time.Second:
		return false
	default:
		return p.Conn.PgConn().CheckConn() != nil //nolint:staticcheck // that takes no round trip
	}
}

// NoteSilence records the outcome of a round trip on a connection that is not of the pool.
func (db *DB) NoteSilence(err error) { db.server.silence.note(err) }

// SilentSince reports whether a connection to PostgreSQL got no answer after another one was used,
// so that one may be lost too.
func (db *DB) SilentSince(used time.Time) bool { return db.server.silence.since(used) }
