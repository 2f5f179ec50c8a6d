package billing

import (
	"context"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"tollgate/models"
	"tollgate/models/billing/stripetest"
	"tollgate/models/modelstest"
)

// reporterFixture has some usage and one process that reports it, with a clock that the test moves.
type reporterFixture struct {
	t         *testing.T
	ctx       context.Context
	db        *models.DB
	catalogue *models.Catalogue
	now       time.Time
	stripe    *stripetest.Stripe
	options   ReporterOptions
	*Reporter
}

// roundTripFunc is a transport of one function.
type roundTripFunc func(*http.Request) (*http.Response, error)

func (c roundTripFunc) RoundTrip(r *http.Request) (*http.Response, error) { return c(r) }

// onBoth runs a test on each database. transport carries requests; nil carries them to the
// stand-in.
func onBoth(t *testing.T, transport http.RoundTripper, test func(t *testing.T, d *reporterFixture)) {
	t.Helper()
	modelstest.OnBoth(t, func(t *testing.T, address string) { test(t, newReporterFixture(t, address, transport)) })
}

func newReporterFixture(t *testing.T, address string, transport http.RoundTripper) *reporterFixture {
	t.Helper()
	d := &reporterFixture{t: t, ctx: t.Context(), now: time.Date(2026, 11, 20, 12, 5, 0, 0, time.UTC)}
	var err error
	d.catalogue, err = models.LoadCatalogue("")
	d.must(err)
	d.db, err = models.Open(d.ctx, address)
	d.must(err)
	t.Cleanup(func() { _ = d.db.Close() })
	d.stripe = stripetest.New(stripetest.Options{Now: d.clock, Rand: rand.New(rand.NewPCG(1, 1))})
	for _, p := range d.catalogue.Plans[1:] {
		d.stripe.AddMeter(d.catalogue.MeterOf(p.ID))
	}
	d.stripe.AddCustomer("cus_1", nil)
	if transport == nil {
		transport = d.stripe.Transport()
	}
	c, err := NewClient(ClientOptions{Key: "sk_test_desk", Transport: transport})
	d.must(err)
	d.options = ReporterOptions{DB: d.db, Client: c, Catalogue: d.catalogue, Now: d.clock,
		Log: slog.New(slog.DiscardHandler), Every: time.Minute, Rate: 1e9}
	d.Reporter = NewReporter(d.options)
	return d
}

// meter returns the event name of the meter whose units use records.
func (d *reporterFixture) meter() string { return d.catalogue.MeterOf("pro") }

// foreign counts units at Stripe that another source sent.
func (d *reporterFixture) foreign(customer string, units int64, at time.Time) {
	d.stripe.AddForeign(d.meter(), customer, units, at)
}

func (d *reporterFixture) clock() time.Time { return d.now }

func (d *reporterFixture) must(err error) {
	d.t.Helper()
	if err != nil {
		d.t.Fatal(err)
	}
}

// use records units of overage of a customer at a time, in its calendar month.
func (d *reporterFixture) use(customer string, units int64, at time.Time) {
	d.t.Helper()
	d.useIn(models.CalendarMonth(at), customer, units, at)
}

// useIn records units in a billing period.
func (d *reporterFixture) useIn(period models.Period, customer string, units int64, at time.Time) {
	d.t.Helper()
	d.useBy("pro", period, customer, units, at)
}

// useBy records units of overage of a plan. It adds two included units, which are never reported.
func (d *reporterFixture) useBy(plan models.PlanID, period models.Period, customer string, units int64, at time.Time) {
	d.t.Helper()
	key := uuid.NewString()
	_, err := d.db.NewInsert().Model(&models.UsageEvent{
		ID: uuid.New(), Email: customer + "@example.com", Quantity: units + 2, OverageQuantity: units, IdempotencyKey: &key,
		OccurredAt: at, RecordedAt: d.now,
		Figures: models.Figures{PlanID: plan, BillingPeriodStart: period.Start, BillingPeriodEnd: period.End}, StripeCustomerID: &customer,
	}).Exec(d.ctx)
	d.must(err)
}

// seal seals all usage that is due.
func (d *reporterFixture) seal() {
	d.t.Helper()
	_, err := d.Seal(d.ctx)
	d.must(err)
}

// deliver sends all reports that are due.
func (d *reporterFixture) deliver() {
	d.t.Helper()
	for {
		found, err := d.DeliverStream(d.ctx)
		d.must(err)
		if !found {
			return
		}
	}
}

// read reads back all reports that are due.
func (d *reporterFixture) read() {
	d.t.Helper()
	_, err := d.Reconcile(d.ctx)
	d.must(err)
}

// reconcile compares everything with Stripe, as `stripe reconcile` does.
func (d *reporterFixture) reconcile(restored bool) *Reconciliation {
	d.t.Helper()
	c, err := d.ReconcileAll(d.ctx, restored)
	d.must(err)
	return c
}

// reconcileCleanly is reconcile if Stripe has exactly what it was sent.
func (d *reporterFixture) reconcileCleanly(restored bool) *Reconciliation {
	d.t.Helper()
	c := d.reconcile(restored)
	if !c.Clean() {
		d.t.Errorf("the comparison is not clean: %+v", c)
	}
	return c
}

// hours lets n hours pass. In each, due reports are delivered and read back.
func (d *reporterFixture) hours(n int) {
	for range n {
		d.deliver()
		d.read()
		d.now = d.now.Add(time.Hour)
	}
}

func (d *reporterFixture) reports() []models.StripeReport {
	d.t.Helper()
	var all []models.StripeReport
	d.must(d.db.NewSelect().Model(&all).Order("created_at", "minute").Scan(d.ctx))
	return all
}

func (d *reporterFixture) status() *Status {
	d.t.Helper()
	s, err := ReadStatus(d.ctx, d.db)
	d.must(err)
	return s
}

func answer(status int, body string) roundTripFunc {
	return func(r *http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: status, Header: http.Header{"Content-Type": {"application/json"}},
			Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
	}
}

func problem(kind, code, message, param string) string {
	return `{"error": {"type": ` + strconv.Quote(kind) + `, "code": ` + strconv.Quote(code) + `, "message": ` + strconv.Quote(message) +
		`, "param": ` + strconv.Quote(param) + `}}`
}

// meterEvents returns a transport to the fixture's Stripe. Meter events go to instead, which may
// answer them; n counts them from 1. again restarts the count.
func meterEvents(
	d **reporterFixture, instead func(n int, r *http.Request) (*http.Response, error),
) (transport http.RoundTripper, again func()) {
	n := 0
	return roundTripFunc(func(r *http.Request) (*http.Response, error) {
		if strings.HasSuffix(r.URL.Path, "/meter_events") {
			n++
			if response, err := instead(n, r); response != nil || err != nil {
				return response, err
			}
		}
		return (*d).stripe.Transport().RoundTrip(r)
	}), func() { n = 0 }
}
