package stripetest_test

import (
	"strings"
	"testing"

	"github.com/stripe/stripe-go/v76"
	"github.com/stripe/stripe-go/v76/client"
)

// checkoutFixture has a product with a price for each seat and a metered price.
type checkoutFixture struct {
	*standIn
	c             *client.API
	product       *stripe.Product
	seat, overage *stripe.Price
}

func (f *checkoutFixture) session() *stripe.CheckoutSessionParams {
	return &stripe.CheckoutSessionParams{
		Mode: stripe.String("subscription"), ClientReferenceID: stripe.String("org:7"), CustomerEmail: stripe.String("a@example.com"),
		SuccessURL: stripe.String("https://tollgate.example/done?session={CHECKOUT_SESSION_ID}"),
		CancelURL:  stripe.String("https://tollgate.example/plans"),
		LineItems:  []*stripe.CheckoutSessionLineItemParams{{Price: &f.seat.ID, Quantity: stripe.Int64(4)}, {Price: &f.overage.ID}},
		SubscriptionData: &stripe.CheckoutSessionSubscriptionDataParams{
			Metadata: map[string]string{"tollgate_organization": "7"}, TrialPeriodDays: stripe.Int64(14),
		},
		Metadata: map[string]string{"plan": "team"},
	}
}

func (f *checkoutFixture) portal() *stripe.BillingPortalConfigurationParams {
	return &stripe.BillingPortalConfigurationParams{
		BusinessProfile: &stripe.BillingPortalConfigurationBusinessProfileParams{Headline: stripe.String("Tollgate")},
		Features: &stripe.BillingPortalConfigurationFeaturesParams{
			InvoiceHistory: &stripe.BillingPortalConfigurationFeaturesInvoiceHistoryParams{Enabled: stripe.Bool(true)},
			SubscriptionCancel: &stripe.BillingPortalConfigurationFeaturesSubscriptionCancelParams{
				Enabled: stripe.Bool(true), Mode: stripe.String("at_period_end"),
			},
			SubscriptionUpdate: &stripe.BillingPortalConfigurationFeaturesSubscriptionUpdateParams{
				Enabled: stripe.Bool(true), DefaultAllowedUpdates: stripe.StringSlice([]string{"price"}),
				Products: []*stripe.BillingPortalConfigurationFeaturesSubscriptionUpdateProductParams{{Product: &f.product.ID,
					Prices: []*string{&f.seat.ID}}},
			},
		},
		DefaultReturnURL: stripe.String("https://tollgate.example/usage"),
		Metadata:         map[string]string{"tollgate": "1"},
	}
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
	f := &checkoutFixture{standIn: s, c: c, product: product, seat: seat, overage: overage}
	t.Run("checkout", f.testCheckout)
	t.Run("refused checkouts", f.testRefusedCheckouts)
	t.Run("portal", f.testPortal)
}

func (f *checkoutFixture) testCheckout(t *testing.T) {
	s, c := f.standIn, f.c
	session := must(c.CheckoutSessions.New(f.session()))(t)
	if session.URL == "" || session.Status != "open" || session.ClientReferenceID != "org:7" || session.Metadata["plan"] != "team" ||
		session.Subscription != nil {
		t.Errorf("the session is %+v", session)
	}
	sub := s.CompleteCheckout(session.ID)
	if sub == "" || s.CompleteCheckout(session.ID) != "" || s.CompleteCheckout("cs_9") != "" {
		t.Error("the session was not completed exactly once")
	}
	with := &stripe.CheckoutSessionParams{}
	with.AddExpand("line_items")
	with.AddExpand("customer")
	got := must(c.CheckoutSessions.Get(session.ID, with))(t)
	if got.Status != "complete" || got.PaymentStatus != "paid" || got.Subscription.ID != sub || got.Customer.Email != "a@example.com" ||
		len(got.LineItems.Data) != 2 {
		t.Errorf("the completed session is %+v", got)
	}
	made := must(c.Subscriptions.Get(sub, nil))(t)
	if made.Status != "trialing" || made.TrialEnd != start.AddDate(0, 0, 14).Unix() || made.CurrentPeriodEnd != made.TrialEnd ||
		made.Metadata["tollgate_organization"] != "7" || len(made.Items.Data) != 2 || made.Items.Data[0].Quantity != 4 ||
		made.Customer.ID != got.Customer.ID {
		t.Errorf("the subscription is %+v", made)
	}
	if got := ids(t, c.CheckoutSessions.List(&stripe.CheckoutSessionListParams{Subscription: &sub}),
		func(s *stripe.CheckoutSession) string { return s.ID }); got != session.ID {
		t.Errorf("the listed sessions are %q", got)
	}
	another := must(c.CheckoutSessions.New(f.session()))(t)
	if got := must(c.CheckoutSessions.Expire(another.ID, nil))(t); got.Status != "expired" || s.CompleteCheckout(another.ID) != "" {
		t.Errorf("the expired session is %+v", got)
	}
}

