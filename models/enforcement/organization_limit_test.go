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

// Late usage in a period in which nothing else was used is limited, too.
func TestLateUsageInUnusedPeriod(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		l := newLimited(t, f)
		ada, bob := l.member("ada"), l.member("bob")
		if over := l.late(ada, included+9, l.subscription.CurrentPeriodStart.Add(-time.Hour)); over != 0 {
			t.Errorf("%d units before the subscription are billed, want 0", over)
		}
		l.spendLimit(new(int64(100)))
		unused := l.subscription.CurrentPeriodEnd.Add(time.Hour)
		for range 2 {
			f.now = l.subscription.CurrentPeriodEnd.Add(time.Hour)
			l.change(l.subscription, func() {
				l.subscription.CurrentPeriodStart = l.subscription.CurrentPeriodEnd
				l.subscription.CurrentPeriodEnd = new(l.subscription.CurrentPeriodEnd.AddDate(0, 1, 0))
			})
		}
		if over := l.late(ada, included+9, unused); over != 3 {
			t.Errorf("%d late units are billed, want 3", over)
		}
		if over := l.late(bob, included+9, unused); over != 0 {
			t.Errorf("%d late units beyond the limit are billed, want 0", over)
		}
		l.clean(t)
	})
}

// A limit counts what an organization spent when its plan by hand becomes one at Stripe.
func TestOrganizationLimitWhenPayerChangesInPlace(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		p := payers{f, t}
		l := limited{payers: p, id: p.organization(f.now.Add(-60*day), "Acme", "T1")}
		_, err := models.Subscribe(f.ctx, f.db, f.catalogue, f.now.Add(-20*day), models.Subscriber{OrganizationID: &l.id}, "team")
		l.must(err)
		ada, bob := l.member("ada"), l.member("bob")
		l.spendLimit(new(int64(60)))
		f.consume(t, ada, included+1, "a")
		f.consume(t, bob, included+1, "b")
		l.wants(ada, 1, models.OrganizationSpendLimitReached)
		f.now = f.now.Add(time.Hour)
		_, err = models.Subscribe(f.ctx, f.db, f.catalogue, f.now, models.Subscriber{OrganizationID: &l.id}, "business")
		l.must(err)
		l.clean(t)
		f.consume(t, ada, 1, "other")
		l.clean(t)
		f.now = f.now.Add(time.Hour)
		f.exec(t, "UPDATE subscriptions SET status = 'canceled', updated_at = ?, inactive_since = ?", f.now, f.now)
		f.consume(t, ada, 1, "free")
		l.clean(t)
		f.now = f.now.Add(time.Hour)
		l.subscription = l.subscribe("", &l.id, "team", "cus_acme", f.now)
		l.change(l.subscription, func() { l.subscription.OverageRateCents = new(int64(30)) })
		f.now = f.now.Add(time.Hour)
		l.wants(ada, included+3, models.OrganizationSpendLimitReached)
		l.wants(ada, included+1, "")
		l.wants(bob, included+1, "")
		l.wants(bob, 1, models.OrganizationSpendLimitReached)
		l.clean(t)
	})
}

// Holds and late usage after the end of a period count toward the limit of that period.
func TestHoldsAcrossOrganizationPeriods(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		l := newLimited(t, f)
		ada, bob := l.member("ada"), l.member("bob")
		l.spendLimit(new(int64(100)))
		f.consume(t, ada, included, "a")
		f.now = l.subscription.CurrentPeriodEnd.Add(-time.Minute)
		a, err := f.Hold(f.ctx, by(ada), 3, "hold", time.Hour)
		l.must(err)
		b, err := f.Hold(f.ctx, by(bob), included, "hold", time.Hour)
		l.must(err)
		f.now = l.subscription.CurrentPeriodEnd.Add(10 * time.Minute)
		l.change(l.subscription, func() {
			l.subscription.CurrentPeriodStart = l.subscription.CurrentPeriodEnd
			l.subscription.CurrentPeriodEnd = new(l.subscription.CurrentPeriodEnd.AddDate(0, 1, 0))
		})
		l.wants(ada, included+4, models.OrganizationSpendLimitReached)
		l.wants(ada, included+3, "")
		_, err = f.Settle(f.ctx, a.Hold.ID, 2)
		l.must(err)
		l.clean(t)
		before := l.subscription.CurrentPeriodStart.Add(-time.Second)
		if over := l.late(bob, 3, before); over != 1 {
			t.Errorf("%d late units are billed, want 1", over)
		}
		f.now = f.now.Add(time.Hour) // bob's hold has expired
		if over := l.late(bob, 3, before); over != 0 {
			t.Errorf("%d late units beyond the limit are billed, want 0", over)
		}
		if _, err := f.Settle(f.ctx, b.Hold.ID, 2); err == nil {
			t.Error("an expired hold was settled")
		}
		l.clean(t)
	})
}

