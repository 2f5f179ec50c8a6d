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

// The operator sees what Stripe was sent, what it has and what needs attention, and controls the
// reports. The audit log has the operator's actions.
func TestOperatorControlsReports(t *testing.T) {
	test := func(t *testing.T, address string) {
		var f *fixture
		stripe := stripetest.New(stripetest.Options{Now: func() time.Time { return f.clock() }, Rand: rand.New(rand.NewPCG(1, 1))})
		server := httptest.NewServer(stripe)
		t.Cleanup(server.Close)
		client, err := billing.NewClient(billing.ClientOptions{Key: "sk_test_1", APIBase: server.URL})
		must(t, err)
		var reporter *billing.Reporter
		f = newFixture(t, address, func(o *Options) {
			reporter = billing.NewReporter(billing.ReporterOptions{
				DB: o.DB, Client: client, Catalogue: o.Catalogue, Now: o.Now, Log: slog.New(slog.DiscardHandler), Every: time.Minute, Rate: 1e6,
			})
			o.Reporter = reporter
		})
		stripe.AddMeter(f.web.catalogue.MeterOf("pro"))
		stripe.AddCustomer("cus_1", nil)
		f.person("ada@example.com", "", models.Member, false)
		f.person("otto@example.com", "", models.Member, true)
		ada, otto := f.signedIn("ada@example.com"), f.signedIn("otto@example.com")

		use := func(customer string, units int64) {
			t.Helper()
			key, at, month := uuid.NewString(), f.clock().Add(-3*time.Hour), models.CalendarMonth(f.clock())
			_, err := f.db.NewInsert().Model(&models.UsageEvent{
				ID: uuid.New(), Email: "ada@example.com", Quantity: units, OverageQuantity: units, IdempotencyKey: &key, OccurredAt: at, RecordedAt: at,
				Figures: models.Figures{PlanID: "pro", BillingPeriodStart: month.Start, BillingPeriodEnd: month.End}, StripeCustomerID: &customer,
			}).Exec(t.Context())
			must(t, err)
		}
		deliver := func() {
			t.Helper()
			_, err := reporter.Seal(t.Context())
			must(t, err)
			for found := true; found; {
				found, err = reporter.DeliverStream(t.Context())
				must(t, err)
			}
		}
		says := func(words ...string) {
			t.Helper()
			text := textOf(otto.get("/ops").section("stripe"))
			for _, w := range words {
				if !strings.Contains(text, w) {
					t.Errorf("the page does not say %q: %s", w, text)
				}
			}
		}
		for _, path := range []string{
			views.PathStripePause, views.PathStripeResume, views.PathStripeUnblock, views.PathReportRetry, views.PathReportGiveUp,
		} {
			if p := ada.post(path, nil); p.status != http.StatusNotFound {
				t.Errorf("a member at %s: %s", path, p.kind())
			}
		}
		if p := otto.post(views.PathStripePause, nil); p.kind() != "See Other /ops" {
			t.Fatalf("paused: %s", p.kind())
		}
		otto.post(views.PathStripePause, nil) // a double click
		if text := otto.get("/ops").main(); !strings.Contains(text, "Nothing was changed Sending was already in that state.") ||
			len(f.audited("stripe.pause")) != 1 {
			t.Errorf("paused twice: %q %s", f.audited("stripe.pause"), text)
		}
		use("cus_1", 3)
		use("cus_gone", 4)
		says("Sending is paused", "Paused by otto@example.com", "7 suggestions")
		deliver()
		says("sealed 2 7")
		if n := len(stripe.Events()); n != 0 {
			t.Fatalf("%d events were sent while paused", n)
		}
		otto.post(views.PathStripeResume, nil)
		deliver()
		says("accepted 1 3", "Customers with blocked reports", "cus_gone", "No such customer")
		stripe.AddCustomer("cus_gone", nil)
		otto.post(views.PathStripeUnblock, url.Values{"id": {"cus_gone"}})
		deliver()
		says("accepted 2 7")

		// A report that Stripe accepted and never counted.
		stripe.Lose(stripe.Events()[0].Identifier)
		for range 26 {
			f.advance(time.Hour)
			_, err := reporter.Reconcile(t.Context())
			must(t, err)
		}
		says("Reports that need attention", "rejected", "Stripe received it, but did not count it")
		var failed models.StripeReport
		must(t, f.db.NewSelect().Model(&failed).Where("state = 'rejected'").Scan(t.Context()))
		if f.db.Postgres {
			tx, err := f.db.BeginTx(t.Context(), nil)
			must(t, err)
			_, err = tx.ExecContext(t.Context(), "SELECT 1 FROM stripe_streams FOR UPDATE")
			must(t, err)
			if p := otto.post(views.PathReportRetry, url.Values{"id": {failed.ID.String()}}); p.status != http.StatusConflict ||
				!strings.Contains(p.main(), "Try again in a few seconds.") {
				t.Errorf("a retry while the stream is busy: %s", p.kind())
			}
			must(t, tx.Rollback())
		}
		id := url.Values{"id": {failed.ID.String()}}
		for _, reason := range []string{"", "   ", strings.Repeat("x", 501)} {
			p := otto.post(views.PathReportGiveUp, url.Values{"id": id["id"], "reason": {reason}})
			if p.status != http.StatusUnprocessableEntity || !strings.Contains(p.main(), "Enter a reason of 1 to 500 characters") {
				t.Errorf("gave up for %q: %s", reason, p.kind())
			}
			p.wantErrors(t, "Operations", views.FieldIDReason(failed.ID.String()))
			if got := attribute(p.find("input", "id", views.FieldIDReason(failed.ID.String())), "value"); got != reason {
				t.Errorf("the reason %q is shown again as %q", reason, got)
			}
		}
		if p := otto.post(views.PathReportRetry, id); p.kind() != "See Other /ops" {
			t.Fatalf("retried: %s %s", p.kind(), p.main())
		}
		if p := otto.post(views.PathReportRetry, id); p.status != http.StatusConflict {
			t.Errorf("retried twice: %s", p.kind())
		} else {
			p.wantErrors(t, "Operations")
		}
		deliver()
		if got := stripe.Total(failed.StripeCustomerID, f.clock().Add(-48*time.Hour), f.clock()); got != failed.Value {
			t.Errorf("after the retry Stripe has %d of %d units", got, failed.Value)
		}
		_, err = f.db.ExecContext(t.Context(), "UPDATE stripe_reports SET state = 'dead' WHERE state = 'accepted'")
		must(t, err)
		must(t, f.db.NewSelect().Model(&failed).Where("state = 'dead'").Limit(1).Scan(t.Context()))
		if p := otto.post(views.PathReportGiveUp, url.Values{
			"id": {failed.ID.String()}, "reason": {"the customer was refunded"},
		}); p.kind() != "See Other /ops" {
			t.Fatalf("given up: %s %s", p.kind(), p.main())
		}
		says("given up")
		for _, bad := range []string{"", "7", uuid.NewString()} {
			if p := otto.post(views.PathReportRetry, url.Values{"id": {bad}}); p.status != http.StatusNotFound {
				t.Errorf("retried %q: %s", bad, p.kind())
			}
		}
		if got := strings.Join(f.audited("report"), "\n"); !strings.Contains(got, "otto@example.com report.retry") ||
			!strings.Contains(got, "the customer was refunded") {
			t.Errorf("the audit log has %s", got)
		}
	}
	t.Run("sqlite", func(t *testing.T) { test(t, modelstest.SQLite(t)) })
	t.Run("postgres", func(t *testing.T) { test(t, modelstest.Postgres(t)) })
}

