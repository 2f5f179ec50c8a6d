package models_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"tollgate/models"
)

func TestDaily(t *testing.T) {
	for _, test := range []struct {
		from     models.Daily
		day      int
		quantity int64
		want     models.Daily
	}{
		{"", 0, 1, "1"}, {"", 2, 3, "0,0,3"}, {"0,0,3", 0, 5, "5,0,3"}, {"1", 32, 2, "1" + models.Daily("").Add(32, 2)[1:]},
		{"7", 1, 0, "7"}, {"", 4, 0, ""}, {"1,2", 1, 9000000000, "1,9000000002"},
	} {
		if got := test.from.Add(test.day, test.quantity); got != test.want {
			t.Errorf("%q and %d on day %d are %q, want %q", test.from, test.quantity, test.day, got, test.want)
		}
	}
	if got := models.Daily("").Units(); len(got) != 0 {
		t.Errorf("an empty list has the days %d", got)
	}
}

func TestDayOf(t *testing.T) {
	at := func(text string) time.Time {
		at, err := time.Parse(time.RFC3339Nano, text)
		if err != nil {
			t.Fatal(err)
		}
		return at
	}
	start := at("2026-11-15T18:30:00Z")
	for text, want := range map[string]int{
		"2026-11-15T18:30:00Z": 0, "2026-11-15T23:59:59.999999Z": 0, "2026-11-16T00:00:00Z": 1, "2026-11-16T18:30:00Z": 1,
		"2026-12-15T18:29:59Z":      30,
		"2026-11-17T01:00:00+02:00": 1, "2026-11-15T23:00:00-02:00": 1, "2026-11-14T12:00:00Z": 0, "2026-12-17T18:30:00Z": 32,
	} {
		if got := models.DayOf(start, at(text)); got != want {
			t.Errorf("%s is day %d, want %d", text, got, want)
		}
	}
}

// Adding in any order gives the same as a plain list of numbers.
func TestDailyEqualsAList(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var d models.Daily
		var want []int64
		for range rapid.IntRange(0, 40).Draw(t, "adds") {
			day, quantity := rapid.IntRange(0, 32).Draw(t, "day"), rapid.Int64Range(1, 1e12).Draw(t, "quantity")
			d = d.Add(day, quantity)
			for len(want) <= day {
				want = append(want, 0)
			}
			want[day] += quantity
		}
		if got := d.Units(); !slices.Equal(got, want) {
			t.Fatalf("%q is %d, want %d", d, got, want)
		}
	})
}

// The migration that adds the column for days counts them from the events.
func TestMigrationCountsDays(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		f.ledger(t)
		f.exec(t, "DELETE FROM usage_events WHERE voided_at IS NOT NULL") // no events were voided before that migration
		f.exec(t, "DELETE FROM usage_voids")
		// A period that starts within a day, with events at its first and last moments, and at the last
		// moments of two days.
		start := time.Date(2026, 8, 15, 18, 30, 0, 0, time.UTC)
		r := &models.UsageRecord{
			UserID: f.user(t, "eve@example.com"), Email: "eve@example.com", BillingPeriodStart: start,
			BillingPeriodEnd: start.AddDate(0, 1, 0), PlanID: "free",
			SuggestionsIncluded: 5, SuggestionsUsed: 1111111, Daily: "110001,1000", CreatedAt: start,
		}
		quantity, last := int64(1), time.Date(2026, 8, 15, 23, 59, 59, 999999000, time.UTC)
		for i, at := range []time.Time{start, last.AddDate(0, 0, 10), start.AddDate(0, 1, 0).Add(-time.Microsecond), last.AddDate(0, 0, 1),
			last, start.Add(time.Hour), last.Add(time.Microsecond)} {
			e := models.UsageEvent{
				ID: id(100 + i), UserID: r.UserID, RecordID: 4, Email: r.Email, Quantity: quantity, IdempotencyKey: ptr(fmt.Sprint("eve", i)),
				OccurredAt: at, RecordedAt: at,
				Figures: models.Figures{PlanID: "free", BillingPeriodStart: r.BillingPeriodStart, BillingPeriodEnd: r.BillingPeriodEnd},
			}
			f.insert(t, &e)
			quantity *= 10
		}
		r.Daily = models.Daily("110001,1001000").Add(10, 10).Add(31, 100)
		f.insert(t, r)
		if lines := f.verify(t); len(lines) > 0 {
			t.Fatalf("before the migration: %q", lines)
		}
		days := func() (list []models.Daily) {
			for _, r := range all[models.UsageRecord](t, f, "id") {
				list = append(list, r.Daily)
			}
			return list
		}
		want := days()
		unmark := func() {
			t.Helper()
			f.exec(t, "DELETE FROM bun_migrations WHERE name = '20261124040000'")
			if names, err := f.db.Migrate(f.ctx); err != nil || !slices.Equal(names, []string{"20261124040000_daily"}) {
				t.Fatalf("applied %q, %v", names, err)
			}
			if got := days(); !slices.Equal(got, want) {
				t.Errorf("the days are %q, want %q", got, want)
			}
		}
		f.exec(t, "ALTER TABLE usage_records DROP COLUMN daily")
		unmark()
		if lines := f.verify(t); len(lines) > 0 {
			t.Errorf("after the migration: %q", lines)
		}
		unmark() // as after a crash between the migration and its mark
		if names, err := f.db.Migrate(f.ctx); err != nil || len(names) > 0 {
			t.Errorf("migrated again: %q, %v", names, err)
		}
	})
}
