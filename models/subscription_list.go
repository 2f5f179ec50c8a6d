package models

import (
	"context"
	"fmt"

	"github.com/google/uuid"
	"github.com/uptrace/bun"
)

// SubscriptionEntry is a subscription in a list.
type SubscriptionEntry struct {
	Subscription `bun:",extend"`

	// Owner is the person's email, or the organization's name.
	Owner string
}

// ListSubscriptions returns the active subscriptions, or all of them, oldest first.
func ListSubscriptions(ctx context.Context, db bun.IDB, all bool) ([]SubscriptionEntry, error) {
	var entries []SubscriptionEntry
	list := db.NewSelect().TableExpr("subscriptions AS s").ColumnExpr("s.*, COALESCE(u.email, o.name, '') AS owner").
		Join("LEFT JOIN users AS u ON u.id = s.user_id").Join("LEFT JOIN organizations AS o ON o.id = s.organization_id").
		Order("s.created_at", "s.id")
	if !all {
		list = list.Where(ActiveSubscription("s"))
	}
	if err := list.Scan(ctx, &entries); err != nil {
		return nil, fmt.Errorf("list the subscriptions: %w", err)
	}
	return entries, nil
}

// SubscriptionsFor returns the subscriptions of a person and of their organization (nil without
// one), newest first, including those that have ended.
func SubscriptionsFor(ctx context.Context, db bun.IDB, user uuid.UUID, organization *uuid.UUID) (all []Subscription, err error) {
	q := db.NewSelect().Model(&all).Where("user_id = ?", user).Order("created_at DESC")
	if organization != nil {
		q = q.WhereOr("organization_id = ?", *organization)
	}
	if err := q.Scan(ctx); err != nil {
		return nil, fmt.Errorf("list the subscriptions of the user %s: %w", user, err)
	}
	return all, nil
}

// SubscriberByHand returns the holder of an active subscription that was assigned by hand. It
// returns an error that says what to do if the subscription is unknown, has ended or is at Stripe.
func SubscriberByHand(ctx context.Context, db bun.IDB, id uuid.UUID) (Subscriber, error) {
	var found []Subscription
	if err := db.NewSelect().Model(&found).Where("id = ?", id).Scan(ctx); err != nil {
		return Subscriber{}, fmt.Errorf("find the subscription %s: %w", id, err)
	}
	if len(found) == 0 {
		return Subscriber{}, fmt.Errorf("there is no subscription %s", id)
	}
	switch s := &found[0]; {
	case s.StripeSubscriptionID != nil:
		return Subscriber{}, fmt.Errorf("the subscription %s is at Stripe: end %s in Stripe", id, *s.StripeSubscriptionID)
	case !s.Active():
		return Subscriber{}, fmt.Errorf("the subscription %s has ended already", id)
	case s.OrganizationID != nil:
		return Subscriber{OrganizationID: s.OrganizationID}, nil
	default:
		u, err := UserByID(ctx, db, *s.UserID)
		return Subscriber{Email: u.Email}, err
	}
}
