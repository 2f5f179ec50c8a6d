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

// Comparison sets the first days of a period against as many of the one before.
type Comparison struct {
	// Days is how many days are compared, today included.
	Days int
	Used int64
	// Before is nil when there was no period before.
	Before *int64
}

// Compare sets the days up to now against as many of the period before.
func (d Days) Compare(now time.Time) Comparison {
	c := Comparison{Days: DayOf(d.Period.Start, now) + 1}
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
