package billing

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/stripe/stripe-go/v76"
	"github.com/uptrace/bun"

	"tollgate/models"
)

// notHeld selects the streams whose customer's reports are not held back. For a price with tiers,
// the reports of earlier releases are not held back: they contain all units, as the tiers expect.
const notHeld = `NOT EXISTS (SELECT 1 FROM stripe_customers c
		WHERE c.id = stripe_stream.stripe_customer_id AND c.held_subscriptions IS NOT NULL)
	AND (NOT EXISTS (SELECT 1 FROM subscriptions s WHERE s.stripe_customer_id = stripe_stream.stripe_customer_id
	AND s.overage_problem = 'tiered')
		OR EXISTS (SELECT 1 FROM stripe_reports r WHERE r.stripe_customer_id = stripe_stream.stripe_customer_id
			AND r.meter_event_name = stripe_stream.meter_event_name AND r.state IN ('sealed', 'unknown') AND r.counts = 'quantity'))`

// isHeld selects the customers whose reports are held back.
const isHeld = `(c.held_subscriptions IS NOT NULL OR c.id IN (SELECT s.stripe_customer_id FROM subscriptions s
	WHERE s.overage_problem = 'tiered'))`

// holdBack stores which active subscriptions bill the same meter of ours, because each of them
// would bill the customer's reports. When only one is left, the reports are sent again. An
// incomplete answer from Stripe does not end the hold.
func (a *application) holdBack(customer *models.StripeCustomer) {
	byMeter := map[string][]string{}
	for _, s := range a.at.subscriptions {
		row := models.Subscription{Status: models.SubscriptionStatus(s.Status)}
		if !row.Active() {
			continue
		}
		for _, meter := range a.prices.metersOf(s) {
			byMeter[meter] = append(byMeter[meter], s.ID)
		}
	}
	var ids []string
	for _, sharing := range byMeter {
		if len(sharing) > 1 {
			ids = append(ids, sharing...)
		}
	}
	slices.Sort(ids)
	ids = slices.Compact(ids)
	switch {
	case len(ids) > 0:
		customer.HeldSubscriptions = new(strings.Join(ids, " "))
	case !a.at.partial:
		customer.HeldSubscriptions = nil
	}
}

// metersOf returns the IDs of our meters that a subscription bills. Before setup has stored any,
// every meter may be ours.
func (p *planPrices) metersOf(s *stripe.Subscription) (meters []string) {
	if s.Items == nil {
		return nil
	}
	for _, i := range s.Items.Data {
		if i.Price == nil || i.Price.Recurring == nil || i.Price.Recurring.Meter == "" {
			continue
		}
		meter := i.Price.Recurring.Meter
		if ours := p.meters[meter] != "" || meter == p.oldMeter || p.oldMeter == "" && len(p.meters) == 0; ours &&
			!slices.Contains(meters, meter) {
			meters = append(meters, meter)
		}
	}
	return meters
}

// heldBack reports whether the reports of a stream are held back.
func heldBack(ctx context.Context, db bun.IDB, of *models.StripeStream) (bool, error) {
	free, err := db.NewSelect().Model((*models.StripeStream)(nil)).
		Where("stripe_customer_id = ? AND meter_event_name = ?", of.StripeCustomerID, of.MeterEventName).Where(notHeld).Exists(ctx)
	return !free, err
}

// heldCustomers returns the customers whose reports are held back, up to listed, and their total
// number.
func heldCustomers(ctx context.Context, db bun.IDB) ([]models.HeldCustomer, int64, error) {
	var rows []struct {
		ID                string
		HeldSubscriptions *string
		Units             int64
	}
	if err := db.NewRaw(`SELECT c.id, c.held_subscriptions,
			COALESCE((SELECT CAST(SUM(r.value) AS bigint) FROM stripe_reports r
				WHERE r.stripe_customer_id = c.id AND r.state IN ('sealed', 'unknown') AND (c.held_subscriptions IS NOT NULL
				OR r.counts = 'overage')), 0)
			+ COALESCE((SELECT CAST(SUM(`+reported+`) AS bigint) FROM usage_events e WHERE `+toSeal+` AND e.stripe_customer_id = c.id), 0) AS units
		FROM stripe_customers c WHERE `+isHeld+` ORDER BY c.id LIMIT ?`, listed).Scan(ctx, &rows); err != nil {
		return nil, 0, fmt.Errorf("read the customers whose reports are held back: %w", err)
	}
	n, err := db.NewSelect().TableExpr("stripe_customers AS c").Where(isHeld).Count(ctx)
	if err != nil {
		return nil, 0, fmt.Errorf("count the customers whose reports are held back: %w", err)
	}
	held := make([]models.HeldCustomer, len(rows))
	ids := []string{""} // an empty list is no SQL
	for i, r := range rows {
		held[i] = models.HeldCustomer{StripeCustomerID: r.ID, Units: r.Units}
		if r.HeldSubscriptions != nil {
			held[i].Subscriptions = strings.Fields(*r.HeldSubscriptions)
		}
		ids = append(ids, r.ID)
	}
	var tiered []models.Subscription
	if err := db.NewSelect().Model(&tiered).Column("stripe_customer_id", "stripe_subscription_id", "plan_id").
		Where("overage_problem = ? AND stripe_customer_id IN (?)", models.OverageTiered, bun.List(ids)).Order("stripe_subscription_id").
		Scan(ctx); err != nil {
		return nil, 0, fmt.Errorf("read the subscriptions with tiers: %w", err)
	}
	for _, s := range tiered {
		i := slices.IndexFunc(held, func(h models.HeldCustomer) bool { return h.StripeCustomerID == *s.StripeCustomerID })
		if i >= 0 && s.StripeSubscriptionID != nil {
			held[i].Tiered = append(held[i].Tiered, *s.StripeSubscriptionID)
		}
	}
	return held, n, nil
}
