package models

import (
	"database/sql"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/uptrace/bun"
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
	// OrganizationID is that of the organization that has the subscription; nil without one and for the person's own.
	OrganizationID *uuid.UUID
	// MemberOf is the organization that the person is in now; nil without one.
	MemberOf *uuid.UUID
	Status   SubscriptionStatus
	// AtStripe means that the subscription is Stripe's. Then OverageRateCents is the unit amount of its overage item; nil until it
	// was read.
	AtStripe         bool
	OverageRateCents *int64
	// Created is when the subscription began, or the first of those by hand that replaced each other without a gap. Joined is when the person
	// came to their organization or left the last one. Ended is when the last subscription at Stripe ended that could have given the person a
	// plan, and EndedByHand when the last one by hand ended that came before this one. They are zero where that is not known.
	Created, Joined, Ended, EndedByHand time.Time
	// Until is when the next of such changes came, for what a person might use at an instant in the past; zero without one.
	Until time.Time
	// Anchor, PeriodStart and PeriodEnd are the subscription's at Stripe; nil when it was given by hand.
	Anchor, PeriodStart, PeriodEnd *time.Time
	// TrialEnd is when the subscription's trial ends or ended; nil without one.
	TrialEnd *time.Time
	// SubscriptionID is that of the subscription; nil without one.
	SubscriptionID *uuid.UUID
	// known is what else is known of the person's subscriptions, their past periods among it; nil where it was not read.
	known *changes
}

// payer is PayerOf the entitlement's subscription.
func (e *Entitlement) payer() string { return PayerOf(e.StripeCustomerID, e.OrganizationID) }

const byOrganization = "organization:"

// PayerOf identifies who pays for a plan: a customer of Stripe's, else an organization whose plan was assigned by hand, else the
// person. When it changes, the usage record ends and the next one starts. (product.md, "Plans")
func PayerOf(customer string, organization *uuid.UUID) string {
	switch {
	case customer != "":
		return customer
	case organization != nil:
		return byOrganization + organization.String()
	}
	return ""
}

// changed is when the payer changed from another one to this one, as far as that is known. A plan that is assigned by hand to the same
// person or organization, or that ends, is no change of payer.
func (e *Entitlement) changed(before string) time.Time {
	switch {
	case !byHand(before) || !byHand(e.payer()):
		return e.newest()
	case e.MemberOf != nil && before == PayerOf("", e.MemberOf), before == "" && e.OrganizationID != nil && e.Joined.Before(e.Created):
		return time.Time{}
	}
	return e.Joined
}

// newest is when something last changed that can change the payer.
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

// begins is when the payer of a plan began to pay for this person; zero without a plan and where it is not known.
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

// overageRate returns the price in cents of a unit beyond the included ones, in a period that ends at end; 0 is a hard cap. A trial
// includes units and bills nothing, even if its usage is recorded after it has ended.
func (e *Entitlement) overageRate(plan Plan, end time.Time) int64 {
	switch {
	case !e.AtStripe:
		return plan.OverageRateCents
	case e.Status == StatusTrialing, e.OverageRateCents == nil, e.TrialEnd != nil && !end.After(*e.TrialEnd):
		return 0
	}
	return *e.OverageRateCents
}

// activeStatuses are the statuses of a subscription that gives its plan. Of several such subscriptions, an organization's
// counts before the person's own, and then the newest one. (product.md, "Plans")
var activeStatuses = []SubscriptionStatus{StatusActive, StatusTrialing, StatusPastDue}

// Active reports whether the subscription gives its plan.
func (s *Subscription) Active() bool { return slices.Contains(activeStatuses, s.Status) }

// ActiveSubscription returns the SQL condition that a row of subscriptions is active, given its table alias.
func ActiveSubscription(alias string) string {
	statuses := make([]string, len(activeStatuses))
	for i, s := range activeStatuses {
		statuses[i] = "'" + string(s) + "'"
	}
	return alias + ".status IN (" + strings.Join(statuses, ", ") + ")"
}

// newestActive returns a SQL subquery for a column of the newest active subscription of an owner. The condition names
// the owner of a row n of subscriptions.
func newestActive(column, owner string) string {
	return "(SELECT n." + column + " FROM subscriptions n WHERE " + owner + " AND " + ActiveSubscription("n") +
		" ORDER BY n.created_at DESC LIMIT 1)"
}

