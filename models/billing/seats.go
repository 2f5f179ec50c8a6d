package billing

import (
	"context"
	"fmt"

	"github.com/google/uuid"
	"github.com/stripe/stripe-go/v76"
	"github.com/uptrace/bun"

	"tollgate/models"
)

// SeatsFor returns how many seats a purchase for an organization has: one for each member, at least one.
func SeatsFor(ctx context.Context, db bun.IDB, organization uuid.UUID) (int64, error) {
	n, err := members(ctx, db, organization)
	return max(1, n), err
}

// members returns the number of members of an organization.
func members(ctx context.Context, db bun.IDB, organization uuid.UUID) (int64, error) {
	n, err := db.NewSelect().TableExpr("users AS u").Join("JOIN workspaces AS w ON w.id = u.workspace_id").
		Where("w.organization_id = ?", organization).Count(ctx)
	if err != nil {
		return 0, fmt.Errorf("count the members of %s: %w", organization, err)
	}
	return n, nil
}

// team is an organization with an active subscription at Stripe, with its paid seats and its
// members.
type team struct {
	StripeCustomerID string
	PlanID           models.PlanID
	Seats            int64
	Members          int64
}

// teams returns the teams that have members.
func teams(ctx context.Context, db bun.IDB) ([]team, error) {
	var found []team
	err := db.NewRaw(`SELECT s.stripe_customer_id, s.plan_id, s.seats, COUNT(*) AS members
		FROM subscriptions s JOIN workspaces w ON w.organization_id = s.organization_id JOIN users u ON u.workspace_id = w.id
		WHERE s.stripe_subscription_id IS NOT NULL AND s.stripe_customer_id IS NOT NULL AND s.seats IS NOT NULL
			AND `+models.ActiveSubscription("s")+`
		GROUP BY s.id, s.stripe_customer_id, s.plan_id, s.seats`).Scan(ctx, &found)
	if err != nil {
		return nil, fmt.Errorf("count the members of the teams: %w", err)
	}
	return found, nil
}

// checkSeats adds a problem if a team pays for fewer seats than it has members.
func (a *application) checkSeats(ctx context.Context, s *stripe.Subscription, row *models.Subscription) error {
	if row.Seats == nil || row.OrganizationID == nil || !row.Active() {
		return nil
	}
	n, err := members(ctx, a.tx, *row.OrganizationID)
	if err == nil && n > *row.Seats {
		a.problem("subscription %s: it pays for %s, but the organization has %d members; set its quantity to %d in Stripe", s.ID,
			counted(*row.Seats, "seat"), n, n)
	}
	return err
}

// counted formats a number of things: "1 seat", "2 seats".
func counted(n int64, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}
