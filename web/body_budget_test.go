package web

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"tollgate/models/modelstest"
)

// sender sends the header of a request and part of its body.
type sender struct {
	net.Conn
	t *testing.T
}

func (f *fixture) sender(t *testing.T, head string, announced int, body string) *sender {
	t.Helper()
	conn, err := new(net.Dialer).DialContext(context.Background(), "tcp", f.server.Listener.Addr().String())
	must(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	must(t, conn.SetDeadline(time.Now().Add(30*time.Second)))
	_, err = fmt.Fprintf(conn, "%s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%s\r\n%s",
		strings.SplitN(head, "\n", 2)[0], announced, strings.SplitN(head+"\n", "\n", 2)[1], body)
	must(t, err)
	return &sender{conn, t}
}

// status returns the status of the answer.
func (s *sender) status() string {
	s.t.Helper()
	line := make([]byte, len("HTTP/1.1 200"))
	_, err := io.ReadFull(s, line)
	must(s.t, err)
	return string(line[len("HTTP/1.1 "):])
}

func (b *bodyBudget) leaves() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.left
}

// until waits until the share has this many bytes left.
func (b *bodyBudget) until(t *testing.T, size int64) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); b.leaves() != size; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d bytes are left of the share, want %d", b.leaves(), size)
		}
	}
}

// TestSlowBatchesDoNotHoldCalls uses up the memory for batches with slow clients. Other batches are
// refused immediately, and calls are answered. When the clients disconnect, there is memory again.
func TestSlowBatchesDoNotHoldCalls(t *testing.T) {
	f := newFixture(t, modelstest.SQLite(t))
	head := "POST /v1/events\nAuthorization: Bearer " + f.key + "\r\n"
	part := strings.Repeat(" ", 300<<10)
	const each = 2*maxEventsBody - 2 // the announced body, twice
	var slow []*sender
	for left := int64(batchBodies); left >= each+2*256<<10; { // memory to grow
		slow = append(slow, f.sender(t, head, maxEventsBody-2, part))
		left -= each
		f.web.batchBodies.until(t, left)
	}
	if status := f.sender(t, head, maxEventsBody-2, part).status(); status != "503" {
		t.Errorf("another batch got %s, want 503", status)
	}
	a := f.post("/v1/events", `{"events": [`+strings.Repeat(" ", maxEventsBody-100)+`]}`)
	a.want(t, http.StatusServiceUnavailable, map[string]any{"code": "overloaded"})
	if a.header.Get("Retry-After") != "1" {
		t.Errorf("Retry-After is %q", a.header.Get("Retry-After"))
	}
	f.post("/v1/consume", fmt.Sprintf(ada, 1, "k1")).want(t, http.StatusOK, nil)
	f.post("/v1/consume", fmt.Sprintf(ada, 1, "k2")+strings.Repeat(" ", maxBody/2)).want(t, http.StatusOK, nil)
	f.post("/v1/events",
		`{"events": [{"email": "ada@example.com", "quantity": 1, "idempotency_key": "k3", "occurred_at": "2026-11-23T11:00:00Z"}]}`).
		want(t, http.StatusOK, nil)
	for _, s := range slow {
		must(t, s.Close())
	}
	f.web.batchBodies.until(t, batchBodies)
	f.web.callBodies.until(t, callBodies)
}

// TestSlowStrangersAreEnded uses up the memory for webhooks and forms. A body that arrives in one
// piece is still accepted: the oldest unfinished one is ended for it.
func TestSlowStrangersAreEnded(t *testing.T) {
	f := withWebhooks(t, modelstest.SQLite(t), &oneSubscription{start: time.Now()})
	head := fmt.Sprintf("POST %s\nStripe-Signature: t=%d,v1=%064x\r\n", webhookPath, f.clock().Unix(), 1)
	const size = 3 * (webhookLimit - 1)
	part := strings.Repeat(" ", 300<<10)
	var slow []*sender
	for left := int64(strangerBodies); left >= size+3*256<<10; { // memory to grow
		slow = append(slow, f.sender(t, head, webhookLimit-2, part))
		left -= size
		f.web.strangerBodies.until(t, left)
	}
	payload := `{"id": "evt_1", "object": "event", "type": "charge.succeeded", "created": 1` + strings.Repeat(" ", webhookLimit/2) + `}`
	for range 2 {
		f.webhook(payload, f.clock()).want(t, http.StatusOK, nil)
	}
	if status := slow[0].status(); status != "503" {
		t.Errorf("the oldest got %s, want 503", status)
	}
	for _, s := range slow {
		must(t, s.Close())
	}
	f.web.strangerBodies.until(t, strangerBodies)
}

