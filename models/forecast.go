package models

import "time"

// Forecast is the units that a straight line from the period's start through now reaches at its end, rounded down. ok is
// false in the first five days and under ten units: a unit is at most one event, so fewer units are fewer events too.
func (s Standing) Forecast(now time.Time) (units int64, ok bool) {
	elapsed, length := now.Sub(s.Period.Start), s.Period.End.Sub(s.Period.Start)
	if elapsed < forecastDays*24*time.Hour || s.Used < forecastEvents || elapsed > length {
		return 0, false
	}
	return int64(float64(s.Used) * float64(length) / float64(elapsed)), true
}

// ForecastOverage is the overage at the period's end if units are used by then: that so far, and the units beyond the included ones at
// the current rate. It takes no account of limits.
func (s Standing) ForecastOverage(units int64) Overage {
	further := max(0, units-s.Overage-s.Included)
	return Overage{Units: s.Overage + further, Cents: s.OverageCents + further*s.OverageRateCents}
}

// CostOf is what a plan would have come to in billing periods with these units used: base price and overage in cents, and
// the units that a hard cap would have refused.
func (p Plan) CostOf(used []int64) (cents, refused int64) {
	for _, n := range used {
		cents += p.BasePriceCents
		switch over := max(0, n-p.Included); {
		case p.OverageRateCents > 0:
			cents += over * p.OverageRateCents
		default:
			refused += over
		}
	}
	return cents, refused
}

// The forecast is absent where a straight line would be a guess.
const (
	forecastDays   = 5
	forecastEvents = 10
)
