package billing

import (
	"context"
	"fmt"
	"strings"

	"github.com/stripe/stripe-go/v76"
	"github.com/uptrace/bun"

	"tollgate/models"
)

// planPrices knows which plan a price of Stripe's is the base price of.
type planPrices struct {
	catalogue *models.Catalogue
	byID      map[string]models.PlanID
	// byProduct is of the products that set-up wrote down.
	byProduct map[string]models.PlanID
	// overage is the plan of each overage price that set-up stored.
	overage map[string]models.PlanID
	// meters is the plan of each meter, by the meter's ID, and meterOf the meter of each plan, as set-up stored them.
	meters  map[string]models.PlanID
	meterOf map[models.PlanID]string
	// oldMeter is the meter that all plans shared in earlier releases; empty if there was none.
	oldMeter string
}

// readPlanPrices takes the prices from the catalogue, and else from what set-up wrote down.
func readPlanPrices(ctx context.Context, db bun.IDB, c *models.Catalogue) (*planPrices, error) {
	p := &planPrices{
		catalogue: c, byID: map[string]models.PlanID{}, byProduct: map[string]models.PlanID{}, overage: map[string]models.PlanID{},
		meters: map[string]models.PlanID{}, meterOf: map[models.PlanID]string{},
	}
	objects, err := stripeObjects(ctx, db)
	if err != nil {
		return nil, err
	}
	p.oldMeter = objects[objectOldMeter]
	for name, id := range objects {
		if plan, ok := strings.CutPrefix(name, objectPrice); ok {
			p.byID[id] = models.PlanID(plan)
		}
		if plan, ok := strings.CutPrefix(name, objectProduct); ok {
			p.byProduct[id] = models.PlanID(plan)
		}
		if plan, ok := strings.CutPrefix(name, objectOverage); ok {
			p.overage[id] = models.PlanID(plan)
		}
		if plan, ok := strings.CutPrefix(name, objectMeter); ok {
			p.meters[id], p.meterOf[models.PlanID(plan)] = models.PlanID(plan), id
		}
	}
	for _, plan := range c.Plans {
		if plan.StripePriceID != "" {
			p.byID[plan.StripePriceID] = plan.ID
		}
		if plan.StripeOveragePriceID != "" {
			p.overage[plan.StripeOveragePriceID] = plan.ID
		}
	}
	return p, nil
}

// planOf is the plan that a subscription gives, and the item that it is charged by. reason says why there is none.
func (p *planPrices) planOf(s *stripe.Subscription) (plan models.Plan, item *stripe.SubscriptionItem, reason string) {
	var unknown []string
	if s.Items != nil {
		for _, i := range s.Items.Data {
			if i.Price == nil || isMetered(i.Price) {
				continue
			}
			found, ok := p.plan(i.Price)
			switch {
			case !ok:
				unknown = append(unknown, i.Price.ID)
				if item == nil {
					item = i
				}
			case plan.ID != "" && plan.ID != found.ID:
				return models.Plan{}, item, fmt.Sprintf("it has the prices of two plans, %q and %q", plan.ID, found.ID)
			default:
				plan, item = found, i
			}
		}
	}
	switch {
	case plan.ID != "":
		return plan, item, ""
	case len(unknown) > 0:
		return models.Plan{}, item, "no plan has the price " + strings.Join(unknown, " or ")
	}
	return models.Plan{}, nil, "it has no price that a plan could have"
}

// mismatches lists what an active subscription has that its plan is not sold with: a quantity other than one of a plan for one person,
// and a base price in another currency than the catalog's. Only a person can correct it, as it is the customer's money. overageOf has
// what is wrong with the overage price.
func (p *planPrices) mismatches(s *stripe.Subscription) (texts []string) {
	row := models.Subscription{Status: models.SubscriptionStatus(s.Status)}
	plan, item, reason := p.planOf(s)
	if reason != "" || !row.Active() {
		return nil
	}
	if plan.Type == models.Individual && item.Quantity > 1 {
		texts = append(texts, fmt.Sprintf("it pays %d times for %q, a plan for one person who gets it once; set its quantity to 1 in Stripe and refund the rest",
			item.Quantity, plan.ID))
	}
	for _, i := range s.Items.Data {
		if i.Price != nil && !isMetered(i.Price) && i.Price.Currency != "" && string(i.Price.Currency) != p.catalogue.Currency {
			texts = append(texts, fmt.Sprintf("its price %s is in %s, but the plan catalog and all pages are in %[3]s; give it a price in %[3]s when the next period begins",
				i.Price.ID, i.Price.Currency, p.catalogue.Currency))
		}
	}
	return texts
}

// plan is the one that a price is the base price of, now or once: when another price takes over its lookup key, those who subscribed
// before keep it, and its metadata, which set-up gave it, says of which plan it was.
func (p *planPrices) plan(price *stripe.Price) (models.Plan, bool) {
	if id, ok := p.byID[price.ID]; ok {
		return p.catalogue.Plan(id)
	}
	if key, ok := strings.CutPrefix(price.LookupKey, lookupBase); ok {
		return p.catalogue.Plan(models.PlanID(key))
	}
	// Anybody may write metadata; with a product of another plan's, or of none, it says nothing.
	if id := models.PlanID(price.Metadata[metadataPlan]); price.Product != nil && id != "" && p.byProduct[price.Product.ID] == id {
		return p.catalogue.Plan(id)
	}
	return models.Plan{}, false
}
