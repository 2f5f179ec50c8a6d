package billing

import (
	"context"
	"fmt"
	"slices"

	"github.com/stripe/stripe-go/v76"

	"tollgate/models"
)

// lookupsAtATime is the maximum number of lookup keys in a request.
const lookupsAtATime = 10

// pricesByKey fetches prices by their lookup keys.
func pricesByKey(ctx context.Context, client *Client, keys []string) (map[string]*stripe.Price, error) {
	prices := map[string]*stripe.Price{}
	for some := range slices.Chunk(keys, lookupsAtATime) {
		list := &stripe.PriceListParams{LookupKeys: stripe.StringSlice(some)}
		list.Context, list.Limit = ctx, stripe.Int64(100)
		found := client.api.Prices.List(list)
		for found.Next() {
			if p := found.Price(); p.LookupKey != "" {
				prices[p.LookupKey] = p
			}
		}
		if err := found.Err(); err != nil {
			return nil, fmt.Errorf("list the prices: %w", err)
		}
	}
	return prices, nil
}

// basePrice returns the parameters of a plan's monthly price; for a team plan, per seat.
func basePrice(c *models.Catalogue, p models.Plan, product string) *stripe.PriceParams {
	return &stripe.PriceParams{
		Currency: &c.Currency, Product: &product, UnitAmount: &p.BasePriceCents, LookupKey: stripe.String(lookupBase + string(p.ID)),
		Recurring: &stripe.PriceRecurringParams{
			Interval:  stripe.String(string(stripe.PriceRecurringIntervalMonth)),
			UsageType: stripe.String(string(stripe.PriceRecurringUsageTypeLicensed)),
		},
		Metadata: map[string]string{metadataPlan: string(p.ID)},
	}
}

// overageKey returns the lookup key of a plan's overage price.
func overageKey(plan models.PlanID) string { return lookupOverage + string(plan) }

// overagePrice returns the parameters of the price that bills each unit that is reported to the
// plan's meter at the plan's rate. Only overage is reported.
func overagePrice(c *models.Catalogue, p models.Plan, product, meter string) *stripe.PriceParams {
	return &stripe.PriceParams{
		Currency: &c.Currency, Product: &product, UnitAmount: &p.OverageRateCents, LookupKey: stripe.String(overageKey(p.ID)),
		BillingScheme: stripe.String(string(stripe.PriceBillingSchemePerUnit)),
		Recurring: &stripe.PriceRecurringParams{
			Interval:  stripe.String(string(stripe.PriceRecurringIntervalMonth)),
			UsageType: stripe.String(string(stripe.PriceRecurringUsageTypeMetered)), Meter: &meter,
		},
		Metadata: map[string]string{metadataPlan: string(p.ID)},
	}
}

// priceDifferences returns how a price differs from the expected one.
func priceDifferences(p *stripe.Price, want *stripe.PriceParams) (lines []string) {
	differs := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	if !p.Active {
		differs("it is inactive")
	}
	if string(p.Currency) != *want.Currency {
		differs("it is in %s, and the catalog in %s", p.Currency, *want.Currency)
	}
	if p.Product != nil && *want.Product != "" && p.Product.ID != *want.Product {
		differs("it is of the product %s, not %s", p.Product.ID, *want.Product)
	}
	switch r := p.Recurring; {
	case r == nil || string(r.Interval) != *want.Recurring.Interval || r.IntervalCount > 1:
		differs("it is not monthly")
	case string(r.UsageType) != *want.Recurring.UsageType:
		differs("it is %s, not %s", r.UsageType, *want.Recurring.UsageType)
	case want.Recurring.Meter != nil && r.Meter != *want.Recurring.Meter:
		differs("it counts by the meter %q, not %q", r.Meter, *want.Recurring.Meter)
	}
	cents, whole := centsPerUnit(p)
	switch should := models.FormatMoney(*want.UnitAmount, *want.Currency); {
	case isTiered(p):
		differs("it has tiers, and the catalog says %s for each unit", should)
	case !whole:
		differs("it is %s, and the catalog says %s", amountText(p), should)
	case cents != *want.UnitAmount:
		differs("it is %s, and the catalog says %s", models.FormatMoney(cents, string(p.Currency)), should)
	}
	return lines
}

// isTiered reports whether a price has tiers. Overage prices had tiers before Tollgate itself
// decided which units are overage.
func isTiered(p *stripe.Price) bool { return p.BillingScheme == stripe.PriceBillingSchemeTiered }

// centsPerUnit returns the price of a unit. whole is false if it is not a whole number of cents,
// because the price has decimals or is for several units.
func centsPerUnit(p *stripe.Price) (cents int64, whole bool) {
	if p.TransformQuantity != nil && p.TransformQuantity.DivideBy > 1 {
		return 0, false
	}
	return p.UnitAmount, p.UnitAmountDecimal == 0 || p.UnitAmountDecimal == float64(p.UnitAmount)
}

// amountText describes the amount of a price that is not a whole number of cents per unit.
func amountText(p *stripe.Price) string {
	if p.TransformQuantity != nil && p.TransformQuantity.DivideBy > 1 {
		return fmt.Sprintf("an amount for each %d units", p.TransformQuantity.DivideBy)
	}
	return fmt.Sprintf("%v cents", p.UnitAmountDecimal)
}
