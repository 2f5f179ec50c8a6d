package stripetest_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stripe/stripe-go/v76"
	"github.com/stripe/stripe-go/v76/client"
	"github.com/stripe/stripe-go/v76/webhook"

	"tollgate/models/billing/stripetest"
)

// sdk is Stripe's own client, as the product uses it.
func (s *standIn) sdk() *client.API {
	b := stripe.GetBackendWithConfig(stripe.APIBackend, &stripe.BackendConfig{
		HTTPClient: &http.Client{Transport: s.Transport()}, MaxNetworkRetries: stripe.Int64(0),
		LeveledLogger: &stripe.LeveledLogger{Level: stripe.LevelNull}, EnableTelemetry: stripe.Bool(false),
	})
	return client.New("sk_test_1", &stripe.Backends{API: b, Connect: b, Uploads: b})
}

// must is a value without its error.
func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// refused says that an error is Stripe's, with a status and a parameter.
func refused(t *testing.T, what string, err error, status int, param string) {
	t.Helper()
	var e *stripe.Error
	if !errors.As(err, &e) || e.HTTPStatusCode != status || e.Param != param {
		t.Errorf("%s: %v, not %d for %q", what, err, status, param)
	}
}

// ids are those of an iterator's, in order.
func ids[T any](t *testing.T, i interface {
	Next() bool
	Err() error
	Current() any
}, id func(T) string) string {
	t.Helper()
	var all []string
	for i.Next() {
		all = append(all, id(i.Current().(T)))
	}
	if err := i.Err(); err != nil {
		t.Fatal(err)
	}
	return strings.Join(all, " ")
}

func TestUsageThroughTheSDK(t *testing.T) {
	s := newStandIn(nil)
	c := s.sdk()
	must(c.BillingMeterEvents.New(&stripe.BillingMeterEventParams{
		EventName: stripe.String("suggestions"), Identifier: stripe.String("a"), Timestamp: stripe.Int64(start.Unix()),
		Payload: map[string]string{"stripe_customer_id": "cus_1", "value": "12"},
	}))(t)
	i := c.BillingMeterEventSummaries.List(&stripe.BillingMeterEventSummaryListParams{
		ID: stripe.String(s.meter), Customer: stripe.String("cus_1"),
		StartTime: stripe.Int64(start.Unix()), EndTime: stripe.Int64(start.Add(time.Minute).Unix()),
	})
	if !i.Next() || i.BillingMeterEventSummary().AggregatedValue != 12 || i.Next() || i.Err() != nil {
		t.Errorf("summaries: %+v %v", i.BillingMeterEventSummaryList(), i.Err())
	}
	if got := ids(t, c.BillingMeters.List(&stripe.BillingMeterListParams{Status: stripe.String("active")}), func(m *stripe.BillingMeter) string { return m.ID }); got != s.meter {
		t.Errorf("meters %q", got)
	}
	if a := must(c.Accounts.Get())(t); a.ID != "acct_standin" {
		t.Errorf("account %q", a.ID)
	}
	_, err := c.BillingMeterEvents.New(&stripe.BillingMeterEventParams{
		EventName: stripe.String("suggestions"), Payload: map[string]string{"stripe_customer_id": "cus_9", "value": "12"},
	})
	refused(t, "unknown customer", err, 400, "payload[stripe_customer_id]")
}

