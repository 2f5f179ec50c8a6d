package models

import "time"

// Period is a billing period: half-open, [Start, End), in UTC.
type Period struct {
	Start time.Time
	End   time.Time
}

// MaxPeriodDays bounds a period's length in days. A calendar month and a monthly step have at most 31; a period of Stripe's is longer
// when its billing date was moved. The queries use the bound to look at a few records of a person and not at all of them.
const MaxPeriodDays = 62

const maxPeriod = MaxPeriodDays * 24 * time.Hour

// Previous is the monthly period before this one.
func (p Period) Previous() Period {
	return Period{Start: AnchoredMonth(p.Start, p.Start.Add(-time.Microsecond)).Start, End: p.Start}
}

// Contains says whether t is in the period.
func (p Period) Contains(t time.Time) bool { return !t.Before(p.Start) && t.Before(p.End) }

// CalendarMonth is the month in UTC that contains t.
func CalendarMonth(t time.Time) Period {
	t = t.UTC()
	start := time.Date(t.Year(), t.Month(), 1, 0, 0, 0, 0, time.UTC)
	return Period{Start: start, End: start.AddDate(0, 1, 0)}
}

// AnchoredMonth is the period that contains t among those that begin at anchor and one, two, … months after or before
// it. In a month without the anchor's day a period begins on that month's last day, and the next one on the
// anchor's day again, as Stripe does with its billing cycle anchor.
func AnchoredMonth(anchor, t time.Time) Period {
	anchor, t = anchor.UTC(), t.UTC()
	n := (t.Year()-anchor.Year())*12 + int(t.Month()) - int(anchor.Month())
	if monthsAfter(anchor, n).After(t) {
		n--
	}
	return Period{Start: monthsAfter(anchor, n), End: monthsAfter(anchor, n+1)}
}

// monthsAfter moves anchor by n months and keeps its day where the month has it, else takes the month's last day.
func monthsAfter(anchor time.Time, n int) time.Time {
	first := time.Date(anchor.Year(), anchor.Month()+time.Month(n), 1, 0, 0, 0, 0, time.UTC)
	last := first.AddDate(0, 1, -1).Day()
	h, m, s := anchor.Clock()
	return time.Date(first.Year(), first.Month(), min(anchor.Day(), last), h, m, s, anchor.Nanosecond(), time.UTC)
}

// clip cuts the period to what lies between two neighbours, so that the periods of one person never overlap.
// A zero time is no neighbour.
func (p Period) clip(previousEnd, nextStart time.Time) Period {
	if p.Start.Before(previousEnd) {
		p.Start = previousEnd
	}
	if !nextStart.IsZero() && nextStart.Before(p.End) {
		p.End = nextStart
	}
	return p
}
