package models

import "time"

// HistoryMonths is how many billing periods the pages show.
const HistoryMonths = 6

// PastPeriod is what was used in one billing period, which may be the current one.
type PastPeriod struct {
	Period Period
	// Plan is the plan of the period: for a past period, that of its last record; without a record, today's plan.
	Plan PlanID
	// BeforeSignUp says that there was nobody to use anything, which is not the same as 0.
	BeforeSignUp bool
	// Used and Included are units; Included is the period's own limit, not today's.
	Used, Included int64
	// Overage is the units that were used beyond a limit: in each record for itself, so that an organization has overage as soon
	// as one of its members has. OverageCents is its price in cents, before tax.
	Overage, OverageCents int64
	// Current says that the period is not over.
	Current bool
}

// MovedOverage is overage that was decided in another billing period than the one that it occurred in, and stays billed.
type MovedOverage struct {
	Period Period
	// In and Out are the units that came to the period and left it.
	In, Out int64
}

// MovedOverages lists the periods of the records that overage moved between, as far as they are not before since.
func MovedOverages(records []UsageRecord, since time.Time) (moved []MovedOverage) {
	for i := range records {
		if r := &records[i]; (r.OverageMovedIn > 0 || r.OverageMovedOut > 0) && r.BillingPeriodEnd.After(since) {
			moved = append(moved, MovedOverage{Period: r.Period(), In: r.OverageMovedIn, Out: r.OverageMovedOut})
		}
	}
	return moved
}

// periodsBack lists the n periods up to the current one, oldest first, with nothing used in them: monthly steps back from
// its start.
func periodsBack(current Period, signedUp time.Time, n int) []PastPeriod {
	months := make([]PastPeriod, n)
	p := current
	for i := n - 1; i >= 0; i-- {
		months[i] = PastPeriod{Period: p, BeforeSignUp: !p.End.After(signedUp), Current: i == n-1}
		p = Period{Start: AnchoredMonth(current.Start, p.Start.Add(-time.Microsecond)).Start, End: p.Start} // the anchor's day, also after a short month
	}
	return months
}

// Months lists a person's n newest billing periods, oldest first. The current one is as the standing says; those before are as
// their records say; a period without a record has nothing used, and the limit of today.
func Months(current Standing, records []UsageRecord, signedUp time.Time, n int) []PastPeriod {
	months := periodsBack(current.Period, signedUp, n)
	last := &months[n-1]
	last.Used, last.Included, last.BeforeSignUp = current.Used, current.Included, false
	last.Overage, last.OverageCents = current.Overage, current.OverageCents
	for i := range months[:n-1] {
		months[i].Included, months[i].Plan = current.Included, current.Plan
	}
	last.Plan = current.Plan
	newest := make([]time.Time, n) // the start of the record that gave a month its plan
	for i := range records {
		r := &records[i]
		start := r.BillingPeriodStart.UTC()
		for j := range months[:n-1] {
			m := &months[j]
			if !m.Period.Contains(start) {
				continue
			}
			s := Standing{Used: r.SuggestionsUsed, Overage: r.OverageUsed, OverageCents: r.OverageCents, Included: r.SuggestionsIncluded + r.Granted}
			if m.BeforeSignUp || m.Used == 0 && m.OverageCents == 0 {
				m.Included = 0
			}
			m.Used, m.Overage, m.OverageCents, m.BeforeSignUp = m.Used+s.Used, m.Overage+s.Overage, m.OverageCents+s.OverageCents, false
			// A period that a new subscription cut short shares its month with the next one: the larger limit is the month's.
			m.Included = max(m.Included, s.Included)
			if !start.Before(newest[j]) {
				m.Plan, newest[j] = r.PlanID, start
			}
		}
	}
	return months
}

// The forecast is absent where a straight line would be a guess.
const (
	forecastDays   = 5
	forecastEvents = 10
)

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

// Days is the units of each UTC date of a billing period, and of the one before.
type Days struct {
	Period Period
	Used   []int64
	// Previous is empty when there was no period before; Known says that there was one, in which perhaps nothing was used.
	Previous []int64
	Known    bool
}

// DaysOf takes the days of the current period and of the one before from a person's records.
func DaysOf(current Standing, records []UsageRecord, signedUp time.Time) Days {
	d := Days{Period: current.Period, Known: signedUp.Before(current.Period.Start)}
	for i := range records {
		switch period := records[i].Period(); {
		case period.Start.Equal(current.Period.Start):
			d.Used = records[i].Daily.Units()
		case period.Contains(current.Period.Start.Add(-time.Microsecond)): // it is yet to be cut, if nothing was asked for since
			d.Previous, d.Known = records[i].Daily.Units(), true
		}
	}
	return d
}

// Compared sets the first days of a period against as many of the one before.
type Compared struct {
	// Days is how many days are compared, today included.
	Days int
	Used int64
	// Before is nil when there was no period before.
	Before *int64
}

// Compare sets the days up to now against as many of the period before.
func (d Days) Compare(now time.Time) Compared {
	c := Compared{Days: DayOf(d.Period.Start, now) + 1}
	sum := func(days []int64) (units int64) {
		for _, n := range days[:min(len(days), c.Days)] {
			units += n
		}
		return units
	}
	c.Used = sum(d.Used)
	if d.Known {
		before := sum(d.Previous)
		c.Before = &before
	}
	return c
}
