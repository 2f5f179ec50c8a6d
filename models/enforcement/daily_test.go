package enforcement_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"tollgate/models"
	"tollgate/models/enforcement"
)

// TestDaysOfARecord checks the units per day for every way in which the gate grants units,
// including decisions on remembered records and two gates.
func TestDaysOfARecord(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		const email = "ada@example.com"
		other := f.another(t, 4096)
		if _, err := models.Subscribe(f.ctx, f.db, f.catalogue, f.now, models.Subscriber{Email: email}, "pro"); err != nil {
			t.Fatal(err)
		}
		n := 0
		key := func() string { n++; return fmt.Sprint("k", n) }
		must := func(a enforcement.Answer, err error) enforcement.Answer {
			t.Helper()
			if err != nil || !a.Verdict.Allowed {
				t.Fatalf("%+v, %v", a.Verdict, err)
			}
			return a
		}
		days := func(want ...models.Daily) {
			t.Helper()
			var records []models.UsageRecord
			if err := f.db.NewSelect().Model(&records).Order("billing_period_start").Scan(f.ctx); err != nil {
				t.Fatal(err)
			}
			var got []models.Daily
			for _, r := range records {
				var events []models.UsageEvent
				if err := f.db.NewSelect().Model(&events).Where("record_id = ?", r.ID).Scan(f.ctx); err != nil {
					t.Fatal(err)
				}
				var counted models.Daily
				for _, e := range events {
					counted = counted.Add(models.DayOf(r.BillingPeriodStart, e.OccurredAt), e.Quantity)
				}
				if r.Daily != counted {
					t.Errorf("the record since %[2]s has the days %[1]q, but its events have %[3]q", r.Daily, r.BillingPeriodStart, counted)
				}
				got = append(got, r.Daily)
			}
			if !slices.Equal(got, want) {
				t.Errorf("the days are %q, want %q", got, want)
			}
			f.clean(t)
		}
		november := models.Daily("").Add
		for range 3 {
			must(f.Consume(f.ctx, by(email), 2, key()))
		}
		days(november(22, 6))
		must(other.Consume(f.ctx, by(email), 1, key()))
		must(f.Consume(f.ctx, by(email), 1, key())) // the remembered record is stale
		days(november(22, 8))
		must(f.Consume(f.ctx, by(email), 2, "k1")) // a retry
		days(november(22, 8))

		kept := must(f.Hold(f.ctx, by(email), 5, key(), 24*time.Hour))
		given := must(f.Hold(f.ctx, by(email), 5, key(), 24*time.Hour))
		days(november(22, 8))
		f.now = time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC)
		must(f.Settle(f.ctx, kept.Hold.ID, 3))
		must(f.Release(f.ctx, given.Hold.ID))
		must(f.Consume(f.ctx, by(email), 1, key()))
		days(november(22, 8).Add(23, 4))

		// Late events of this period, of earlier periods, and of the last moment of a day.
		late := func(at time.Time, quantity int64) enforcement.PastEvent {
			return enforcement.PastEvent{Person: by(email), Quantity: quantity, IdempotencyKey: key(), OccurredAt: at}
		}
		batch := []enforcement.PastEvent{
			late(time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC), 1),
			late(time.Date(2026, 11, 2, 23, 59, 59, 999999000, time.UTC), 2),
			late(time.Date(2026, 10, 31, 23, 59, 59, 999999000, time.UTC), 3), late(f.now, 1),
			late(time.Date(2026, 11, 2, 0, 0, 0, 0, time.UTC), 4),
			late(time.Date(2026, 10, 25, 12, 0, 0, 0, time.UTC), 6),
		}
		outcomes, err := f.Record(f.ctx, batch)
		if err != nil {
			t.Fatal(err)
		}
		for i, o := range outcomes {
			if o.Err != nil {
				t.Errorf("late event %d: %v", i, o.Err)
			}
		}
		october := models.Daily("").Add(24, 6).Add(30, 3)
		days(october, november(0, 1).Add(1, 6).Add(22, 8).Add(23, 5))

		// If the work ends after the period, a hold's units count on the day on which it was created.
		f.now = time.Date(2026, 11, 30, 23, 59, 0, 0, time.UTC)
		across := must(f.Hold(f.ctx, by(email), 2, key(), time.Hour))
		f.now = time.Date(2026, 12, 1, 0, 1, 0, 0, time.UTC)
		must(f.Consume(f.ctx, by(email), 1, key()))
		must(f.Settle(f.ctx, across.Hold.ID, 2))
		days(october, november(0, 1).Add(1, 6).Add(22, 8).Add(23, 5).Add(29, 2), "1")
	})
}

// TestDaysOfARememberedRecord consumes on several days in a row without anything that makes the
// gate read the record again.
func TestDaysOfARememberedRecord(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		if _, err := models.Subscribe(f.ctx, f.db, f.catalogue, f.now, models.Subscriber{Email: "ada@example.com"}, "pro"); err != nil {
			t.Fatal(err)
		}
		var want models.Daily
		for day := range 7 {
			for i := range 4 {
				f.consume(t, "ada@example.com", 1, fmt.Sprint("k", day, i))
			}
			want = want.Add(22+day, 4)
			f.now = f.now.AddDate(0, 0, 1)
		}
		if n := f.counted(t, remembered); n < 25 {
			t.Errorf("only %v groups were decided on remembered records, so this test shows little", n)
		}
		r, err := models.CurrentUsage(f.ctx, f.db, f.now, "ada@example.com")
		if err != nil || r.Daily != want {
			t.Errorf("the days are %q, %v; want %q", r.Daily, err, want)
		}
		f.clean(t)
	})
}
