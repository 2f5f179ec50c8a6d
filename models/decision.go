package models

// Reason says why a decision is a refusal. It is empty when the decision allows.
type Reason string

// The reasons of a refusal.
const (
	IncludedExhausted Reason = "included_exhausted"
	PaymentPastDue    Reason = "payment_past_due"
	SpendLimitReached Reason = "spend_limit_reached"
)

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
