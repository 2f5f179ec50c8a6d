package models_test

import (
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"

	"tollgate/models"
)

// current prepares a person's record at a time and returns it. It must equal what was foreseen,
// unless events moved or holds expired, which the gate does not foresee.
func (f *fixture) current(t *testing.T, email string, now time.Time) models.UsageRecord {
	t.Helper()
	key := models.RecordKey{Email: email, At: now}
	ahead, err := models.ReadAhead(f.ctx, f.db, f.catalogue, now, []models.RecordKey{key})
	if err != nil {
		t.Fatal(err)
	}
	before, err := models.CurrentUsage(f.ctx, f.db, now, email)
	if err != nil {
		t.Fatal(err)
	}
	foreseen, _, moves := ahead.Standing(key, before)
	lapsed := before != nil && before.HoldsExpireAt != nil && !before.HoldsExpireAt.After(now)
	if err := models.PrepareRecords(f.ctx, f.db, f.catalogue, now, []models.RecordKey{{Email: email, At: now}}); err != nil {
		t.Fatal(err)
	}
	r, err := models.CurrentUsage(f.ctx, f.db, now, email)
	if err != nil || r == nil {
		t.Fatalf("no record of %s at %v: %v", email, now, err)
	}
	s, ready := f.catalogue.Standing(r, now)
	if !ready {
		t.Errorf("at %v, the record is not ready: %+v", now, r)
	}
	foreseen.UserID = r.UserID
	if foreseen != s && !moves && !lapsed {
		t.Errorf("at %v, the foreseen standing was\n%+v, it is\n%+v", now, foreseen, s)
	}
	return *r
}

// count stores a record's figures after a decision, as the gate does.
func (f *fixture) count(t *testing.T, r *models.UsageRecord, s models.Standing) {
	t.Helper()
	f.exec(t, `UPDATE usage_records SET suggestions_used = ?, overage_used = ?, overage_cents = ?, units_held = ?,
		overage_held = ?, overage_cents_held = ?,
		daily = ?, holds_expire_at = ? WHERE user_id = ? AND id = ?`,
		s.Used, s.Overage, s.OverageCents, s.Held, s.OverageHeld, s.OverageCentsHeld, r.Daily, r.HoldsExpireAt, r.UserID, r.ID)
}

// event adds an event to the ledger.
func (f *fixture) event(t *testing.T, r *models.UsageRecord, now time.Time, quantity int64, v models.Verdict, s *models.Standing,
	hold *uuid.UUID) models.UsageEvent {
	t.Helper()
	s.Add(quantity, v)
	r.Daily = r.Daily.Add(models.DayOf(r.BillingPeriodStart, now), quantity)
	e := models.UsageEvent{
		ID: newID(), UserID: r.UserID, RecordID: r.ID, Email: r.Email, Quantity: quantity, OverageQuantity: v.Overage,
		OverageCents: v.OverageCents, HoldID: hold,
		OccurredAt: now, RecordedAt: now, Figures: s.Figures(), StripeCustomerID: r.StripeCustomerID,
	}
	if hold == nil {
		e.IdempotencyKey = ptr(e.ID.String())
	}
	f.insert(t, &e)
	f.count(t, r, *s)
	return e
}

// consume decides and records as the gate does.
func (f *fixture) consume(t *testing.T, email string, now time.Time, quantity int64) models.Verdict {
	t.Helper()
	r := f.current(t, email, now)
	s, _ := f.catalogue.Standing(&r, now)
	v := models.Decide(s, quantity)
	if v.Allowed {
		f.event(t, &r, now, quantity, v, &s, nil)
	}
	return v
}

// hold sets units aside as the gate does.
func (f *fixture) hold(t *testing.T, email string, now, expires time.Time, quantity int64) *models.UsageHold {
	t.Helper()
	r := f.current(t, email, now)
	s, _ := f.catalogue.Standing(&r, now)
	v := models.Decide(s, quantity)
	s.Hold(quantity, v)
	h := &models.UsageHold{
		ID: models.NewHoldID(r.UserID), UserID: r.UserID, RecordID: r.ID, Email: email, Quantity: quantity, OverageQuantity: v.Overage,
		OverageCents:   v.OverageCents,
		IdempotencyKey: newID().String(), State: models.HoldOpen, ExpiresAt: expires, CreatedAt: now, Figures: s.Figures(),
	}
	f.insert(t, h)
	if r.HoldsExpireAt == nil || expires.Before(*r.HoldsExpireAt) {
		r.HoldsExpireAt = &expires
	}
	f.count(t, &r, s)
	return h
}

