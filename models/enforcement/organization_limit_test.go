package enforcement_test

import (
	"testing"
	"time"

	"github.com/google/uuid"

	"tollgate/models"
	"tollgate/models/enforcement"
)

// late records one event of the past, and returns its overage.
func (l limited) late(email string, quantity int64, at time.Time) int64 {
	l.t.Helper()
	outcomes, err := l.Record(l.ctx, []enforcement.PastEvent{
		{Person: by(email), Quantity: quantity, IdempotencyKey: uuid.NewString(), OccurredAt: at},
	})
	l.must(err)
	l.must(outcomes[0].Err)
	return outcomes[0].Answer.Verdict.Overage
}

// Late usage of a person who has left counts toward the limit of the organization that pays for it.
func TestLateUsageOfFormerMemberCountsTowardOrganizationLimit(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		l := newLimited(t, f)
		ada, bob := l.member("ada"), l.member("bob")
		l.spendLimit(new(int64(100)))
		f.consume(t, ada, included+1, "a")
		at := f.now.Add(time.Minute)
		f.now = f.now.Add(time.Hour)
		l.leave(f.now, bob) // who has used nothing yet
		f.now = f.now.Add(time.Hour)
		if over := l.late(bob, included+9, at); over != 2 {
			t.Errorf("%d late units are billed, want 2", over)
		}
		l.spends("late usage", 90, 0)
		l.wants(ada, 1, models.OrganizationSpendLimitReached)
	})
}

// A check of the first call in a billing period says the same as the consume.
func TestCheckKnowsOrganizationLimitInNewPeriod(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		l := newLimited(t, f)
		ada := l.member("ada")
		l.spendLimit(new(int64(30)))
		f.now = l.subscription.CurrentPeriodEnd.Add(time.Hour)
		l.wants(ada, included+2, models.OrganizationSpendLimitReached)
		l.wants(ada, included+1, "")
		l.spends("the new period", 30, 0)
	})
}

// A period that begins before the known one has ended is limited on its own.
func TestOrganizationLimitOfPeriodThatBeganEarly(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		l := newLimited(t, f)
		ada, bob := l.member("ada"), l.member("bob")
		l.spendLimit(new(int64(60)))
		f.consume(t, ada, included+1, "a")
		f.now = f.now.Add(time.Hour)
		f.consume(t, bob, included+1, "b") // in a period that is learned later
		l.wants(bob, 1, models.OrganizationSpendLimitReached)
		start := f.now.Add(-30 * time.Minute)
		f.now = f.now.Add(time.Hour)
		l.change(l.subscription, func() {
			l.subscription.CurrentPeriodStart, l.subscription.BillingCycleAnchor = &start, &start
			l.subscription.CurrentPeriodEnd = new(start.AddDate(0, 1, 0))
		})
		l.wants(ada, included+1, "")
		l.must(models.FinishSpendLimits(f.ctx, f.db, f.catalogue, f.now, nil))
		l.wants(bob, 1, models.OrganizationSpendLimitReached)
		l.clean(t)
		var rows []models.OrganizationRecord
		l.must(f.db.NewSelect().Model(&rows).Where("organization_id = ?", l.id).Order("billing_period_start").Scan(f.ctx))
		if len(rows) != 2 || rows[0].OverageCents != 30 || rows[1].OverageCents != 60 || !rows[0].BillingPeriodEnd.Equal(start) {
			t.Errorf("%+v, want 30 cents until %s and 60 from then on", rows, start)
		}
	})
}

// A period that is learned to have begun earlier has one limit.
func TestOrganizationLimitOfPeriodThatBeganBefore(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		l := newLimited(t, f)
		ada, bob := l.member("ada"), l.member("bob")
		l.spendLimit(new(int64(60)))
		f.consume(t, ada, included+2, "a")
		start := l.subscription.CurrentPeriodStart.Add(-24 * time.Hour)
		f.now = f.now.Add(time.Hour)
		l.change(l.subscription, func() {
			l.subscription.CurrentPeriodStart, l.subscription.BillingCycleAnchor = &start, &start
			l.subscription.CurrentPeriodEnd = new(start.AddDate(0, 1, 0))
		})
		f.exec(t, "DELETE FROM subscription_periods WHERE period_start <> (SELECT MIN(period_start) FROM subscription_periods)")
		f.consume(t, bob, included, "b")
		l.wants(bob, 1, models.OrganizationSpendLimitReached)
		l.clean(t)
	})
}
