package billing

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/uptrace/bun"

	"tollgate/models"
	"tollgate/models/billing/stripetest"
)

// fault is what a simulation leaves out, to show that it would notice.
type fault int

const (
	nothing fault = iota
	// noIdentifier sends each attempt under another identifier.
	noIdentifier
	// noGuard sends again after Stripe forgot the identifier.
	noGuard
	// noPrivateMinute sends all reports of an hour at the hour's beginning.
	noPrivateMinute
	// noFreeze sums the value again at each attempt.
	noFreeze
)

// schedule is what happens in one simulation; the same one happens the same way again.
type schedule struct {
	seed uint64
	// dropped is the share of meter events that Stripe takes and never counts.
	dropped float64
	without fault
}

// crash is the panic of a process that ends at once.
type crash struct{}

// world is one simulation: a ledger, some processes that report it, a Stripe with faults, and one clock.
type world struct {
	t         testing.TB
	ctx       context.Context
	s         schedule
	rand      *rand.Rand
	now       time.Time
	db        *models.DB
	catalogue *models.Catalogue
	stripe    *stripetest.Stripe
	reporters []*Reporter
	customers []*payer

	// points is how many more points a process passes before it crashes; negative is none.
	points int
	key    int
}

// plans are those that usage is decided under: each has its meter.
var plans = []models.PlanID{"pro", "starter"}

// payer is a customer of Stripe's with a subscription.
type payer struct {
	id, email    string
	subscription uuid.UUID
	// periods are the billing periods as they were, in order, the last one open.
	periods []models.Period
}

func newWorld(t testing.TB, address string, s schedule) *world {
	t.Helper()
	w := &world{
		t: t, ctx: t.Context(), s: s, rand: rand.New(rand.NewPCG(s.seed, 1)), now: time.Date(2026, 11, 2, 9, 12, 41, 0, time.UTC), points: -1,
	}
	var err error
	w.catalogue, err = models.LoadCatalogue("")
	w.must(err)
	w.db, err = models.Open(w.ctx, address)
	w.must(err)
	t.Cleanup(func() { _ = w.db.Close() })
	if !w.db.Postgres {
		// The file is gone after the test, and thousands of commits are not to wait for the disk.
		w.db.SetMaxOpenConns(1)
		w.exec("PRAGMA synchronous = OFF")
	}
	w.db.DB = w.db.WithQueryHook(w)
	faults := rand.New(rand.NewPCG(s.seed, 2))
	mix := stripetest.Mix(faults, 0.25)
	w.stripe = stripetest.New(stripetest.Options{
		Now: func() time.Time { return w.now }, Rand: faults, Lag: stripetest.Uniform(time.Hour),
		Fault: func(r *http.Request, form url.Values) stripetest.Fault {
			if r.Method == http.MethodPost && faults.Float64() < s.dropped {
				return stripetest.Dropped
			}
			return mix(r, form)
		},
	})
	for _, p := range plans {
		w.stripe.AddMeter(w.catalogue.MeterOf(p))
	}
	for i := range 5 {
		w.subscribe(i)
	}
	for range 3 {
		w.reporters = append(w.reporters, w.process())
	}
	return w
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatalf("seed %d: %v", w.s.seed, err)
	}
}

func (w *world) exec(query string, args ...any) {
	w.t.Helper()
	_, err := w.db.ExecContext(w.ctx, query, args...)
	w.must(err)
}

// process is a process that has just begun.
func (w *world) process() *Reporter {
	c, err := NewClient(ClientOptions{Key: "sk_test_simulated", Transport: carrier{w, w.stripe.Transport()}})
	w.must(err)
	ids := rand.NewChaCha8([32]byte{byte(w.rand.Uint32()), byte(w.rand.Uint32()), byte(w.rand.Uint32()), byte(w.rand.Uint32())})
	r := NewReporter(Options{
		DB: w.db, Client: c, Catalogue: w.catalogue, Now: func() time.Time { return w.now }, Log: slog.New(slog.DiscardHandler), Every: time.Minute,
		Rate:   math.Inf(1), // its time is the real one, of which none passes here
		Random: w.rand.Float64, NewID: func() uuid.UUID { return uuid.Must(uuid.NewRandomFromReader(ids)) },
	})
	if w.s.without == noGuard {
		r.guard = 1000 * time.Hour
	}
	return r
}

// BeforeQuery and AfterQuery make the world a hook of the database: a process may end after each of its statements, those that commit among them.
func (w *world) BeforeQuery(ctx context.Context, _ *bun.QueryEvent) context.Context { return ctx }

