package ui

import (
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/a-h/templ"

	"tollgate/models"
)

// Relative returns the distance of a time from now: "in 8 days", "in 5 hours", "3 minutes ago".
// From one day on it counts dates: from any hour of Nov 23, Dec 1 is in 8 days.
func Relative(t, now time.Time) string {
	t, now = t.UTC(), now.UTC()
	distance := t.Sub(now)
	ahead := distance > 0
	if !ahead {
		distance = -distance
	}
	var words string
	switch {
	case distance < time.Minute:
		if ahead {
			return "in less than a minute"
		}
		return "just now"
	case distance < time.Hour:
		words = plural(int64(distance/time.Minute), "minute")
	case distance < 24*time.Hour:
		words = plural(int64(distance/time.Hour), "hour")
	default:
		days := int64(Midnight(t).Sub(Midnight(now)) / (24 * time.Hour))
		words = plural(max(days, -days), "day")
	}
	if ahead {
		return "in " + words
	}
	return words + " ago"
}

// Midnight returns the start of t's day in UTC.
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

// Count returns a number with its noun: "1 person", "42 people".
func Count(n int64, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return models.FormatCount(n) + " " + many
}

// Day formats a date: "Nov 23, 2026".
func Day(t time.Time) string { return t.UTC().Format("Jan 2, 2006") }

// Hundredths formats a number of hundredths: 4295 is "42.95".
func Hundredths(n int64) string {
	return fmt.Sprintf("%s.%02d", models.FormatCount(n/100), n%100)
}

// Span formats a billing period with its time zone. For a period of whole days, the second date is
// its last day; otherwise it is the period's end, which is not part of the period.
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

// midnight reports whether t is the start of a day in UTC.
func midnight(t time.Time) bool { return t.UTC().Truncate(24 * time.Hour).Equal(t) }

// LevelWord returns the name of the level as shown on pages.
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

// LevelText returns the class that gives text, and shapes in the current color, the level's color.
// The class names are complete so that the stylesheet builder finds them.
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

// currentPage returns the attributes that mark a link to the current page.
func currentPage(is bool) templ.Attributes {
	if !is {
		return nil
	}
	return templ.Attributes{"aria-current": "page"}
}

// Sentence returns the text with a period at the end, unless the text already ends a sentence, such
// as a company name with a period.
func Sentence(text string) string {
	switch r, _ := utf8.DecodeLastRuneInString(text); r {
	case '.', '!', '?', '…':
		return text
	}
	return text + "."
}
