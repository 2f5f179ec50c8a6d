package models_test

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"tollgate/models"
)

func at(s string) time.Time {
	t, err := time.Parse("2006-01-02 15:04:05", s)
	if err != nil {
		panic(err)
	}
	return t.UTC()
}

func TestCalendarMonth(t *testing.T) {
	// 23:00 in New York is the next day in UTC, and here also the next month and year.
	newYork := time.FixedZone("UTC-5", -5*3600)
	for _, test := range []struct{ at, start, end time.Time }{
		{at("2026-11-23 12:00:00"), at("2026-11-01 00:00:00"), at("2026-12-01 00:00:00")},
		{at("2026-11-01 00:00:00"), at("2026-11-01 00:00:00"), at("2026-12-01 00:00:00")},
		{at("2026-11-30 23:59:59"), at("2026-11-01 00:00:00"), at("2026-12-01 00:00:00")},
		{at("2028-02-29 10:00:00"), at("2028-02-01 00:00:00"), at("2028-03-01 00:00:00")},
		{time.Date(2026, 12, 31, 23, 0, 0, 0, newYork), at("2027-01-01 00:00:00"), at("2027-02-01 00:00:00")},
	} {
		if got, want := models.CalendarMonth(test.at), (models.Period{Start: test.start, End: test.end}); got != want {
			t.Errorf("%v is in %v, want %v", test.at, got, want)
		}
	}
}

// These are the starts of Stripe's periods for an anchor. A month that lacks the anchor's day
// starts on its last day, and the following month on the anchor's day again.
// Source: https://docs.stripe.com/billing/subscriptions/billing-cycle
func TestAnchoredMonth(t *testing.T) {
	for anchor, starts := range map[string][]string{
		"2026-01-28 09:30:00": {"2026-01-28 09:30:00", "2026-02-28 09:30:00", "2026-03-28 09:30:00", "2026-04-28 09:30:00"},
		"2026-01-29 09:30:00": {"2026-01-29 09:30:00", "2026-02-28 09:30:00", "2026-03-29 09:30:00", "2026-04-29 09:30:00"},
		"2026-01-30 09:30:00": {"2026-01-30 09:30:00", "2026-02-28 09:30:00", "2026-03-30 09:30:00", "2026-04-30 09:30:00",
			"2026-05-30 09:30:00"},
		"2026-01-31 09:30:00": {
			"2026-01-31 09:30:00", "2026-02-28 09:30:00", "2026-03-31 09:30:00", "2026-04-30 09:30:00", "2026-05-31 09:30:00", "2026-06-30 09:30:00",
			"2026-07-31 09:30:00", "2026-08-31 09:30:00", "2026-09-30 09:30:00", "2026-10-31 09:30:00", "2026-11-30 09:30:00",
			"2026-12-31 09:30:00", "2027-01-31 09:30:00",
		},
		"2027-12-29 23:59:59": {"2027-12-29 23:59:59", "2028-01-29 23:59:59", "2028-02-29 23:59:59", "2028-03-29 23:59:59"},
		"2027-12-30 00:00:00": {"2027-12-30 00:00:00", "2028-01-30 00:00:00", "2028-02-29 00:00:00", "2028-03-30 00:00:00"},
		"2027-12-31 00:00:00": {"2027-12-31 00:00:00", "2028-01-31 00:00:00", "2028-02-29 00:00:00", "2028-03-31 00:00:00"},
		"2028-02-29 12:00:00": {"2028-02-29 12:00:00", "2028-03-29 12:00:00", "2028-04-29 12:00:00"},
		// 2100 is not a leap year.
		"2099-12-31 12:00:00": {"2099-12-31 12:00:00", "2100-01-31 12:00:00", "2100-02-28 12:00:00", "2100-03-31 12:00:00"},
		// The periods of a yearly subscription are monthly steps from an anchor years ago, or from its
		// next renewal.
		"2024-02-29 12:00:00": {"2027-01-29 12:00:00", "2027-02-28 12:00:00", "2027-03-29 12:00:00", "2027-04-29 12:00:00"},
		"2023-10-31 06:00:00": {"2028-01-31 06:00:00", "2028-02-29 06:00:00", "2028-03-31 06:00:00", "2028-04-30 06:00:00"},
		"2030-05-31 06:00:00": {"2026-10-31 06:00:00", "2026-11-30 06:00:00", "2026-12-31 06:00:00", "2027-01-31 06:00:00"},
	} {
		for i := range len(starts) - 1 {
			want := models.Period{Start: at(starts[i]), End: at(starts[i+1])}
			middle := want.Start.Add(want.End.Sub(want.Start) / 2)
			for _, instant := range []time.Time{want.Start, want.Start.Add(time.Nanosecond), middle, want.End.Add(-time.Nanosecond)} {
				if got := models.AnchoredMonth(at(anchor), instant); got != want {
					t.Errorf("anchor %s: %v is in %v to %v, want %v to %v", anchor, instant, got.Start, got.End, want.Start, want.End)
				}
			}
		}
	}
}

