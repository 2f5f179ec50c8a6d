package enforcement_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"tollgate/models"
	"tollgate/models/enforcement"
)

// limited is an organization with a spend limit and a plan: 2 units included for each member, and
// 30 cents for each unit beyond them.
type limited struct {
	payers
	id           uuid.UUID
	subscription *models.Subscription
}

func newLimited(t *testing.T, f *fixture) limited {
	t.Helper()
	p := payers{f, t}
	l := limited{payers: p, id: p.organization(f.now.Add(-60*day), "Acme", "T1")}
	l.subscription = p.subscribe("", &l.id, "team", "cus_acme", f.now.Add(-10*day))
	p.change(l.subscription, func() { l.subscription.OverageRateCents = new(int64(30)) })
	return l
}

func (l limited) member(name string) string {
	l.t.Helper()
	email := name + "@acme.example"
	l.join(l.now, email, "T1")
	return email
}

func (l limited) spendLimit(cents *int64) {
	l.t.Helper()
	l.must(models.SetOrganization(l.ctx, l.db, l.catalogue, l.now, "ada@acme.example", l.id,
		models.OrganizationChange{SpendLimit: &models.LimitChange{To: cents, Unseen: true}}))
}

func (l limited) memberLimit(units *int64) {
	l.t.Helper()
	l.must(models.SetOrganization(l.ctx, l.db, l.catalogue, l.now, "ada@acme.example", l.id,
		models.OrganizationChange{MemberLimit: &models.LimitChange{To: units, Unseen: true}}))
}

// row returns the organization's record of the current period; nil without one.
func (l limited) row() *models.OrganizationRecord {
	l.t.Helper()
	var rows []models.OrganizationRecord
	l.must(l.db.NewSelect().Model(&rows).Where("organization_id = ? AND billing_period_end > ?", l.id, l.now).Scan(l.ctx))
	switch len(rows) {
	case 0:
		return nil
	case 1:
		return &rows[0]
	}
	l.t.Fatalf("%d records of the organization's current period", len(rows))
	return nil
}

// spends checks what the organization's record has.
func (l limited) spends(what string, cents, held int64) {
	l.t.Helper()
	r := l.row()
	if r == nil || r.OverageCents != cents || r.OverageCentsHeld != held {
		l.t.Errorf("%s: the organization's record is %+v, want %d cents, and %d on hold", what, r, cents, held)
	}
	l.clean(l.t)
}

// wants checks the reason of a consume, and that a check says the same just before.
func (l limited) wants(email string, quantity int64, reason models.Reason) {
	l.t.Helper()
	checked, err := l.Check(l.ctx, by(email), quantity)
	l.must(err)
	a := l.consume(l.t, email, quantity, uuid.NewString())
	if a.Verdict.Reason != reason || a.Verdict.Allowed != (reason == "") {
		l.t.Errorf("%d units of %s: %+v, want %q", quantity, email, a.Verdict, reason)
	}
	if checked.Verdict != a.Verdict {
		l.t.Errorf("a check of %d units of %s: %+v, and the consume: %+v", quantity, email, checked.Verdict, a.Verdict)
	}
}

// included is what the team plan includes.
const included = 50

func TestOrganizationSpendLimit(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		l := newLimited(t, f)
		ada, bob := l.member("ada"), l.member("bob")
		f.consume(t, ada, included, "included")
		f.consume(t, ada, 2, "before the limit")
		f.consume(t, bob, included, "included")
		if l.row() != nil {
			t.Fatal("without a limit, there is a record of the organization")
		}

		l.spendLimit(new(int64(100)))
		l.spends("usage from before the limit", 60, 0)
		l.wants(bob, 2, models.OrganizationSpendLimitReached)
		l.wants(bob, 1, "")
		l.spends("up to the limit", 90, 0)
		l.wants(ada, 1, models.OrganizationSpendLimitReached)
		carl := l.member("carl")
		l.wants(carl, included, "")
		l.wants(carl, 1, models.OrganizationSpendLimitReached)

		l.spendLimit(new(int64(150)))
		l.wants(carl, 1, "")
		l.wants(ada, 2, models.OrganizationSpendLimitReached)
		l.spends("a raised limit", 120, 0)
		l.spendLimit(new(int64(30)))
		l.wants(ada, 1, models.OrganizationSpendLimitReached)
		l.spends("a limit below what was spent", 120, 0)

		l.spendLimit(nil)
		if l.row() != nil {
			t.Error("after the limit was removed, there still is a record of the organization")
		}
		l.wants(ada, 10, "")
		l.clean(t)
		l.spendLimit(new(int64(420)))
		l.spends("set again", 420, 0)
		l.wants(bob, 1, models.OrganizationSpendLimitReached)
	})
}

