package web

import (
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"tollgate/models"
	"tollgate/models/billing"
	"tollgate/models/billing/stripetest"
	"tollgate/models/modelstest"
	"tollgate/views"
)

// stripeOps is a server whose reporter sends to a stand-in for Stripe, and an operator's browser.
// The test runs the reporter.
type stripeOps struct {
	*fixture
	stand    *stripetest.Stripe
	reporter *billing.Reporter
	otto     *browser
}

func onBothStripeOps(t *testing.T, test func(t *testing.T, o *stripeOps)) {
	t.Helper()
	modelstest.OnBoth(t, func(t *testing.T, address string) {
		o := &stripeOps{}
		o.stand = stripetest.New(stripetest.Options{Now: func() time.Time { return o.clock() }, Rand: rand.New(rand.NewPCG(1, 1))})
		server := httptest.NewServer(o.stand)
		t.Cleanup(server.Close)
		client, err := billing.NewClient(billing.ClientOptions{Key: "sk_test_1", APIBase: server.URL})
		must(t, err)
		o.fixture = newFixture(t, address, func(options *Options) {
			o.reporter = billing.NewReporter(billing.ReporterOptions{
				DB: options.DB, Client: client, Catalogue: options.Catalogue, Now: options.Now, Log: slog.New(slog.DiscardHandler),
				Every: time.Minute, Rate: 1e6,
			})
			options.Reporter = o.reporter
		})
		o.person("otto@example.com", "", models.Member, true)
		o.otto = o.signedIn("otto@example.com")
		test(t, o)
	})
}

// use stores overage of a customer.
func (o *stripeOps) use(customer string, units, cents int64, at time.Time) {
	o.t.Helper()
	key, month := uuid.NewString(), models.CalendarMonth(at)
	_, err := o.db.NewInsert().Model(&models.UsageEvent{
		ID: uuid.New(), Email: "ada@example.com", Quantity: units, OverageQuantity: units, OverageCents: cents, IdempotencyKey: &key,
		OccurredAt: at, RecordedAt: at,
		Figures: models.Figures{PlanID: "pro", BillingPeriodStart: month.Start, BillingPeriodEnd: month.End}, StripeCustomerID: &customer,
	}).Exec(o.t.Context())
	must(o.t, err)
}

// deliver sends everything that is due.
func (o *stripeOps) deliver() {
	o.t.Helper()
	_, err := o.reporter.Seal(o.t.Context())
	must(o.t, err)
	for found := true; found; {
		found, err = o.reporter.DeliverStream(o.t.Context())
		must(o.t, err)
	}
}

// says checks the part of the operations page about Stripe.
func (o *stripeOps) says(words ...string) {
	o.t.Helper()
	text := textOf(o.otto.get("/ops").section("stripe"))
	for _, w := range words {
		if !strings.Contains(text, w) {
			o.t.Errorf("the page does not say %q: %s", w, text)
		}
	}
}

