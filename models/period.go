package models

import "time"

// Period is a billing period: half-open, [Start, End), in UTC.
type Period struct {
	Start time.Time
	End   time.Time
}

// MaxPeriodDays is the maximum length of a period in days. A calendar month and a monthly step have
// at most 31 days; a period at Stripe is longer if its billing date was moved. With this bound,
// queries read a few records of a person instead of all.
const MaxPeriodDays = 62

// MaxPeriodInterval is the same length in PostgreSQL.
const MaxPeriodInterval = "interval '62 days'"

const maxPeriod = MaxPeriodDays * 24 * time.Hour

// Previous returns the monthly period before this one.
func (p Period) Previous() Period {
	return Period{Start: AnchoredMonth(p.Start, p.Start.Add(-time.Microsecond)).Start, End: p.Start}
}

// Contains reports whether t is in the period.
func (p Period) Contains(t time.Time) bool { return !t.Before(p.Start) && t.Before(p.End) }

// CalendarMonth returns the month in UTC that contains t.
func CalendarMonth(t time.Time) Period {
	t = t.UTC()
	start := time.Date(t.Year(), t.Month(), 1, 0, 0, 0, 0, time.UTC)
	return Period{Start: start, End: start.AddDate(0, 1, 0)}
}

// AnchoredMonth returns the period that contains t, of the periods that begin at anchor and whole
// months before and after it. In a month without the anchor's day, a period begins on the last day,
// and the next one again on the anchor's day. Stripe's billing cycle anchor works in the same way.
func AnchoredMonth(anchor, t time.Time) Period {
	anchor, t = anchor.UTC(), t.UTC()
	n := (t.Year()-anchor.Year())*12 + int(t.Month()) - int(anchor.Month())
	if monthsAfter(anchor, n).After(t) {
		n--
	}
	return Period{Start: monthsAfter(anchor, n), End: monthsAfter(anchor, n+1)}
}

// monthsAfter returns the anchor moved by n months, on the same day of the month, or the last day
// if the month is shorter.
func monthsAfter(anchor time.Time, n int) time.Time {
	first := time.Date(anchor.Year(), anchor.Month()+time.Month(n), 1, 0, 0, 0, 0, time.UTC)
	last := first.AddDate(0, 1, -1).Day()
	h, m, s := anchor.Clock()
	return time.Date(first.Year(), first.Month(), min(anchor.Day(), last), h, m, s, anchor.Nanosecond(), time.UTC)
}

// clip cuts the period at its two neighbors, so that the periods of a person never overlap. A zero
// time means that there is no neighbor.
func (p Period) clip(previousEnd, nextStart time.Time) Period {
	if p.Start.Before(previousEnd) {
		p.Start = previousEnd
	}
	if !nextStart.IsZero() && nextStart.Before(p.End) {
		p.End = nextStart
	}
	return p
}