// The first limit that refuses names the reason.
func TestLimitsOfAdmins(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		l := newLimited(t, f)
		ada, bob := l.member("ada"), l.member("bob")
		l.memberLimit(new(int64(3)))
		l.spendLimit(new(int64(0)))
		f.consume(t, ada, 2, "a")
		l.wants(ada, 2, models.MemberLimitReached)
		l.wants(ada, 1, "")
		l.wants(ada, 1, models.MemberLimitReached)
		f.exec(t, "UPDATE users SET member_limit = ? WHERE email = ?", included+5, bob)
		l.wants(bob, included+1, models.OrganizationSpendLimitReached)
		l.wants(bob, included, "")
		l.spendLimit(new(int64(1000)))
		l.wants(bob, 6, models.MemberLimitReached)
		l.wants(bob, 5, "")
		l.memberLimit(nil)
		l.wants(ada, 1, "")
		l.wants(bob, 1, models.MemberLimitReached)
		f.now = f.now.Add(time.Hour)
		l.leave(f.now, bob)
		if a := f.consume(t, bob, 1, "left"); !a.Verdict.Allowed || a.Standing.MemberLimit != nil {
			t.Errorf("after leaving the organization: %+v", a)
		}
		l.spends("at the end", 150, 0)
	})
}

func TestHoldsCountTowardOrganizationLimit(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		l := newLimited(t, f)
		ada, bob := l.member("ada"), l.member("bob")
		f.consume(t, ada, included, "a")
		f.consume(t, bob, included, "b")
		l.spendLimit(new(int64(100)))
		hold := func(email, key string, quantity int64) *models.UsageHold {
			t.Helper()
			a, err := f.Hold(f.ctx, by(email), quantity, key, 2*time.Minute)
			l.must(err)
			return a.Hold
		}
		first := hold(ada, "1", 2)
		l.spends("a hold", 0, 60)
		if hold(bob, "2", 2) != nil {
			t.Error("a hold beyond the limit was allowed")
		}
		l.wants(bob, 1, "")
		if _, err := f.Settle(f.ctx, first.ID, 1); err != nil {
			t.Fatal(err)
		}
		l.spends("half of the hold was settled", 60, 0)
		second := hold(bob, "3", 1)
		l.wants(ada, 1, models.OrganizationSpendLimitReached)
		if _, err := f.Release(f.ctx, second.ID); err != nil {
			t.Fatal(err)
		}
		l.spends("a hold was released", 60, 0)
		hold(bob, "4", 1)
		l.wants(ada, 1, models.OrganizationSpendLimitReached)

		f.now = f.now.Add(3 * time.Minute)
		l.wants(ada, 1, "") // bob's hold has expired, and nothing else has noticed
		l.spends("a hold expired", 90, 0)
		hold(bob, "5", 1)
		l.spends("another hold is refused", 90, 0)
	})
}

