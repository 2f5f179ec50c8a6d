package billing

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/stripe/stripe-go/v76"

	"tollgate/models"
)

// lookupsAtATime is how many lookup keys Stripe takes in one question.
const lookupsAtATime = 10

// pricesByKey finds prices by their lookup keys, with their tiers.
func pricesByKey(ctx context.Context, client *Client, keys []string) (map[string]*stripe.Price, error) {
	prices := map[string]*stripe.Price{}
	for some := range slices.Chunk(keys, lookupsAtATime) {
		list := &stripe.PriceListParams{LookupKeys: stripe.StringSlice(some), Expand: stripe.StringSlice([]string{"data.tiers"})}
		list.Context, list.Limit = ctx, stripe.Int64(100)
		found := client.Prices.List(list)
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

// basePrice is the monthly price of a plan; of a team plan, of a seat.
func basePrice(c *models.Catalogue, p models.Plan, product string) *stripe.PriceParams {
	return &stripe.PriceParams{
		Currency: &c.Currency, Product: &product, UnitAmount: &p.BasePriceCents, LookupKey: stripe.String(lookupBase + string(p.ID)),
		Recurring: &stripe.PriceRecurringParams{
			Interval: stripe.String(string(stripe.PriceRecurringIntervalMonth)), UsageType: stripe.String(string(stripe.PriceRecurringUsageTypeLicensed)),
		},
		Metadata: map[string]string{metadataPlan: string(p.ID)},
	}
}

// overageKey is the lookup key of a plan's overage price. A team's tiers depend on its seats: what is included is included for
// each member, while Stripe counts a customer's usage as one.
func overageKey(p models.Plan, seats int64) string {
	if p.Type == models.Team {
		return fmt.Sprintf("%s%s_%d", lookupOverage, p.ID, seats)
	}
	return lookupOverage + string(p.ID)
}

// overagePrice bills usage: all of it is reported, and the first tier leaves what is included free.
func overagePrice(c *models.Catalogue, p models.Plan, seats int64, product, meter string) *stripe.PriceParams {
	var tiers []*stripe.PriceTierParams
	included := p.Included
	if p.Type == models.Team {
		included *= seats
	}
	if included > 0 {
		tiers = append(tiers, &stripe.PriceTierParams{UpTo: &included, UnitAmount: stripe.Int64(0)})
	}
	tiers = append(tiers, &stripe.PriceTierParams{UpToInf: stripe.Bool(true), UnitAmount: &p.OverageRateCents})
	return &stripe.PriceParams{
		Currency: &c.Currency, Product: &product, LookupKey: stripe.String(overageKey(p, seats)), Tiers: tiers,
		BillingScheme: stripe.String(string(stripe.PriceBillingSchemeTiered)), TiersMode: stripe.String(string(stripe.PriceTiersModeGraduated)),
		Recurring: &stripe.PriceRecurringParams{
			Interval: stripe.String(string(stripe.PriceRecurringIntervalMonth)), UsageType: stripe.String(string(stripe.PriceRecurringUsageTypeMetered)), Meter: &meter,
		},
		Metadata: map[string]string{metadataPlan: string(p.ID)},
	}
}

// priceDifferences are what of a price is not as it must be.
func priceDifferences(p *stripe.Price, want *stripe.PriceParams) (lines []string) {
	differs := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	if !p.Active {
		differs("it is inactive")
	}
	if string(p.Currency) != *want.Currency {
		differs("it is in %s, and the catalogue in %s", p.Currency, *want.Currency)
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
	if want.UnitAmount != nil && (p.UnitAmount != *want.UnitAmount || p.BillingScheme != stripe.PriceBillingSchemePerUnit) {
		got, should := models.FormatMoney(p.UnitAmount, string(p.Currency)), models.FormatMoney(*want.UnitAmount, *want.Currency)
		differs("it is %s, and the catalog says %s", got, should)
	}
	if len(want.Tiers) > 0 {
		if got, should := tiersOf(p.Tiers), tiersWanted(want.Tiers); got != should || p.TiersMode != stripe.PriceTiersModeGraduated {
			differs("its tiers are %s, and the catalogue says %s", got, should)
		}
	}
	return lines
}

func tiersOf(tiers []*stripe.PriceTier) string {
	var parts []string
	for _, t := range tiers {
		parts = append(parts, tierText(t.UpTo, t.UnitAmount, t.FlatAmount))
	}
	return strings.Join(parts, ", ")
}

func tiersWanted(tiers []*stripe.PriceTierParams) string {
	var parts []string
	for _, t := range tiers {
		var upTo int64
		if t.UpTo != nil {
			upTo = *t.UpTo
		}
		parts = append(parts, tierText(upTo, *t.UnitAmount, 0))
	}
	return strings.Join(parts, ", ")
}

// tierText is a tier in words; no bound is 0.
func tierText(upTo, cents, flat int64) string {
	text := fmt.Sprintf("beyond at %d cents", cents)
	if upTo > 0 {
		text = fmt.Sprintf("up to %d at %d cents", upTo, cents)
	}
	if flat > 0 {
		text += fmt.Sprintf(" and %d flat", flat)
	}
	return text
}
