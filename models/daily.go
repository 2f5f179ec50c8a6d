package models

import (
	"strconv"
	"strings"
	"time"
)

// Daily is units by UTC calendar day, from the day on which a billing period starts, separated by commas: "0,0,3" is three
// units on the third day. Trailing days without units are left out, so that "" is none at all. A period rarely touches more than 33 days.
type Daily string

// periodDays is room for the days of most periods; more only cost an allocation.
const periodDays = 33

// Units are the units of each day up to the last one that has any.
func (d Daily) Units() []int64 { return d.appendTo(nil) }

func (d Daily) appendTo(days []int64) []int64 {
	if d == "" {
		return days
	}
	var units int64
	for i := range len(d) {
		if c := d[i]; c == ',' {
			days = append(days, units)
			units = 0
		} else if c >= '0' && c <= '9' {
			units = units*10 + int64(c-'0')
		}
	}
	return append(days, units)
}

// Add is d with quantity more units on a day, which DayOf gives. It is written without reflection, as every grant goes through it.
func (d Daily) Add(day int, quantity int64) Daily {
	var room [periodDays]int64
	days := d.appendTo(room[:0])
	for len(days) <= day {
		days = append(days, 0)
	}
	days[day] += quantity
	for len(days) > 0 && days[len(days)-1] == 0 {
		days = days[:len(days)-1]
	}
	var written [8 * periodDays]byte
	text := written[:0]
	for i, units := range days {
		if i > 0 {
			text = append(text, ',')
		}
		text = strconv.AppendInt(text, units, 10)
	}
	return Daily(text)
}

// From is d from a day on, for a period that starts that much later; what is before it must be without units.
func (d Daily) From(day int) Daily {
	for ; day > 0 && d != ""; day-- {
		_, rest, _ := strings.Cut(string(d), ",")
		d = Daily(rest)
	}
	return d
}

// DayOf is how many UTC dates t is after the one that a period starts on: 0 on that date, and before it too.
func DayOf(start, t time.Time) int {
	return max(0, int(date(t).Sub(date(start))/(24*time.Hour)))
}

// date is the midnight at which t's UTC date begins.
func date(t time.Time) time.Time {
	year, month, day := t.UTC().Date()
	return time.Date(year, month, day, 0, 0, 0, 0, time.UTC)
}