func TestCustomers(t *testing.T) {
	s := newStandIn(nil)
	c := s.sdk()
	p := &stripe.CustomerParams{Email: stripe.String("a@example.com")}
	p.AddMetadata("tollgate_user", "7")
	p.AddMetadata("quantity", "12")
	made := must(c.Customers.New(p))(t)
	if made.Email != "a@example.com" || made.Metadata["tollgate_user"] != "7" || made.Metadata["quantity"] != "12" || made.Created != start.Unix() {
		t.Errorf("made %+v", made)
	}
	change := &stripe.CustomerParams{Name: stripe.String("Ann")}
	change.AddMetadata("tollgate_user", "")
	change.AddMetadata("more", "1")
	must(c.Customers.Update(made.ID, change))(t)
	got := must(c.Customers.Get(made.ID, nil))(t)
	if got.Name != "Ann" || got.Email != "a@example.com" || len(got.Metadata) != 2 || got.Metadata["more"] != "1" {
		t.Errorf("got %+v", got)
	}
	find := func() string {
		return ids(t, c.Customers.List(&stripe.CustomerListParams{Email: stripe.String("a@example.com")}), func(c *stripe.Customer) string { return c.ID })
	}
	if find() != made.ID {
		t.Errorf("found %q", find())
	}
	if d := must(c.Customers.Del(made.ID, nil))(t); !d.Deleted {
		t.Errorf("deleted %+v", d)
	}
	if got := must(c.Customers.Get(made.ID, nil))(t); !got.Deleted || got.ID != made.ID {
		t.Errorf("a deleted one: %+v", got)
	}
	if find() != "" {
		t.Errorf("found a deleted one")
	}
	_, err := c.Customers.Update(made.ID, change)
	refused(t, "update of a deleted one", err, 404, "id")
	_, err = c.Customers.Get("cus_9", nil)
	refused(t, "nobody", err, 404, "id")
	if a := s.must(t, "POST /v1/customers", url.Values{"colour": {"red"}}, ""); a.status != 400 || a.error("code") != "parameter_unknown" {
		t.Errorf("unknown parameter: %d %v", a.status, a.body)
	}
	if a := s.must(t, post, event("z", "1", start, "payload[stripe_customer_id]", made.ID), ""); a.status != 400 || a.error("code") != "resource_missing" {
		t.Errorf("usage of a deleted one: %d %v", a.status, a.body)
	}
}

