//go:build linux

package e2e_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"tollgate/models/modelstest"
)

// overload makes more calls than a process may queue, while the gate's connections hang. Calls
// beyond the queue are refused immediately, and those in the queue in time. The memory stays
// bounded, and the process recovers.
func overload(t *testing.T, c *modelstest.Cluster) {
	t.Helper()
	const (
		people = 100
		single = 2000
		// A batch counts as many as its events, so these are more than the queues of a process hold.
		batches, batch = 24, 1000
		mostMemory     = 300 << 20
		// refusedWithin is shorter than calls in the queue wait, on a machine that is busy making all
		// these calls.
		refusedWithin = 4 * time.Second
	)
	if err := c.CreateDatabase(t.Context(), "overload"); err != nil {
		t.Fatal(err)
	}
	s := newSite(t, c.URL("overload"), 1)
	p := s.servers[0]
	addresses := s.addresses()
	_, emails := s.business("TOVER", people)
	requests, answers := overloading(t, emails, batches, batch, single)

	// Only the gate's connections are frozen. API keys can still be looked up, so calls reach the
	// queue.
	thaw := freeze(t, s.backends("tollgate gate")...)
	replies := make([]*reply, len(requests))
	begun := time.Now()
	var all sync.WaitGroup
	for i, r := range requests {
		all.Go(func() { replies[i] = s.client.call(t.Context(), p.addr, http.MethodPost, r.path, r.content) })
	}
	all.Wait()
	took := time.Since(begun)
	codes, overloaded := refusals(t, replies)
	memory, err := p.peakMemory()
	if err != nil {
		t.Fatal(err)
	}
	thaw()
	thawed := time.Now()
	check := s.client.insist(t.Context(), addresses, 0, http.MethodPost, "/v1/check", body{"email": emails[0]})
	if d, err := check.decision(); err != nil || !d.Allowed {
		t.Fatalf("a check after the overload: %+v, %v", d, err)
	}
	recovered := time.Since(thawed)
	t.Logf("%d calls, %d of them with %d events: all answered after %s: %v; memory at most %d MiB; decided again after %s",
		len(requests), batches, batch, took.Round(time.Millisecond), codes, memory>>20, recovered.Round(time.Millisecond))
	if len(overloaded) == 0 {
		t.Error("no call was refused as overloaded, so the queue is not bounded")
	} else if median := overloaded[len(overloaded)/2]; median > refusedWithin {
		t.Errorf("half of the calls beyond the queue waited for more than %s before they were refused", median)
	} else {
		t.Logf("half of the calls beyond the queue were refused within %s", median.Round(time.Millisecond))
	}
	if memory > mostMemory {
		t.Errorf("the process used %d MiB of memory, want at most %d", memory>>20, mostMemory>>20)
	}
	if recovered > recovers {
		t.Errorf("the process took %s to decide again, want at most %s", recovered, recovers)
	}

	// All calls are repeated with the same keys. Each is recorded once.
	spread(t.Context(), 32, len(requests), func(i int) {
		r := s.client.insist(t.Context(), addresses, i, http.MethodPost, requests[i].path, requests[i].content)
		if r.err != nil || r.status != http.StatusOK {
			t.Errorf("%s repeated: status %d, %v %s", requests[i].path, r.status, r.err, r.body)
		}
	})
	s.wantEvents(answers)
	s.judge()
	s.verify()
}

// encodedCall is a call that was encoded in advance, so that many can be made at the same time.
type encodedCall struct {
	path    string
	content []byte
}

// overloading returns calls with batches of events, then calls with one unit each, and the events
// that they record. The IDs of the events are not known.
func overloading(t *testing.T, emails []string, batches, batch, single int) ([]encodedCall, ledger) {
	t.Helper()
	calls := make([]encodedCall, batches+single)
	now := time.Now().UTC().Format(time.RFC3339)
	answers := ledger{}
	for i := range calls {
		c := &calls[i]
		email := emails[i%len(emails)]
		if i >= batches {
			key := fmt.Sprintf("single-%d", i)
			c.path, c.content = "/v1/consume", encode(t, body{"email": email, "idempotency_key": key})
			answers[key] = grant{"", email, 1}
			continue
		}
		events := make([]body, batch)
		for n := range events {
			key := fmt.Sprintf("batch-%d-%d", i, n)
			events[n] = body{"email": email, "quantity": 1, "idempotency_key": key, "occurred_at": now}
			answers[key] = grant{"", email, 1}
		}
		c.path, c.content = "/v1/events", encode(t, body{"events": events})
	}
	return calls, answers
}

// refusals counts the answers by their codes, and returns the sorted times of those that were
// refused as overloaded.
func refusals(t *testing.T, replies []*reply) (codes map[string]int, overloaded []time.Duration) {
	t.Helper()
	codes = map[string]int{}
	for _, r := range replies {
		problem, err := r.problem()
		switch {
		case err != nil || r.status != http.StatusOK && r.status != http.StatusServiceUnavailable:
			t.Errorf("a call got status %d, %v %s", r.status, err, r.body)
		case r.status == http.StatusOK:
			codes["decided"]++ // after the gate has connected again
		default:
			codes[problem.Code]++
			if problem.Code == "overloaded" {
				overloaded = append(overloaded, r.took)
			}
		}
	}
	slices.Sort(overloaded)
	return codes, overloaded
}

// wantEvents compares the ledger with the answers, without the IDs of the events. Another test
// checks those of a batch.
func (s *site) wantEvents(answers ledger) {
	s.t.Helper()
	stored := s.ledger()
	if len(stored) != len(answers) {
		s.t.Errorf("the ledger has %d events, want %d", len(stored), len(answers))
	}
	for key, g := range stored {
		if want := (grant{g.id, answers[key].email, answers[key].quantity}); g != want {
			s.t.Errorf("%q is in the ledger as %+v, want %+v", key, g, want)
		}
	}
}

func encode(t *testing.T, content body) []byte {
	t.Helper()
	encoded, err := json.Marshal(content)
	if err != nil {
		t.Fatal(err)
	}
	return encoded
}

// backends returns the process IDs of PostgreSQL's backends for the site's connections with this
// name.
func (s *site) backends(application string) (pids []int) {
	s.t.Helper()
	db := s.open()
	rows, err := db.QueryContext(s.t.Context(), `SELECT pid FROM pg_stat_activity
		WHERE datname = current_database() AND application_name = $1`, application)
	if err != nil {
		s.t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var pid int
		if err := rows.Scan(&pid); err != nil {
			s.t.Fatal(err)
		}
		pids = append(pids, pid)
	}
	if err := errors.Join(rows.Err(), db.Close()); err != nil || len(pids) == 0 {
		s.t.Fatalf("find the connections of %q: %v, %v", application, pids, err)
	}
	return pids
}
