package billing

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/uptrace/bun"

	"tollgate/models"
	"tollgate/models/billing/stripetest"
	"tollgate/models/modelstest"
)

// `make soak` runs more and longer schedules than the suite, and a seed that failed is run again with -seed and the same -days.
var (
	days      = flag.Int("days", 3, "how many days a schedule has, and then as many as it takes to settle")
	schedules = flag.Int("schedules", 1, "how many schedules are simulated, on each database")
	seedFlag  = flag.Uint64("seed", 0, "simulate this schedule alone")
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
	w.stripe.AddMeter(w.catalogue.MeterEventName)
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
		w.must(w.db.NewRaw(`SELECT COALESCE(CAST(SUM(quantity) AS bigint), 0) FROM usage_events WHERE stripe_customer_id = ? AND occurred_at >= ? AND occurred_at < ? AND stripe_reported_at IS NULL`,
			form.Get("payload[stripe_customer_id]"), hour, hour.Add(time.Hour)).Scan(w.ctx, &units))
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
	p.periods = append(p.periods, models.Period{Start: start, End: models.AnchoredMonth(start, start).End})
}

// hear is the webhook that tells of a customer's period, at once or much later.
func (w *world) hear(p *payer) {
	current := w.current(p)
	w.exec(`UPDATE subscriptions SET current_period_start = ?, current_period_end = ? WHERE id = ?`, current.Start, current.End, p.subscription)
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
			ID: uuid.New(), Email: p.email, Quantity: 1 + w.rand.Int64N(5), OccurredAt: at, RecordedAt: w.now, PlanID: "pro",
			BillingPeriodStart: label.Start, BillingPeriodEnd: label.End, StripeCustomerID: &p.id,
		}
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
		unsealed, err := w.db.NewSelect().Model((*models.UsageEvent)(nil)).Where("stripe_report_id IS NULL").Exists(w.ctx)
		w.must(err)
		if !open && !unsealed && w.now.Sub(end) > 30*time.Hour {
			break
		}
	}
}

// faults says what is billed wrongly. Units of reports in a visible state, which only asynchronous drops lead to, are no fault.
func (w *world) faults() (faults []string) {
	note := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	var reports []models.StripeReport
	w.must(w.db.NewSelect().Model(&reports).Order("minute").Scan(w.ctx))
	type hour struct {
		customer string
		start    time.Time
	}
	visible := map[hour]int64{}
	for _, r := range reports {
		switch {
		case r.State == models.ReportVerified, r.State == models.ReportMissing:
		case r.State == models.ReportRejected && w.s.dropped > 0:
			visible[hour{r.StripeCustomerID, r.Minute.UTC().Truncate(time.Hour)}] += r.Value
		default:
			text := ""
			if r.LastError != nil {
				text = *r.LastError
			}
			note("report %s of %d units at %s is %s after %d attempts: %s", r.Identifier, r.Value, r.Minute.UTC().Format(time.DateTime), r.State, r.Attempts, text)
		}
	}
	for _, e := range w.stripe.Events() {
		if e.Times != 1 {
			note("%s was counted %d times", e.Identifier, e.Times)
		}
	}
	for customer, most := range w.stripe.MaxConcurrent() {
		if most > 1 {
			note("%s had %d calls at a time", customer, most)
		}
	}
	var events []models.UsageEvent
	w.must(w.db.NewSelect().Model(&events).Scan(w.ctx))
	if len(events) < 50**days {
		note("only %d events were recorded", len(events))
	}
	ledger := map[hour]int64{}
	byID := map[uuid.UUID]*models.StripeReport{}
	taken := map[hour]bool{} // by the minute
	for i := range reports {
		r := &reports[i]
		byID[r.ID] = r
		taken[hour{r.StripeCustomerID, r.Minute.UTC()}] = true
	}
	for _, e := range events {
		h := hour{*e.StripeCustomerID, e.OccurredAt.UTC().Truncate(time.Hour)}
		if e.StripeReportID != nil {
			// A report that never arrived is replaced in another minute. Where a billing period has none left of the hour, that is another hour's.
			reported := hour{h.customer, byID[*e.StripeReportID].Minute.UTC().Truncate(time.Hour)}
			if reported != h && w.noMinuteLeft(h.customer, e.OccurredAt.UTC(), func(t time.Time) bool { return taken[hour{h.customer, t}] }) {
				h = reported
			}
		}
		ledger[h] += e.Quantity
	}
	for _, p := range w.customers {
		for _, period := range p.periods {
			var used, hidden int64
			for _, e := range events {
				if at := e.OccurredAt.UTC(); *e.StripeCustomerID == p.id && period.Contains(at) {
					used += e.Quantity
				}
			}
			for _, r := range reports {
				if r.StripeCustomerID == p.id && r.State == models.ReportRejected && period.Contains(r.Minute.UTC()) {
					hidden += r.Value
				}
			}
			if got := w.stripe.Total(p.id, ceilMinute(period.Start), ceilMinute(period.End)); got != used-hidden {
				note("%s used %d units from %s to %s, of which %d are visible as not counted, and Stripe has %d", p.id, used,
					period.Start.Format(time.DateTime), period.End.Format(time.DateTime), hidden, got)
			}
		}
	}
	for h, used := range ledger {
		if got := w.stripe.Total(h.customer, h.start, h.start.Add(time.Hour)); got != used-visible[h] {
			note("%s used %d units in the hour of %s, and Stripe has %d", h.customer, used, h.start.Format(time.DateTime), got)
		}
	}
	w.must(models.Verify(w.ctx, w.db, w.catalogue, func(d models.Difference) {
		if d.Customer != "" || strings.Contains(d.Fault, "report") {
			note("verify: %s", d)
		}
	}))
	slices.Sort(faults)
	if n := len(faults); n > 10 {
		faults = append(faults[:10], fmt.Sprintf("and %d more", n-10))
	}
	return faults
}

