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

// overload makes more calls than a process may keep waiting, while the connections that it decides on hang: those beyond the queue are refused at once,
// those in it in time, the memory stays bounded, and afterwards everything is as if nothing had been.
func overload(t *testing.T, c *modelstest.Cluster) {
	t.Helper()
	const (
		people = 100
		single = 2000
		// A batch is as much to decide as its events, so that these are more than the queues of a process hold.
		batches, batch = 24, 1000
		mostMemory     = 300 << 20
		// atOnce is shorter than those in the queue wait, on a machine that is busy with making all these calls.
		atOnce = 4 * time.Second
	)
	if err := c.CreateDatabase(t.Context(), "overload"); err != nil {
		t.Fatal(err)
	}
	s := newSite(t, c.URL("overload"), 1)
	p := s.servers[0]
	addresses := s.addresses()
	_, emails := s.business("TOVER", people)
	requests := make([]struct {
		path    string
		content []byte // written beforehand, so that all calls can be made at once
	}, batches+single)
	now := time.Now().UTC().Format(time.RFC3339)
	told := ledger{}
	for i := range requests {
		r := &requests[i]
		email := emails[i%people]
		if i >= batches {
			key := fmt.Sprintf("single-%d", i)
			r.path, r.content = "/v1/consume", encode(t, body{"email": email, "idempotency_key": key})
			told[key] = grant{"", email, 1}
			continue
		}
		events := make([]body, batch)
		for n := range events {
			key := fmt.Sprintf("batch-%d-%d", i, n)
			events[n] = body{"email": email, "quantity": 1, "idempotency_key": key, "occurred_at": now}
			told[key] = grant{"", email, 1}
		}
		r.path, r.content = "/v1/events", encode(t, body{"events": events})
	}

	// Only these: API keys can still be looked up, so that it is the queue that the calls run into.
	thaw := freeze(t, s.backends("tollgate gate")...)
	replies := make([]*reply, len(requests))
	begun := time.Now()
	var all sync.WaitGroup
	for i, r := range requests {
		all.Go(func() { replies[i] = s.client.call(t.Context(), p.addr, http.MethodPost, r.path, r.content) })
	}
	all.Wait()
	took := time.Since(begun)
	codes := map[string]int{}
	var overloaded []time.Duration
	for _, r := range replies {
		problem, err := r.problem()
		switch {
		case err != nil || r.status != http.StatusOK && r.status != http.StatusServiceUnavailable:
			t.Errorf("it was answered with status %d, %v %s", r.status, err, r.body)
		case r.status == http.StatusOK:
			codes["decided"]++ // after it has connected anew
		default:
			codes[problem.Code]++
			if problem.Code == "overloaded" {
				overloaded = append(overloaded, r.took)
			}
		}
	}
	memory, err := p.peakMemory()
	if err != nil {
		t.Fatal(err)
	}
	thaw()
	thawed := time.Now()
	if d, err := s.client.insist(t.Context(), addresses, 0, http.MethodPost, "/v1/check", body{"email": emails[0]}).decision(); err != nil || !d.Allowed {
		t.Fatalf("check after it: %+v, %v", d, err)
	}
	recovered := time.Since(thawed)
	slices.Sort(overloaded)
	t.Logf("%d calls, %d of them of %d events: all answered after %s: %v; memory at most %d MiB; decided again after %s",
		len(requests), batches, batch, took.Round(time.Millisecond), codes, memory>>20, recovered.Round(time.Millisecond))
	if len(overloaded) == 0 {
		t.Error("no call was refused as overloaded: is the queue bounded?")
	} else if median := overloaded[len(overloaded)/2]; median > atOnce {
		t.Errorf("half of the calls beyond the queue waited more than %s, want to be refused at once", median)
	} else {
		t.Logf("half of the calls beyond the queue were refused within %s", median.Round(time.Millisecond))
	}
	if memory > mostMemory {
		t.Errorf("it took %d MiB of memory, want at most %d", memory>>20, mostMemory>>20)
	}
	if recovered > recovers {
		t.Errorf("it took %s to decide again, want at most %s", recovered, recovers)
	}

	// Everybody calls again, with the same keys: each is recorded once.
	spread(t.Context(), 32, len(requests), func(i int) {
		r := s.client.insist(t.Context(), addresses, i, http.MethodPost, requests[i].path, requests[i].content)
		if r.err != nil || r.status != http.StatusOK {
			t.Errorf("%s made again: status %d, %v %s", requests[i].path, r.status, r.err, r.body)
		}
	})
	stored := s.ledger()
	if len(stored) != len(told) {
		t.Errorf("the ledger has %d events, want %d", len(stored), len(told))
	}
	for key, g := range stored {
		// Which event a batch was answered with is another test's matter.
		if want := (grant{g.id, told[key].email, told[key].quantity}); g != want {
			t.Errorf("%q is in the ledger as %+v, want %+v", key, g, want)
		}
	}
	s.judge()
	s.verify()
}

func encode(t *testing.T, content body) []byte {
	t.Helper()
	encoded, err := json.Marshal(content)
	if err != nil {
		t.Fatal(err)
	}
	return encoded
}

// backends are the process ids of PostgreSQL's that serve the site's connections of this name.
func (s *site) backends(application string) (pids []int) {
	s.t.Helper()
	db := s.open()
	rows, err := db.QueryContext(s.t.Context(), `SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = $1`, application)
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
