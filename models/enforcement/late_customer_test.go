package enforcement_test

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"tollgate/models"
	"tollgate/models/enforcement"
)

const day = 24 * time.Hour

// payers makes people and organizations buy plans, and people join and leave organizations.
type payers struct {
	*fixture
	t *testing.T
}

func (p payers) must(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

// subscribe writes a subscription as Stripe's webhooks do. It belongs to the organization or, if
// that is nil, to the person.
func (p payers) subscribe(
	email string, organization *uuid.UUID, plan models.PlanID, customer string, start time.Time,
) *models.Subscription {
	p.t.Helper()
	s := &models.Subscription{
		ID: uuid.New(), OrganizationID: organization, PlanID: plan, Status: models.StatusActive,
		StripeSubscriptionID: new("sub_" + customer), StripeCustomerID: &customer,
		CurrentPeriodStart: &start, CurrentPeriodEnd: new(start.AddDate(0, 1, 0)), BillingCycleAnchor: &start,
		CreatedAt: start, UpdatedAt: p.now,
	}
	if organization == nil {
		user, err := models.SetUser(p.ctx, p.db, p.now, email, models.UserChange{})
		p.must(err)
		s.UserID = &user.ID
	}
	_, err := p.db.NewInsert().Model(s).Exec(p.ctx)
	p.must(err)
	return s
}

// change changes the subscription and writes it.
func (p payers) change(s *models.Subscription, change func()) {
	p.t.Helper()
	change()
	s.UpdatedAt = p.now
	_, err := p.db.NewUpdate().Model(s).WherePK().Exec(p.ctx)
	p.must(err)
}

func (p payers) organization(founded time.Time, name string, teams ...string) uuid.UUID {
	p.t.Helper()
	o, err := models.CreateOrganization(p.ctx, p.db, founded, name, teams)
	p.must(err)
	return o.ID
}

// join links a person to a Slack team.
func (p payers) join(at time.Time, email, team string) {
	p.t.Helper()
	identity := models.SlackIdentity{TeamID: team, UserID: "U" + email[:3]}
	_, err := models.LinkPeople(p.ctx, p.db, at, []models.Link{{Email: email, Slack: identity}})
	p.must(err)
}

// move puts a person into an organization.
func (p payers) move(at time.Time, email string, organization uuid.UUID) {
	p.t.Helper()
	_, err := models.SetUser(p.ctx, p.db, at, email, models.UserChange{OrganizationID: &organization})
	p.must(err)
}

// leave removes a person from their organization.
func (p payers) leave(at time.Time, email string) {
	p.t.Helper()
	_, err := models.SetUser(p.ctx, p.db, at, email, models.UserChange{Leaves: true})
	p.must(err)
}

// late records usage late and checks its plan and its customer. An empty customer means that no one
// pays.
func (p payers) late(email string, occurred time.Time, customer string, plan models.PlanID) {
	p.t.Helper()
	key := uuid.NewString()
	outcomes, err := p.Record(p.ctx, []enforcement.PastEvent{
		{Person: by(email), Quantity: 3, IdempotencyKey: key, OccurredAt: occurred},
	})
	p.must(err)
	p.must(outcomes[0].Err)
	var e models.UsageEvent
	p.must(p.db.NewSelect().Model(&e).Where("idempotency_key = ?", key).Scan(p.ctx))
	got := ""
	if e.StripeCustomerID != nil {
		got = *e.StripeCustomerID
	}
	inPeriod := !e.OccurredAt.Before(e.BillingPeriodStart) && e.OccurredAt.Before(e.BillingPeriodEnd)
	if got != customer || e.PlanID != plan || !inPeriod {
		p.t.Errorf("%s at %s: customer %q on %s in the period from %s to %s; want customer %q on %s", email, occurred, got, e.PlanID,
			e.BillingPeriodStart.UTC(), e.BillingPeriodEnd.UTC(), customer, plan)
	}
}

// TestLateUsageIsBilledToTheCustomerAtItsTime checks that usage that is recorded late is billed to
// the customer who paid when it occurred, or to no one if no one paid.
func TestLateUsageIsBilledToTheCustomerAtItsTime(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		p := payers{f, t}
		noon := f.now
		at := noon.Add
		const hour = time.Hour
		acme := p.organization(at(-60*day), "Acme", "T9")
		p.subscribe("", &acme, "team", "cus_org", at(-10*day))
		// A workspace moves from the organization of its first call to one that pays.
		p.join(at(-5*day), "hal@example.com", "T11")
		beta := p.organization(at(-2*day), "Beta", "T11", "T12")
		p.subscribe("", &beta, "team", "cus_beta", at(-4*day))
		run := func(name string, do func(p payers)) {
			t.Helper()
			t.Run(name, func(t *testing.T) { do(payers{f, t}) })
		}
		run("no usage was recorded at that time", func(p payers) {
			p.subscribe("ada@example.com", nil, "pro", "cus_ada", at(-hour))
			p.late("ada@example.com", at(-2*day), "", "free")
			f.clean(p.t)
			p.late("ada@example.com", at(-time.Minute), "cus_ada", "pro")
			p.late("ada@example.com", at(-40*day), "", "free")
			if answer := f.consume(p.t, "ada@example.com", 1, "ada"); answer.Standing.Plan != "pro" || answer.Standing.Used != 4 {
				p.t.Errorf("ada has %d units on %s, want 4 on pro", answer.Standing.Used, answer.Standing.Plan)
			}
		})
		run("usage was recorded at that time", func(p payers) {
			f.consume(p.t, "bob@example.com", 1, "bob")
			f.now = at(hour)
			p.subscribe("bob@example.com", nil, "pro", "cus_bob", f.now)
			f.consume(p.t, "bob@example.com", 1, "bob 2")
			p.late("bob@example.com", at(-30*time.Minute), "", "free")
			p.late("bob@example.com", at(hour), "cus_bob", "pro")
		})
		run("people join an organization", func(p payers) {
			// People without a plan and with their own plan join an organization that pays. From then on,
			// their record has the organization's period.
			f.consume(p.t, "cyd@example.com", 1, "cyd")
			p.subscribe("dia@example.com", nil, "pro", "cus_dia", at(-day))
			f.consume(p.t, "dia@example.com", 1, "dia")
			f.now = at(2 * hour)
			p.join(f.now, "cyd@example.com", "T9")
			p.join(f.now, "dia@example.com", "T9")
			f.consume(p.t, "cyd@example.com", 1, "cyd 2")
			f.consume(p.t, "dia@example.com", 1, "dia 2")
			f.now = at(3 * hour)
			p.late("cyd@example.com", at(hour), "", "free")
			p.late("cyd@example.com", at(2*hour), "cus_org", "team")
			p.late("dia@example.com", at(hour), "cus_dia", "pro")
			p.late("dia@example.com", at(150*time.Minute), "cus_org", "team")
		})
		run("a person who is first seen in a team", func(p payers) {
			// Such a person counts as a member from the beginning.
			p.join(f.now, "eve@example.com", "T9")
			p.late("eve@example.com", at(-3*day), "cus_org", "team")
			p.late("eve@example.com", at(-11*day), "", "free")
		})
		run("a person without stored memberships", func(p payers) {
			// Such a person counts as a member from the beginning, too.
			p.join(at(-day), "lea@example.com", "T9")
			_, err := f.db.ExecContext(f.ctx, "DELETE FROM memberships WHERE user_id = (SELECT id FROM users WHERE email = 'lea@example.com')")
			p.must(err)
			p.late("lea@example.com", at(-3*day), "cus_org", "team")
		})
		run("a workspace moves to another organization", func(p payers) {
			// Inside that one, people move between workspaces without a change of payer.
			p.late("hal@example.com", at(-3*day), "", "free")
			p.late("hal@example.com", at(-day), "cus_beta", "team")
			p.join(f.now, "hal@example.com", "T12")
			p.late("hal@example.com", at(-3*day), "", "free")
			p.late("hal@example.com", at(-day), "cus_beta", "team")
			p.join(at(-9*day), "ivo@example.com", "T12")
			p.join(f.now, "ivo@example.com", "T11")
			p.late("ivo@example.com", at(-3*day), "cus_beta", "team")
		})
		run("a person moves to another organization and back", func(p payers) {
			// Each organization pays for its own time, also in a period that has ended.
			p.join(at(-40*day), "jim@example.com", "T9")
			p.move(at(-2*day), "jim@example.com", beta)
			f.now = at(4 * hour)
			p.move(at(-day), "jim@example.com", acme)
			p.late("jim@example.com", at(-3*day), "cus_org", "team")
			p.late("jim@example.com", at(-36*hour), "cus_beta", "team")
			p.late("jim@example.com", at(-12*hour), "cus_org", "team")
		})
		run("a person leaves an organization and joins it again", func(p payers) {
			p.join(at(-8*day), "mia@example.com", "T9")
			p.leave(at(-3*day), "mia@example.com")
			p.late("mia@example.com", at(-4*day), "cus_org", "team")
			p.late("mia@example.com", at(-2*day), "", "free")
			p.join(at(-day), "mia@example.com", "T9")
			p.late("mia@example.com", at(-2*day), "", "free")
			p.late("mia@example.com", at(-12*hour), "cus_org", "team")
		})
		run("a backdated subscription", func(p payers) {
			// Stripe bills it from the start of its period.
			backdated := p.subscribe("ida@example.com", nil, "pro", "cus_ida", at(-2*day))
			p.change(backdated, func() { backdated.CreatedAt = at(-hour) })
			p.late("ida@example.com", at(-day), "cus_ida", "pro")
			p.late("ida@example.com", at(-3*day), "", "free")
		})
		run("ended subscriptions", func(p payers) {
			// One has ended. The other one gave no plan for some time before its end. First, it is not
			// stored since when.
			gus := p.subscribe("gus@example.com", nil, "pro", "cus_gus", at(-20*day))
			kay := p.subscribe("kay@example.com", nil, "pro", "cus_kay", at(-20*day))
			f.consume(p.t, "gus@example.com", 1, "gus")
			f.consume(p.t, "kay@example.com", 1, "kay")
			f.now = at(6 * hour)
			p.change(gus, func() { gus.Status, gus.CancelAt = models.StatusCanceled, new(at(5*hour)) })
			p.late("gus@example.com", at(5*hour-time.Second), "cus_gus", "pro")
			p.late("gus@example.com", at(5*hour), "", "free")
			p.change(kay, func() { kay.Status = "unpaid" })
			p.late("kay@example.com", at(5*hour), "cus_kay", "pro")
			p.change(kay, func() {
				kay.Status, kay.CancelAt, kay.InactiveSince = models.StatusCanceled, new(at(6*hour)), new(at(2*hour))
			})
			// Prepare as the webhooks do. The units that are already recorded move.
			p.must(models.PrepareRecords(p.ctx, p.db, f.catalogue, p.now, []models.RecordKey{{Email: "kay@example.com", At: p.now}}))
			p.late("kay@example.com", at(hour), "cus_kay", "pro")
			p.late("kay@example.com", at(3*hour), "", "free")
		})
		f.clean(t)
	})
}

