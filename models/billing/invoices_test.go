package billing

import (
	"reflect"
	"testing"
	"time"

	"tollgate/models"
	"tollgate/models/billing/stripetest"
	"tollgate/models/modelstest"
)

// The metered lines of a final invoice are stored, whatever the webhook says, and however often and
// in whatever order webhooks arrive.
func TestInvoiceLinesAreStored(t *testing.T) {
	onBothInvoices(t, func(t *testing.T, o *invoiceFixture) {
		o.spend(12, o.now.Add(-3*time.Hour))
		o.send()
		invoice := o.renew()
		o.applyEvent("invoice.created", invoice)
		if got := o.lines(); got != "draft pro 12 for $3.60" {
			t.Errorf("the draft has %s", got)
		}
		draft := o.stripe.Object(invoice)
		o.spend(3, o.now.Add(-2*time.Minute)) // the last minutes of the period
		o.now = o.now.Add(time.Hour)
		o.send()
		if !o.stripe.FinalizeInvoice(invoice) {
			t.Fatal("the invoice could not be finalized")
		}
		body, signature := o.stripe.SignedEvent(webhookSecret, o.now, "invoice.finalized", o.stripe.Object(invoice))
		o.stripe.CloseInvoice(invoice, "paid")
		o.applyEvent("invoice.paid", invoice) // arrives before invoice.finalized
		if got := o.lines(); got != "paid pro 15 for $4.50" {
			t.Errorf("the paid invoice has %s", got)
		}
		// The same event twice and late, and then an event with an older state.
		for range 2 {
			o.receive(body, signature)
			o.apply()
		}
		o.receive(o.stripe.SignedEvent(webhookSecret, o.now, "invoice.created", draft))
		o.apply()
		if got := o.lines(); got != "paid pro 15 for $4.50" {
			t.Errorf("after late webhooks, the invoice has %s", got)
		}
		var stored models.StripeInvoice
		o.must(o.db.NewSelect().Model(&stored).Where("id = ?", invoice).Scan(o.ctx))
		if stored.FinalizedAt == nil || !stored.FinalizedAt.Equal(o.now) || *stored.StripeSubscriptionID != o.sub ||
			stored.StripeCustomerID != "cus_1" {
			t.Errorf("stored %+v", stored)
		}
		// The worker updates the balances without a daily comparison.
		o.must(o.balanceInvoiced(o.ctx))
		if got := o.stored(); got != "Nov 1: decided 15 $4.50, sent 15, counted 0, invoiced 15 $4.50" {
			t.Errorf("the balances are %s", got)
		}
		if waiting, err := o.db.NewSelect().Model((*models.StripeInvoice)(nil)).Where("NOT balanced").Exists(o.ctx); err != nil || waiting {
			t.Errorf("an invoice is still waiting for its balance: %v", err)
		}
	})
}

// An older reading of an invoice never replaces a newer one, for example after a process was
// suspended.
func TestAnOlderReadingOfAnInvoiceIsIgnored(t *testing.T) {
	onBothInvoices(t, func(t *testing.T, o *invoiceFixture) {
		o.spend(12, o.now.Add(-3*time.Hour))
		o.send()
		invoice := o.renew()
		older, err := o.client.invoice(o.ctx, invoice)
		o.must(err)
		readAt := o.now
		o.now = o.now.Add(time.Minute)
		o.finalize(invoice)
		prices, err := readPlanPrices(o.ctx, o.db, o.catalogue)
		o.must(err)
		tx, err := o.db.BeginTx(o.ctx, nil)
		o.must(err)
		o.must(storeInvoice(o.ctx, tx, prices, older, readAt))
		o.must(tx.Commit())
		if got := o.lines(); got != "open pro 12 for $3.60" {
			t.Errorf("the stored lines are %s", got)
		}
	})
}

// An invoice object shows ten lines. All of its lines are read, and only those that bill our meters
// are stored.
func TestInvoicesWithManyLines(t *testing.T) {
	onBothInvoices(t, func(t *testing.T, o *invoiceFixture) {
		meter := o.stripe.AddMeter("another_product")
		foreign := o.stripe.AddPrice(stripetest.Price{Meter: meter, Cents: 99})
		var items []stripetest.Item
		for range 130 {
			items = append(items, stripetest.Item{Price: o.stripe.AddPrice(stripetest.Price{Cents: 100}), Quantity: 1})
		}
		items = append(items, stripetest.Item{Price: foreign})
		o.stripe.ChangeSubscription(o.sub, func(s *stripetest.Subscription) { s.Items = append(items, s.Items...) })
		o.spend(12, o.now.Add(-3*time.Hour))
		o.send()
		o.finalize(o.renew())
		if got := o.lines(); got != "open pro 12 for $3.60" {
			t.Errorf("the stored lines are %s", got)
		}
		if n := o.stripe.Calls()["GET /v1/invoices/{id}/lines"]; n != 2 {
			t.Errorf("the lines were read in %d pages", n)
		}
	})
}