// instants are from 1990 to 2110, to the nanosecond, in any zone.
func instants() *rapid.Generator[time.Time] {
	return rapid.Custom(func(t *rapid.T) time.Time {
		seconds := rapid.Int64Range(631152000, 4417977600).Draw(t, "seconds")
		zone := time.FixedZone("", rapid.IntRange(-14*3600, 14*3600).Draw(t, "zone"))
		return time.Unix(seconds, rapid.Int64Range(0, 999_999_999).Draw(t, "nanoseconds")).In(zone)
	})
}

// anchors are mostly on days that not all months have, in any zone.
func anchors() *rapid.Generator[time.Time] {
	return rapid.Custom(func(t *rapid.T) time.Time {
		a := instants().Draw(t, "anchor")
		if rapid.Bool().Draw(t, "late") {
			year, month, day := a.Year(), time.Month(rapid.SampledFrom([]int{1, 3, 5, 7, 8, 10, 12}).Draw(t, "month")), rapid.IntRange(28, 31).
				Draw(t, "day")
			a = time.Date(year, month, day, a.Hour(), a.Minute(), a.Second(), a.Nanosecond(), time.UTC).In(a.Location())
		}
		return a
	})
}

// Periods tile time: each time is in exactly one period, and each period ends where the next one
// starts.
func TestPeriodsTileTime(t *testing.T) {
	tile := func(t *rapid.T, period func(time.Time) models.Period) {
		instant := instants().Draw(t, "instant")
		p := period(instant)
		if !p.Contains(instant) || !p.Start.Before(p.End) {
			t.Fatalf("%v is not in its period %v", instant, p)
		}
		if length := p.End.Sub(p.Start); length < 28*24*time.Hour || length > 31*24*time.Hour {
			t.Fatalf("%v lasts %v", p, length)
		}
		if p.Start.Location() != time.UTC || p.End.Location() != time.UTC {
			t.Fatalf("%v is not in UTC", p)
		}
		inside := p.Start.Add(time.Duration(rapid.Int64Range(0, int64(p.End.Sub(p.Start))-1).Draw(t, "inside")))
		for _, same := range []time.Time{p.Start, inside, p.End.Add(-1)} {
			if got := period(same); got != p {
				t.Fatalf("%v is in %v and %v in %v", instant, p, same, got)
			}
		}
		if next := period(p.End); !next.Start.Equal(p.End) {
			t.Fatalf("%v is followed by %v", p, next)
		}
		if previous := period(p.Start.Add(-1)); !previous.End.Equal(p.Start) {
			t.Fatalf("%v comes after %v", p, previous)
		}
	}
	t.Run("calendar", rapid.MakeCheck(func(t *rapid.T) { tile(t, models.CalendarMonth) }))
	t.Run("anchored", rapid.MakeCheck(func(t *rapid.T) {
		anchor := anchors().Draw(t, "anchor")
		tile(t, func(at time.Time) models.Period { return models.AnchoredMonth(anchor, at) })
		if at := instants().Draw(t, "instant"); models.AnchoredMonth(anchor, at) != models.AnchoredMonth(anchor.UTC(), at) {
			t.Fatalf("the zone of the anchor %v changes the period of %v", anchor, at)
		}
	}))
}

// Stripe's rule: a period starts on the anchor's day and time of day, or on the last day of a month
// without that day.
func TestAnchoredMonthFollowsStripesRule(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		anchor := anchors().Draw(t, "anchor").UTC()
		start := models.AnchoredMonth(anchor, instants().Draw(t, "instant")).Start
		if start.Sub(start.Truncate(24*time.Hour)) != anchor.Sub(anchor.Truncate(24*time.Hour)) {
			t.Fatalf("anchor %v gives the start %v, at another time of day", anchor, start)
		}
		lastOfMonth := start.AddDate(0, 0, 1).Day() == 1
		if start.Day() != anchor.Day() && (start.Day() > anchor.Day() || !lastOfMonth) {
			t.Fatalf("anchor %v gives the start %v", anchor, start)
		}
	})
}

func TestPeriodContains(t *testing.T) {
	p := models.Period{Start: at("2026-11-01 00:00:00"), End: at("2026-12-01 00:00:00")}
	for instant, want := range map[time.Time]bool{
		p.Start: true, p.End.Add(-1): true, p.Start.Add(-1): false, p.End: false, noon: true,
	} {
		if got := p.Contains(instant); got != want {
			t.Errorf("%v: %v", instant, got)
		}
	}
}

func TestMaxPeriodInterval(t *testing.T) {
	if want := fmt.Sprintf("interval '%d days'", models.MaxPeriodDays); models.MaxPeriodInterval != want {
		t.Errorf("it is %q, want %q", models.MaxPeriodInterval, want)
	}
}
