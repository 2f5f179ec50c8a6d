package models

import "github.com/google/uuid"

// Reason says why a decision is a refusal. It is empty when the decision allows.
type Reason string

// The reasons of a refusal.
const (
	IncludedExhausted Reason = "included_exhausted"
	PaymentPastDue    Reason = "payment_past_due"
	SpendLimitReached Reason = "spend_limit_reached"
)

// WarningLevel says how near a person is to the included units.
type WarningLevel string

// The warning levels, from none to all of the included units used.
const (
	Safe     WarningLevel = "safe"
	Warning  WarningLevel = "warning"
	Critical WarningLevel = "critical"
	Exceeded WarningLevel = "exceeded"
)

// WarningLevels are all of them, in that order.
var WarningLevels = []WarningLevel{Safe, Warning, Critical, Exceeded}

// The percentages of the included units at which the levels begin.
const (
	warningPercent  = 80
	criticalPercent = 95
	exceededPercent = 100
)

// Standing is where a person stands in one billing period: all that a decision depends on.
type Standing struct {
	// UserID is the zero value for somebody who is not stored yet.
	UserID uuid.UUID
	Email  string
	Plan   PlanID
	Period Period
	// Used is units, Overage those of them that are billed, and OverageCents their price.
	Used, Overage, OverageCents int64
	// Held is the units of open holds, OverageHeld those of them that would be billed, and OverageCentsHeld their price.
	Held, OverageHeld, OverageCentsHeld int64
	// Included is the units of the plan and of grants.
	Included int64
	// OverageRateCents is the price in cents of a unit beyond the included ones; 0 is a hard cap.
	OverageRateCents int64
	// PastDue means that overage is refused until the subscription's payment succeeds.
	PastDue bool
	// SpendLimitCents is the most that the overage of the period may cost, in cents; nil is no limit.
	SpendLimitCents *int64
	// MemberLimit is the most units that an admin allows; nil is no limit.
	MemberLimit *int64
}

// Verdict is the outcome of a decision.
type Verdict struct {
	Allowed bool
	// Reason is empty when Allowed.
	Reason Reason
	// Overage is the units that are beyond the included ones, and OverageCents their price; 0 when refused.
	Overage, OverageCents int64
}

// Decide is the rule: may the person in this standing have quantity more units? All of them or none.
// Every part that decides calls it; it reads and writes nothing. (product.md, "Decisions")
func Decide(s Standing, quantity int64) Verdict {
	over := max(0, quantity-s.Remaining())
	cents := over * s.OverageRateCents
	switch {
	case over == 0:
	case s.OverageRateCents <= 0:
		return Verdict{Reason: IncludedExhausted}
	case s.PastDue:
		return Verdict{Reason: PaymentPastDue}
	case s.SpendLimitCents != nil && s.OverageCents+s.OverageCentsHeld+cents > *s.SpendLimitCents:
		return Verdict{Reason: SpendLimitReached}
	}
	return Verdict{Allowed: true, Overage: over, OverageCents: cents}
}

// Classify is Decide for units that were used already. It allows all of them. Those that Decide would not bill are not billed:
// the units beyond a hard cap, beyond a spend limit, or while a payment is past due.
func Classify(s Standing, quantity int64) Verdict {
	over := max(0, quantity-s.Remaining())
	switch {
	case s.OverageRateCents <= 0 || s.PastDue:
		over = 0
	case s.SpendLimitCents != nil:
		over = min(over, max(0, *s.SpendLimitCents-s.OverageCents-s.OverageCentsHeld)/s.OverageRateCents)
	}
	return Verdict{Allowed: true, Overage: over, OverageCents: over * s.OverageRateCents}
}

// Settle is the verdict for quantity units of a hold, in a standing that no longer has the hold. Its overage is at most the hold's
// part beyond the included units, and at most what the units have now, as another hold may have freed included units since. It is
// charged at the hold's rate.
func Settle(s Standing, h *UsageHold, quantity int64) Verdict {
	over := min(max(0, quantity-(h.Quantity-h.OverageQuantity)), max(0, quantity-s.Remaining()))
	return Verdict{Allowed: true, Overage: over, OverageCents: over * h.OverageRateCents}
}

// Add counts quantity units with the overage that the verdict gives them.
func (s *Standing) Add(quantity int64, v Verdict) {
	s.Used += quantity
	s.Overage += v.Overage
	s.OverageCents += v.OverageCents
}

// Hold sets quantity units aside with the overage that the verdict gives them.
func (s *Standing) Hold(quantity int64, v Verdict) {
	s.Held += quantity
	s.OverageHeld += v.Overage
	s.OverageCentsHeld += v.OverageCents
}

// Remaining is the number of included units that are neither used nor held.
func (s Standing) Remaining() int64 {
	return max(0, s.Included-(s.Used-s.Overage)-(s.Held-s.OverageHeld))
}

// counted is the units that PercentUsed and Level compare with the included ones: all used units once none of the included ones are
// left, the included ones among them until then.
func (s Standing) counted() int64 {
	if s.Remaining() > 0 {
		return s.Used - s.Overage
	}
	return s.Used
}

// Level is the warning level of the units used, in whole-number arithmetic.
func (s Standing) Level() WarningLevel {
	switch hundred := s.counted() * 100; {
	case s.Included <= 0:
		if s.Used > 0 {
			return Exceeded
		}
		return Safe
	case hundred >= s.Included*exceededPercent:
		return Exceeded
	case hundred >= s.Included*criticalPercent:
		return Critical
	case hundred >= s.Included*warningPercent:
		return Warning
	}
	return Safe
}

// PercentUsed is used over included, rounded down: 499 of 500 is 99. With nothing included it is 0 before the first
// unit and 100 from then on.
func (s Standing) PercentUsed() int64 {
	if s.Included <= 0 {
		if s.Used > 0 {
			return 100
		}
		return 0
	}
	return s.counted() * 100 / s.Included
}