// A webhook is applied even if its invoice belongs to another customer or does not exist at Stripe.
func TestInvoicesOfAnotherCustomer(t *testing.T) {
	onBothInvoices(t, func(t *testing.T, o *invoiceFixture) {
		other := o.stripe.AddInvoice(stripetest.Invoice{Customer: "cus_2", Status: "open", Currency: "usd"})
		for _, object := range []map[string]any{
			{"id": other, "object": "invoice", "customer": "cus_1"}, {"id": "in_gone", "object": "invoice", "customer": "cus_1"},
			{"object": "invoice", "customer": "cus_1"},
		} {
			o.receive(o.stripe.SignedEvent(webhookSecret, o.now, "invoice.finalized", object))
		}
		o.apply()
		stored, err := o.db.NewSelect().Model((*models.StripeInvoice)(nil)).Exists(o.ctx)
		o.must(err)
		waiting, err := o.db.NewSelect().Model((*models.StripeWebhookEvent)(nil)).Where("applied_at IS NULL").Exists(o.ctx)
		o.must(err)
		if stored || waiting {
			t.Errorf("stored: %t, waiting: %t", stored, waiting)
		}
	})
}

// If a customer has more invoices than one batch holds, they are read in several batches.
func TestManyInvoicesOfOneCustomer(t *testing.T) {
	onBothInvoices(t, func(t *testing.T, o *invoiceFixture) {
		const n = invoicesAtOnce + 10
		for range n {
			id := o.stripe.AddInvoice(stripetest.Invoice{Customer: "cus_1", Subscription: o.sub, Status: "paid", Currency: "usd"})
			o.receive(o.stripe.SignedEvent(webhookSecret, o.now, "invoice.paid", o.stripe.Object(id)))
		}
		o.now = o.now.Add(customerRest)
		for range 2 {
			o.apply()
			o.now = o.now.Add(customerRest)
		}
		stored, err := o.db.NewSelect().Model((*models.StripeInvoice)(nil)).Count(o.ctx)
		o.must(err)
		if stored != n {
			t.Errorf("%d of %d invoices are stored", stored, n)
		}
	})
}

// Newer API versions have the subscription and the price in other fields.
func TestInvoicesOfNewerVersions(t *testing.T) {
	body := `{"id": "in_1", "object": "invoice", "customer": {"id": "cus_1", "object": "customer"}, "status": "open", "currency": "usd",
		"parent": {"type": "subscription_details", "subscription_details": {"subscription": "sub_1"}},
			"status_transitions": {"finalized_at": 1764547200},
		"lines": {"object": "list", "has_more": false, "data": [
			{"id": "il_1", "amount": 360, "currency": "usd", "quantity": 12, "pricing": {"price_details": {"price": "price_over"}},
				"period": {"start": 1761955200, "end": 1764547200}},
			{"id": "il_2", "amount": 1800, "currency": "usd", "quantity": 1, "pricing": {"price_details": {"price": "price_base"}},
				"period": {"start": 1764547200, "end": 1767225600}}]}}`
	modelstest.OnBoth(t, func(t *testing.T, address string) {
		d := newReporterFixture(t, address, answer(200, body))
		d.must(storeObject(d.ctx, d.db, d.now, objectOverage+"pro", "price_over"))
		i, err := d.client.invoice(d.ctx, "in_1")
		d.must(err)
		prices, err := readPlanPrices(d.ctx, d.db, d.catalogue)
		d.must(err)
		tx, err := d.db.BeginTx(d.ctx, nil)
		d.must(err)
		d.must(storeInvoice(d.ctx, tx, prices, i, d.now))
		d.must(tx.Commit())
		o := &invoiceFixture{reporterFixture: d}
		var line models.StripeInvoiceLine
		d.must(d.db.NewSelect().Model(&line).Scan(d.ctx))
		if got := o.lines(); got != "open pro 12 for $3.60" || *line.StripeSubscriptionID != "sub_1" || line.StripeCustomerID != "cus_1" {
			t.Errorf("the stored lines are %s: %+v", got, line)
		}
	})
}

// A comparison has the steps and the reasons, and is not clean if an amount is unexplained.
func TestReconcileHasReasons(t *testing.T) {
	onBothInvoices(t, func(t *testing.T, o *invoiceFixture) {
		o.spend(12, o.now.Add(-3*time.Hour))
		o.send()
		o.finalize(o.renew())
		o.now = o.now.Add(time.Hour)
		o.spend(3, o.period.End.Add(-time.Hour))
		o.send()
		got := o.reconcileCleanly(false).Periods[0]
		want := ReconciledPeriod{OverageBalance: models.OverageBalance{
			Payer: "cus_1", MeterEventName: "slack_speak_suggestions_pro",
			Period:  models.CalendarMonth(time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)),
			Decided: models.OverageSum{Units: 15, Cents: 450}, Sent: models.OverageSum{Units: 15, Cents: 450},
			Counted: models.OverageSum{Units: 15}, Invoiced: models.OverageSum{Units: 12, Cents: 360},
			Reasons:   []models.OverageShare{{Part: models.OverageLate, OverageSum: models.OverageSum{Units: 3, Cents: 90}}},
			CheckedAt: got.CheckedAt,
		}}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("the period is\n%+v\nwant\n%+v", got, want)
		}
		o.exec("UPDATE stripe_invoice_lines SET amount_cents = 100")
		c := o.reconcile(false)
		if unexplained := c.Periods[0].NotInvoiced(models.OverageUnexplained); c.Clean() || c.Unexplained() != 1 ||
			unexplained != (models.OverageSum{Cents: 260}) {
			t.Errorf("unexplained in %d periods: %+v", c.Unexplained(), unexplained)
		}
	})
}
