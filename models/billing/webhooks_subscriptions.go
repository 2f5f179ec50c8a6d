package billing

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/stripe/stripe-go/v76"
	"github.com/uptrace/bun"

	"tollgate/models"
)

// applySubscriptions stores each subscription at Stripe, and ends those that Stripe no longer has.
func (a *application) applySubscriptions(ctx context.Context, customer *models.StripeCustomer) error {
	ids := []string{""} // an empty list is no SQL
	for _, s := range a.at.subscriptions {
		ids = append(ids, s.ID)
	}
	var rows []models.Subscription
	if err := a.tx.NewSelect().Model(&rows).Where("stripe_customer_id = ? OR stripe_subscription_id IN (?)", customer.ID, bun.List(ids)).
		Scan(ctx); err != nil {
		return err
	}
	known := map[string]*models.Subscription{}
	for i := range rows {
		if rows[i].StripeSubscriptionID != nil {
			known[*rows[i].StripeSubscriptionID] = &rows[i]
		}
	}
	for _, s := range a.at.subscriptions {
		row := known[s.ID]
		delete(known, s.ID)
		if err := a.applySubscription(ctx, customer, s, row); err != nil {
			return fmt.Errorf("subscription %s: %w", s.ID, err)
		}
	}
	for _, gone := range known {
		if gone.Status == models.StatusCanceled || a.at.partial {
			continue
		}
		next := *gone
		next.Status, next.OverageProblem = models.StatusCanceled, nil
		if next.CancelAt == nil || next.CancelAt.After(a.now) {
			next.CancelAt = &a.now
		}
		if err := a.write(ctx, gone, &next); err != nil {
			return err
		}
	}
	return nil
}

// applySubscription updates a row to Stripe's state; row is nil if there is none yet. An invalid
// subscription is shown to the operator and changes no plan.
func (a *application) applySubscription(ctx context.Context, customer *models.StripeCustomer, s *stripe.Subscription,
	row *models.Subscription) error {
	next := models.Subscription{CreatedAt: a.now, StripeSubscriptionID: &s.ID, StripeCustomerID: &customer.ID}
	if s.Created > 0 {
		next.CreatedAt = time.Unix(s.Created, 0).UTC()
	}
	if row != nil {
		next = *row
		next.StripeCustomerID = &customer.ID
	}
	next.Status = models.SubscriptionStatus(s.Status)
	ends := next.Active() // whether anybody's plan is at stake
	if s.CurrentPeriodEnd <= s.CurrentPeriodStart || s.CurrentPeriodStart <= 0 {
		if ends {
			a.problem("subscription %s: Stripe gives no single billing period for it (start %d, end %d), so the subscription was not "+
				"updated",
				s.ID, s.CurrentPeriodStart, s.CurrentPeriodEnd)
			return nil
		}
	} else {
		next.CurrentPeriodStart, next.CurrentPeriodEnd = unixTime(s.CurrentPeriodStart), unixTime(s.CurrentPeriodEnd)
	}
	if s.Status == stripe.SubscriptionStatusUnpaid {
		a.problem("subscription %s: it is unpaid, so it gives no plan; collect the payment, or end it in Stripe", s.ID)
	}
	next.BillingCycleAnchor, next.TrialEnd = unixTime(s.BillingCycleAnchor), unixTime(s.TrialEnd)
	switch {
	case s.EndedAt > 0:
		next.CancelAt = unixTime(s.EndedAt)
	case s.CancelAt > 0:
		next.CancelAt = unixTime(s.CancelAt)
	case s.CancelAtPeriodEnd:
		next.CancelAt = next.CurrentPeriodEnd
	default:
		next.CancelAt = nil
	}
	if items := a.prices.itemsOf(s); items != nil {
		next.OverageItems = items
	}
	before := len(a.problems)
	kept, err := a.givePlan(ctx, s, &next, ends)
	if err != nil || !kept {
		return err
	}
	if len(a.problems) == before { // else it is not the plan's own subscription
		if advice := a.prices.setOverage(s, &next); advice != "" {
			a.problem("subscription %s: %s", s.ID, advice)
		}
		for _, mismatch := range a.prices.mismatches(s) {
			a.problem("subscription %s: %s", s.ID, mismatch)
		}
		if err := a.checkSeats(ctx, s, &next); err != nil {
			return err
		}
	}
	if err := a.appointBuyer(ctx, s, row, &next); err != nil {
		return err
	}
	return a.write(ctx, row, &next)
}

