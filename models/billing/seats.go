package billing

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/google/uuid"
	"github.com/stripe/stripe-go/v76"
	"github.com/uptrace/bun"

	"tollgate/models"
)

// members is how many people an organization has, at least one.
func members(ctx context.Context, db bun.IDB, organization uuid.UUID) (int64, error) {
	n, err := db.NewSelect().TableExpr("users AS u").Join("JOIN workspaces AS w ON w.id = u.workspace_id").Where("w.organization_id = ?", organization).Count(ctx)
	if err != nil {
		return 0, fmt.Errorf("count the members of %s: %w", organization, err)
	}
	return max(1, int64(n)), nil
}

// team is an organization with an active subscription of Stripe's, by the seats that it pays for and the members that it has.
type team struct {
	StripeCustomerID string
	PlanID           models.PlanID
	Seats            int64
	Members          int64
}

// teams are those with members.
func teams(ctx context.Context, db bun.IDB) ([]team, error) {
	var found []team
	err := db.NewRaw(`SELECT s.stripe_customer_id, s.plan_id, s.seats, COUNT(*) AS members
		FROM subscriptions s JOIN workspaces w ON w.organization_id = s.organization_id JOIN users u ON u.workspace_id = w.id
		WHERE s.stripe_subscription_id IS NOT NULL AND s.stripe_customer_id IS NOT NULL AND s.seats IS NOT NULL AND s.status IN (?)
		GROUP BY s.id, s.stripe_customer_id, s.plan_id, s.seats`,
		bun.List([]models.SubscriptionStatus{models.StatusActive, models.StatusTrialing, models.StatusPastDue})).Scan(ctx, &found)
	if err != nil {
		return nil, fmt.Errorf("count the members of the teams: %w", err)
	}
	return found, nil
}

// checkCharges tells the operator what of an active subscription will not be charged as the plan is sold. Nothing of it is changed
// here: it is somebody's money, and usage before the change of a metered price would be billed to nobody.
// Source: https://docs.stripe.com/billing/subscriptions/usage-based/manage-billing-setup
func (a *application) checkCharges(ctx context.Context, s *stripe.Subscription, row *models.Subscription) error {
	plan, ok := a.Catalogue.Plan(row.PlanID)
	if !ok || !row.Active() {
		return nil
	}
	if plan.OverageRateCents > 0 {
		overage := overageItem(s)
		switch {
		case overage == nil:
			a.fault("subscription %s: it has no metered price, so what is used of %q beyond the included units is billed to nobody; add the overage price of the plan at Stripe", s.ID, plan.ID)
		case row.Seats != nil:
			if of, ok := a.prices.seatsOf(plan, overage); ok && of != *row.Seats {
				a.fault("subscription %s: it pays for %d %s, and its overage price is that of %d, which leaves %d units free and not %d; give it the price %s when the next period begins",
					s.ID, *row.Seats, seatWord(*row.Seats), of, of*plan.Included, *row.Seats*plan.Included, overageKey(plan, *row.Seats))
			}
		}
	}
	if row.Seats == nil || row.OrganizationID == nil {
		return nil
	}
	n, err := members(ctx, a.tx, *row.OrganizationID)
	if err != nil {
		return err
	}
	if n != *row.Seats {
		a.fault("subscription %s: it pays for %d %s, and the organization has %d members; set its quantity to %d at Stripe",
			s.ID, *row.Seats, seatWord(*row.Seats), n, n)
	}
	return nil
}

func seatWord(n int64) string {
	if n == 1 {
		return "seat"
	}
	return "seats"
}

// overageItem is what a subscription's usage is billed by; nil without.
func overageItem(s *stripe.Subscription) *stripe.Price {
	if s.Items == nil {
		return nil
	}
	for _, i := range s.Items.Data {
		if i.Price != nil && i.Price.Recurring != nil && i.Price.Recurring.UsageType == stripe.PriceRecurringUsageTypeMetered {
			return i.Price
		}
	}
	return nil
}

// seatsOf is the number of seats that an overage price of a team plan is made for, as far as set-up or its lookup key says.
func (p *planPrices) seatsOf(plan models.Plan, price *stripe.Price) (int64, bool) {
	if n, ok := p.seatsByID[price.ID]; ok {
		return n, true
	}
	if text, ok := strings.CutPrefix(price.LookupKey, lookupOverage+string(plan.ID)+"_"); ok {
		n, err := strconv.ParseInt(text, 10, 64)
		return n, err == nil
	}
	return 0, false
}