// Events are recorded beyond each limit, and not billed.
func TestEventsBeyondOrganizationLimits(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		l := newLimited(t, f)
		ada, bob := l.member("ada"), l.member("bob")
		l.spendLimit(new(int64(100)))
		f.exec(t, "UPDATE users SET member_limit = ? WHERE email = ?", included+2, bob)
		record := func(email, key string, quantity, overage int64) {
			t.Helper()
			outcomes, err := f.Record(f.ctx, []enforcement.PastEvent{{Person: by(email), Quantity: quantity, IdempotencyKey: key,
				OccurredAt: f.now}})
			l.must(err)
			if v := outcomes[0].Answer.Verdict; !v.Allowed || v.Overage != overage {
				t.Errorf("%d units of %s: %+v, want %d of overage", quantity, email, v, overage)
			}
		}
		record(bob, "1", included+9, 2)
		l.spends("beyond the member limit", 60, 0)
		record(ada, "1", included+9, 1)
		record(ada, "2", 9, 0)
		l.spends("beyond the organization's limit", 90, 0)
	})
}

// The organization's record is exact when members and periods change.
func TestOrganizationRecordFollowsChanges(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		l := newLimited(t, f)
		ada, bob, carl := l.member("ada"), l.member("bob"), l.member("carl")
		f.consume(t, ada, included+1, "a")
		f.consume(t, bob, included+1, "b")
		f.now = f.now.Add(time.Hour)
		l.leave(f.now, bob)
		l.spendLimit(new(int64(200)))
		l.spends("with a person who left before the limit", 60, 0)
		f.consume(t, bob, 1, "free")
		f.now = f.now.Add(time.Hour)
		l.leave(f.now, ada)
		f.consume(t, ada, 1, "free")
		l.spends("with a person who left under the limit", 60, 0)
		f.now = f.now.Add(time.Hour)
		l.move(f.now, ada, l.id)
		l.wants(ada, 1, "") // included units are not given twice
		l.spends("with a person who came back", 90, 0)
		f.consume(t, carl, included+3, "c")
		l.wants(carl, 1, models.OrganizationSpendLimitReached)

		t.Run("the next period", func(t *testing.T) {
			f.now = l.subscription.CurrentPeriodEnd.Add(time.Hour)
			l.change(l.subscription, func() {
				l.subscription.CurrentPeriodStart = l.subscription.CurrentPeriodEnd
				l.subscription.CurrentPeriodEnd = new(l.subscription.CurrentPeriodEnd.AddDate(0, 1, 0))
			})
			l.wants(carl, included+6, "")
			l.spends("the next period", 180, 0)
			l.wants(ada, included+1, models.OrganizationSpendLimitReached)
			late, err := f.Record(f.ctx, []enforcement.PastEvent{{
				Person: by(carl), Quantity: 9, IdempotencyKey: "late", OccurredAt: l.subscription.CurrentPeriodStart.Add(-time.Minute),
			}})
			l.must(err)
			if v := late[0].Answer.Verdict; v.Overage != 0 {
				t.Errorf("late units beyond the limit of their period: %+v, want none billed", v)
			}
			l.spends("late usage", 180, 0)
		})
		t.Run("a period that ended earlier than known", func(t *testing.T) {
			f.consume(t, ada, included, "ada's")
			f.now = f.now.Add(time.Hour)
			start := f.now.Add(-30 * time.Minute)
			l.change(l.subscription, func() { l.subscription.CurrentPeriodStart = &start })
			l.wants(ada, included, "")
			l.clean(t)
		})
		t.Run("another plan", func(t *testing.T) {
			l.change(l.subscription, func() { l.subscription.PlanID = "business"; l.subscription.OverageRateCents = new(int64(20)) })
			l.wants(ada, included+1, "")
			l.clean(t)
		})
	})
}

// A change whose process ended in the middle is finished by any process.
func TestFinishSpendLimits(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		l := newLimited(t, f)
		const people = 250 // more than two steps
		for i := range people {
			f.consume(t, l.member(fmt.Sprintf("%03d", i)), included+1, "a")
		}
		l.spendLimit(new(int64(people * 30)))
		l.spends("all steps", people*30, 0)
		l.wants("001@acme.example", 1, models.OrganizationSpendLimitReached)

		f.exec(t, "UPDATE organization_records SET counted = FALSE, spend_limit_cents = NULL, overage_cents = 30 * (SELECT COUNT(*) "+
			"FROM usage_records WHERE email < '1')")
		f.exec(t, "UPDATE usage_records SET organization_record_id = NULL WHERE email >= '1'")
		l.wants("001@acme.example", 1, "") // the limit is not in force yet
		l.wants("200@acme.example", 1, "")
		l.must(models.FinishSpendLimits(f.ctx, f.db, f.catalogue, f.now, nil))
		l.spends("finished", people*30+60, 0)
		l.wants("001@acme.example", 1, models.OrganizationSpendLimitReached)

		f.exec(t, "UPDATE organizations SET spend_limit_cents = NULL")
		f.exec(t, "UPDATE organization_records SET spend_limit_cents = NULL")
		l.must(models.FinishSpendLimits(f.ctx, f.db, f.catalogue, f.now, nil))
		if l.row() != nil {
			t.Error("a removed limit still has a record")
		}
		l.clean(t)
	})
}

