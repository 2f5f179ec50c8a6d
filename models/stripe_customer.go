package models

import (
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/uptrace/bun"
)

// OverageProblem is the reason why a subscription's overage cannot be billed. Units beyond the
// included ones are then refused.
type OverageProblem string

// The problems of an overage price.
const (
	// OverageMissing means that the subscription has no overage price of its plan.
	OverageMissing OverageProblem = "missing"
	// OverageTiered means that the overage price has tiers. Stripe would deduct its free units in
	// addition to the included ones.
	OverageTiered OverageProblem = "tiered"
	// OverageCurrency means that the overage price is in another currency than the catalog.
	OverageCurrency OverageProblem = "currency"
	// OverageAmount means that the overage price is not a whole number of cents for each unit.
	OverageAmount OverageProblem = "amount"
)

// StripeCustomer is a Stripe customer that belongs to a person, to an organization, or to no known
// owner.
type StripeCustomer struct {
	bun.BaseModel `bun:"table:stripe_customers"`

	ID             string     `bun:",pk"`
	UserID         *uuid.UUID `bun:",type:uuid"`
	OrganizationID *uuid.UUID `bun:",type:uuid"`
	Deleted        bool
	LeaseToken     *uuid.UUID `bun:",type:uuid"`
	LeasedUntil    *time.Time
	// NextAttemptAt is when events of the customer are next applied; nil if all are applied.
	NextAttemptAt *time.Time
	Failures      int
	// Problem is a problem that an operator should know about, such as a price without a plan or a
	// missing owner; nil without one.
	Problem   *string `bun:"fault"`
	CreatedAt time.Time
	// HeldSubscriptions lists, separated by spaces, the active subscriptions that bill the same
	// meter of ours. While there are two or more, the customer's reports are held back, because
	// each would be billed more than once; nil otherwise.
	HeldSubscriptions *string
}

// HeldCustomer is a customer whose reports are held back.
type HeldCustomer struct {
	StripeCustomerID string
	// Subscriptions are active ones that bill the same meter. Tiered are those whose overage price
	// has tiers.
	Subscriptions, Tiered []string
	// Units is the customer's overage that is waiting to be sent.
	Units int64
}

// Reason returns why the reports are held back and what to do.
func (h HeldCustomer) Reason() string {
	var reasons []string
	if n := len(h.Subscriptions); n > 0 {
		reasons = append(reasons, fmt.Sprintf("%d active subscriptions bill the same meter: %s. End all but one in Stripe; the reports "+
			"are then sent.",
			n, listOr(h.Subscriptions, "none")))
	}
	if len(h.Tiered) > 0 {
		reasons = append(reasons, fmt.Sprintf("The overage price of %s has tiers: Stripe would deduct the free units of the tiers in "+
			"addition to the plan's included units. Replace the item with the plan's flat price in Stripe when the next period begins. "+
			"Until then, units beyond the included ones are refused.",
			listOr(h.Tiered, "none")))
	}
	return strings.Join(reasons, " ")
}
