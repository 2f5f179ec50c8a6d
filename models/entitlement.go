package models

import (
	"time"

	"github.com/google/uuid"
)

// Entitlement is what a person may use now: their plan, whose period it follows, and their own limit.
// The zero value is that of somebody never seen: the free plan.
type Entitlement struct {
	WorkspaceID *uuid.UUID
	// Slack is empty when the person is not linked to Slack.
	Slack SlackIdentity
	// SpendLimitCents is the person's own limit in cents a period; nil is none.
	SpendLimitCents *int64
	// PlanID is that of the active subscription, the organization's before their own; empty without one.
	PlanID PlanID
	// StripeCustomerID is who pays for that subscription; empty when it was given by hand.
	StripeCustomerID string
	// Anchor, PeriodStart and PeriodEnd are the subscription's at Stripe; nil when it was given by hand.
	Anchor, PeriodStart, PeriodEnd *time.Time
}

// EntitlementColumns and EntitlementJoins read an Entitlement in SQL, given a row k with an email. They stand in every
// statement that decides, so that all of them agree; both databases read them as they are.
const (
	EntitlementColumns = `u.workspace_id, w.slack_team_id, u.slack_user_id, u.spend_limit_cents,
		s.plan_id, s.stripe_customer_id, s.billing_cycle_anchor, s.current_period_start, s.current_period_end`

	EntitlementJoins = `LEFT JOIN users u ON u.email = k.email
		LEFT JOIN workspaces w ON w.id = u.workspace_id
		LEFT JOIN subscriptions s ON s.id = COALESCE(
			(SELECT o.id FROM subscriptions o WHERE o.organization_id = w.organization_id
				AND o.status IN ('active', 'trialing', 'past_due') ORDER BY o.created_at DESC LIMIT 1),
			(SELECT o.id FROM subscriptions o WHERE o.user_id = u.id
				AND o.status IN ('active', 'trialing', 'past_due') ORDER BY o.created_at DESC LIMIT 1))`
)

// PlanOf is the entitlement's plan: the subscription's, or free without one or when the catalogue no longer has it.
func (c *Catalogue) PlanOf(e *Entitlement) Plan {
	if plan, ok := c.byID[e.PlanID]; ok {
		return *plan
	}
	return c.Free()
}

// PeriodAt is the billing period that contains t: under a Stripe subscription its own, in monthly steps; else the
// calendar month.
func (e *Entitlement) PeriodAt(t time.Time) Period {
	if e.PeriodStart != nil && e.PeriodEnd != nil {
		p := Period{Start: e.PeriodStart.UTC(), End: e.PeriodEnd.UTC()}
		if p.Contains(t) && p.End.Sub(p.Start) <= maxPeriod {
			return p
		}
	}
	switch {
	case e.Anchor != nil:
		return AnchoredMonth(*e.Anchor, t)
	case e.PeriodStart != nil:
		return AnchoredMonth(*e.PeriodStart, t)
	}
	return CalendarMonth(t)
}

// startsWithin returns the start of the subscription's own period when it lies after the record's start and not after
// t: the subscription began in the middle of the record, which ends there.
func (e *Entitlement) startsWithin(record Period, t time.Time) (time.Time, bool) {
	if e.PeriodStart == nil && e.Anchor == nil {
		return time.Time{}, false
	}
	start := e.PeriodAt(t).Start
	return start, start.After(record.Start)
}

// Standing says where a person stands at now, given their record of the period, nil when there is none.
// ready is false when the record must be made, rolled over, raised to a new plan or cleared of lapsed holds before
// anything is added to it; the standing is then what it will be. record.SuggestionsHeld must be the live units.
func (c *Catalogue) Standing(email string, e *Entitlement, record *UsageRecord, now time.Time) (s Standing, ready bool) {
	plan := c.PlanOf(e)
	s = Standing{Email: email, Plan: plan.ID, Included: plan.Included, OverageRateCents: plan.OverageRateCents, SpendLimitCents: e.SpendLimitCents}
	if record == nil {
		s.Period = e.PeriodAt(now)
		return s, false
	}
	if start, ok := e.startsWithin(record.Period(), now); ok {
		s.Period = e.PeriodAt(now).clip(start, time.Time{})
		return s, false
	}
	s.Used, s.Held, s.Period = record.SuggestionsUsed, record.SuggestionsHeld, record.Period()
	s.Included = max(record.SuggestionsIncluded, plan.Included)
	return s, record.PlanID == plan.ID && record.SuggestionsIncluded == s.Included && !record.holdsLapsed(now)
}

// PastStanding is the standing of a period that is not the current one: the record's own figures and the plan that it
// had. ready is false when lapsed holds must be given back first.
func (c *Catalogue) PastStanding(email string, e *Entitlement, record *UsageRecord, now time.Time) (s Standing, ready bool) {
	s = Standing{
		Email: email, Plan: record.PlanID, Period: record.Period(), SpendLimitCents: e.SpendLimitCents,
		Used: record.SuggestionsUsed, Held: record.SuggestionsHeld, Included: record.SuggestionsIncluded,
	}
	if plan, ok := c.byID[record.PlanID]; ok {
		s.OverageRateCents = plan.OverageRateCents
	}
	return s, !record.holdsLapsed(now)
}

// holdsLapsed says that some of the units held may have lapsed, so that they must be summed anew.
func (r *UsageRecord) holdsLapsed(now time.Time) bool {
	return r.HoldsExpireAt != nil && !r.HoldsExpireAt.After(now)
}