// entitlingSubscription is SQL for the ID of the subscription that gives the user u their plan, whose workspace is w.
var entitlingSubscription = "COALESCE(" + newestActive("id", "n.organization_id = w.organization_id") + ", " +
	newestActive("id", "n.user_id = u.id") + ")"

// entitlementColumns and EntitlementJoins read an Entitlement in SQL, given a row k with a user's id, on both databases.
var (
	entitlementColumns = `u.workspace_id, w.organization_id, w.slack_team_id, u.slack_user_id, u.spend_limit_cents,
		s.plan_id, s.stripe_customer_id, s.organization_id, s.status, s.stripe_subscription_id IS NOT NULL, s.overage_rate_cents,
		s.billing_cycle_anchor, s.current_period_start, s.current_period_end, s.id,
		CASE WHEN s.current_period_start < s.created_at THEN s.current_period_start ELSE s.created_at END, s.trial_end`

	EntitlementJoins = `LEFT JOIN users u ON u.id = k.id
		LEFT JOIN workspaces w ON w.id = u.workspace_id
		LEFT JOIN subscriptions s ON s.id = ` + entitlingSubscription
)

// entitlementJoinsAt read what was at an instant, given a row k with a user's id and the instant at: the subscription that gave a plan
// then, of the organization that the person was in or else their own. One that is backdated gave it from the start of its period, and one
// that ended did so until then. A person whose memberships are not stored was always where they are. What has no history, such as the
// person's own limit, is as it is now.
var (
	entitlementJoinsAt = `LEFT JOIN users u ON u.id = k.id
		LEFT JOIN workspaces w ON w.id = u.workspace_id
		LEFT JOIN subscriptions s ON s.id = COALESCE(
			(SELECT o.id FROM subscriptions o WHERE o.organization_id = COALESCE(
				(SELECT m.organization_id FROM memberships m WHERE m.user_id = u.id AND m.since <= k.at ORDER BY m.since DESC LIMIT 1),
				CASE WHEN NOT EXISTS (SELECT 1 FROM memberships m WHERE m.user_id = u.id) THEN w.organization_id END) AND ` + gaveAt + `),
			(SELECT o.id FROM subscriptions o WHERE o.user_id = u.id AND ` + gaveAt + `))`

	// endedAt is null while the subscription gives its plan.
	endedAt = `CASE WHEN NOT ` + ActiveSubscription("o") + `
		THEN COALESCE(o.inactive_since, CASE o.status WHEN 'canceled' THEN o.cancel_at END, o.updated_at) END`

	gaveAt = `(o.created_at <= k.at OR o.current_period_start <= k.at
				OR EXISTS (SELECT 1 FROM subscription_periods p WHERE p.subscription_id = o.id AND p.period_start <= k.at))
				AND (` + ActiveSubscription("o") + ` OR ` + endedAt + ` > k.at) ORDER BY o.created_at DESC LIMIT 1`
)

// changes are when something happened that can change a person's payer, and the subscriptions that gave the person a plan.
type changes struct {
	joined, created, ended []time.Time
	paid                   map[uuid.UUID]*paidFor
	byHand                 []givenByHand
}

// givenByHand is a plan that was assigned by hand to an organization, or to the person if organization is nil. ended is zero while it goes on.
type givenByHand struct {
	organization *uuid.UUID
	began, ended time.Time
}

// changesOf reads the changes of people, as the moments when they came to an organization or left the last one, and when a subscription
// began and ended that was theirs or one of their organizations', with each of its periods at Stripe. Its three arguments select the
// people's IDs.
var changesOf = `SELECT m.user_id, m.since, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL FROM memberships m WHERE m.user_id IN (?)
	UNION ALL SELECT o.user_id, NULL, ` + subscriptionChanges + ` FROM subscriptions o
		LEFT JOIN subscription_periods p ON p.subscription_id = o.id WHERE o.user_id IN (?)
	UNION ALL SELECT m.user_id, NULL, ` + subscriptionChanges + ` FROM memberships m JOIN subscriptions o ON o.organization_id = m.organization_id
		LEFT JOIN subscription_periods p ON p.subscription_id = o.id WHERE m.user_id IN (?)`