// TestRecordsOfThePastFit makes people buy, join, leave and use units, and records much of it late.
// It checks that no two records of a person overlap, that each event lies in the period of its
// figures, and that a recount finds no difference.
func TestRecordsOfThePastFit(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		p := payers{f, t}
		base := f.now
		for seed := range uint64(6) {
			rng := rand.New(rand.NewPCG(seed, 7))
			minutes := func(within time.Duration) time.Duration {
				return time.Duration(rng.Int64N(int64(within/time.Minute))) * time.Minute
			}
			f.now = base.Add(minutes(40 * day))
			email := func() string { return fmt.Sprintf("%d%d0@example.com", seed, rng.IntN(2)) }
			var teams [2]string
			var organizations [2]uuid.UUID
			for i := range teams {
				teams[i] = fmt.Sprintf("T%dx%d", seed, i)
				organizations[i] = p.organization(f.now.Add(-60*day), teams[i], teams[i])
			}
			var subscriptions []*models.Subscription
			for step := range 25 {
				f.now = f.now.Add(minutes(3 * day))
				switch who := email(); rng.IntN(10) {
				case 0:
					s := p.subscribe(who, nil, "pro", uuid.NewString(), f.now.Add(-minutes(25*day)))
					subscriptions = append(subscriptions, s)
				case 1:
					s := p.subscribe("", &organizations[rng.IntN(2)], "team", uuid.NewString(), f.now.Add(-minutes(25*day)))
					p.change(s, func() { s.CreatedAt, s.BillingCycleAnchor = f.now, new(s.CurrentPeriodStart.Add(-minutes(20*day))) })
					subscriptions = append(subscriptions, s)
				case 2:
					if len(subscriptions) == 0 {
						break
					}
					s := subscriptions[rng.IntN(len(subscriptions))]
					p.change(s, func() {
						switch rng.IntN(3) {
						case 0:
							s.Status = "unpaid"
						case 1:
							s.Status, s.CancelAt = models.StatusCanceled, new(f.now.Add(-minutes(10*time.Hour)))
						case 2: // a new period starts now
							s.CurrentPeriodStart, s.CurrentPeriodEnd, s.BillingCycleAnchor = new(f.now), new(f.now.AddDate(0, 1, 0)), new(f.now)
						}
					})
				case 3:
					p.join(f.now, who, teams[rng.IntN(2)])
				case 4:
					p.leave(f.now, who)
				case 5:
					f.consume(t, who, 1, uuid.NewString())
				default:
					occurred := f.now.Add(-minutes(45 * day))
					if rng.IntN(8) == 0 {
						occurred = f.now.Add(minutes(5 * time.Minute))
					}
					var batch []enforcement.PastEvent
					for range 1 + rng.IntN(2) {
						batch = append(batch, enforcement.PastEvent{
							Person: by(who), Quantity: 1, IdempotencyKey: uuid.NewString(), OccurredAt: occurred,
						})
						occurred = occurred.Add(-minutes(5 * day))
					}
					outcomes, err := f.Record(f.ctx, batch)
					p.must(err)
					for _, o := range outcomes {
						p.must(o.Err)
					}
				}
				var overlaps, outside int
				p.must(f.db.NewRaw(`SELECT COUNT(*) FROM usage_records a JOIN usage_records b ON b.email = a.email AND b.id <> a.id
					AND b.billing_period_start >= a.billing_period_start AND b.billing_period_start < a.billing_period_end`).Scan(f.ctx, &overlaps))
				p.must(f.db.NewRaw(`SELECT COUNT(*) FROM usage_events
					WHERE occurred_at < billing_period_start OR occurred_at >= billing_period_end`).Scan(f.ctx, &outside))
				if overlaps > 0 || outside > 0 {
					t.Fatalf("seed %d, step %d: %d overlaps, %d events outside of their period", seed, step, overlaps, outside)
				}
			}
			f.clean(t)
		}
	})
}

// TestLateUsageDoesNotWaitForPages checks that the gate, which has its own connections, continues
// while all other connections are in use.
func TestLateUsageDoesNotWaitForPages(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		p := payers{f, t}
		f.consume(t, "ada@example.com", 1, "ada")
		f.consume(t, "bob@example.com", 1, "bob")
		f.db.SetMaxOpenConns(1)
		conn, err := f.db.DB.DB.Conn(f.ctx)
		p.must(err)
		defer func() { _ = conn.Close() }()
		start := time.Now()
		var wg sync.WaitGroup
		wg.Go(func() {
			outcomes, err := f.Record(f.ctx, []enforcement.PastEvent{
				{Person: by("ada@example.com"), Quantity: 1, IdempotencyKey: "late", OccurredAt: f.now.Add(-time.Minute)},
			})
			if err != nil || outcomes[0].Err != nil {
				t.Errorf("late usage: %v, %v", err, outcomes)
			}
		})
		wg.Go(func() {
			if _, err := f.Consume(f.ctx, by("bob@example.com"), 1, "bob 2"); err != nil {
				t.Error(err)
			}
		})
		wg.Wait()
		if took := time.Since(start); took > 2*time.Second {
			t.Errorf("the calls took %s", took)
		}
	})
}
