//go:build linux

package e2e_test

import (
	"math/rand/v2"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"

	"tollgate/models"
	"tollgate/models/billing/stripetest"
)

// A server sends reports, but not with --report-every 0. `stripe reconcile` exits with 0 if Stripe
// has what was sent, and otherwise with 1 and a line about the difference.
func TestReconcileCommand(t *testing.T) {
	stand := stripetest.New(stripetest.Options{Now: time.Now, Rand: rand.New(rand.NewPCG(1, 2)), Key: "sk_test_e2e"})
	stripe := httptest.NewServer(stand)
	defer stripe.Close()
	catalogue, err := models.LoadCatalogue("")
	if err != nil {
		t.Fatal(err)
	}
	stand.AddMeter(catalogue.MeterOf("pro"))
	stand.AddCustomer("cus_1", nil)
	database := sqliteDatabase(t)
	db, err := models.Open(t.Context(), database)
	if err != nil {
		t.Fatal(err)
	}
	at := time.Now().UTC().Add(-3 * time.Hour)
	key, customer, month := "k", "cus_1", models.CalendarMonth(at)
	_, err = db.NewInsert().Model(&models.UsageEvent{
		ID: uuid.New(), Email: "ada@example.com", Quantity: 5, OverageQuantity: 4, IdempotencyKey: &key, OccurredAt: at, RecordedAt: at,
		Figures: models.Figures{PlanID: "pro", BillingPeriodStart: month.Start, BillingPeriodEnd: month.End}, StripeCustomerID: &customer,
	}).Exec(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	variables := []string{
		"DATABASE_URL=" + database, "STRIPE_SECRET_KEY=sk_test_e2e", "STRIPE_WEBHOOK_SECRET=whsec_e2e", "STRIPE_API_BASE=" + stripe.URL,
	}
	sent := func() int { return stand.Calls()["POST /v1/billing/meter_events"] }

	off := startWith(t, append(variables, "TOLLGATE_REPORT_EVERY=0"), "serve", "--listen", "127.0.0.1:0")
	// Of the workers that call Stripe, those for webhooks start last.
	eventually(t, "the workers compare the subscriptions", func() bool { return stand.Calls()["GET /v1/subscriptions"] > 0 })
	if status := off.stop(t, syscall.SIGTERM); status != 0 || sent() != 0 {
		t.Fatalf("with sending off: status %d, %d calls", status, sent())
	}
	if !strings.Contains(off.stderr.String(), "reports no overage to Stripe") {
		t.Errorf("with sending off, the log does not say so: %s", off.stderr)
	}
	if r := runIt(t, variables, "stripe", "reconcile", "--restored"); r.status != 0 || !strings.Contains(r.stdout, "cus_1") || sent() != 0 {
		t.Errorf("before anything was sent: %+v, %d calls", r, sent())
	}
	// A day passes.
	if db, err = models.Open(t.Context(), database); err != nil {
		t.Fatal(err)
	}
	if _, err := db.NewUpdate().Model((*models.StripeState)(nil)).Set("paused_at = ?", time.Now().Add(-26*time.Hour)).
		Where("paused IS NOT NULL").Exec(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	r := runIt(t, variables, "stripe", "reconcile", "--restored")
	if r.status != 0 || !strings.Contains(r.stderr, "sending continues") || sent() != 0 {
		t.Errorf("a day later: %+v, %d calls", r, sent())
	}
	on := startWith(t, variables, "serve", "--listen", "127.0.0.1:0", "--report-every", "1s")
	eventually(t, "the report to be sent", func() bool { return len(stand.Events()) == 1 })
	if status := on.stop(t, syscall.SIGTERM); status != 0 {
		t.Fatalf("status %d, %s", status, on.stderr)
	}
	r = runIt(t, variables, "stripe", "reconcile")
	want := " 4 4 4 +0 0 " + catalogue.MeterOf("pro") + " waiting 4 ($0.00)"
	if r.status != 0 || !strings.HasSuffix(strings.Join(strings.Fields(r.stdout), " "), want) {
		t.Errorf("Stripe has all units: %+v", r)
	}
	stand.Lose(stand.Events()[0].Identifier)
	r = runIt(t, variables, "stripe", "reconcile")
	if r.status != 1 || !strings.Contains(r.stdout, "-4") || !strings.Contains(r.stderr, "differences: 1;") {
		t.Errorf("a report is lost: %+v", r)
	}
}
