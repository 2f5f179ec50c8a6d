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

// notHeld is the condition under which a stream may be sent: its customer's reports are not held back.
const notHeld = `NOT EXISTS (SELECT 1 FROM stripe_customers c
	WHERE c.id = stripe_stream.stripe_customer_id AND c.held_subscriptions IS NOT NULL)`

// holdBack notes the active subscriptions of which several bill the same meter of ours, and so would each bill the customer's reports.
// With only one left, the reports go on. An incomplete answer of Stripe's lets nothing go on.
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

// metersOf returns the meters of ours that a subscription bills, by their IDs. Before set-up has stored any, every meter may be ours.
func (p *planPrices) metersOf(s *stripe.Subscription) (meters []string) {
	if s.Items == nil {
		return nil
	}
	for _, i := range s.Items.Data {
		if i.Price == nil || i.Price.Recurring == nil || i.Price.Recurring.Meter == "" {
			continue
		}
		meter := i.Price.Recurring.Meter
		if ours := p.meters[meter] != "" || meter == p.oldMeter || p.oldMeter == "" && len(p.meters) == 0; ours && !slices.Contains(meters, meter) {
			meters = append(meters, meter)
		}
	}
	return meters
}

// heldBack reports whether the customer's reports are held back.
func heldBack(ctx context.Context, db bun.IDB, customer string) (bool, error) {
	return db.NewSelect().Model((*models.StripeCustomer)(nil)).Where("id = ? AND held_subscriptions IS NOT NULL", customer).Exists(ctx)
}

// heldCustomers returns the customers whose reports are held back, at most listed, and their number.
func heldCustomers(ctx context.Context, db bun.IDB) ([]models.HeldCustomer, int64, error) {
	var rows []struct {
		ID, HeldSubscriptions string
		Units                 int64
	}
	if err := db.NewRaw(`SELECT c.id, c.held_subscriptions,
			COALESCE((SELECT CAST(SUM(r.value) AS bigint) FROM stripe_reports r
				WHERE r.stripe_customer_id = c.id AND r.state IN ('sealed', 'unknown')), 0)
			+ COALESCE((SELECT CAST(SUM(`+reported+`) AS bigint) FROM usage_events e WHERE `+toSeal+` AND e.stripe_customer_id = c.id), 0) AS units
		FROM stripe_customers c WHERE c.held_subscriptions IS NOT NULL ORDER BY c.id LIMIT ?`, listed).Scan(ctx, &rows); err != nil {
		return nil, 0, fmt.Errorf("read the customers whose reports are held back: %w", err)
	}
	n, err := db.NewSelect().Model((*models.StripeCustomer)(nil)).Where("held_subscriptions IS NOT NULL").Count(ctx)
	if err != nil {
		return nil, 0, fmt.Errorf("count the customers whose reports are held back: %w", err)
	}
	held := make([]models.HeldCustomer, len(rows))
	for i, r := range rows {
		held[i] = models.HeldCustomer{StripeCustomerID: r.ID, Subscriptions: strings.Fields(r.HeldSubscriptions), Units: r.Units}
	}
	return held, n, nil
}
