package cli

import (
	"context"
	"strings"
	"time"

	"github.com/google/uuid"

	"tollgate/models"
)

type subscriptionCommands struct {
	List subscriptionList `cmd:"" help:"List the subscriptions that give a plan."`
	End  subscriptionEnd  `cmd:"" help:"End a plan that was assigned by hand. To end a Stripe subscription, use Stripe."`
}

type subscriptionList struct {
	All bool `help:"Also list the others: unpaid, paused, incomplete and ended ones."`
}

// Run lists the subscriptions.
func (c *subscriptionList) Run(ctx context.Context, o *Output, db *models.DB) error {
	entries, err := models.ListSubscriptions(ctx, db, c.All)
	if err != nil {
		return err
	}
	return o.table("ID\tOWNER\tPLAN\tSTATUS\tSTRIPE\tCREATED\tPERIOD END", len(entries), func(i int) string {
		s := &entries[i]
		stripe, end := "by hand", "-"
		if s.StripeSubscriptionID != nil {
			stripe = *s.StripeSubscriptionID
		}
		if s.CurrentPeriodEnd != nil {
			end = s.CurrentPeriodEnd.UTC().Format(time.RFC3339)
		}
		return strings.Join([]string{
			s.ID.String(), s.Owner, string(s.PlanID), string(s.Status), stripe, s.CreatedAt.UTC().Format(time.RFC3339), end,
		}, "\t")
	})
}

type subscriptionEnd struct {
	ID uuid.UUID `arg:"" help:"The subscription's ID, as listed."`
}

// Run ends a plan that was assigned by hand.
func (c *subscriptionEnd) Run(ctx context.Context, db *models.DB, catalogue *models.Catalogue) error {
	who, err := models.SubscriberByHand(ctx, db, c.ID)
	if err != nil {
		return err
	}
	_, err = models.Subscribe(ctx, db, catalogue, now(), who, models.FreePlan)
	return err
}
