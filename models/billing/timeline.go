package billing

import (
	"context"
	"time"

	"github.com/google/uuid"
	"github.com/uptrace/bun"

	"tollgate/models"
)

// timeline is a customer's known billing periods, from all their subscriptions.
type timeline struct {
	periods models.Periods
	anchor  *time.Time
	// readAt is when Stripe's state was last read; zero for a customer without a subscription.
	readAt time.Time
}

// at returns the billing period that contains an instant. If it is unknown, it returns the expected
// one.
func (k timeline) at(t time.Time) models.Period { return k.periods.PeriodAt(t, k.anchor) }

func timelinesOf(ctx context.Context, db bun.IDB, customers []string) (map[string]timeline, error) {
	var subscriptions []models.Subscription
	if err := db.NewSelect().Model(&subscriptions).
		Column("id", "stripe_customer_id", "status", "inactive_since", "billing_cycle_anchor", "current_period_start", "stripe_event_at",
			"updated_at").
		Where("stripe_customer_id IN (?)", bun.List(customers)).Order("created_at").Scan(ctx); err != nil {
		return nil, err
	}
	known := map[string]timeline{}
	ended := map[uuid.UUID]time.Time{}
	for _, s := range subscriptions {
		if !s.Active() && s.InactiveSince != nil {
			ended[s.ID] = s.InactiveSince.UTC()
		}
		k := known[*s.StripeCustomerID]
		if k.anchor = s.BillingCycleAnchor; k.anchor == nil {
			k.anchor = s.CurrentPeriodStart
		}
		for _, t := range []*time.Time{s.StripeEventAt, &s.UpdatedAt} {
			if t != nil && t.After(k.readAt) {
				k.readAt = t.UTC()
			}
		}
		known[*s.StripeCustomerID] = k
	}
	var rows []models.SubscriptionPeriod
	if err := db.NewSelect().Model(&rows).Column("subscription_id", "stripe_customer_id", "period_start", "period_end").
		Where("stripe_customer_id IN (?)", bun.List(customers)).Scan(ctx); err != nil {
		return nil, err
	}
	all := map[string][]models.Period{}
	for _, r := range rows {
		// An immediate cancellation ends the period. Stripe does not invoice earlier usage that is
		// reported for a later minute.
		if end, ok := ended[r.SubscriptionID]; ok && end.Before(r.PeriodEnd) {
			if r.PeriodEnd = end; !end.After(r.PeriodStart) {
				continue
			}
		}
		all[r.StripeCustomerID] = append(all[r.StripeCustomerID], models.Period{Start: r.PeriodStart, End: r.PeriodEnd})
	}
	for customer, periods := range all {
		k := known[customer]
		k.periods = models.NewPeriods(periods)
		known[customer] = k
	}
	return known, nil
}
