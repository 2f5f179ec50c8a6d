//go:build linux

package e2e_test

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
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

	f := &frozenCalls{t: t, load: l, open: map[string]job{}, answers: ledger{}}
	sickCtx, sickStop := context.WithCancel(ctx)
	defer sickStop()
	calling := f.start(sickCtx, sick.addr)
	wait(t, l.decided.more(200), "calls to be decided")

	tries, thaw := freezeWithLocks(ctx, s, sick)
	frozen := time.Now()
	sickStop()

	// The app retries the calls at the other process, with the same keys.
	f.mu.Lock()
	retried := maps.Clone(f.open)
	f.mu.Unlock()
	keys := slices.Collect(maps.Keys(retried))
	rescue, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	spread(rescue, len(keys), len(keys), func(i int) {
		j := retried[keys[i]]
		f.record(keys[i], j, s.client.insist(rescue, []string{well.addr}, 0, http.MethodPost, "/v1/consume", l.request(keys[i], j)))
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
	f.mu.Lock()
	defer f.mu.Unlock()
	l.mu.Lock()
	maps.Copy(l.open, f.open)
	maps.Copy(l.answers, f.answers)
	l.mu.Unlock()
	l.settle()
}

// frozenCalls makes the calls to the process that freezes.
type frozenCalls struct {
	t    *testing.T
	load *load

	mu      sync.Mutex
	open    map[string]job // not answered, or answered with 503
	answers ledger
}

// start makes calls until ctx ends. Half of them are for new people, who must be created and linked
// first. A separate client makes them, because they may take long.
func (f *frozenCalls) start(ctx context.Context, address string) *sync.WaitGroup {
	client := newClient(f.load.site.client.key)
	f.t.Cleanup(client.http.CloseIdleConnections)
	emails := f.load.emails
	var calling sync.WaitGroup
	f.t.Cleanup(calling.Wait)
	calling.Go(func() {
		spread(ctx, 24, loadCalls, func(i int) {
			key, j := fmt.Sprintf("freeze-%d", i), job{emails[i%len(emails)], fmt.Sprintf("U%d", i%len(emails)), 1}
			if i%2 == 0 {
				j.email, j.slack = fmt.Sprintf("new%d@freeze.example", i), fmt.Sprintf("NEW%d", i)
			}
			f.mu.Lock()
			f.open[key] = j
			f.mu.Unlock()
			r := client.call(f.t.Context(), address, http.MethodPost, "/v1/consume", f.load.request(key, j))
			if r.err != nil || r.status == http.StatusServiceUnavailable {
				return // still open
			}
			f.record(key, j, r)
		})
	})
	return &calling
}

// record stores an answer. A call that was answered twice must have the same event both times.
func (f *frozenCalls) record(key string, j job, r *reply) {
	d, err := r.decision()
	if err != nil || !d.Allowed || d.EventID == nil {
		f.t.Errorf("%s for %s was answered with %+v, want allowed: %v", key, j.email, d, err)
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	g := grant{*d.EventID, j.email, j.quantity}
	if other, twice := f.answers[key]; twice && other != g {
		f.t.Errorf("%s was answered as %+v and as %+v", key, other, g)
	}
	f.answers[key] = g
	delete(f.open, key)
}

// freezeWithLocks freezes a process until it holds locks in a transaction of the gate and in one
// that prepares people. It returns how often it had to try.
func freezeWithLocks(ctx context.Context, s *site, p *server) (tries int, thaw func()) {
	s.t.Helper()
	db := s.open()
	caught := func() bool {
		var transactions int
		if err := db.QueryRowContext(s.t.Context(), `SELECT COUNT(DISTINCT application_name) FROM pg_stat_activity
			WHERE datname = current_database() AND state = 'idle in transaction' AND backend_xid IS NOT NULL
				AND state_change < clock_timestamp() - interval '90 milliseconds'`).
			Scan(&transactions); err != nil {
			s.t.Fatal(err)
		}
		return transactions == 2
	}
	tries, thaw = 1, freeze(s.t, p.pid())
	for pause(ctx, 100*time.Millisecond) && !caught() && tries < 60 {
		thaw()
		pause(ctx, 10*time.Millisecond) // the process runs on between two tries
		tries, thaw = tries+1, freeze(s.t, p.pid())
	}
	return tries, thaw
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
