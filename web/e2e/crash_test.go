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

// A process that is stopped under load finishes the calls that it has accepted. It ends in time,
// and every answered call is recorded.
func TestStoppedUnderLoad(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind.name, func(t *testing.T) {
			s := newSite(t, kind.database(t), 1)
			l := newLoad(s, "TSTOP", 50)
			ctx, stop := context.WithTimeout(t.Context(), time.Minute)
			defer stop()
			running := l.start(ctx, 48)
			for range 2 {
				wait(t, l.decided.more(400), "calls to be decided")
				took, err := s.servers[0].stop()
				if err != nil {
					t.Fatal(err)
				}
				t.Logf("it stopped in %s", took.Round(time.Millisecond))
				s.restart(s.servers[0])
			}
			wait(t, l.decided.more(400), "calls to be decided")
			stop()
			running.Wait()
			// A call may use a connection that is just being closed, but then the server has not read it.
			if recorded := l.settle(); recorded > 0 {
				t.Errorf("%d calls were recorded but not answered; accepted calls must be finished", recorded)
			}
		})
	}
}

// A process that is stopped finishes and answers the calls that have started, and starts no new
// ones.
func TestStopFinishesStartedCalls(t *testing.T) {
	s := newSite(t, postgresDatabase(t), 1)
	p := s.servers[0]
	call := func(key string) *reply {
		return s.client.call(t.Context(), p.addr, http.MethodPost, "/v1/consume", body{"email": "slow@stop.example", "idempotency_key": key})
	}
	if _, err := call("first").decision(); err != nil {
		t.Fatal(err)
	}

	// Another transaction locks the person's record, so the call waits in its transaction.
	db := s.open()
	tx, err := db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback() }() // rolled back already, unless the test failed
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
	eventually(t, "new connections are refused", func() bool {
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
		t.Errorf("the started call was answered with %+v, %v; want allowed", d, err)
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

// load makes calls for people with many included units. Each call is repeated until it reaches a
// server, and not after that. settle finds out whether unanswered calls were recorded.
type load struct {
	site         *site
	team         string
	organization string
	emails       []string
	decided      count
	turnedAway   count // answered with 503

	mu      sync.Mutex
	answers ledger
	open    map[string]job // not answered, or answered with 503
}

type job struct {
	email    string
	slack    string
	quantity int64
}

// loadCalls is the largest number of calls of a load.
const loadCalls = 200_000

func newLoad(s *site, team string, people int) *load {
	s.t.Helper()
	organization, emails := s.business(team, people)
	return &load{site: s, team: team, organization: organization, emails: emails, answers: ledger{}, open: map[string]job{}}
}

func (l *load) request(key string, j job) body {
	return body{"email": j.email, "slack_team_id": l.team, "slack_user_id": j.slack, "quantity": j.quantity, "idempotency_key": key}
}

// start makes calls until ctx ends, and finishes those that are in progress. Without addresses, it
// calls all processes.
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
				// Not ctx, because its end must not cancel calls.
				r := s.client.call(s.t.Context(), addresses[try%len(addresses)], http.MethodPost, "/v1/consume", l.request(key, j))
				if r.refused {
					// No server was listening, so the call was not sent.
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

// readers makes calls that record no usage until ctx ends. Some are for new people, who must be
// created and linked first. Each call must be answered, with a decision or a 503.
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

// pause waits for d. It returns false if ctx ends before.
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
		l.site.t.Errorf("%s for %s was answered with %+v, want allowed on the plan business: %v", key, j.email, d, err)
		return
	}
	if d.Replayed {
		l.site.t.Errorf("%s was replayed, but was made only once", key)
	}
	l.mu.Lock()
	l.answers[key] = grant{*d.EventID, j.email, j.quantity}
	l.mu.Unlock()
	l.decided.add()
}

// allowed returns a copy of the allowed calls until now.
func (l *load) allowed() ledger {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.answers)
}

// settle compares the ledger with the answers, repeats the undecided calls, and compares again. It
// returns how many of the undecided calls had been recorded.
func (l *load) settle() (recorded int) {
	s := l.site
	s.t.Helper()
	before := s.ledger()
	for key, has := range before {
		if _, open := l.open[key]; open {
			recorded++
		} else if answer, ok := l.answers[key]; !ok || answer != has {
			s.t.Errorf("%q is in the ledger as %+v, but was answered as %+v", key, has, answer)
		}
	}
	for key, answer := range l.answers {
		if _, ok := before[key]; !ok {
			s.t.Errorf("%q was allowed as %+v, but is not in the ledger", key, answer)
		}
	}
	s.t.Logf("%s; of %d undecided calls, %d were recorded", s.client, len(l.open), recorded)

	answers := l.allowed()
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
			s.t.Errorf("%s repeated was answered with %+v, want allowed: %v", key, d, err)
			return
		case was && (!d.Replayed || *d.EventID != has.id):
			s.t.Errorf("%s was recorded as %+v, but repeated was answered with %+v", key, has, d)
		case !was && d.Replayed:
			s.t.Errorf("%s was not recorded, but repeated was answered with %+v", key, d)
		}
		l.mu.Lock()
		answers[key] = grant{*d.EventID, j.email, j.quantity}
		l.mu.Unlock()
	})
	s.wantLedger(answers)
	s.judge()
	s.verify()
	return recorded
}

// wait returns when the channel is closed. It fails the test if that takes too long.
func wait(t *testing.T, done <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(30 * time.Second):
		t.Fatalf("waited 30 s for %s", what)
	}
}

// eventually polls a condition for which there is no signal.
func eventually(t *testing.T, what string, so func() bool) {
	t.Helper()
	within(t, 10*time.Second, what, so)
}

// within is eventually with another patience.
func within(t *testing.T, patience time.Duration, what string, so func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !so(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not true within %s: %s", patience, what)
		}
	}
}
