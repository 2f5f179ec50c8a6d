package modelstest

import (
	"context"
	"net"
	"net/url"
	"sync"
	"testing"
	"time"
)

// SlowLink is a TCP proxy that delays every byte in each direction, like a long distance.
type SlowLink struct {
	delay  time.Duration
	target string
	listen net.Listener

	mu    sync.Mutex
	conns map[net.Conn]bool
	done  bool
}

// NewSlowLink puts a delay in each direction in front of the database at a URL. It returns the URL
// to use instead.
func NewSlowLink(t testing.TB, address string, delay time.Duration) (*SlowLink, string) {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	l := &SlowLink{delay: delay, target: u.Host, conns: map[net.Conn]bool{}}
	if l.listen, err = (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	go l.accept()
	t.Cleanup(func() {
		_ = l.listen.Close()
		l.mu.Lock()
		l.done = true
		l.mu.Unlock()
		l.Break()
	})
	u.Host = l.listen.Addr().String()
	return l, u.String()
}

// Break closes all connections.
func (l *SlowLink) Break() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.conns {
		_ = c.Close()
	}
	clear(l.conns)
}

func (l *SlowLink) accept() {
	for {
		client, err := l.listen.Accept()
		if err != nil {
			return
		}
		server, err := (&net.Dialer{}).DialContext(context.Background(), "tcp", l.target)
		if err != nil {
			_ = client.Close()
			continue
		}
		l.mu.Lock()
		if l.done {
			_, _ = client.Close(), server.Close()
		}
		l.conns[client], l.conns[server] = true, true
		l.mu.Unlock()
		go l.carry(server, client)
		go l.carry(client, server)
	}
}

// carry copies from one end to the other. Each piece, and the end, arrives after the delay.
func (l *SlowLink) carry(to, from net.Conn) {
	type piece struct {
		bytes []byte
		due   time.Time
	}
	pieces := make(chan piece, 4096)
	go func() {
		defer close(pieces)
		for {
			buffer := make([]byte, 32<<10)
			n, err := from.Read(buffer)
			if n > 0 {
				pieces <- piece{buffer[:n], time.Now().Add(l.delay)}
			}
			if err != nil {
				pieces <- piece{nil, time.Now().Add(l.delay)}
				return
			}
		}
	}()
	for p := range pieces {
		time.Sleep(time.Until(p.due))
		if p.bytes == nil {
			_ = to.Close()
			continue
		}
		if _, err := to.Write(p.bytes); err != nil {
			_ = from.Close()
		}
	}
}