// The operator sees what Stripe was sent, what it has and what needs attention, and controls the
// reports. The audit log has the operator's actions.
func TestOperatorControlsReports(t *testing.T) {
	onBothStripeOps(t, func(t *testing.T, o *stripeOps) {
		o.stand.AddMeter(o.web.catalogue.MeterOf("pro"))
		o.stand.AddCustomer("cus_1", nil)
		o.person("ada@example.com", "", models.Member, false)
		o.step(t, "a member controls nothing", func(t *testing.T) {
			ada := o.signedIn("ada@example.com")
			for _, path := range []string{
				views.PathStripePause, views.PathStripeResume, views.PathStripeUnblock, views.PathReportRetry, views.PathReportGiveUp,
			} {
				if p := ada.post(path, nil); p.status != http.StatusNotFound {
					t.Errorf("a member at %s: %s", path, p.kind())
				}
			}
		})
		at := o.clock().Add(-3 * time.Hour)
		o.step(t, "pause", func(t *testing.T) { o.pause(t, at) })
		o.step(t, "resume, and unblock a customer", func(*testing.T) {
			o.otto.post(views.PathStripeResume, nil)
			o.deliver()
			o.says("accepted 1 3", "Customers with blocked reports", "cus_gone", "No such customer")
			o.stand.AddCustomer("cus_gone", nil)
			o.otto.post(views.PathStripeUnblock, url.Values{"id": {"cus_gone"}})
			o.deliver()
			o.says("accepted 2 7")
		})
		var failed models.StripeReport
		o.step(t, "a report that Stripe accepted and did not count", func(t *testing.T) {
			o.stand.Lose(o.stand.Events()[0].Identifier)
			for range 26 {
				o.advance(time.Hour)
				_, err := o.reporter.Reconcile(t.Context())
				must(t, err)
			}
			o.says("Reports that need attention", "Until you resolve a report, its events are stored")
			o.says("rejected", "Stripe received it, but did not count it")
			must(t, o.db.NewSelect().Model(&failed).Where("state = 'rejected'").Scan(t.Context()))
		})
		if o.db.Postgres {
			o.step(t, "retry while the stream is busy", func(t *testing.T) { o.retryWhileBusy(t, &failed) })
		}
		o.step(t, "give up without a valid reason", func(t *testing.T) { o.giveUpWithoutReason(t, &failed) })
		o.step(t, "retry", func(t *testing.T) { o.retry(t, &failed) })
		o.step(t, "give up", func(t *testing.T) { o.giveUp(t) })
		for _, bad := range []string{"", "7", uuid.NewString()} {
			if p := o.otto.post(views.PathReportRetry, url.Values{"id": {bad}}); p.status != http.StatusNotFound {
				t.Errorf("retried %q: %s", bad, p.kind())
			}
		}
		if got := strings.Join(o.audited("report"), "\n"); !strings.Contains(got, "otto@example.com report.retry") ||
			!strings.Contains(got, "the customer was refunded") {
			t.Errorf("the audit log has %s", got)
		}
	})
}

// After a restore, the page offers neither to resume nor to pause sending.
func TestNoButtonResumesAfterARestore(t *testing.T) {
	onBothStripeOps(t, func(t *testing.T, o *stripeOps) {
		if _, _, err := o.reporter.Restored(t.Context()); err != nil {
			t.Fatal(err)
		}
		o.says("Sending is paused", "at least 25 hours after its first run. The second run ends this pause. Usage is still counted. "+
			"After the pause, Tollgate sends the overage.")
		page := o.otto.get("/ops").body
		for _, path := range []string{views.PathStripePause, views.PathStripeResume} {
			if strings.Contains(page, path) {
				t.Errorf("the page has a form for %s", path)
			}
		}
		o.otto.post(views.PathStripeResume, nil)
		says(t, "/ops", o.otto.get("/ops").main(), []string{"Nothing was changed", "Sending is paused"}, nil)
	})
}

func (o *stripeOps) pause(t *testing.T, at time.Time) {
	if p := o.otto.post(views.PathStripePause, nil); p.kind() != "See Other /ops" {
		t.Fatalf("paused: %s", p.kind())
	}
	o.otto.post(views.PathStripePause, nil) // a double click
	if text := o.otto.get("/ops").main(); !strings.Contains(text, "Nothing was changed The current state of sending is below.") ||
		len(o.audited("stripe.pause")) != 1 {
		t.Errorf("paused twice: %q %s", o.audited("stripe.pause"), text)
	}
	o.use("cus_1", 3, 0, at)
	o.use("cus_gone", 4, 0, at)
	o.says("Sending is paused", "Paused by otto@example.com", "7 suggestions")
	o.deliver()
	o.says("sealed 2 7")
	if n := len(o.stand.Events()); n != 0 {
		t.Fatalf("%d events were sent while paused", n)
	}
}

func (o *stripeOps) retryWhileBusy(t *testing.T, failed *models.StripeReport) {
	tx, err := o.db.BeginTx(t.Context(), nil)
	must(t, err)
	_, err = tx.ExecContext(t.Context(), "SELECT 1 FROM stripe_streams FOR UPDATE")
	must(t, err)
	if p := o.otto.post(views.PathReportRetry, url.Values{"id": {failed.ID.String()}}); p.status != http.StatusConflict ||
		!strings.Contains(p.main(), "Try again in a few seconds.") {
		t.Errorf("a retry while the stream is busy: %s", p.kind())
	}
	must(t, tx.Rollback())
}

