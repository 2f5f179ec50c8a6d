package stripetest_test

import (
	"fmt"
	"testing"

	"github.com/stripe/stripe-go/v76"
	"github.com/stripe/stripe-go/v76/client"

	"tollgate/models/billing/stripetest"
)

// priceFixture has a product, and the parameters of two prices for it.
type priceFixture struct {
	*standIn
	c       *client.API
	product *stripe.Product
}

func (f *priceFixture) monthly() *stripe.PriceParams {
	return &stripe.PriceParams{
		Currency: stripe.String("usd"), Product: &f.product.ID, UnitAmount: stripe.Int64(1500), LookupKey: stripe.String("tollgate_pro"),
		Recurring: &stripe.PriceRecurringParams{Interval: stripe.String("month")},
	}
}

func (f *priceFixture) metered() *stripe.PriceParams {
	return &stripe.PriceParams{
		Currency: stripe.String("usd"), Product: &f.product.ID, LookupKey: stripe.String("tollgate_pro_overage"),
		UnitAmountDecimal: stripe.Float64(30.5), BillingScheme: stripe.String("per_unit"),
		Recurring: &stripe.PriceRecurringParams{Interval: stripe.String("month"), UsageType: stripe.String("metered"), Meter: &f.meter},
	}
}

// list returns the IDs of the listed prices.
func (f *priceFixture) list(t *testing.T, p *stripe.PriceListParams) string {
	t.Helper()
	return ids(t, f.c.Prices.List(p), func(p *stripe.Price) string { return p.ID })
}

func TestProductsAndPrices(t *testing.T) {
	s := newStandIn(nil)
	f := &priceFixture{standIn: s, c: s.sdk()}
	pp := &stripe.ProductParams{Name: stripe.String("Pro"), Description: stripe.String("75 a month")}
	pp.AddMetadata("tollgate_plan", "pro")
	f.product = must(f.c.Products.New(pp))(t)
	if f.product.Name != "Pro" || !f.product.Active || f.product.Metadata["tollgate_plan"] != "pro" {
		t.Errorf("the product is %+v", f.product)
	}
	must(f.c.Products.Update(f.product.ID, &stripe.ProductParams{Name: stripe.String("Professional")}))(t)
	if got := must(f.c.Products.Get(f.product.ID, nil))(t); got.Name != "Professional" || got.Description != "75 a month" {
		t.Errorf("the updated product is %+v", got)
	}
	// Each step continues with the prices of the previous one.
	base := must(f.c.Prices.New(f.monthly()))(t)
	t.Run("create and list", func(t *testing.T) { f.testCreate(t, base) })
	t.Run("lookup keys", func(t *testing.T) { f.testLookupKeys(t, base) })
	t.Run("refused prices", f.testRefusedPrices)
	t.Run("refused changes", func(t *testing.T) { f.testRefusedChanges(t, base) })
}

func (f *priceFixture) testCreate(t *testing.T, base *stripe.Price) {
	s, c, product := f.standIn, f.c, f.product
	if base.UnitAmount != 1500 || base.UnitAmountDecimal != 1500 || base.LookupKey != "tollgate_pro" || base.Recurring.Interval != "month" ||
		base.Recurring.UsageType != "licensed" || base.Type != "recurring" || base.Product.ID != product.ID || !base.Active {
		t.Errorf("the base price is %+v", base)
	}
	overage := must(c.Prices.New(f.metered()))(t)
	if overage.BillingScheme != "per_unit" || overage.UnitAmount != 0 || overage.UnitAmountDecimal != 30.5 ||
		overage.Recurring.Meter != s.meter ||
		overage.Recurring.UsageType != "metered" {
		t.Errorf("the overage price is %+v", overage)
	}
	old := s.AddPrice(stripetest.Price{Product: product.ID, Meter: s.meter, Tiered: true, Metadata: map[string]string{"tollgate_plan": "pro"}})
	if got := must(c.Prices.Get(old, nil))(t); got.BillingScheme != "tiered" || got.Recurring.Meter != s.meter ||
		got.Product.ID != product.ID || got.UnitAmountDecimal != 0 {
		t.Errorf("the price with tiers is %+v", got)
	}

	both := &stripe.PriceListParams{LookupKeys: stripe.StringSlice([]string{"tollgate_pro", "tollgate_pro_overage"}),
		Active: stripe.Bool(true)}
	both.Limit = stripe.Int64(1)
	if got, want := f.list(t, both), overage.ID+" "+base.ID; got != want {
		t.Errorf("by lookup keys: %q, want %q", got, want)
	}
	if got := f.list(t, &stripe.PriceListParams{Recurring: &stripe.PriceListRecurringParams{Meter: &s.meter}}); got != old+" "+overage.ID {
		t.Errorf("by meter: %q", got)
	}
	if got := f.list(t, &stripe.PriceListParams{Product: &product.ID, Type: stripe.String("one_time")}); got != "" {
		t.Errorf("by type: %q", got)
	}
}

