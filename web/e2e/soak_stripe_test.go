//go:build linux

package e2e_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"tollgate/models/billing/stripetest"
)

const (
	// shortPaid is how long the short form of TestSoakStripe runs its load.
	shortPaid = 2 * time.Second
	// paidResets is how often the long form starts a new billing period of a subscription, and
	// paidLate is the longest delay of its webhook.
	paidResets, paidLate = 20 * time.Second, 40 * time.Second
	// paidUnits is the least that each of a person's two clients consumes. Together, they exceed the
	// included units of every plan here.
	paidUnits = 60
)

// Three processes on one database get signed webhooks of subscriptions, decide usage and report its
// overage, while they are killed one after another. At the end, Stripe has the ledger's overage,
// and so have the totals of each billing period.
func TestSoakStripe(t *testing.T) {
	t.Parallel()
	duration := shortPaid
	if *soak > 0 {
		duration = min(*soak, 5*time.Minute)
	}
	s, account := newStripeSite(t, postgresDatabase(t), 3)
	w := &paidWorld{site: s, account: account, answered: ledger{}}
	w.setUp()
	for i := range 6 {
		w.subscribe(i)
	}
	w.webhooks.Wait()
	ctx, stop := context.WithTimeout(t.Context(), duration)
	defer stop()
	var clients sync.WaitGroup
	t.Cleanup(clients.Wait)
	for _, p := range w.payers {
		for n := range 2 {
			clients.Go(func() { w.use(ctx, p, n) })
		}
	}
	killed, nextReset := 0, time.Now().Add(paidResets) // never reached in the short form
	for pause(ctx, time.Duration(300+rand.IntN(500))*time.Millisecond) && !t.Failed() {
		if time.Now().After(nextReset) {
			nextReset = time.Now().Add(paidResets)
			w.reset(w.payers[rand.IntN(len(w.payers))], time.Duration(rand.Int64N(int64(paidLate))))
		}
		p := s.servers[rand.IntN(len(s.servers))]
		if err := p.crash(); err != nil {
			t.Error(err)
		}
		killed++
		s.restart(p)
	}
	stop()
	clients.Wait()
	if *soak == 0 {
		s.endLeases()
	}
	// Stripe's times are whole seconds, and the usage must be before the end of the periods.
	used := time.Now()
	eventually(t, "a whole second begins after the usage", func() bool { return time.Now().Truncate(time.Second).After(used) })
	for _, p := range w.payers {
		w.reset(p, 0)
	}
	w.webhooks.Wait()
	s.wantReported()
	t.Logf("%s: %s; %d processes killed, %d events, %d billing periods", duration, s.client, killed, len(w.answered), w.periods())
	s.wantLedger(w.answered)
	w.wantTotals()
	s.judge()
	s.verify()
}

// paidWorld has the people who pay through Stripe, and the answers.
type paidWorld struct {
	*site
	account  *account
	stand    string // the stand-in's address for commands
	prices   map[string]string
	payers   []*paid
	webhooks sync.WaitGroup

	mu       sync.Mutex
	answered ledger
}

// paid is a person with a subscription. starts has the starts of its billing periods. Each period
// ends when the next one starts.
type paid struct {
	email, customer, plan, subscription string
	starts                              []time.Time
}

// setUp creates the prices.
func (w *paidWorld) setUp() {
	w.t.Helper()
	stand := httptest.NewServer(w.account.Stripe)
	w.t.Cleanup(stand.Close)
	w.stand = stand.URL
	if r := w.stripe("setup", "--base-url", "https://tollgate.example.com"); r.status != 0 {
		w.t.Fatalf("stripe setup: %+v", r)
	}
	db := w.open()
	rows, err := db.QueryContext(w.t.Context(), `SELECT name, stripe_id FROM stripe_objects`)
	if err != nil {
		w.t.Fatal(err)
	}
	defer rows.Close()
	w.prices = map[string]string{}
	for rows.Next() {
		var name, id string
		if err := rows.Scan(&name, &id); err != nil {
			w.t.Fatal(err)
		}
		w.prices[name] = id
	}
	if err := rows.Err(); err != nil {
		w.t.Fatal(err)
	}
}

// stripe runs `tollgate stripe` with arguments.
func (w *paidWorld) stripe(args ...string) result {
	variables := []string{"DATABASE_URL=" + w.database, "STRIPE_SECRET_KEY=sk_test_1", "STRIPE_API_BASE=" + w.stand}
	return runIt(w.t, variables, append([]string{"stripe"}, args...)...)
}

func (w *paidWorld) subscribe(i int) {
	start := time.Now().UTC().Truncate(time.Second).Add(-time.Hour)
	p := &paid{
		email: fmt.Sprintf("paid%d@paid.example", i), customer: fmt.Sprintf("cus_paid%d", i), plan: []string{"starter", "pro"}[i%2],
		starts: []time.Time{start},
	}
	w.account.AddCustomer(p.customer, map[string]string{"tollgate_email": p.email})
	p.subscription = w.account.AddSubscription(stripetest.Subscription{
		Customer: p.customer, PeriodStart: start, PeriodEnd: start.AddDate(0, 1, 0),
		Items: []stripetest.Item{{Price: w.prices["price:"+p.plan], Quantity: 1}, {Price: w.prices["overage:"+p.plan]}},
	})
	w.payers = append(w.payers, p)
	w.sendWebhook(p, "customer.subscription.created", 0)
}