var subscriptionChanges = `o.created_at, ` + endedAt + `, o.id, o.organization_id, o.stripe_subscription_id IS NULL, o.stripe_customer_id, o.billing_cycle_anchor,
	p.period_start, p.period_end`

// change is one row of changesOf.
type change struct {
	joined, created, ended     bun.NullTime
	subscription, organization *uuid.UUID
	byHand                     sql.NullBool
	customer                   *string
	anchor, start, end         bun.NullTime
}

func (c *changes) add(row *change) {
	if !row.joined.IsZero() {
		c.joined = append(c.joined, row.joined.UTC())
	}
	if row.subscription == nil {
		return
	}
	if row.byHand.Bool {
		g := givenByHand{organization: row.organization, began: row.created.UTC()}
		if !row.ended.IsZero() {
			g.ended = row.ended.UTC()
		}
		c.byHand = append(c.byHand, g)
		return
	}
	s := c.paid[*row.subscription]
	if s == nil {
		if c.paid == nil {
			c.paid = map[uuid.UUID]*paidFor{}
		}
		s = &paidFor{began: row.created.UTC()}
		if !row.ended.IsZero() {
			s.ended = row.ended.UTC()
		}
		if !row.anchor.IsZero() {
			s.anchor = new(row.anchor.UTC())
		}
		if row.customer != nil {
			s.customer = *row.customer
		}
		c.paid[*row.subscription] = s
	}
	if period := (Period{Start: row.start.UTC(), End: row.end.UTC()}); !row.start.IsZero() && !slices.Contains(s.all, period) {
		s.all = append(s.all, period)
	}
}

// settle puts in order what was added.
func (c *changes) settle() {
	c.created, c.ended = nil, nil
	for _, s := range c.paid {
		s.periods = NewPeriods(s.all)
		if len(s.periods) > 0 && s.periods[0].Start.Before(s.began) {
			s.began = s.periods[0].Start // it is backdated
		}
		c.created = append(c.created, s.began)
		if !s.ended.IsZero() {
			c.ended = append(c.ended, s.ended)
		}
	}
}

// note adds what is known of the changes at an instant. Until is only of interest in the past.
func (c *changes) note(e *Entitlement, at, now time.Time) {
	e.known = c
	e.Joined, e.Ended, e.Until = lastBefore(c.joined, at), lastBefore(c.ended, at), time.Time{}
	c.noteByHand(e, at)
	if e.SubscriptionID != nil {
		if s := c.paid[*e.SubscriptionID]; s != nil && s.began.Before(e.Created) {
			e.Created = s.began
		}
	}
	for _, all := range [][]time.Time{c.joined, c.created, c.ended} {
		for _, t := range all {
			if t.After(at) && !t.After(now) && (e.Until.IsZero() || t.Before(e.Until)) {
				e.Until = t
			}
		}
	}
}

// noteByHand adds what is known of plans that were assigned by hand.
func (c *changes) noteByHand(e *Entitlement, at time.Time) {
	slices.SortFunc(c.byHand, func(a, b givenByHand) int { return b.began.Compare(a.began) }) // the newest first
	e.EndedByHand = time.Time{}
	for _, g := range c.byHand {
		switch mine := g.organization == nil && e.OrganizationID == nil || g.organization != nil && e.OrganizationID != nil && *g.organization == *e.OrganizationID; {
		case g.ended.IsZero() || g.ended.After(at):
		case e.AtStripe:
			first := g.organization != nil && e.OrganizationID == nil && e.MemberOf != nil && *g.organization == *e.MemberOf
			if (first || mine && g.began.After(e.Created)) && g.ended.After(e.EndedByHand) {
				e.EndedByHand = g.ended
			}
		case mine && e.SubscriptionID != nil && g.began.Before(e.Created) && e.Created.Sub(g.ended) < time.Millisecond:
			e.Created = g.began
		}
	}
}

// lastBefore returns the last of times that is not after an instant; zero without one.
func lastBefore(times []time.Time, at time.Time) (last time.Time) {
	for _, t := range times {
		if !t.After(at) && t.After(last) {
			last = t
		}
	}
	return last
}

// PeriodAt is the billing period that contains t: under a Stripe subscription its own as Stripe showed it, and where Stripe showed none
// or a longer one, a monthly step; else the calendar month.
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

// periods are those of the subscription that are known.
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

