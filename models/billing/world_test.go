package billing

import (
	"cmp"
	"context"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"testing"
	"time"

	"github.com/uptrace/bun"

	"tollgate/models"
	"tollgate/models/billing/stripetest"
)

// schedule describes one simulation. The same schedule always runs the same way.
type schedule struct {
	seed uint64
	days int
	// dropped is the share of meter events that Stripe accepts and never counts.
	dropped float64
	without mutant
}

// restores reports whether the database is lost and restored from a backup, as in a tenth of the
// schedules.
func (s schedule) restores() bool { return s.seed%10 == 0 }

func (s schedule) length() time.Duration { return time.Duration(s.days) * 24 * time.Hour }

// world is one simulation: a database, three processes, a Stripe that fails, and one clock. One
// goroutine drives it.
//
// It knows usage from the processes' answers, and billing periods from what was done at Stripe. It
// writes neither usage nor subscriptions.
type world struct {
	t   testing.TB
	ctx context.Context
	s   schedule
	// voiding chooses voids.
	rand, voiding *rand.Rand
	// db is the database. Through crashing, the same database, a process may crash at each statement.
	db, crashing *models.DB
	catalogue    *models.Catalogue
	stripe       *stripetest.Stripe
	prices       map[string]string // IDs by name
	processes    []*process
	payers       []*payer

	begin, now time.Time
	agenda     []appointment
	// away is true during Stripe's outage.
	away bool
	// points is the number of points that a process passes before it crashes. If negative, it does not
	// crash.
	points int
	keys   int
	// sent are the webhooks that a process has stored.
	sent   []storedWebhook
	backup *backup
	// mute means that no process reports, because the database is being restored.
	mute   bool
	busy   []string // identifiers: see busyUnsent
	counts map[string]int
}

// appointment is something that happens later.
type appointment struct {
	at time.Time
	do func()
}

func newWorld(t testing.TB, address string, s schedule) *world {
	t.Helper()
	begin := time.Date(2026, 11, 2, 9, 12, 41, 0, time.UTC)
	w := &world{
		t: t, ctx: t.Context(), s: s, rand: rand.New(rand.NewPCG(s.seed, 1)),
		voiding: rand.New(rand.NewPCG(s.seed, 3)), begin: begin, now: begin, points: -1,
		prices: map[string]string{}, counts: map[string]int{},
	}
	var err error
	w.catalogue, err = models.LoadCatalogue("")
	w.must(err)
	t.Cleanup(w.close)
	w.open(address)
	w.makeStripe()
	for i := range clocks {
		w.processes = append(w.processes, nil)
		w.start(i)
	}
	for i := range 4 {
		w.newPayer(i)
	}
	return w
}

// open opens the database.
func (w *world) open(address string) {
	w.t.Helper()
	var err error
	w.db, err = models.Open(w.ctx, address)
	w.must(err)
	if !w.db.Postgres {
		// The file is deleted after the test, so thousands of commits need not wait for the disk.
		w.db.SetMaxOpenConns(1)
		_, err = w.db.ExecContext(w.ctx, "PRAGMA synchronous = OFF")
		w.must(err)
	}
	w.mutate()
	hooked := *w.db
	hooked.DB = w.db.WithQueryHook(w)
	hooked.Sent = func(string) { w.point() }
	w.crashing = &hooked
}

// close ends all processes and closes the database.
func (w *world) close() {
	for i, p := range w.processes {
		if p != nil {
			p.gate.Close()
		}
		w.processes[i] = nil
	}
	if w.db != nil {
		_ = w.db.Close()
	}
	w.db = nil
}

// makeStripe makes the stand-in and sets it up as `tollgate stripe setup` does.
func (w *world) makeStripe() {
	chance := rand.New(rand.NewPCG(w.s.seed, 2))
	w.stripe = stripetest.New(stripetest.Options{
		Now: func() time.Time { return w.now }, Rand: chance, Lag: stripetest.Uniform(23*time.Hour + 50*time.Minute), Latest: 59 * time.Minute,
	})
	client, err := NewClient(ClientOptions{Key: "sk_test_simulated", Transport: w.stripe.Transport()})
	w.must(err)
	_, err = Setup(w.ctx, SetupOptions{
		DB: w.db, Client: client, Catalogue: w.catalogue, Now: func() time.Time { return w.now }, BaseURL: "https://tollgate.example.com",
	})
	w.must(err)
	w.must(w.catalogue.ReadMeters(w.ctx, w.db))
	var objects []models.StripeObject
	w.must(w.db.NewSelect().Model(&objects).Scan(w.ctx))
	for _, o := range objects {
		w.prices[o.Name] = o.StripeID
	}
	mix, most := stripetest.Mix(chance, 0.25), stripetest.Mix(chance, 0.8)
	w.stripe.SetFault(func(r *http.Request, form url.Values) stripetest.Fault {
		switch {
		case r.Method == http.MethodPost && chance.Float64() < w.s.dropped:
			return stripetest.Dropped
		case w.away:
			return most(r, form) // an outage begins with missing answers
		}
		return mix(r, form)
	})
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatalf("%s: %v", w.name(), err)
	}
}

// later makes an appointment.
func (w *world) later(wait time.Duration, do func()) {
	a := appointment{w.now.Add(wait), do}
	i, _ := slices.BinarySearchFunc(w.agenda, a, func(a, b appointment) int { return cmp.Or(a.at.Compare(b.at), -1) })
	w.agenda = slices.Insert(w.agenda, i, a)
}