func (f *checkoutFixture) testRefusedCheckouts(t *testing.T) {
	c := f.c
	must(c.Prices.Update(f.seat.ID, &stripe.PriceParams{Active: stripe.Bool(false)}))(t)
	_, err := c.CheckoutSessions.New(f.session())
	refused(t, "an inactive price", err, 400, "line_items[0][price]")
	must(c.Prices.Update(f.seat.ID, &stripe.PriceParams{Active: stripe.Bool(true)}))(t)
	for name, test := range map[string]struct {
		param  string
		change func(*stripe.CheckoutSessionParams)
	}{
		"seats of a metered price": {"line_items[1][quantity]",
			func(p *stripe.CheckoutSessionParams) { p.LineItems[1].Quantity = stripe.Int64(1) }},
		"no seats": {"line_items[0][quantity]", func(p *stripe.CheckoutSessionParams) { p.LineItems[0].Quantity = nil }},
		"an unknown price": {"line_items[0][price]",
			func(p *stripe.CheckoutSessionParams) { p.LineItems[0].Price = stripe.String("price_9") }},
		"no line items":  {"line_items", func(p *stripe.CheckoutSessionParams) { p.LineItems = nil }},
		"no success URL": {"success_url", func(p *stripe.CheckoutSessionParams) { p.SuccessURL = nil }},
		"two customers":  {"customer_email", func(p *stripe.CheckoutSessionParams) { p.Customer = stripe.String("cus_1") }},
		"an unknown customer": {"customer", func(p *stripe.CheckoutSessionParams) {
			p.CustomerEmail, p.Customer = nil, stripe.String("cus_9")
		}},
		"a long reference": {"client_reference_id",
			func(p *stripe.CheckoutSessionParams) { p.ClientReferenceID = stripe.String(strings.Repeat("x", 201)) }},
		"another mode":         {"mode", func(p *stripe.CheckoutSessionParams) { p.Mode = stripe.String("payment") }},
		"an unknown parameter": {"currency", func(p *stripe.CheckoutSessionParams) { p.Currency = stripe.String("usd") }},
	} {
		p := f.session()
		test.change(p)
		_, err := c.CheckoutSessions.New(p)
		refused(t, name, err, 400, test.param)
	}
}

func (f *checkoutFixture) testPortal(t *testing.T) {
	c := f.c
	session := &stripe.BillingPortalSessionParams{Customer: stripe.String("cus_1")}
	_, err := c.BillingPortalSessions.New(session)
	refused(t, "no configuration", err, 400, "")
	conf := must(c.BillingPortalConfigurations.New(f.portal()))(t)
	if !conf.Active || conf.IsDefault || !conf.Features.InvoiceHistory.Enabled || conf.Features.PaymentMethodUpdate.Enabled ||
		conf.Metadata["tollgate"] != "1" ||
		conf.Features.SubscriptionUpdate.Products[0].Prices[0] != f.seat.ID {
		t.Errorf("the configuration is %+v", conf)
	}
	if got := ids(t, c.BillingPortalConfigurations.List(&stripe.BillingPortalConfigurationListParams{Active: stripe.Bool(true)}),
		func(b *stripe.BillingPortalConfiguration) string { return b.ID }); got != conf.ID {
		t.Errorf("the configurations are %q", got)
	}
	session.Configuration = &conf.ID
	if got := must(c.BillingPortalSessions.New(session))(t); got.URL == "" || got.ReturnURL != "https://tollgate.example/usage" {
		t.Errorf("the portal session is %+v", got)
	}
	must(c.BillingPortalConfigurations.Update(conf.ID, &stripe.BillingPortalConfigurationParams{Active: stripe.Bool(false)}))(t)
	_, err = c.BillingPortalSessions.New(session)
	refused(t, "an inactive configuration", err, 400, "configuration")
	session.Configuration = stripe.String("bpc_9")
	_, err = c.BillingPortalSessions.New(session)
	refused(t, "an unknown configuration", err, 400, "configuration")
	foreign := f.portal()
	foreign.Features.SubscriptionUpdate.Products[0].Prices[0] = stripe.String("price_9")
	_, err = c.BillingPortalConfigurations.New(foreign)
	refused(t, "an unknown price", err, 400, "features[subscription_update][products]")
	_, err = c.BillingPortalConfigurations.New(&stripe.BillingPortalConfigurationParams{})
	refused(t, "no features", err, 400, "features")
}
