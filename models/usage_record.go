package models

import (
	"context"
	"time"

	"github.com/google/uuid"
	"github.com/uptrace/bun"
)

// UsageRecord is a person's usage in one billing period, with the counters that limits are enforced
// on. Its key is (UserID, ID).
type UsageRecord struct {
	bun.BaseModel `bun:"table:usage_records"`

	ID     int64     `bun:",pk,autoincrement"`
	UserID uuid.UUID `bun:",type:uuid"`
	// Email is the person's current address.
	Email              string
	BillingPeriodStart time.Time
	BillingPeriodEnd   time.Time
	PlanID             PlanID
	// SuggestionsIncluded is the plan's included units, without Granted, the extra units from
	// grants.
	SuggestionsIncluded int64
	Granted             int64
	// GrantsExpireAt is at or before the earliest expiry of a grant that ends before the record; nil
	// without one. After it, Granted may include units of expired grants.
	GrantsExpireAt *time.Time
	// SuggestionsUsed is in units. OverageUsed is the part of them that is billed, and OverageCents
	// is its price.
	SuggestionsUsed int64
	OverageUsed     int64
	OverageCents    int64
	// OverageMovedIn is the part of OverageUsed that was decided in another period, before it was
	// known that this one had begun. OverageMovedOut is the overage that was decided in this period
	// but occurred in another one. Both stay billed.
	OverageMovedIn, OverageMovedOut int64
	// UnitsHeld is the units of open holds. OverageHeld is the part of them that would be billed,
	// and OverageCentsHeld is its price. After HoldsExpireAt, they may include holds that have
	// expired.
	UnitsHeld        int64
	OverageHeld      int64
	OverageCentsHeld int64
	// HoldsExpireAt is at or before the earliest expiry of an open hold; nil without open holds.
	HoldsExpireAt *time.Time
	// Daily is SuggestionsUsed by day, so that pages can show days without reading events.
	Daily Daily

	// The following fields copy the data of the person, the payer and the plan that a decision
	// needs, so that it reads only one row. The copy is current while Entitled is true; triggers
	// set Entitled to false when the data changes.
	Entitled bool
	// Payer is the result of PayerOf; nil in records of earlier releases.
	Payer *string
	// IncludedBefore is the number of included units that the person used in earlier records of the
	// same period and payer.
	IncludedBefore int64
	// OverageRateCents is the price in cents of a unit beyond the included ones; 0 is a hard cap.
	OverageRateCents int64
	// PastDue means that the subscription's payment failed, so that overage is refused.
	PastDue bool
	// SpendLimitCents is the maximum price of the overage, and MemberLimit the maximum number of
	// units; nil means no limit.
	SpendLimitCents *int64
	MemberLimit     *int64
	// OrganizationRecordID is the organization's record that counts this record's overage; nil if
	// the payer is not an organization with a spend limit.
	OrganizationRecordID *int64
	WorkspaceID          *uuid.UUID `bun:",type:uuid"`
	SlackTeamID          *string
	SlackUserID          *string
	StripeCustomerID     *string
	// StripeMeterID is Stripe's ID of the plan's meter; nil without a customer.
	StripeMeterID *string
	// MessageLevel is the highest warning level whose message an answer gave, as an index of
	// WarningLevels.
	MessageLevel int64
	// LimitRaises is how often the included units, the spend limit or the member limit were raised.
	LimitRaises int64
	CreatedAt   time.Time
}

// Period returns the record's billing period.
func (r *UsageRecord) Period() Period {
	return Period{Start: r.BillingPeriodStart.UTC(), End: r.BillingPeriodEnd.UTC()}
}

// Slack returns the person's Slack identity; the zero value if they are not linked.
func (r *UsageRecord) Slack() SlackIdentity {
	if r.SlackTeamID == nil || r.SlackUserID == nil {
		return SlackIdentity{}
	}
	return SlackIdentity{TeamID: *r.SlackTeamID, UserID: *r.SlackUserID}
}

// RecordKey identifies a usage record by its person and an instant in its billing period. If UserID
// is zero, the person is the one with the email.
type RecordKey struct {
	UserID uuid.UUID
	Email  string
	At     time.Time
}

// entitle copies an entitlement into a current record. An upgrade applies at once; a downgrade does
// not reduce the included units before the period ends.
func (c *Catalogue) entitle(r *UsageRecord, e *Entitlement) {
	plan := c.PlanOf(e.PlanID)
	included, spend, member := r.SuggestionsIncluded, r.SpendLimitCents, r.MemberLimit
	r.PlanID, r.OverageRateCents, r.PastDue = plan.ID, e.overageRate(plan, r.BillingPeriodEnd), e.Status == StatusPastDue
	r.SuggestionsIncluded = max(r.SuggestionsIncluded, plan.Included-r.IncludedBefore)
	r.SpendLimitCents, r.MemberLimit, r.WorkspaceID = e.SpendLimitCents, e.MemberLimit, e.WorkspaceID
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
	if r.ID != 0 && (r.SuggestionsIncluded > included || isRaised(spend, r.SpendLimitCents) || isRaised(member, r.MemberLimit)) {
		r.raised()
	}
	payer := e.payer()
	r.Payer, r.Entitled = &payer, true
}

// holdsLapsed reports whether some of the holds may have expired, so that they must be summed up
// again.
func (r *UsageRecord) holdsLapsed(now time.Time) bool {
	return r.HoldsExpireAt != nil && !r.HoldsExpireAt.After(now)
}

// grantsLapsed reports whether some of the grants have expired, so that their unused units must be
// taken back.
func (r *UsageRecord) grantsLapsed(now time.Time) bool {
	return r.GrantsExpireAt != nil && !r.GrantsExpireAt.After(now)
}

// raiseVersion invalidates the cached sums that include an ended record (see PastUsageCache).
func (r *UsageRecord) raiseVersion(ctx context.Context, db *DB, conn bun.IConn, now time.Time) error {
	if r.BillingPeriodEnd.After(now) {
		return nil
	}
	raise := db.NewRaw(`INSERT INTO usage_versions (workspace_id, version)
		SELECT present_workspace_id, 1 FROM usage_records WHERE user_id = ? AND id = ? AND present_workspace_id IS NOT NULL
		ON CONFLICT (workspace_id) DO UPDATE SET version = usage_versions.version + 1`, r.UserID, r.ID)
	_, err := conn.ExecContext(ctx, raise.String())
	return err
}
