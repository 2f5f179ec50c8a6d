package web

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"tollgate/models"
)

// How a server stops. During the drain it serves as before, and only /readyz reports the stop.
// After that, each answer has Connection: close, the listener soon accepts no more connections, and
// a connection is closed after it was idle for a while, so that a client that has just sent a
// request still gets an answer.
const (
	// stillAccepting is how long new connections are accepted after the drain.
	stillAccepting = 500 * time.Millisecond
	// lingers is how long an idle connection stays open after the drain or its last answer. A client
	// that is about to use it can make one more call. The answer makes the client close the
	// connection.
	lingers = time.Second
	// silence is how long an incomplete request may receive no bytes before it is ended.
	silence = 250 * time.Millisecond
	// sendingPatience is how long an incomplete request may continue to arrive after the drain.
	sendingPatience = time.Second
	// stopTimeout limits everything after the drain: no call takes longer than
	// enforcement.AnswerWithin.
	stopTimeout = 5500 * time.Millisecond
	// stopTick is the interval at which connections are checked during a stop.
	stopTick = 10 * time.Millisecond
	// minHandshake is how long the listener stays open after new connections are dropped. A client that
	// connects in this time waits for a second, so it is short: the kernel lists the connections that are
	// being made, and the listener waits for them.
	minHandshake = 2 * stopTick
	// handshakePatience is how long the listener waits for handshakes that the kernel has begun. It
	// covers one lost packet, which the kernel sends again after a second.
	handshakePatience = 1500 * time.Millisecond
)

// errStopped is the answer to an incomplete request that the stop ended. None of it was recorded.
var errStopped = &models.Error{
	Code: models.CodeUnavailable, Detail: "The server is stopping, and the request was not complete; send it again.",
	RetryAfter: time.Second,
}

// errDraining is the answer of /readyz during a stop.
var errDraining = &models.Error{Code: models.CodeUnavailable, Detail: "The server is stopping.", RetryAfter: time.Second}

// stop is the state of a server's stop and its results.
type stop struct {
	began             time.Time
	draining, closing atomic.Bool
	finished          atomic.Int64 // requests answered since the stop began
	incomplete        int          // requests ended because they did not arrive completely
	idle              int          // connections closed without a request
	cut               int          // connections closed with a request that took too long
}

// serve answers on l until ctx ends, and then stops as described above.
func (s *Server) serve(ctx context.Context, l net.Listener) error {
	tcp, ok := l.(*net.TCPListener)
	if !ok {
		return errors.New("the listener is not for TCP")
	}
	cs := newConnections(tcp)
	server := s.httpServer(s.tracked(s.Handler()))
	server.ConnState, server.ConnContext = changed, withConnection
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(cs) }()
	select {
	case err := <-failed:
		return errors.Join(err, server.Close())
	case <-ctx.Done():
	}
	s.stop.began = time.Now()
	cs.stopping.Store(s.stop.began.UnixNano())
	s.stop.draining.Store(true)
	s.log.Info("stopping", "drain", s.drain.String(), "connections", len(cs.all()))
	select {
	case err := <-failed:
		return errors.Join(err, server.Close())
	case <-time.After(s.drain):
	}
	s.stop.closing.Store(true)
	err := s.closeConnections(cs)
	if closed := server.Close(); !errors.Is(closed, net.ErrClosed) { // the listener is already closed
		err = errors.Join(err, closed)
	}
	return err
}

// tracked records the progress of each request for a stop.
func (s *Server) tracked(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body := r.Body
		if c := connectionOf(r); c != nil {
			c.receive(r)
		}
		if s.stop.closing.Load() {
			w.Header()["Connection"] = []string{"close"}
		}
		next.ServeHTTP(w, r)
		r.Body = body // net/http needs it to close the connection properly if it was not read
		if s.stop.draining.Load() {
			s.stop.finished.Add(1)
		}
	})
}

// closeConnections closes the listener, and then each connection as soon as possible.
func (s *Server) closeConnections(cs *connections) error {
	closing := time.Now()
	accepting := true
	var dropping time.Time // when new connections began to be dropped; zero before that
	tick := time.NewTicker(stopTick)
	defer tick.Stop()
	for now := closing; ; now = <-tick.C {
		switch {
		case !accepting:
		case dropping.IsZero() && now.Sub(closing) >= min(s.drain, stillAccepting):
			// Connections in the middle of a handshake must still be accepted: their clients may have sent a
			// request with it.
			dropping = now
			if err := dropNewConnections(cs.TCPListener); err != nil {
				s.log.Warn("clients that connect while the listener closes are reset", "error", err)
			}
		case !dropping.IsZero() && now.Sub(dropping) >= minHandshake &&
			(now.Sub(dropping) >= handshakePatience || unfinishedHandshakes(cs.TCPListener) == 0) &&
			waitingConnections(cs.TCPListener) == 0: // checked last, because a finished handshake waits there
			accepting = false
			if err := cs.Close(); err != nil {
				return err
			}
		}
		open := cs.all()
		for _, c := range open {
			s.closeConnection(c, closing, now)
		}
		if !accepting && len(open) == 0 {
			return nil
		}
		if now.Sub(closing) >= stopTimeout {
			for _, c := range cs.all() {
				if c.progress() != idle {
					s.stop.cut++
				}
				_ = c.Close()
			}
			_ = cs.Close() // already closed, unless connections were still waiting
			return nil
		}
	}
}

// closeConnection closes a connection if nothing on it can be finished, or if it was idle for long
// enough.
func (s *Server) closeConnection(c *connection, closing, now time.Time) {
	last := time.Unix(0, c.last.Load())
	switch c.progress() {
	case complete:
	case incomplete:
		if last.Before(s.stop.began) {
			last = s.stop.began
		}
		if c.ended.Load() || now.Sub(last) >= silence || now.Sub(closing) >= sendingPatience {
			if !c.ended.Swap(true) {
				s.stop.incomplete++
			}
			c.end()
		}
	case idle:
		if last.Before(closing) {
			last = closing
		}
		if now.Sub(last) >= lingers && !readable(c.TCPConn) {
			s.stop.idle++
			_ = c.SetReadDeadline(time.Unix(1, 0))
		}
	}
}

// wasEnded reports whether the stop ended the request, so that its error is not the client's.
func (s *Server) wasEnded(r *http.Request) bool {
	if !s.stop.closing.Load() {
		return false
	}
	c := connectionOf(r)
	return c != nil && c.ended.Load()
}

// LogStop logs the results of a stop, after everything has ended. Without a stop it logs nothing.
func (s *Server) LogStop() {
	if !s.stop.draining.Load() {
		return
	}
	line := []slog.Attr{
		slog.String("took", time.Since(s.stop.began).Round(time.Millisecond).String()),
		slog.Int64("requests_finished", s.stop.finished.Load()),
		slog.Int("requests_incomplete", s.stop.incomplete), slog.Int("idle_connections", s.stop.idle),
	}
	level := slog.LevelInfo
	if s.stop.cut > 0 {
		level, line = slog.LevelWarn, append(line, slog.Int("requests_cut_off", s.stop.cut))
	}
	s.log.LogAttrs(context.Background(), level, "stopped", line...)
}
