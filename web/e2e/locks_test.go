//go:build linux

package e2e_test

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"
)

// A process that freezes during its transactions, for example because its machine swaps or is
// disconnected, holds its locks. Another process must still decide calls for the same people, and
// soon.
func TestFrozenProcessBlocksNoOthers(t *testing.T) {
	const soon = 15 * time.Second
	t.Parallel()
	s := newSite(t, postgresDatabase(t), 2)
	sick, well := s.servers[0], s.servers[1]
	l := newLoad(s, "TFREEZE", 30)
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	running := l.start(ctx, 16, well.addr)

	// The calls to the process that will freeze. Half of them are for new people, who must be created
	// and linked first. A separate client makes them, because they may take long.
	client := newClient(s.client.key)
	t.Cleanup(client.http.CloseIdleConnections)
	var mu sync.Mutex
	open := map[string]job{}
	answers := ledger{}
	record := func(key string, j job, r *reply) {
		d, err := r.decision()
		if err != nil || !d.Allowed || d.EventID == nil {
			t.Errorf("%s for %s was answered with %+v, want allowed: %v", key, j.email, d, err)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		g := grant{*d.EventID, j.email, j.quantity}
		if other, twice := answers[key]; twice && other != g {
			t.Errorf("%s was answered as %+v and as %+v", key, other, g)
		}
		answers[key] = g
		delete(open, key)
	}
	sickCtx, sickStop := context.WithCancel(ctx)
	defer sickStop()
	var calling sync.WaitGroup
	t.Cleanup(calling.Wait)
	calling.Go(func() {
		spread(sickCtx, 24, loadCalls, func(i int) {
			key, j := fmt.Sprintf("freeze-%d", i), job{l.emails[i%len(l.emails)], fmt.Sprintf("U%d", i%len(l.emails)), 1}
			if i%2 == 0 {
				j.email, j.slack = fmt.Sprintf("new%d@freeze.example", i), fmt.Sprintf("NEW%d", i)
			}
			mu.Lock()
			open[key] = j
			mu.Unlock()
			r := client.call(t.Context(), sick.addr, http.MethodPost, "/v1/consume", l.request(key, j))
			if r.err != nil || r.status == http.StatusServiceUnavailable {
				return // still open
			}
			record(key, j, r)
		})
	})
	wait(t, l.decided.more(200), "calls to be decided")

	// Freeze the process until it holds locks in a transaction of the gate and in one that prepares
	// people.
	db := s.open()
	caught := func() bool {
		var transactions int
		if err := db.QueryRowContext(t.Context(), `SELECT COUNT(DISTINCT application_name) FROM pg_stat_activity
			WHERE datname = current_database() AND state = 'idle in transaction' AND backend_xid IS NOT NULL
				AND state_change < clock_timestamp() - interval '90 milliseconds'`).
			Scan(&transactions); err != nil {
			t.Fatal(err)
		}
		return transactions == 2
	}
	tries, thaw := 1, freeze(t, sick.pid())
	for pause(ctx, 100*time.Millisecond) && !caught() && tries < 60 {
		thaw()
		pause(ctx, 10*time.Millisecond)
		tries, thaw = tries+1, freeze(t, sick.pid())
	}
	frozen := time.Now()
	sickStop()

	// The app retries the calls at the other process, with the same keys.
	mu.Lock()
	var keys []string
	var jobs []job
	for key, j := range open {
		keys, jobs = append(keys, key), append(jobs, j)
	}
	mu.Unlock()
	rescue, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	spread(rescue, len(keys), len(keys), func(i int) {
		record(keys[i], jobs[i], s.client.insist(rescue, []string{well.addr}, 0, http.MethodPost, "/v1/consume", l.request(keys[i], jobs[i])))
	})
	t.Logf("frozen with locks at try %d; the other process decided the %d open calls after %s",
		tries, len(keys), time.Since(frozen).Round(time.Millisecond))
	thaw()
	calling.Wait()
	wait(t, l.decided.more(200), "calls to be decided")
	stop()
	running.Wait()
	if err := sick.alive(); err != nil {
		t.Error(err)
	}
	mu.Lock()
	defer mu.Unlock()
	l.mu.Lock()
	for key, j := range open {
		l.open[key] = j
	}
	for key, g := range answers {
		l.answers[key] = g
	}
	l.mu.Unlock()
	l.settle()
}

// If another transaction locks a record, such as an operator's in psql, only calls for that person
// fail, and soon.
func TestLockedRecordBlocksNoOthers(t *testing.T) {
	t.Parallel()
	s := newSite(t, postgresDatabase(t), 1)
	l := newLoad(s, "TLOCK", 30)
	consume := func(key string) {
		t.Helper()
		r := s.client.insist(t.Context(), s.addresses(), 0, http.MethodPost, "/v1/consume",
			body{"email": "locked@lock.example", "idempotency_key": key})
		d, err := r.decision()
		if err != nil || !d.Allowed {
			t.Fatalf("%s: %+v, %v", key, d, err)
		}
		l.answers[key] = grant{*d.EventID, d.Email, 1}
	}
	consume("first")
	tx, err := s.open().BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback() }() // rolled back already, unless the test failed
	if _, err := tx.ExecContext(t.Context(), `SELECT 1 FROM usage_records WHERE email = 'locked@lock.example' FOR UPDATE`); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	running := l.start(ctx, 16)
	wait(t, l.decided.more(100), "calls to be decided")

	// One caller retries.
	const refused = 3
	before := l.decided.now()
	for range refused {
		r := s.client.call(t.Context(), s.servers[0].addr, http.MethodPost, "/v1/consume",
			body{"email": "locked@lock.example", "idempotency_key": "locked"})
		if r.err != nil || r.status != http.StatusServiceUnavailable {
			t.Fatalf("a call for the locked record: status %d, %v %s; want 503", r.status, r.err, r.body)
		}
	}
	during := l.decided.now() - before
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	stop()
	running.Wait()
	consume("locked")
	t.Logf("while %d calls for the locked record got 503, %d calls for others were decided and %d got 503",
		refused, during, l.turnedAway.now())
	if during == 0 || l.turnedAway.now() > 0 {
		t.Error("calls for others failed with those for the locked record")
	}
	l.settle()
}