// settle turns a hold into an event as the gate does.
func (f *fixture) settle(t *testing.T, h *models.UsageHold, now time.Time, quantity int64) models.UsageEvent {
	t.Helper()
	r := f.current(t, h.Email, now)
	s, _ := f.catalogue.Standing(&r, now)
	s.Hold(-h.Quantity, models.Verdict{Overage: -h.OverageQuantity, OverageCents: -h.OverageCents})
	f.exec(t, "UPDATE usage_holds SET state = 'settled' WHERE user_id = ? AND id = ?", h.UserID, h.ID)
	return f.event(t, &r, now, quantity, models.Settle(s, h, quantity), &s, &h.ID)
}

// history returns a person's records, oldest first.
func (f *fixture) history(t *testing.T) []models.UsageRecord {
	t.Helper()
	return all[models.UsageRecord](t, f, "email", "billing_period_start")
}

// wantRecord compares the fields that the tests check.
func wantRecord(t *testing.T, r *models.UsageRecord, start, end time.Time, payer string, included, before, used, overage, cents int64) {
	t.Helper()
	got := []int64{r.SuggestionsIncluded, r.IncludedBefore, r.SuggestionsUsed, r.OverageUsed, r.OverageCents}
	want := []int64{included, before, used, overage, cents}
	if p := r.Period(); !p.Start.Equal(start) || !p.End.Equal(end) || r.Payer == nil || *r.Payer != payer || !slices.Equal(got, want) {
		t.Errorf("the record from %v to %v of the payer %q has %d included, %d before, %d used, %d of them overage for %d cents;\nwant "+
			"from %v to %v, %q, %d",
			p.Start, p.End, deref(r.Payer), got[0], got[1], got[2], got[3], got[4], start, end, payer, want)
	}
}

func (f *fixture) wantVerified(t *testing.T) {
	t.Helper()
	if lines := f.verify(t); len(lines) > 0 {
		t.Errorf("verify: %q", lines)
	}
}

func hours(n float64) time.Time { return noon.Add(time.Duration(n * float64(time.Hour))) }

const ada = "ada@example.com" // the person in the tests of this file

// A person with their own plan is in an organization without one. When the organization gets a plan
// by hand, it pays from then on, and not from when the person joined.
func TestAnOrganizationStartsToPay(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		acme := f.organization(t, hours(-1), "Acme", "T1")
		start := hours(-2)
		f.bought(t, start)
		if _, err := models.SetUser(f.ctx, f.db, noon, ada, models.UserChange{OrganizationID: &acme}); err != nil {
			t.Fatal(err)
		}
		f.consume(t, ada, hours(1), 3)
		if _, err := models.Subscribe(f.ctx, f.db, f.catalogue, hours(2), models.Subscriber{OrganizationID: &acme}, "team"); err != nil {
			t.Fatal(err)
		}
		f.consume(t, ada, hours(3), 2)
		r := f.history(t)
		if len(r) != 2 {
			t.Fatalf("%d records, want 2: %+v", len(r), r)
		}
		wantRecord(t, &r[0], start, hours(2), "cus_1", 75, 0, 3, 0, 0)
		wantRecord(t, &r[1], hours(2), november.End, "organization:"+acme.String(), 50, 0, 2, 0, 0)
		f.wantVerified(t)
	})
}

