package models

import (
	"time"

	"github.com/google/uuid"
	"github.com/uptrace/bun"
)

// Organization is a customer with members: it may hold a team plan for all of them.
type Organization struct {
	bun.BaseModel `bun:"table:organizations"`

	ID   uuid.UUID `bun:",pk,type:uuid"`
	Name string
	// Automatic means that a Slack team's first call made it, and not an operator.
	Automatic bool
	CreatedAt time.Time
}

// Workspace is a Slack team. It belongs to one organization.
type Workspace struct {
	bun.BaseModel `bun:"table:workspaces"`

	ID             uuid.UUID `bun:",pk,type:uuid"`
	OrganizationID uuid.UUID `bun:",type:uuid"`
	SlackTeamID    string
	Name           string
	CreatedAt      time.Time
}

// Role is what a user may do in their organization.
type Role string

// The roles of an organization.
const (
	Member Role = "member"
	Admin  Role = "admin"
)

// User is a person, named by their email address in lower case.
type User struct {
	bun.BaseModel `bun:"table:users"`

	ID          uuid.UUID `bun:",pk,type:uuid"`
	Email       string
	Name        string
	WorkspaceID *uuid.UUID `bun:",type:uuid"`
	SlackUserID *string
	Role        Role
	// Operator says that the person runs this installation and may open its pages.
	Operator bool
	// SpendLimitCents is the most that overage may cost in a billing period; nil is no limit.
	SpendLimitCents *int64
	CreatedAt       time.Time
}

// SlackIdentity is who Slack says a person is. A Slack user id is unique only within its team.
type SlackIdentity struct {
	TeamID string
	UserID string
}

// SlackIDRule is what the id of a Slack team or user may be, for people to read.
const SlackIDRule = `1 to 64 letters, digits, dots, dashes or underscores, such as "T024BE7LD"`

// IsSlackID says whether s may be the id of a Slack team or user. Slack says of them only that they are text, so this is
// wider than what it gives out.
func IsSlackID(s string) bool {
	if len(s) < 1 || len(s) > 64 {
		return false
	}
	for i := range len(s) {
		b := s[i]
		if (b < '0' || b > '9') && (b < 'A' || b > 'Z') && (b < 'a' || b > 'z') && b != '.' && b != '-' && b != '_' {
			return false
		}
	}
	return true
}

// Subscription is a plan held by one user or by one organization. Stripe's columns are null on a plan given by hand.
type Subscription struct {
	bun.BaseModel `bun:"table:subscriptions"`

	ID                   uuid.UUID  `bun:",pk,type:uuid"`
	UserID               *uuid.UUID `bun:",type:uuid"`
	OrganizationID       *uuid.UUID `bun:",type:uuid"`
	PlanID               PlanID
	Status               SubscriptionStatus
	StripeSubscriptionID *string
	StripeCustomerID     *string
	BillingCycleAnchor   *time.Time
	CurrentPeriodStart   *time.Time
	CurrentPeriodEnd     *time.Time
	// StripeEventAt is the time of the newest Stripe event that was applied.
	StripeEventAt *time.Time
	// StripePriceID is the price that it is charged by; Seats, the quantity of a team plan; CancelAt, when it ends, where that
	// is known.
	StripePriceID *string
	Seats         *int64
	CancelAt      *time.Time
	// TrialEnd is when the trial ends or ended; nil without a trial, and on rows that were stored before this column existed.
	TrialEnd *time.Time
	// InactiveSince is when it ceased to give its plan; nil while it does, and where that is not known.
	InactiveSince *time.Time
	// OverageRateCents is the unit amount of its overage item at Stripe, in cents; nil until it was read. OverageProblem says why
	// nothing is billed by it.
	OverageRateCents *int64
	OverageProblem   *string
	// OverageItems lists the plans whose overage items it has at Stripe, separated by spaces; nil until it was read.
	OverageItems *string
	CreatedAt    time.Time
	UpdatedAt    time.Time
}

// SubscriptionStatus is Stripe's word for a subscription's state.
// Source: https://docs.stripe.com/api/subscriptions/object#subscription_object-status
type SubscriptionStatus string

// The statuses that give a plan, and the one that a plan taken away by hand ends in.
const (
	StatusActive   SubscriptionStatus = "active"
	StatusTrialing SubscriptionStatus = "trialing"
	StatusPastDue  SubscriptionStatus = "past_due"
	StatusCanceled SubscriptionStatus = "canceled"
)
