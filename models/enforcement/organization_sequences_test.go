package enforcement_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/uuid"

	"tollgate/models"
	"tollgate/models/enforcement"
	"tollgate/models/modelstest"
)

var organizationSequences = flag.Int("organization-sequences", 4,
	"how many random sequences TestOrganizationSequences makes on each database")

// TestOrganizationSequences makes random calls for the members of an organization, while they come
// and go, limits are set and removed, and the subscription, its payer and its periods change. After
// each step, the organization's record is the sum of what it counts, and a check agrees with the
// consume after it.
func TestOrganizationSequences(t *testing.T) {
	for _, kind := range []struct {
		name string
		make func(testing.TB) string
	}{
		{"sqlite", modelstest.SQLite},
		{"postgres", modelstest.Postgres},
	} {
		for seed := range *organizationSequences {
			t.Run(fmt.Sprintf("%s, seed %d", kind.name, seed), func(t *testing.T) {
				s := newOrganizationSequence(t, newFixture(t, kind.make(t)), seed)
				for range 80 {
					s.step()
					if s.clean(t); t.Failed() {
						t.Fatalf("the steps were:\n%s", s.steps)
					}
				}
				s.finish()
			})
		}
	}
}

type organizationSequence struct {
	limited
	*rand.Rand

	emails []string
	out    map[string]bool // the people who are not in the organization
	holds  []uuid.UUID
	n      int    // of steps
	steps  string // for the log of a failure
}

func newOrganizationSequence(t *testing.T, f *fixture, seed int) *organizationSequence {
	t.Helper()
	s := &organizationSequence{
		limited: newLimited(t, f), Rand: rand.New(rand.NewPCG(uint64(seed), 1)), out: map[string]bool{},
	}
	for i := range 4 {
		s.emails = append(s.emails, s.member(fmt.Sprintf("m%d2", i)))
	}
	return s
}

func (s *organizationSequence) say(format string, args ...any) {
	s.steps += s.now.Format("Jan 2 15:04 ") + fmt.Sprintf(format, args...) + "\n"
}

// ago returns an instant in the last days.
func (s *organizationSequence) ago(days int) time.Time {
	return s.now.Add(-time.Duration(s.IntN(days*24*60)) * time.Minute)
}

func (s *organizationSequence) step() {
	s.n++
	email, quantity := s.emails[s.IntN(len(s.emails))], int64(1+s.IntN(30))
	switch k := s.IntN(18); {
	case k < 7:
		s.checkAndConsume(email, quantity)
	case k < 9:
		a, err := s.Hold(s.ctx, by(email), quantity, uuid.NewString(), time.Duration(1+s.IntN(200))*time.Minute)
		s.must(err)
		s.say("hold %d for %s: %+v", quantity, email, a.Verdict)
		if a.Hold != nil {
			s.holds = append(s.holds, a.Hold.ID)
		}
	case k < 11:
		s.closeHold()
	case k < 13:
		at := s.ago(40)
		outcomes, err := s.Record(s.ctx, []enforcement.PastEvent{{Person: by(email), Quantity: quantity, IdempotencyKey: uuid.NewString(),
			OccurredAt: at}})
		s.must(err)
		s.say("late %d of %s at %s: %+v", quantity, email, at, outcomes[0].Answer.Verdict)
	case k < 14:
		if s.out[email] {
			s.move(s.now, email, s.id)
		} else {
			s.leave(s.now, email)
		}
		s.out[email] = !s.out[email]
		s.say("%s is out: %t", email, s.out[email])
	case k < 16:
		var limit *int64
		if s.IntN(3) > 0 {
			limit = new(int64(s.IntN(4000)))
		}
		s.spendLimit(limit)
		s.say("limit %v", limit)
	case k < 17:
		s.changePlan(email)
	default:
		s.must(models.FinishSpendLimits(s.ctx, s.db, s.catalogue, s.now, nil))
	}
	s.now = s.now.Add(time.Duration(s.IntN(24*60)) * time.Minute)
}

