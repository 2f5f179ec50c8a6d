//go:build linux

package e2e_test

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"tollgate/models"
	"tollgate/models/billing/stripetest"
	"tollgate/models/modelstest"
)

const (
	// reported and reportedShort are how many events TestReported records, in its long form and in the
	// suite.
	reported, reportedShort = 20_000, 1_600
	// reportedBatch is the number of events in a call.
	reportedBatch = 50
	// reportedHours and reportedHoursShort are the numbers of past hours in which events occurred.
	reportedHours, reportedHoursShort = 10, 3
	// reportedPatience is how long delivery may take after everything is recorded. A stream of a
	// killed process waits until its lease expires, and calls to Stripe are slow in test mode.
	reportedPatience = 4 * time.Minute
	// killPatience is how long the test waits for a call of a process that it will kill during the
	// call.
	killPatience = 15 * time.Second
	// faultEvery means that the first call of every so many reports fails.
	faultEvery = 30
)

// Four processes report to one Stripe. Each is killed during a call, the database is killed once,
// and answers are lost. Stripe gets every unit of the ledger once, in its hour, and never two
// simultaneous calls for one customer. With -soak, there are more events, and the leases of killed
// processes expire.
func TestReported(t *testing.T) {
	t.Parallel()
	events, people, hours := reportedShort, 6, reportedHoursShort
	if *soak > 0 {
		events, people, hours = reported, 30, reportedHours
	}
	c := cluster(t)
	if err := c.CreateDatabase(t.Context(), "stripe"); err != nil {
		t.Fatal(err)
	}
	s, account := newStripeSite(t, c.URL("stripe"), 4)
	payers := account.payers(s, people)
	s.useIncluded(payers)

	l := &reportedLoad{
		site: s, account: account, cluster: c, payers: payers, hours: hours, answers: map[hour]int64{},
		last: time.Now().UTC().Truncate(time.Hour).Add(-2 * time.Hour),
	}
	begun := time.Now()
	l.run(events / reportedBatch)
	recorded := time.Since(begun)
	if t.Failed() {
		t.FailNow()
	}
	if *soak == 0 {
		s.endLeases()
	}
	s.wantReported()

	ledger := s.hours()
	if !maps.Equal(l.answers, ledger) {
		t.Errorf("units by customer and hour: sent %v, in the ledger %v", l.answers, ledger)
	}
	account.wantUnits(t, ledger)
	account.wantOrder(t)
	t.Logf("%d events of %d customers recorded in %s and then reported in %s, by %d calls, of which %d failed; %d processes died during one",
		events, len(account.customers), recorded.Round(time.Millisecond), (time.Since(begun) - recorded).Round(time.Millisecond),
		account.Calls()["POST /v1/billing/meter_events"], account.lost.Load(), account.inCalls.Load())
	s.judge()
	s.verify()
}

// reportedLoad records usage of payers in the past, while the processes and the database are
// killed.
type reportedLoad struct {
	*site
	account *account
	cluster *modelstest.Cluster
	payers  []payer
	// The events occurred in these many hours before last, so long ago that all are due immediately.
	last  time.Time
	hours int

	killing sync.WaitGroup
	// up is locked while a process or the database restarts. A process needs a database to start.
	up sync.Mutex

	mu      sync.Mutex
	answers map[hour]int64 // recorded units
}

// run records the batches and returns when everything has restarted.
func (l *reportedLoad) run(batches int) {
	killAt := map[int]int{}
	for i := range l.servers {
		killAt[batches*(2*i+1)/(2*len(l.servers))] = i
	}
	addresses := l.addresses()
	spread(l.t.Context(), 8, batches, func(i int) {
		if victim, kill := killAt[i]; kill {
			l.killing.Go(func() { l.killProcess(victim) })
		}
		if i == batches/2 {
			l.killing.Go(l.killDatabase)
		}
		l.record(addresses, i)
	})
	l.killing.Wait()
}

// killProcess kills a process during a call to Stripe, and starts it again.
func (l *reportedLoad) killProcess(victim int) {
	if err := l.account.kill(victim); err != nil {
		l.t.Error(err)
	}
	l.up.Lock()
	defer l.up.Unlock()
	l.restart(l.servers[victim])
}

func (l *reportedLoad) killDatabase() {
	l.up.Lock()
	defer l.up.Unlock()
	if err := errors.Join(l.cluster.Kill(), l.cluster.Restart(l.t.Context())); err != nil {
		l.t.Error(err)
	}
}

