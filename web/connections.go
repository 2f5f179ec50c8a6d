package web

import (
	"context"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// connections is a listener that tracks its open connections and the progress of the request on
// each. When the server stops, it must end incomplete requests, finish complete ones, and not close
// a connection on which a request is just arriving. net/http calls a connection idle until the
// whole header has arrived.
type connections struct {
	*net.TCPListener
	// stopping is when the stop began, in Unix nanoseconds; 0 before that. Reads are timed only during
	// a stop.
	stopping atomic.Int64

	mu   sync.Mutex
	open map[*connection]struct{}
}

func newConnections(l *net.TCPListener) *connections {
	return &connections{TCPListener: l, open: map[*connection]struct{}{}}
}

// Accept returns the next connection, which is tracked until it is closed.
func (cs *connections) Accept() (net.Conn, error) {
	tcp, err := cs.AcceptTCP()
	if err != nil {
		return nil, err
	}
	c := &connection{TCPConn: tcp, of: cs}
	c.touch()
	c.body.of = c
	cs.mu.Lock()
	cs.open[c] = struct{}{}
	cs.mu.Unlock()
	return c, nil
}

// all returns the open connections.
func (cs *connections) all() []*connection {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	list := make([]*connection, 0, len(cs.open))
	for c := range cs.open {
		list = append(list, c)
	}
	return list
}

// connection is a client's connection.
type connection struct {
	*net.TCPConn
	of   *connections
	body trackedBody

	active  atomic.Bool  // a handler is running
	begun   atomic.Bool  // bytes have arrived since the last answer
	reading atomic.Bool  // a read is waiting for bytes
	unread  atomic.Bool  // the request's body has not been read to its end
	last    atomic.Int64 // when it was accepted, answered or, during a stop, received bytes: Unix nanoseconds
	ended   atomic.Bool  // by the stop, because its request was incomplete
}

func (c *connection) touch() { c.last.Store(time.Now().UnixNano()) }

// Read records that a request has started to arrive.
func (c *connection) Read(p []byte) (int, error) {
	c.reading.Store(true)
	n, err := c.TCPConn.Read(p)
	if n > 0 {
		c.begun.Store(true)
		if c.of.stopping.Load() != 0 {
			c.touch()
		}
	}
	c.reading.Store(false)
	return n, err
}

// Close closes the connection and stops tracking it.
func (c *connection) Close() error {
	c.of.mu.Lock()
	delete(c.of.open, c)
	c.of.mu.Unlock()
	return c.TCPConn.Close()
}

// changed is net/http's hook for changes of a connection's state.
func changed(conn net.Conn, state http.ConnState) {
	c, ok := conn.(*connection)
	if !ok {
		return
	}
	switch state {
	case http.StateActive:
		c.active.Store(true)
	case http.StateIdle:
		c.begun.Store(false)
		c.touch()
		c.active.Store(false)
	}
}

// trackedBody records when the body of a request was read to its end. A connection has one request
// at a time.
type trackedBody struct {
	io.ReadCloser
	of *connection
}

func (b *trackedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		b.of.unread.Store(false)
	}
	return n, err
}

type connectionKey struct{}

// withConnection lets handlers find the connection of their request.
func withConnection(ctx context.Context, conn net.Conn) context.Context {
	return context.WithValue(ctx, connectionKey{}, conn)
}

func connectionOf(r *http.Request) *connection {
	c, _ := r.Context().Value(connectionKey{}).(*connection)
	return c
}

// receive is called with each request before its handler runs.
func (c *connection) receive(r *http.Request) {
	body := r.ContentLength != 0
	if body {
		c.body.ReadCloser = r.Body
		r.Body = &c.body
	}
	if c.unread.Load() != body {
		c.unread.Store(body)
	}
}

// progress is the state of the request on a connection.
type progress int

const (
	idle       progress = iota // no byte of a request has arrived
	incomplete                 // its header or body has not arrived completely
	complete
)

func (c *connection) progress() progress {
	switch {
	case c.active.Load():
		if c.unread.Load() && c.reading.Load() {
			return incomplete
		}
		return complete
	case c.begun.Load():
		return incomplete
	default:
		return idle
	}
}

// end makes the connection's reads fail, so that net/http closes it: immediately if no request is
// complete, otherwise after the handler has answered that the body is missing. net/http may set a
// later deadline at the same time, so the caller repeats this.
func (c *connection) end() { _ = c.SetReadDeadline(time.Unix(1, 0)) }
