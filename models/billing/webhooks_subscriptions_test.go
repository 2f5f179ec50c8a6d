package billing

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"

	"tollgate/models"
)

func TestPlansFollowStripe(t *testing.T) {
	onBothWebhooks(t, func(f *webhookFixture) {
		ada := f.email("ada@example.com")
		f.stub.customer("cus_1", object{"tollgate_user": ada})
		start := f.at.Add(-time.Hour)
		steps := []struct {
			name   string
			change object
			kind   string
			want   string
		}{
			{"trial", subscription("cus_1", "starter", "trialing", start, 1), "customer.subscription.created", "starter by cus_1"},
			{"active", object{"status": "active"}, "invoice.paid", "starter by cus_1"},
			{"upgrade", object{"items": items("pro", 1)}, "customer.subscription.updated", "pro by cus_1"},
			{"downgrade", object{"items": items("starter", 1)}, "customer.subscription.updated", "starter by cus_1"},
			{"past due", object{"status": "past_due"}, "invoice.payment_failed", "starter by cus_1"},
			{"unpaid", object{"status": "unpaid"}, "customer.subscription.updated", "free"},
			{"paid", object{"status": "active"}, "invoice.paid", "starter by cus_1"},
			{"paused", object{"status": "paused"}, "customer.subscription.paused", "free"},
			{"resumed", object{"status": "active"}, "customer.subscription.resumed", "starter by cus_1"},
			{"canceled at the period's end", object{"cancel_at_period_end": true}, "customer.subscription.updated", "starter by cus_1"},
			{"deleted", object{"status": "canceled", "ended_at": f.at.Unix()}, "customer.subscription.deleted", "free"},
		}
		for _, s := range steps {
			f.at = f.at.Add(time.Minute)
			f.stub.set("sub_1", s.change)
			f.sendEvent(s.kind, "cus_1")
			if got := f.plan("ada@example.com"); got != s.want {
				f.Errorf("%s: %q, want %q", s.name, got, s.want)
			}
			row := f.row("sub_1")
			if row == nil || string(row.Status) != f.stub.subscriptions["sub_1"]["status"] || !row.StripeEventAt.Equal(f.at) {
				f.Fatalf("%s: %+v", s.name, row)
			}
			if s.name == "canceled at the period's end" && (row.CancelAt == nil || !row.CancelAt.Equal(start.AddDate(0, 1, 0))) {
				f.Errorf("it ends at %v", row.CancelAt)
			}
		}
		f.wantProblem("cus_1", "")
		if n := f.unapplied(); n != 0 {
			f.Errorf("%d events wait", n)
		}
	})
}

func TestTrialEndFollowsStripe(t *testing.T) {
	onBothWebhooks(t, func(f *webhookFixture) {
		f.stub.customer("cus_1", object{"tollgate_user": f.email("ada@example.com")})
		start := f.at.Add(-time.Hour)
		first, later := f.at.AddDate(0, 0, 14), f.at.AddDate(0, 0, 21)
		for _, step := range []struct {
			name   string
			change object
			want   *time.Time
			trial  bool
		}{
			{"no trial yet", subscription("cus_1", "starter", "active", start, 1), nil, false},
			{"trial", object{"status": "trialing", "trial_end": first.Unix()}, &first, true},
			{"only the trial's end is later", object{"trial_end": later.Unix()}, &later, true},
			{"over, still with its end", object{"status": "active"}, &later, false},
			{"removed", object{"trial_end": nil}, nil, false},
		} {
			f.at = f.at.Add(time.Minute)
			f.stub.set("sub_1", step.change)
			f.sendEvent("customer.subscription.updated", "cus_1")
			row := f.row("sub_1")
			if row == nil || !sameTime(row.TrialEnd, unixOf(step.want)) || row.InTrial(f.at) != step.trial || row.InTrial(later) {
				f.Errorf("%s: %+v", step.name, row)
			}
		}
	})
}

// unixOf truncates a time to whole seconds, as Stripe stores it.
func unixOf(t *time.Time) *time.Time {
	if t == nil {
		return nil
	}
	return unixTime(t.Unix())
}