func (o *stripeOps) giveUpWithoutReason(t *testing.T, failed *models.StripeReport) {
	for _, reason := range []string{"", "   ", strings.Repeat("x", 501)} {
		p := o.otto.post(views.PathReportGiveUp, url.Values{"id": {failed.ID.String()}, "reason": {reason}})
		if p.status != http.StatusUnprocessableEntity || !strings.Contains(p.main(), "Enter a reason of 1 to 500 characters") {
			t.Errorf("gave up for %q: %s", reason, p.kind())
		}
		p.wantErrors(t, "Operations", views.FieldIDReason(failed.ID.String()))
		if got := attribute(p.find("input", "id", views.FieldIDReason(failed.ID.String())), "value"); got != reason {
			t.Errorf("the reason %q is shown again as %q", reason, got)
		}
	}
}

func (o *stripeOps) retry(t *testing.T, failed *models.StripeReport) {
	id := url.Values{"id": {failed.ID.String()}}
	if p := o.otto.post(views.PathReportRetry, id); p.kind() != "See Other /ops" {
		t.Fatalf("retried: %s %s", p.kind(), p.main())
	}
	if p := o.otto.post(views.PathReportRetry, id); p.status != http.StatusConflict {
		t.Errorf("retried twice: %s", p.kind())
	} else {
		p.wantErrors(t, "Operations")
	}
	o.deliver()
	if got := o.stand.Total(failed.StripeCustomerID, o.clock().Add(-48*time.Hour), o.clock()); got != failed.Value {
		t.Errorf("after the retry Stripe has %d of %d units", got, failed.Value)
	}
}

func (o *stripeOps) giveUp(t *testing.T) {
	_, err := o.db.ExecContext(t.Context(), "UPDATE stripe_reports SET state = 'dead' WHERE state = 'accepted'")
	must(t, err)
	var dead models.StripeReport
	must(t, o.db.NewSelect().Model(&dead).Where("state = 'dead'").Limit(1).Scan(t.Context()))
	if p := o.otto.post(views.PathReportGiveUp, url.Values{
		"id": {dead.ID.String()}, "reason": {"the customer was refunded"},
	}); p.kind() != "See Other /ops" {
		t.Fatalf("given up: %s %s", p.kind(), p.main())
	}
	o.says("given up")
}

// The operator sees how much overage was decided, sent, counted and invoiced, and the reason for
// each unit that is not on an invoice.
func TestOperatorSeesWhatIsInvoiced(t *testing.T) {
	onBothStripeOps(t, func(t *testing.T, o *stripeOps) {
		month := models.CalendarMonth(o.clock())
		price := o.stand.AddPrice(stripetest.Price{
			Meter: o.stand.AddMeter(o.web.catalogue.MeterOf("pro")), LookupKey: "tollgate_overage_pro", Cents: 30,
		})
		subscription := o.stand.AddSubscription(stripetest.Subscription{
			Customer: "cus_1", Items: []stripetest.Item{{Price: price}}, PeriodStart: month.Start, PeriodEnd: month.End,
		})
		use := func(units int64) {
			t.Helper()
			o.use("cus_1", units, 30*units, month.Start.Add(time.Hour))
		}
		compare := func() {
			t.Helper()
			o.deliver()
			_, err := o.reporter.Totals(t.Context(), true)
			must(t, err)
		}
		o.says("Overage, from recorded usage to invoice Not compared yet.")
		use(1012)
		compare()
		o.says("Decided 1,012 $303.60", "Sent 1,012", "Counted 1,012", "Invoiced 0 $0.00",
			"Waiting 1,012 $303.60 not sent yet, or the invoice is not final")
		o.advance(month.End.Sub(o.clock()) + time.Hour)
		o.otto = o.signedIn("otto@example.com") // the session has expired
		o.stand.FinalizeInvoice(o.stand.Renew(subscription))
		compare()
		o.says("Invoiced 1,012 $303.60", "All overage is invoiced.")
		o.advance(time.Hour)
		use(3)
		compare()
		o.says("Decided 1,015", "Late 3 $0.90 not sent before the invoice was final", "neither invoiced nor waiting for an invoice",
			"1,015 ($304.50)", "Late: 3 ($0.90). Meter slack_speak_suggestions_pro.")
		_, err := o.db.ExecContext(t.Context(), "UPDATE stripe_invoice_lines SET quantity = quantity - 5, amount_cents = amount_cents - 150")
		must(t, err)
		compare()
		o.says("An invoice differs from the recorded usage No known reason explains a difference of 5 units ($1.50) of overage.",
			"Unexplained 5 $1.50", "Unexplained: 5 ($1.50). Late: 3 ($0.90).")
	})
}