func TestProductsAndPrices(t *testing.T) {
	s := newStandIn(nil)
	c := s.sdk()
	pp := &stripe.ProductParams{Name: stripe.String("Pro"), Description: stripe.String("75 a month")}
	pp.AddMetadata("tollgate_plan", "pro")
	product := must(c.Products.New(pp))(t)
	if product.Name != "Pro" || !product.Active || product.Metadata["tollgate_plan"] != "pro" {
		t.Errorf("product %+v", product)
	}
	must(c.Products.Update(product.ID, &stripe.ProductParams{Name: stripe.String("Professional")}))(t)
	if got := must(c.Products.Get(product.ID, nil))(t); got.Name != "Professional" || got.Description != "75 a month" {
		t.Errorf("updated product %+v", got)
	}

	monthly := func() *stripe.PriceParams {
		return &stripe.PriceParams{
			Currency: stripe.String("usd"), Product: &product.ID, UnitAmount: stripe.Int64(1500), LookupKey: stripe.String("tollgate_pro"),
			Recurring: &stripe.PriceRecurringParams{Interval: stripe.String("month")},
		}
	}
	metered := func() *stripe.PriceParams {
		return &stripe.PriceParams{
			Currency: stripe.String("usd"), Product: &product.ID, LookupKey: stripe.String("tollgate_pro_overage"),
			BillingScheme: stripe.String("tiered"), TiersMode: stripe.String("graduated"),
			Tiers: []*stripe.PriceTierParams{
				{UpTo: stripe.Int64(75), UnitAmount: stripe.Int64(0)},
				{UpToInf: stripe.Bool(true), UnitAmountDecimal: stripe.Float64(30.5)},
			},
			Recurring: &stripe.PriceRecurringParams{Interval: stripe.String("month"), UsageType: stripe.String("metered"), Meter: &s.meter},
		}
	}
	base := must(c.Prices.New(monthly()))(t)
	if base.UnitAmount != 1500 || base.UnitAmountDecimal != 1500 || base.LookupKey != "tollgate_pro" || base.Recurring.Interval != "month" ||
		base.Recurring.UsageType != "licensed" || base.Type != "recurring" || base.Product.ID != product.ID || !base.Active {
		t.Errorf("base price %+v", base)
	}
	with := metered()
	with.AddExpand("tiers")
	overage := must(c.Prices.New(with))(t)
	if len(overage.Tiers) != 2 || overage.Tiers[0].UpTo != 75 || overage.Tiers[1].UpTo != 0 || overage.Tiers[1].UnitAmountDecimal != 30.5 ||
		overage.Recurring.Meter != s.meter || overage.Recurring.UsageType != "metered" {
		t.Errorf("overage price %+v", overage)
	}
	if plain := must(c.Prices.Get(overage.ID, nil))(t); plain.Tiers != nil {
		t.Errorf("tiers that nobody asked for: %+v", plain.Tiers)
	}

	list := func(p *stripe.PriceListParams) string {
		return ids(t, c.Prices.List(p), func(p *stripe.Price) string {
			return p.ID + fmt.Sprint(len(p.Tiers))
		})
	}
	both := &stripe.PriceListParams{LookupKeys: stripe.StringSlice([]string{"tollgate_pro", "tollgate_pro_overage"}), Active: stripe.Bool(true)}
	both.AddExpand("data.tiers")
	both.Limit = stripe.Int64(1)
	if got, want := list(both), overage.ID+"2 "+base.ID+"0"; got != want {
		t.Errorf("by lookup keys: %q, not %q", got, want)
	}
	if got := list(&stripe.PriceListParams{Recurring: &stripe.PriceListRecurringParams{Meter: &s.meter}}); got != overage.ID+"0" {
		t.Errorf("by meter: %q", got)
	}
	if got := list(&stripe.PriceListParams{Product: &product.ID, Type: stripe.String("one_time")}); got != "" {
		t.Errorf("by type: %q", got)
	}

	// A lookup key is one price's, until it is taken over.
	_, err := c.Prices.New(monthly())
	refused(t, "the same lookup key", err, 400, "lookup_key")
	dearer := monthly()
	dearer.UnitAmount, dearer.TransferLookupKey = stripe.Int64(1900), stripe.Bool(true)
	next := must(c.Prices.New(dearer))(t)
	if got := must(c.Prices.Get(base.ID, nil))(t); got.LookupKey != "" {
		t.Errorf("the old price still has %q", got.LookupKey)
	}
	if next.LookupKey != "tollgate_pro" {
		t.Errorf("the new price has %q", next.LookupKey)
	}
	must(c.Prices.Update(base.ID, &stripe.PriceParams{Active: stripe.Bool(false)}))(t)
	if got := list(&stripe.PriceListParams{Active: stripe.Bool(false)}); got != base.ID+"0" {
		t.Errorf("inactive: %q", got)
	}

	inactive := s.AddMeter("inactive")
	must(c.BillingMeters.Deactivate(inactive, nil))(t)
	for name, test := range map[string]struct {
		param  string
		change func(monthly, metered *stripe.PriceParams) *stripe.PriceParams
	}{
		"no amount":   {"unit_amount", func(m, _ *stripe.PriceParams) *stripe.PriceParams { m.UnitAmount = nil; return m }},
		"no currency": {"currency", func(m, _ *stripe.PriceParams) *stripe.PriceParams { m.Currency = nil; return m }},
		"no product of Stripe's": {"product", func(m, _ *stripe.PriceParams) *stripe.PriceParams {
			m.Product = stripe.String("prod_9")
			return m
		}},
		"no interval of Stripe's": {"recurring[interval]", func(m, _ *stripe.PriceParams) *stripe.PriceParams {
			m.Recurring.Interval = stripe.String("hour")
			return m
		}},
		"tiers on a plain price": {"tiers", func(m, o *stripe.PriceParams) *stripe.PriceParams { m.Tiers = o.Tiers; return m }},
		"no tiers":               {"tiers", func(_, o *stripe.PriceParams) *stripe.PriceParams { o.Tiers = nil; return o }},
		"no tiers mode":          {"tiers_mode", func(_, o *stripe.PriceParams) *stripe.PriceParams { o.TiersMode = nil; return o }},
		"an amount with tiers":   {"unit_amount", func(_, o *stripe.PriceParams) *stripe.PriceParams { o.UnitAmount = stripe.Int64(1); return o }},
		"a last tier with an end": {"tiers[1][up_to]", func(_, o *stripe.PriceParams) *stripe.PriceParams {
			o.Tiers[1].UpToInf, o.Tiers[1].UpTo = nil, stripe.Int64(100)
			return o
		}},
		"tiers that shrink": {"tiers[1][up_to]", func(_, o *stripe.PriceParams) *stripe.PriceParams {
			o.Tiers = []*stripe.PriceTierParams{o.Tiers[0], {UpTo: stripe.Int64(75), UnitAmount: stripe.Int64(1)}, o.Tiers[1]}
			return o
		}},
		"a tier without an amount": {"tiers[0][up_to]", func(_, o *stripe.PriceParams) *stripe.PriceParams { o.Tiers[0].UnitAmount = nil; return o }},
		"a meter on a licensed price": {"recurring[meter]", func(_, o *stripe.PriceParams) *stripe.PriceParams {
			o.Recurring.UsageType = nil
			return o
		}},
		"a meter and an aggregation": {"recurring[aggregate_usage]", func(_, o *stripe.PriceParams) *stripe.PriceParams {
			o.Recurring.AggregateUsage = stripe.String("sum")
			return o
		}},
		"no meter of Stripe's": {"recurring[meter]", func(_, o *stripe.PriceParams) *stripe.PriceParams {
			o.Recurring.Meter = stripe.String("mtr_9")
			return o
		}},
		"an inactive meter": {"recurring[meter]", func(_, o *stripe.PriceParams) *stripe.PriceParams { o.Recurring.Meter = &inactive; return o }},
	} {
		m, o := monthly(), metered()
		m.LookupKey, o.LookupKey = nil, nil
		_, err := c.Prices.New(test.change(m, o))
		refused(t, name, err, 400, test.param)
	}
	_, err = c.Prices.Update(base.ID, &stripe.PriceParams{UnitAmount: stripe.Int64(1)})
	refused(t, "an amount changed", err, 400, "unit_amount")
	_, err = c.Products.Del(product.ID, nil)
	refused(t, "deleting a product with prices", err, 400, "")
	own := must(c.Products.New(&stripe.ProductParams{ID: stripe.String("tollgate_team"), Name: stripe.String("Team")}))(t)
	_, err = c.Products.New(&stripe.ProductParams{ID: stripe.String("tollgate_team"), Name: stripe.String("Team")})
	refused(t, "the same product", err, 400, "id")
	if got := ids(t, c.Products.List(&stripe.ProductListParams{IDs: []*string{&own.ID, &product.ID}, Active: stripe.Bool(true)}), func(p *stripe.Product) string { return p.ID }); got != own.ID+" "+product.ID {
		t.Errorf("products %q", got)
	}
	if d := must(c.Products.Del(own.ID, nil))(t); !d.Deleted {
		t.Errorf("deleted %+v", d)
	}
	eleven := &stripe.PriceListParams{}
	for i := range 11 {
		eleven.LookupKeys = append(eleven.LookupKeys, stripe.String(fmt.Sprint(i)))
	}
	i := c.Prices.List(eleven)
	i.Next()
	refused(t, "eleven lookup keys", i.Err(), 400, "lookup_keys")
}

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
		got.BillingCycleAnchor != start.Unix() || got.Metadata["tollgate_user"] != "7" || len(got.Items.Data) != 1 || got.Items.Data[0].Price.ID != "price_pro" ||
		got.Items.Data[0].Quantity != 3 || got.CancelAtPeriodEnd || got.CancelAt != 0 {
		t.Errorf("got %+v", got)
	}
	expanded := &stripe.SubscriptionParams{}
	expanded.AddExpand("items.data.price.product")
	expanded.AddExpand("customer")
	expanded.AddExpand("latest_invoice")
	got = must(c.Subscriptions.Get(id, expanded))(t)
	if got.Items.Data[0].Price.Product.Name != "price_pro" || got.Customer.Metadata == nil {
		t.Errorf("expanded %+v", got.Items.Data[0].Price.Product)
	}
	wrong := &stripe.SubscriptionParams{}
	wrong.AddExpand("colour")
	_, err := c.Subscriptions.Get(id, wrong)
	refused(t, "expanding nothing", err, 400, "expand")

	// By the SDK: seats, and the end of the period.
	must(c.Subscriptions.Update(id, &stripe.SubscriptionParams{
		CancelAtPeriodEnd: stripe.Bool(true),
		Items:             []*stripe.SubscriptionItemsParams{{ID: &got.Items.Data[0].ID, Quantity: stripe.Int64(5)}},
		Metadata:          map[string]string{"tollgate_user": "", "note": "x"},
	}))(t)
	got = must(c.Subscriptions.Get(id, nil))(t)
	if !got.CancelAtPeriodEnd || got.CancelAt != end.Unix() || got.Items.Data[0].Quantity != 5 || len(got.Metadata) != 1 || got.Metadata["note"] != "x" {
		t.Errorf("updated %+v", got)
	}
	// By the test: another plan, a period where newer versions have it.
	if !s.ChangeSubscription(id, func(sub *stripetest.Subscription) {
		sub.Items = append(sub.Items, stripetest.Item{Price: "price_overage"})
		sub.Status, sub.PeriodOnItems, sub.CancelAtPeriodEnd, sub.CancelAt = "past_due", true, false, time.Time{}
	}) || s.ChangeSubscription("sub_9", func(*stripetest.Subscription) {}) {
		t.Error("changed what is not there, or not what is")
	}
	got = must(c.Subscriptions.Get(id, nil))(t)
	if got.Status != "past_due" || len(got.Items.Data) != 2 || got.CurrentPeriodEnd != 0 || got.CancelAt != 0 {
		t.Errorf("changed %+v", got)
	}
	items := s.Object(id)["items"].(map[string]any)["data"].([]any)
	if items[0].(map[string]any)["current_period_end"].(json.Number) != json.Number(fmt.Sprint(end.Unix())) {
		t.Errorf("items %v", items)
	}

	old := s.AddSubscription(stripetest.Subscription{Customer: "cus_1", Status: "canceled", Items: []stripetest.Item{{Price: "price_pro", Quantity: 1}}})
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
			t.Errorf("status %q: %q, not %q", status, got, want)
		}
	}
	if got := ids(t, c.Subscriptions.List(&stripe.SubscriptionListParams{Customer: stripe.String("cus_1"), Status: stripe.String("all"), Price: stripe.String("price_overage")}), func(s *stripe.Subscription) string { return s.ID }); got != id {
		t.Errorf("of a customer and price: %q", got)
	}
	i := c.Subscriptions.List(&stripe.SubscriptionListParams{Customer: stripe.String("cus_9")})
	i.Next()
	refused(t, "of nobody", i.Err(), 400, "customer")

	with := &stripe.CustomerParams{}
	with.AddExpand("subscriptions")
	if got := must(c.Customers.Get("cus_1", with))(t); len(got.Subscriptions.Data) != 1 || got.Subscriptions.Data[0].ID != id {
		t.Errorf("a customer's: %+v", got.Subscriptions)
	}
	if got := must(c.Subscriptions.Cancel(id, nil))(t); got.Status != "canceled" || got.EndedAt != start.Unix() {
		t.Errorf("cancelled %+v", got)
	}
	_, err = c.Subscriptions.Cancel(id, nil)
	refused(t, "cancelled twice", err, 404, "id")
	if !s.DeleteCustomer("cus_2") || s.DeleteCustomer("cus_2") {
		t.Error("deleted twice, or not once")
	}
	if got := must(c.Subscriptions.Get(trial, nil))(t); got.Status != "canceled" {
		t.Errorf("a deleted customer's is %s", got.Status)
	}
	_, err = c.Subscriptions.Get("sub_9", nil)
	refused(t, "none", err, 404, "id")
}

