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
	// databaseCrashes is how often a long soak also kills the database. A short one does not.
	databaseCrashes = 20 * time.Second
	// newcomers is how often there are new people with the plan free, since the earlier ones have used
	// all of it.
	newcomers = 2 * time.Second
	// lapses is longer than the shortest hold lasts.
	lapses = 1500 * time.Millisecond
)

// Many clients make all kinds of API calls to three processes, which are killed, stopped and
// started all the time. The test keeps its own ledger, and at the end it must equal the database's.
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
	w := newWorld(s, worldOptions{duration: duration, members: 30, others: 5, pace: 4 * time.Millisecond})

	ctx, stop := context.WithTimeout(t.Context(), duration)
	defer stop()
	var clients sync.WaitGroup
	t.Cleanup(clients.Wait)
	for i := range soakClients {
		clients.Go(func() { (&caller{world: w, name: fmt.Sprintf("caller%d", i)}).run(ctx) })
	}
	disturbed := map[string]int{}
	nextCrash := w.begun.Add(databaseCrashes) // never reached in a short soak
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
	t.Logf("%d events, %d of them recorded by a call without an answer; done: %v", len(w.answers), w.done[unanswered], w.done)
	s.wantLedger(w.answers)
	w.wantUsage()
	s.judge()
	s.verify()
}

// unanswered counts events that were recorded by a call whose answer did not arrive.
const unanswered = "without an answer"

// world has the people and the answers of the soak.
type world struct {
	*site
	team, organization string
	members, others    []*someone
	newcomers          []*someone // with the plan free, a few for each part of the soak
	begun              time.Time
	pace               time.Duration
	jumps              bool

	mu      sync.Mutex
	answers ledger
	keys    []string // of answers, without those of holds
	done    map[string]int
}

// someone is a person and the bounds of their usage in the current period: at least what was
// answered, at most what was requested and not refused. The two differ while calls are in progress.
type someone struct {
	email, slack, plan string
	atLeast, atMost    atomic.Int64
	held               atomic.Int64 // on the holds that are not closed
}

// newcomersAtOnce is how many new people there are in each part of the soak, so that many calls
// compete for their units.
const newcomersAtOnce = 3

type worldOptions struct {
	duration time.Duration
	// members is the number of people with the plan business, and others with the plan starter.
	members, others int
	// pace is the longest pause of a client between two calls.
	pace time.Duration
	// jumps means that the clocks of processes jump during the soak. Then the time at which a hold
	// expires and the period of an event are not known.
	jumps bool
}

func newWorld(s *site, o worldOptions) *world {
	s.t.Helper()
	w := &world{site: s, team: "TSOAK", answers: ledger{}, done: map[string]int{}, pace: o.pace, jumps: o.jumps}
	var emails []string
	w.organization, emails = s.business(w.team, o.members)
	for i, email := range emails {
		w.members = append(w.members, &someone{email: email, slack: fmt.Sprintf("U%d", i), plan: "business"})
	}
	for i := range o.others {
		p := &someone{email: fmt.Sprintf("starter%d@soak.example", i), plan: "starter"}
		s.command("subscribe", "--email", p.email, "--plan", p.plan)
		w.others = append(w.others, p)
	}
	for i := range newcomersAtOnce * (int(o.duration/newcomers) + 1) {
		w.newcomers = append(w.newcomers, &someone{email: fmt.Sprintf("free%d@soak.example", i), plan: "free"})
	}
	w.begun = time.Now()
	return w
}

func (w *world) anyone() *someone {
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

func (w *world) everyone() []*someone {
	return append(append(append([]*someone{}, w.members...), w.others...), w.newcomers...)
}

// record stores an answered event.
func (w *world) record(key string, g grant, again bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if again {
		w.done[unanswered]++
	}
	if _, twice := w.answers[key]; twice {
		w.t.Errorf("%q was answered as new twice", key)
	}
	w.answers[key] = g
	if g.id != "" && key[:4] != "hold" {
		w.keys = append(w.keys, key)
	}
}

// recall returns a random answered event.
func (w *world) recall() (key string, g grant, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.keys) == 0 {
		return "", grant{}, false
	}
	key = w.keys[rand.IntN(len(w.keys))]
	return key, w.answers[key], true
}

func (w *world) count(what string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.done[what]++
}

// shortHoldsExpire waits until no short hold counts. The others last for an hour.
func (w *world) shortHoldsExpire() {
	w.t.Helper()
	db := w.open()
	defer func() { _ = db.Close() }()
	eventually(w.t, "the short holds have expired", func() bool {
		var open int
		now := time.Now()
		if err := db.QueryRowContext(w.t.Context(), `SELECT COUNT(*) FROM usage_holds
			WHERE state = 'open' AND expires_at > $1 AND expires_at < $2`, now, now.Add(lapses)).Scan(&open); err != nil {
			w.t.Fatal(err)
		}
		return open == 0
	})
}

// wantUsage compares each person's standing with the answers. No call may be in progress.
func (w *world) wantUsage() {
	w.t.Helper()
	w.shortHoldsExpire()
	people, addresses := w.everyone(), w.addresses()
	spread(w.t.Context(), 16, len(people), func(i int) {
		p := people[i]
		d, err := w.client.insist(w.t.Context(), addresses, i, http.MethodGet, "/v1/usage/"+p.email, nil).decision()
		used, held := p.atLeast.Load(), p.held.Load()
		if err != nil || d.Used != used || d.Held != held || d.Plan != p.plan || p.atMost.Load() != used {
			w.t.Errorf("%s has %+v; the answers have %d units used and %d held on the plan %s: %v", p.email, d, used, held, p.plan, err)
		}
	})
}
