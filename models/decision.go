package models

// Reason says why a decision is a refusal. It is empty when the decision allows.
type Reason string

// The reasons of a refusal.
const (
	IncludedExhausted Reason = "included_exhausted"
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
	Email string
	Plan  PlanID
	// Used, Held and Included are units.
	Used     int64
	Held     int64
	Included int64
	// OverageRateCents is the price in cents of a unit beyond the included ones; 0 is a hard cap.
	OverageRateCents int64
	// SpendLimitCents is the most that the overage of the period may cost, in cents; nil is no limit.
	SpendLimitCents *int64
	Period          Period
}

// Verdict is the outcome of a decision.
type Verdict struct {
	Allowed bool
	// Reason is empty when Allowed.
	Reason Reason
}

// Decide is the rule: may the person in this standing have quantity more units? All of them or none.
// Every part that decides calls it; it reads and writes nothing. (product.md, "Decisions")
func Decide(s Standing, quantity int64) Verdict {
	after := s.Used + s.Held + quantity
	if after <= s.Included {
		return Verdict{Allowed: true}
	}
	if s.OverageRateCents <= 0 {
		return Verdict{Reason: IncludedExhausted}
	}
	if s.SpendLimitCents != nil && (after-s.Included)*s.OverageRateCents > *s.SpendLimitCents {
		return Verdict{Reason: SpendLimitReached}
	}
	return Verdict{Allowed: true}
}

// Level is the warning level of the units used, in whole-number arithmetic.
func (s Standing) Level() WarningLevel {
	switch hundred := s.Used * 100; {
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
	return s.Used * 100 / s.Included
}

// Remaining is the number of included units that are neither used nor held.
func (s Standing) Remaining() int64 { return max(0, s.Included-s.Used-s.Held) }

// Overage is the number of units used beyond the included ones.
func (s Standing) Overage() int64 { return max(0, s.Used-s.Included) }

// OverageCents is the price of the overage in cents, before tax.
func (s Standing) OverageCents() int64 { return s.Overage() * s.OverageRateCents }