func TestMembersHaveTheOrganizationsPlan(t *testing.T) {
	onBothWebhooks(t, func(f *webhookFixture) {
		o, err := models.CreateOrganization(f.Context(), f.db, f.at, "Acme", []string{"T1"})
		f.must(err)
		f.link(models.Link{Email: "bob@example.com", Slack: models.SlackIdentity{TeamID: "T1", UserID: "U1"}})
		f.stub.customer("cus_1", nil)
		sub := subscription("cus_1", "team", "active", f.at.Add(-time.Hour), 12)
		sub["metadata"] = object{"organization_id": o.ID.String()}
		f.stub.set("sub_1", sub)
		f.sendEvent("customer.subscription.created", "cus_1")
		f.wantPlan("bob@example.com", "team by cus_1")
		if row := f.row("sub_1"); row == nil || row.Seats == nil || *row.Seats != 12 || *row.StripePriceID != "price_team" {
			f.Errorf("the row is %+v", row)
		}
		// A plan of the other kind has no owner: team plans are for organizations, individual plans for
		// people.
		f.stub.set("sub_1", object{"items": items("pro", 1)})
		f.sendEvent("customer.subscription.updated", "cus_1")
		f.wantPlan("bob@example.com", "team by cus_1")
		f.wantProblem("cus_1", `"pro" is an individual plan`)
		f.stub.customer("cus_2", object{"email": "carl@example.com"})
		f.stub.set("sub_2", subscription("cus_2", "team", "active", f.at, 1))
		f.sendEvent("customer.subscription.created", "cus_2")
		f.wantPlan("carl@example.com", "free")
		f.wantProblem("cus_2", `"team" is a team plan`)
	})
}

func TestOwnerOfASubscription(t *testing.T) {
	onBothWebhooks(t, func(f *webhookFixture) {
		o, err := models.CreateOrganization(f.Context(), f.db, f.at, "Acme", nil)
		f.must(err)
		ada := f.email("ada@example.com")
		for i, c := range []struct {
			customer, subscription object
			checkout               string
			plan, want, problem    string
		}{
			{object{"tollgate_user": ada}, nil, "", "pro", "ada@example.com", ""},
			{object{"user_id": ada}, nil, "", "pro", "ada@example.com", ""},
			{object{"tollgate_email": " Ada@Example.com "}, nil, "", "pro", "ada@example.com", ""},
			{object{"email": "new@example.com"}, nil, "", "pro", "new@example.com", ""},
			{nil, object{"tollgate_user": ada}, "", "pro", "ada@example.com", ""},
			{object{"tollgate_organization": o.ID.String()}, nil, "", "team", o.ID.String(), ""},
			{nil, nil, "organization:" + o.ID.String(), "business", o.ID.String(), ""},
			{nil, nil, o.ID.String(), "team", o.ID.String(), ""},
			{nil, nil, "user:" + ada, "starter", "ada@example.com", ""},
			{nil, nil, ada, "starter", "ada@example.com", ""},
			{nil, nil, "ada@example.com", "starter", "ada@example.com", ""},
			{nil, nil, "", "pro", "", "no owner is named"},
			{nil, nil, uuid.NewString(), "pro", "", "which belongs to no known person or organization"},
			{object{"tollgate_user": uuid.NewString()}, nil, "", "pro", "", "which belongs to no known person or organization"},
			{nil, object{"tollgate_user": "nonsense"}, "", "pro", "", "which belongs to no known person or organization"},
		} {
			customer, sub := fmt.Sprintf("cus_%d", i), fmt.Sprintf("sub_%d", i)
			f.stub.customer(customer, c.customer)
			s := subscription(customer, c.plan, "active", f.at, 1)
			s["metadata"] = c.subscription
			f.stub.set(sub, s)
			if c.checkout != "" {
				// The subscription's own event arrives first, when it has no owner yet.
				f.sendEvent("customer.subscription.created", customer)
				f.wantProblem(customer, "no owner is named")
				f.receive(event("evt_checkout"+customer, checkoutCompleted, f.at, object{"id": "cs_1", "object": "checkout.session",
					"customer": customer, "client_reference_id": c.checkout}))
				f.must(f.hook.applyDue(f.Context()))
			} else {
				f.sendEvent("customer.subscription.created", customer)
			}
			f.wantProblem(customer, c.problem)
			row, got := f.row(sub), ""
			switch {
			case row == nil:
			case row.OrganizationID != nil:
				got = row.OrganizationID.String()
			default:
				f.must(f.db.NewSelect().Model((*models.User)(nil)).Column("email").Where("id = ?", *row.UserID).Scan(f.Context(), &got))
			}
			if got != c.want || row != nil && string(row.PlanID) != c.plan {
				f.Errorf("%d %+v: the owner is %q, want %q", i, c, got, c.want)
			}
			f.stub.set(sub, object{"status": "canceled"}) // so that the next one is the only one
			f.sendEvent("customer.subscription.deleted", customer)
		}
	})
}

