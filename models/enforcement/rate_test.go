package enforcement_test

import (
	"reflect"
	"testing"
	"time"

	"tollgate/models"
	"tollgate/models/enforcement"
)

// TestHoldKeepsItsPlanAndPrice settles a hold after a change of plan. Its overage must have the
// plan and the price at the time of the hold, so that it is reported to the meter with this price.
func TestHoldKeepsItsPlanAndPrice(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		give := func(plan models.PlanID) {
			t.Helper()
			if _, err := models.Subscribe(f.ctx, f.db, f.catalogue, f.now, models.Subscriber{Email: "ada@example.com"}, plan); err != nil {
				t.Fatal(err)
			}
		}
		ada := by("ada@example.com")
		give("pro")
		if _, err := f.Record(f.ctx, []enforcement.PastEvent{{Person: ada, Quantity: 75, IdempotencyKey: "all", OccurredAt: f.now}}); err != nil {
			t.Fatal(err)
		}
		held, err := f.Hold(f.ctx, ada, 10, "hold", time.Hour)
		if err != nil || !held.Verdict.Allowed {
			t.Fatalf("%+v, %v", held, err)
		}
		f.now = f.now.Add(time.Minute)
		give("starter")
		settled, err := f.Settle(f.ctx, held.Hold.ID, 10)
		if err != nil {
			t.Fatal(err)
		}
		var e models.UsageEvent
		if err := f.db.NewSelect().Model(&e).Where("hold_id = ?", held.Hold.ID).Scan(f.ctx); err != nil {
			t.Fatal(err)
		}
		if e.PlanID != "pro" || e.OverageRateCents != 30 || e.OverageQuantity != 10 || e.OverageCents != 300 {
			t.Errorf("the event has %d units of overage for %d cents at %d on %s; want 10 for 300 at 30 on pro",
				e.OverageQuantity, e.OverageCents, e.OverageRateCents, e.PlanID)
		}
		again, err := f.Settle(f.ctx, held.Hold.ID, 10)
		if err != nil || !again.Replayed || !reflect.DeepEqual(again.Standing, settled.Standing) {
			t.Errorf("the first answer was %+v, the second is %+v, %v", settled.Standing, again.Standing, err)
		}
		if a, err := f.Check(f.ctx, ada, 1); err != nil || a.Standing.OverageRateCents != 35 || a.Standing.OverageCents != 300 {
			t.Errorf("the check after it: %+v, %v", a.Standing, err)
		}
		f.clean(t)
	})
}