// A change that was prepared when the limit was another one changes nothing.
func TestLimitChangedMeanwhile(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		l := newLimited(t, f)
		l.spendLimit(new(int64(100)))
		set := func(change models.OrganizationChange) error {
			return models.SetOrganization(f.ctx, f.db, f.catalogue, f.now, "bob@acme.example", l.id, change)
		}
		for _, change := range []models.OrganizationChange{
			{SpendLimit: &models.LimitChange{To: new(int64(5))}},
			{SpendLimit: &models.LimitChange{To: new(int64(5)), Seen: new(int64(99))}},
			{MemberLimit: &models.LimitChange{To: new(int64(5)), Seen: new(int64(1))}, SpendLimit: &models.LimitChange{Unseen: true}},
		} {
			var e *models.Error
			if err := set(change); !errors.As(err, &e) || e.Code != models.CodeChangedMeanwhile {
				t.Errorf("%+v: %v, want %s", change, err, models.CodeChangedMeanwhile)
			}
		}
		if r := l.row(); r == nil || *r.SpendLimitCents != 100 {
			t.Errorf("the limit is %+v, want 100", r)
		}
		l.must(set(models.OrganizationChange{SpendLimit: &models.LimitChange{To: new(int64(5)), Seen: new(int64(100))}}))
		if r := l.row(); *r.SpendLimitCents != 5 {
			t.Errorf("the limit is %+v, want 5", r)
		}
	})
}

// Not one cent is allowed beyond the limit, whatever the order of the calls.
func TestConcurrentCallsNeverExceedAnOrganizationLimit(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		l := newLimited(t, f)
		gates := []*enforcement.Gate{f.Gate}
		if f.db.Postgres {
			gates = append(gates, f.another(t, 4096), f.another(t, 4096))
		}
		const people, limit = 20, 997
		var emails []string
		for i := range people {
			email := l.member(fmt.Sprintf("m%02d", i))
			f.consume(t, email, included-1, "a")
			emails = append(emails, email)
		}
		l.spendLimit(new(int64(limit)))
		var group sync.WaitGroup
		for worker := range 12 {
			random := rand.New(rand.NewPCG(uint64(worker), 17))
			group.Go(func() {
				for i := range 60 {
					g, email, key := gates[random.IntN(len(gates))], emails[random.IntN(people)], fmt.Sprint(worker, "-", i)
					if random.IntN(3) > 0 {
						if _, err := g.Consume(f.ctx, by(email), 1+int64(random.IntN(2)), key); err != nil {
							t.Error(err)
						}
						continue
					}
					a, err := g.Hold(f.ctx, by(email), 1+int64(random.IntN(3)), key, time.Minute)
					if err == nil && a.Hold != nil {
						if random.IntN(2) == 0 {
							_, err = g.Release(f.ctx, a.Hold.ID)
						} else {
							_, err = g.Settle(f.ctx, a.Hold.ID, 1)
						}
					}
					if err != nil {
						t.Error(err)
					}
				}
			})
		}
		group.Wait()
		r := l.row()
		if r.OverageCents+r.OverageCentsHeld > limit || r.OverageCents < limit-2*30 {
			t.Errorf("%d cents, and %d on hold, of %d", r.OverageCents, r.OverageCentsHeld, limit)
		}
		f.clean(t)
	})
}
