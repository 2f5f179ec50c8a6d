//go:build linux

package e2e_test

import (
	"context"
	"flag"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// stops is how often TestStopsUnderLoad stops the server on each database: `go test ./web/e2e -args
// -stops=20`.
var stops = flag.Int("stops", shortStops, "how often TestStopsUnderLoad stops the server on each database")

const (
	shortStops  = 2
	stopClients = 64
	stopPause   = 160 * time.Millisecond // between two calls of a client; together, the clients make 400 calls per second
	// stopIdle is less than a second, which is how long a stopping server keeps an idle connection
	// open. A call on a connection that was idle for longer may fail, as with any server. It is not
	// recorded.
	stopIdle = 900 * time.Millisecond
)

// A server is stopped while 64 clients call it on keep-alive connections. It resets none of them:
// each call is answered, or refused before it was sent.
func TestStopsUnderLoad(t *testing.T) {
	t.Parallel()
	for _, kind := range kinds {
		t.Run(kind.name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, kind.database(t), 1)
			p := s.servers[0]
			p.args = append(p.args, "--drain", "500ms") // it overrides an earlier one
			s.stopAll()
			s.startAll()
			l := newLoad(s, "TSTOPS", 50)
			ctx, end := context.WithTimeout(t.Context(), 10*time.Minute)
			defer end()
			var answered, refused, late atomic.Int64
			var clients sync.WaitGroup
			t.Cleanup(func() { end(); clients.Wait() })
			for i := range stopClients {
				clients.Go(func() {
					for n := 0; pause(ctx, stopPause); n++ {
						key, j := fmt.Sprintf("%d-%d", i, n), job{l.emails[i%len(l.emails)], fmt.Sprintf("U%d", i%len(l.emails)), 1}
						r := s.client.call(t.Context(), p.addr, http.MethodPost, "/v1/consume", l.request(key, j))
						switch {
						case r.refused:
							refused.Add(1)
							continue
						case r.err != nil && r.idle >= stopIdle:
							late.Add(1)
						case r.err != nil || r.status != http.StatusOK:
							t.Errorf("a call got %d, %v %s", r.status, r.err, r.body)
						default:
							answered.Add(1)
						}
						l.note(key, j, r)
					}
				})
			}
			slowest := time.Duration(0)
			for range *stops {
				wait(t, l.decided.more(400), "calls to be decided")
				took, err := p.stop()
				if err != nil {
					t.Fatal(err)
				}
				slowest = max(slowest, took)
				s.restart(p)
			}
			wait(t, l.decided.more(400), "calls to be decided")
			end()
			clients.Wait()
			t.Logf("%d stops, the slowest in %s: %d calls answered, %d refused before they were sent, %d on connections that were idle for too long",
				*stops, slowest.Round(time.Millisecond), answered.Load(), refused.Load(), late.Load())
			if recorded := l.settle(); recorded > 0 {
				t.Errorf("%d calls were recorded but not answered", recorded)
			}
		})
	}
}
