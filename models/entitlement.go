package models

import (
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
)

// Entitlement is what a person may use now: their plan, the subscription whose billing periods it
// follows, and their own limit. The zero value is the entitlement of an unknown person: the free
// plan.
type Entitlement struct {
	WorkspaceID *uuid.UUID
	// Slack is the zero value if the person is not linked to Slack.
	Slack SlackIdentity
	// SpendLimitCents is the person's own limit, in cents per period; nil means none.
	SpendLimitCents *int64
	// MemberLimit is the maximum number of units per period that the organization's admins allow:
	// the person's own limit, or else the organization's default; nil means no limit.
	MemberLimit *int64
	// OrganizationSpendLimitCents is the spend limit of the organization that has the subscription;
	// nil means no limit.
	OrganizationSpendLimitCents *int64
	// PlanID is the plan of the active subscription (the organization's before the person's own);
	// empty without one.
	PlanID PlanID
	// StripeCustomerID is the customer that pays for the subscription; empty if the plan was
	// assigned by hand.
	StripeCustomerID string
	// OrganizationID is the organization that has the subscription; nil without a subscription and
	// for the person's own.
	OrganizationID *uuid.UUID
	// MemberOf is the person's current organization; nil without one.
	MemberOf *uuid.UUID
	Status   SubscriptionStatus
	// AtStripe means that the subscription is at Stripe. Then OverageRateCents is the unit amount
	// of its overage item; nil until it was read.
	AtStripe         bool
	OverageRateCents *int64
	// Created is when the subscription began; for plans assigned by hand that replaced each other
	// without a gap, when the first one began. Joined is when the person joined their organization
	// or left the last one. Ended is when the last subscription at Stripe ended that could have
	// given the person a plan. EndedByHand is when the last plan assigned by hand before this one
	// ended. A time is zero if it is unknown.
	Created, Joined, Ended, EndedByHand time.Time
	// Until is when the next such change happened, if the entitlement is for an instant in the
	// past; zero without one.
	Until time.Time
	// Anchor, PeriodStart and PeriodEnd are those of the subscription at Stripe; nil if the plan
	// was assigned by hand.
	Anchor, PeriodStart, PeriodEnd *time.Time
	// TrialEnd is when the subscription's trial ends or ended; nil without a trial.
	TrialEnd *time.Time
	// SubscriptionID is nil without a subscription.
	SubscriptionID *uuid.UUID
	// known has more about the person's subscriptions, such as their past periods; nil if it was
	// not read.
	known *changes
}

// payer returns PayerOf for the entitlement's subscription.
func (e *Entitlement) payer() string { return PayerOf(e.StripeCustomerID, e.OrganizationID) }

const byOrganization = "organization:"

// PayerOf returns who pays for a plan: a Stripe customer, an organization whose plan was assigned
// by hand, or else the person (an empty string). When the payer changes, the usage record ends and
// the next one starts. (docs/billing.md, "When the payer changes")
func PayerOf(customer string, organization *uuid.UUID) string {
	switch {
	case customer != "":
		return customer
	case organization != nil:
		return byOrganization + organization.String()
	}
	return ""
}

// changed returns when the payer changed from another one to this one; zero if that is unknown. A
// plan that is assigned by hand to the same person or organization, or that ends, does not change
// the payer.
func (e *Entitlement) changed(before string) time.Time {
	switch {
	case !byHand(before) || !byHand(e.payer()):
		return e.newest()
	case e.MemberOf != nil && before == PayerOf("", e.MemberOf), before == "" && e.OrganizationID != nil && e.Joined.Before(e.Created):
		return time.Time{}
	}
	return e.Joined
}

// newest returns the time of the last event that can have changed the payer.
func (e *Entitlement) newest() time.Time {
	switch {
	case e.AtStripe:
		return latest(e.Created, e.Joined, e.Ended, e.EndedByHand)
	case e.OrganizationID != nil: // its plan comes before the person's own
		return latest(e.Created, e.Joined)
	case e.SubscriptionID != nil:
		return latest(e.Created, e.Joined, e.Ended)
	}
	return latest(e.Joined, e.Ended)
}

// begins returns when the payer of the plan began to pay for this person; zero without a plan or if
// it is unknown.
func (e *Entitlement) begins() time.Time {
	switch payer := e.payer(); {
	case payer == "":
		return time.Time{}
	case byHand(payer):
		return e.changed("")
	case e.OrganizationID == nil: // coming to an organization without a plan changes nothing
		return e.Created
	}
	return latest(e.Created, e.Joined)
}

