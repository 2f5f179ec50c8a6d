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

// A process that freezes in the middle of its transactions, as one does whose machine swaps or is cut off, holds the
// locks of what it was about to write. Callers who turn to another process must be served by it all the same, and soon.
func TestFrozenProcessHoldsNobodyUp(t *testing.T) {
	const soon = 15 * time.Second
	t.Parallel()
	s := newSite(t, postgresDatabase(t), 2)
	sick, well := s.servers[0], s.servers[1]
	l := newLoad(s, "TFREEZE", 30)
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	running := l.start(ctx, 16, well.addr)

	// The calls to the process that is going to freeze, half of them for people who have to be made and linked first. What
	// they wait for is no fault of its.
	client := newClient(s.client.key)
	t.Cleanup(client.http.CloseIdleConnections)
	var mu sync.Mutex
	open := map[string]job{}
	told := ledger{}
	tell := func(key string, j job, r *reply) {
		d, err := r.decision()
		if err != nil || !d.Allowed || d.EventID == nil {
			t.Errorf("%s for %s was answered %+v, want allowed: %v", key, j.email, d, err)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		g := grant{*d.EventID, j.email, j.quantity}
		if other, twice := told[key]; twice && other != g {
			t.Errorf("%s was answered as %+v and as %+v", key, other, g)
		}
		told[key] = g
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
			tell(key, j, r)
		})
	})
	wait(t, l.decided.more(200), "calls that are decided")

	// Until it is caught with locks in a transaction of the gate's and in one that prepares people.
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

	// The app gives up on it and asks the other process, with the same keys.
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
		tell(keys[i], jobs[i], s.client.insist(rescue, []string{well.addr}, 0, http.MethodPost, "/v1/consume", l.request(keys[i], jobs[i])))
	})
	t.Logf("caught at try %d; the %d calls that it left open were decided by the other process after %s",
		tries, len(keys), time.Since(frozen).Round(time.Millisecond))
	thaw()
	calling.Wait()
	wait(t, l.decided.more(200), "calls that are decided")
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
	for key, g := range told {
		l.told[key] = g
	}
	l.mu.Unlock()
	l.settle()
}

// A record that somebody else keeps locked, such as an operator at the shell of the database, holds up calls for that
// person, not for everybody, and those not for long.
func TestLockedRecordHoldsNobodyElseUp(t *testing.T) {
	t.Parallel()
	s := newSite(t, postgresDatabase(t), 1)
	l := newLoad(s, "TLOCK", 30)
	consume := func(key string) {
		t.Helper()
		r := s.client.insist(t.Context(), s.addresses(), 0, http.MethodPost, "/v1/consume", body{"email": "locked@lock.example", "idempotency_key": key})
		d, err := r.decision()
		if err != nil || !d.Allowed {
			t.Fatalf("%s: %+v, %v", key, d, err)
		}
		l.told[key] = grant{*d.EventID, d.Email, 1}
	}
	consume("first")
	tx, err := s.open().BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback() }() // rolled back already when nothing failed
	if _, err := tx.ExecContext(t.Context(), `SELECT 1 FROM usage_records WHERE email = 'locked@lock.example' FOR UPDATE`); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	running := l.start(ctx, 16)
	wait(t, l.decided.more(100), "calls that are decided")

	// One caller that does not give up.
	const refused = 3
	before := l.decided.now()
	for range refused {
		r := s.client.call(t.Context(), s.servers[0].addr, http.MethodPost, "/v1/consume", body{"email": "locked@lock.example", "idempotency_key": "locked"})
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
	t.Logf("while %d calls for the locked record were answered 503, %d calls for others were decided and %d answered 503", refused, during, l.turnedAway.now())
	if during == 0 || l.turnedAway.now() > 0 {
		t.Error("calls for others failed with those for the locked record")
	}
	l.settle()
}
