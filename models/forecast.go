package models

import "time"

// Forecast returns the units at the end of the period if usage continues at its pace, rounded down.
// ok is false in the first five days and below ten units. (Each event has at least one unit, so
// fewer units also means fewer events.)
func (s Standing) Forecast(now time.Time) (units int64, ok bool) {
	elapsed, length := now.Sub(s.Period.Start), s.Period.End.Sub(s.Period.Start)
	if elapsed < forecastDays*24*time.Hour || s.Used < forecastEvents || elapsed > length {
		return 0, false
	}
	return int64(float64(s.Used) * float64(length) / float64(elapsed)), true
}

// RunsOut returns when the units that are left are used if usage continues at its pace. ok is false
// if Forecast gives none, if no units are left, and if they last until the end of the period.
func (s Standing) RunsOut(now time.Time) (at time.Time, ok bool) {
	units, ok := s.Forecast(now)
	left := s.Remaining()
	if under, limited := s.LeftUnderMemberLimit(); limited {
		left = under
	}
	last := s.Used + s.Held + left
	if !ok || left <= 0 || units <= last {
		return time.Time{}, false
	}
	return s.Period.Start.Add(time.Duration(float64(now.Sub(s.Period.Start)) * float64(last) / float64(s.Used))), true
}

// ForecastOverage returns the overage at the end of the period, given its units: the overage so
// far, and the further units beyond the included ones at the current rate. It ignores limits. Units
// beyond the included ones that were recorded without overage stay unbilled.
func (s Standing) ForecastOverage(units int64) Overage {
	further := max(0, units-max(s.Used, s.Overage+s.Included))
	return Overage{Units: s.Overage + further, Cents: s.OverageCents + further*s.OverageRateCents}
}

// CostOf returns what a plan would have cost in billing periods with these used units: base price
// and overage in cents. It also returns the units that a hard cap would have refused.
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

// There is no forecast where a straight line would be a guess.
const (
	forecastDays   = 5
	forecastEvents = 10
)
