package billing

import (
	"fmt"
	"slices"
	"strings"

	"github.com/stripe/stripe-go/v76"

	"tollgate/models"
)

// overage is the price of a subscription's units beyond the included ones.
type overage struct {
	// cents is the price of each unit. With a problem it is 0, and units beyond the included ones
	// are refused.
	cents   int64
	problem models.OverageProblem
	// advice tells the operator what to do about the problem.
	advice string
}

// overageOf reads the overage price of a subscription to a plan from its overage item: the item
// with the plan's overage price, or else the item that bills the plan's meter, or else a metered
// item that is not known to belong to another plan.
func (p *planPrices) overageOf(s *stripe.Subscription, plan models.Plan) overage {
	var price *stripe.Price
	best := 0
	if s.Items != nil {
		for _, i := range s.Items.Data {
			if i.Price == nil || !isMetered(i.Price) {
				continue
			}
			if fits := p.fitsOverage(i.Price, plan.ID); fits > best {
				price, best = i.Price, fits
			}
		}
	}
	with := func(problem models.OverageProblem, format string, args ...any) overage {
		return overage{problem: problem, advice: fmt.Sprintf(format, args...) + ". Until then, units beyond the included ones are refused"}
	}
	key := overageKey(plan.ID)
	switch {
	case price == nil && plan.OverageRateCents == 0:
		return overage{}
	case price == nil:
		return with(models.OverageMissing, "it has no overage price of %q; add the price %s to it", plan.ID, key)
	case isTiered(price):
		return with(models.OverageTiered, "its overage price %s has tiers; replace it with the price %s when the next period begins",
			price.ID, key)
	case price.Currency != "" && string(price.Currency) != p.catalogue.Currency:
		return with(models.OverageCurrency, "its overage price %s is in %s, but the plan catalog and all pages are in %[3]s; replace "+
			"it with a price in %[3]s when the next period begins",
			price.ID, price.Currency, p.catalogue.Currency)
	}
	cents, whole := centsPerUnit(price)
	if !whole {
		return with(models.OverageAmount, "its overage price %s is %s, which is not a whole number of cents for each unit; replace it "+
			"with the price %s when the next period begins",
			price.ID, amountText(price), key)
	}
	return overage{cents: cents}
}

// setOverage sets the overage rate of a subscription's row, and its problem if there is one. advice
// tells the operator what to do; it is empty for a price with tiers, which is shown with the
// customer's held-back reports (HeldCustomer). An inactive subscription's rate does not change.
func (p *planPrices) setOverage(s *stripe.Subscription, row *models.Subscription) (advice string) {
	row.OverageProblem = nil
	plan, ok := p.catalogue.Plan(row.PlanID)
	if !ok || !row.Active() {
		return ""
	}
	o := p.overageOf(s, plan)
	row.OverageRateCents = &o.cents
	if o.problem == "" {
		return ""
	}
	row.OverageProblem = new(string(o.problem))
	if o.problem == models.OverageTiered {
		return ""
	}
	return o.advice
}

// sameOverage reports whether a row has the overage rate and problem of a subscription.
func (p *planPrices) sameOverage(s *stripe.Subscription, row *models.Subscription) bool {
	next := *row
	p.setOverage(s, &next)
	return same(row.OverageRateCents, next.OverageRateCents) && same(row.OverageProblem, next.OverageProblem)
}

// itemsOf returns the plans whose overage items a subscription has, separated by spaces; nil if
// Stripe did not show all items.
func (p *planPrices) itemsOf(s *stripe.Subscription) *string {
	if s.Items == nil || s.Items.HasMore {
		return nil
	}
	known := map[models.PlanID]bool{}
	for _, plan := range p.catalogue.Plans {
		known[plan.ID] = plan.ID != models.FreePlan
	}
	// A plan that was removed from the catalog may still be billed.
	for _, plans := range []map[string]models.PlanID{p.overage, p.meters} {
		for _, plan := range plans {
			known[plan] = true
		}
	}
	var have []string
	for plan, paid := range known {
		if paid && slices.ContainsFunc(s.Items.Data, func(i *stripe.SubscriptionItem) bool {
			return i.Price != nil && isMetered(i.Price) && p.fitsOverage(i.Price, plan) > 0
		}) {
			have = append(have, string(plan))
		}
	}
	slices.Sort(have)
	return new(strings.Join(have, " "))
}

// fitsOverage returns how well a metered price fits as the overage price of a plan; 0 means not at
// all. A plan's reports go to the plan's meter, so a price of another known meter does not bill
// them.
func (p *planPrices) fitsOverage(price *stripe.Price, plan models.PlanID) int {
	meter, want := price.Recurring.Meter, p.meterOf[plan]
	of, sold := p.overage[price.ID]
	if key, ok := strings.CutPrefix(price.LookupKey, lookupOverage); ok && !sold {
		of, sold = models.PlanID(key), true
	}
	switch {
	case isTiered(price) && p.isOurs(price):
		return 1
	case meter != "" && want != "" && meter != want:
		return 0
	case sold && of == plan:
		return 4
	case meter != "" && meter == want:
		return 3
	case sold || p.meters[meter] != "":
		return 0 // another plan's
	}
	return 2
}

// isOurs reports whether Tollgate sold a metered price, in this release or an earlier one. Before
// setup has stored anything, any price may be ours.
func (p *planPrices) isOurs(price *stripe.Price) bool {
	meter := price.Recurring.Meter
	_, sold := p.overage[price.ID]
	return sold || meter == "" || meter == p.oldMeter || p.meters[meter] != "" || strings.HasPrefix(price.LookupKey, lookupOverage) ||
		price.Product != nil && p.byProduct[price.Product.ID] != "" || p.oldMeter == "" && len(p.meters) == 0
}

func isMetered(price *stripe.Price) bool {
	return price.Recurring != nil && price.Recurring.UsageType == stripe.PriceRecurringUsageTypeMetered
}
