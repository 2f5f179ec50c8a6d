package stripetest_test

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/stripe/stripe-go/v76"

	"tollgate/models/billing/stripetest"
)

func TestSubscriptions(t *testing.T) {
	s := newStandIn(nil)
	c := s.sdk()
	end := start.AddDate(0, 1, 0)
	id := s.AddSubscription(stripetest.Subscription{
		Customer: "cus_1", Items: []stripetest.Item{{Price: "price_pro", Quantity: 3}}, PeriodStart: start, PeriodEnd: end,
		Metadata: map[string]string{"tollgate_user": "7"},
	})
	got := must(c.Subscriptions.Get(id, nil))(t)
	if got.Status != "active" || got.Customer.ID != "cus_1" || got.CurrentPeriodStart != start.Unix() || got.CurrentPeriodEnd != end.Unix() ||
		got.BillingCycleAnchor != start.Unix() || got.Metadata["tollgate_user"] != "7" || len(got.Items.Data) != 1 ||
		got.Items.Data[0].Price.ID != "price_pro" ||
		got.Items.Data[0].Quantity != 3 || got.CancelAtPeriodEnd || got.CancelAt != 0 {
		t.Errorf("the subscription is %+v", got)
	}
	expanded := &stripe.SubscriptionParams{}
	expanded.AddExpand("items.data.price.product")
	expanded.AddExpand("customer")
	expanded.AddExpand("latest_invoice")
	got = must(c.Subscriptions.Get(id, expanded))(t)
	if got.Items.Data[0].Price.Product.Name != "price_pro" || got.Customer.Metadata == nil {
		t.Errorf("the expanded product is %+v", got.Items.Data[0].Price.Product)
	}
	wrong := &stripe.SubscriptionParams{}
	wrong.AddExpand("color")
	_, err := c.Subscriptions.Get(id, wrong)
	refused(t, "expanding an unknown field", err, 400, "expand")

	// The SDK changes the seats and cancels at the end of the period.
	must(c.Subscriptions.Update(id, &stripe.SubscriptionParams{
		CancelAtPeriodEnd: stripe.Bool(true),
		Items:             []*stripe.SubscriptionItemsParams{{ID: &got.Items.Data[0].ID, Quantity: stripe.Int64(5)}},
		Metadata:          map[string]string{"tollgate_user": "", "note": "x"},
	}))(t)
	got = must(c.Subscriptions.Get(id, nil))(t)
	if !got.CancelAtPeriodEnd || got.CancelAt != end.Unix() || got.Items.Data[0].Quantity != 5 || len(got.Metadata) != 1 ||
		got.Metadata["note"] != "x" {
		t.Errorf("the updated subscription is %+v", got)
	}
	// The test adds an item and puts the period where newer API versions have it.
	if !s.ChangeSubscription(id, func(sub *stripetest.Subscription) {
		sub.Items = append(sub.Items, stripetest.Item{Price: "price_overage"})
		sub.Status, sub.PeriodOnItems, sub.CancelAtPeriodEnd, sub.CancelAt = "past_due", true, false, time.Time{}
	}) || s.ChangeSubscription("sub_9", func(*stripetest.Subscription) {}) {
		t.Error("ChangeSubscription reported a wrong result")
	}
	got = must(c.Subscriptions.Get(id, nil))(t)
	if got.Status != "past_due" || len(got.Items.Data) != 2 || got.CurrentPeriodEnd != 0 || got.CancelAt != 0 {
		t.Errorf("the changed subscription is %+v", got)
	}
	items := s.Object(id)["items"].(map[string]any)["data"].([]any)
	if items[0].(map[string]any)["current_period_end"].(json.Number) != json.Number(fmt.Sprint(end.Unix())) {
		t.Errorf("the items are %v", items)
	}

	old := s.AddSubscription(stripetest.Subscription{Customer: "cus_1", Status: "canceled",
		Items: []stripetest.Item{{Price: "price_pro", Quantity: 1}}})
	trial := s.AddSubscription(stripetest.Subscription{ID: "sub_trial", Customer: "cus_2", Status: "trialing"})
	for status, want := range map[string]string{
		"": trial + " " + id, "all": trial + " " + old + " " + id, "canceled": old, "ended": old, "trialing": trial,
	} {
		p := &stripe.SubscriptionListParams{}
		if status != "" {
			p.Status = &status
		}
		p.Limit = stripe.Int64(2)
		if got := ids(t, c.Subscriptions.List(p), func(s *stripe.Subscription) string { return s.ID }); got != want {
			t.Errorf("status %q: %q, want %q", status, got, want)
		}
	}
	if got := ids(t, c.Subscriptions.List(&stripe.SubscriptionListParams{Customer: stripe.String("cus_1"), Status: stripe.String("all"),
		Price: stripe.String("price_overage")}), func(s *stripe.Subscription) string { return s.ID }); got != id {
		t.Errorf("for a customer and price: %q", got)
	}
	i := c.Subscriptions.List(&stripe.SubscriptionListParams{Customer: stripe.String("cus_9")})
	i.Next()
	refused(t, "an unknown customer", i.Err(), 400, "customer")

	with := &stripe.CustomerParams{}
	with.AddExpand("subscriptions")
	if got := must(c.Customers.Get("cus_1", with))(t); len(got.Subscriptions.Data) != 1 || got.Subscriptions.Data[0].ID != id {
		t.Errorf("the customer's subscriptions are %+v", got.Subscriptions)
	}
	if got := must(c.Subscriptions.Cancel(id, nil))(t); got.Status != "canceled" || got.EndedAt != start.Unix() {
		t.Errorf("the canceled subscription is %+v", got)
	}
	_, err = c.Subscriptions.Cancel(id, nil)
	refused(t, "canceled twice", err, 404, "id")
	if !s.DeleteCustomer("cus_2") || s.DeleteCustomer("cus_2") {
		t.Error("the customer was not deleted exactly once")
	}
	if got := must(c.Subscriptions.Get(trial, nil))(t); got.Status != "canceled" {
		t.Errorf("a deleted customer's subscription is %s", got.Status)
	}
	_, err = c.Subscriptions.Get("sub_9", nil)
	refused(t, "an unknown subscription", err, 404, "id")
}