// record records one batch.
func (l *reportedLoad) record(addresses []string, i int) {
	var list []body
	units := map[hour]int64{}
	for n := range reportedBatch {
		p := l.payers[rand.IntN(len(l.payers))]
		at := l.last.Add(-time.Duration(rand.Int64N(int64(l.hours) * int64(time.Hour)))).Truncate(time.Second)
		quantity := 1 + rand.Int64N(3)
		units[hour{p.customer, at.Truncate(time.Hour)}] += quantity
		list = append(list, body{
			"email": p.email, "quantity": quantity, "idempotency_key": fmt.Sprintf("reported-%d-%d", i, n), "occurred_at": at,
		})
	}
	var answer struct {
		Results []struct{ Status string }
	}
	r := l.client.insist(l.t.Context(), addresses, i, http.MethodPost, "/v1/events", body{"events": list})
	if err := r.read(http.StatusOK, &answer); err != nil {
		l.t.Error(err)
		return
	}
	for _, r := range answer.Results {
		if r.Status != "recorded" && r.Status != "duplicate" {
			l.t.Errorf("an event is %s", r.Status)
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for k, n := range units {
		l.answers[k] += n
	}
}

// wantUnits compares the units at Stripe with the ledger.
func (a *account) wantUnits(t *testing.T, ledger map[hour]int64) {
	t.Helper()
	wrong := 0
	for k, units := range ledger {
		if got := a.Total(k.customer, k.start, k.start.Add(time.Hour)); got != units {
			if wrong++; wrong <= 10 {
				t.Errorf("%s, %s: the ledger has %d, Stripe %d", k.customer, k.start.Format(time.RFC3339), units, got)
			}
		}
	}
	var stripes, ours int64
	for _, e := range a.Events() {
		stripes += e.Value * int64(e.Times)
	}
	for _, units := range ledger {
		ours += units
	}
	if stripes != ours {
		t.Errorf("the ledger has %d units, Stripe %d", ours, stripes)
	}
}

// wantOrder checks that the calls for a customer were made one after another, and each attempt
// once.
func (a *account) wantOrder(t *testing.T) {
	t.Helper()
	for customer, most := range a.MaxConcurrent() {
		if most > 1 {
			t.Errorf("%d simultaneous calls for %s", most, customer)
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for key, times := range a.keys {
		if times > 1 {
			t.Errorf("the attempt %s was sent %d times", key, times)
		}
	}
}

// account is a stand-in for Stripe. Each process calls it at its own address, so it knows which
// process calls.
type account struct {
	*stripetest.Stripe
	customers []string
	servers   []*server
	// lost is the number of failed calls, and inCalls the number of processes that died during one.
	lost, inCalls atomic.Int64

	mu sync.Mutex
	// victims has the processes to kill at their next call. The channel receives the result.
	victims map[int]chan error
	seen    map[string]bool
	// keys counts how often each Idempotency-Key was received.
	keys map[string]int
}

// payer is a person, the customer who pays, and the included units of the plan.
type payer struct {
	email, customer string
	included        int
}

// hour is an hour of a customer.
type hour struct {
	customer string
	start    time.Time
}

// newStripeSite starts a site whose processes report to a stand-in. changes change each process
// before it starts.
func newStripeSite(t *testing.T, database string, processes int, changes ...func(i int, p *server)) (*site, *account) {
	t.Helper()
	catalogue, err := models.LoadCatalogue("")
	if err != nil {
		t.Fatal(err)
	}
	a := &account{victims: map[int]chan error{}, seen: map[string]bool{}, keys: map[string]int{}}
	a.Stripe = stripetest.New(stripetest.Options{
		Now: time.Now, Rand: rand.New(rand.NewPCG(1, 1)), Fault: a.chooseFault,
		// Some late calls arrive before the second try, and some after it.
		Latest: 15 * time.Second,
		// Calls take some time, so that two simultaneous calls would be detected.
		Wait: func(*http.Request) { time.Sleep(10 * time.Millisecond) },
	})
	for _, p := range catalogue.Plans {
		a.AddMeter(catalogue.MeterOf(p.ID))
	}
	s := &site{t: t, database: database, program: program(t)}
	s.client = newClient(s.apiKey("e2e", "check,consume,read"))
	t.Cleanup(s.client.http.CloseIdleConnections)
	for i := range processes {
		stand := httptest.NewServer(a.listener(t, i))
		t.Cleanup(stand.Close)
		p := newServer(t, fmt.Sprintf("process %d", i+1), database)
		p.args = append(p.args, "--stripe-api-base", stand.URL, "--report-every", "1s")
		p.env = append(p.env, "STRIPE_SECRET_KEY=sk_test_1", "STRIPE_WEBHOOK_SECRET=whsec_1")
		for _, change := range changes {
			change(i, p)
		}
		s.servers = append(s.servers, p)
	}
	a.servers = s.servers
	s.startAll()
	return s, a
}

// chooseFault lets the first call of some reports fail. A second try succeeds, to keep the test
// short.
func (a *account) chooseFault(r *http.Request, form url.Values) stripetest.Fault {
	a.mu.Lock()
	defer a.mu.Unlock()
	if key := r.Header.Get("Idempotency-Key"); key != "" {
		a.keys[key]++
	}
	id := form.Get("identifier")
	if r.Method != http.MethodPost || a.seen[id] {
		return stripetest.None
	}
	a.seen[id] = true
	if len(a.seen)%faultEvery != 0 {
		return stripetest.None
	}
	a.lost.Add(1)
	ways := []stripetest.Fault{
		stripetest.LostBefore, stripetest.LostAfter, stripetest.ErrorBefore, stripetest.ErrorAfter, stripetest.HTMLBefore, stripetest.HTMLAfter,
		stripetest.Late, stripetest.Conflict, stripetest.LockTimeout, stripetest.TooFast,
	}
	return ways[len(a.seen)/faultEvery%len(ways)]
}

// kill kills a process during its next call with a meter event. If it makes none within
// killPatience, because there is nothing for it to send, it is killed anyway.
func (a *account) kill(process int) error {
	dead := make(chan error, 1)
	a.mu.Lock()
	a.victims[process] = dead
	a.mu.Unlock()
	select {
	case err := <-dead:
		return err
	case <-time.After(killPatience):
	}
	a.mu.Lock()
	_, waits := a.victims[process]
	delete(a.victims, process)
	a.mu.Unlock()
	if !waits {
		return <-dead
	}
	return a.servers[process].crash()
}

// listener is the stand-in's handler for one process.
func (a *account) listener(t *testing.T, process int) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.mu.Lock()
		dead := a.victims[process]
		if dead == nil || r.Method != http.MethodPost {
			a.mu.Unlock()
			a.ServeHTTP(w, r)
			return
		}
		delete(a.victims, process)
		a.mu.Unlock()
		a.inCalls.Add(1)
		// Read all of the request before its sender dies.
		if err := r.ParseForm(); err != nil {
			t.Error(err)
		}
		// Half of the processes die before their call has its effect, the others after it. The deferred
		// call is needed because a stand-in's Fault may end this handler with a panic.
		if process%2 == 0 {
			err := a.servers[process].crash()
			defer func() { dead <- err }()
		} else {
			defer func() { dead <- a.servers[process].crash() }()
		}
		a.ServeHTTP(httptest.NewRecorder(), r)
	})
}

// payers creates customers at Stripe: two organizations, and this many people who pay for
// themselves.
func (a *account) payers(s *site, people int) []payer {
	s.t.Helper()
	var all []payer
	// The period starts days ago, so all hours are in one billing period.
	start := time.Now().UTC().Truncate(24*time.Hour).AddDate(0, 0, -5)
	db := s.open()
	pays := func(column string, subscriber any) string {
		customer := fmt.Sprintf("cus_%d", len(a.customers)+1)
		a.customers = append(a.customers, customer)
		a.AddCustomer(customer, nil)
		got, err := db.ExecContext(s.t.Context(), `UPDATE subscriptions SET stripe_customer_id = $1, billing_cycle_anchor = $2,
			current_period_start = $2, current_period_end = $3 WHERE `+column+` = $4`,
			customer, start, start.AddDate(0, 1, 0), subscriber)
		if err != nil {
			s.t.Fatal(err)
		}
		if n, err := got.RowsAffected(); err != nil || n != 1 {
			s.t.Fatalf("%d subscriptions of %v, %v", n, subscriber, err)
		}
		return customer
	}
	for i := range 2 {
		organization, emails := s.business(fmt.Sprintf("TPAYS%d", i), 10)
		customer := pays("organization_id", organization)
		for _, email := range emails {
			all = append(all, payer{email, customer, 100})
		}
	}
	for i := range people {
		email := fmt.Sprintf("payer%d@pays.example", i)
		subscription := s.command("subscribe", "--email", email, "--plan", "pro")
		all = append(all, payer{email, pays("id", subscription), 75})
	}
	if err := db.Close(); err != nil {
		s.t.Fatal(err)
	}
	return all
}

// useIncluded uses all included units of the payers, so that each further unit is overage.
func (s *site) useIncluded(payers []payer) {
	s.t.Helper()
	at := time.Now().UTC().Truncate(time.Hour).Add(-24 * time.Hour)
	var list []body
	for i, p := range payers {
		list = append(list, body{"email": p.email, "quantity": p.included, "idempotency_key": fmt.Sprint("included-", i), "occurred_at": at})
	}
	r := s.client.insist(s.t.Context(), s.addresses(), 0, http.MethodPost, "/v1/events", body{"events": list})
	if err := r.read(http.StatusOK, &struct{}{}); err != nil {
		s.t.Fatal(err)
	}
}

// endLeases restarts all processes and ends the leases that are left, instead of waiting for them
// to expire. They are from killed processes, and from calls whose answer could not be stored
// because the database was unavailable.
func (s *site) endLeases() {
	s.t.Helper()
	s.stopAll()
	db := s.open()
	got, err := db.ExecContext(s.t.Context(), `UPDATE stripe_streams SET leased_until = now() WHERE leased_until > now()`)
	if err != nil {
		s.t.Fatal(err)
	}
	n, err := got.RowsAffected()
	_, failed := db.ExecContext(s.t.Context(), `UPDATE stripe_customers SET leased_until = now() WHERE leased_until > now()`)
	if err := errors.Join(err, failed, db.Close()); err != nil {
		s.t.Fatal(err)
	}
	s.t.Logf("%d leases were left", n)
	s.startAll()
}

// wantReported waits until Stripe has accepted the reports of all events. No report may need
// attention.
func (s *site) wantReported() {
	s.t.Helper()
	db := s.open()
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	end := time.Now().Add(reportedPatience)
	for {
		var events int
		if err := db.QueryRowContext(s.t.Context(), `SELECT COUNT(*) FROM usage_events
			WHERE stripe_customer_id IS NOT NULL AND overage_quantity > 0 AND stripe_reported_at IS NULL`).Scan(&events); err != nil {
			s.t.Fatal(err)
		}
		if events == 0 {
			break
		}
		if time.Now().After(end) {
			s.t.Fatalf("%d events are not reported within %s; reports by state: %v", events, reportedPatience, s.states())
		}
		<-again.C
	}
	if err := db.Close(); err != nil {
		s.t.Fatal(err)
	}
	if states := s.states(); !slices.Equal(slices.Collect(maps.Keys(states)), []string{string(models.ReportAccepted)}) {
		s.t.Errorf("reports by state: %v, want all accepted", states)
	}
}

// states returns the number of reports in each state.
func (s *site) states() map[string]int {
	s.t.Helper()
	db := s.open()
	rows, err := db.QueryContext(s.t.Context(), `SELECT state, COUNT(*) FROM stripe_reports GROUP BY state`)
	if err != nil {
		s.t.Fatal(err)
	}
	defer rows.Close()
	all := map[string]int{}
	for rows.Next() {
		var state string
		var n int
		if err := rows.Scan(&state, &n); err != nil {
			s.t.Fatal(err)
		}
		all[state] = n
	}
	if err := errors.Join(rows.Err(), db.Close()); err != nil {
		s.t.Fatal(err)
	}
	return all
}

// hours returns the ledger's overage by customer and hour.
func (s *site) hours() map[hour]int64 {
	s.t.Helper()
	db := s.open()
	rows, err := db.QueryContext(s.t.Context(), `SELECT stripe_customer_id, date_trunc('hour', occurred_at),
			CAST(SUM(overage_quantity) AS bigint)
		FROM usage_events WHERE stripe_customer_id IS NOT NULL AND overage_quantity > 0 GROUP BY 1, 2`)
	if err != nil {
		s.t.Fatal(err)
	}
	defer rows.Close()
	all := map[hour]int64{}
	for rows.Next() {
		var k hour
		var units int64
		if err := rows.Scan(&k.customer, &k.start, &units); err != nil {
			s.t.Fatal(err)
		}
		k.start = k.start.UTC()
		all[k] = units
	}
	if err := errors.Join(rows.Err(), db.Close()); err != nil {
		s.t.Fatal(err)
	}
	return all
}