// appointBuyer makes the buyer of a new subscription the first admin of its organization.
func (a *application) appointBuyer(ctx context.Context, s *stripe.Subscription, row, next *models.Subscription) error {
	began := row == nil || row.Status == models.StatusIncomplete
	buyer, err := uuid.Parse(s.Metadata[metadataBuyer])
	if err != nil || !began || !next.Active() || next.OrganizationID == nil {
		return nil
	}
	return models.MakeFirstAdmin(ctx, a.tx, a.now, *next.OrganizationID, buyer)
}

// checkSingle adds a problem for each holder who pays for two subscriptions: only one gives the
// plan, and only a person can decide which one to end.
func (a *application) checkSingle(ctx context.Context, customer *models.StripeCustomer) error {
	active := func(column string, id any) (active []models.Subscription, err error) {
		var rows []models.Subscription
		err = a.tx.NewSelect().Model(&rows).Where("? = ? AND stripe_subscription_id IS NOT NULL", bun.Ident(column), id).
			Order("created_at", "id").Scan(ctx)
		return slices.DeleteFunc(rows, func(s models.Subscription) bool { return !s.Active() }), err
	}
	theirs, err := active("stripe_customer_id", customer.ID)
	if err != nil {
		return err
	}
	reported := map[holder]bool{}
	for i := range theirs {
		of := holderOf(&theirs[i])
		if reported[of] {
			continue
		}
		reported[of] = true
		all, err := active(of.column, of.id)
		if err != nil {
			return err
		}
		if len(all) < 2 {
			continue
		}
		ids := make([]string, len(all))
		for i := range all {
			ids[i] = *all[i].StripeSubscriptionID
		}
		a.problem("the same owner has %d active subscriptions, %s: end all but one in Stripe", len(ids), strings.Join(ids, " and "))
	}
	return nil
}

// holder is the holder of a subscription, with the column that names them.
type holder struct {
	column string
	id     uuid.UUID
}

func holderOf(s *models.Subscription) holder {
	if s.OrganizationID != nil {
		return holder{"organization_id", *s.OrganizationID}
	}
	return holder{"user_id", *s.UserID}
}

// unixTime converts Stripe's time; 0 means none and becomes nil.
func unixTime(seconds int64) *time.Time {
	if seconds <= 0 {
		return nil
	}
	return new(time.Unix(seconds, 0).UTC())
}

// givePlan sets the holder and the plan of a subscription. If they cannot be determined, an
// existing row does not change, and a missing one is not created: kept is false.
func (a *application) givePlan(ctx context.Context, s *stripe.Subscription, next *models.Subscription, active bool) (kept bool, err error) {
	isNew := next.ID == uuid.UUID{}
	refuse := func(format string, args ...any) (bool, error) {
		effect := " does not change its owner's plan: "
		if isNew {
			effect = " gives no one a plan: "
		}
		if active {
			a.problem("subscription "+s.ID+effect+format, args...)
		}
		return !isNew, nil
	}
	plan, item, reason := a.prices.planOf(s)
	if item != nil {
		next.StripePriceID = &item.Price.ID
	}
	if reason != "" {
		return refuse("%s", reason)
	}
	holder := a.owner
	if named, reason, err := a.named(ctx, s.Metadata); err != nil {
		return false, err
	} else if reason != "" {
		return refuse("its metadata names %s", reason)
	} else if !named.none() {
		holder = named
	}
	if holder.none() && !isNew {
		holder = owner{user: next.UserID, organization: next.OrganizationID}
	}
	switch {
	case holder.none():
		return refuse("no owner is named: neither its metadata in Stripe (tollgate_organization, tollgate_user or " +
			"tollgate_email) nor Checkout's client_reference_id has one")
	case plan.Type == models.Team && holder.organization == nil:
		return refuse("%q is a team plan, but the owner is a person; name an organization in the metadata, or replace the price in Stripe",
			plan.ID)
	case plan.Type == models.Individual && holder.organization != nil:
		return refuse("%q is an individual plan, but the owner is an organization; name a person in the metadata, or replace the price in Stripe",
			plan.ID)
	}
	next.PlanID, next.UserID, next.OrganizationID, next.Seats = plan.ID, holder.user, holder.organization, nil
	if plan.Type == models.Team {
		next.Seats = &item.Quantity
	}
	if a.owner.none() {
		a.owner = holder // the customer is theirs, until its own metadata says otherwise
	}
	return true, nil
}

