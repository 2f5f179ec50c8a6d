package models_test

import (
	"testing"
	"time"

	"github.com/google/uuid"

	"tollgate/models"
)

// A plan that was assigned to an organization by hand ends. A member without a payer before
// continues their record, because the payer did not change. A member with a plan of their own pays
// again from then on.
func TestAPlanByHandEnds(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		const bob = "bob@example.com"
		acme := f.organization(t, hours(-3), "Acme", "T1")
		byHand := "organization:" + acme.String()
		f.bought(t, hours(-2))
		give := func(now time.Time, plan models.PlanID) {
			t.Helper()
			if _, err := models.Subscribe(f.ctx, f.db, f.catalogue, now, models.Subscriber{OrganizationID: &acme}, plan); err != nil {
				t.Fatal(err)
			}
		}
		f.consume(t, ada, hours(-1.5), 1)
		f.consume(t, bob, hours(-1.5), 2)
		for _, email := range []string{ada, bob} {
			if _, err := models.SetUser(f.ctx, f.db, hours(-1), email, models.UserChange{OrganizationID: &acme}); err != nil {
				t.Fatal(err)
			}
		}
		give(noon, "team")
		f.consume(t, ada, hours(1), 3)
		f.consume(t, bob, hours(1), 4)
		give(hours(2), models.FreePlan)
		f.consume(t, ada, hours(3), 5)
		f.consume(t, bob, hours(3), 6)
		r := f.history(t)
		if len(r) != 4 {
			t.Fatalf("%d records, want 4: %+v", len(r), r)
		}
		wantRecord(t, &r[0], hours(-2), noon, "cus_1", 75, 0, 1, 0, 0)
		wantRecord(t, &r[1], noon, hours(2), byHand, 50, 0, 3, 0, 0)
		wantRecord(t, &r[2], hours(2), hours(-2).AddDate(0, 1, 0), "cus_1", 74, 1, 5, 0, 0)
		wantRecord(t, &r[3], november.Start, november.End, "", 50, 0, 12, 0, 0)
		f.wantVerified(t)
	})
}

// The summary of an organization counts what its plan pays for, also before the next decision about
// a member who joined with a record of their own.
func TestAMemberJoinsWithUsage(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		acme := f.organization(t, hours(-3), "Acme", "T1")
		f.bought(t, hours(-2))
		f.consume(t, ada, hours(-1), 80)
		f.consume(t, "bob@example.com", hours(-1), 3)
		for _, email := range []string{ada, "bob@example.com"} {
			if _, err := models.SetUser(f.ctx, f.db, noon, email, models.UserChange{OrganizationID: &acme}); err != nil {
				t.Fatal(err)
			}
		}
		used := func(want int64) {
			t.Helper()
			s, err := models.OrganizationUsage(f.ctx, f.db, f.catalogue, hours(2), acme)
			if err != nil || s.TotalUsers != 2 || s.TotalSuggestions != want {
				t.Errorf("%d units in the organization, %v; want %d", s.TotalSuggestions, err, want)
			}
		}
		used(83) // the organization has no plan, so each member's own counts
		if _, err := models.Subscribe(f.ctx, f.db, f.catalogue, hours(1), models.Subscriber{OrganizationID: &acme}, "team"); err != nil {
			t.Fatal(err)
		}
		used(3) // bob had no payer
		f.consume(t, ada, hours(2), 1)
		used(4)
	})
}

// A record ended when an organization started to pay. When the person leaves it without having used
// anything there, a new record begins: a check and the summary of the next organization show the
// same.
func TestARecordThatEndedStaysEnded(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		acme, hand := f.organization(t, hours(-3), "Acme", "T1"), f.organization(t, hours(-3), "Hand", "T2")
		f.bought(t, hours(-2))
		move := func(now time.Time, to uuid.UUID) {
			t.Helper()
			if _, err := models.SetUser(f.ctx, f.db, now, ada, models.UserChange{OrganizationID: &to}); err != nil {
				t.Fatal(err)
			}
		}
		move(hours(-1), acme)
		f.consume(t, ada, noon, 3)
		start, end := hours(1), hours(1).AddDate(0, 1, 0)
		f.insert(t, &models.Subscription{
			ID: newID(), OrganizationID: &acme, PlanID: "team", Status: models.StatusActive, StripeSubscriptionID: ptr("sub_2"),
			StripeCustomerID:   ptr("cus_2"),
			BillingCycleAnchor: &start, CurrentPeriodStart: &start, CurrentPeriodEnd: &end, OverageRateCents: ptr(int64(25)),
			CreatedAt: start, UpdatedAt: start,
		})
		if err := models.RefitRecords(f.ctx, f.db, f.catalogue, hours(1), []uuid.UUID{f.user(t, ada)}); err != nil {
			t.Fatal(err)
		}
		move(hours(2), hand)
		ahead, err := models.ReadAhead(f.ctx, f.db, f.catalogue, hours(3), []models.RecordKey{{Email: ada, At: hours(3)}})
		if err != nil {
			t.Fatal(err)
		}
		s, err := models.OrganizationUsage(f.ctx, f.db, f.catalogue, hours(3), hand)
		if err != nil {
			t.Fatal(err)
		}
		if standing, _, _ := ahead.Standing(models.RecordKey{Email: ada, At: hours(3)}, nil); standing.Used != 0 ||
			s.TotalSuggestions != 0 || standing.Included != 72 {
			t.Errorf("a check shows %d of %d units, the organization %d; want 0 of 72 in both", standing.Used, standing.Included, s.TotalSuggestions)
		}
	})
}
