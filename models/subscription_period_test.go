package models_test

import (
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"

	"tollgate/models"
)

// showed stores a period that Stripe showed of ada's subscription.
func (f *fixture) showed(t *testing.T, start, end time.Time) {
	t.Helper()
	f.exec(t, `INSERT INTO subscription_periods (subscription_id, stripe_customer_id, period_start, period_end, said_at, learned_at)
		SELECT id, stripe_customer_id, ?, ?, updated_at, updated_at FROM subscriptions WHERE stripe_customer_id = 'cus_1'
		ON CONFLICT (subscription_id, period_start) DO UPDATE SET period_end = EXCLUDED.period_end`, start, end)
}

// late records usage at an earlier time, as the gate does.
func (f *fixture) late(t *testing.T, now, at time.Time, quantity int64) {
	t.Helper()
	if err := models.PrepareRecords(f.ctx, f.db, f.catalogue, now, []models.RecordKey{{Email: ada, At: at}}); err != nil {
		t.Fatal(err)
	}
	r := one[models.UsageRecord](t, f, "email = ? AND billing_period_start <= ? AND billing_period_end > ?", ada, at, at)
	s, _ := f.catalogue.Standing(&r, now)
	v := models.Decide(s, quantity)
	if !v.Allowed {
		v = models.Verdict{}
	}
	f.event(t, &r, at, quantity, v, &s, nil)
}

func TestPeriodsInOrder(t *testing.T) {
	day := func(n int) time.Time { return noon.AddDate(0, 0, n) }
	periods := models.NewPeriods([]models.Period{{Start: day(20), End: day(50)}, {Start: day(0), End: day(30)},
		{Start: day(60), End: day(90)}, {Start: day(20), End: day(40)}})
	anchor := day(55)
	for _, c := range []struct {
		at, start, end int
		known          bool
	}{{0, 0, 20, true}, {19, 0, 20, true}, {20, 20, 50, true}, {52, 50, 55, false}, {57, 55, 60, false}, {60, 60, 90, true}} {
		want := models.Period{Start: day(c.start), End: day(c.end)}
		if got := periods.PeriodAt(day(c.at), &anchor); got != want {
			t.Errorf("day %d: %v, want %v", c.at, got, want)
		}
		if _, known := periods.At(day(c.at)); known != c.known {
			t.Errorf("day %d: known %v", c.at, known)
		}
	}
}

// A period is lengthened, and that becomes known after its old end. The usage since then joins its
// record, and the included units count once. If the new end has passed too, the record that began
// too early begins there.
func TestALengthenedPeriodLearnedAfterItsEnd(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		start := time.Date(2026, 10, 10, 8, 30, 0, 0, time.UTC)
		old := start.AddDate(0, 1, 0)
		for _, c := range []struct {
			days  int
			after time.Duration // from the old end until it becomes known
		}{{10, 48 * time.Hour}, {1, 48 * time.Hour}, {10, time.Minute}} {
			for _, table := range []string{"usage_holds", "usage_events", "usage_records", "subscriptions"} {
				f.exec(t, "DELETE FROM "+table)
			}
			f.bought(t, start)
			f.consume(t, ada, old.Add(-time.Hour), 70)
			f.consume(t, ada, old, 3)
			expired := f.hold(t, ada, old.Add(time.Second), old.Add(10*time.Second), 1)
			f.consume(t, ada, old.Add(20*time.Second), 4)
			end, now := old.AddDate(0, 0, c.days), old.Add(c.after)
			if now.After(end) {
				f.consume(t, ada, end.Add(time.Hour), 9)
			}
			open := f.hold(t, ada, now.Add(-time.Second), now.Add(time.Minute), 2)
			f.exec(t, "UPDATE subscriptions SET billing_cycle_anchor = ?, current_period_end = ?", end, end)
			f.current(t, ada, now)
			f.current(t, ada, now)
			r := f.history(t)
			if !now.After(end) {
				if len(r) != 1 {
					t.Fatalf("%d days, known after %v: %d records, want 1", c.days, c.after, len(r))
				}
				wantRecord(t, &r[0], start, end, "cus_1", 75, 0, 77, 0, 0)
			} else {
				if len(r) != 2 {
					t.Fatalf("%d days, known after %v: %d records, want 2", c.days, c.after, len(r))
				}
				wantRecord(t, &r[0], start, end, "cus_1", 75, 0, 77, 0, 0)
				wantRecord(t, &r[1], end, end.AddDate(0, 1, 0), "cus_1", 75, 0, 9, 0, 0)
				if want := models.Daily("9"); r[1].Daily != want {
					t.Errorf("the days are %q, want %q", r[1].Daily, want)
				}
			}
			if last := r[len(r)-1]; last.UnitsHeld != 2 || one[models.UsageHold](t, f, "id = ?", open.ID).RecordID != last.ID {
				t.Errorf("%d units are held in the last record, want 2", last.UnitsHeld)
			}
			if h := one[models.UsageHold](t, f, "id = ?", expired.ID); h.RecordID != r[0].ID && h.RecordID != r[len(r)-1].ID {
				t.Errorf("the expired hold is in record %d", h.RecordID)
			}
			f.wantVerified(t)
		}
	})
}