// write stores the changes of a subscription. Triggers then make the people's records outdated, so
// nothing is written without a change.
func (a *application) write(ctx context.Context, row, next *models.Subscription) error {
	if a.newest != nil && (next.StripeEventAt == nil || next.StripeEventAt.Before(*a.newest)) {
		next.StripeEventAt = a.newest
	}
	switch {
	case next.Active():
		next.InactiveSince = nil
	case next.Status == models.StatusCanceled && next.CancelAt != nil && (row == nil || row.Active()):
		next.InactiveSince = next.CancelAt // when it ended
	case row == nil:
		next.InactiveSince = &next.CreatedAt
	case row.Active():
		next.InactiveSince = &a.now
	}
	if err := models.AddNotices(ctx, a.tx, models.SubscriptionNotices(next, a.now)); err != nil {
		return err
	}
	if row == nil {
		next.ID, next.UpdatedAt = uuid.Must(uuid.NewV7()), a.now
		a.changed.add(next)
		if _, err := a.tx.NewInsert().Model(next).Exec(ctx); err != nil {
			return err
		}
		return a.audit(ctx, "subscription.begin", next)
	}
	sameItems := same(row.OverageItems, next.OverageItems)
	if !sameItems {
		// Balances depend on the items, so they are computed again soon, as after a new invoice.
		if _, err := a.tx.NewUpdate().Model((*models.StripeInvoice)(nil)).Set("balanced = ?", false).
			Where("stripe_customer_id = ?", *next.StripeCustomerID).Exec(ctx); err != nil {
			return err
		}
	}
	if sameSubscription(row, next) {
		if sameItems && sameTime(row.StripeEventAt, next.StripeEventAt) {
			return nil
		}
		_, err := a.tx.NewUpdate().Model(next).Column("stripe_event_at", "overage_items").WherePK().Exec(ctx)
		return err
	}
	next.UpdatedAt = a.now
	a.changed.add(row)
	a.changed.add(next)
	if _, err := a.tx.NewUpdate().Model(next).WherePK().Exec(ctx); err != nil {
		return err
	}
	if row.PlanID != next.PlanID || row.Status != next.Status {
		return a.audit(ctx, "subscription.change", next)
	}
	return nil
}

func (a *application) audit(ctx context.Context, action string, s *models.Subscription) error {
	return models.Audit(ctx, a.tx, a.now, actorStripe, action, *s.StripeSubscriptionID,
		fmt.Sprintf("plan %s, %s, customer %s", s.PlanID, s.Status, *s.StripeCustomerID))
}

// sameSubscription reports whether nothing relevant differs.
func sameSubscription(a, b *models.Subscription) bool {
	return a.PlanID == b.PlanID && a.Status == b.Status && same(a.UserID, b.UserID) && same(a.OrganizationID, b.OrganizationID) &&
		same(a.StripeCustomerID, b.StripeCustomerID) && same(a.StripePriceID, b.StripePriceID) && same(a.Seats, b.Seats) &&
		same(a.OverageRateCents, b.OverageRateCents) && same(a.OverageProblem, b.OverageProblem) &&
		sameTime(a.BillingCycleAnchor, b.BillingCycleAnchor) && sameTime(a.CurrentPeriodStart, b.CurrentPeriodStart) &&
		sameTime(a.CurrentPeriodEnd, b.CurrentPeriodEnd) && sameTime(a.CancelAt, b.CancelAt) && sameTime(a.TrialEnd, b.TrialEnd)
}

func same[T comparable](a, b *T) bool { return a == b || a != nil && b != nil && *a == *b }

func sameTime(a, b *time.Time) bool { return a == b || a != nil && b != nil && a.Equal(*b) }
