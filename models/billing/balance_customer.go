package billing

import (
	"context"
	"slices"
	"strings"
	"time"

	"tollgate/models"
)

// billedCustomer is the data that all balances of a customer share.
type billedCustomer struct {
	subscriptions []models.Subscription
	invoices      map[string]models.StripeInvoice
	lines         []models.StripeInvoiceLine
	held          models.OveragePart
	blocked       []string // meters
}

func (r *Reporter) readCustomer(ctx context.Context, customer string, now time.Time) (*billedCustomer, error) {
	known := &billedCustomer{invoices: map[string]models.StripeInvoice{}}
	if err := r.db.NewSelect().Model(&known.subscriptions).Where("stripe_customer_id = ? AND stripe_subscription_id IS NOT NULL",
		customer).Scan(ctx); err != nil {
		return nil, err
	}
	if err := r.db.NewSelect().Model(&known.lines).Where("stripe_customer_id = ? AND period_end > ?", customer,
		now.Add(-totalsReach-longestPeriod)).
		Order("period_start", "stripe_invoice_id", "id").Scan(ctx); err != nil {
		return nil, err
	}
	var invoices []models.StripeInvoice
	if err := r.db.NewSelect().Model(&invoices).Where("stripe_customer_id = ?", customer).Scan(ctx); err != nil {
		return nil, err
	}
	for _, i := range invoices {
		known.invoices[i.ID] = i
	}
	if err := r.db.NewSelect().Model((*models.StripeStream)(nil)).Column("meter_event_name").
		Where("stripe_customer_id = ? AND blocked IS NOT NULL", customer).Scan(ctx, &known.blocked); err != nil {
		return nil, err
	}
	two, err := r.db.NewSelect().Model((*models.StripeCustomer)(nil)).Where("id = ? AND held_subscriptions IS NOT NULL",
		customer).Exists(ctx)
	switch {
	case err != nil:
		return nil, err
	case two:
		known.held = models.OverageTwoSubscriptions
	case slices.ContainsFunc(known.subscriptions, func(s models.Subscription) bool { return hasProblem(&s, models.OverageTiered) }):
		known.held = models.OverageByTiers
	}
	return known, nil
}

func hasProblem(s *models.Subscription, problem models.OverageProblem) bool {
	return s.OverageProblem != nil && *s.OverageProblem == string(problem)
}

// bills reports whether a line bills the usage of a period.
func bills(line *models.StripeInvoiceLine, p models.Period) bool {
	return p.Contains(line.PeriodStart.UTC()) || p.Contains(line.PeriodEnd.UTC().Add(-time.Microsecond)) && line.PeriodStart.Before(p.Start)
}

// awaits reports whether Stripe may have an invoice of a period that is missing or outdated here:
// none is final, or one is open and may be voided.
func (c *billedCustomer) awaits(p models.Period, now time.Time) bool {
	stored := false
	for i := range c.lines {
		if !bills(&c.lines[i], p) {
			continue
		}
		stored = true
		invoice := c.invoices[c.lines[i].StripeInvoiceID]
		if open := invoice.Status == models.InvoiceOpen || invoice.Status == models.InvoiceDraft; open && now.Sub(invoice.ReadAt) >= time.Hour {
			return true
		}
	}
	return !stored && (!p.End.After(now) || !c.canceled(p).IsZero())
}

// canceled returns when the customer's subscription was canceled within a period, if no other
// subscription pays for the rest; otherwise the zero time.
func (c *billedCustomer) canceled(p models.Period) (canceled time.Time) {
	for _, s := range c.subscriptions {
		if s.CurrentPeriodStart == nil || s.CurrentPeriodEnd == nil || !s.CurrentPeriodStart.Before(p.End) ||
			!s.CurrentPeriodEnd.After(p.Start) {
			continue
		}
		ended := s.InactiveSince
		if ended == nil {
			ended = s.CancelAt
		}
		switch {
		case s.Status != models.StatusCanceled, ended != nil && !ended.Before(*s.CurrentPeriodEnd):
			return time.Time{}
		case ended != nil && ended.After(p.Start) && ended.After(canceled):
			canceled = ended.UTC()
		}
	}
	return canceled
}

// lacksItem reports whether none of the customer's subscriptions that may pay for a period has an
// overage item of a plan. It returns false if the items of one of them are unknown.
func (c *billedCustomer) lacksItem(plan models.PlanID, p models.Period) bool {
	lacks := false
	for _, s := range c.subscriptions {
		switch {
		case s.CurrentPeriodEnd != nil && !s.CurrentPeriodEnd.After(p.Start),
			s.Status == models.StatusCanceled && s.InactiveSince != nil && !s.InactiveSince.After(p.Start),
			s.Status.NeverPaid():
			// This subscription does not bill the period.
		case s.OverageItems == nil || slices.Contains(strings.Fields(*s.OverageItems), string(plan)):
			return false
		default:
			lacks = true
		}
	}
	return lacks
}