// ownPeriod is the subscription's own period that contains t; ok is false without one at Stripe.
func (e *Entitlement) ownPeriod(t time.Time) (own Period, ok bool) {
	if e.PeriodStart == nil && e.Anchor == nil {
		return Period{}, false
	}
	return e.PeriodAt(t), true
}

// end returns where the record that contains t ends by this entitlement. That is not after t when the payer changed in the middle of
// the record, or a period of the subscription began in it; otherwise it is after t. ok is false if nothing is known of it.
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

// Standing is that of a record. ready is false when nothing may be added to it before PrepareRecords has brought it up to date: it
// is the current one and what it repeats of the person or the plan has changed, or some of its holds have expired.
func (c *Catalogue) Standing(r *UsageRecord, now time.Time) (s Standing, ready bool) {
	s = Standing{
		UserID: r.UserID, Email: r.Email, Plan: r.PlanID, Period: r.Period(),
		Used: r.SuggestionsUsed, Overage: r.OverageUsed, OverageCents: r.OverageCents,
		Held: r.UnitsHeld, OverageHeld: r.OverageHeld, OverageCentsHeld: r.OverageCentsHeld, Included: r.SuggestionsIncluded + r.Granted,
		OverageRateCents: r.OverageRateCents, PastDue: r.PastDue, SpendLimitCents: r.SpendLimitCents, MemberLimit: r.MemberLimit,
	}
	if r.holdsLapsed(now) {
		return s, false
	}
	if !s.Period.Contains(now) {
		return s, true
	}
	plan := c.PlanOf(r.PlanID)
	return s, r.Entitled && r.SuggestionsIncluded+r.IncludedBefore >= plan.Included &&
		(r.StripeCustomerID != nil || r.OverageRateCents == plan.OverageRateCents)
}

// Foresee is the standing that the person will have once PrepareRecords has run; records are theirs, in order of their periods, and
// UnitsHeld and the rest of the current one's holds must be those of the live ones.
func (c *Catalogue) Foresee(email string, e *Entitlement, records []*UsageRecord, now time.Time) Standing {
	s, _ := c.foresee(email, e, records, now)
	return s
}

// foresee also returns whether this depends on events that must move to another record first.
func (c *Catalogue) foresee(email string, e *Entitlement, records []*UsageRecord, now time.Time) (s Standing, moves bool) {
	p := person{email: email, entitlement: *e}
	for _, r := range records {
		if r != nil {
			copied := *r
			p.records = append(p.records, &copied)
		}
	}
	for _, changed := range p.fit(now) {
		moves = moves || changed.moves
	}
	record, _, _ := p.find(now)
	if record == nil {
		record = p.place(c, e, now, now)
	}
	c.entitle(record, e)
	s, _ = c.Standing(record, now)
	return s, moves
}

// entitle writes into a current record what the person may use. An upgrade counts at once; a downgrade never lowers what
// is included before the period ends.
func (c *Catalogue) entitle(r *UsageRecord, e *Entitlement) {
	plan := c.PlanOf(e.PlanID)
	r.PlanID, r.OverageRateCents, r.PastDue = plan.ID, e.overageRate(plan, r.BillingPeriodEnd), e.Status == StatusPastDue
	r.SuggestionsIncluded = max(r.SuggestionsIncluded, plan.Included-r.IncludedBefore)
	r.SpendLimitCents, r.WorkspaceID = e.SpendLimitCents, e.WorkspaceID
	r.SlackTeamID, r.SlackUserID, r.StripeCustomerID, r.StripeMeterID = nil, nil, nil, nil
	if e.Slack != (SlackIdentity{}) {
		r.SlackTeamID, r.SlackUserID = &e.Slack.TeamID, &e.Slack.UserID
	}
	if e.StripeCustomerID != "" {
		r.StripeCustomerID = &e.StripeCustomerID
		if plan.StripeMeterID != "" {
			r.StripeMeterID = &plan.StripeMeterID
		}
	}
	payer := e.payer()
	r.Payer, r.Entitled = &payer, true
}

// holdsLapsed says that some of the units held may have lapsed, so that they must be summed anew.
func (r *UsageRecord) holdsLapsed(now time.Time) bool {
	return r.HoldsExpireAt != nil && !r.HoldsExpireAt.After(now)
}