func (s *organizationSequence) checkAndConsume(email string, quantity int64) {
	checked, err := s.Check(s.ctx, by(email), quantity)
	s.must(err)
	a := s.consume(s.t, email, quantity, uuid.NewString())
	s.say("consume %d of %s: %+v", quantity, email, a.Verdict)
	if checked.Verdict != a.Verdict {
		s.t.Errorf("a check says %+v, and the consume %+v", checked.Verdict, a.Verdict)
	}
	if a.Verdict.OverageCents == 0 {
		return
	}
	over, err := s.db.NewSelect().TableExpr("organization_records AS o").Join("JOIN usage_records AS r ON r.organization_record_id = o.id").
		Where("r.email = ? AND r.billing_period_end > ? AND o.overage_cents + o.overage_cents_held > o.spend_limit_cents", email, s.now).
		Exists(s.ctx)
	if s.must(err); over {
		s.t.Error("a consume exceeded the organization's limit")
	}
}

func (s *organizationSequence) closeHold() {
	if len(s.holds) == 0 {
		return
	}
	i := s.IntN(len(s.holds))
	var err error
	if s.IntN(2) == 0 {
		_, err = s.Settle(s.ctx, s.holds[i], 1)
	} else {
		_, err = s.Release(s.ctx, s.holds[i])
	}
	s.say("a hold ends: %v", err) // it may have expired
	s.holds = append(s.holds[:i], s.holds[i+1:]...)
}

// changePlan changes the organization's subscription, or gives a person their own one.
func (s *organizationSequence) changePlan(email string) {
	sub := s.subscription
	switch s.IntN(9) {
	case 0: // the period gets longer or shorter
		s.change(sub, func() {
			sub.CurrentPeriodEnd = new(sub.CurrentPeriodEnd.Add(time.Duration(s.IntN(20)-10) * day))
			if !sub.CurrentPeriodEnd.After(*sub.CurrentPeriodStart) {
				sub.CurrentPeriodEnd = new(sub.CurrentPeriodStart.AddDate(0, 1, 0))
			}
		})
		s.say("the period ends at %s", sub.CurrentPeriodEnd)
	case 1:
		s.change(sub, func() {
			if sub.Status = models.StatusActive; s.IntN(2) == 0 {
				sub.Status = models.StatusCanceled
			}
		})
		s.say("the subscription is %s", sub.Status)
	case 2:
		s.change(sub, func() { sub.Status = models.StatusCanceled })
		s.subscription = s.subscribe("", &s.id, "team", fmt.Sprint("cus_", s.n), s.ago(5))
		s.change(s.subscription, func() { s.subscription.OverageRateCents = new(int64(30)) })
		s.say("another customer pays from %s on", s.subscription.CurrentPeriodStart)
	case 3:
		own := s.subscribe(email, nil, "starter", fmt.Sprint("cus_own", s.n), s.now)
		s.change(own, func() { own.OverageRateCents = new(int64(35)) })
		s.say("%s buys a plan", email)
	case 4:
		s.change(sub, func() { sub.Status = models.StatusCanceled })
		_, err := models.Subscribe(s.ctx, s.db, s.catalogue, s.now, models.Subscriber{OrganizationID: &s.id}, "team")
		s.say("a plan by hand: %v", err)
	default: // the next period begins, or began earlier than known
		s.change(sub, func() {
			start := *sub.CurrentPeriodEnd
			if !start.Before(s.now) || s.IntN(3) == 0 {
				start = s.ago(3)
			}
			sub.CurrentPeriodStart, sub.BillingCycleAnchor, sub.CurrentPeriodEnd = &start, &start, new(start.AddDate(0, 1, 0))
		})
		s.say("the period begins at %s", sub.CurrentPeriodStart)
	}
}

// finish checks that all changes of limits come to an end.
func (s *organizationSequence) finish() {
	for range 3 {
		s.must(models.FinishSpendLimits(s.ctx, s.db, s.catalogue, s.now, nil))
	}
	s.clean(s.t)
	left, err := s.db.NewSelect().Model((*models.OrganizationRecord)(nil)).Where("NOT counted OR spend_limit_cents IS NULL").Exists(s.ctx)
	if s.must(err); left || s.t.Failed() {
		s.t.Fatalf("a change of a limit has not finished: %t. The steps were:\n%s", left, s.steps)
	}
}
