package models

import (
	"errors"
	"time"
)

// Periods are in these years, in which every database can calculate.
const firstYear, lastYear = 1970, 9000

// ErrPeriod means that a text is not a billing period.
var ErrPeriod = errors.New("must be a month such as 2026-10, or the first day of a billing period such as 2026-10-13")

// PeriodQuery selects the billing periods of a person that began in [Start, End).
type PeriodQuery struct {
	Start, End time.Time
	// Whole is shown if no period was found.
	Whole Period
}

// PeriodQueryOf selects one billing period.
func PeriodQueryOf(p Period) PeriodQuery {
	return PeriodQuery{p.Start, p.Start.Add(time.Microsecond), p}
}

// ParsePeriod parses a month ("2026-10") or the first day of a monthly period ("2026-10-13"). It
// selects the billing periods that began in this month, or in the month from this day on. It returns
// ErrPeriod.
func ParsePeriod(text string) (PeriodQuery, error) {
	for _, layout := range []string{"2006-01", time.DateOnly} {
		if start, err := time.Parse(layout, text); err == nil && start.Year() >= firstYear && start.Year() <= lastYear {
			return newPeriodQuery(AnchoredMonth(start, start)), nil
		}
	}
	return PeriodQuery{}, ErrPeriod
}

func newPeriodQuery(p Period) PeriodQuery { return PeriodQuery{p.Start, p.End, p} }

// FormatPeriod returns the text that ParsePeriod parses to this period.
func FormatPeriod(p Period) string {
	if start := p.Start.UTC(); start.Day() != 1 {
		return start.Format(time.DateOnly)
	}
	return p.Start.UTC().Format("2006-01")
}

// IsCurrent reports whether the query selects the current billing period, or an instant in it.
func (q PeriodQuery) IsCurrent(current Period, now time.Time) bool {
	return q.contains(current.Start) || q.contains(now)
}

// In returns the selected one of the monthly periods before the current one.
func (q PeriodQuery) In(current Period) Period {
	return AnchoredMonth(current.Start, q.End.Add(-time.Microsecond))
}

func (q PeriodQuery) contains(t time.Time) bool { return Period{q.Start, q.End}.Contains(t) }
