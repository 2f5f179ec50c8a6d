package web

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"tollgate/models"
	"tollgate/models/billing"
	"tollgate/models/billing/stripetest"
	"tollgate/models/modelstest"
)

// metered is a server with a gate, webhooks and a reporter, and the stand-in for Stripe that all of
// them use. The catalog is set up there. The test sends the webhooks and runs the reporter.
type metered struct {
	*fixture
	stand    *stripetest.Stripe
	reporter *billing.Reporter
	keys     int
}

// onBothMetered runs a test on each database. If carry is not nil, it wraps the reporter's
// transport to the stand-in.
func onBothMetered(t *testing.T, carry func(http.RoundTripper) http.RoundTripper, test func(t *testing.T, m *metered)) {
	t.Helper()
	modelstest.OnBoth(t, func(t *testing.T, address string) {
		m := &metered{}
		m.fixture = newFixture(t, address, func(o *Options) {
			log := slog.New(slog.DiscardHandler)
			m.stand = stripetest.New(stripetest.Options{Now: o.Now, Rand: rand.New(rand.NewPCG(1, 2))})
			transport := m.stand.Transport()
			if carry != nil {
				transport = carry(transport)
			}
			client, err := billing.NewClient(billing.ClientOptions{Key: "sk_test_1", Transport: transport})
			must(t, err)
			_, err = billing.Setup(t.Context(), billing.SetupOptions{
				DB: o.DB, Client: client, Catalogue: o.Catalogue, Now: o.Now, BaseURL: o.BaseURL,
			})
			must(t, err)
			m.reporter = billing.NewReporter(billing.ReporterOptions{
				DB: o.DB, Client: client, Catalogue: o.Catalogue, Now: o.Now, Log: log, Every: time.Minute, Rate: 1e6,
			})
			o.Reporter = m.reporter
			o.Webhooks = billing.NewWebhooks(billing.WebhookOptions{
				DB: o.DB, Client: client, Catalogue: o.Catalogue, Secret: webhookSecret, Now: o.Now, Random: func() float64 { return 0.5 }, Log: log,
			})
			o.Webhooks.Start(context.Background())
			t.Cleanup(o.Webhooks.Stop)
		})
		test(t, m)
	})
}

// price returns the ID of the price that setup created under a name, such as "price:pro" or
// "overage:pro".
func (m *metered) price(name string) string {
	m.t.Helper()
	var row models.StripeObject
	must(m.t, m.db.NewSelect().Model(&row).Where("name = ?", name).Scan(context.Background()))
	return row.StripeID
}

// subscribe adds a subscription to the plan pro, for the customer with the email, and sends its
// webhook.
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
	m.sendWebhook("customer.subscription.created", m.stand.Object(id))
	return id
}

// sendWebhook sends a signed webhook.
func (m *metered) sendWebhook(kind string, object map[string]any) {
	m.t.Helper()
	body, _ := m.stand.SignedEvent(webhookSecret, m.clock(), kind, object)
	m.webhook(string(body), m.clock()).want(m.t, 200, nil)
}

// consume uses units of a person through the gate.
func (m *metered) consume(email string, units int) {
	m.t.Helper()
	m.keys++
	body := fmt.Sprintf(`{"email": %q, "quantity": %d, "idempotency_key": "k%d"}`, email, units, m.keys)
	m.post("/v1/consume", body).want(m.t, 200, map[string]any{"allowed": true})
}

// useIncluded uses all units that the plan pro includes for a person, so that each further unit is
// overage.
func (m *metered) useIncluded(email string) {
	m.t.Helper()
	m.consume(email, 75)
}

// seal seals what is due, and deliver sends what is due.
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

// eventually waits until a worker of the server has done something.
func (m *metered) eventually(what string, done func() bool) {
	m.t.Helper()
	for deadline := time.Now().Add(time.Minute); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			m.t.Fatalf("after a minute, %s", what)
		}
	}
}