// A person joins an organization that has a plan by hand, leaves it, gets plans by hand, and then
// buys one.
func TestAChangeOfPayerEndsTheRecord(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		acme := f.organization(t, noon, "Acme", "T1")
		give := func(now time.Time, subscriber models.Subscriber, plan models.PlanID) {
			t.Helper()
			if _, err := models.Subscribe(f.ctx, f.db, f.catalogue, now, subscriber, plan); err != nil {
				t.Fatal(err)
			}
		}
		set := func(now time.Time, change models.UserChange) {
			t.Helper()
			if _, err := models.SetUser(f.ctx, f.db, now, ada, change); err != nil {
				t.Fatal(err)
			}
		}
		byHand := "organization:" + acme.String()
		give(hours(-1), models.Subscriber{OrganizationID: &acme}, "team")
		f.consume(t, ada, noon, 3)
		set(hours(1), models.UserChange{OrganizationID: &acme})
		f.consume(t, ada, hours(2), 51)
		// Another plan by hand does not change the payer. It raises the included units, and billed units
		// stay billed.
		give(hours(2.5), models.Subscriber{OrganizationID: &acme}, "business")
		f.consume(t, ada, hours(2.6), 4)
		r := f.history(t)
		if len(r) != 2 {
			t.Fatalf("%d records in the organization, want 2", len(r))
		}
		wantRecord(t, &r[0], november.Start, hours(1), "", 5, 0, 3, 0, 0)
		wantRecord(t, &r[1], hours(1), november.End, byHand, 100, 0, 55, 1, 25)
		// A person who leaves has the remaining units.
		set(hours(3), models.UserChange{Leaves: true})
		if v := f.consume(t, ada, hours(4), 3); v.Reason != models.IncludedExhausted {
			t.Errorf("3 units of the 2 left: %+v", v)
		}
		if v := f.consume(t, ada, hours(4), 2); !v.Allowed {
			t.Errorf("2 units of the 2 left: %+v", v)
		}
		give(hours(5), models.Subscriber{Email: ada}, "starter")
		give(hours(6), models.Subscriber{Email: ada}, "pro")
		f.consume(t, ada, hours(6), 71) // 5 of the 75 are used
		r = f.history(t)
		if len(r) != 3 {
			t.Fatalf("%d records with plans by hand, want 3", len(r))
		}
		wantRecord(t, &r[1], hours(1), hours(3), byHand, 100, 0, 55, 1, 25)
		wantRecord(t, &r[2], hours(3), november.End, "", 72, 3, 73, 1, 30)
		// The person returns to the organization, and then to their own plan. Each continues.
		set(hours(7), models.UserChange{OrganizationID: &acme})
		f.consume(t, ada, hours(7.5), 1)
		set(hours(8), models.UserChange{Leaves: true})
		f.consume(t, ada, hours(8.5), 1)
		r = f.history(t)
		if len(r) != 5 {
			t.Fatalf("%d records after returning twice, want 5", len(r))
		}
		wantRecord(t, &r[3], hours(7), hours(8), byHand, 100-54, 54, 1, 0, 0)
		wantRecord(t, &r[4], hours(8), november.End, "", 0, 75, 1, 1, 30)
		// The person buys a plan.
		start, end := hours(9), hours(9).AddDate(0, 1, 0)
		f.insert(t, &models.Subscription{
			ID: newID(), UserID: &r[0].UserID, PlanID: "starter", Status: models.StatusActive, StripeSubscriptionID: ptr("sub_1"),
			StripeCustomerID:   ptr("cus_1"),
			BillingCycleAnchor: &start, CurrentPeriodStart: &start, CurrentPeriodEnd: &end, OverageRateCents: ptr(int64(33)),
			CreatedAt: start, UpdatedAt: start,
		})
		f.consume(t, ada, hours(10), 26)
		r = f.history(t)
		if len(r) != 6 {
			t.Fatalf("%d records with a bought plan, want 6", len(r))
		}
		wantRecord(t, &r[4], hours(8), start, "", 0, 75, 1, 1, 30)
		wantRecord(t, &r[5], start, end, "cus_1", 25, 0, 26, 1, 33)
		f.wantVerified(t)
	})
}

// The period of an organization's plan began before a person joins, and continues when the person
// returns. Nothing is carried over to the next period.
func TestReturningToAStripePayer(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		acme := f.organization(t, noon, "Acme", "T1")
		start := time.Date(2026, 11, 10, 8, 30, 0, 0, time.UTC)
		end := start.AddDate(0, 1, 0)
		f.insert(t, &models.Subscription{
			ID: newID(), OrganizationID: &acme, PlanID: "team", Status: models.StatusActive, StripeSubscriptionID: ptr("sub_1"),
			StripeCustomerID:   ptr("cus_9"),
			BillingCycleAnchor: &start, CurrentPeriodStart: &start, CurrentPeriodEnd: &end, OverageRateCents: ptr(int64(20)),
			CreatedAt: start, UpdatedAt: start,
		})
		move := func(now time.Time, change models.UserChange) {
			t.Helper()
			if _, err := models.SetUser(f.ctx, f.db, now, ada, change); err != nil {
				t.Fatal(err)
			}
		}
		f.consume(t, ada, noon, 1)
		move(hours(1), models.UserChange{OrganizationID: &acme})
		f.consume(t, ada, hours(2), 52) // 2 of them overage, which uses no included units
		f.hold(t, ada, hours(2.5), hours(2.6), 4)
		move(hours(3), models.UserChange{Leaves: true})
		f.consume(t, ada, hours(4), 1)
		move(hours(5), models.UserChange{OrganizationID: &acme})
		f.exec(t, "UPDATE subscriptions SET plan_id = 'business'") // the plan changes immediately: 50 of 100 are left
		f.consume(t, ada, hours(6), 60)
		r := f.history(t)
		if len(r) != 4 {
			t.Fatalf("%d records, want 4", len(r))
		}
		wantRecord(t, &r[0], november.Start, hours(1), "", 5, 0, 1, 0, 0)
		wantRecord(t, &r[1], hours(1), hours(3), "cus_9", 50, 0, 52, 2, 40)
		wantRecord(t, &r[2], hours(3), hours(5), "", 4, 1, 1, 0, 0)
		wantRecord(t, &r[3], hours(5), end, "cus_9", 50, 50, 60, 10, 200)
		next := end.Add(time.Hour)
		f.consume(t, ada, next, 101)
		last := f.current(t, ada, next)
		wantRecord(t, &last, end, end.AddDate(0, 1, 0), "cus_9", 100, 0, 101, 1, 20)
		f.wantVerified(t)
	})
}