// A subscription's row shows only its last period, and not two earlier changes. A late event counts
// on the right side of each change: in a trial's first seconds, before and after a reset of the
// cycle, and in a period of 35 seconds.
func TestLateEventsCountInForgottenPeriods(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		created := time.Date(2026, 11, 2, 9, 0, 5, 0, time.UTC)
		trialEnd := created.Add(14 * 24 * time.Hour)
		reset, again := time.Date(2026, 11, 20, 10, 0, 5, 0, time.UTC), time.Date(2026, 11, 20, 10, 0, 40, 0, time.UTC)
		f.bought(t, created)
		f.restart(t, again, again.AddDate(0, 1, 0))
		f.showed(t, created, trialEnd)
		f.showed(t, trialEnd, trialEnd.AddDate(0, 1, 0))
		f.showed(t, reset, reset.AddDate(0, 1, 0))
		now := noon
		f.consume(t, ada, now, 1)
		for i, at := range []time.Time{
			created.Add(-time.Second), created, created.Add(2 * time.Second), trialEnd.Add(-time.Microsecond), trialEnd,
			reset.Add(-time.Microsecond), reset, again.Add(-time.Microsecond), again, created.Add(time.Hour),
		} {
			f.late(t, now, at, int64(1)<<i)
		}
		r := f.history(t)
		want := []struct {
			start, end time.Time
			payer      string
			used       int64
		}{
			{november.Start, created, "", 1},
			{created, trialEnd, "cus_1", 2 + 4 + 8 + 512},
			{trialEnd, reset, "cus_1", 16 + 32},
			{reset, again, "cus_1", 64 + 128},
			{again, again.AddDate(0, 1, 0), "cus_1", 256 + 1},
		}
		if len(r) != len(want) {
			t.Fatalf("%d records, want %d", len(r), len(want))
		}
		for i, w := range want {
			if p := r[i].Period(); !p.Start.Equal(w.start) || !p.End.Equal(w.end) || deref(r[i].Payer) != w.payer || r[i].SuggestionsUsed != w.used {
				t.Errorf("record %d is from %v to %v of %q with %d units, want %+v", i, p.Start, p.End, deref(r[i].Payer), r[i].SuggestionsUsed, w)
			}
		}
		f.wantVerified(t)
	})
}

// An earlier change of the period becomes known after the next one. It shortens the past record of
// its time, and the units move.
func TestAForgottenPeriodIsLearned(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		start, forgotten, current := noon.AddDate(0, 0, -20), noon.AddDate(0, 0, -10), noon.AddDate(0, 0, -5)
		f.bought(t, start)
		f.consume(t, ada, forgotten.Add(-time.Minute), 74)
		f.consume(t, ada, forgotten, 3) // 2 of them overage, which stays billed
		f.restart(t, current, current.AddDate(0, 1, 0))
		f.consume(t, ada, current.Add(time.Hour), 5)
		f.showed(t, forgotten, forgotten.AddDate(0, 1, 0))
		var ids []uuid.UUID
		if err := f.db.NewSelect().Model((*models.User)(nil)).Column("id").Scan(f.ctx, &ids); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := models.RefitRecords(f.ctx, f.db, f.catalogue, noon, ids); err != nil {
				t.Fatal(err)
			}
		}
		r := f.history(t)
		if len(r) != 3 {
			t.Fatalf("%d records, want 3", len(r))
		}
		wantRecord(t, &r[0], start, forgotten, "cus_1", 75, 0, 74, 0, 0)
		wantRecord(t, &r[1], forgotten, current, "cus_1", 75, 0, 3, 2, 60)
		wantRecord(t, &r[2], current, current.AddDate(0, 1, 0), "cus_1", 75, 0, 5, 0, 0)
		// Both periods report moved overage, although the second one has unused included units.
		moved := models.MovedOverages(r, start)
		if want := []models.MovedOverage{{Period: r[0].Period(), Out: 2}, {Period: r[1].Period(), In: 2}}; !slices.Equal(moved, want) {
			t.Errorf("the moved overage is %+v, want %+v", moved, want)
		}
		f.wantVerified(t)
	})
}

