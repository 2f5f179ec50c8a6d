package demo

import (
	"math/rand/v2"
	"slices"
	"time"

	"tollgate/models"
)

// monthsBehind is how many whole months lie before the current one.
const monthsBehind = 6

// grant is one use of the app by one of the cast.
type grant struct {
	at       time.Time
	quantity int64
}

// closed is the week, in days before today, in which nearly nobody works.
const closedFrom, closedTo = 75, 68

// hours of a working day in UTC, each as often as it is worked in.
var hours = []int{7, 8, 8, 8, 9, 9, 9, 9, 10, 10, 10, 11, 11, 12, 13, 13, 13, 14, 14, 14, 15, 15, 15, 16, 16, 17, 18}

// uses makes up when somebody used the app from start to now, and for how many units at once; included is a month's.
// The chance comes from rng alone, so that one seed makes one history.
func (p *person) uses(rng *rand.Rand, included int64, start, now time.Time) []grant {
	today := now.Truncate(24 * time.Hour)
	month := max(1, min(included, 150)) // a plan of a million does not need a million rows
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

// pace is how a day compares with an ordinary working day; at 0 nothing happens at all.
func (p *person) pace(day time.Time, ago int, onHoliday bool) float64 {
	switch {
	case p.habit == idle, p.habit == newcomer && ago > 21, p.habit == leaver && ago < 70, onHoliday:
		return 0
	case isHoliday(day), ago <= closedFrom && ago > closedTo:
		return 0.04
	case day.Weekday() == time.Saturday, day.Weekday() == time.Sunday:
		return 0.12
	}
	// The app is new to all of them half a year ago.
	return 1.08 - 0.0018*float64(ago)
}

// isHoliday names the days off that most offices share.
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

// historyStart is the beginning of the month six months before now's.
func historyStart(now time.Time) time.Time {
	return models.CalendarMonth(now).Start.AddDate(0, -monthsBehind, 0)
}