// A hold that expired before its period was learned is not counted in the record that it moves to.
func TestExpiredHoldMovesToLearnedPeriod(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		l := newLimited(t, f)
		ada := l.member("ada")
		l.spendLimit(new(int64(500)))
		f.consume(t, ada, included, "a")
		start := f.now.Add(time.Hour)
		f.now = start.Add(time.Hour)
		if _, err := f.Hold(f.ctx, by(ada), 5, "hold", time.Minute); err != nil {
			t.Fatal(err)
		}
		f.now = f.now.Add(time.Hour)
		l.change(l.subscription, func() {
			l.subscription.CurrentPeriodStart, l.subscription.BillingCycleAnchor = &start, &start
			l.subscription.CurrentPeriodEnd = new(start.AddDate(0, 1, 0))
		})
		l.wants(ada, 4, "")
		l.clean(t)
	})
}

// A limit that was removed still applies to late usage in the periods that ended under it.
func TestLateUsageAfterLimitWasRemoved(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		l := newLimited(t, f)
		ada := l.member("ada")
		bob := l.member("bob")
		l.spendLimit(new(int64(60)))
		f.consume(t, bob, included+1, "b")
		at := f.now
		f.now = l.subscription.CurrentPeriodEnd.Add(time.Hour)
		l.change(l.subscription, func() {
			l.subscription.CurrentPeriodStart = l.subscription.CurrentPeriodEnd
			l.subscription.CurrentPeriodEnd = new(l.subscription.CurrentPeriodEnd.AddDate(0, 1, 0))
		})
		l.spendLimit(nil)
		if over := l.late(ada, included+9, at); over != 1 {
			t.Errorf("%d late units are billed, want 1", over)
		}
		l.clean(t)
	})
}

// A person's own limit does not follow their Slack team to another organization.
func TestMemberLimitOfMovedTeam(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		l := newLimited(t, f)
		ada := l.member("ada")
		f.exec(t, "UPDATE users SET member_limit = 1 WHERE email = ?", ada)
		l.wants(ada, 2, models.MemberLimitReached)
		f.now = f.now.Add(time.Hour)
		l.organization(f.now, "Other", "T1")
		l.wants(ada, 2, "")
		l.clean(t)
	})
}

// Units whose hold expired while a member was out of the organization are not used up for the member
// who returns.
func TestExpiredHoldOfReturnedMember(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		l := newLimited(t, f)
		ada := l.member("ada")
		l.spendLimit(new(int64(1000)))
		f.consume(t, ada, 1, "a")
		_, err := f.Hold(f.ctx, by(ada), 10, "h", 10*time.Minute)
		l.must(err)
		at := f.now.Add(time.Minute)
		f.now = f.now.Add(5 * time.Minute)
		l.leave(f.now, ada)
		f.now = f.now.Add(time.Minute)
		f.consume(t, ada, 1, "out")
		f.now = f.now.Add(time.Hour)
		l.move(f.now, ada, l.id)
		f.now = f.now.Add(time.Minute)
		outcomes, err := f.Record(f.ctx, []enforcement.PastEvent{
			{Person: by(ada), Quantity: 1, IdempotencyKey: "late", OccurredAt: at},
			{Person: by(ada), Quantity: 1, IdempotencyKey: "now", OccurredAt: f.now},
		})
		l.must(err)
		if s := outcomes[1].Answer.Standing; s.Included != included-1 {
			t.Errorf("%d units are included after the return, want %d", s.Included, included-1)
		}
		l.clean(t)
	})
}