func TestCheckoutAndPortal(t *testing.T) {
	s := newStandIn(nil)
	c := s.sdk()
	product := must(c.Products.New(&stripe.ProductParams{Name: stripe.String("Team")}))(t)
	seat := must(c.Prices.New(&stripe.PriceParams{
		Currency: stripe.String("usd"), Product: &product.ID, UnitAmount: stripe.Int64(900),
		Recurring: &stripe.PriceRecurringParams{Interval: stripe.String("month")},
	}))(t)
	overage := must(c.Prices.New(&stripe.PriceParams{
		Currency: stripe.String("usd"), Product: &product.ID, UnitAmount: stripe.Int64(25),
		Recurring: &stripe.PriceRecurringParams{Interval: stripe.String("month"), UsageType: stripe.String("metered"), Meter: &s.meter},
	}))(t)
	params := func() *stripe.CheckoutSessionParams {
		return &stripe.CheckoutSessionParams{
			Mode: stripe.String("subscription"), ClientReferenceID: stripe.String("org:7"), CustomerEmail: stripe.String("a@example.com"),
			SuccessURL: stripe.String("https://tollgate.example/done?session={CHECKOUT_SESSION_ID}"), CancelURL: stripe.String("https://tollgate.example/plans"),
			LineItems: []*stripe.CheckoutSessionLineItemParams{{Price: &seat.ID, Quantity: stripe.Int64(4)}, {Price: &overage.ID}},
			SubscriptionData: &stripe.CheckoutSessionSubscriptionDataParams{
				Metadata: map[string]string{"tollgate_organization": "7"}, TrialPeriodDays: stripe.Int64(14),
			},
			Metadata: map[string]string{"plan": "team"},
		}
	}
	session := must(c.CheckoutSessions.New(params()))(t)
	if session.URL == "" || session.Status != "open" || session.ClientReferenceID != "org:7" || session.Metadata["plan"] != "team" || session.Subscription != nil {
		t.Errorf("session %+v", session)
	}
	sub := s.CompleteCheckout(session.ID)
	if sub == "" || s.CompleteCheckout(session.ID) != "" || s.CompleteCheckout("cs_9") != "" {
		t.Error("completed twice, or not once")
	}
	with := &stripe.CheckoutSessionParams{}
	with.AddExpand("line_items")
	with.AddExpand("customer")
	got := must(c.CheckoutSessions.Get(session.ID, with))(t)
	if got.Status != "complete" || got.PaymentStatus != "paid" || got.Subscription.ID != sub || got.Customer.Email != "a@example.com" || len(got.LineItems.Data) != 2 {
		t.Errorf("completed %+v", got)
	}
	made := must(c.Subscriptions.Get(sub, nil))(t)
	if made.Status != "trialing" || made.TrialEnd != start.AddDate(0, 0, 14).Unix() || made.CurrentPeriodEnd != made.TrialEnd ||
		made.Metadata["tollgate_organization"] != "7" || len(made.Items.Data) != 2 || made.Items.Data[0].Quantity != 4 || made.Customer.ID != got.Customer.ID {
		t.Errorf("subscription %+v", made)
	}
	if got := ids(t, c.CheckoutSessions.List(&stripe.CheckoutSessionListParams{Subscription: &sub}), func(s *stripe.CheckoutSession) string { return s.ID }); got != session.ID {
		t.Errorf("listed %q", got)
	}
	another := must(c.CheckoutSessions.New(params()))(t)
	if got := must(c.CheckoutSessions.Expire(another.ID, nil))(t); got.Status != "expired" || s.CompleteCheckout(another.ID) != "" {
		t.Errorf("expired: %+v", got)
	}

	must(c.Prices.Update(seat.ID, &stripe.PriceParams{Active: stripe.Bool(false)}))(t)
	_, err := c.CheckoutSessions.New(params())
	refused(t, "an inactive price", err, 400, "line_items[0][price]")
	must(c.Prices.Update(seat.ID, &stripe.PriceParams{Active: stripe.Bool(true)}))(t)
	for name, test := range map[string]struct {
		param  string
		change func(*stripe.CheckoutSessionParams)
	}{
		"seats of a metered price": {"line_items[1][quantity]", func(p *stripe.CheckoutSessionParams) { p.LineItems[1].Quantity = stripe.Int64(1) }},
		"no seats":                 {"line_items[0][quantity]", func(p *stripe.CheckoutSessionParams) { p.LineItems[0].Quantity = nil }},
		"no price of Stripe's":     {"line_items[0][price]", func(p *stripe.CheckoutSessionParams) { p.LineItems[0].Price = stripe.String("price_9") }},
		"nothing":                  {"line_items", func(p *stripe.CheckoutSessionParams) { p.LineItems = nil }},
		"no way back":              {"success_url", func(p *stripe.CheckoutSessionParams) { p.SuccessURL = nil }},
		"two customers":            {"customer_email", func(p *stripe.CheckoutSessionParams) { p.Customer = stripe.String("cus_1") }},
		"nobody": {"customer", func(p *stripe.CheckoutSessionParams) {
			p.CustomerEmail, p.Customer = nil, stripe.String("cus_9")
		}},
		"a long reference":  {"client_reference_id", func(p *stripe.CheckoutSessionParams) { p.ClientReferenceID = stripe.String(strings.Repeat("x", 201)) }},
		"another mode":      {"mode", func(p *stripe.CheckoutSessionParams) { p.Mode = stripe.String("payment") }},
		"what is not known": {"currency", func(p *stripe.CheckoutSessionParams) { p.Currency = stripe.String("usd") }},
	} {
		p := params()
		test.change(p)
		_, err := c.CheckoutSessions.New(p)
		refused(t, name, err, 400, test.param)
	}

	portal := func() *stripe.BillingPortalConfigurationParams {
		return &stripe.BillingPortalConfigurationParams{
			BusinessProfile: &stripe.BillingPortalConfigurationBusinessProfileParams{Headline: stripe.String("Tollgate")},
			Features: &stripe.BillingPortalConfigurationFeaturesParams{
				InvoiceHistory: &stripe.BillingPortalConfigurationFeaturesInvoiceHistoryParams{Enabled: stripe.Bool(true)},
				SubscriptionCancel: &stripe.BillingPortalConfigurationFeaturesSubscriptionCancelParams{
					Enabled: stripe.Bool(true), Mode: stripe.String("at_period_end"),
				},
				SubscriptionUpdate: &stripe.BillingPortalConfigurationFeaturesSubscriptionUpdateParams{
					Enabled: stripe.Bool(true), DefaultAllowedUpdates: stripe.StringSlice([]string{"price"}),
					Products: []*stripe.BillingPortalConfigurationFeaturesSubscriptionUpdateProductParams{{Product: &product.ID, Prices: []*string{&seat.ID}}},
				},
			},
			DefaultReturnURL: stripe.String("https://tollgate.example/usage"),
			Metadata:         map[string]string{"tollgate": "1"},
		}
	}
	session2 := &stripe.BillingPortalSessionParams{Customer: stripe.String("cus_1")}
	_, err = c.BillingPortalSessions.New(session2)
	refused(t, "no configuration", err, 400, "")
	conf := must(c.BillingPortalConfigurations.New(portal()))(t)
	if !conf.Active || conf.IsDefault || !conf.Features.InvoiceHistory.Enabled || conf.Features.PaymentMethodUpdate.Enabled || conf.Metadata["tollgate"] != "1" ||
		conf.Features.SubscriptionUpdate.Products[0].Prices[0] != seat.ID {
		t.Errorf("configuration %+v", conf)
	}
	if got := ids(t, c.BillingPortalConfigurations.List(&stripe.BillingPortalConfigurationListParams{Active: stripe.Bool(true)}), func(b *stripe.BillingPortalConfiguration) string { return b.ID }); got != conf.ID {
		t.Errorf("configurations %q", got)
	}
	session2.Configuration = &conf.ID
	if got := must(c.BillingPortalSessions.New(session2))(t); got.URL == "" || got.ReturnURL != "https://tollgate.example/usage" {
		t.Errorf("portal %+v", got)
	}
	must(c.BillingPortalConfigurations.Update(conf.ID, &stripe.BillingPortalConfigurationParams{Active: stripe.Bool(false)}))(t)
	_, err = c.BillingPortalSessions.New(session2)
	refused(t, "an inactive configuration", err, 400, "configuration")
	session2.Configuration = stripe.String("bpc_9")
	_, err = c.BillingPortalSessions.New(session2)
	refused(t, "no configuration of Stripe's", err, 400, "configuration")
	foreign := portal()
	foreign.Features.SubscriptionUpdate.Products[0].Prices[0] = stripe.String("price_9")
	_, err = c.BillingPortalConfigurations.New(foreign)
	refused(t, "a foreign price", err, 400, "features[subscription_update][products]")
	_, err = c.BillingPortalConfigurations.New(&stripe.BillingPortalConfigurationParams{})
	refused(t, "no features", err, 400, "features")
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
		t.Errorf("%v %v", all, i.Err())
	}
	got := must(c.Invoices.Get("in_14", nil))(t)
	if got.Number != "T-14" || got.Status != "paid" || got.Total != 14 || got.AmountPaid != 14 || !got.Paid || got.HostedInvoiceURL == "" || got.InvoicePDF == "" || got.Created != start.Unix() {
		t.Errorf("got %+v", got)
	}
	if got := ids(t, c.Invoices.List(&stripe.InvoiceListParams{Status: stripe.String("draft")}), func(i *stripe.Invoice) string { return i.Customer.ID }); got != "cus_2" {
		t.Errorf("drafts of %q", got)
	}
}

