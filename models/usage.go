package models

import (
	"time"

	"github.com/google/uuid"
	"github.com/uptrace/bun"
)

// UsageRecord is one person in one billing period: the counter that limits are enforced on.
type UsageRecord struct {
	bun.BaseModel `bun:"table:usage_records"`

	ID                  int64 `bun:",pk,autoincrement"`
	Email               string
	BillingPeriodStart  time.Time
	BillingPeriodEnd    time.Time
	PlanID              PlanID
	SuggestionsIncluded int64
	SuggestionsUsed     int64
	// OverageRateCents is the price in cents of a unit beyond the included ones; 0 is a hard cap.
	OverageRateCents int64
	// What follows repeats the person's limit, workspace and payer, so that a decision reads one row. It holds while
	// Entitled is true: the database itself sets that false when any of it changes.
	SpendLimitCents  *int64
	WorkspaceID      *uuid.UUID `bun:",type:uuid"`
	SlackTeamID      *string
	SlackUserID      *string
	StripeCustomerID *string
	Entitled         bool
	// SuggestionsHeld is the units of open holds, lapsed ones among them from HoldsExpireAt on, until they are given back.
	SuggestionsHeld int64
	// HoldsExpireAt is not after the earliest expiry of an open hold; nil when there is none.
	HoldsExpireAt *time.Time
	// Daily is SuggestionsUsed by day, so that what shows days needs no events.
	Daily         Daily
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

// UsageEvent is one grant: a line of the ledger, never changed but for what Stripe was told of it.
// The figures are those of the answer that was given, so that a retry gets the same one.
type UsageEvent struct {
	bun.BaseModel `bun:"table:usage_events"`

	ID                 uuid.UUID `bun:",pk,type:uuid"`
	RecordID           int64
	Email              string
	WorkspaceID        *uuid.UUID `bun:",type:uuid"`
	Quantity           int64
	IdempotencyKey     *string
	HoldID             *uuid.UUID `bun:",type:uuid"`
	OccurredAt         time.Time
	RecordedAt         time.Time
	PlanID             PlanID
	BillingPeriodStart time.Time
	BillingPeriodEnd   time.Time
	UsedAfter          int64
	HeldAfter          int64
	Included           int64
	OverageRateCents   int64
	SpendLimitCents    *int64
	StripeCustomerID   *string
	StripeReportedAt   *time.Time
	StripeReportID     *uuid.UUID `bun:",type:uuid"`
}

// HoldState is where a hold has come to.
type HoldState string

// The states of a hold. A hold past its expiry counts as expired whether or not its row says so already.
const (
	HoldOpen     HoldState = "open"
	HoldSettled  HoldState = "settled"
	HoldReleased HoldState = "released"
	HoldExpired  HoldState = "expired"
)

// UsageHold is units set aside while work runs, with the figures of the answer that made it.
type UsageHold struct {
	bun.BaseModel `bun:"table:usage_holds"`

	ID                 uuid.UUID `bun:",pk,type:uuid"`
	RecordID           int64
	Email              string
	Quantity           int64
	IdempotencyKey     string
	State              HoldState
	ExpiresAt          time.Time
	CreatedAt          time.Time
	PlanID             PlanID
	BillingPeriodStart time.Time
	BillingPeriodEnd   time.Time
	UsedAfter          int64
	HeldAfter          int64
	Included           int64
	OverageRateCents   int64
	SpendLimitCents    *int64
}

// Now is the clock's time as both databases keep it: UTC, in whole microseconds.
func Now(clock func() time.Time) time.Time { return clock().UTC().Truncate(time.Microsecond) }