func byHand(payer string) bool { return payer == "" || strings.HasPrefix(payer, byOrganization) }

func latest(times ...time.Time) time.Time { return slices.MaxFunc(times, time.Time.Compare) }

// overageRate returns the price in cents of a unit beyond the included ones, in a period that ends
// at end; 0 is a hard cap. A trial bills nothing, even if its usage is recorded after the trial.
func (e *Entitlement) overageRate(plan Plan, end time.Time) int64 {
	switch {
	case !e.AtStripe:
		return plan.OverageRateCents
	case e.Status == StatusTrialing, e.OverageRateCents == nil, e.TrialEnd != nil && !end.After(*e.TrialEnd):
		return 0
	}
	return *e.OverageRateCents
}

// activeStatuses are the statuses of a subscription that gives its plan. Of several such
// subscriptions, an organization's counts before the person's own, and then the newest one.
var activeStatuses = []SubscriptionStatus{StatusActive, StatusTrialing, StatusPastDue}

// Active reports whether the subscription gives its plan.
func (s *Subscription) Active() bool { return s.Status.Active() }

// Active reports whether a subscription with this status gives its plan.
func (s SubscriptionStatus) Active() bool { return slices.Contains(activeStatuses, s) }

// suspendedStatuses are the statuses of a subscription that gives no plan, but still exists at Stripe
// and can become active again.
var suspendedStatuses = []SubscriptionStatus{StatusUnpaid, StatusPaused}

// Suspended reports whether the subscription has one of suspendedStatuses.
func (s *Subscription) Suspended() bool { return slices.Contains(suspendedStatuses, s.Status) }

// NeverPaid reports whether a subscription with this status never gave its plan, because its first
// payment did not succeed.
func (s SubscriptionStatus) NeverPaid() bool {
	return s == StatusIncomplete || s == StatusIncompleteExpired
}

// suspendedFirst returns the SQL order of inactive subscriptions: suspended ones, then the newest.
func suspendedFirst(alias string) string {
	return "CASE WHEN " + hasStatus(alias, suspendedStatuses) + " THEN 0 ELSE 1 END, " + alias + ".created_at DESC"
}

// activeFirst returns the SQL order of subscriptions: active ones, suspended ones, then the newest.
func activeFirst(alias string) string {
	return "CASE WHEN " + ActiveSubscription(alias) + " THEN 0 ELSE 1 END, " + suspendedFirst(alias)
}

// ActiveSubscription returns the SQL condition that a row of subscriptions is active, given its
// table alias.
func ActiveSubscription(alias string) string { return hasStatus(alias, activeStatuses) }

// hasStatus returns the SQL condition that a row of subscriptions has one of the statuses.
func hasStatus(alias string, statuses []SubscriptionStatus) string {
	literals := make([]string, len(statuses))
	for i, s := range statuses {
		literals[i] = "'" + string(s) + "'"
	}
	return alias + ".status IN (" + strings.Join(literals, ", ") + ")"
}

// newestActive returns a SQL subquery for a column of the newest active subscription of an owner.
// The condition names the owner of a row n of subscriptions.
func newestActive(column, owner string) string {
	return "(SELECT n." + column + " FROM subscriptions n WHERE " + owner + " AND " + ActiveSubscription("n") +
		" ORDER BY n.created_at DESC LIMIT 1)"
}

// entitlingSubscription is SQL for the ID of the subscription that gives the user u their plan,
// whose workspace is w.
var entitlingSubscription = "COALESCE(" + newestActive("id", "n.organization_id = w.organization_id") + ", " +
	newestActive("id", "n.user_id = u.id") + ")"

// entitlementColumns and EntitlementJoins read an Entitlement in SQL on both databases, given a row
// k with a user's ID.
var (
	entitlementColumns = `u.workspace_id, w.organization_id, w.slack_team_id, u.slack_user_id, u.spend_limit_cents,
		s.plan_id, s.stripe_customer_id, s.organization_id, s.status, s.stripe_subscription_id IS NOT NULL, s.overage_rate_cents,
		s.billing_cycle_anchor, s.current_period_start, s.current_period_end, s.id,
		CASE WHEN s.current_period_start < s.created_at THEN s.current_period_start ELSE s.created_at END, s.trial_end,
		` + memberLimit + `, payer.spend_limit_cents`

	// memberLimit is SQL for the member limit of the user u, whose organization is home.
	memberLimit = `CASE WHEN home.id IS NOT NULL THEN COALESCE(u.member_limit, home.member_limit) END`

	EntitlementJoins = `LEFT JOIN users u ON u.id = k.id
		LEFT JOIN workspaces w ON w.id = u.workspace_id
		LEFT JOIN subscriptions s ON s.id = ` + entitlingSubscription + organizationJoins

	// organizationJoins add the organization of the user u, and the one that has the subscription s.
	organizationJoins = `
		LEFT JOIN organizations home ON home.id = w.organization_id
		LEFT JOIN organizations payer ON payer.id = s.organization_id`
)