// The operator sees how much overage was decided, sent, counted and invoiced, and the reason for
// each unit that is not on an invoice.
func TestOperatorSeesWhatIsInvoiced(t *testing.T) {
	test := func(t *testing.T, address string) {
		var f *fixture
		stripe := stripetest.New(stripetest.Options{Now: func() time.Time { return f.clock() }, Rand: rand.New(rand.NewPCG(1, 1))})
		server := httptest.NewServer(stripe)
		t.Cleanup(server.Close)
		client, err := billing.NewClient(billing.ClientOptions{Key: "sk_test_1", APIBase: server.URL})
		must(t, err)
		var reporter *billing.Reporter
		f = newFixture(t, address, func(o *Options) {
			reporter = billing.NewReporter(billing.ReporterOptions{
				DB: o.DB, Client: client, Catalogue: o.Catalogue, Now: o.Now, Log: slog.New(slog.DiscardHandler), Every: time.Minute, Rate: 1e6,
			})
			o.Reporter = reporter
		})
		month := models.CalendarMonth(f.clock())
		price := stripe.AddPrice(stripetest.Price{
			Meter: stripe.AddMeter(f.web.catalogue.MeterOf("pro")), LookupKey: "tollgate_overage_pro", Cents: 30,
		})
		subscription := stripe.AddSubscription(stripetest.Subscription{
			Customer: "cus_1", Items: []stripetest.Item{{Price: price}}, PeriodStart: month.Start, PeriodEnd: month.End,
		})
		f.person("otto@example.com", "", models.Member, true)
		otto := f.signedIn("otto@example.com")
		use := func(units int64) {
			t.Helper()
			key, customer, at := uuid.NewString(), "cus_1", month.Start.Add(time.Hour)
			_, err := f.db.NewInsert().Model(&models.UsageEvent{
				ID: uuid.New(), Email: "ada@example.com", Quantity: units, OverageQuantity: units, OverageCents: 30 * units, IdempotencyKey: &key,
				OccurredAt: at, RecordedAt: at,
				Figures: models.Figures{PlanID: "pro", BillingPeriodStart: month.Start, BillingPeriodEnd: month.End}, StripeCustomerID: &customer,
			}).Exec(t.Context())
			must(t, err)
		}
		compare := func() {
			t.Helper()
			_, err := reporter.Seal(t.Context())
			must(t, err)
			for found := true; found; {
				found, err = reporter.DeliverStream(t.Context())
				must(t, err)
			}
			_, err = reporter.Totals(t.Context(), true)
			must(t, err)
		}
		says := func(words ...string) {
			t.Helper()
			text := textOf(otto.get("/ops").section("stripe"))
			for _, w := range words {
				if !strings.Contains(text, w) {
					t.Errorf("the page does not say %q: %s", w, text)
				}
			}
		}
		says("Overage from decision to invoice Not compared yet.")
		use(1012)
		compare()
		says("Decided 1,012 $303.60", "Sent 1,012", "Counted 1,012", "Invoiced 0 $0.00",
			"Waiting 1,012 $303.60 not sent yet, or the invoice is not final")
		f.advance(month.End.Sub(f.clock()) + time.Hour)
		otto = f.signedIn("otto@example.com") // the session has expired
		stripe.FinalizeInvoice(stripe.Renew(subscription))
		compare()
		says("Invoiced 1,012 $303.60", "All overage is invoiced.")
		f.advance(time.Hour)
		use(3)
		compare()
		says("Decided 1,015", "Late 3 $0.90 arrived after the invoice was final", "neither invoiced nor waiting", "1,015 ($304.50)",
			"Late: 3 ($0.90). Meter slack_speak_suggestions_pro.")
		_, err = f.db.ExecContext(t.Context(), "UPDATE stripe_invoice_lines SET quantity = quantity - 5, amount_cents = amount_cents - 150")
		must(t, err)
		compare()
		says("An invoice differs from the ledger No known reason explains a difference of 5 units ($1.50) of overage.", "Unexplained 5 $1.50",
			"Unexplained: 5 ($1.50). Late: 3 ($0.90).")
	}
	t.Run("sqlite", func(t *testing.T) { test(t, modelstest.SQLite(t)) })
	t.Run("postgres", func(t *testing.T) { test(t, modelstest.Postgres(t)) })
}
