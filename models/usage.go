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

// UsageEvent is one recorded use of units, a line of the ledger. The figures from PlanID to MemberLimit are those of the answer, so
// that a retry gets the same one; they never change.
type UsageEvent struct {
	bun.BaseModel `bun:"table:usage_events"`

	ID     uuid.UUID `bun:",pk,type:uuid"`
	UserID uuid.UUID `bun:",type:uuid"`
	// RecordID is the record that the event counts in. It changes when a billing period becomes known late.
	RecordID int64
	// Email is the person's address at that time.
	Email       string
	WorkspaceID *uuid.UUID `bun:",type:uuid"`
	Quantity    int64
	// OverageQuantity is the units of Quantity that are billed, OverageCents their price. Both are decided once.
	OverageQuantity  int64
	OverageCents     int64
	IdempotencyKey   *string
	HoldID           *uuid.UUID `bun:",type:uuid"`
	OccurredAt       time.Time
	RecordedAt       time.Time
	Figures          `bun:"embed:"`
	StripeCustomerID *string
	StripeReportedAt *time.Time
	StripeReportID   *uuid.UUID `bun:",type:uuid"`
	VoidedAt         *time.Time
	VoidReason       *string
}

// Figures are a standing as it was answered, which events and holds store so that a retry gets the first answer.
type Figures struct {
	PlanID             PlanID
	BillingPeriodStart time.Time
	BillingPeriodEnd   time.Time
	// The figures after the decision, in units and cents.
	UsedAfter, OverageAfter, OverageCentsAfter, HeldAfter, OverageHeldAfter int64

	Included         int64
	OverageRateCents int64
	SpendLimitCents  *int64
	MemberLimit      *int64
}

// Figures returns what an event or a hold stores of the standing.
func (s *Standing) Figures() Figures {
	return Figures{
		PlanID: s.Plan, BillingPeriodStart: s.Period.Start, BillingPeriodEnd: s.Period.End,
		UsedAfter: s.Used, OverageAfter: s.Overage, OverageCentsAfter: s.OverageCents, HeldAfter: s.Held, OverageHeldAfter: s.OverageHeld,
		Included: s.Included, OverageRateCents: s.OverageRateCents, SpendLimitCents: s.SpendLimitCents, MemberLimit: s.MemberLimit,
	}
}

// Standing returns the standing that the figures were taken from.
func (f *Figures) Standing(user uuid.UUID, email string) Standing {
	return Standing{
		UserID: user, Email: email, Plan: f.PlanID, Period: Period{Start: f.BillingPeriodStart.UTC(), End: f.BillingPeriodEnd.UTC()},
		Used: f.UsedAfter, Overage: f.OverageAfter, OverageCents: f.OverageCentsAfter, Held: f.HeldAfter, OverageHeld: f.OverageHeldAfter,
		Included: f.Included, OverageRateCents: f.OverageRateCents, SpendLimitCents: f.SpendLimitCents, MemberLimit: f.MemberLimit,
	}
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

// UsageHold is units set aside while work runs, with the figures of the answer that made it. Its key is (UserID, ID), and the end of
// its ID is that of UserID (NewHoldID).
type UsageHold struct {
	bun.BaseModel `bun:"table:usage_holds"`

	ID       uuid.UUID `bun:",pk,type:uuid"`
	UserID   uuid.UUID `bun:",type:uuid"`
	RecordID int64
	// Email is the person's address at that time.
	Email    string
	Quantity int64
	// OverageQuantity is the units of Quantity that are beyond the included ones, OverageCents their price.
	OverageQuantity int64
	OverageCents    int64
	IdempotencyKey  string
	State           HoldState
	ExpiresAt       time.Time
	CreatedAt       time.Time
	Figures         `bun:"embed:"`
}

// Now is the clock's time as both databases keep it: UTC, in whole microseconds.
func Now(clock func() time.Time) time.Time { return clock().UTC().Truncate(time.Microsecond) }

// NewHoldID returns the ID of a new hold of a user: a UUID of version 8 with the time and a counter like a version 7, and the last 62
// bits of the user's ID. So a call that gives only the hold names the user too. Source: RFC 9562, 5.8.
func NewHoldID(user uuid.UUID) uuid.UUID {
	id := uuid.Must(uuid.NewV7())
	id[6] = id[6]&0x0f | 0x80
	copy(id[8:], user[8:])
	return id
}

// HoldsOutlivePeriod is how long after the end of its billing period a hold can be settled at most. (product.md, "Decisions")
const HoldsOutlivePeriod = 30 * time.Minute
