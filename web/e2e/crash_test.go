//go:build linux

package e2e_test

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"sync"
	"testing"
	"time"
)

// A process that is killed under load loses nothing that it answered, and what it did not answer is recorded once or
// not at all: a retry tells.
func TestKilledUnderLoad(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind.name, func(t *testing.T) {
			processes := 2
			if kind.name == "SQLite" {
				processes = 1
			}
			s := newSite(t, kind.database(t), processes)
			l := newLoad(s, "TKILL", 50)
			ctx, stop := context.WithTimeout(t.Context(), time.Minute)
			defer stop()
			running := l.start(ctx, 48)
			for i := range 4 {
				wait(t, l.decided.more(400), "calls that are decided")
				p := s.servers[i%processes]
				if err := p.crash(); err != nil {
					t.Fatal(err)
				}
				s.restart(p)
			}
			wait(t, l.decided.more(400), "calls that are decided")
			stop()
			running.Wait()
			l.settle()
		})
	}
}

// A process that is told to stop finishes what it took: it ends by itself, in time, and what it answered is recorded.
func TestStoppedUnderLoad(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind.name, func(t *testing.T) {
			s := newSite(t, kind.database(t), 1)
			l := newLoad(s, "TSTOP", 50)
			ctx, stop := context.WithTimeout(t.Context(), time.Minute)
			defer stop()
			running := l.start(ctx, 48)
			for range 2 {
				wait(t, l.decided.more(400), "calls that are decided")
				took, err := s.servers[0].stop()
				if err != nil {
					t.Fatal(err)
				}
				t.Logf("it stopped in %s", took.Round(time.Millisecond))
				s.restart(s.servers[0])
			}
			wait(t, l.decided.more(400), "calls that are decided")
			stop()
			running.Wait()
			// A call may meet a connection that is just being closed, but then nobody has read it.
			if recorded := l.settle(); recorded > 0 {
				t.Errorf("%d calls were recorded and not answered; what was taken must be finished", recorded)
			}
		})
	}
}

// What a process has begun when it is told to stop is finished and answered, and nothing is begun any more.
func TestStopWaitsForWhatWasBegun(t *testing.T) {
	s := newSite(t, postgresDatabase(t), 1)
	p := s.servers[0]
	call := func(key string) *reply {
		return s.client.call(t.Context(), p.addr, http.MethodPost, "/v1/consume", body{"email": "slow@stop.example", "idempotency_key": key})
	}
	if _, err := call("first").decision(); err != nil {
		t.Fatal(err)
	}

	// Somebody else holds the person's record, so the call has to wait in the middle of its transaction.
	db := s.open()
	tx, err := db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback() }() // rolled back already when nothing failed
	if _, err := tx.ExecContext(t.Context(), `SELECT 1 FROM usage_records WHERE email = 'slow@stop.example' FOR UPDATE`); err != nil {
		t.Fatal(err)
	}
	answered := make(chan *reply, 1)
	go func() { answered <- call("second") }()
	eventually(t, "the call waits for the record", func() bool {
		var waiting int
		if err := db.QueryRowContext(t.Context(), `SELECT COUNT(*) FROM pg_locks WHERE NOT granted`).Scan(&waiting); err != nil {
			t.Fatal(err)
		}
		return waiting > 0
	})
	stopped := make(chan error, 1)
	go func() {
		_, err := p.stop()
		stopped <- err
	}()
	eventually(t, "nobody new is let in", func() bool {
		_, err := p.get(t.Context(), "/healthz")
		return err != nil
	})
	select {
	case r := <-answered:
		t.Fatalf("the call did not wait: %+v", r)
	case err := <-stopped:
		t.Fatalf("it stopped without an answer: %v", err)
	default:
	}
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	if d, err := (<-answered).decision(); err != nil || !d.Allowed || d.Used != 2 {
		t.Errorf("what was begun was answered %+v, %v; want allowed", d, err)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	if n := len(s.ledger()); n != 2 {
		t.Errorf("the ledger has %d events, want 2", n)
	}
	s.judge()
	s.verify()
}

// load is calls for people with much room, each made until it reached a server, and then not again: what became of
// those that were not answered is found out at the end.
type load struct {
	site         *site
	team         string
	organization string
	emails       []string
	decided      count
	turnedAway   count // answered 503

	mu   sync.Mutex
	told ledger
	open map[string]job // not answered, or answered 503
}

type job struct {
	email    string
	slack    string
	quantity int64
}

// loadCalls bounds a load, however long it runs.
const loadCalls = 200_000

func newLoad(s *site, team string, people int) *load {
	s.t.Helper()
	organization, emails := s.business(team, people)
	return &load{site: s, team: team, organization: organization, emails: emails, told: ledger{}, open: map[string]job{}}
}

func (l *load) request(key string, j job) body {
	return body{"email": j.email, "slack_team_id": l.team, "slack_user_id": j.slack, "quantity": j.quantity, "idempotency_key": key}
}