// The rate of a subscription comes from its item at Stripe. A trial includes units and bills
// nothing.
func TestRatesOfSubscriptions(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		user, end := f.user(t, ada), noon.AddDate(0, 1, 0)
		sub := models.Subscription{
			ID: newID(), UserID: &user, PlanID: "starter", Status: models.StatusTrialing, StripeSubscriptionID: ptr("sub_1"),
			StripeCustomerID:   ptr("cus_1"),
			BillingCycleAnchor: ptr(noon), CurrentPeriodStart: ptr(noon), CurrentPeriodEnd: &end, OverageRateCents: ptr(int64(17)),
			CreatedAt: noon, UpdatedAt: noon,
		}
		f.insert(t, &sub)
		if v := f.consume(t, ada, hours(1), 26); v.Reason != models.IncludedExhausted {
			t.Errorf("overage in a trial: %+v", v)
		}
		if v := f.consume(t, ada, hours(1), 25); !v.Allowed {
			t.Errorf("included units in a trial: %+v", v)
		}
		for _, step := range []struct {
			change string
			want   models.Verdict
		}{
			{"status = 'active'", models.Verdict{Allowed: true, Overage: 1, OverageCents: 17}},
			{"status = 'past_due'", models.Verdict{Reason: models.PaymentPastDue}},
			{"status = 'active', overage_rate_cents = 19", models.Verdict{Allowed: true, Overage: 1, OverageCents: 19}},
			{"overage_rate_cents = NULL", models.Verdict{Reason: models.IncludedExhausted}},
			{"overage_rate_cents = 0, overage_problem = 'tiered'", models.Verdict{Reason: models.IncludedExhausted}},
			{"stripe_subscription_id = NULL, stripe_customer_id = NULL, overage_rate_cents = NULL",
				models.Verdict{Allowed: true, Overage: 1, OverageCents: 35}},
		} {
			f.exec(t, "UPDATE subscriptions SET "+step.change)
			if v := f.consume(t, ada, hours(2), 1); v != step.want {
				t.Errorf("%s: %+v, want %+v", step.change, v, step.want)
			}
			f.wantVerified(t)
		}
	})
}

// bought gives ada a plan at Stripe from a time; restart begins another period of it.
func (f *fixture) bought(t *testing.T, start time.Time) {
	t.Helper()
	user, end := f.user(t, ada), start.AddDate(0, 1, 0)
	f.insert(t, &models.Subscription{
		ID: newID(), UserID: &user, PlanID: "pro", Status: models.StatusActive, StripeSubscriptionID: ptr("sub_1"),
		StripeCustomerID:   ptr("cus_1"),
		BillingCycleAnchor: &start, CurrentPeriodStart: &start, CurrentPeriodEnd: &end, OverageRateCents: ptr(int64(30)), CreatedAt: start,
		UpdatedAt: start,
	})
}

func (f *fixture) restart(t *testing.T, start, end time.Time) {
	t.Helper()
	f.exec(t, "UPDATE subscriptions SET billing_cycle_anchor = ?, current_period_start = ?, current_period_end = ?", start, start, end)
}

