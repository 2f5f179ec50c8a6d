package stripetest_test

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/stripe/stripe-go/v76"

	"tollgate/models/billing/stripetest"
)

// lines returns the lines of an invoice, such as "2 x 1200, 9 x 25", and its total.
func (s *standIn) lines(t *testing.T, invoice string) (lines string, total int64) {
	t.Helper()
	i := must(s.sdk().Invoices.Get(invoice, nil))(t)
	for n, line := range i.Lines.Data {
		if n > 0 {
			lines += ", "
		}
		lines += fmt.Sprintf("%d x %d", line.Quantity, line.Price.UnitAmount)
	}
	return lines, i.Total
}

func TestInvoicesBillUsage(t *testing.T) {
	s := newStandIn(nil)
	other := s.AddMeter("other")
	base := s.AddPrice(stripetest.Price{Cents: 1200})
	overage := s.AddPrice(stripetest.Price{Cents: 25, Meter: s.meter})
	added := s.AddPrice(stripetest.Price{Cents: 20, Meter: other})
	sub := s.AddSubscription(stripetest.Subscription{
		Customer: "cus_1", Items: []stripetest.Item{{Price: base, Quantity: 2}, {Price: overage}}, PeriodStart: start,
		PeriodEnd: start.AddDate(0, 1, 0),
	})
	use := func(id, value string, at time.Time, changes ...string) {
		t.Helper()
		s.Add(max(0, at.Sub(s.Now())))
		if a := s.must(t, post, event(id, value, at, changes...), ""); a.status != http.StatusOK {
			t.Fatalf("usage: %d %v", a.status, a.body)
		}
	}
	use("a", "4", start)
	use("b", "6", start.Add(time.Hour), "event_name", "other") // no item bills it yet
	s.Add(time.Minute)
	s.ChangeSubscription(sub, func(sub *stripetest.Subscription) { sub.Items = append(sub.Items, stripetest.Item{Price: added}) })
	use("c", "7", start.Add(2*time.Hour), "event_name", "other")
	use("d", "-9", start.Add(3*time.Hour), "payload[stripe_customer_id]", "cus_2")
	use("e", "5", start.AddDate(0, 1, 0).Add(-time.Second))
	use("f", "8", start.AddDate(0, 1, 0)) // in the next period
	first := s.Renew(sub)
	if lines, total := s.lines(t, first); lines != "2 x 1200, 9 x 25, 7 x 20" || total != 2400+225+140 {
		t.Errorf("the draft has %s, with the total %d", lines, total)
	}
	use("g", "1", start.AddDate(0, 1, 0).Add(-time.Minute))
	if !s.FinalizeInvoice(first) || s.FinalizeInvoice(first) {
		t.Error("the invoice was not finalized exactly once")
	}
	use("h", "1", start.AddDate(0, 1, 0).Add(-2*time.Minute)) // too late
	o := s.Object(first)
	if lines, total := s.lines(t, first); lines != "2 x 1200, 10 x 25, 7 x 20" || total != 2400+250+140 || o["status"] != "open" ||
		len(o["lines"].(map[string]any)["data"].([]any)) != 3 {
		t.Errorf("the invoice has %s, with the total %d: %v", lines, total, o)
	}
	got := must(s.sdk().Subscriptions.Get(sub, nil))(t)
	if got.CurrentPeriodStart != start.AddDate(0, 1, 0).Unix() || got.CurrentPeriodEnd != start.AddDate(0, 2, 0).Unix() {
		t.Errorf("the next period is %d to %d", got.CurrentPeriodStart, got.CurrentPeriodEnd)
	}

	// After a price exchange, earlier usage is not billed, even on the same meter.
	cheaper := s.AddPrice(stripetest.Price{Cents: 10, Meter: s.meter})
	item := got.Items.Data[1].ID
	s.Add(time.Hour)
	must(s.sdk().Subscriptions.Update(sub, &stripe.SubscriptionParams{Items: []*stripe.SubscriptionItemsParams{{ID: &item,
		Price: &cheaper}}}))(t)
	use("i", "3", s.Now().Add(time.Hour))
	must(s.sdk().Subscriptions.Update(sub, &stripe.SubscriptionParams{CancelAtPeriodEnd: stripe.Bool(true)}))(t)
	last := s.Renew(sub)
	if lines, _ := s.lines(t, last); lines != "3 x 10, 0 x 20" {
		t.Errorf("the last invoice has %s", lines)
	}
	if got := must(s.sdk().Subscriptions.Get(sub, nil))(t); got.Status != "canceled" || s.Renew(sub) != "" {
		t.Errorf("at its end, the subscription is %s", got.Status)
	}
	all := s.sdk().Invoices.ListLines(&stripe.InvoiceListLinesParams{Invoice: &last})
	n := 0
	for all.Next() {
		n++
	}
	if all.Err() != nil || n != 2 {
		t.Errorf("%d lines, want 2: %v", n, all.Err())
	}
	must(s.sdk().Invoices.FinalizeInvoice(last, nil))(t)
	_, err := s.sdk().Invoices.FinalizeInvoice(last, nil)
	refused(t, "finalized twice", err, 400, "")
}

// A trial's usage is not billed, and a negative total bills 0. A cancellation bills usage only on
// request.
func TestUsageThatIsNotBilled(t *testing.T) {
	s := newStandIn(nil)
	overage := s.AddPrice(stripetest.Price{Cents: 25, Meter: s.meter})
	end := start.AddDate(0, 0, 14)
	items := []stripetest.Item{{Price: overage}}
	trial := s.AddSubscription(stripetest.Subscription{Customer: "cus_1", Status: "trialing", Items: items, PeriodStart: start,
		PeriodEnd: end, TrialEnd: end})
	s.must(t, post, event("a", "4", start), "")
	if lines, total := s.lines(t, s.Renew(trial)); lines != "" || total != 0 {
		t.Errorf("the trial's invoice has %s", lines)
	}
	if got := must(s.sdk().Subscriptions.Get(trial, nil))(t); got.Status != "active" {
		t.Errorf("after its trial, the subscription is %s", got.Status)
	}
	negative := s.AddSubscription(stripetest.Subscription{Customer: "cus_2", Items: items, PeriodStart: start, PeriodEnd: end})
	s.must(t, post, event("b", "-3", start, "payload[stripe_customer_id]", "cus_2"), "")
	if lines, total := s.lines(t, s.Renew(negative)); lines != "0 x 25" || total != 0 {
		t.Errorf("a negative total is billed as %s", lines)
	}
	for _, now := range []bool{false, true} {
		customer := fmt.Sprint("cus_canceled_", now)
		s.AddCustomer(customer, nil)
		sub := s.AddSubscription(stripetest.Subscription{Customer: customer, Items: items, PeriodStart: start, PeriodEnd: end})
		s.must(t, post, event(customer, "4", start, "payload[stripe_customer_id]", customer), "")
		s.Add(time.Hour)
		must(s.sdk().Subscriptions.Cancel(sub, &stripe.SubscriptionCancelParams{InvoiceNow: &now}))(t)
		i := s.sdk().Invoices.List(&stripe.InvoiceListParams{Customer: &customer})
		if made := i.Next(); made != now || made && i.Invoice().Total != 100 {
			t.Errorf("canceled with invoice_now %t, an invoice was created: %t", now, made)
		}
	}
}
