package billing

import (
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stripe/stripe-go/v76"

	"tollgate/models"
	"tollgate/models/billing/stripetest"
)

// invoiceFixture is a reporterFixture whose customer cus_1 has a subscription to pro at the
// stand-in. It also receives the stand-in's webhooks.
type invoiceFixture struct {
	*reporterFixture
	hook            *Webhooks
	user            uuid.UUID
	base, over, sub string
	period          models.Period
}

func onBothInvoices(t *testing.T, test func(t *testing.T, o *invoiceFixture)) {
	t.Helper()
	onBoth(t, nil, func(t *testing.T, d *reporterFixture) { test(t, newInvoiceFixture(d)) })
}

func newInvoiceFixture(d *reporterFixture) *invoiceFixture {
	d.t.Helper()
	o := &invoiceFixture{reporterFixture: d, period: models.CalendarMonth(d.now)}
	o.hook = NewWebhooks(WebhookOptions{
		DB: d.db, Client: d.client, Catalogue: d.catalogue, Secret: webhookSecret, Now: d.clock,
		Random: func() float64 { return 0.5 }, Log: slog.New(slog.DiscardHandler),
	})
	meters, err := d.client.meters(d.ctx)
	d.must(err)
	for name, found := range meters {
		plan := strings.TrimPrefix(name, d.catalogue.MeterOf(""))
		d.must(storeObject(d.ctx, d.db, d.now, objectMeter+plan, found[0].ID))
		price := d.stripe.AddPrice(stripetest.Price{LookupKey: lookupOverage + plan, Meter: found[0].ID,
			Cents: map[string]float64{"pro": 30, "starter": 35}[plan]})
		d.must(storeObject(d.ctx, d.db, d.now, objectOverage+plan, price))
		if plan == "pro" {
			o.over = price
		}
	}
	o.base = d.stripe.AddPrice(stripetest.Price{LookupKey: lookupBase + "pro", Cents: 1800})
	u, err := models.SetUser(d.ctx, d.db, d.now, "ada@example.com", models.UserChange{})
	d.must(err)
	o.user = u.ID
	d.stripe.AddCustomer("cus_1", map[string]string{"tollgate_user": u.ID.String()})
	o.sub = o.subscribe(o.base, o.over)
	o.applyEvent("customer.subscription.created", o.sub)
	return o
}

// subscribe adds a subscription of the customer to prices.
func (o *invoiceFixture) subscribe(prices ...string) string {
	s := stripetest.Subscription{Customer: "cus_1", PeriodStart: o.period.Start, PeriodEnd: o.period.End}
	for _, p := range prices {
		s.Items = append(s.Items, stripetest.Item{Price: p, Quantity: 1})
	}
	return o.stripe.AddSubscription(s)
}

// applyEvent receives a signed webhook about an object of the stand-in and applies it.
func (o *invoiceFixture) applyEvent(kind, id string) {
	o.t.Helper()
	body, signature := o.stripe.SignedEvent(webhookSecret, o.now, kind, o.stripe.Object(id))
	o.receive(body, signature)
	o.apply()
}

// receive stores a webhook without applying it.
func (o *invoiceFixture) receive(body []byte, signature string) {
	o.t.Helper()
	e, err := o.hook.read(body, signature, models.Now(o.hook.clock))
	o.must(err)
	_, err = o.hook.store(o.ctx, e, models.Now(o.hook.clock))
	o.must(err)
}

func (o *invoiceFixture) apply() {
	o.t.Helper()
	o.must(o.hook.applyDue(o.ctx))
}

// spend records units of overage of pro at 30 cents each.
func (o *invoiceFixture) spend(units int64, at time.Time) { o.spendIn(o.period, "pro", units, at) }

func (o *invoiceFixture) spendIn(period models.Period, plan models.PlanID, units int64, at time.Time) {
	o.t.Helper()
	key, customer := uuid.NewString(), "cus_1"
	_, err := o.db.NewInsert().Model(&models.UsageEvent{
		ID: uuid.New(), UserID: o.user, Email: "ada@example.com", Quantity: units + 2, OverageQuantity: units,
		OverageCents: 30 * units, IdempotencyKey: &key,
		OccurredAt: at, RecordedAt: o.now, StripeCustomerID: &customer,
		Figures: models.Figures{PlanID: plan, BillingPeriodStart: period.Start, BillingPeriodEnd: period.End},
	}).Exec(o.ctx)
	o.must(err)
}