// A new period from 07:30 becomes known at 09:00. The usage and holds since then move to it, as
// they were decided.
func TestAPeriodLearnedLate(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		clock := func(hour, minute int) time.Time { return time.Date(2026, 11, 23, hour, minute, 0, 0, time.UTC) }
		start, boundary := time.Date(2026, 11, 10, 0, 0, 0, 0, time.UTC), clock(7, 30)
		f.bought(t, start)
		f.consume(t, ada, clock(0, 0).AddDate(0, 0, -3), 68)
		f.consume(t, ada, clock(7, 10), 5)
		settled := f.hold(t, ada, clock(7, 20), clock(9, 20), 2) // the last included units
		early := f.hold(t, ada, clock(7, 25), clock(9, 25), 1)
		f.event(t, ptr(f.current(t, ada, clock(7, 29))), clock(7, 29), 1, models.Verdict{Overage: 1, OverageCents: 30}, &models.Standing{
			Plan: "pro", Period: models.Period{Start: start, End: start.AddDate(0, 1, 0)}, Used: 73, Held: 3, OverageHeld: 1,
			OverageCentsHeld: 30, Included: 75, OverageRateCents: 30,
		}, nil)
		f.consume(t, ada, boundary, 3)
		moved := f.settle(t, settled, clock(7, 40), 2)
		f.consume(t, ada, clock(7, 50), 7)
		late := f.hold(t, ada, clock(8, 58), clock(9, 10), 2)
		end := boundary.AddDate(0, 1, 0)
		f.restart(t, boundary, end)
		f.current(t, ada, clock(9, 0))
		r := f.history(t)
		if len(r) != 2 {
			t.Fatalf("%d records, want 2", len(r))
		}
		wantRecord(t, &r[0], start, boundary, "cus_1", 75, 0, 74, 1, 30)
		wantRecord(t, &r[1], boundary, end, "cus_1", 75, 0, 12, 10, 300)
		if want := models.Daily("").Add(10, 68).Add(13, 6); r[0].Daily != want || r[1].Daily != "12" {
			t.Errorf("the days are %q and %q, want %q and 12", r[0].Daily, r[1].Daily, want)
		}
		for i, want := range [][3]int64{{1, 1, 30}, {2, 2, 60}} {
			if got := [3]int64{r[i].UnitsHeld, r[i].OverageHeld, r[i].OverageCentsHeld}; got != want {
				t.Errorf("record %d holds %d, want %d", i, got, want)
			}
		}
		if r[0].HoldsExpireAt == nil || r[1].HoldsExpireAt == nil || r[1].HoldsExpireAt.After(late.ExpiresAt) ||
			r[0].HoldsExpireAt.After(early.ExpiresAt) {
			t.Errorf("the first holds expire at %v and %v", r[0].HoldsExpireAt, r[1].HoldsExpireAt)
		}
		for _, e := range all[models.UsageEvent](t, f, "occurred_at") {
			record := r[0].ID
			if !e.OccurredAt.Before(boundary) {
				record = r[1].ID
			}
			if e.RecordID != record || !e.BillingPeriodStart.Equal(start) {
				t.Errorf("the event of %v is in record %d with figures from %v", e.OccurredAt, e.RecordID, e.BillingPeriodStart)
			}
		}
		if h := one[models.UsageHold](t, f, "id = ?", *moved.HoldID); h.RecordID != r[1].ID {
			t.Errorf("the settled hold is in record %d", h.RecordID)
		}
		f.wantVerified(t)
		f.current(t, ada, clock(9, 0))
		if again := f.history(t); len(again) != 2 || again[1].SuggestionsUsed != 12 || again[0].SuggestionsUsed != 74 {
			t.Errorf("prepared again: %+v", again)
		}
		// The holds expire in their records, and all included units of the new period are free.
		if v := f.consume(t, ada, clock(10, 0), 74); v.Overage != 1 {
			t.Errorf("74 units after 2 included ones: %+v", v)
		}
		f.wantVerified(t)
	})
}

// A process whose clock is behind learns of a period before it starts on that clock. An event that
// another process recorded after the start still moves.
func TestAPeriodLearnedByASlowClock(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		boundary := time.Date(2026, 11, 23, 7, 30, 0, 0, time.UTC)
		start, end := time.Date(2026, 11, 10, 0, 0, 0, 0, time.UTC), boundary.AddDate(0, 1, 0)
		f.bought(t, start)
		f.consume(t, ada, boundary.Add(-time.Minute), 70)
		f.consume(t, ada, boundary.Add(10*time.Second), 8)
		f.restart(t, boundary, end)
		f.current(t, ada, boundary.Add(-5*time.Second))
		r := f.history(t)
		if len(r) != 2 {
			t.Fatalf("%d records, want 2", len(r))
		}
		wantRecord(t, &r[0], start, boundary, "cus_1", 75, 0, 70, 0, 0)
		wantRecord(t, &r[1], boundary, end, "cus_1", 75, 0, 8, 3, 90)
		f.wantVerified(t)
		f.current(t, ada, boundary.Add(time.Minute))
		f.wantVerified(t)
	})
}

