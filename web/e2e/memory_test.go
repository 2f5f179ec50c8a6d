//go:build linux

package e2e_test

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"tollgate/models"
)

const (
	// loadConnections send loadBody bytes each, at the same time.
	loadConnections = 1000
	loadBody        = 1 << 20
	// loadMemory is the most resident memory that the process may use.
	loadMemory = 200 << 20
	// loadStall is how long slow senders wait before they send most of their body, and loadPatience
	// how long one connection may take.
	loadStall    = 700 * time.Millisecond
	loadPatience = 60 * time.Second
)

// TestMemoryUnderLoad sends large bodies on many connections at the same time, most of them without
// a key. The process must not use more memory, and must decide the app's calls all the time.
func TestMemoryUnderLoad(t *testing.T) {
	t.Parallel()
	s, _ := newStripeSite(t, sqliteDatabase(t), 1)
	p := s.servers[0]
	_, emails := s.business("TLOAD", 10)
	now := time.Now()
	unknownKey := models.NewKey()
	event := `{"email":"` + emails[0] + `","quantity":1,"idempotency_key":"never","occurred_at":"` +
		now.UTC().Format(time.RFC3339) + `","more":"`
	events := []byte(`{"events":[` + event + strings.Repeat("x", loadBody-len(event)-20) + `"}]}`)
	many := []byte(`{"events":[` + strings.Repeat(`{"email":"`+emails[0]+`"},`, 900) + strings.Repeat(" ", loadBody-60_000) + `{}]}`)
	junk := bytes.Repeat([]byte("x"), loadBody)
	form := append([]byte("next="), bytes.Repeat([]byte("&a=b"), 16<<10-10)...)
	signed := func(secret string) string {
		mac := hmac.New(sha256.New, []byte(secret))
		fmt.Fprintf(mac, "%d.%s", now.Unix(), junk)
		return fmt.Sprintf("t=%d,v1=%s", now.Unix(), hex.EncodeToString(mac.Sum(nil)))
	}
	floods := []flood{
		{name: "webhook without a signature", path: "/stripe/webhook", body: junk},
		{name: "webhook with a malformed signature", path: "/stripe/webhook", header: "Stripe-Signature: t=1,v1=zz", body: junk, long: true},
		{name: "webhook with a wrong signature", path: "/stripe/webhook", header: "Stripe-Signature: " + signed("whsec_2"), body: junk},
		{
			name: "webhook with a wrong signature, slow", path: "/stripe/webhook", header: "Stripe-Signature: " + signed("whsec_2"),
			body: junk, slow: true,
		},
		{name: "events without a key", path: "/v1/events", body: junk},
		{name: "events with an unknown key", path: "/v1/events", header: "Authorization: Bearer " + unknownKey, body: junk, long: true},
		{name: "events with a key", path: "/v1/events", header: "Authorization: Bearer " + s.client.key, body: events},
		{name: "many events with a key, slow", path: "/v1/events", header: "Authorization: Bearer " + s.client.key, body: many, slow: true},
		{
			name: "large calls with a key", path: "/v1/consume", header: "Authorization: Bearer " + s.client.key, body: junk[:60<<10],
			slow: true, long: true,
		},
		{name: "forms of sign-in", path: "/sign-in/slack", kind: "application/x-www-form-urlencoded", body: form},
		{
			name: "forms of a page, slow", path: "/usage/spend-limit", kind: "application/x-www-form-urlencoded", body: form,
			slow: true, long: true,
		},
	}
	for _, l := range floods {
		if l.long && *soak == 0 {
			continue
		}
		t.Run(l.name, func(t *testing.T) {
			forgetPeak(t, p)
			begun := time.Now()
			calls, slowest, stop := consumeMeanwhile(t, s, emails)
			statuses := l.run(t, p.addr)
			stop()
			memory, err := p.peakMemory()
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%d MiB at most; answers: %v; %d other calls, the slowest check %s; %s", memory>>20, statuses, calls.Load(),
				time.Duration(slowest.Load()).Round(time.Millisecond), time.Since(begun).Round(time.Millisecond))
			if memory > loadMemory {
				t.Errorf("the process used %d MiB of memory, want at most %d", memory>>20, loadMemory>>20)
			}
		})
	}
	if _, err := p.stop(); err != nil {
		t.Error(err)
	}
}

