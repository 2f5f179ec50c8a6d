package models

import (
	"strconv"
	"strings"
	"time"
)

// Daily is units by UTC calendar day, starting with the day on which a billing period starts,
// separated by commas: "0,0,3" means three units on the third day. Trailing days without units are
// left out, so an empty string means no units. A period rarely has more than 33 days.
type Daily string

// periodDays is enough for the days of most periods; more days only cost an allocation.
const periodDays = 33

// Units returns the units of each day, up to the last day with any.
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

// Add returns d with quantity more units on a day (see DayOf). It avoids reflection, because every
// recorded use calls it.
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

// From returns d without its first days, for a period that starts that many days later. The removed
// days must have no units.
func (d Daily) From(day int) Daily {
	for ; day > 0 && d != ""; day-- {
		_, rest, _ := strings.Cut(string(d), ",")
		d = Daily(rest)
	}
	return d
}

// DayOf returns the number of UTC dates from the start of a period to t: 0 on the first date and
// before it.
func DayOf(start, t time.Time) int {
	return max(0, int(date(t).Sub(date(start))/(24*time.Hour)))
}

// date returns the midnight at the start of t's UTC date.
func date(t time.Time) time.Time {
	year, month, day := t.UTC().Date()
	return time.Date(year, month, day, 0, 0, 0, 0, time.UTC)
}

// Days is the units of each UTC date of a billing period and of the previous one.
type Days struct {
	Period Period
	Used   []int64
	// Previous is empty if there was no previous period. Known means that there was one, perhaps
	// without usage.
	Previous []int64
	Known    bool
	// before is the previous period, which can be shorter or longer than a month.
	before Period
}

// DaysOf returns the days of the current period and of the previous one from a person's records.
func DaysOf(current Standing, records []UsageRecord, signedUp time.Time) Days {
	d := Days{Period: current.Period, Known: signedUp.Before(current.Period.Start), before: current.Period.Previous()}
	for i := range records {
		switch period := records[i].Period(); {
		case period.Start.Equal(current.Period.Start):
			d.Used = records[i].Daily.Units()
		case period.Contains(current.Period.Start.Add(-time.Microsecond)): // it is yet to be cut, if nothing was asked for since
			d.Previous, d.Known = records[i].Daily.Units(), true
			d.before = Period{Start: period.Start, End: current.Period.Start}
		}
	}
	return d
}

// Comparison compares the first days of a period with the same number of days of the previous one.
type Comparison struct {
	// Days is the number of days compared, including today. Whole means that the previous period has
	// fewer days, so all of it is compared.
	Days  int
	Whole bool
	Used  int64
	// Before is nil if there was no previous period.
	Before *int64
}

// Compare compares the days up to now with the same number of days of the previous period.
func (d Days) Compare(now time.Time) Comparison {
	c := Comparison{Days: DayOf(d.Period.Start, now) + 1}
	c.Whole = c.Days > DayOf(d.before.Start, d.before.End.Add(-time.Microsecond))+1
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