// A period becomes longer while it runs. It stays one record, and its units are included once.
func TestALengthenedPeriod(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		start := time.Date(2026, 11, 10, 8, 30, 0, 0, time.UTC)
		for n, days := range []int{1, 10} {
			for _, table := range []string{"usage_events", "usage_records", "subscriptions"} {
				f.exec(t, "DELETE FROM "+table)
			}
			f.bought(t, start)
			f.consume(t, ada, noon, 60)
			end := start.AddDate(0, 1, days)
			f.exec(t, "UPDATE subscriptions SET billing_cycle_anchor = ?, current_period_end = ?", end, end)
			f.consume(t, ada, noon.Add(time.Hour), 10)
			f.consume(t, ada, end.Add(-time.Minute), 10)
			f.consume(t, ada, end, 1)
			r := f.history(t)
			if len(r) != 2 {
				t.Fatalf("%d: %d records, want 2", n, len(r))
			}
			wantRecord(t, &r[0], start, end, "cus_1", 75, 0, 80, 5, 150)
			wantRecord(t, &r[1], end, end.AddDate(0, 1, 0), "cus_1", 75, 0, 1, 0, 0)
			f.wantVerified(t)
		}
	})
}

// Another person's record never changes. A voided event moves without being counted.
func TestOnlyOwnEventsMove(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		start, boundary := noon.AddDate(0, 0, -10), hours(-1)
		f.bought(t, start)
		f.consume(t, ada, hours(-0.5), 4)
		f.consume(t, ada, hours(-0.4), 3)
		f.consume(t, "bob@example.com", hours(-0.5), 2)
		if _, err := models.Void(f.ctx, f.db, f.catalogue, hours(-0.3), models.NewVoid{
			Actor: models.ActorShell, Email: ada, IdempotencyKey: *one[models.UsageEvent](t, f, "quantity = 3").IdempotencyKey, Reason: "by mistake",
		}); err != nil {
			t.Fatal(err)
		}
		f.restart(t, boundary, boundary.AddDate(0, 1, 0))
		f.current(t, ada, noon)
		r := f.history(t)
		wantRecord(t, &r[0], start, boundary, "cus_1", 75, 0, 0, 0, 0)
		wantRecord(t, &r[1], boundary, boundary.AddDate(0, 1, 0), "cus_1", 75, 0, 4, 0, 0)
		wantRecord(t, &r[2], november.Start, november.End, "", 5, 0, 2, 0, 0)
		if e := one[models.UsageEvent](t, f, "quantity = 3"); e.RecordID != r[1].ID {
			t.Errorf("the voided event is in record %d, want %d", e.RecordID, r[1].ID)
		}
		f.wantVerified(t)
	})
}

// A grant belongs to the period in which it was made, and is not among the included units that a
// person used before.
func TestGrantsMove(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		start, boundary := noon.AddDate(0, 0, -10), hours(-1)
		f.bought(t, start)
		grant := func(now time.Time, quantity int64, expires *time.Time) {
			t.Helper()
			if _, err := models.Grant(f.ctx, f.db, f.catalogue, now, models.NewGrant{
				Actor: models.ActorShell, Email: ada, Quantity: quantity, Reason: "sorry", ExpiresAt: expires,
			}); err != nil {
				t.Fatal(err)
			}
		}
		grant(hours(-2), 3, nil)
		grant(hours(-0.5), 4, ptr(hours(2)))
		f.consume(t, ada, hours(-0.4), 80)
		f.restart(t, boundary, boundary.AddDate(0, 1, 0))
		f.current(t, ada, noon)
		r := f.history(t)
		if len(r) != 2 || r[0].Granted != 3 || r[1].Granted != 4 || r[1].GrantsExpireAt == nil || !r[1].GrantsExpireAt.Equal(hours(2)) {
			t.Fatalf("the records are %+v", r)
		}
		wantRecord(t, &r[1], boundary, boundary.AddDate(0, 1, 0), "cus_1", 75, 0, 80, 0, 0)
		f.wantVerified(t)
		if r := f.current(t, ada, hours(3)); r.Granted != 4 || r.GrantsExpireAt != nil {
			t.Errorf("used units were taken back: %+v", r)
		}
		f.wantVerified(t)
	})
}
