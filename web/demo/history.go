package demo

import (
	"math/rand/v2"
	"slices"
	"time"

	"tollgate/models"
)

// monthsBehind is the number of whole months before the current one.
const monthsBehind = 6

// grant is one use of the app by one person.
type grant struct {
	at       time.Time
	quantity int64
}

// closedFrom and closedTo are the bounds, in days before today, of a week in which hardly anyone
// works.
const closedFrom, closedTo = 75, 68

// hours has the hours of a working day in UTC. An hour with more usage is in the list more often.
var hours = []int{7, 8, 8, 8, 9, 9, 9, 9, 10, 10, 10, 11, 11, 12, 13, 13, 13, 14, 14, 14, 15, 15, 15, 16, 16, 17, 18}

// uses makes up when a person used the app from start to now, and for how many units each time.
// included is the number of units in a month. Only rng is random, so the same seed makes the same
// history.
func (p *person) uses(rng *rand.Rand, included int64, start, now time.Time) []grant {
	today := now.Truncate(24 * time.Hour)
	month := max(1, min(included, 150)) // a plan with a million units does not need a million rows
	if included == 0 {
		month = 20
	}
	const workdays = 21
	rate := p.appetite * float64(month) / workdays
	holiday := rng.IntN(160) + 5 // days before today
	length := rng.IntN(6) + 6
	var grants []grant
	for day := start; !day.After(today); day = day.AddDate(0, 0, 1) {
		ago := int(today.Sub(day).Hours() / 24)
		mood, luck := 0.55+0.9*rng.Float64(), rng.Float64()
		pace := p.pace(day, ago, ago <= holiday && ago > holiday-length)
		if pace == 0 {
			continue
		}
		units := int64(rate*mood*pace + luck)
		var ofDay []grant
		for units > 0 {
			q := min(units, []int64{1, 1, 1, 1, 1, 2, 2, 3}[rng.IntN(8)])
			units -= q
			at := day.Add(time.Duration(hours[rng.IntN(len(hours))])*time.Hour + time.Duration(rng.IntN(3_600_000_000))*time.Microsecond)
			if at.Before(now) {
				ofDay = append(ofDay, grant{at, q})
			}
		}
		slices.SortFunc(ofDay, func(a, b grant) int { return a.at.Compare(b.at) })
		grants = append(grants, ofDay...)
	}
	return grants
}

// pace returns the usage of a day relative to an ordinary working day. With 0, there is none.
func (p *person) pace(day time.Time, ago int, onHoliday bool) float64 {
	switch {
	case p.habit == idle, p.habit == newcomer && ago > 21, p.habit == leaver && ago < 70, onHoliday:
		return 0
	case isHoliday(day), ago <= closedFrom && ago > closedTo:
		return 0.04
	case day.Weekday() == time.Saturday, day.Weekday() == time.Sunday:
		return 0.12
	}
	// Six months ago, the app is new to everyone, so usage grows.
	return 1.08 - 0.0018*float64(ago)
}

// isHoliday reports whether most offices are closed on the day.
func isHoliday(day time.Time) bool {
	switch day.Month() {
	case time.January:
		return day.Day() == 1
	case time.May:
		return day.Day() == 1
	case time.December:
		return day.Day() >= 24
	}
	return false
}

// historyStart returns the start of the month six months before the current one.
func historyStart(now time.Time) time.Time {
	return models.CalendarMonth(now).Start.AddDate(0, -monthsBehind, 0)
}