// pass lets time pass and keeps the appointments in it.
func (w *world) pass(d time.Duration) {
	until := w.now.Add(d).Truncate(time.Microsecond)
	for len(w.agenda) > 0 && !w.agenda[0].at.After(until) {
		a := w.agenda[0]
		w.agenda = w.agenda[1:]
		if a.at.After(w.now) {
			w.now = a.at
		}
		a.do()
	}
	w.now = until
}

func (w *world) upTo(most time.Duration) time.Duration {
	return time.Duration(w.rand.Int64N(int64(most)))
}

// run lets the days of a schedule pass, and then as many days without errors as it takes to settle.
func (w *world) run() {
	w.plan(w.s.length())
	for end := w.now.Add(w.s.length()); w.now.Before(end); {
		w.pass(time.Minute + w.upTo(50*time.Minute))
		for range w.rand.IntN(8) {
			w.use()
			w.pass(w.upTo(20 * time.Second))
		}
		w.changeSubscriptions()
		w.work(w.anyProcess(), 0.15)
	}
	w.away = false
	w.stripe.SetOutage(false)
	w.stripe.SetFault(nil)
	for quiet := w.now.Add(20 * 24 * time.Hour); w.now.Before(quiet); {
		w.pass(2 * time.Hour)
		w.work(w.anyProcess(), 0)
		if w.settled() {
			break
		}
	}
}

// plan makes the appointments of each schedule: an outage of 20 to 40 hours, and in some a restore
// from a backup.
func (w *world) plan(length time.Duration) {
	away := w.upTo(length * 2 / 3)
	w.later(away, func() { w.away = true })
	w.later(away+40*time.Minute, func() { w.stripe.SetOutage(true) })
	w.later(away+40*time.Minute+20*time.Hour+w.upTo(20*time.Hour), func() { w.away = false; w.stripe.SetOutage(false) })
	if w.s.restores() {
		copied := length/8 + w.upTo(length/2)
		w.later(copied, w.copyDatabase)
		w.later(copied+time.Hour+w.upTo(23*time.Hour), w.restore)
	}
}

// settled reports whether nothing is open: no webhook is on its way, each report is in a final
// state, and Stripe's totals have all events.
func (w *world) settled() bool {
	if len(w.agenda) > 0 || w.mute {
		return false
	}
	for _, e := range w.stripe.Events() {
		if w.now.Sub(e.Received) < 25*time.Hour {
			return false
		}
	}
	return !w.waits()
}

// waits reports whether something is still to be sealed, sent, read or applied. A void whose negative
// report was not counted, or for which no minute is free, waits for the invoice, which may come later
// than the simulation ends.
func (w *world) waits() bool {
	for _, q := range []*bun.SelectQuery{
		w.db.NewSelect().Model((*models.StripeReport)(nil)).Where("state IN ('sealed', 'unknown', 'accepted')"),
		w.db.NewSelect().Model((*models.UsageEvent)(nil)).Where("stripe_report_id IS NULL AND overage_quantity > 0 AND voided_at IS NULL"),
		w.db.NewSelect().Model((*models.StripeWebhookEvent)(nil)).Where("applied_at IS NULL"),
		w.db.NewSelect().TableExpr("records_due"),
		w.db.NewSelect().Model((*models.UsageVoid)(nil)).Where("state = ?", models.VoidWaiting).
			Where(`EXISTS (SELECT 1 FROM usage_events e JOIN stripe_reports r ON r.id = COALESCE(usage_void.stripe_report_id, e.stripe_report_id)
				JOIN stripe_invoice_lines l ON l.stripe_customer_id = r.stripe_customer_id AND l.period_start <= r.minute AND l.period_end > r.minute
				JOIN stripe_invoices i ON i.id = l.stripe_invoice_id AND i.finalized_at IS NOT NULL
				WHERE e.user_id = usage_void.user_id AND e.id = usage_void.event_id)`),
	} {
		found, err := q.Exists(w.ctx)
		w.must(err)
		if found {
			return true
		}
	}
	unsealed, err := w.db.NewSelect().Model((*models.UsageVoid)(nil)).Where("state = ?", models.VoidWaiting).
		Where("EXISTS (SELECT 1 FROM usage_events e WHERE e.user_id = usage_void.user_id AND e.id = event_id AND e.stripe_report_id IS NULL)").
		Exists(w.ctx)
	if w.must(err); unsealed {
		return true
	}
	var reports []models.StripeReport
	w.must(w.db.NewSelect().Model(&reports).Where(`id IN (SELECT e.stripe_report_id FROM usage_voids v
		JOIN usage_events e ON e.user_id = v.user_id AND e.id = v.event_id WHERE v.state = ? AND v.stripe_report_id IS NULL)`,
		models.VoidWaiting).Scan(w.ctx))
	return slices.ContainsFunc(reports, w.hasFreeMinute)
}

// hasFreeMinute reports whether a minute of a report's billing period at Stripe has no report yet.
func (w *world) hasFreeMinute(r models.StripeReport) bool {
	for _, p := range w.payers {
		if p.id != r.StripeCustomerID {
			continue
		}
		of := p.at(r.Minute.UTC())
		if of.Start.IsZero() {
			return true
		}
		first := of.Start.Add(time.Minute - 1).Truncate(time.Minute)
		taken, err := w.db.NewSelect().Model((*models.StripeReport)(nil)).Where("stripe_customer_id = ? AND meter_event_name = ?", p.id,
			r.MeterEventName).Where("minute >= ? AND minute < ?", of.Start, of.End).Count(w.ctx)
		w.must(err)
		return time.Duration(taken)*time.Minute < of.End.Sub(first)
	}
	return false
}