// TestLargeBuffersAreNotReused reads a call's largest body, and then a small one. A pool with large
// buffers would hold one for each simultaneous call there ever was.
func TestLargeBuffersAreNotReused(t *testing.T) {
	f := newFixture(t, modelstest.SQLite(t))
	for range 20 {
		f.post("/v1/check", `{"email": "ada@example.com"}`+strings.Repeat(" ", maxBody-100)).want(t, http.StatusOK, nil)
		b := bodies.Get().(*body)
		if n := b.raw.Cap(); n > freeBody {
			t.Fatalf("the pool has a buffer of %d bytes", n)
		}
	}
}

// TestSlowFormsDoNotHoldCalls sends part of a form as a signed-in person. It takes no memory from
// calls.
func TestSlowFormsDoNotHoldCalls(t *testing.T) {
	f := newFixture(t, modelstest.SQLite(t))
	ada := f.signedIn("ada@example.com")
	f.sender(t, "POST /usage/spend-limit\nCookie: __Host-tollgate="+ada.session()+"\r\n", formLimit, strings.Repeat(" ", 2*freeBody))
	f.web.strangerBodies.until(t, strangerBodies-4*(formLimit+1))
	f.web.callBodies.until(t, callBodies)
}

// TestABurstOfWebhooks sends three times as many bytes at once as there is memory.
func TestABurstOfWebhooks(t *testing.T) {
	f := withWebhooks(t, modelstest.SQLite(t), &oneSubscription{start: time.Now()})
	const size = 100 << 10
	var all sync.WaitGroup
	for i := range strangerBodies / size {
		all.Go(func() {
			payload := fmt.Sprintf(`{"id": "evt_%d", "object": "event", "type": "charge.succeeded", "created": 1%s}`, i, strings.Repeat(" ", size))
			f.webhook(payload, f.clock()).want(t, http.StatusOK, nil)
		})
	}
	all.Wait()
	f.web.strangerBodies.until(t, strangerBodies)
}

// TestABodyWaitsForRoom fills a share. Another body waits while the first one is handled or still
// arrives quickly, and ends it only if it is slow.
func TestABodyWaitsForRoom(t *testing.T) {
	const size = 2 * freeBody
	for name, test := range map[string]struct {
		whole   bool          // the first body has arrived
		closed  time.Duration // when it gives its memory back; 0 means never
		ended   bool          // for the second one
		waits   time.Duration // how long the second one waits
		refused bool
	}{
		"the first is handled":      {whole: true, closed: time.Second, waits: time.Second},
		"the first arrives quickly": {closed: slowBody / 2, waits: slowBody / 2},
		"the first waits for a CPU": {closed: 400 * time.Millisecond, waits: 400 * time.Millisecond},
		"the first is slow":         {ended: true, waits: slowBody},
		"the first never ends":      {whole: true, waits: roomPatience, refused: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBodyBudget(size, true)
				first, ended := &bodyLease{budget: b, copies: 1}, false
				first.end = func() {
					ended = true
					go first.close()
				}
				must(t, first.take(size))
				if test.whole {
					first.whole()
				}
				if test.closed > 0 {
					time.AfterFunc(test.closed, first.close)
				}
				begun := time.Now()
				err := (&bodyLease{budget: b, copies: 1}).take(size)
				if waited := time.Since(begun); (err != nil) != test.refused || ended != test.ended || waited != test.waits {
					t.Errorf("the second one waited %s, %v; the first was ended: %t", waited, err, ended)
				}
			})
		})
	}
}