// Refitting records creates none for a period without usage.
func TestRefittingMakesNoRecord(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		start := noon.AddDate(0, 0, -20)
		f.bought(t, start)
		f.consume(t, ada, noon.AddDate(0, 0, -2), 1)
		f.restart(t, noon.AddDate(0, 0, -1), noon.AddDate(0, 1, -1))
		var ids []uuid.UUID
		if err := f.db.NewSelect().Model((*models.User)(nil)).Column("id").Scan(f.ctx, &ids); err != nil {
			t.Fatal(err)
		}
		if err := models.RefitRecords(f.ctx, f.db, f.catalogue, noon, ids); err != nil {
			t.Fatal(err)
		}
		r := f.history(t)
		if len(r) != 1 {
			t.Fatalf("%d records, want 1", len(r))
		}
		wantRecord(t, &r[0], start, noon.AddDate(0, 0, -1), "cus_1", 75, 0, 1, 0, 0)
		f.wantVerified(t)
	})
}

// On November 2 it becomes known that a period began on October 15. The records of October and
// November exist already. The usage since October 15 becomes one record.
func TestAPeriodThatBeganInAnEarlierRecord(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		day := func(month time.Month, day int) time.Time { return time.Date(2026, month, day, 0, 0, 0, 0, time.UTC) }
		f.bought(t, day(10, 1))
		f.consume(t, ada, day(10, 10), 2)
		f.consume(t, ada, day(10, 20), 60)
		f.consume(t, ada, day(11, 1).Add(time.Hour), 10)
		f.restart(t, day(10, 15), day(11, 15))
		f.consume(t, ada, day(11, 2), 6)
		r := f.history(t)
		if len(r) != 2 {
			t.Fatalf("%d records, want 2: %+v", len(r), r)
		}
		wantRecord(t, &r[0], day(10, 1), day(10, 15), "cus_1", 75, 0, 2, 0, 0)
		wantRecord(t, &r[1], day(10, 15), day(11, 15), "cus_1", 75, 0, 76, 1, 30)
		f.wantVerified(t)
	})
}

// A person leaves an organization with units on hold, and the hold expires. On returning, the
// person has the remaining units.
func TestExpiredHoldsAreNotLostByLeaving(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		acme := f.organization(t, hours(-2), "Acme", "T1")
		if _, err := models.Subscribe(f.ctx, f.db, f.catalogue, hours(-2), models.Subscriber{OrganizationID: &acme}, "team"); err != nil {
			t.Fatal(err)
		}
		set := func(now time.Time, change models.UserChange) {
			t.Helper()
			if _, err := models.SetUser(f.ctx, f.db, now, ada, change); err != nil {
				t.Fatal(err)
			}
		}
		f.user(t, ada)
		set(hours(-1), models.UserChange{OrganizationID: &acme})
		f.consume(t, ada, noon, 10)
		f.hold(t, ada, noon, noon.Add(time.Minute), 30)
		set(hours(1), models.UserChange{Leaves: true})
		f.consume(t, ada, hours(2), 1)
		set(hours(3), models.UserChange{OrganizationID: &acme})
		if v := f.consume(t, ada, hours(4), 40); !v.Allowed || v.Overage != 0 {
			t.Errorf("40 units of the 40 left: %+v", v)
		}
		f.wantVerified(t)
	})
}

// A period ends earlier than its open holds assumed. They expire at most 30 minutes after its end,
// even if it has passed.
func TestHoldsExpireWithAShortenedPeriod(t *testing.T) {
	for _, c := range []struct {
		name string
		now  time.Time
	}{{"before its new end", hours(2)}, {"after its new end", hours(10)}} {
		t.Run(c.name, func(t *testing.T) {
			onBoth(t, func(t *testing.T, f *fixture) {
				start, end := noon.AddDate(0, 0, -10), hours(9)
				f.bought(t, start)
				f.consume(t, ada, hours(1), 1)
				soon := f.hold(t, ada, hours(1), hours(3), 1)
				long := f.hold(t, ada, hours(1), hours(24), 2)
				if c.now.After(end) {
					f.restart(t, end, end.AddDate(0, 1, 0))
				} else {
					f.restart(t, start, end)
				}
				f.current(t, ada, c.now)
				last := end.Add(models.HoldsOutlivePeriod)
				for _, want := range []struct {
					hold    *models.UsageHold
					expires time.Time
				}{{soon, soon.ExpiresAt}, {long, last}} {
					if h := one[models.UsageHold](t, f, "id = ?", want.hold.ID); !h.ExpiresAt.Equal(want.expires) {
						t.Errorf("the hold of %d expires at %v, want %v", h.Quantity, h.ExpiresAt, want.expires)
					}
				}
				if r := f.history(t)[0]; !r.BillingPeriodEnd.Equal(end) || r.HoldsExpireAt == nil || r.HoldsExpireAt.After(last) {
					t.Errorf("the record ends at %v, and its first hold expires at %v", r.BillingPeriodEnd, r.HoldsExpireAt)
				}
				f.wantVerified(t)
			})
		})
	}
}