func (w *world) AfterQuery(_ context.Context, e *bun.QueryEvent) {
	if e.Query != "BEGIN" && e.Query != "ROLLBACK" {
		w.point()
	}
}

func (w *world) point() {
	if w.points--; w.points == -1 {
		panic(crash{})
	}
	w.points = max(w.points, -1)
}

// carrier carries requests; a process may end before one and after one. It also leaves out what the schedule leaves out.
type carrier struct {
	w    *world
	next http.RoundTripper
}

func (c carrier) RoundTrip(r *http.Request) (*http.Response, error) {
	c.w.point()
	if r.Method == http.MethodPost && c.w.s.without != nothing {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return nil, err
		}
		form, err := url.ParseQuery(string(body))
		if err != nil {
			return nil, err
		}
		c.w.spoil(form)
		r = r.Clone(r.Context())
		text := form.Encode()
		r.Body, r.ContentLength = io.NopCloser(strings.NewReader(text)), int64(len(text))
	}
	res, err := c.next.RoundTrip(r)
	c.w.point()
	return res, err
}

func (w *world) spoil(form url.Values) {
	seconds, err := strconv.ParseInt(form.Get("timestamp"), 10, 64)
	w.must(err)
	hour := time.Unix(seconds, 0).UTC().Truncate(time.Hour)
	switch w.s.without {
	case noIdentifier:
		w.key++
		form.Set("identifier", fmt.Sprint("attempt ", w.key))
	case noPrivateMinute:
		form.Set("timestamp", strconv.FormatInt(hour.Unix(), 10))
	case noFreeze:
		armed := w.points
		w.points = -1
		var units int64
		w.must(w.db.NewRaw(`SELECT COALESCE(CAST(SUM(overage_quantity) AS bigint), 0) FROM usage_events
			WHERE stripe_customer_id = ? AND plan_id = ? AND occurred_at >= ? AND occurred_at < ? AND stripe_reported_at IS NULL`,
			form.Get("payload[stripe_customer_id]"), strings.TrimPrefix(form.Get("event_name"), w.catalogue.MeterOf("")), hour, hour.Add(time.Hour)).Scan(w.ctx, &units))
		w.points = armed
		form.Set("payload[value]", strconv.FormatInt(max(units, 1), 10))
	}
}

// subscribe makes a customer whose period ends within the simulation.
func (w *world) subscribe(i int) {
	p := &payer{id: fmt.Sprintf("cus_%d", i), email: fmt.Sprintf("payer%d@example.com", i), subscription: uuid.New()}
	w.stripe.AddCustomer(p.id, nil)
	turn := w.now.Add(time.Duration(w.rand.Int64N(int64(*days) * int64(24*time.Hour)))).Truncate(time.Second)
	p.periods = []models.Period{{Start: models.AnchoredMonth(turn, turn.Add(-time.Second)).Start, End: turn}}
	w.customers = append(w.customers, p)
	user := uuid.New()
	w.exec(`INSERT INTO users (id, email, created_at) VALUES (?, ?, ?)`, user, p.email, w.now)
	w.exec(`INSERT INTO subscriptions (id, user_id, plan_id, status, stripe_customer_id, billing_cycle_anchor, current_period_start, current_period_end, created_at, updated_at)
		VALUES (?, ?, 'pro', 'active', ?, ?, ?, ?, ?, ?)`, p.subscription, user, p.id, p.periods[0].Start, p.periods[0].Start, p.periods[0].End, w.now, w.now)
}

// current is the period that goes on; one that has ended is followed by the next.
func (w *world) current(p *payer) models.Period {
	for last := p.periods[len(p.periods)-1]; !last.Contains(w.now); last = p.periods[len(p.periods)-1] {
		p.periods = append(p.periods, models.Period{Start: last.End, End: models.AnchoredMonth(last.End, last.End).End})
	}
	return p.periods[len(p.periods)-1]
}

// upgrade opens a new period in the middle of the current one.
func (w *world) upgrade(p *payer) {
	start := w.now.Truncate(time.Second).Add(time.Second)
	w.now = start
	last := &p.periods[len(p.periods)-1]
	if !start.After(last.Start) {
		return
	}
	last.End = start
	next := models.Period{Start: start, End: models.AnchoredMonth(start, start).End}
	p.periods = append(p.periods, next)
	// The webhook of this very change comes at once.
	w.exec(`INSERT INTO subscription_periods (subscription_id, stripe_customer_id, period_start, period_end, said_at, learned_at) VALUES (?, ?, ?, ?, ?, ?)`,
		p.subscription, p.id, next.Start, next.End, w.now, w.now)
}

