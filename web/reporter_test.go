package web

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"testing"
	"time"

	"tollgate/models"
	"tollgate/models/billing"
	"tollgate/models/billing/stripetest"
	"tollgate/models/modelstest"
)

// metered is a server with a gate, webhooks and a reporter, and the stand-in for Stripe that all of them reach. The catalog is
// set up there. The test sends the webhooks and runs the reporter.
type metered struct {
	*fixture
	stand    *stripetest.Stripe
	client   *billing.Client
	reporter *billing.Reporter
	keys     int
}

// onBothMetered runs a test on each database. carry, if not nil, carries the reporter's requests, given the stand-in's transport.
func onBothMetered(t *testing.T, carry func(http.RoundTripper) http.RoundTripper, test func(t *testing.T, m *metered)) {
	t.Helper()
	for name, address := range map[string]func(testing.TB) string{"sqlite": modelstest.SQLite, "postgres": modelstest.Postgres} {
		t.Run(name, func(t *testing.T) {
			m := &metered{}
			m.fixture = newFixture(t, address(t), func(o *Options) {
				log := slog.New(slog.DiscardHandler)
				m.stand = stripetest.New(stripetest.Options{Now: o.Now, Rand: rand.New(rand.NewPCG(1, 2))})
				transport := m.stand.Transport()
				if carry != nil {
					transport = carry(transport)
				}
				var err error
				m.client, err = billing.NewClient(billing.ClientOptions{Key: "sk_test_1", Transport: transport})
				must(t, err)
				_, err = billing.Setup(t.Context(), billing.SetupOptions{DB: o.DB, Client: m.client, Catalogue: o.Catalogue, Now: o.Now, BaseURL: o.BaseURL})
				must(t, err)
				m.reporter = billing.NewReporter(billing.Options{DB: o.DB, Client: m.client, Catalogue: o.Catalogue, Now: o.Now, Log: log, Every: time.Minute, Rate: 1e6})
				o.Reporter = m.reporter
				o.Webhooks = billing.NewWebhooks(billing.WebhookOptions{
					DB: o.DB, Client: m.client, Catalogue: o.Catalogue, Secret: webhookSecret, Now: o.Now, Random: func() float64 { return 0.5 }, Log: log,
				})
				o.Webhooks.Start(context.Background())
				t.Cleanup(o.Webhooks.Stop)
			})
			test(t, m)
		})
	}
}

// price returns the ID of the price that set-up made under a name, such as "price:pro" or "overage:pro".
func (m *metered) price(name string) string {
	m.t.Helper()
	var row models.StripeObject
	must(m.t, m.db.NewSelect().Model(&row).Where("name = ?", name).Scan(context.Background()))
	return row.StripeID
}

// subscribe adds a subscription to the plan pro, of the customer who is named by their email, and sends its webhook.
func (m *metered) subscribe(customer, email string, changes ...func(*stripetest.Subscription)) (id string) {
	m.t.Helper()
	m.stand.AddCustomer(customer, map[string]string{"tollgate_email": email})
	start := m.clock().Truncate(time.Second)
	sub := stripetest.Subscription{
		Customer: customer, PeriodStart: start, PeriodEnd: start.AddDate(0, 1, 0),
		Items: []stripetest.Item{{Price: m.price("price:pro"), Quantity: 1}, {Price: m.price("overage:pro")}},
	}
	for _, change := range changes {
		change(&sub)
	}
	id = m.stand.AddSubscription(sub)
	m.tell("customer.subscription.created", m.stand.Object(id))
	return id
}

// tell sends a signed webhook.
func (m *metered) tell(kind string, object map[string]any) {
	m.t.Helper()
	body, _ := m.stand.SignedEvent(webhookSecret, m.clock(), kind, object)
	m.webhook(string(body), m.clock()).want(m.t, 200, nil)
}

// consume has a person use units through the gate.
func (m *metered) consume(email string, units int) {
	m.t.Helper()
	m.keys++
	m.post("/v1/consume", fmt.Sprintf(`{"email": %q, "quantity": %d, "idempotency_key": "k%d"}`, email, units, m.keys)).want(m.t, 200, map[string]any{"allowed": true})
}

// seal freezes what is due, and deliver sends what is due.
func (m *metered) seal() {
	m.t.Helper()
	_, err := m.reporter.Seal(m.t.Context())
	must(m.t, err)
}

func (m *metered) deliver() {
	m.t.Helper()
	for found := true; found; {
		var err error
		found, err = m.reporter.DeliverStream(m.t.Context())
		must(m.t, err)
	}
}

func (m *metered) read() {
	m.t.Helper()
	_, err := m.reporter.Reconcile(m.t.Context())
	must(m.t, err)
}

// reports returns all reports, ordered by their minutes.
func (m *metered) reports() (all []models.StripeReport) {
	m.t.Helper()
	must(m.t, m.db.NewSelect().Model(&all).Order("minute").Scan(context.Background()))
	return all
}

// eventually waits until something is so that a worker of the server does.
func (m *metered) eventually(what string, done func() bool) {
	m.t.Helper()
	for deadline := time.Now().Add(time.Minute); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			m.t.Fatalf("after a minute, %s", what)
		}
	}
}

// A sample in Stripe's error report may name a report by its identifier or by the Idempotency-Key of an attempt. Either way,
// the report shows the error and is read at once.
func TestErrorReportsNameReportsInTwoWays(t *testing.T) {
	onBothMetered(t, nil, func(t *testing.T, m *metered) {
		m.subscribe("cus_1", "ada@example.com")
		m.consume("ada@example.com", 3)
		m.advance(time.Hour)
		m.consume("ada@example.com", 4)
		m.advance(time.Hour)
		m.consume("ada@example.com", 5)
		m.advance(2 * time.Hour)
		m.seal()
		m.deliver()
		reports := m.reports()
		if len(reports) != 3 || reports[2].State != models.ReportAccepted {
			t.Fatalf("the reports are %+v", reports)
		}
		m.tell("v1.billing.meter.error_report_triggered", stripetest.ErrorReport(m.clock().Add(-time.Hour), m.clock(), "meter_event_invalid_value", "not counted", 2,
			reports[0].Identifier, reports[1].Identifier+":1"))
		m.eventually("the error report is not applied", func() bool {
			n, err := m.db.NewSelect().Model((*models.StripeWebhookEvent)(nil)).Where("applied_at IS NULL").Count(t.Context())
			must(t, err)
			return n == 0
		})
		for i, r := range m.reports() {
			named := i < 2
			text := ""
			if r.LastError != nil {
				text = *r.LastError
			}
			if got := text == "meter_event_invalid_value: not counted"; got != named || r.NextAttemptAt.Equal(m.clock()) != named {
				t.Errorf("report %d has the error %q and is read at %s", i, text, r.NextAttemptAt)
			}
		}
	})
}