func TestInvalidSubscriptionsChangeNoPlan(t *testing.T) {
	onBothWebhooks(t, func(f *webhookFixture) {
		f.stub.customer("cus_1", object{"tollgate_email": "ada@example.com"})
		sub := subscription("cus_1", "gold", "active", f.at, 1)
		f.stub.set("sub_1", sub)
		f.sendEvent("customer.subscription.created", "cus_1")
		f.wantPlan("ada@example.com", "free")
		f.wantProblem("cus_1", "no plan has the price price_gold")
		if f.unapplied() != 0 || f.row("sub_1") != nil {
			f.Error("an unknown price left an event or a row")
		}
		// The operator fixes it.
		f.must(storeObject(f.Context(), f.db, f.at, objectPrice+"pro", "price_gold"))
		f.must(storeObject(f.Context(), f.db, f.at, objectOverage+"pro", "price_over_gold"))
		f.sendEvent("customer.subscription.updated", "cus_1")
		f.wantPlan("ada@example.com", "pro by cus_1")
		f.wantProblem("cus_1", "")
		// Neither the subscription nor its items have a period.
		f.stub.set("sub_1", object{"current_period_end": 0, "current_period_start": nil, "items": items("starter", 1)})
		f.sendEvent("customer.subscription.updated", "cus_1")
		f.wantPlan("ada@example.com", "pro by cus_1")
		f.wantProblem("cus_1", "no single billing period")
		if row := f.row("sub_1"); row.CurrentPeriodEnd == nil || !row.CurrentPeriodEnd.Equal(f.at.AddDate(0, 1, 0)) {
			f.Errorf("the period ends at %v", row.CurrentPeriodEnd)
		}
		// Its items have different periods.
		different := items("starter", 1)
		for i, item := range different["data"].([]object) {
			item["current_period_start"], item["current_period_end"] = f.at.Unix(), f.at.AddDate(0, 1+i, 0).Unix()
		}
		f.stub.set("sub_1", object{"items": different})
		f.sendEvent("customer.subscription.updated", "cus_1")
		f.wantPlan("ada@example.com", "pro by cus_1")
		f.wantProblem("cus_1", "no single billing period")
		f.stub.set("sub_1", subscription("cus_1", "silver", "past_due", f.at, 1))
		f.sendEvent("customer.subscription.updated", "cus_1")
		f.wantPlan("ada@example.com", "pro by cus_1")
		f.wantProblem("cus_1", "price_silver")
		// A subscription can end without a known plan.
		f.stub.set("sub_1", object{"status": "canceled"})
		f.sendEvent("customer.subscription.deleted", "cus_1")
		f.wantPlan("ada@example.com", "free")
		f.wantProblem("cus_1", "")
	})
}

func TestADeletedCustomerHasNoPlan(t *testing.T) {
	onBothWebhooks(t, func(f *webhookFixture) {
		for i, gone := range []object{nil, {"id": "cus_1", "object": "customer", "deleted": true}} {
			customer, email := fmt.Sprintf("cus_%d", i), fmt.Sprintf("ada%d@example.com", i)
			f.stub.customer(customer, object{"tollgate_email": email})
			f.stub.set("sub_"+customer, subscription(customer, "pro", "active", f.at, 1))
			f.sendEvent("customer.subscription.created", customer)
			f.wantPlan(email, "pro by "+customer)
			f.stub.customers[customer] = gone
			delete(f.stub.subscriptions, "sub_"+customer)
			f.receive(event("evt_gone"+customer, "customer.deleted", f.at, object{"id": customer, "object": "customer"}))
			f.must(f.hook.applyDue(f.Context()))
			f.wantPlan(email, "free")
			if c := f.customer(customer); !c.Deleted || c.UserID == nil {
				f.Errorf("the customer is %+v", c)
			}
		}
		// A subscription that was deleted while its customer still exists.
		f.stub.customer("cus_9", object{"tollgate_email": "eve@example.com"})
		f.stub.set("sub_9", subscription("cus_9", "pro", "active", f.at, 1))
		f.sendEvent("customer.subscription.created", "cus_9")
		delete(f.stub.subscriptions, "sub_9")
		f.sendEvent("customer.subscription.deleted", "cus_9")
		f.wantPlan("eve@example.com", "free")
	})
}