// simulate runs a schedule and returns what went wrong.
func simulate(t testing.TB, address string, s schedule) []string {
	t.Helper()
	w := newWorld(t, address, s)
	w.run()
	return w.faults()
}

var databases = map[string]func(testing.TB) string{"sqlite": modelstest.SQLite, "postgres": modelstest.Postgres}

// noMinuteLeft says that each minute is taken that begins in the hour of at and in the customer's billing period that at is in.
func (w *world) noMinuteLeft(customer string, at time.Time, taken func(time.Time) bool) bool {
	start := at.Truncate(time.Hour)
	end := start.Add(time.Hour)
	for _, p := range w.customers {
		for _, period := range p.periods {
			if p.id == customer && period.Contains(at) {
				start, end = slices.MaxFunc([]time.Time{start, ceilMinute(period.Start)}, time.Time.Compare), earlier(end, period.End)
			}
		}
	}
	for t := start; t.Before(end); t = t.Add(time.Minute) {
		if !taken(t) {
			return false
		}
	}
	return true
}

// seeds are those of the schedules to run.
func seeds() []uint64 {
	if *seedFlag != 0 {
		return []uint64{*seedFlag}
	}
	all := make([]uint64, *schedules)
	for i := range all {
		all[i] = uint64(i + 1)
	}
	return all
}

// Some days with a quarter of the calls faulted, crashes, an outage, late events, period ends and upgrades: whatever happens, Stripe has what the ledger has, of
// each customer, in each hour and billing period.
func TestSimulation(t *testing.T) {
	for name, address := range databases {
		t.Run(name, func(t *testing.T) {
			for _, seed := range seeds() {
				t.Run(fmt.Sprint(seed), func(t *testing.T) {
					if faults := simulate(t, address(t), schedule{seed: seed}); len(faults) > 0 {
						t.Errorf("run it again with -args -seed=%d -days=%d\n%s", seed, *days, strings.Join(faults, "\n"))
					}
				})
			}
		})
	}
}

// The same, and one in a hundred events is taken by Stripe and never counted: each is in a visible state with its amount.
func TestSimulationWithDrops(t *testing.T) {
	for name, address := range databases {
		t.Run(name, func(t *testing.T) {
			for _, seed := range seeds() {
				t.Run(fmt.Sprint(seed), func(t *testing.T) {
					if faults := simulate(t, address(t), schedule{seed: seed, dropped: 0.01}); len(faults) > 0 {
						t.Errorf("run it again with -args -seed=%d -days=%d\n%s", seed, *days, strings.Join(faults, "\n"))
					}
				})
			}
		})
	}
}

// What the design consists of is needed: without each part in turn, the simulation finds wrong bills.
func TestSimulationNoticesWhatIsLeftOut(t *testing.T) {
	for name, without := range map[string]fault{"identifier": noIdentifier, "guard": noGuard, "private minute": noPrivateMinute, "freeze": noFreeze} {
		t.Run(name, func(t *testing.T) {
			for i := range uint64(12) {
				seed := (i+6)%12 + 1 // the seventh is the first that finds each of them
				if faults := simulate(t, modelstest.Postgres(t), schedule{seed: seed, without: without}); len(faults) > 0 {
					t.Logf("seed %d: %d faults, such as: %s", seed, len(faults), faults[0])
					return
				}
			}
			t.Errorf("12 schedules without the %s, and none was found to bill wrongly", name)
		})
	}
}
