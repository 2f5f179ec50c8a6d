package billing

import (
	"context"
	"fmt"
	"strings"

	"github.com/stripe/stripe-go/v76"
	"github.com/uptrace/bun"

	"tollgate/models"
)

// The names of what is set up, as stripe_objects has them.
const (
	objectMeter    = "meter"
	objectWebhook  = "webhook"
	objectPortal   = "portal"
	objectProduct  = "product:"
	objectPrice    = "price:"
	objectOverage  = "overage:"
	lookupBase     = "tollgate_base_"
	lookupOverage  = "tollgate_overage_"
	metadataPlan   = "tollgate_plan"
	metadataObject = "tollgate"
)

// planPrices knows which plan a price of Stripe's is the base price of.
type planPrices struct {
	catalogue *models.Catalogue
	byID      map[string]models.PlanID
}

// readPlanPrices takes the prices from the catalogue, and else from what set-up wrote down.
func readPlanPrices(ctx context.Context, db bun.IDB, c *models.Catalogue) (*planPrices, error) {
	p := &planPrices{catalogue: c, byID: map[string]models.PlanID{}}
	var objects []models.StripeObject
	if err := db.NewSelect().Model(&objects).Where("name LIKE ?", objectPrice+"%").Scan(ctx); err != nil {
		return nil, fmt.Errorf("read the prices that were set up: %w", err)
	}
	for _, o := range objects {
		p.byID[o.StripeID] = models.PlanID(strings.TrimPrefix(o.Name, objectPrice))
	}
	for i := range c.Plans {
		if id := c.Plans[i].StripePriceID; id != "" {
			p.byID[id] = c.Plans[i].ID
		}
	}
	return p, nil
}

// planOf is the plan that a subscription gives, and the item that it is charged by. reason says why there is none.
func (p *planPrices) planOf(s *stripe.Subscription) (plan models.Plan, item *stripe.SubscriptionItem, reason string) {
	var unknown []string
	if s.Items != nil {
		for _, i := range s.Items.Data {
			if i.Price == nil || i.Price.Recurring != nil && i.Price.Recurring.UsageType == stripe.PriceRecurringUsageTypeMetered {
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

func (p *planPrices) plan(price *stripe.Price) (models.Plan, bool) {
	id, ok := p.byID[price.ID]
	if !ok {
		key, ours := strings.CutPrefix(price.LookupKey, lookupBase)
		if !ours {
			return models.Plan{}, false
		}
		id = models.PlanID(key)
	}
	return p.catalogue.Plan(id)
}