func TestWebhookEndpoints(t *testing.T) {
	s := newStandIn(nil)
	c := s.sdk()
	params := func() *stripe.WebhookEndpointParams {
		return &stripe.WebhookEndpointParams{
			URL: stripe.String("https://tollgate.example/stripe/webhook"), APIVersion: stripe.String("2023-10-16"),
			EnabledEvents: stripe.StringSlice([]string{"customer.subscription.created", "invoice.paid"}), Metadata: map[string]string{"tollgate": "1"},
		}
	}
	made := must(c.WebhookEndpoints.New(params()))(t)
	if !strings.HasPrefix(made.Secret, "whsec_") || made.APIVersion != "2023-10-16" || len(made.EnabledEvents) != 2 || made.Status != "enabled" {
		t.Errorf("made %+v", made)
	}
	if got := must(c.WebhookEndpoints.Get(made.ID, nil))(t); got.Secret != "" || got.URL != made.URL {
		t.Errorf("got %+v", got)
	}
	if got := must(c.WebhookEndpoints.Update(made.ID, &stripe.WebhookEndpointParams{
		EnabledEvents: stripe.StringSlice([]string{"*"}), Disabled: stripe.Bool(true),
	}))(t); len(got.EnabledEvents) != 1 || got.Status != "disabled" {
		t.Errorf("updated %+v", got)
	}
	if got := ids(t, c.WebhookEndpoints.List(nil), func(w *stripe.WebhookEndpoint) string { return w.ID }); got != made.ID {
		t.Errorf("listed %q", got)
	}
	for name, test := range map[string]struct {
		param  string
		change func(*stripe.WebhookEndpointParams)
	}{
		"no address":           {"url", func(p *stripe.WebhookEndpointParams) { p.URL = nil }},
		"no web address":       {"url", func(p *stripe.WebhookEndpointParams) { p.URL = stripe.String("tollgate.example") }},
		"this machine":         {"url", func(p *stripe.WebhookEndpointParams) { p.URL = stripe.String("http://127.0.0.1:8080/stripe/webhook") }},
		"this machine by name": {"url", func(p *stripe.WebhookEndpointParams) { p.URL = stripe.String("http://localhost/stripe/webhook") }},
		"no events":            {"enabled_events", func(p *stripe.WebhookEndpointParams) { p.EnabledEvents = nil }},
		"a thin event": {"enabled_events[0]", func(p *stripe.WebhookEndpointParams) {
			p.EnabledEvents = stripe.StringSlice([]string{"v1.billing.meter.no_meter_found"})
		}},
	} {
		p := params()
		test.change(p)
		_, err := c.WebhookEndpoints.New(p)
		refused(t, name, err, 400, test.param)
	}
	_, err := c.WebhookEndpoints.Update(made.ID, &stripe.WebhookEndpointParams{APIVersion: stripe.String("2024-01-01")})
	refused(t, "another version", err, 400, "api_version")
	if d := must(c.WebhookEndpoints.Del(made.ID, nil))(t); !d.Deleted {
		t.Errorf("deleted %+v", d)
	}
	_, err = c.WebhookEndpoints.Del(made.ID, nil)
	refused(t, "deleted twice", err, 404, "id")
}

