package enforcement_test

import (
	"testing"
	"time"

	"github.com/google/uuid"

	"tollgate/models"
	"tollgate/models/enforcement"
)

// TestLateUsageIsPaidByTheCustomerOfItsMoment: what is told late is billed to whoever paid when it was done, and to nobody when
// nobody did.
func TestLateUsageIsPaidByTheCustomerOfItsMoment(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		noon := f.now
		at := func(offset time.Duration) time.Time { return noon.Add(offset) }
		const hour, day = time.Hour, 24 * time.Hour
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		// A subscription of an organization or, without one, of a person, as Stripe's webhooks write it.
		subscribe := func(email string, organization *uuid.UUID, plan models.PlanID, customer string, start time.Time) *models.Subscription {
			t.Helper()
			s := &models.Subscription{
				ID: uuid.New(), OrganizationID: organization, PlanID: plan, Status: models.StatusActive, StripeSubscriptionID: new("sub_" + customer), StripeCustomerID: &customer,
				CurrentPeriodStart: &start, CurrentPeriodEnd: new(start.AddDate(0, 1, 0)), BillingCycleAnchor: &start, CreatedAt: start, UpdatedAt: f.now,
			}
			if organization == nil {
				user, err := models.SetUser(f.ctx, f.db, f.now, email, models.UserChange{})
				must(err)
				s.UserID = &user.ID
			}
			_, err := f.db.NewInsert().Model(s).Exec(f.ctx)
			must(err)
			return s
		}
		end := func(s *models.Subscription, at time.Time) {
			t.Helper()
			s.Status, s.CancelAt = models.StatusCanceled, &at
			_, err := f.db.NewUpdate().Model(s).Column("status", "cancel_at").WherePK().Exec(f.ctx)
			must(err)
		}
		join := func(email, team string) {
			t.Helper()
			must(models.LinkPeople(f.ctx, f.db, f.now, []models.Link{{Email: email, Slack: models.SlackIdentity{TeamID: team, UserID: "U" + email[:3]}}}))
		}
		late := func(email string, occurred time.Time, customer string, plan models.PlanID) {
			t.Helper()
			key := uuid.NewString()
			outcomes, err := f.Record(f.ctx, []enforcement.Happened{{Person: by(email), Quantity: 3, IdempotencyKey: key, OccurredAt: occurred}})
			must(err)
			must(outcomes[0].Err)
			var e models.UsageEvent
			must(f.db.NewSelect().Model(&e).Where("idempotency_key = ?", key).Scan(f.ctx))
			got := ""
			if e.StripeCustomerID != nil {
				got = *e.StripeCustomerID
			}
			if got != customer || e.PlanID != plan || e.OccurredAt.Before(e.BillingPeriodStart) || !e.OccurredAt.Before(e.BillingPeriodEnd) {
				t.Errorf("%s at %s: customer %q on %s in the period from %s to %s; want customer %q on %s", email, occurred, got, e.PlanID,
					e.BillingPeriodStart.UTC(), e.BillingPeriodEnd.UTC(), customer, plan)
			}
		}
		acme, err := models.CreateOrganization(f.ctx, f.db, at(-60*day), "Acme", []string{"T9"})
		must(err)
		subscribe("", &acme.ID, "team", "cus_org", at(-10*day))

		// Nothing was recorded of then, and nobody paid.
		subscribe("ada@example.com", nil, "pro", "cus_ada", at(-hour))
		late("ada@example.com", at(-2*day), "", "free")
		late("ada@example.com", at(-time.Minute), "cus_ada", "pro")
		late("ada@example.com", at(-40*day), "", "free")
		if answer := f.consume(t, "ada@example.com", 1, "ada"); answer.Standing.Plan != "pro" || answer.Standing.Used != 4 {
			t.Errorf("ada has %d units on %s, want 4 on pro", answer.Standing.Used, answer.Standing.Plan)
		}

		// The record of then is there.
		f.consume(t, "bob@example.com", 1, "bob")
		f.now = at(hour)
		subscribe("bob@example.com", nil, "pro", "cus_bob", f.now)
		f.consume(t, "bob@example.com", 1, "bob 2")
		late("bob@example.com", at(-30*time.Minute), "", "free")
		late("bob@example.com", at(hour), "cus_bob", "pro")

		// Without a plan or with one's own into an organization that pays for long; its period is that of the record from then on.
		f.consume(t, "cyd@example.com", 1, "cyd")
		subscribe("dia@example.com", nil, "pro", "cus_dia", at(-day))
		f.consume(t, "dia@example.com", 1, "dia")
		f.now = at(2 * hour)
		join("cyd@example.com", "T9")
		join("dia@example.com", "T9")
		f.consume(t, "cyd@example.com", 1, "cyd 2")
		f.consume(t, "dia@example.com", 1, "dia 2")
		f.now = at(3 * hour)
		late("cyd@example.com", at(hour), "", "team")
		late("cyd@example.com", at(2*hour), "cus_org", "team")
		late("dia@example.com", at(hour), "cus_dia", "team")
		late("dia@example.com", at(150*time.Minute), "cus_org", "team")

		// Named for the first time, in the organization's Slack team: they were there.
		join("eve@example.com", "T9")
		late("eve@example.com", at(-3*day), "cus_org", "team")
		late("eve@example.com", at(-11*day), "", "free")

		// Over to another workspace of the same organization, whose other workspace comes later.
		must(models.LinkPeople(f.ctx, f.db, at(-5*day), []models.Link{{Email: "fay@example.com", Slack: models.SlackIdentity{TeamID: "T10", UserID: "Ufay"}}}))
		_, err = f.db.ExecContext(f.ctx, "UPDATE workspaces SET organization_id = ?, joined_at = ? WHERE slack_team_id = 'T10'", acme.ID, at(-2*day))
		must(err)
		late("fay@example.com", at(-3*day), "", "team")
		late("fay@example.com", at(-day), "cus_org", "team")
		f.now = at(4 * hour)
		join("eve@example.com", "T10")
		join("eve@example.com", "T9")
		late("eve@example.com", at(-2*day), "cus_org", "team")

		// A workspace that goes from the organization of its first call to one that pays.
		must(models.LinkPeople(f.ctx, f.db, at(-5*day), []models.Link{{Email: "hal@example.com", Slack: models.SlackIdentity{TeamID: "T11", UserID: "Uhal"}}}))
		beta, err := models.CreateOrganization(f.ctx, f.db, at(-2*day), "Beta", []string{"T11"})
		must(err)
		subscribe("", &beta.ID, "team", "cus_beta", at(-4*day))
		late("hal@example.com", at(-3*day), "", "team")
		late("hal@example.com", at(-day), "cus_beta", "team")

		// A backdated subscription, which Stripe bills from the start of its period.
		backdated := subscribe("ida@example.com", nil, "pro", "cus_ida", at(-2*day))
		_, err = f.db.NewUpdate().Model(backdated).Set("created_at = ?", at(-hour)).WherePK().Exec(f.ctx)
		must(err)
		late("ida@example.com", at(-day), "cus_ida", "pro")
		late("ida@example.com", at(-3*day), "", "free")

		// A subscription that ended, and the time after it.
		ended := subscribe("gus@example.com", nil, "pro", "cus_gus", at(-day))
		f.consume(t, "gus@example.com", 1, "gus")
		f.now = at(6 * hour)
		end(ended, at(5*hour))
		late("gus@example.com", at(5*hour-time.Second), "cus_gus", "free")
		late("gus@example.com", at(5*hour), "", "free")
		f.clean(t)
	})
}
