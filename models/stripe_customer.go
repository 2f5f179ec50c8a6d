package models

import (
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/uptrace/bun"
)

// OverageProblem says why a subscription's overage cannot be billed. Units beyond the included ones are refused then.
type OverageProblem string

// The problems of an overage price.
const (
	// OverageMissing means that the subscription has no overage price of its plan.
	OverageMissing OverageProblem = "missing"
	// OverageTiered means that the overage price has tiers, whose free units would count twice.
	OverageTiered OverageProblem = "tiered"
	// OverageCurrency means that the overage price is in another currency than the catalog.
	OverageCurrency OverageProblem = "currency"
	// OverageAmount means that the overage price is not a whole number of cents for each unit.
	OverageAmount OverageProblem = "amount"
)

// StripeCustomer is whose a customer of Stripe's is: a person, an organization, or nobody known.
type StripeCustomer struct {
	bun.BaseModel `bun:"table:stripe_customers"`

	ID             string     `bun:",pk"`
	UserID         *uuid.UUID `bun:",type:uuid"`
	OrganizationID *uuid.UUID `bun:",type:uuid"`
	Deleted        bool
	LeaseToken     *uuid.UUID `bun:",type:uuid"`
	LeasedUntil    *time.Time
	// NextAttemptAt is when what happened to the customer is applied (again); nil when all is.
	NextAttemptAt *time.Time
	Failures      int
	// Fault is what an operator should know: a price that no plan has, an owner who is not named. Nil when all is well.
	Fault     *string
	CreatedAt time.Time
	// HeldSubscriptions lists, separated by spaces, the active subscriptions that all bill our meter. While there are two or more,
	// the customer's reports are held back, as each would be billed more than once; nil otherwise.
	HeldSubscriptions *string
}

// HeldCustomer is a customer whose reports are held back.
type HeldCustomer struct {
	StripeCustomerID string
	// Subscriptions are active ones that all bill the same meter, Tiered those whose overage price has tiers.
	Subscriptions, Tiered []string
	// Units is the customer's overage that waits to be sent.
	Units int64
}

// Reason says why the reports are held back and what to do.
func (h HeldCustomer) Reason() string {
	var reasons []string
	if n := len(h.Subscriptions); n > 0 {
		reasons = append(reasons, fmt.Sprintf("%d active subscriptions bill the same meter: %s. End all but one in Stripe; the reports are then sent.",
			n, listOr(h.Subscriptions, "none")))
	}
	if len(h.Tiered) > 0 {
		reasons = append(reasons, fmt.Sprintf("The overage price of %s has tiers, whose free units would count twice. "+
			"Exchange the item for the plan's flat price in Stripe when the next period begins. Until then, units beyond the included ones are refused.",
			listOr(h.Tiered, "none")))
	}
	return strings.Join(reasons, " ")
}
