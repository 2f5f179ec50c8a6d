//go:build linux

package e2e_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestRateLimits starts the server with a limit for all keys, and gives some keys their own limits.
func TestRateLimits(t *testing.T) {
	t.Parallel()
	s := &site{t: t, database: sqliteDatabase(t), program: program(t)}
	usual := s.apiKey("usual", "check")
	narrow := s.command("apikey", "create", "--name", "narrow", "--scopes", "check", "--rate-limit", "1")
	free := s.command("apikey", "create", "--name", "free", "--scopes", "check", "--rate-limit=0")
	for name, limit := range map[string]string{"usual": "default", "narrow": "1/s", "free": "none"} {
		for line := range strings.Lines(s.command("apikey", "list")) {
			if fields := strings.Fields(line); fields[1] == name && fields[4] != limit {
				t.Errorf("apikey list prints %q for %s, want %s", fields[4], name, limit)
			}
		}
	}
	for _, wrong := range []string{"-1", "1.5", "1000001", "many"} {
		stdout, stderr, err := s.try("apikey", "create", "--name", "wrong", "--scopes", "check", "--rate-limit="+wrong)
		if err == nil || stdout != "" || !strings.Contains(stderr, "--rate-limit") {
			t.Errorf("--rate-limit=%s printed %q and %q, %v", wrong, stdout, stderr, err)
		}
	}
	p := newServer(t, "process 1", s.database)
	p.env = append(p.env, "TOLLGATE_RATE_LIMIT=5")
	s.servers = append(s.servers, p)
	s.startAll()
	// The calls are made at the same time: on a busy machine, calls one after another may be too slow
	// to reach the limit.
	for key, limit := range map[string]int{usual: 5, narrow: 1, free: 0} {
		c := newClient(key)
		t.Cleanup(c.http.CloseIdleConnections)
		const calls = 60
		statuses := make([]int, calls)
		spread(t.Context(), calls, calls, func(i int) {
			r := c.call(t.Context(), p.addr, http.MethodPost, "/v1/check", body{"email": "ada@limits.example"})
			statuses[i] = r.status
			if header := r.header.Get("RateLimit"); (header != "") != (limit > 0) {
				t.Errorf("with a limit of %d, RateLimit is %q", limit, header)
			}
			if r.status == http.StatusTooManyRequests {
				if got, want := r.header.Get("RateLimit-Limit"), fmt.Sprint(limit); got != want {
					t.Errorf("RateLimit-Limit is %q, want %q", got, want)
				}
				if got, err := r.problem(); err != nil || got.Code != "rate_limited" || r.header.Get("Retry-After") == "" {
					t.Errorf("a call beyond the limit got %s, %v", r.body, err)
				}
			}
		})
		count := map[int]int{}
		for _, status := range statuses {
			count[status]++
		}
		limited := count[http.StatusTooManyRequests]
		if (limited > 0) != (limit > 0) || count[http.StatusOK]+limited != calls || count[http.StatusOK] < limit {
			t.Errorf("%d calls with a limit of %d got %v", calls, limit, count)
		}
	}
}

// TestStrangersAreLimited requests pages without a session from one address, more often than a
// person can. The app's calls are still answered.
func TestStrangersAreLimited(t *testing.T) {
	t.Parallel()
	s := newSite(t, sqliteDatabase(t), 1)
	const requests = 600
	client := &http.Client{
		Transport:     &http.Transport{MaxIdleConnsPerHost: 64},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	t.Cleanup(client.CloseIdleConnections)
	statuses := make([]int, requests)
	spread(t.Context(), 64, requests, func(i int) {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+s.servers[0].addr+"/usage", http.NoBody)
		if err != nil {
			t.Error(err)
			return
		}
		r.AddCookie(&http.Cookie{Name: "tollgate", Value: fmt.Sprint("unknown", i)})
		response, err := client.Do(r)
		if err != nil {
			t.Error(err)
			return
		}
		if err := response.Body.Close(); err != nil {
			t.Error(err)
		}
		if statuses[i] = response.StatusCode; statuses[i] == http.StatusTooManyRequests && response.Header.Get("Retry-After") == "" {
			t.Error("a 429 has no Retry-After")
		}
	})
	count := map[int]int{}
	for _, status := range statuses {
		count[status]++
	}
	passed, limited := count[http.StatusSeeOther], count[http.StatusTooManyRequests]
	if passed < 200 || limited == 0 || passed+limited != requests {
		t.Errorf("%d requests without a session got %v", requests, count)
	}
	r := s.client.call(t.Context(), s.servers[0].addr, http.MethodPost, "/v1/check", body{"email": "ada@limits.example"})
	if d, err := r.decision(); err != nil || !d.Allowed {
		t.Errorf("a check of the app: %+v, %v", d, err)
	}
}

// Many connections on which no request arrives do not delay a call, and the server closes them.
func TestConnectionsWithoutARequest(t *testing.T) {
	t.Parallel()
	s := newSite(t, sqliteDatabase(t), 1)
	var idle sync.WaitGroup
	begun := time.Now()
	for i := range 200 {
		c, err := new(net.Dialer).DialContext(t.Context(), "tcp", s.servers[0].addr)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(c, []string{"", "POST /v1/check HTTP/1.1\r\nHost: a\r\nX: "}[i%2]); err != nil {
			t.Fatal(err)
		}
		idle.Go(func() {
			defer func() { _ = c.Close() }()
			if err := c.SetReadDeadline(begun.Add(30 * time.Second)); err != nil {
				t.Error(err)
			}
			if _, err := io.Copy(io.Discard, c); err != nil {
				t.Errorf("the server did not close an idle connection: %v", err)
			}
		})
	}
	r := s.client.call(t.Context(), s.servers[0].addr, http.MethodPost, "/v1/check", body{"email": "ada@limits.example"})
	if d, err := r.decision(); err != nil || !d.Allowed || r.took > time.Second {
		t.Errorf("a call next to idle connections: %+v, %v after %s", d, err, r.took)
	}
	idle.Wait()
}
