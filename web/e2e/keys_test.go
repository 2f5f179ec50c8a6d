//go:build linux

package e2e_test

import (
	"net/http"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

var uuidPattern = regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`)

// After a key in use is revoked on the command line, every process refuses it within a second.
func TestRevokedKeyIsRefusedWithinASecond(t *testing.T) {
	s := newSite(t, postgresDatabase(t), 2)
	doomed := newClient(s.apiKey("doomed", "check"))
	t.Cleanup(doomed.http.CloseIdleConnections)
	id := ""
	for line := range strings.Lines(s.command("apikey", "list")) {
		if strings.Contains(line, "doomed") {
			id = uuidPattern.FindString(line)
		}
		if strings.Contains(line, doomed.key) || strings.Contains(line, s.client.key) {
			t.Errorf("apikey list shows a key: %s", line)
		}
	}
	if id == "" {
		t.Fatalf("apikey list does not show the key's ID:\n%s", s.command("apikey", "list"))
	}
	check := body{"email": "ada@keys.example"}

	var used count
	var all sync.WaitGroup
	t.Cleanup(all.Wait)
	lastAllowed := make([]time.Time, len(s.servers)) // when the last answered call was sent
	for i, p := range s.servers {
		all.Go(func() {
			for end := time.Now().Add(20 * time.Second); time.Now().Before(end) && t.Context().Err() == nil; {
				sent := time.Now()
				switch r := doomed.call(t.Context(), p.addr, http.MethodPost, "/v1/check", check); r.status {
				case http.StatusOK:
					lastAllowed[i] = sent
					used.add()
				case http.StatusUnauthorized:
					if got, err := r.problem(); err != nil || got.Code != "unauthorized" || r.header.Get("WWW-Authenticate") == "" {
						t.Errorf("a revoked key got %s (WWW-Authenticate %q): %v", r.body, r.header.Get("WWW-Authenticate"), err)
					}
					return
				default:
					t.Errorf("status %d, %v: %s", r.status, r.err, r.body)
					return
				}
			}
			t.Errorf("%s did not refuse the key", p.name)
		})
	}
	wait(t, used.more(200), "the key to be in use")
	s.command("apikey", "revoke", id)
	revoked := time.Now()
	all.Wait()
	for i, p := range s.servers {
		after := lastAllowed[i].Sub(revoked)
		t.Logf("%s accepted the key until %s after the command", p.name, after.Round(time.Millisecond))
		if after > time.Second {
			t.Errorf("%s accepted the key %s after it was revoked, want at most a second", p.name, after)
		}
		// The key stays refused, and other keys are accepted.
		if r := doomed.call(t.Context(), p.addr, http.MethodPost, "/v1/check", check); r.status != http.StatusUnauthorized {
			t.Errorf("%s accepted the key again: status %d, %v", p.name, r.status, r.err)
		}
		if r := s.client.call(t.Context(), p.addr, http.MethodPost, "/v1/check", check); r.status != http.StatusOK {
			t.Errorf("%s refused another key: status %d, %v", p.name, r.status, r.err)
		}
	}
	s.judge()
}