// If a plan becomes smaller, its included units change with the next period, also for a person who
// used nothing. If a plan ends, the payer changes, and the record ends with the plan.
func TestIncludedUnitsStayWithinAPeriod(t *testing.T) {
	onBothWebhooks(t, func(f *webhookFixture) {
		const day = 24 * time.Hour
		begin := f.at
		included := func(email string) int64 {
			f.Helper()
			var records []*models.UsageRecord
			f.must(f.db.NewSelect().Model(&records).Where("email = ?", email).Order("billing_period_start").Scan(f.Context()))
			of := f.entitlement(email)
			return f.hook.catalogue.Foresee(email, &of, records, f.at).Included
		}
		for _, c := range []struct {
			name         string
			change       object
			later        time.Duration
			plan         string
			within, next int64
		}{
			{"ended", object{"status": "canceled"}, day, "free", 5, 5},
			{"smaller", object{"items": items("starter", 1)}, day, "starter by cus_smaller", 75, 25},
			{"late", object{"status": "canceled"}, 32 * day, "free", 5, 5},
		} {
			f.at = begin
			customer, email := "cus_"+c.name, c.name+"@example.com"
			f.stub.customer(customer, object{"tollgate_email": email})
			f.stub.set("sub_"+c.name, subscription(customer, "pro", "active", f.at, 1))
			f.sendEvent("customer.subscription.created", customer)
			if got := included(email); got != 75 {
				f.Errorf("%s: %d included by pro", c.name, got)
			}
			f.at = begin.Add(c.later)
			f.stub.set("sub_"+c.name, c.change)
			f.sendEvent("customer.subscription.updated", customer)
			f.wantPlan(email, c.plan)
			if got := included(email); got != c.within {
				f.Errorf("%s: %d included, want %d", c.name, got, c.within)
			}
			f.at = begin.Add(64 * day)
			if got := included(email); got != c.next {
				f.Errorf("%s: %d included in a later period, want %d", c.name, got, c.next)
			}
		}
	})
}

// If neither the customer nor a list has the subscription that an event names, it is requested by
// its ID.
func TestASubscriptionIsFoundByItsID(t *testing.T) {
	onBothWebhooks(t, func(f *webhookFixture) {
		f.stub.noLists = true
		sub := subscription("cus_1", "pro", "active", f.at, 1)
		sub["metadata"] = object{"tollgate_email": "ada@example.com"}
		f.stub.set("sub_1", sub)
		f.sendEvent("customer.subscription.created", "cus_1")
		f.wantPlan("ada@example.com", "pro by cus_1")
		f.stub.customer("cus_1", nil)
		f.stub.set("sub_1", object{"status": "past_due"})
		f.sendEvent("customer.subscription.updated", "cus_1")
		if row := f.row("sub_1"); row.Status != models.StatusPastDue {
			f.Errorf("the subscription is %s", row.Status)
		}
		// A subscription that the event does not name has not ended because lists are missing.
		other := subscription("cus_1", "starter", "active", f.at, 1)
		other["metadata"] = object{"tollgate_email": "bob@example.com"}
		f.stub.noLists = false
		f.stub.set("sub_2", other)
		f.sendEvent("customer.subscription.updated", "cus_1")
		f.stub.noLists = true
		f.sendEvent("customer.subscription.updated", "cus_1")
		f.wantPlan("bob@example.com", "starter by cus_1")
		delete(f.stub.subscriptions, "sub_2")
		f.stub.noLists = false
		f.sendEvent("customer.subscription.updated", "cus_1")
		f.wantPlan("bob@example.com", "free")
		f.stub.noLists = true
		// With neither, it is unknown whether the customer has no subscription or the answer was not
		// Stripe's.
		delete(f.stub.subscriptions, "sub_1")
		f.sendEvent("customer.subscription.updated", "cus_1")
		f.wantPlan("ada@example.com", "pro by cus_1")
		// A subscription of another customer does not belong to this one.
		f.stub.set("sub_1", subscription("cus_2", "starter", "active", f.at, 1))
		f.stub.noLists = false
		f.at = f.at.Add(time.Hour)
		f.sendEvent("customer.subscription.updated", "cus_1")
		f.wantPlan("ada@example.com", "free")
	})
}

