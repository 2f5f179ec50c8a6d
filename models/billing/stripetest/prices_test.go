package stripetest_test

import (
	"fmt"
	"testing"

	"github.com/stripe/stripe-go/v76"

	"tollgate/models/billing/stripetest"
)

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
			UnitAmountDecimal: stripe.Float64(30.5),
			BillingScheme:     stripe.String("per_unit"),
			Recurring:         &stripe.PriceRecurringParams{Interval: stripe.String("month"), UsageType: stripe.String("metered"), Meter: &s.meter},
		}
	}
	base := must(c.Prices.New(monthly()))(t)
	if base.UnitAmount != 1500 || base.UnitAmountDecimal != 1500 || base.LookupKey != "tollgate_pro" || base.Recurring.Interval != "month" ||
		base.Recurring.UsageType != "licensed" || base.Type != "recurring" || base.Product.ID != product.ID || !base.Active {
		t.Errorf("base price %+v", base)
	}
	overage := must(c.Prices.New(metered()))(t)
	if overage.BillingScheme != "per_unit" || overage.UnitAmount != 0 || overage.UnitAmountDecimal != 30.5 ||
		overage.Recurring.Meter != s.meter ||
		overage.Recurring.UsageType != "metered" {
		t.Errorf("overage price %+v", overage)
	}
	old := s.AddPrice(stripetest.Price{Product: product.ID, Meter: s.meter, Tiered: true, Metadata: map[string]string{"tollgate_plan": "pro"}})
	if got := must(c.Prices.Get(old, nil))(t); got.BillingScheme != "tiered" || got.Recurring.Meter != s.meter ||
		got.Product.ID != product.ID || got.UnitAmountDecimal != 0 {
		t.Errorf("the price with tiers is %+v", got)
	}

	list := func(p *stripe.PriceListParams) string {
		return ids(t, c.Prices.List(p), func(p *stripe.Price) string {
			return p.ID
		})
	}
	both := &stripe.PriceListParams{LookupKeys: stripe.StringSlice([]string{"tollgate_pro", "tollgate_pro_overage"}),
		Active: stripe.Bool(true)}
	both.Limit = stripe.Int64(1)
	if got, want := list(both), overage.ID+" "+base.ID; got != want {
		t.Errorf("by lookup keys: %q, not %q", got, want)
	}
	if got := list(&stripe.PriceListParams{Recurring: &stripe.PriceListRecurringParams{Meter: &s.meter}}); got != old+" "+overage.ID {
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
	if got := list(&stripe.PriceListParams{Active: stripe.Bool(false)}); got != base.ID {
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
		"tiers": {"billing_scheme", func(_, o *stripe.PriceParams) *stripe.PriceParams {
			o.BillingScheme = stripe.String("tiered")
			return o
		}},
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
	if got := ids(t, c.Products.List(&stripe.ProductListParams{IDs: []*string{&own.ID, &product.ID}, Active: stripe.Bool(true)}),
		func(p *stripe.Product) string { return p.ID }); got != own.ID+" "+product.ID {
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
