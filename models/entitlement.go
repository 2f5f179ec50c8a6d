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
	// PreviousEnd is when the last of the person's records ended that are over, NextStart when the first one begins that is yet to
	// come; zero without one. A new record lies between the two.
	PreviousEnd, NextStart time.Time
}

// EntitlementColumns and EntitlementJoins read an Entitlement in SQL, given a row k with an email, on both databases.
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

// EntitlementJoinsAt read what was at an instant, given a row k with an email and the instant at: the subscription that gave a plan
// then, of the organization that the person was in or else their own. One that is backdated gave it from the start of its period, and
// one that ended did so until then. Whose memberships nobody noted was always where they are. What has no history, such as the
// person's own limit, is as it is now.
const EntitlementJoinsAt = `LEFT JOIN users u ON u.email = k.email
		LEFT JOIN workspaces w ON w.id = u.workspace_id
		LEFT JOIN subscriptions s ON s.id = COALESCE(
			(SELECT o.id FROM subscriptions o WHERE o.organization_id = COALESCE(
				(SELECT m.organization_id FROM memberships m WHERE m.user_id = u.id AND m.since <= k.at ORDER BY m.since DESC LIMIT 1),
				CASE WHEN NOT EXISTS (SELECT 1 FROM memberships m WHERE m.user_id = u.id) THEN w.organization_id END) AND ` + gaveAt + `),
			(SELECT o.id FROM subscriptions o WHERE o.user_id = u.id AND ` + gaveAt + `))`

const gaveAt = `(o.created_at <= k.at OR o.current_period_start <= k.at) AND (o.status IN ('active', 'trialing', 'past_due')
				OR COALESCE(o.inactive_since, CASE o.status WHEN 'canceled' THEN o.cancel_at END, o.updated_at) > k.at) ORDER BY o.created_at DESC LIMIT 1`

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

// ownPeriod is the subscription's own period that contains t; ok is false without one at Stripe.
func (e *Entitlement) ownPeriod(t time.Time) (own Period, ok bool) {
	if e.PeriodStart == nil && e.Anchor == nil {
		return Period{}, false
	}
	return e.PeriodAt(t), true
}

// cut returns where a record that contains t ends before its time, at a boundary of the subscription's own period: not after t when that
// began in the middle of the record, after t when it ends in it.
func (e *Entitlement) cut(record Period, t time.Time) (end time.Time, ok bool) {
	own, ok := e.ownPeriod(t)
	switch {
	case !ok:
		return time.Time{}, false
	case own.Start.After(record.Start):
		return own.Start, true
	default:
		return own.End, own.End.Before(record.End)
	}
}

// Standing is that of a record. ready is false when nothing may be added to it before PrepareRecords has seen to it: it
// is the current one and what it says of the person or the plan is no longer so, or some of its holds have lapsed.
func (c *Catalogue) Standing(r *UsageRecord, now time.Time) (s Standing, ready bool) {
	s = Standing{
		Email: r.Email, Plan: r.PlanID, Used: r.SuggestionsUsed, Held: r.SuggestionsHeld, Included: r.SuggestionsIncluded,
		OverageRateCents: r.OverageRateCents, SpendLimitCents: r.SpendLimitCents, Period: r.Period(),
	}
	if r.holdsLapsed(now) {
		return s, false
	}
	if !s.Period.Contains(now) {
		return s, true
	}
	plan := c.PlanOf(r.PlanID)
	return s, r.Entitled && r.SuggestionsIncluded >= plan.Included && r.OverageRateCents == plan.OverageRateCents
}

// Foresee is the standing that the person will have once PrepareRecords has run; record is the current one, nil when there is
// none, and its SuggestionsHeld must be the live units.
func (c *Catalogue) Foresee(email string, e *Entitlement, record *UsageRecord, now time.Time) Standing {
	next := UsageRecord{Email: email}
	if record != nil {
		next = *record
		next.Email = email
		if end, cut := e.cut(record.Period(), now); cut && end.After(now) {
			next.BillingPeriodEnd = end
		} else if cut {
			next = UsageRecord{Email: email}
		}
	}
	if period := next.Period(); !period.Contains(now) {
		p := e.PeriodAt(now).clip(e.PreviousEnd, e.NextStart)
		next.BillingPeriodStart, next.BillingPeriodEnd = p.Start, p.End
	}
	c.entitle(&next, e)
	s, _ := c.Standing(&next, now)
	return s
}

// entitle writes into a current record what the person may use. An upgrade counts at once; a downgrade never lowers what
// is included before the period ends.
func (c *Catalogue) entitle(r *UsageRecord, e *Entitlement) {
	plan := c.PlanOf(e.PlanID)
	r.PlanID, r.OverageRateCents = plan.ID, plan.OverageRateCents
	r.SuggestionsIncluded = max(r.SuggestionsIncluded, plan.Included)
	r.SpendLimitCents, r.WorkspaceID = e.SpendLimitCents, e.WorkspaceID
	r.SlackTeamID, r.SlackUserID, r.StripeCustomerID = nil, nil, nil
	if e.Slack != (SlackIdentity{}) {
		r.SlackTeamID, r.SlackUserID = &e.Slack.TeamID, &e.Slack.UserID
	}
	if e.StripeCustomerID != "" {
		r.StripeCustomerID = &e.StripeCustomerID
	}
	r.Entitled = true
}

// holdsLapsed says that some of the units held may have lapsed, so that they must be summed anew.
func (r *UsageRecord) holdsLapsed(now time.Time) bool {
	return r.HoldsExpireAt != nil && !r.HoldsExpireAt.After(now)
}
