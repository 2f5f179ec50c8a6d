//go:build linux

package e2e_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"tollgate/models/modelstest"
)

const (
	shortSoak   = 5 * time.Second
	soakClients = 24
	// soakTurns bounds what one client does, however long the soak is.
	soakTurns = 100_000
	// databaseCrashes is how often a long soak kills the database as well; a short one leaves it alone.
	databaseCrashes = 20 * time.Second
	// newcomers is how often there are new people on the plan free, as those who came before have used it up.
	newcomers = 2 * time.Second
	// lapses is longer than the time after which the shortest hold has expired.
	lapses = 1500 * time.Millisecond
)

// Everything at once, for as long as -soak says: all calls of the API by many clients over three processes, which are
// killed and stopped and started all the while. The test keeps a ledger of its own, and at the end the two are one.
func TestSoak(t *testing.T) {
	t.Parallel()
	duration := shortSoak
	if *soak > 0 {
		duration = *soak
	}
	var c *modelstest.Cluster
	var s *site
	if duration < databaseCrashes {
		s = newSite(t, postgresDatabase(t), 3)
	} else {
		c = cluster(t)
		if err := c.CreateDatabase(t.Context(), "soak"); err != nil {
			t.Fatal(err)
		}
		s = newSite(t, c.URL("soak"), 3)
	}
	w := newWorld(s, duration)

	ctx, stop := context.WithTimeout(t.Context(), duration)
	defer stop()
	var clients sync.WaitGroup
	t.Cleanup(clients.Wait)
	for i := range soakClients {
		clients.Go(func() { (&caller{world: w, name: fmt.Sprintf("caller%d", i)}).run(ctx) })
	}
	disturbed := map[string]int{}
	nextCrash := w.begun.Add(databaseCrashes) // never, in a short one
	for pause(ctx, time.Duration(200+rand.IntN(600))*time.Millisecond) && !t.Failed() {
		p := s.servers[rand.IntN(len(s.servers))]
		switch {
		case time.Now().After(nextCrash):
			nextCrash = time.Now().Add(databaseCrashes)
			disturbed["database killed"]++
			if err := c.Kill(); err != nil {
				t.Fatal(err)
			}
			pause(ctx, time.Second)
			if err := c.Restart(t.Context()); err != nil {
				t.Fatal(err)
			}
		case rand.IntN(6) == 0:
			disturbed["process stopped"]++
			if _, err := p.stop(); err != nil {
				t.Error(err)
			}
			s.restart(p)
		default:
			disturbed["process killed"]++
			if err := p.crash(); err != nil {
				t.Error(err)
			}
			s.restart(p)
		}
	}
	stop()
	clients.Wait()
	t.Logf("%s: %s; %v", duration, s.client, disturbed)
	t.Logf("%d events, %d of them recorded by a call whose answer stayed out; done: %v", len(w.told), w.done["answer stayed out"], w.done)
	s.wantLedger(w.told)
	w.wantUsage()
	s.judge()
	s.verify()
}

// world is who is there, and what callers were told.
type world struct {
	*site
	team, organization string
	members, others    []*someone
	newcomers          []*someone // on the plan free, a few for each stretch of the soak
	begun              time.Time

	mu   sync.Mutex
	told ledger
	keys []string // of told, but for holds
	done map[string]int
}

// someone is a person and what they used in the current period, in units: at least what callers were told, at most
// what was asked for and not refused. The two differ while calls are under way.
type someone struct {
	email, slack, plan string
	atLeast, atMost    atomic.Int64
	held               atomic.Int64 // on the holds that nobody closes
}

// newcomersAtOnce share the attention for one stretch, so that many calls fight for each one's few units.
const newcomersAtOnce = 3

func newWorld(s *site, duration time.Duration) *world {
	s.t.Helper()
	w := &world{site: s, team: "TSOAK", told: ledger{}, done: map[string]int{}}
	var emails []string
	w.organization, emails = s.business(w.team, 30)
	for i, email := range emails {
		w.members = append(w.members, &someone{email: email, slack: fmt.Sprintf("U%d", i), plan: "business"})
	}
	for i := range 5 {
		p := &someone{email: fmt.Sprintf("starter%d@soak.example", i), plan: "starter"}
		s.command("subscribe", "--email", p.email, "--plan", p.plan)
		w.others = append(w.others, p)
	}
	for i := range newcomersAtOnce * (int(duration/newcomers) + 1) {
		w.newcomers = append(w.newcomers, &someone{email: fmt.Sprintf("free%d@soak.example", i), plan: "free"})
	}
	w.begun = time.Now()
	return w
}

func (w *world) anybody() *someone {
	switch n := rand.IntN(10); {
	case n < 5:
		return w.members[rand.IntN(len(w.members))]
	case n < 7:
		return w.others[rand.IntN(len(w.others))]
	default:
		stretch := min(int(time.Since(w.begun)/newcomers), len(w.newcomers)/newcomersAtOnce-1)
		return w.newcomers[stretch*newcomersAtOnce+rand.IntN(newcomersAtOnce)]
	}
}

func (w *world) everybody() []*someone {
	return append(append(append([]*someone{}, w.members...), w.others...), w.newcomers...)
}

// tell notes an event that a caller was told of.
func (w *world) tell(key string, g grant, again bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if again {
		w.done["answer stayed out"]++
	}
	if _, twice := w.told[key]; twice {
		w.t.Errorf("%q was told as new twice", key)
	}
	w.told[key] = g
	if g.id != "" && key[:4] != "hold" {
		w.keys = append(w.keys, key)
	}
}

// recall returns an event that some caller was told of.
func (w *world) recall() (key string, g grant, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.keys) == 0 {
		return "", grant{}, false
	}
	key = w.keys[rand.IntN(len(w.keys))]
	return key, w.told[key], true
}

func (w *world) count(what string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.done[what]++
}

// wantUsage compares each person's standing with what callers were told, when nothing is under way any more.
func (w *world) wantUsage() {
	w.t.Helper()
	time.Sleep(time.Until(time.Now().Add(lapses))) // the short holds are over
	people, addresses := w.everybody(), w.addresses()
	spread(w.t.Context(), 16, len(people), func(i int) {
		p := people[i]
		d, err := w.client.insist(w.t.Context(), addresses, i, http.MethodGet, "/v1/usage/"+p.email, nil).decision()
		used, held := p.atLeast.Load(), p.held.Load()
		if err != nil || d.Used != used || d.Held != held || d.Plan != p.plan || p.atMost.Load() != used {
			w.t.Errorf("%s stands at %+v; callers were told of %d units used and %d held on the plan %s: %v", p.email, d, used, held, p.plan, err)
		}
	})
}