// A sample in Stripe's error report may identify a report by its identifier or by the
// Idempotency-Key of an attempt. Either way, the report shows the error and is read at once.
func TestErrorReportsNameReportsInTwoWays(t *testing.T) {
	onBothMetered(t, nil, func(t *testing.T, m *metered) {
		m.subscribe("cus_1", "ada@example.com")
		m.useIncluded("ada@example.com")
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
		m.sendWebhook("v1.billing.meter.error_report_triggered", stripetest.ErrorReport(m.clock().Add(-time.Hour), m.clock(),
			"meter_event_invalid_value", "not counted", 2, reports[0].Identifier, reports[1].Identifier+":1"))
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

// A report is dead after three refusals. Attempts that ended without an answer do not count.
func TestOnlyRefusalsEndAReport(t *testing.T) {
	onBothMetered(t, nil, func(t *testing.T, m *metered) {
		m.subscribe("cus_1", "ada@example.com")
		m.useIncluded("ada@example.com")
		m.consume("ada@example.com", 3)
		m.advance(2 * time.Hour)
		m.seal()
		inject := func(f stripetest.Fault) {
			m.stand.SetFault(func(r *http.Request, _ url.Values) stripetest.Fault {
				if strings.HasSuffix(r.URL.Path, "/meter_events") {
					return f
				}
				return stripetest.None
			})
		}
		attempts, refusals := 0, 0
		try := func(f stripetest.Fault, want models.ReportState) {
			t.Helper()
			inject(f)
			m.deliver()
			attempts++
			if f == stripetest.Refused {
				refusals++
			}
			r := m.reports()[0]
			if r.State != want || r.Attempts != attempts || r.Refusals != refusals {
				t.Fatalf("%s: the report is %s after %d attempts and %d refusals, want %s, %d and %d",
					f, r.State, r.Attempts, r.Refusals, want, attempts, refusals)
			}
			m.advance(time.Hour)
		}
		// Three refusals, with unknown answers before and between them.
		for _, f := range []stripetest.Fault{stripetest.LostBefore, stripetest.LostBefore, stripetest.ErrorBefore, stripetest.HTMLBefore} {
			try(f, models.ReportUnknown)
		}
		try(stripetest.Refused, models.ReportUnknown)
		try(stripetest.LostBefore, models.ReportUnknown)
		try(stripetest.Refused, models.ReportUnknown)
		try(stripetest.Conflict, models.ReportUnknown)
		try(stripetest.Refused, models.ReportDead)

		// After two refusals, a report that Stripe accepts is billed.
		m.consume("ada@example.com", 4)
		m.advance(2 * time.Hour)
		m.seal()
		for _, f := range []stripetest.Fault{stripetest.LostBefore, stripetest.Refused, stripetest.Refused, stripetest.None} {
			inject(f)
			m.deliver()
			m.advance(time.Hour)
		}
		if r := m.reports()[1]; r.State != models.ReportAccepted || m.stand.Total("cus_1", r.Minute, r.Minute.Add(time.Minute)) != 4 {
			t.Errorf("the second report is %+v", r)
		}
	})
}

// Newer versions of Stripe's API have the billing period only on the subscription's items. The
// plan, the record and the reports follow it, and the daily comparison finds no difference.
func TestThePeriodOnItems(t *testing.T) {
	onBothMetered(t, nil, func(t *testing.T, m *metered) {
		start := m.clock().Truncate(time.Second).Add(-10 * time.Hour)
		id := m.subscribe("cus_1", "ada@example.com", func(s *stripetest.Subscription) {
			s.PeriodOnItems, s.PeriodStart, s.PeriodEnd = true, start, start.AddDate(0, 1, 0)
		})
		consume := func(period models.Period) {
			t.Helper()
			m.keys++
			m.post("/v1/consume", fmt.Sprintf(`{"email": "ada@example.com", "quantity": 76, "idempotency_key": "k%d"}`, m.keys)).
				want(t, 200, map[string]any{
					"allowed": true, "plan": "pro", "included": 75, "overage": 1,
					"period.start": period.Start.Format(time.RFC3339), "period.end": period.End.Format(time.RFC3339),
				})
		}
		consume(models.Period{Start: start, End: start.AddDate(0, 1, 0)})
		// The period changes within an hour: usage before and after the change goes into different
		// reports.
		m.advance(20 * time.Minute)
		next := m.clock().Truncate(time.Second)
		m.stand.ChangeSubscription(id, func(s *stripetest.Subscription) {
			s.PeriodStart, s.PeriodEnd, s.Anchor = next, next.AddDate(0, 1, 0), next
		})
		m.sendWebhook("customer.subscription.updated", m.stand.Object(id))
		m.advance(time.Minute)
		consume(models.Period{Start: next, End: next.AddDate(0, 1, 0)})
		m.advance(2 * time.Hour)
		m.seal()
		m.deliver()
		if r := m.reports(); len(r) != 2 || !r[0].Minute.Before(next) || r[1].Minute.Before(next) {
			t.Errorf("the reports are %+v", r)
		}
		customers, _, err := billing.WebhookProblems(t.Context(), m.db)
		must(t, err)
		for _, c := range customers {
			t.Errorf("the customer %s has the error %q", c.ID, *c.Problem)
		}
		m.advance(25 * time.Hour)
		if n, err := m.web.webhooks.Resync(t.Context()); err != nil || n != 0 {
			t.Errorf("%d customers differ, %v", n, err)
		}
	})
}

// A report that a killed process was sending is sent by another process within 30 seconds, and not
// before its lease ends. It is counted once, and no request lasts longer than its lease.
func TestAStreamOfAKilledProcess(t *testing.T) {
	kill := false
	var left time.Duration // how long the request may last
	onBothMetered(t, func(next http.RoundTripper) http.RoundTripper {
		return transportFunc(func(r *http.Request) (*http.Response, error) {
			if !strings.HasSuffix(r.URL.Path, "/meter_events") {
				return next.RoundTrip(r)
			}
			if deadline, ok := r.Context().Deadline(); ok {
				left = time.Until(deadline)
			}
			response, err := next.RoundTrip(r)
			if kill {
				panic("killed")
			}
			return response, err
		})
	}, func(t *testing.T, m *metered) {
		m.subscribe("cus_1", "ada@example.com")
		m.useIncluded("ada@example.com")
		m.consume("ada@example.com", 3)
		m.advance(2 * time.Hour)
		m.seal()
		kill = true
		func() {
			defer func() { _ = recover() }()
			m.deliver()
			t.Error("the process was not killed")
		}()
		var stream models.StripeStream
		must(t, m.db.NewSelect().Model(&stream).Scan(t.Context()))
		if lease := stream.LeasedUntil.Sub(m.clock()); left <= 0 || left >= lease || lease > 30*time.Second {
			t.Errorf("a request may last %s under a lease of %s", left, lease)
		}
		kill = false
		m.advance(20 * time.Second)
		if found, err := m.reporter.DeliverStream(t.Context()); found || err != nil {
			t.Errorf("another process sends it after 20 seconds: %t, %v", found, err)
		}
		m.advance(10 * time.Second)
		m.deliver()
		if r := m.reports()[0]; r.State != models.ReportAccepted || r.Attempts != 2 {
			t.Errorf("the report is %s after %d attempts", r.State, r.Attempts)
		}
		if got := m.stand.Total("cus_1", m.clock().Add(-24*time.Hour), m.clock()); got != 3 {
			t.Errorf("Stripe has %d units, want 3", got)
		}
	})
}

// transportFunc is a transport made of one function.
type transportFunc func(*http.Request) (*http.Response, error)

func (f transportFunc) RoundTrip(request *http.Request) (*http.Response, error) { return f(request) }

// Units from another source do not hide a report that Stripe lost, whether there are as many, fewer
// or more units, or only in the same hour.
func TestForeignUnitsDoNotHideALostReport(t *testing.T) {
	for name, foreign := range map[string]struct {
		units int64
		after time.Duration // after the lost report's minute
	}{"as many": {4, 5 * time.Hour}, "fewer": {1, 5 * time.Hour}, "more": {9, 5 * time.Hour}, "in the same hour": {4, -10 * time.Minute}} {
		t.Run(name, func(t *testing.T) {
			onBothMetered(t, nil, func(t *testing.T, m *metered) {
				m.subscribe("cus_1", "ada@example.com")
				m.useIncluded("ada@example.com")
				m.advance(30 * time.Minute)
				m.consume("ada@example.com", 3)
				m.advance(2 * time.Hour)
				m.consume("ada@example.com", 4)
				m.advance(2 * time.Hour)
				m.seal()
				m.deliver()
				m.advance(3 * time.Hour)
				m.read()
				reports := m.reports()
				if len(reports) != 2 || reports[0].State != models.ReportVerified || reports[1].State != models.ReportVerified {
					t.Fatalf("the reports are %+v", reports)
				}
				reconcile := func() *billing.Reconciliation {
					t.Helper()
					c, err := m.reporter.ReconcileAll(t.Context(), false)
					must(t, err)
					return c
				}
				if c := reconcile(); !c.Clean() {
					t.Errorf("before the loss: %+v", c)
				}
				m.stand.Lose(reports[1].Identifier)
				m.stand.AddForeign(m.web.catalogue.MeterOf("pro"), "cus_1", foreign.units, reports[1].Minute.Add(foreign.after))
				m.advance(time.Hour)
				c := reconcile()
				listed := slices.Concat(c.Failed, c.Lost)
				if c.Clean() || len(listed) != 1 || listed[0].Identifier != reports[1].Identifier || listed[0].StripeCustomerID != "cus_1" ||
					listed[0].Value != 4 {
					t.Errorf("after the loss, these reports are listed: %+v", listed)
				}
				for range 26 {
					m.advance(time.Hour)
					m.read()
				}
				if all := m.reports(); all[0].State != models.ReportVerified || all[1].State != models.ReportRejected {
					t.Errorf("the reports are %s and %s", all[0].State, all[1].State)
				}
			})
		})
	}
}

// While two active subscriptions of a customer bill our meter, the customer's reports are held
// back, and the operator sees why. They are sent when only one is left. A second subscription that
// does not bill our meter, or that is not active, holds nothing back.
func TestTwoSubscriptionsOnOneMeter(t *testing.T) {
	onBothMetered(t, nil, func(t *testing.T, m *metered) {
		m.person("otto@example.com", "", models.Member, true)
		otto := m.signedIn("otto@example.com")
		m.subscribe("cus_1", "ada@example.com")
		m.useIncluded("ada@example.com")
		m.subscribe("cus_2", "bob@example.com")
		m.useIncluded("bob@example.com")
		sent := func(customer string) int64 {
			return m.stand.Total(customer, m.clock().Add(-1000*time.Hour), m.clock())
		}
		hour := func() {
			t.Helper()
			m.consume("ada@example.com", 3)
			m.consume("bob@example.com", 1)
			m.advance(2 * time.Hour)
			m.seal()
			m.deliver()
		}
		hour()
		if a, b := sent("cus_1"), sent("cus_2"); a != 3 || b != 1 {
			t.Fatalf("Stripe has %d and %d units, want 3 and 1", a, b)
		}
		// The customer also pays for another person, so that the first person's plan stays the same.
		cleo := func(s *stripetest.Subscription) { s.Metadata = map[string]string{"tollgate_email": "cleo@example.com"} }
		m.subscribe("cus_1", "ada@example.com", cleo, func(s *stripetest.Subscription) { s.Items = s.Items[:1] })
		m.subscribe("cus_1", "ada@example.com", func(s *stripetest.Subscription) { s.Status = "incomplete" })
		hour()
		if a := sent("cus_1"); a != 6 {
			t.Errorf("with one subscription on our meter, Stripe has %d units, want 6", a)
		}
		second := m.subscribe("cus_1", "ada@example.com", cleo)
		hour()
		hour()
		if a, b := sent("cus_1"), sent("cus_2"); a != 6 || b != 4 {
			t.Errorf("with two subscriptions, Stripe has %d and %d units, want 6 and 4", a, b)
		}
		reason := "2 active subscriptions bill the same meter: "
		text := textOf(otto.get("/ops").section("stripe"))
		held := "cus_1 : 6 suggestions held back. " + reason
		if !strings.Contains(text, held) || !strings.Contains(text, second) || strings.Contains(text, "cus_2 :") {
			t.Errorf("the page says %s", text)
		}
		c, err := m.reporter.ReconcileAll(t.Context(), false)
		must(t, err)
		if h := c.Status.Held; !c.Clean() || len(h) != 1 || h[0].StripeCustomerID != "cus_1" || h[0].Units != 6 ||
			!strings.HasPrefix(h[0].Reason(), reason) {
			t.Errorf("stripe reconcile: these customers are held back: %+v", h)
		}
		// One subscription ends without a webhook. The daily comparison finds it.
		m.stand.ChangeSubscription(second, func(s *stripetest.Subscription) { s.Status, s.EndedAt = "canceled", m.clock() })
		m.deliver()
		if a := sent("cus_1"); a != 6 {
			t.Errorf("before the end is known, Stripe has %d units, want 6", a)
		}
		m.advance(24 * time.Hour)
		_, err = m.web.webhooks.Resync(t.Context())
		must(t, err)
		m.eventually("the customer's reports are still held back", func() bool {
			status, err := billing.ReadStatus(t.Context(), m.db)
			must(t, err)
			return status.HeldCustomers == 0
		})
		m.seal() // the end of a subscription is a boundary, so the reports that were held back are created again
		m.deliver()
		if a := sent("cus_1"); a != 12 {
			t.Errorf("with one subscription left, Stripe has %d units, want 12", a)
		}
		if text := textOf(otto.get("/ops").section("stripe")); strings.Contains(text, "suggestions held back") {
			t.Errorf("at last, the page says %s", text)
		}
	})
}

// The operator sees problems of a subscription until they are fixed: an individual plan that is
// paid twice, a price in another currency, and a subscription that was never paid.
func TestSubscriptionsThatNeedAttention(t *testing.T) {
	onBothMetered(t, nil, func(t *testing.T, m *metered) {
		m.person("otto@example.com", "", models.Member, true)
		otto := m.signedIn("otto@example.com")
		says := func(want bool, words ...string) {
			t.Helper()
			text := textOf(otto.get("/ops").section("stripe"))
			for _, w := range words {
				if strings.Contains(text, w) != want {
					t.Errorf("the page says %q: %t, want %t: %s", w, !want, want, text)
				}
			}
		}
		var product models.StripeObject
		must(t, m.db.NewSelect().Model(&product).Where("name = 'product:pro'").Scan(t.Context()))
		euro := m.stand.AddPrice(stripetest.Price{Product: product.StripeID, Currency: "eur", Cents: 1700,
			Metadata: map[string]string{"tollgate_plan": "pro"}})
		twice := m.subscribe("cus_1", "ada@example.com", func(s *stripetest.Subscription) { s.Items[0].Quantity = 2 })
		m.subscribe("cus_2", "bob@example.com", func(s *stripetest.Subscription) { s.Items[0].Price = euro })
		unpaid := m.subscribe("cus_3", "cleo@example.com")
		tiers := m.stand.AddPrice(stripetest.Price{Product: product.StripeID, Meter: m.price("meter:pro"), Tiered: true})
		tiered := m.subscribe("cus_4", "dora@example.com", func(s *stripetest.Subscription) { s.Items[1].Price = tiers })
		m.subscribe("cus_5", "emil@example.com", func(s *stripetest.Subscription) { s.Items = s.Items[:1] })
		hold := "cus_4 : 0 suggestions held back. The overage price of " + tiered + " has tiers: Stripe would deduct the " +
			"free units of the tiers in addition to the plan's included units."
		says(true, hold, `it has no overage price of "pro"; add the price tollgate_overage_pro to it.`)
		for _, email := range []string{"dora@example.com", "emil@example.com"} {
			m.useIncluded(email)
			m.post("/v1/check", fmt.Sprintf(`{"email": %q}`, email)).want(t, 200, map[string]any{
				"allowed": false, "reason": "included_exhausted", "overage_rate_cents": 0,
			})
		}
		m.stand.ChangeSubscription(tiered, func(s *stripetest.Subscription) { s.Items[1].Price = m.price("overage:pro") })
		m.sendWebhook("customer.subscription.updated", m.stand.Object(tiered))
		says(false, hold)
		m.post("/v1/check", `{"email": "dora@example.com"}`).want(t, 200, map[string]any{"allowed": true, "overage_rate_cents": 30})
		quantity, currency := `it pays 2 times for "pro"`, "its price "+euro+" is in eur"
		never := "it is unpaid, so it gives no plan; collect the payment, or end it in Stripe"
		says(true, quantity, currency)
		says(false, never)
		m.consume("cleo@example.com", 1)
		m.advance(time.Minute)
		m.stand.ChangeSubscription(unpaid, func(s *stripetest.Subscription) { s.Status = "unpaid" })
		m.sendWebhook("customer.subscription.updated", m.stand.Object(unpaid))
		m.post("/v1/check", `{"email": "cleo@example.com"}`).want(t, 200, map[string]any{"plan": "free", "included": 5})
		says(true, quantity, currency, never)
		m.stand.ChangeSubscription(unpaid, func(s *stripetest.Subscription) { s.Status, s.EndedAt = "canceled", m.clock() })
		m.sendWebhook("customer.subscription.deleted", m.stand.Object(unpaid))
		m.stand.ChangeSubscription(twice, func(s *stripetest.Subscription) { s.Items[0].Quantity = 1 })
		m.sendWebhook("customer.subscription.updated", m.stand.Object(twice))
		says(true, currency)
		says(false, quantity, never)
	})
}
