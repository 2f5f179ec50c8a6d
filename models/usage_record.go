package models

import (
	"time"

	"github.com/google/uuid"
	"github.com/uptrace/bun"
)

// UsageRecord is one person in one billing period: the counters that limits are enforced on. Its key is (UserID, ID).
type UsageRecord struct {
	bun.BaseModel `bun:"table:usage_records"`

	ID     int64     `bun:",pk,autoincrement"`
	UserID uuid.UUID `bun:",type:uuid"`
	// Email is the person's current address.
	Email              string
	BillingPeriodStart time.Time
	BillingPeriodEnd   time.Time
	PlanID             PlanID
	// SuggestionsIncluded is the units that the plan covers, without Granted, the extra units that were given.
	SuggestionsIncluded int64
	Granted             int64
	// SuggestionsUsed is units. OverageUsed is those of them that are billed, and OverageCents their price.
	SuggestionsUsed int64
	OverageUsed     int64
	OverageCents    int64
	// OverageMovedIn is the part of OverageUsed that was decided in another period, which ended earlier than was known then, and
	// OverageMovedOut the overage that was decided here and occurred in another period. Both stay billed.
	OverageMovedIn, OverageMovedOut int64
	// UnitsHeld is the units of open holds, OverageHeld those of them that would be billed, and OverageCentsHeld their price. From
	// HoldsExpireAt on, expired holds are among them until they are given back.
	UnitsHeld        int64
	OverageHeld      int64
	OverageCentsHeld int64
	// HoldsExpireAt is not after the earliest expiry of an open hold; nil when there is none.
	HoldsExpireAt *time.Time
	// Daily is SuggestionsUsed by day, so that what shows days needs no events.
	Daily Daily

	// What follows repeats what the decision needs of the person, the payer and the plan, so that a decision reads one row. It is
	// current while Entitled is true: the database itself sets that to false when any of it changes.
	Entitled bool
	// Payer is Entitlement.payer; nil in records of earlier releases.
	Payer *string
	// IncludedBefore is the included units that the person used before this record in the same period of the same payer.
	IncludedBefore int64
	// OverageRateCents is the price in cents of a unit beyond the included ones; 0 is a hard cap.
	OverageRateCents int64
	// PastDue means that the subscription's payment failed, so that overage is refused.
	PastDue bool
	// SpendLimitCents is the most that the overage may cost, MemberLimit the most units that may be used; nil is no limit.
	SpendLimitCents  *int64
	MemberLimit      *int64
	WorkspaceID      *uuid.UUID `bun:",type:uuid"`
	SlackTeamID      *string
	SlackUserID      *string
	StripeCustomerID *string
	// StripeMeterID is Stripe's ID of the plan's meter; nil without a customer.
	StripeMeterID *string
	CreatedAt     time.Time
}

// Period is the record's billing period.
func (r *UsageRecord) Period() Period {
	return Period{Start: r.BillingPeriodStart.UTC(), End: r.BillingPeriodEnd.UTC()}
}

// Slack is who the person is to Slack; the zero value when they are not linked.
func (r *UsageRecord) Slack() SlackIdentity {
	if r.SlackTeamID == nil || r.SlackUserID == nil {
		return SlackIdentity{}
	}
	return SlackIdentity{TeamID: *r.SlackTeamID, UserID: *r.SlackUserID}
}

// RecordKey names a usage record by its person and an instant of its billing period. Where UserID is zero, the person is whoever has the
// email.
type RecordKey struct {
	UserID uuid.UUID
	Email  string
	At     time.Time
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
