package modelstest

import (
	"context"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// SlowLink is a TCP proxy that delays every byte in each direction, like a long distance. It can
// also fail like a network.
type SlowLink struct {
	target string
	listen net.Listener
	delay  atomic.Int64 // time.Duration

	mu             sync.Mutex
	links          map[*link]struct{}
	cut, mute, end bool
}

// link is one connection through the proxy.
type link struct {
	client, server net.Conn
	// lost means that nothing arrives anymore, not even the end of the connection.
	lost atomic.Bool
}

func (k *link) close() { _, _ = k.client.Close(), k.server.Close() }

// NewSlowLink puts a delay in each direction in front of the database at a URL. It returns the URL
// to use instead.
func NewSlowLink(t testing.TB, address string, delay time.Duration) (*SlowLink, string) {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	l := &SlowLink{target: u.Host, links: map[*link]struct{}{}}
	l.SetDelay(delay)
	if l.listen, err = (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	go l.accept()
	t.Cleanup(func() {
		_ = l.listen.Close()
		l.mu.Lock()
		l.end = true
		l.mu.Unlock()
		l.Break()
	})
	u.Host = l.listen.Addr().String()
	return l, u.String()
}

// SetDelay changes the delay, also of open connections.
func (l *SlowLink) SetDelay(delay time.Duration) { l.delay.Store(int64(delay)) }

// Break closes all connections.
func (l *SlowLink) Break() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for k := range l.links {
		k.close()
	}
	clear(l.links)
}

// Cut closes all connections, and closes new ones immediately until restore.
func (l *SlowLink) Cut() (restore func()) {
	set := func(cut bool) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.cut = cut
	}
	set(true)
	l.Break()
	return func() { set(false) }
}

// Mute loses every byte on all connections, like a network that drops packets: both sides still
// believe that they are connected. After restore, new connections work. The lost ones stay lost.
func (l *SlowLink) Mute() (restore func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mute = true
	for k := range l.links {
		k.lost.Store(true)
	}
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.mute = false
	}
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
		k := &link{client: client, server: server}
		l.mu.Lock()
		if l.cut || l.end {
			k.close()
		}
		k.lost.Store(l.mute)
		l.links[k] = struct{}{}
		l.mu.Unlock()
		go l.carry(k, server, client)
		go l.carry(k, client, server)
	}
}

// carry copies from one end to the other. Each piece, and the end, arrives after the delay.
func (l *SlowLink) carry(k *link, to, from net.Conn) {
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
			due := time.Now().Add(time.Duration(l.delay.Load()))
			if n > 0 {
				pieces <- piece{buffer[:n], due}
			}
			if err != nil {
				pieces <- piece{nil, due}
				return
			}
		}
	}()
	for p := range pieces {
		time.Sleep(time.Until(p.due))
		switch {
		case k.lost.Load():
		case p.bytes == nil:
			_ = to.Close()
		default:
			if _, err := to.Write(p.bytes); err != nil {
				_ = from.Close()
			}
		}
	}
}