// start makes calls until ctx ends; those that are under way then are finished. Unless it is told the addresses, it
// goes to all processes.
func (l *load) start(ctx context.Context, clients int, addresses ...string) *sync.WaitGroup {
	s := l.site
	if len(addresses) == 0 {
		addresses = s.addresses()
	}
	var all sync.WaitGroup
	s.t.Cleanup(all.Wait)
	all.Go(func() {
		spread(ctx, clients, loadCalls, func(i int) {
			key := fmt.Sprintf("%s-%d", l.team, i)
			n := i * 7 % len(l.emails)
			j := job{l.emails[n], fmt.Sprintf("U%d", n), int64(1 + i%3)}
			for try := i; ; try++ {
				// Not ctx: its end is no client that hangs up.
				r := s.client.call(s.t.Context(), addresses[try%len(addresses)], http.MethodPost, "/v1/consume", l.request(key, j))
				if r.refused {
					// Nobody is there to take it; it was never sent.
					if pause(ctx, 2*time.Millisecond) {
						continue
					}
					return
				}
				l.note(key, j, r)
				if r.status == http.StatusServiceUnavailable {
					l.turnedAway.add()
					pause(ctx, 100*time.Millisecond)
				}
				return
			}
		})
	})
	return &all
}

// readers makes the calls that record no usage until ctx ends, some of them for people who have to be made and linked
// first. Each must be answered, whether decided or not.
func (l *load) readers(ctx context.Context, clients int) *sync.WaitGroup {
	s, addresses := l.site, l.site.addresses()
	var all sync.WaitGroup
	s.t.Cleanup(all.Wait)
	all.Go(func() {
		spread(ctx, clients, loadCalls, func(i int) {
			n := i * 7 % len(l.emails)
			method, path, content := http.MethodGet, "/v1/usage/"+l.emails[n], any(nil)
			switch i % 5 {
			case 0:
				method, path, content = http.MethodPost, "/v1/check", body{"slack_team_id": l.team, "slack_user_id": fmt.Sprintf("U%d", n)}
			case 1:
				method, path = http.MethodPost, "/v1/check"
				content = body{"email": fmt.Sprintf("new%d@%s.example", i, l.team), "slack_team_id": l.team, "slack_user_id": fmt.Sprintf("NEW%d", i)}
			case 2:
				path += "/history"
			case 3:
				path = "/v1/organizations/" + l.organization + "/usage"
			}
			r := s.client.call(s.t.Context(), addresses[i%len(addresses)], method, path, content)
			switch {
			case r.err != nil || r.status != http.StatusOK && r.status != http.StatusServiceUnavailable:
				s.t.Errorf("%s %s: status %d, %v %s", method, path, r.status, r.err, r.body)
			case r.status == http.StatusOK:
				pause(ctx, 5*time.Millisecond)
			default:
				pause(ctx, 100*time.Millisecond)
			}
		})
	})
	return &all
}

// pause waits a little, and says that ctx has not ended meanwhile.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

func (l *load) note(key string, j job, r *reply) {
	if r.err != nil || r.status == http.StatusServiceUnavailable {
		l.mu.Lock()
		l.open[key] = j
		l.mu.Unlock()
		return
	}
	d, err := r.decision()
	if err != nil || !d.Allowed || d.EventID == nil || d.Email != j.email || d.Plan != "business" {
		l.site.t.Errorf("%s for %s was answered %+v, want allowed on the plan business: %v", key, j.email, d, err)
		return
	}
	if d.Replayed {
		l.site.t.Errorf("%s was replayed, and it was made once", key)
	}
	l.mu.Lock()
	l.told[key] = grant{*d.EventID, j.email, j.quantity}
	l.mu.Unlock()
	l.decided.add()
}

// allowed is a copy of what was answered allowed so far.
func (l *load) allowed() ledger {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.told)
}

// settle compares the ledger with the answers, makes what was not decided again, and compares anew. It returns how many
// of the calls that were not decided had been recorded.
func (l *load) settle() (recorded int) {
	s := l.site
	s.t.Helper()
	before := s.ledger()
	for key, has := range before {
		if _, open := l.open[key]; open {
			recorded++
		} else if told, ok := l.told[key]; !ok || told != has {
			s.t.Errorf("%q is in the ledger as %+v and was answered as %+v", key, has, told)
		}
	}
	for key, told := range l.told {
		if _, ok := before[key]; !ok {
			s.t.Errorf("%q was answered allowed as %+v and is not in the ledger", key, told)
		}
	}
	s.t.Logf("%s; of %d calls that were not decided, %d were recorded", s.client, len(l.open), recorded)

	told := l.allowed()
	addresses := s.addresses()
	keys := make([]string, 0, len(l.open))
	for key := range l.open {
		keys = append(keys, key)
	}
	spread(s.t.Context(), 32, len(keys), func(i int) {
		key := keys[i]
		j := l.open[key]
		has, was := before[key]
		d, err := s.client.insist(s.t.Context(), addresses, i, http.MethodPost, "/v1/consume", l.request(key, j)).decision()
		switch {
		case err != nil || !d.Allowed || d.EventID == nil:
			s.t.Errorf("%s made again was answered %+v, want allowed: %v", key, d, err)
			return
		case was && (!d.Replayed || *d.EventID != has.id):
			s.t.Errorf("%s was recorded as %+v, and made again was answered %+v", key, has, d)
		case !was && d.Replayed:
			s.t.Errorf("%s was not recorded, and made again was answered %+v", key, d)
		}
		l.mu.Lock()
		told[key] = grant{*d.EventID, j.email, j.quantity}
		l.mu.Unlock()
	})
	s.wantLedger(told)
	s.judge()
	s.verify()
	return recorded
}

// wait returns when the channel is closed, and fails the test when that takes too long.
func wait(t *testing.T, done <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(30 * time.Second):
		t.Fatalf("waited 30 s for %s", what)
	}
}

// eventually asks until it is so, for what tells nobody by itself.
func eventually(t *testing.T, what string, so func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !so(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within 10 s: %s", what)
		}
	}
}
