package models

import (
	"fmt"
	"regexp"
	"strconv"
	"time"
)

// KeepEvents is how long events are stored. The zero value means forever.
type KeepEvents struct{ years, months, days int }

// keepEvents matches a number with a unit.
var keepEvents = regexp.MustCompile(`^([1-9][0-9]{0,3})(d|mo|y)$`)

// The shortest time that events can be stored. It must be longer than MaxPeriodDays, and long enough
// that clients have sent what they recorded while Tollgate was unreachable.
const (
	leastDays   = 90
	leastMonths = 3
)

// LatestHorizon returns a time after which no event is deleted, whatever the settings are. It has a
// margin for clocks that differ.
func LatestHorizon(now time.Time) time.Time { return now.AddDate(0, 0, 10-leastDays) }

// ParseKeepEvents parses "forever", or a number of days, months or years: "90d", "18mo", "2y".
func ParseKeepEvents(text string) (KeepEvents, error) {
	if text == "forever" {
		return KeepEvents{}, nil
	}
	found := keepEvents.FindStringSubmatch(text)
	if found == nil {
		return KeepEvents{}, fmt.Errorf(`must be "forever" or a number of days, months or years, such as 540d, 18mo or 2y: %q`, text)
	}
	n, _ := strconv.Atoi(found[1]) // four digits
	k := KeepEvents{}
	switch found[2] {
	case "d":
		k.days = n
	case "mo":
		k.months = n
	case "y":
		k.years = n
	}
	if k.days > 0 && k.days < leastDays || k.months > 0 && k.months < leastMonths {
		return KeepEvents{}, fmt.Errorf("must be at least %dd or %dmo: %q", leastDays, leastMonths, text)
	}
	return k, nil
}

// UnmarshalText is ParseKeepEvents for flags.
func (k *KeepEvents) UnmarshalText(text []byte) (err error) {
	*k, err = ParseKeepEvents(string(text))
	return err
}

// String returns the text that ParseKeepEvents parses.
func (k KeepEvents) String() string {
	switch {
	case k.years > 0:
		return fmt.Sprintf("%dy", k.years)
	case k.months > 0:
		return fmt.Sprintf("%dmo", k.months)
	case k.days > 0:
		return fmt.Sprintf("%dd", k.days)
	}
	return "forever"
}

// Forever reports whether events are never deleted.
func (k KeepEvents) Forever() bool { return k == KeepEvents{} }

// Horizon returns the time before which events are no longer needed: the start of a UTC day.
func (k KeepEvents) Horizon(now time.Time) time.Time {
	return now.UTC().AddDate(-k.years, -k.months, -k.days).Truncate(24 * time.Hour)
}
