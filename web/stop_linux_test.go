package web

import (
	"context"
	"errors"
	"net"
	"net/http"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tollgate/models/modelstest"
)

// A client whose packets are late when the server stops gets its answer: the listener closes only
// after all handshakes have ended. The server waits for a limited time, so the test is repeated if
// the machine was too slow.
func TestAHandshakeDuringAStopIsFinished(t *testing.T) {
	for range 10 {
		if late, err := handshakeDuringAStop(t); err == nil {
			return
		} else if !late {
			t.Fatalf("the client got no answer: %v", err)
		}
	}
	t.Fatal("the machine is too slow for this test")
}

// handshakeDuringAStop returns the error of the client. late means that the packets may have been
// later than the server waits: the client's kernel sends the next one a second after the first.
func handshakeDuringAStop(t *testing.T) (late bool, failed error) {
	f, other := newFixture(t, modelstest.SQLite(t)), newFixture(t, modelstest.SQLite(t))
	l, err := Listen(t.Context(), "--listen", "127.0.0.1:0")
	must(t, err)
	listener := l.(*net.TCPListener)
	ctx, stop := context.WithCancel(t.Context())
	stopped := make(chan error, 1)
	go func() { stopped <- f.web.serve(ctx, l) }()

	// The client's kernel drops the server's answer.
	var deaf syscall.RawConn
	nothing := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: 0}}
	dialer := net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
		deaf = c
		var failed error
		err := c.Control(func(fd uintptr) {
			failed = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &nothing[0]})
		})
		if err != nil {
			return err
		}
		return failed
	}}
	client := &http.Client{Transport: &http.Transport{DialContext: dialer.DialContext}, Timeout: 10 * time.Second}
	answered := make(chan error, 1)
	go func() {
		q, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+l.Addr().String()+"/healthz", http.NoBody)
		if err != nil {
			answered <- err
			return
		}
		r, err := client.Do(q)
		if err == nil {
			err = r.Body.Close()
		}
		answered <- err
	}()
	for unfinishedHandshakes(listener) == 0 {
		select {
		case err := <-answered:
			t.Fatalf("the client was answered without a handshake: %v", err)
		case <-time.After(time.Millisecond):
		}
	}
	idle, err := Listen(t.Context(), "--listen", "127.0.0.1:0")
	must(t, err)
	begin := time.Now()
	stop()
	for !f.web.stop.closing.Load() {
		<-time.After(time.Millisecond)
	}
	// The other server has no handshake, and stops later. Without its handshake, the first server
	// would have closed its listener by the end of that.
	must(t, other.web.serve(ctx, idle))
	must(t, deaf.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0) }))
	late = time.Since(begin) >= handshakePatience/2
	failed = <-answered
	must(t, <-stopped)
	return late, failed
}

// The server's listener accepts the filter that drops new connections. They get no answer and are
// not reset.
func TestNewConnectionsAreDropped(t *testing.T) {
	l, err := Listen(t.Context(), "--listen", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { _ = l.Close() })
	must(t, dropNewConnections(l.(*net.TCPListener)))
	dialer := net.Dialer{Timeout: 100 * time.Millisecond}
	c, err := dialer.DialContext(t.Context(), "tcp", l.Addr().String())
	if err == nil {
		_ = c.Close()
	}
	var failed net.Error
	if !errors.As(err, &failed) || !failed.Timeout() {
		t.Errorf("a new connection ended with %v, want a timeout", err)
	}
}
