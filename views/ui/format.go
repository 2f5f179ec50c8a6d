package ui

import (
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/a-h/templ"

	"tollgate/models"
)

// Relative says how far an instant is from now: "in 8 days", "in 5 hours", "3 minutes ago". From a day on it counts
// dates, as people do: from any hour of the 23rd, the 1st is 8 days away.
func Relative(t, now time.Time) string {
	t, now = t.UTC(), now.UTC()
	apart := t.Sub(now)
	ahead := apart > 0
	if !ahead {
		apart = -apart
	}
	var words string
	switch {
	case apart < time.Minute:
		if ahead {
			return "in less than a minute"
		}
		return "just now"
	case apart < time.Hour:
		words = plural(int64(apart/time.Minute), "minute")
	case apart < 24*time.Hour:
		words = plural(int64(apart/time.Hour), "hour")
	default:
		days := int64(Midnight(t).Sub(Midnight(now)) / (24 * time.Hour))
		words = plural(max(days, -days), "day")
	}
	if ahead {
		return "in " + words
	}
	return words + " ago"
}

// Midnight is the start of the instant's day in UTC.
func Midnight(t time.Time) time.Time {
	y, m, d := t.UTC().Date()
	return time.Date(y, m, d, 0, 0, 0, 0, time.UTC)
}

func plural(n int64, word string) string {
	if n == 1 {
		return "1 " + word
	}
	return models.FormatCount(n) + " " + word + "s"
}

// Count names n things: "1 person", "42 people".
func Count(n int64, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return models.FormatCount(n) + " " + many
}

// Day is a date: "Nov 23, 2026".
func Day(t time.Time) string { return t.UTC().Format("Jan 2, 2006") }

// ShortDay is a date within a known year: "Nov 23".
func ShortDay(t time.Time) string { return t.UTC().Format("Jan 2") }

// Hundredths writes a number that is kept in hundredths: 4295 is "42.95".
func Hundredths(n int64) string {
	return fmt.Sprintf("%s.%02d", models.FormatCount(n/100), n%100)
}

// Span is a billing period in words, with its time zone. Its end is the first instant that is no more of it.
func Span(p models.Period) string {
	if midnight(p.Start) && midnight(p.End) {
		return Day(p.Start) + " to " + Day(p.End.Add(-time.Second)) + " (UTC)"
	}
	start, end := models.FormatReset(p.Start), models.FormatReset(p.End)
	if start == end { // two changes of a period within a minute
		const seconds = "Jan 2, 2006, 15:04:05 UTC"
		start, end = p.Start.UTC().Format(seconds), p.End.UTC().Format(seconds)
	}
	return start + " to " + end
}

// midnight says whether a day begins at t, in UTC.
func midnight(t time.Time) bool { return t.UTC().Truncate(24 * time.Hour).Equal(t) }

// LevelWord is the level as people read it.
func LevelWord(l models.WarningLevel) string {
	switch l {
	case models.Warning:
		return "Warning"
	case models.Critical:
		return "Critical"
	case models.Exceeded:
		return "Exceeded"
	case models.Safe:
	}
	return "Safe"
}

// LevelText is the class that gives text, and all that is drawn in the current colour, the level's colour. The names are
// whole so that the stylesheet's builder finds them.
func LevelText(l models.WarningLevel) string {
	switch l {
	case models.Warning:
		return "text-level-warning"
	case models.Critical:
		return "text-level-critical"
	case models.Exceeded:
		return "text-level-exceeded"
	case models.Safe:
	}
	return "text-level-safe"
}

// currentPage marks the link to the page that is open.
func currentPage(is bool) templ.Attributes {
	if !is {
		return nil
	}
	return templ.Attributes{"aria-current": "page"}
}

// Sentence ends a text with one period. A text that ends a sentence already, such as a company's name with a period, stays as it is.
func Sentence(text string) string {
	switch r, _ := utf8.DecodeLastRuneInString(text); r {
	case '.', '!', '?', '…':
		return text
	}
	return text + "."
}
