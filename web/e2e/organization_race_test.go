//go:build linux

package e2e_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// races is how often TestRaceForAnOrganizationsLimit runs on each database.
var races = flag.Int("races", 1, "how often TestRaceForAnOrganizationsLimit runs on each database")

// raceSeed is the seed of the first run; the next runs have the next ones.
var raceSeed = flag.Uint64("race-seed", 1, "the seed of the first run of TestRaceForAnOrganizationsLimit")

// TestRaceForAnOrganizationsLimit makes the members of one organization compete for its spend limit
// through several processes, while the limit changes, members leave and come back, and processes
// are killed. Not one cent may be billed beyond the limit in force at the time of a decision.
func TestRaceForAnOrganizationsLimit(t *testing.T) {
	for _, kind := range kinds {
		for seed := *raceSeed; seed < *raceSeed+uint64(*races); seed++ {
			t.Run(fmt.Sprintf("%s, seed %d", kind.name, seed), func(t *testing.T) {
				processes, kills := 4, 4
				if kind.name == "SQLite" {
					processes = 1
				}
				newOrganizationRace(t, newSite(t, kind.database(t), processes), seed).run(kills)
			})
		}
	}
}

const (
	raceMembers  = 50
	raceIncluded = 100 // of the plan business
	raceRate     = 20  // cents
	raceHold     = 2   // seconds
)

// organizationRace is one run.
type organizationRace struct {
	*site
	organization string
	emails       []string
	calls        int
	limits       []int64 // in order; none is a multiple of the rate

	mu sync.Mutex
	// stops are the times in which a limit of 1 cent was in force, which allows no overage.
	stops [][2]time.Time
	// took is when each allowed call was first sent and when it was answered, by event ID.
	took map[string][2]time.Time
	// allowed and refused are numbers of answers.
	allowed, refused atomic.Int64
	seed             uint64
}

func newOrganizationRace(t *testing.T, s *site, seed uint64) *organizationRace {
	t.Helper()
	s.client.key = s.apiKey("race", "check,consume,read,manage")
	r := &organizationRace{site: s, calls: 2_000, took: map[string][2]time.Time{}, seed: seed}
	if *soak > 0 || *races > 1 {
		r.calls = 10_000
	}
	r.organization, r.emails = s.business("T1", raceMembers)
	addresses := s.addresses()
	spread(t.Context(), 16, raceMembers, func(i int) {
		d, err := s.client.insist(t.Context(), addresses, i, http.MethodPost, "/v1/consume", body{
			"email": r.emails[i], "quantity": raceIncluded - i%5, "idempotency_key": "included",
		}).decision()
		if err != nil || !d.Allowed {
			t.Errorf("the included units of %s: %+v, %v", r.emails[i], d, err)
		}
	})
	total := int64(r.calls) * raceRate / 2 // less than what all calls ask for
	for i := range int64(6) {
		r.limits = append(r.limits, total*(i+1)/8+7, 1)
	}
	return r
}

func (r *organizationRace) run(kills int) {
	t := r.t
	t.Helper()
	r.setLimit(0, r.limits[0])
	var beside sync.WaitGroup
	killed := map[int]*server{}
	for i := range kills {
		killed[r.calls*(2*i+1)/(2*kills)] = r.servers[i%len(r.servers)]
	}
	changed := map[int]int64{}
	for i, limit := range r.limits[1:] {
		changed[r.calls*(i+1)/len(r.limits)] = limit
	}
	var changing sync.Mutex // the limits change one after another
	spread(t.Context(), 64, r.calls, func(i int) {
		if victim := killed[i]; victim != nil {
			beside.Go(func() {
				if err := victim.crash(); err != nil {
					t.Error(err)
				}
				r.restart(victim)
			})
		}
		if limit, ok := changed[i]; ok {
			beside.Go(func() {
				changing.Lock()
				defer changing.Unlock()
				r.setLimit(i, limit)
			})
		}
		random := rand.New(rand.NewPCG(r.seed, uint64(i)))
		if i%(r.calls/25) == 0 {
			r.move(i, random)
		}
		r.call(i, random)
	})
	beside.Wait()
	r.check()
}

// setLimit sets the spend limit and notes when it allows no overage.
func (r *organizationRace) setLimit(nth int, cents int64) {
	r.t.Helper()
	r.mu.Lock()
	if n := len(r.stops); n > 0 && r.stops[n-1][1].IsZero() {
		r.stops[n-1][1] = time.Now() // the new limit may be in force from now on
	}
	r.mu.Unlock()
	reply := r.client.insist(r.t.Context(), r.addresses(), nth, http.MethodPatch, "/v1/organizations/"+r.organization,
		body{"spend_limit_cents": cents})
	if err := reply.read(http.StatusOK, &struct{}{}); err != nil {
		r.t.Errorf("set the limit to %d: %v", cents, err)
	}
	if cents == 1 {
		r.mu.Lock()
		r.stops = append(r.stops, [2]time.Time{time.Now()})
		r.mu.Unlock()
	}
}

// move makes a member leave the organization and come back after a call of their own.
func (r *organizationRace) move(nth int, random *rand.Rand) {
	email, addresses := r.emails[random.IntN(raceMembers)], r.addresses()
	for _, organization := range []any{nil, r.organization} {
		reply := r.client.insist(r.t.Context(), addresses, nth, http.MethodPatch, "/v1/users/"+email, body{"organization_id": organization})
		if err := reply.read(http.StatusOK, &struct{}{}); err != nil {
			r.t.Errorf("move %s: %v", email, err)
		}
		if organization == nil {
			r.consume(nth, email, fmt.Sprintf("alone-%d", nth), 1)
		}
	}
}

