package ui_test

import (
	"testing"
	"time"

	"tollgate/models"
	"tollgate/views/ui"
)

func TestRelative(t *testing.T) {
	now := time.Date(2026, 11, 23, 14, 5, 0, 0, time.UTC)
	for _, test := range []struct {
		t    time.Time
		want string
	}{
		{time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC), "in 8 days"},
		{time.Date(2026, 11, 24, 14, 5, 0, 0, time.UTC), "in 1 day"},
		{time.Date(2026, 11, 24, 14, 4, 0, 0, time.UTC), "in 23 hours"},
		{time.Date(2026, 11, 23, 15, 5, 0, 0, time.UTC), "in 1 hour"},
		{time.Date(2026, 11, 23, 14, 10, 0, 0, time.UTC), "in 5 minutes"},
		{time.Date(2026, 11, 23, 14, 5, 30, 0, time.UTC), "in less than a minute"},
		{now, "just now"},
		{time.Date(2026, 11, 23, 14, 2, 0, 0, time.UTC), "3 minutes ago"},
		{time.Date(2026, 11, 20, 23, 0, 0, 0, time.UTC), "3 days ago"},
		{time.Date(2026, 12, 1, 1, 0, 0, 0, time.FixedZone("", 3600)), "in 8 days"},
	} {
		if got := ui.Relative(test.t, now); got != test.want {
			t.Errorf("Relative(%s) = %q, want %q", test.t, got, test.want)
		}
	}
}

func TestHundredths(t *testing.T) {
	for n, want := range map[int64]string{4295: "42.95", 0: "0.00", 5: "0.05", 123456: "1,234.56"} {
		if got := ui.Hundredths(n); got != want {
			t.Errorf("Hundredths(%d) = %q, want %q", n, got, want)
		}
	}
}

func TestSpan(t *testing.T) {
	at := func(day, hour, minute int) time.Time { return time.Date(2026, 11, day, hour, minute, 0, 0, time.UTC) }
	for _, test := range []struct {
		start, end time.Time
		want       string
	}{
		{at(1, 0, 0), at(31, 0, 0), "Nov 1, 2026 to Nov 30, 2026 (UTC)"},
		{at(1, 0, 15), at(30, 0, 15), "Nov 1, 2026, 00:15 UTC to Nov 30, 2026, 00:15 UTC"},
		{at(1, 15, 20), at(30, 15, 20), "Nov 1, 2026, 15:20 UTC to Nov 30, 2026, 15:20 UTC"},
		{at(1, 15, 20).Add(5 * time.Second), at(1, 15, 20).Add(40 * time.Second), "Nov 1, 2026, 15:20:05 UTC to Nov 1, 2026, 15:20:40 UTC"},
	} {
		if got := ui.Span(models.Period{Start: test.start, End: test.end}); got != test.want {
			t.Errorf("Span from %s to %s = %q, want %q", test.start, test.end, got, test.want)
		}
	}
}

func TestSentence(t *testing.T) {
	for text, want := range map[string]string{
		"Acme": "Acme.", "Example Inc.": "Example Inc.", "Yahoo!": "Yahoo!", "Who?": "Who?", "And so on…": "And so on…", "": ".",
	} {
		if got := ui.Sentence(text); got != want {
			t.Errorf("Sentence(%q) = %q, want %q", text, got, want)
		}
	}
}