// A subscription that begins in the middle of a month starts its own period. The usage before it is
// not billed.
func TestAnUpgradeStartsItsOwnPeriod(t *testing.T) {
	onBothWebhooks(t, func(f *webhookFixture) {
		prepared := func() []models.UsageRecord {
			f.Helper()
			f.must(models.PrepareRecords(f.Context(), f.db, f.hook.catalogue, f.at, []models.RecordKey{{Email: "ada@example.com", At: f.at}}))
			var records []models.UsageRecord
			f.must(f.db.NewSelect().Model(&records).Order("billing_period_start").Scan(f.Context()))
			return records
		}
		if free := prepared(); len(free) != 1 || free[0].PlanID != "free" || free[0].StripeCustomerID != nil {
			f.Fatalf("before: %+v", free)
		}
		start := f.at.Add(-time.Minute)
		f.stub.customer("cus_1", object{"tollgate_email": "ada@example.com"})
		f.stub.set("sub_1", subscription("cus_1", "pro", "active", start, 1))
		f.sendEvent("customer.subscription.created", "cus_1")
		records := prepared()
		if len(records) != 2 {
			f.Fatalf("%d records", len(records))
		}
		before, own := records[0], records[1]
		if before.StripeCustomerID != nil || !before.Period().End.Equal(start) || before.PlanID != "free" {
			f.Errorf("before the upgrade: %+v", before)
		}
		if text(own.StripeCustomerID) != "cus_1" || own.PlanID != "pro" ||
			own.Period() != (models.Period{Start: start, End: start.AddDate(0, 1, 0)}) || !own.Entitled {
			f.Errorf("of the subscription: %+v", own)
		}
		// An upgrade within the period counts immediately. A downgrade removes none of the period's
		// units.
		for _, step := range []struct {
			plan     string
			included int64
		}{{"starter", 75}, {"pro", 75}} {
			f.stub.set("sub_1", object{"items": items(step.plan, 1)})
			f.sendEvent("customer.subscription.updated", "cus_1")
			if r := prepared(); len(r) != 2 || string(r[1].PlanID) != step.plan || r[1].SuggestionsIncluded != step.included {
				f.Errorf("%s: %+v", step.plan, r)
			}
		}
	})
}

// Usage that is reported late is paid by a subscription for the time in which it gave its plan, and
// no longer.
func TestWhenASubscriptionBecameInactive(t *testing.T) {
	onBothWebhooks(t, func(f *webhookFixture) {
		f.stub.customer("cus_1", object{"tollgate_user": f.email("ada@example.com")})
		begin := f.at.Add(-time.Hour)
		f.stub.set("sub_1", subscription("cus_1", "pro", "incomplete", begin, 1))
		want := func(since *time.Time) {
			t.Helper()
			f.sendEvent("customer.subscription.updated", "cus_1")
			if row := f.row("sub_1"); row == nil || !sameTime(row.InactiveSince, since) {
				f.Errorf("%s: inactive since %v, want %v", row.Status, row.InactiveSince, since)
			}
		}
		want(&begin)
		for _, step := range []struct {
			change object
			since  time.Duration // after now; -1 for none
		}{
			{object{"status": "active"}, -1},
			{object{"status": "past_due"}, -1},
			{object{"status": "unpaid"}, 0},
			{object{"status": "paused"}, -time.Minute},
			{object{"status": "active"}, -1},
			{object{"status": "canceled", "ended_at": f.at.Add(5 * time.Minute).Unix()}, -time.Minute},
		} {
			f.at = f.at.Add(time.Minute)
			f.stub.set("sub_1", step.change)
			if step.since == -1 {
				want(nil)
			} else {
				want(new(f.at.Add(step.since)))
			}
		}
		// Unpaid until it ended.
		f.stub.set("sub_2", subscription("cus_1", "pro", "unpaid", begin, 1))
		f.sendEvent("customer.subscription.updated", "cus_1")
		f.stub.set("sub_2", object{"status": "canceled", "ended_at": f.at.Unix()})
		f.sendEvent("customer.subscription.deleted", "cus_1")
		if row := f.row("sub_2"); !sameTime(row.InactiveSince, &begin) {
			f.Errorf("inactive since %v, want %v", row.InactiveSince, begin)
		}
	})
}