func TestSignedEvents(t *testing.T) {
	s := newStandIn(nil)
	const secret = "whsec_1"
	// The SDK has a clock of its own for how old a signature may be.
	now := time.Now()
	sub := s.AddSubscription(stripetest.Subscription{Customer: "cus_1"})
	body, signature := s.SignedEvent(secret, now, "customer.subscription.created", s.Object(sub))
	e := must(webhook.ConstructEvent(body, signature, secret))(t)
	if e.Type != "customer.subscription.created" || e.Created != now.Unix() || e.Data.Object["id"] != sub || !strings.HasPrefix(e.ID, "evt_") {
		t.Errorf("event %+v", e)
	}
	again, _ := s.SignedEvent(secret, now, "customer.subscription.created", s.Object(sub))
	if bytes.Equal(body, again) {
		t.Error("two events have one id")
	}
	if _, err := webhook.ConstructEvent(body, signature, "whsec_2"); err == nil {
		t.Error("another secret did")
	}
	body, signature = s.SignedEvent(secret, now.Add(-6*time.Minute), "customer.deleted", nil)
	if _, err := webhook.ConstructEvent(body, signature, secret); !errors.Is(err, webhook.ErrTooOld) {
		t.Errorf("6 minutes old: %v", err)
	}

	report := stripetest.ErrorReport(start, start.Add(time.Hour), "meter_event_no_customer_defined", "no customer", 5, "a", "b")
	body, signature = s.SignedEvent(secret, now, "v1.billing.meter.error_report_triggered", report)
	if err := webhook.ValidatePayload(body, signature, secret); err != nil {
		t.Error(err)
	}
	var thin map[string]any
	if err := json.Unmarshal(body, &thin); err != nil {
		t.Fatal(err)
	}
	if related, _ := thin["related_object"].(map[string]any); thin["object"] != "v2.core.event" || thin["data"] != nil || related["id"] != s.meter || related["type"] != "billing.meter" {
		t.Errorf("thin %v", thin)
	}
	full := s.must(t, "GET /v2/core/events/"+thin["id"].(string), nil, "")
	if reason, _ := full.body["data"].(map[string]any)["reason"].(map[string]any); reason["error_count"] != 5.0 {
		t.Errorf("full %v", full.body)
	}
	body, _ = s.SignedEvent(secret, now, "v1.billing.meter.no_meter_found", nil)
	if bytes.Contains(body, []byte("related_object")) {
		t.Errorf("%s", body)
	}
}
