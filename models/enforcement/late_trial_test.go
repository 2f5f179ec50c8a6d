package enforcement_test

import (
	"testing"
	"time"

	"github.com/google/uuid"

	"tollgate/models"
	"tollgate/models/enforcement"
)

// TestLateEventsOfATrialAreFree checks that usage during a trial costs nothing, even if it is
// recorded after the trial.
func TestLateEventsOfATrialAreFree(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		user, err := models.SetUser(f.ctx, f.db, f.now.AddDate(0, -1, 0), "ada@example.com", models.UserChange{})
		if err != nil {
			t.Fatal(err)
		}
		start := f.now.Add(-48 * time.Hour)
		turn, end := f.now.Add(-24*time.Hour), f.now.AddDate(0, 1, -1)
		text, rate := "sub_1", int64(30)
		s := models.Subscription{
			ID: uuid.New(), UserID: &user.ID, PlanID: "pro", Status: models.StatusActive, StripeSubscriptionID: &text, StripeCustomerID: &text,
			OverageRateCents: &rate, TrialEnd: &turn, CurrentPeriodStart: &start, CurrentPeriodEnd: &turn, CreatedAt: start, UpdatedAt: start,
		}
		if _, err := f.db.NewInsert().Model(&s).Exec(f.ctx); err != nil {
			t.Fatal(err)
		}
		s.CurrentPeriodStart, s.CurrentPeriodEnd = &turn, &end
		if _, err := f.db.NewUpdate().Model(&s).WherePK().Exec(f.ctx); err != nil {
			t.Fatal(err)
		}
		for at, want := range map[time.Time]int64{start.Add(time.Hour): 0, turn.Add(time.Hour): 25} {
			outcomes, err := f.Record(f.ctx, []enforcement.PastEvent{{
				Person: by("ada@example.com"), Quantity: 100, IdempotencyKey: at.String(), OccurredAt: at,
			}})
			if err != nil || outcomes[0].Err != nil {
				t.Fatal(err, outcomes)
			}
			if v := outcomes[0].Answer.Verdict; v.Overage != want || v.OverageCents != want*rate {
				t.Errorf("100 units at %s are %d of overage for %d cents, want %d", at, v.Overage, v.OverageCents, want)
			}
		}
		f.clean(t)
	})
}