// send seals and delivers all usage that is due.
func (o *invoiceFixture) send() {
	o.t.Helper()
	o.seal()
	o.deliver()
}

// renew ends the period a minute before its invoice is made, and returns the draft.
func (o *invoiceFixture) renew() (invoice string) {
	o.t.Helper()
	if o.now.Before(o.period.End) {
		o.now = o.period.End.Add(time.Minute)
	}
	invoice = o.stripe.Renew(o.sub)
	o.applyEvent("customer.subscription.updated", o.sub)
	return invoice
}

// finalize finalizes a draft and sends its webhook.
func (o *invoiceFixture) finalize(invoice string) {
	o.t.Helper()
	if !o.stripe.FinalizeInvoice(invoice) {
		o.t.Fatalf("the invoice %s could not be finalized", invoice)
	}
	o.applyEvent("invoice.finalized", invoice)
}

// lines returns the stored lines, such as "open pro 12 for $3.60".
func (o *invoiceFixture) lines() string {
	o.t.Helper()
	var lines []models.StripeInvoiceLine
	o.must(o.db.NewSelect().Model(&lines).Order("stripe_invoice_id", "id").Scan(o.ctx))
	var texts []string
	for _, l := range lines {
		var i models.StripeInvoice
		o.must(o.db.NewSelect().Model(&i).Where("id = ?", l.StripeInvoiceID).Scan(o.ctx))
		texts = append(texts, fmt.Sprintf("%s %s %d for %s", i.Status, l.PlanID, l.Quantity, models.FormatMoney(l.AmountCents, l.Currency)))
	}
	return strings.Join(texts, ", ")
}

// balances compares all periods and returns the balance of each one that has overage, such as
// "Nov 1: decided 12 $3.60, sent 12, counted 12, invoiced 12 $3.60; late 1 $0.30".
func (o *invoiceFixture) balances() string {
	o.t.Helper()
	_, err := o.Totals(o.ctx, true)
	o.must(err)
	return o.stored()
}

func (o *invoiceFixture) stored() string {
	o.t.Helper()
	all, err := Balances(o.ctx, o.db, time.Time{})
	o.must(err)
	var texts []string
	for _, b := range all {
		sum := b.Invoiced
		for _, r := range b.Reasons {
			sum = sum.Plus(r.OverageSum)
		}
		if sum != b.Decided {
			o.t.Errorf("the balance of %s from %s does not add up: %+v", b.Payer, b.Period.Start, b)
		}
		if b.Decided == sum && sum == (models.OverageSum{}) && b.Invoiced == sum && len(b.Reasons) == 0 {
			continue
		}
		label := ""
		if b.Payer != "cus_1" {
			label = b.Name + " "
		}
		if b.MeterEventName != o.meter() {
			label += strings.TrimPrefix(b.MeterEventName, o.catalogue.MeterOf("")) + " "
		}
		text := fmt.Sprintf("%s%s: decided %d %s, sent %d, counted %d, invoiced %d %s", label, b.Period.Start.Format("Jan 2"), b.Decided.Units,
			o.catalogue.FormatMoney(b.Decided.Cents), b.Sent.Units, b.Counted.Units, b.Invoiced.Units, o.catalogue.FormatMoney(b.Invoiced.Cents))
		for _, r := range b.Reasons {
			text += fmt.Sprintf("; %s %d %s", r.Part, r.Units, o.catalogue.FormatMoney(r.Cents))
		}
		texts = append(texts, text)
	}
	return strings.Join(texts, "\n")
}

func (o *invoiceFixture) wantBalances(want string) {
	o.t.Helper()
	if got := o.balances(); got != want {
		o.t.Errorf("the balances are\n%s\nwant\n%s", got, want)
	}
}

// refusing answers requests under a path with a status, and passes the others on.
func refusing(next http.RoundTripper, path string, status int) roundTripFunc {
	return func(r *http.Request) (*http.Response, error) {
		if strings.HasPrefix(r.URL.Path, path) {
			return answer(status, problem("invalid_request_error", "", "The key does not have the required permissions.", ""))(r)
		}
		return next.RoundTrip(r)
	}
}

var cancelWithInvoice = stripe.SubscriptionCancelParams{InvoiceNow: stripe.Bool(true), Prorate: stripe.Bool(true)}
