package models

import "math"

// Reason is the reason for a refusal; empty if the decision allows.
type Reason string

// The reasons for a refusal.
const (
	MemberLimitReached            Reason = "member_limit_reached"
	IncludedExhausted             Reason = "included_exhausted"
	PaymentPastDue                Reason = "payment_past_due"
	SpendLimitReached             Reason = "spend_limit_reached"
	OrganizationSpendLimitReached Reason = "organization_spend_limit_reached"
)

// Reasons lists all reasons, in the order in which Decide checks them.
var Reasons = []Reason{MemberLimitReached, IncludedExhausted, PaymentPastDue, SpendLimitReached, OrganizationSpendLimitReached}

// Verdict is the outcome of a decision.
type Verdict struct {
	Allowed bool
	// Reason is empty if Allowed.
	Reason Reason
	// Overage is the units beyond the included ones, and OverageCents is their price; 0 if refused.
	Overage, OverageCents int64
}

// Decide decides whether a person with this standing may have quantity more units: all of them or
// none. It is a pure function, and all parts that decide call it.
func Decide(s Standing, quantity int64) Verdict {
	over := max(0, quantity-s.Remaining())
	cents := over * s.OverageRateCents
	switch {
	case quantity > s.allowance():
		return Verdict{Reason: MemberLimitReached}
	case over == 0:
	case s.OverageRateCents <= 0:
		return Verdict{Reason: IncludedExhausted}
	case s.PastDue:
		return Verdict{Reason: PaymentPastDue}
	case cents > s.budget():
		return Verdict{Reason: SpendLimitReached}
	case cents > s.Organization.budget():
		return Verdict{Reason: OrganizationSpendLimitReached}
	}
	return Verdict{Allowed: true, Overage: over, OverageCents: cents}
}

// Classify is Decide for units that were already used, so it allows all of them. It bills only
// those that Decide would bill: not the units beyond a hard cap or a limit, and none while a
// payment is past due.
func Classify(s Standing, quantity int64) Verdict {
	over := max(0, min(quantity, s.allowance())-s.Remaining())
	switch {
	case s.OverageRateCents <= 0 || s.PastDue:
		over = 0
	default:
		over = min(over, s.budget()/s.OverageRateCents, s.Organization.budget()/s.OverageRateCents)
	}
	return Verdict{Allowed: true, Overage: over, OverageCents: over * s.OverageRateCents}
}

// allowance returns how many more units the member limit allows.
func (s *Standing) allowance() int64 {
	if s.MemberLimit == nil {
		return math.MaxInt64
	}
	return max(0, *s.MemberLimit-s.Used-s.Held)
}

// budget returns how many more cents the person's own spend limit allows.
func (s *Standing) budget() int64 {
	if s.SpendLimitCents == nil {
		return math.MaxInt64
	}
	return max(0, *s.SpendLimitCents-s.OverageCents-s.OverageCentsHeld)
}

// budget returns how many more cents the organization's spend limit allows.
func (o *OrganizationSpend) budget() int64 {
	if o.LimitCents == nil {
		return math.MaxInt64
	}
	return max(0, *o.LimitCents-o.Cents)
}

// Settle returns the verdict for quantity units of a hold, given a standing that no longer counts
// the hold. The overage is at most the hold's overage, and at most the overage that the units would
// have now, because another hold may have freed included units since. It is charged at the hold's
// rate.
func Settle(s Standing, h *UsageHold, quantity int64) Verdict {
	over := min(max(0, quantity-(h.Quantity-h.OverageQuantity)), max(0, quantity-s.Remaining()))
	return Verdict{Allowed: true, Overage: over, OverageCents: over * h.OverageRateCents}
}

// Add adds used units with the overage of their verdict.
func (s *Standing) Add(quantity int64, v Verdict) {
	s.Used += quantity
	s.Overage += v.Overage
	s.OverageCents += v.OverageCents
	s.Organization.Cents += v.OverageCents
}

// Hold adds units on hold with the overage of their verdict.
func (s *Standing) Hold(quantity int64, v Verdict) {
	s.Held += quantity
	s.OverageHeld += v.Overage
	s.OverageCentsHeld += v.OverageCents
	s.Organization.Cents += v.OverageCents
}