// testLookupKeys checks that a lookup key belongs to one price until another one takes it over.
func (f *priceFixture) testLookupKeys(t *testing.T, base *stripe.Price) {
	c := f.c
	_, err := c.Prices.New(f.monthly())
	refused(t, "the same lookup key", err, 400, "lookup_key")
	higher := f.monthly()
	higher.UnitAmount, higher.TransferLookupKey = stripe.Int64(1900), stripe.Bool(true)
	next := must(c.Prices.New(higher))(t)
	if got := must(c.Prices.Get(base.ID, nil))(t); got.LookupKey != "" {
		t.Errorf("the old price still has %q", got.LookupKey)
	}
	if next.LookupKey != "tollgate_pro" {
		t.Errorf("the new price has %q", next.LookupKey)
	}
	must(c.Prices.Update(base.ID, &stripe.PriceParams{Active: stripe.Bool(false)}))(t)
	if got := f.list(t, &stripe.PriceListParams{Active: stripe.Bool(false)}); got != base.ID {
		t.Errorf("inactive: %q", got)
	}
}

func (f *priceFixture) testRefusedPrices(t *testing.T) {
	c := f.c
	inactive := f.AddMeter("inactive")
	must(c.BillingMeters.Deactivate(inactive, nil))(t)
	for name, test := range map[string]struct {
		param  string
		change func(monthly, metered *stripe.PriceParams) *stripe.PriceParams
	}{
		"no amount":   {"unit_amount", func(m, _ *stripe.PriceParams) *stripe.PriceParams { m.UnitAmount = nil; return m }},
		"no currency": {"currency", func(m, _ *stripe.PriceParams) *stripe.PriceParams { m.Currency = nil; return m }},
		"an unknown product": {"product", func(m, _ *stripe.PriceParams) *stripe.PriceParams {
			m.Product = stripe.String("prod_9")
			return m
		}},
		"an unknown interval": {"recurring[interval]", func(m, _ *stripe.PriceParams) *stripe.PriceParams {
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
		"an unknown meter": {"recurring[meter]", func(_, o *stripe.PriceParams) *stripe.PriceParams {
			o.Recurring.Meter = stripe.String("mtr_9")
			return o
		}},
		"an inactive meter": {"recurring[meter]", func(_, o *stripe.PriceParams) *stripe.PriceParams { o.Recurring.Meter = &inactive; return o }},
	} {
		m, o := f.monthly(), f.metered()
		m.LookupKey, o.LookupKey = nil, nil
		_, err := c.Prices.New(test.change(m, o))
		refused(t, name, err, 400, test.param)
	}
}

func (f *priceFixture) testRefusedChanges(t *testing.T, base *stripe.Price) {
	c, product := f.c, f.product
	_, err := c.Prices.Update(base.ID, &stripe.PriceParams{UnitAmount: stripe.Int64(1)})
	refused(t, "a changed amount", err, 400, "unit_amount")
	_, err = c.Products.Del(product.ID, nil)
	refused(t, "deleting a product with prices", err, 400, "")
	own := must(c.Products.New(&stripe.ProductParams{ID: stripe.String("tollgate_team"), Name: stripe.String("Team")}))(t)
	_, err = c.Products.New(&stripe.ProductParams{ID: stripe.String("tollgate_team"), Name: stripe.String("Team")})
	refused(t, "the same product", err, 400, "id")
	if got := ids(t, c.Products.List(&stripe.ProductListParams{IDs: []*string{&own.ID, &product.ID}, Active: stripe.Bool(true)}),
		func(p *stripe.Product) string { return p.ID }); got != own.ID+" "+product.ID {
		t.Errorf("the products are %q", got)
	}
	if d := must(c.Products.Del(own.ID, nil))(t); !d.Deleted {
		t.Errorf("the deletion returned %+v", d)
	}
	eleven := &stripe.PriceListParams{}
	for i := range 11 {
		eleven.LookupKeys = append(eleven.LookupKeys, stripe.String(fmt.Sprint(i)))
	}
	i := c.Prices.List(eleven)
	i.Next()
	refused(t, "eleven lookup keys", i.Err(), 400, "lookup_keys")
}
