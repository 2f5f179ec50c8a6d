package models_test

import (
	"testing"
	"time"

	"tollgate/models"
)

func TestForecastOverage(t *testing.T) {
	for _, test := range []struct {
		name     string
		standing models.Standing
		units    int64
		want     models.Overage
	}{
		{"within the plan", models.Standing{Used: 30, Included: 75, OverageRateCents: 30}, 60, models.Overage{}},
		{"beyond it", models.Standing{Used: 30, Included: 75, OverageRateCents: 30}, 100, models.Overage{Units: 25, Cents: 750}},
		{
			"overage so far, at an older rate", models.Standing{Used: 80, Overage: 5, OverageCents: 100, Included: 75, OverageRateCents: 30}, 100,
			models.Overage{Units: 25, Cents: 700},
		},
		{
			"included units that became free", models.Standing{Used: 70, Overage: 5, OverageCents: 150, Included: 75, OverageRateCents: 30}, 100,
			models.Overage{Units: 25, Cents: 750},
		},
		{
			"units without overage stay unbilled", models.Standing{Used: 100, Overage: 5, OverageCents: 150, Included: 75, OverageRateCents: 30},
			150, models.Overage{Units: 55, Cents: 1650},
		},
	} {
		if got := test.standing.ForecastOverage(test.units); got != test.want {
			t.Errorf("%s: %+v, want %+v", test.name, got, test.want)
		}
	}
}

func TestRunsOut(t *testing.T) {
	november := models.Period{
		Start: time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC), End: time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC),
	}
	day := func(n int) time.Time { return november.Start.AddDate(0, 0, n) }
	for _, test := range []struct {
		name     string
		standing models.Standing
		now      time.Time
		want     string
	}{
		{"two thirds in half of the time", models.Standing{Used: 50, Included: 75}, day(15), "2026-11-23T12:00:00Z"},
		{"the last unit", models.Standing{Used: 74, Included: 75}, day(15), "2026-11-16T04:51:53Z"},
		{"exactly at the reset", models.Standing{Used: 50, Included: 100}, day(15), ""},
		{"one unit before the reset", models.Standing{Used: 50, Included: 99}, day(15), "2026-11-30T16:48:00Z"},
		{"used up", models.Standing{Used: 75, Included: 75}, day(15), ""},
		{"on hold", models.Standing{Used: 50, Held: 5, Included: 75}, day(15), "2026-11-23T12:00:00Z"},
		{"all on hold", models.Standing{Used: 50, Held: 25, Included: 75}, day(15), ""},
		{"after an upgrade", models.Standing{Used: 50, Overage: 10, Included: 75}, day(15), "2026-11-26T12:00:00Z"},
		{"a lower member limit", models.Standing{Used: 50, Included: 75, MemberLimit: new(int64(60))}, day(15), "2026-11-19T00:00:00Z"},
		{"a reached member limit", models.Standing{Used: 50, Included: 75, MemberLimit: new(int64(50))}, day(15), ""},
		{"too early", models.Standing{Used: 50, Included: 75}, day(5).Add(-time.Second), ""},
		{"too few units", models.Standing{Used: 9, Included: 10}, day(15), ""},
		{"after the period", models.Standing{Used: 50, Included: 75}, day(30).Add(time.Second), ""},
	} {
		test.standing.Period = november
		at, ok := test.standing.RunsOut(test.now)
		got := ""
		if ok {
			got = at.Truncate(time.Second).Format(time.RFC3339)
		}
		if got != test.want {
			t.Errorf("%s: %q, want %q", test.name, got, test.want)
		}
	}
}