// hear is the webhook that tells of a customer's period, at once or much later.
func (w *world) hear(p *payer) {
	current := w.current(p)
	w.exec(`UPDATE subscriptions SET current_period_start = ?, current_period_end = ?, updated_at = ? WHERE id = ?`, current.Start, current.End, w.now, p.subscription)
}

// use records some usage, some of it of hours ago.
func (w *world) use() {
	for range w.rand.IntN(8) {
		p := w.customers[w.rand.IntN(len(w.customers))]
		w.current(p)
		at := w.now
		if w.rand.Float64() < 0.15 {
			at = at.Add(-time.Duration(w.rand.Int64N(int64(20 * time.Hour))))
		}
		at = at.Add(-time.Duration(w.rand.Int64N(int64(time.Second)))).Truncate(time.Microsecond)
		label := p.periods[0]
		for _, period := range p.periods {
			if !at.Before(period.Start) {
				label = period
			}
		}
		w.key++
		e := models.UsageEvent{
			ID: uuid.New(), Email: p.email, Quantity: 1 + w.rand.Int64N(5), OccurredAt: at, RecordedAt: w.now,
			Figures:          models.Figures{PlanID: plans[w.rand.IntN(len(plans))], BillingPeriodStart: label.Start, BillingPeriodEnd: label.End},
			StripeCustomerID: &p.id,
		}
		e.OverageQuantity = w.rand.Int64N(e.Quantity + 1)
		key := strconv.Itoa(w.key)
		e.IdempotencyKey = &key
		_, err := w.db.NewInsert().Model(&e).Exec(w.ctx)
		w.must(err)
	}
}

// work lets one process do what it does, and crash.
func (w *world) work(crashes bool) {
	i := w.rand.IntN(len(w.reporters))
	r := w.reporters[i]
	if crashes && w.rand.Float64() < 0.15 {
		w.points = w.rand.IntN(60)
	}
	defer func() {
		w.points = -1
		if p := recover(); p != nil {
			if _, crashed := p.(crash); !crashed {
				panic(p)
			}
			w.reporters[i] = w.process()
		}
	}()
	_, err := r.Seal(w.ctx)
	w.must(err)
	if r.contact(w.ctx) != nil {
		return // Stripe is away
	}
	for {
		found, err := r.DeliverStream(w.ctx)
		w.must(err)
		if !found {
			break
		}
	}
	_, _ = r.Reconcile(w.ctx) // Stripe's meters may not be listed at this moment
	_ = r.dailyTotals(w.ctx)
}

// run lets the days of a schedule pass, and then as many without faults as it takes until nothing is open.
func (w *world) run() {
	begin := w.now
	end := begin.Add(time.Duration(*days) * 24 * time.Hour)
	away := begin.Add(time.Duration(w.rand.Int64N(int64(end.Sub(begin)) * 2 / 3)))
	back := away.Add(20*time.Hour + time.Duration(w.rand.Int64N(int64(20*time.Hour)))) // so that Stripe often forgets meanwhile
	for w.now.Before(end) {
		w.now = w.now.Add(time.Duration(1+w.rand.IntN(50)) * time.Minute).Add(time.Duration(w.rand.IntN(60_000_000)) * time.Microsecond)
		w.stripe.SetOutage(w.now.After(away) && w.now.Before(back))
		w.use()
		for _, p := range w.customers {
			if w.rand.Float64() < 0.3 {
				w.hear(p)
			}
			if w.rand.Float64() < 0.004 {
				w.upgrade(p)
			}
		}
		w.work(true)
	}
	w.stripe.SetOutage(false)
	w.stripe.SetFault(nil)
	for _, p := range w.customers {
		w.hear(p)
	}
	for quiet := w.now.Add(10 * 24 * time.Hour); w.now.Before(quiet); {
		w.now = w.now.Add(2 * time.Hour)
		w.work(false)
		open, err := w.db.NewSelect().Model((*models.StripeReport)(nil)).Where("state IN ('sealed', 'unknown', 'accepted')").Exists(w.ctx)
		w.must(err)
		unsealed, err := w.db.NewSelect().Model((*models.UsageEvent)(nil)).Where("stripe_report_id IS NULL AND overage_quantity > 0").Exists(w.ctx)
		w.must(err)
		if !open && !unsealed && w.now.Sub(end) > 30*time.Hour {
			break
		}
	}
}