func TestInvoices(t *testing.T) {
	s := newStandIn(nil)
	c := s.sdk()
	for i := range 15 {
		s.AddInvoice(stripetest.Invoice{
			ID: fmt.Sprintf("in_%02d", i), Customer: "cus_1", Number: fmt.Sprintf("T-%d", i), Status: "paid", Currency: "usd", Total: int64(i),
			HostedURL: "https://invoice.stripe.com/i/1", PDF: "https://pay.stripe.com/1.pdf", PeriodStart: start, PeriodEnd: start.AddDate(0, 1, 0),
		})
	}
	s.AddInvoice(stripetest.Invoice{Customer: "cus_2", Status: "draft", Currency: "usd", Total: 5})
	p := &stripe.InvoiceListParams{Customer: stripe.String("cus_1")}
	p.Limit, p.Single = stripe.Int64(12), true
	i := c.Invoices.List(p)
	var all []string
	for i.Next() {
		all = append(all, i.Invoice().ID)
	}
	if i.Err() != nil || len(all) != 12 || all[0] != "in_14" || all[11] != "in_03" || !i.Meta().HasMore {
		t.Errorf("the invoices are %v, %v", all, i.Err())
	}
	got := must(c.Invoices.Get("in_14", nil))(t)
	if got.Number != "T-14" || got.Status != "paid" || got.Total != 14 || got.AmountPaid != 14 || !got.Paid ||
		got.HostedInvoiceURL == "" || got.InvoicePDF == "" || got.Created != start.Unix() {
		t.Errorf("the invoice is %+v", got)
	}
	if got := ids(t, c.Invoices.List(&stripe.InvoiceListParams{Status: stripe.String("draft")}),
		func(i *stripe.Invoice) string { return i.Customer.ID }); got != "cus_2" {
		t.Errorf("the drafts belong to %q", got)
	}
}