// forgetPeak resets the process's peak of resident memory. See proc(5), clear_refs.
func forgetPeak(t *testing.T, p *server) {
	t.Helper()
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", p.pid()), []byte("5"), 0o600); err != nil {
		t.Fatal(err)
	}
}

// consumeMeanwhile checks and consumes until stop, one call after another. All must succeed.
func consumeMeanwhile(t *testing.T, s *site, emails []string) (calls, slowest *atomic.Int64, stop func()) {
	t.Helper()
	calls, slowest = new(atomic.Int64), new(atomic.Int64)
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	for i := range 2 {
		all.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				begun := time.Now()
				r := s.client.call(t.Context(), s.servers[0].addr, http.MethodPost, "/v1/check", body{"email": emails[i]})
				if r.err != nil || r.status != http.StatusOK {
					t.Errorf("a call during the flood got status %d, %v %s", r.status, r.err, r.body)
					return
				}
				calls.Add(1)
				slowest.Store(max(slowest.Load(), int64(time.Since(begun))))
				r = s.client.call(t.Context(), s.servers[0].addr, http.MethodPost, "/v1/consume",
					body{"email": emails[i], "idempotency_key": fmt.Sprintf("%s-%d-%d", t.Name(), i, n)})
				if r.err != nil || r.status != http.StatusOK {
					t.Errorf("a call during the flood got status %d, %v %s", r.status, r.err, r.body)
					return
				}
				calls.Add(1)
			}
		})
	}
	return calls, slowest, func() { cancel(); all.Wait() }
}

// flood is one kind of request, sent on many connections at the same time.
type flood struct {
	name, path, header, kind string
	body                     []byte
	// slow means that all but the first quarter of the body is sent late.
	slow bool
	// long means that the flood is sent only with -soak.
	long bool
}

// run sends the requests and returns how many got each status. "none" means no answer.
func (l *flood) run(t *testing.T, addr string) map[string]int {
	t.Helper()
	kind := l.kind
	if kind == "" {
		kind = "application/json"
	}
	head := fmt.Sprintf("POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: %s\r\nContent-Length: %d\r\n", l.path, addr, kind, len(l.body))
	if l.header != "" {
		head += l.header + "\r\n"
	}
	head += "\r\n"
	statuses := map[string]int{}
	var mu sync.Mutex
	var all, begun sync.WaitGroup
	begun.Add(loadConnections)
	release := make(chan struct{})
	for range loadConnections {
		all.Go(func() {
			status := l.one(t, addr, head, release, &begun)
			mu.Lock()
			defer mu.Unlock()
			statuses[status]++
		})
	}
	begun.Wait()
	if l.slow {
		time.Sleep(loadStall) // simulated slow senders
	}
	close(release)
	all.Wait()
	return statuses
}

// one makes one request on its own connection and returns the status of the answer.
func (l *flood) one(t *testing.T, addr, head string, release <-chan struct{}, begun *sync.WaitGroup) string {
	t.Helper()
	open := sync.OnceFunc(begun.Done)
	defer open()
	conn, err := (&net.Dialer{Timeout: loadPatience}).DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Error(err)
		return "none"
	}
	defer func() { _ = conn.Close() }() // the server may have closed it
	if err := conn.SetDeadline(time.Now().Add(loadPatience)); err != nil {
		t.Error(err)
		return "none"
	}
	// The answer is read while the body is sent, because the server may not read all of the body.
	answered := make(chan string, 1)
	go func() {
		line := make([]byte, len("HTTP/1.1 200"))
		if _, err := io.ReadFull(conn, line); err != nil {
			answered <- "none"
			return
		}
		answered <- string(line[len("HTTP/1.1 "):])
		_, _ = io.Copy(io.Discard, conn)
	}()
	first := l.body
	if l.slow {
		first = l.body[:len(l.body)/4]
	}
	_, err = conn.Write(append([]byte(head), first...))
	if l.slow {
		open()
		select {
		case <-release:
		case status := <-answered:
			return status
		}
		if err == nil {
			_, err = conn.Write(l.body[len(first):])
		}
	}
	if err != nil && errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a body could not be sent: %v", err)
	}
	return <-answered
}
