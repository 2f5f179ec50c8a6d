//go:build linux

package e2e_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Thousands of calls are made for 100 people with 5 units each, while every process is killed. No
// unit is granted beyond the limit, none is lost, and none is counted twice.
func TestRaceForTheLastUnits(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind.name, func(t *testing.T) {
			processes, kills := 4, 4
			if kind.name == "SQLite" {
				processes, kills = 1, 6
			}
			race(t, newSite(t, kind.database(t), processes), kills)
		})
	}
}

func race(t *testing.T, s *site, kills int) {
	const people, included = 100, 5
	calls := 3_000
	if *soak > 0 {
		calls = 10_000
	}
	type job struct {
		key, email string
		turn       float64
	}
	jobs := make([]job, calls)
	for i := range jobs {
		// A person's calls are close together, mixed with those of the next people. So at any time there
		// are people with units left, and several calls compete for them.
		jobs[i] = job{fmt.Sprintf("race-%d", i), fmt.Sprintf("person%d@race.example", i%people), float64(i%people) + 15*rand.Float64()}
	}
	slices.SortFunc(jobs, func(a, b job) int {
		if a.turn < b.turn {
			return -1
		}
		return 1
	})
	killAt := map[int]*server{}
	for i := range kills {
		killAt[calls*(2*i+1)/(2*kills)] = s.servers[i%len(s.servers)]
	}

	answers := ledger{}
	var mu sync.Mutex
	var replayed atomic.Int64
	var killings sync.WaitGroup
	addresses := s.addresses()
	begun := time.Now()
	spread(t.Context(), 64, calls, func(i int) {
		if victim := killAt[i]; victim != nil {
			killings.Go(func() {
				if err := victim.crash(); err != nil {
					t.Error(err)
				}
				s.restart(victim)
			})
		}
		j := jobs[i]
		d, err := s.client.insist(t.Context(), addresses, i, http.MethodPost, "/v1/consume",
			body{"email": j.email, "idempotency_key": j.key}).decision()
		switch {
		case err != nil:
			t.Errorf("%s: %v", j.key, err)
		case d.Email != j.email || d.Included != included || d.Used > included || d.Allowed != (d.EventID != nil):
			t.Errorf("%s for %s was answered with %+v", j.key, j.email, d)
		case d.Allowed:
			if d.Replayed {
				replayed.Add(1)
			}
			mu.Lock()
			answers[j.key] = grant{*d.EventID, j.email, 1}
			mu.Unlock()
		case d.Reason == nil || *d.Reason != "included_exhausted" || d.Used != included:
			t.Errorf("%s for %s was refused with %+v", j.key, j.email, d)
		}
	})
	killings.Wait()
	t.Logf("%s in %s; of %d allowed, %d were recorded by a call without an answer",
		s.client, time.Since(begun).Round(10*time.Millisecond), len(answers), replayed.Load())

	if len(answers) != people*included {
		t.Errorf("%d calls were allowed, want exactly %d", len(answers), people*included)
	}
	for email, used := range answers.totals() {
		if used != included {
			t.Errorf("%s was allowed %d, want %d", email, used, included)
		}
	}
	s.wantLedger(answers)
	s.wantReplays(answers)
	s.wantLedger(answers)
	s.judge()
	s.verify()
}

// wantReplays repeats each allowed call, which must get its first answer.
func (s *site) wantReplays(answers ledger) {
	s.t.Helper()
	keys := make([]string, 0, len(answers))
	for key := range answers {
		keys = append(keys, key)
	}
	addresses := s.addresses()
	spread(s.t.Context(), 32, len(keys), func(i int) {
		g := answers[keys[i]]
		d, err := s.client.insist(s.t.Context(), addresses, i, http.MethodPost, "/v1/consume",
			body{"email": g.email, "quantity": g.quantity, "idempotency_key": keys[i]}).decision()
		if err != nil || !d.Allowed || !d.Replayed || d.EventID == nil || *d.EventID != g.id {
			s.t.Errorf("%s repeated was answered with %+v, want event %s replayed: %v", keys[i], d, g.id, err)
		}
	})
}