// entitlementJoinsAt reads the entitlement at an instant, given a row k with a user's ID and the
// instant at. It selects the subscription that gave a plan at that time: the one of the person's
// organization at that time, or else their own. A backdated subscription gave its plan from the
// start of its period; an ended one, until its end. A person without stored memberships was always
// in their current organization. Values without a history, such as the person's own limit, are the
// current ones.
var (
	entitlementJoinsAt = `LEFT JOIN users u ON u.id = k.id
		LEFT JOIN workspaces w ON w.id = u.workspace_id
		LEFT JOIN subscriptions s ON s.id = COALESCE(
			(SELECT o.id FROM subscriptions o WHERE o.organization_id = COALESCE(
				(SELECT m.organization_id FROM memberships m WHERE m.user_id = u.id AND m.since <= k.at ORDER BY m.since DESC LIMIT 1),
				CASE WHEN NOT EXISTS (SELECT 1 FROM memberships m WHERE m.user_id = u.id) THEN w.organization_id END) AND ` + gaveAt + `),
			(SELECT o.id FROM subscriptions o WHERE o.user_id = u.id AND ` + gaveAt + `))` + organizationJoins

	// endedAt is when the subscription stopped giving its plan; null while it still does.
	endedAt = `CASE WHEN NOT ` + ActiveSubscription("o") + `
		THEN COALESCE(o.inactive_since, CASE o.status WHEN 'canceled' THEN o.cancel_at END, o.updated_at) END`

	gaveAt = `(o.created_at <= k.at OR o.current_period_start <= k.at
				OR EXISTS (SELECT 1 FROM subscription_periods p WHERE p.subscription_id = o.id AND p.period_start <= k.at))
				AND (` + ActiveSubscription("o") + ` OR ` + endedAt + ` > k.at) ORDER BY o.created_at DESC LIMIT 1`
)

// PeriodAt returns the billing period that contains t. Under a Stripe subscription, it is the
// period that Stripe showed, or a monthly step where Stripe showed none or a longer one. Otherwise
// it is the calendar month.
func (e *Entitlement) PeriodAt(t time.Time) Period {
	anchor := e.Anchor
	if anchor == nil {
		anchor = e.PeriodStart
	}
	periods := e.periods()
	if p, known := periods.At(t); known {
		return monthOf(p, anchor, t)
	}
	return periods.PeriodAt(t, anchor)
}

// periods returns the subscription's known periods.
func (e *Entitlement) periods() Periods {
	if e.known != nil && e.SubscriptionID != nil {
		if s := e.known.paid[*e.SubscriptionID]; s != nil && len(s.periods) > 0 {
			return s.periods
		}
	}
	if e.PeriodStart != nil && e.PeriodEnd != nil && e.PeriodEnd.After(*e.PeriodStart) {
		return Periods{{Start: e.PeriodStart.UTC(), End: e.PeriodEnd.UTC()}}
	}
	return nil
}

// ownPeriod returns the subscription's own period that contains t; ok is false without a
// subscription at Stripe.
func (e *Entitlement) ownPeriod(t time.Time) (own Period, ok bool) {
	if e.PeriodStart == nil && e.Anchor == nil {
		return Period{}, false
	}
	return e.PeriodAt(t), true
}

// end returns where the record that contains t ends under this entitlement. The end is not after t
// if the payer changed in the middle of the record, or if a period of the subscription began in it.
// ok is false if the end is unknown.
func (e *Entitlement) end(r *UsageRecord, t time.Time) (end time.Time, ok bool) {
	own, ok := e.ownPeriod(t)
	start := own.Start
	if r.Payer != nil && *r.Payer != e.payer() {
		if changed := e.changed(*r.Payer); changed.After(start) && !changed.After(t) {
			start = changed
		}
	}
	switch {
	case start.After(r.BillingPeriodStart):
		return start, true
	case ok:
		return own.End, true
	}
	return time.Time{}, false
}
