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

// members is how many people an organization has.
func members(ctx context.Context, db bun.IDB, organization uuid.UUID) (int64, error) {
	n, err := db.NewSelect().TableExpr("users AS u").Join("JOIN workspaces AS w ON w.id = u.workspace_id").Where("w.organization_id = ?", organization).Count(ctx)
	if err != nil {
		return 0, fmt.Errorf("count the members of %s: %w", organization, err)
	}
	return n, nil
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
		GROUP BY s.id, s.stripe_customer_id, s.plan_id, s.seats`, bun.List(models.ActiveStatuses)).Scan(ctx, &found)
	if err != nil {
		return nil, fmt.Errorf("count the members of the teams: %w", err)
	}
	return found, nil
}

// uncharged says what of an active subscription is not charged as its plan is sold, but for seats that are not the members. Nothing of it is
// changed by us: it is somebody's money, and usage before the change of a metered price would be billed to nobody.
// Source: https://docs.stripe.com/billing/subscriptions/usage-based/manage-billing-setup
func (p *planPrices) uncharged(s *stripe.Subscription, row *models.Subscription) string {
	plan, ok := p.catalogue.Plan(row.PlanID)
	if !ok || !row.Active() || plan.OverageRateCents == 0 {
		return ""
	}
	seats := int64(1)
	if row.Seats != nil {
		seats = *row.Seats
	}
	price := p.overageOf(s)
	if price == nil {
		return fmt.Sprintf("it has no price by our meter, so what is used of %q beyond the included units is billed to nobody; add the price %s when the next period begins",
			plan.ID, overageKey(plan, seats))
	}
	switch sold, known := p.soldOverage(price, plan.StripeOveragePriceID); {
	case known && sold.plan != plan.ID:
		return fmt.Sprintf("it is of %q and its overage price is that of %q; give it the price %s when the next period begins", plan.ID, sold.plan, overageKey(plan, seats))
	case known && sold.seats != seats:
		return fmt.Sprintf("it pays for %s, and its overage price is that of %d, which leaves %d units free and not %d; give it the price %s when the next period begins",
			counted(seats, "seat"), sold.seats, sold.seats*plan.Included, seats*plan.Included, overageKey(plan, seats))
	}
	return ""
}

// overageOf is the price that a subscription's usage is billed by; nil without.
func (p *planPrices) overageOf(s *stripe.Subscription) *stripe.Price {
	if s.Items == nil {
		return nil
	}
	for _, i := range s.Items.Data {
		if i.Price == nil || i.Price.Recurring == nil || i.Price.Recurring.UsageType != stripe.PriceRecurringUsageTypeMetered {
			continue
		}
		if by := i.Price.Recurring.Meter; by == "" || p.meter == "" || by == p.meter {
			return i.Price
		}
	}
	return nil
}

// soldOverage is what an overage price is made for, as far as set-up or its lookup key says. One that the catalogue names is taken as it is.
func (p *planPrices) soldOverage(price *stripe.Price, inCatalogue string) (soldOverage, bool) {
	if price.ID == inCatalogue {
		return soldOverage{}, false
	}
	if sold, ok := p.overageByID[price.ID]; ok {
		return sold, true
	}
	text, ok := strings.CutPrefix(price.LookupKey, lookupOverage)
	if !ok {
		return soldOverage{}, false
	}
	id, number, team := strings.Cut(text, "_")
	sold := soldOverage{models.PlanID(id), 1}
	if team {
		var err error
		if sold.seats, err = strconv.ParseInt(number, 10, 64); err != nil {
			return soldOverage{}, false
		}
	}
	plan, ok := p.catalogue.Plan(sold.plan)
	return sold, ok && team == (plan.Type == models.Team)
}

// checkSeats tells the operator of a team that pays for fewer seats than it has members.
func (a *application) checkSeats(ctx context.Context, s *stripe.Subscription, row *models.Subscription) error {
	if row.Seats == nil || row.OrganizationID == nil || !row.Active() {
		return nil
	}
	n, err := members(ctx, a.tx, *row.OrganizationID)
	if err == nil && n > *row.Seats {
		a.fault("subscription %s: it pays for %s, and the organization has %d members; set its quantity to %d at Stripe", s.ID, counted(*row.Seats, "seat"), n, n)
	}
	return err
}

// counted is a number of things.
func counted(n int64, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}
