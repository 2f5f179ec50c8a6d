package billing

import (
	"context"
	"fmt"
	"strings"

	"github.com/stripe/stripe-go/v76"
	"github.com/uptrace/bun"

	"tollgate/models"
)

// planPrices maps Stripe's prices to the plans whose base price they are.
type planPrices struct {
	catalogue *models.Catalogue
	byID      map[string]models.PlanID
	// byProduct maps the products that setup stored.
	byProduct map[string]models.PlanID
	// overage maps the overage prices that setup stored to plans.
	overage map[string]models.PlanID
	// meters maps the IDs of meters to plans, and meterOf plans to meters, as setup stored them.
	meters  map[string]models.PlanID
	meterOf map[models.PlanID]string
	// oldMeter is the meter that all plans shared in earlier releases; empty if there was none.
	oldMeter string
}

// readPlanPrices reads the prices from the catalog, or else those that setup stored.
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

// planOf returns the plan that a subscription gives, and the item with its base price. reason
// explains why there is none.
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
				return models.Plan{}, item, fmt.Sprintf("it has the prices of two plans, %q and %q; remove one in Stripe",
					plan.ID, found.ID)
			default:
				plan, item = found, i
			}
		}
	}
	switch {
	case plan.ID != "":
		return plan, item, ""
	case len(unknown) > 0:
		return models.Plan{}, item, "no plan has the price " + strings.Join(unknown, " or ") +
			"; set stripe_price_id of a plan in the catalog, or replace the price in Stripe"
	}
	return models.Plan{}, nil, "none of its prices can be a plan's base price; add one in Stripe"
}

// mismatches returns how an active subscription differs from what is sold: a quantity other than
// one of an individual plan, or a base price in another currency than the catalog's. Only a person
// can correct these, because they concern the customer's money. Problems of the overage price are
// in overageOf.
func (p *planPrices) mismatches(s *stripe.Subscription) (texts []string) {
	row := models.Subscription{Status: models.SubscriptionStatus(s.Status)}
	plan, item, reason := p.planOf(s)
	if reason != "" || !row.Active() {
		return nil
	}
	if plan.Type == models.Individual && item.Quantity > 1 {
		texts = append(texts, fmt.Sprintf("it pays %d times for %q, which is a plan for one person; set its quantity to 1 in "+
			"Stripe and refund the rest",
			item.Quantity, plan.ID))
	}
	for _, i := range s.Items.Data {
		if i.Price != nil && !isMetered(i.Price) && i.Price.Currency != "" && string(i.Price.Currency) != p.catalogue.Currency {
			texts = append(texts, fmt.Sprintf("its price %s is in %s, but the plan catalog and all pages are in %[3]s; give it a price in "+
				"%[3]s when the next period begins",
				i.Price.ID, i.Price.Currency, p.catalogue.Currency))
		}
	}
	return texts
}

// plan returns the plan that a price is or was the base price of. When another price takes over its
// lookup key, existing subscribers keep the old price, whose metadata from setup names the plan.
func (p *planPrices) plan(price *stripe.Price) (models.Plan, bool) {
	if id, ok := p.byID[price.ID]; ok {
		return p.catalogue.Plan(id)
	}
	if key, ok := strings.CutPrefix(price.LookupKey, lookupBase); ok {
		return p.catalogue.Plan(models.PlanID(key))
	}
	// Anyone with access to the account can write metadata. It counts only if the product does not
	// belong to another plan.
	if id := models.PlanID(price.Metadata[metadataPlan]); price.Product != nil && id != "" && p.byProduct[price.Product.ID] == id {
		return p.catalogue.Plan(id)
	}
	return models.Plan{}, false
}