// reset starts a new billing period now.
func (w *paidWorld) reset(p *paid, late time.Duration) {
	start := time.Now().UTC().Truncate(time.Second)
	p.starts = append(p.starts, start)
	w.account.ChangeSubscription(p.subscription, func(s *stripetest.Subscription) {
		s.PeriodStart, s.PeriodEnd, s.Anchor = start, start.AddDate(0, 1, 0), start
	})
	w.sendWebhook(p, "customer.subscription.updated", late)
}

// sendWebhook sends a webhook with the subscription's current state after a delay. It retries until
// a process accepts it.
func (w *paidWorld) sendWebhook(p *paid, kind string, late time.Duration) {
	body, _ := w.account.SignedEvent("whsec_1", time.Now(), kind, w.account.Object(p.subscription))
	w.webhooks.Go(func() {
		end := time.Now().Add(late + time.Minute)
		for pause(w.t.Context(), late) {
			late = 50 * time.Millisecond
			status, err := post(w.t.Context(), w.addresses()[rand.IntN(len(w.servers))], body)
			if err == nil && status == http.StatusOK {
				return
			}
			if time.Now().After(end) {
				w.t.Errorf("no process accepts the webhook: status %d, %v", status, err)
				return
			}
		}
	})
}

func post(ctx context.Context, address string, body []byte) (status int, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+address+"/stripe/webhook", bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Stripe-Signature", stripetest.Sign("whsec_1", time.Now(), body))
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	_, err = io.Copy(io.Discard, response.Body)
	return response.StatusCode, err
}

// use consumes a person's units until the context ends, and at least paidUnits: on a busy machine,
// the load may end before anyone has overage.
func (w *paidWorld) use(ctx context.Context, p *paid, client int) {
	units := int64(0)
	for n := 0; (ctx.Err() == nil || units < paidUnits) && !w.t.Failed(); n++ {
		key, quantity := fmt.Sprintf("%s-%d-%d", p.email, client, n), 1+rand.Int64N(5)
		d, err := w.client.insist(w.t.Context(), w.addresses(), rand.IntN(len(w.servers)), http.MethodPost, "/v1/consume",
			body{"email": p.email, "quantity": quantity, "idempotency_key": key}).decision()
		if err != nil || !d.Allowed || d.EventID == nil || d.Plan != p.plan {
			w.t.Errorf("%s on %s: %+v, %v", p.email, p.plan, d, err)
			return
		}
		units += quantity
		w.mu.Lock()
		w.answered[key] = grant{*d.EventID, p.email, quantity}
		w.mu.Unlock()
		pause(ctx, time.Duration(10+rand.IntN(40))*time.Millisecond)
	}
}

func (w *paidWorld) periods() (n int) {
	for _, p := range w.payers {
		n += len(p.starts)
	}
	return n
}

// wantTotals compares the ledger's overage with Stripe's units, for each person and billing period.
// In a period, they may differ by what was sent before the period's end was known, if the totals
// show the same difference.
func (w *paidWorld) wantTotals() {
	w.t.Helper()
	r := w.stripe("reconcile")
	db := w.open()
	for _, p := range w.payers {
		var ledger, stripes int64
		meter := w.prices["meter:"+p.plan]
		for i, start := range p.starts {
			end := start.AddDate(0, 1, 0)
			if i+1 < len(p.starts) {
				end = p.starts[i+1]
			}
			var used, misplaced int64
			counted := w.account.Total(p.customer, start, end)
			if err := db.QueryRowContext(w.t.Context(), `SELECT CAST(COALESCE(SUM(overage_quantity), 0) AS bigint) FROM usage_events
				WHERE stripe_customer_id = $1 AND occurred_at >= $2 AND occurred_at < $3`, p.customer, start, end).Scan(&used); err != nil {
				w.t.Fatal(err)
			}
			ledger, stripes = ledger+used, stripes+counted
			if err := db.QueryRowContext(w.t.Context(), `SELECT CAST(COALESCE(SUM(misplaced), 0) AS bigint)
				FROM stripe_totals WHERE stripe_customer_id = $1 AND period_start = $2`, p.customer, start).Scan(&misplaced); err != nil {
				w.t.Fatal(err)
			}
			if counted-used != misplaced {
				w.t.Errorf("%s from %s to %s: the ledger has %d, %s at Stripe %d, and the totals say %+d", p.customer,
					start.Format(time.RFC3339), end.Format(time.RFC3339), used, meter, counted, misplaced)
			}
		}
		if ledger != stripes || ledger == 0 {
			w.t.Errorf("%s: the ledger has %d units of overage, and Stripe %d", p.customer, ledger, stripes)
		}
	}
	if w.t.Failed() {
		w.t.Logf("%s%s", r.stdout, r.stderr)
	}
}
