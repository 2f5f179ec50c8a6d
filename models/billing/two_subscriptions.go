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

// holdBack notes the active subscriptions that all bill our meter, and so would each bill the customer's reports. With only one left,
// the reports go on. An incomplete answer of Stripe's lets nothing go on.
func (a *application) holdBack(customer *models.StripeCustomer) {
	var ids []string
	for _, s := range a.at.subscriptions {
		row := models.Subscription{Status: models.SubscriptionStatus(s.Status)}
		if row.Active() && a.prices.billsMeter(s) {
			ids = append(ids, s.ID)
		}
	}
	slices.Sort(ids)
	switch {
	case len(ids) > 1:
		customer.HeldSubscriptions = new(strings.Join(ids, " "))
	case !a.at.partial:
		customer.HeldSubscriptions = nil
	}
}

// billsMeter reports whether a subscription has an item that bills what is sent to our meter. Before set-up has stored the meter's ID,
// any meter may be ours.
func (p *planPrices) billsMeter(s *stripe.Subscription) bool {
	return s.Items != nil && slices.ContainsFunc(s.Items.Data, func(i *stripe.SubscriptionItem) bool {
		if i.Price == nil || i.Price.Recurring == nil || i.Price.Recurring.Meter == "" {
			return false
		}
		return p.meter == "" || i.Price.Recurring.Meter == p.meter
	})
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
			+ COALESCE((SELECT CAST(SUM(e.quantity) AS bigint) FROM usage_events e
				WHERE e.stripe_report_id IS NULL AND e.stripe_customer_id IS NOT NULL AND e.stripe_customer_id = c.id), 0) AS units
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