// call consumes units, or holds them and then settles the hold, releases it or leaves it to expire.
func (r *organizationRace) call(nth int, random *rand.Rand) {
	email, key, quantity := r.emails[random.IntN(raceMembers)], fmt.Sprintf("race-%d", nth), 1+random.IntN(3)
	if random.IntN(3) > 0 {
		r.consume(nth, email, key, quantity)
		return
	}
	ctx, addresses := r.t.Context(), r.addresses()
	sent := time.Now()
	d, err := r.client.insist(ctx, addresses, nth, http.MethodPost, "/v1/holds", body{
		"email": email, "quantity": quantity, "idempotency_key": key, "ttl_seconds": raceHold,
	}).decision()
	if err != nil {
		r.t.Errorf("hold %s: %v", key, err)
	}
	if !r.count(d, err) || d.Hold == nil || d.Hold.State != "open" {
		return
	}
	path := "/v1/holds/" + d.Hold.ID
	switch random.IntN(4) {
	case 0:
		reply := r.client.insist(ctx, addresses, nth, http.MethodPost, path+"/release", body{})
		if err := reply.read(http.StatusOK, &struct{}{}); err != nil {
			r.t.Errorf("release %s: %v", key, err)
		}
	case 1: // it expires
	default:
		reply := r.client.insist(ctx, addresses, nth, http.MethodPost, path+"/settle", body{"quantity": 1 + random.IntN(quantity)})
		if p, err := reply.problem(); err == nil && reply.status == http.StatusConflict && p.Code == "hold_expired" {
			return // it was killed for so long
		}
		if d, err := reply.decision(); err != nil {
			r.t.Errorf("settle %s: %v", key, err)
		} else {
			r.note(*d.EventID, sent)
		}
	}
}

func (r *organizationRace) consume(nth int, email, key string, quantity int) {
	sent := time.Now()
	d, err := r.client.insist(r.t.Context(), r.addresses(), nth, http.MethodPost, "/v1/consume", body{
		"email": email, "quantity": quantity, "idempotency_key": key,
	}).decision()
	if err != nil {
		r.t.Errorf("consume %s: %v", key, err)
	}
	if r.count(d, err) {
		r.note(*d.EventID, sent)
	}
}

// count counts an answer and returns whether it allows.
func (r *organizationRace) count(d decision, err error) bool {
	switch {
	case err != nil:
		return false
	case d.Allowed:
		r.allowed.Add(1)
	// the latter is of the free plan
	case d.Reason != nil && (*d.Reason == "organization_spend_limit_reached" || *d.Reason == "included_exhausted"):
		r.refused.Add(1)
	default:
		r.t.Errorf("a call was refused with %+v", d)
	}
	return d.Allowed
}

func (r *organizationRace) note(event string, sent time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.took[event] = [2]time.Time{sent, time.Now()}
}

// check compares what was billed with the limits.
func (r *organizationRace) check() {
	t := r.t
	t.Helper()
	var most int64
	for _, limit := range r.limits {
		most = max(most, limit)
	}
	spent := r.spent()
	t.Logf("%s; %d allowed, %d refused, %d of at most %d cents billed", r.client, r.allowed.Load(), r.refused.Load(), spent, most)
	if spent > most {
		t.Errorf("%d cents were billed, and no limit was above %d", spent, most)
	}
	if r.refused.Load() == 0 {
		t.Error("no call was refused")
	}
	for event, cents := range r.overage() {
		for _, stop := range r.stops {
			took, ok := r.took[event]
			if ok && took[0].After(stop[0]) && (stop[1].IsZero() || took[1].Before(stop[1])) {
				t.Errorf("event %s cost %d cents from %s to %s, while the limit was 1 cent from %s to %s", event, cents, took[0], took[1],
					stop[0], stop[1])
			}
		}
	}
	r.verify()
	r.judge()

	// When all holds have ended, the members together get exactly what the limit allows.
	limit := spent + 3*raceRate + 7
	r.setLimit(0, limit)
	eventually(t, "the last holds expire", func() bool {
		for i, email := range r.emails {
			r.consume(i, email, fmt.Sprintf("rest-%d-%d", i, time.Now().UnixNano()), 1)
		}
		return r.spent() > limit-raceRate
	})
	if spent := r.spent(); spent > limit {
		t.Errorf("%d cents were billed under a limit of %d", spent, limit)
	}
	r.verify()
}

// spent returns the cents that the organization pays for.
func (r *organizationRace) spent() (cents int64) {
	r.t.Helper()
	db := r.open()
	defer func() { _ = db.Close() }()
	if err := db.QueryRowContext(r.t.Context(), "SELECT CAST(SUM(overage_cents) AS bigint) FROM usage_records WHERE payer = $1",
		"organization:"+r.organization).Scan(&cents); err != nil {
		r.t.Fatal(err)
	}
	return cents
}

// overage returns the cents of each event with overage.
func (r *organizationRace) overage() map[string]int64 {
	r.t.Helper()
	db := r.open()
	defer func() { _ = db.Close() }()
	rows, err := db.QueryContext(r.t.Context(), "SELECT CAST(id AS text), overage_cents FROM usage_events WHERE overage_cents > 0 "+
		"AND hold_id IS NULL")
	if err != nil {
		r.t.Fatal(err)
	}
	defer rows.Close()
	events := map[string]int64{}
	for rows.Next() {
		var id string
		var cents int64
		if err := rows.Scan(&id, &cents); err != nil {
			r.t.Fatal(err)
		}
		events[id] = cents
	}
	if err := rows.Err(); err != nil {
		r.t.Fatal(err)
	}
	return events
}
