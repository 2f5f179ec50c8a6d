package enforcement_test

import (
	"fmt"
	"testing"
	"time"

	"tollgate/models"
	"tollgate/models/enforcement"
)

// TestLateEventsChangeThePast reads an organization's cached past after each kind of change to it.
func TestLateEventsChangeThePast(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		founded := f.now.AddDate(-1, 0, 0)
		acme, err := models.CreateOrganization(f.ctx, f.db, founded, "Acme", []string{"T1"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := models.Subscribe(f.ctx, f.db, f.catalogue, founded, models.Subscriber{OrganizationID: &acme.ID}, "business"); err != nil {
			t.Fatal(err)
		}
		ada := enforcement.Person{Email: "ada@example.com", Slack: models.SlackIdentity{TeamID: "T1", UserID: "U1"}}
		n := 0
		key := func() string { n++; return fmt.Sprint("k", n) }
		var remembers models.PastUsageCache
		look := func(october, september int64) {
			t.Helper()
			for range 2 { // from the database and from the cache
				summary, err := models.OrganizationUsage(f.ctx, f.db, f.catalogue, f.now, acme.ID)
				if err != nil {
					t.Fatal(err)
				}
				months, err := remembers.OrganizationMonths(f.ctx, f.db, f.now, &summary, founded, 6)
				if err != nil {
					t.Fatal(err)
				}
				_, days, err := remembers.OrganizationDays(f.ctx, f.db, f.now, summary.Period, acme.ID)
				if err != nil {
					t.Fatal(err)
				}
				var sum int64
				for _, units := range days {
					sum += units
				}
				if months[4].Used != october || months[3].Used != september || sum != october {
					t.Errorf("October has %d units, by days %d, and September %d; want %d and %d",
						months[4].Used, sum, months[3].Used, october, september)
				}
			}
		}
		late := func(at time.Time, quantity int64) {
			t.Helper()
			outcomes, err := f.Record(f.ctx, []enforcement.PastEvent{
				{Person: ada, Quantity: quantity, IdempotencyKey: key(), OccurredAt: at},
			})
			if err != nil || outcomes[0].Err != nil {
				t.Fatal(err, outcomes)
			}
		}
		october, september := time.Date(2026, 10, 20, 9, 0, 0, 0, time.UTC), time.Date(2026, 9, 3, 9, 0, 0, 0, time.UTC)
		look(0, 0)
		late(october, 2)
		look(2, 0)
		late(october, 3)
		look(5, 0)
		late(september, 7)
		late(october.Add(time.Hour), 1)
		look(6, 7)

		// A hold of October is settled in November, before it expires half an hour after its period.
		now := f.now
		f.now = time.Date(2026, 10, 31, 23, 59, 0, 0, time.UTC)
		held, err := f.Hold(f.ctx, ada, 1, key(), 60*24*time.Hour)
		if err != nil || !held.Verdict.Allowed {
			t.Fatalf("the hold was refused: %+v, %v", held.Verdict, err)
		}
		f.now = now
		look(6, 7)
		f.now = time.Date(2026, 11, 1, 0, 29, 0, 0, time.UTC)
		if _, err := f.Settle(f.ctx, held.Hold.ID, 1); err != nil {
			t.Fatal(err)
		}
		f.now = now
		look(7, 7)

		// Usage in the current period does not change the past.
		var before, after []int64
		if err := f.db.NewSelect().TableExpr("usage_versions").Column("version").Scan(f.ctx, &before); err != nil {
			t.Fatal(err)
		}
		if _, err := f.Consume(f.ctx, ada, 1, key()); err != nil {
			t.Fatal(err)
		}
		late(f.now.Add(-time.Hour), 1)
		if err := f.db.NewSelect().TableExpr("usage_versions").Column("version").Scan(f.ctx, &after); err != nil {
			t.Fatal(err)
		}
		if len(before) != 1 || len(after) != 1 || before[0] != after[0] {
			t.Errorf("the version was %v before and is %v", before, after)
		}
		f.clean(t)
	})
}
