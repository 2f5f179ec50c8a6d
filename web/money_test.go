package web

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"tollgate/models"
)

// stripeSubscription stores what a webhook stores for a subscription at Stripe, whose period is
// November.
func (f *fixture) stripeSubscription(s models.Subscription) {
	f.t.Helper()
	s.ID, s.CreatedAt, s.UpdatedAt = uuid.Must(uuid.NewV7()), f.clock(), f.clock()
	november := models.CalendarMonth(f.clock())
	s.CurrentPeriodStart, s.CurrentPeriodEnd, s.BillingCycleAnchor = &november.Start, &november.End, &november.Start
	s.StripeSubscriptionID, s.StripeCustomerID = new("sub_"+s.ID.String()), new("cus_"+s.ID.String())
	_, err := f.db.NewInsert().Model(&s).Exec(context.Background())
	must(f.t, err)
}

// says fails unless a text contains all of these and none of those.
func says(t *testing.T, what, text string, these, those []string) {
	t.Helper()
	for _, part := range these {
		if !strings.Contains(text, part) {
			t.Errorf("%s does not say %q:\n%s", what, part, text)
		}
	}
	for _, part := range those {
		if strings.Contains(text, part) {
			t.Errorf("%s says %q:\n%s", what, part, text)
		}
	}
}

// TestTrialIsShown checks each page that shows a plan's price: during a trial, and after its end
// while Stripe's event is late.
func TestTrialIsShown(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		end := f.clock().Truncate(24*time.Hour).AddDate(0, 0, 3)
		ada := f.person("ada@example.com", "", models.Member, false)
		f.stripeSubscription(models.Subscription{UserID: &ada.ID, PlanID: "pro", Status: models.StatusTrialing, TrialEnd: &end})
		acme := f.organization("Acme", "T1")
		f.person("bob@example.com", "T1", models.Admin, false)
		f.person("carl@example.com", "T1", models.Member, false)
		f.stripeSubscription(models.Subscription{
			OrganizationID: &acme, PlanID: "business", Status: models.StatusTrialing, TrialEnd: &end, Seats: new(int64(2)),
		})

		until := "Trial until " + end.Format("Jan 2, 2006") + " (in 3 days)"
		pages := []struct{ email, path, price, costs string }{
			{"ada@example.com", "/usage", "After that, Pro costs $18.00 per month.", "So far in this period $18.00"},
			{"ada@example.com", "/plans", ": $0 until then.", ""},
			{"bob@example.com", "/org", "After that, Business costs $20.00 per seat per month.", ""},
			{"bob@example.com", "/usage", "The base price is $0.00 until", ""},
			{"bob@example.com", "/plans", ": $0 until then.", ""},
			{"carl@example.com", "/usage", "Your plan comes from Acme. The base price is $0.00 until", ""},
		}
		for _, p := range pages {
			says(t, p.email+" "+p.path, f.signedIn(p.email).get(p.path).main(), []string{until, p.price}, []string{"So far in this period $18.00"})
		}
		f.set(end)
		for _, p := range pages {
			says(t, p.path+" after the trial", f.signedIn(p.email).get(p.path).main(), []string{p.costs}, []string{"Trial", "trial"})
		}
	})
}

// TestWhoMovesToTheFreePlan checks what the pages say about the end of a subscription. An
// organization's members can have plans of their own, its admins too.
func TestWhoMovesToTheFreePlan(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		end := f.clock().Truncate(24*time.Hour).AddDate(0, 0, 3)
		ada := f.person("ada@example.com", "", models.Member, false)
		acme := f.organization("Acme", "T1")
		f.person("bob@example.com", "T1", models.Admin, false)
		f.stripeSubscription(models.Subscription{UserID: &ada.ID, PlanID: "pro", Status: models.StatusPastDue})
		f.stripeSubscription(models.Subscription{
			OrganizationID: &acme, PlanID: "business", Status: models.StatusPastDue, Seats: new(int64(1)),
		})
		const members = "members without a plan of their own"
		check := func(own, shared, organization string) {
			t.Helper()
			for _, p := range []struct{ email, path, want string }{
				{"ada@example.com", "/usage", own}, {"bob@example.com", "/usage", shared}, {"bob@example.com", "/org", organization},
			} {
				says(t, p.email+" "+p.path, f.signedIn(p.email).get(p.path).main(), []string{p.want}, nil)
			}
		}
		moves := func(begin string) {
			t.Helper()
			check(begin+"you move to the free plan.", begin+"you move to the free plan, or to your own plan if you have one.",
				begin+members+" move to the free plan.")
		}
		change := func(set string, values ...any) {
			t.Helper()
			_, err := f.db.NewRaw("UPDATE subscriptions SET "+set, values...).Exec(context.Background())
			must(t, err)
		}
		moves("If no payment succeeds, ")
		change("status = 'active', cancel_at = ?", end)
		moves("Then ")
		change("status = 'canceled'")
		const now = "Now you are on the free plan. Earlier usage is still here."
		check(now, now, "Now "+members+" are on the free plan.")
		bob := f.signedIn("bob@example.com")
		says(t, "/usage", bob.get("/usage").main(), []string{"Free plan · Acme", "Compare plans"}, []string{"from Acme"})
		says(t, "/plans", bob.get("/plans").main(), []string{"This is your plan."}, []string{"from Acme"})
	})
}

// TestMonthsAgreeWithTheirOverage checks an organization whose members exceeded their limits while
// together they used less than the sum of these limits, in this month and in the previous one.
func TestMonthsAgreeWithTheirOverage(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		now := f.clock()
		f.set(now.AddDate(0, -1, 0))
		acme := f.organization("Acme", "T1")
		f.person("ada@example.com", "T1", models.Admin, false)
		f.person("bob@example.com", "T1", models.Member, false)
		f.subscribe(models.Subscriber{OrganizationID: &acme}, "business")
		f.used("bob@example.com", 130, f.clock())
		f.set(now)
		f.used("bob@example.com", 141, f.clock())
		p := f.signedIn("ada@example.com").get("/org")
		says(t, "the cost", textOf(p.section("cost")), []string{"41 suggestions beyond the plan, by 1 member", "$8.20"}, nil)
		says(t, "the months", textOf(p.section("months")),
			[]string{"2 months have overage.", "overage"}, []string{"No month"})
		rows := table(p.section("months"))
		for i, want := range [][]string{{"130", "100", "30", "$6.00"}, {"141", "200", "41", "$8.20"}} {
			if row := rows[len(rows)-2+i]; !slices.Equal(row[1:], want) {
				t.Errorf("a month is %q, want %q", row[1:], want)
			}
		}
	})
}

// TestOrganizationCost checks the lines of the cost: the seats of a subscription at Stripe and of a
// plan that was assigned by hand, the members' overage, and the forecast, in which a spend limit
// stops one of them.
func TestOrganizationCost(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		november := models.CalendarMonth(f.clock())
		f.set(november.Start.AddDate(0, 0, 15).Add(-time.Second))
		acme := f.organization("Acme", "T1")
		for _, name := range []string{"ada", "bob", "carl", "dora", "emil"} {
			f.person(name+"@example.com", "T1", models.Admin, false)
		}
		limit := int64(210)
		must(t, models.SetSpendLimit(context.Background(), f.db, f.web.catalogue, f.clock(), models.ActorShell,
			f.user("dora@example.com").ID, &limit))
		cost := func() string { return textOf(f.signedIn("ada@example.com").get("/org").section("cost")) }
		f.subscribe(models.Subscriber{OrganizationID: &acme}, "business")
		says(t, "a new plan", cost(), []string{
			"Business, 0 seats × $20.00 $0.00 Overage: 0 × $0.20 $0.00 So far in this period $0.00 No overage so far",
		}, []string{"Forecast"})
		use := func() {
			f.used("bob@example.com", 130, f.clock())  // 260 by the end of the period: 160 beyond the plan
			f.used("carl@example.com", 40, f.clock())  // 80 by the end of the period
			f.used("dora@example.com", 101, f.clock()) // 202 by the end of the period, but the limit pays for 10 beyond the plan
		}
		use()
		f.advance(time.Second) // half of the period
		overage := "Overage: 31 × $0.20 $6.20"
		forecast := "More overage at this pace: about 139 × $0.20 $27.80"
		byHand := "This plan has no Stripe subscription: its base price and overage are billed by hand."
		says(t, "a plan assigned by hand", cost(), []string{
			"Business, 3 seats × $20.00 $60.00 " + overage + " So far in this period $66.20 " + forecast + " Forecast for the whole period $94.00",
			byHand, "Each member with usage in this billing period counts as a seat.",
			"31 suggestions beyond the plan, by 2 members.", "Estimate, before tax; the invoice is authoritative.",
		}, []string{"nothing is billed"})

		f.subscribe(models.Subscriber{OrganizationID: &acme}, models.FreePlan)
		f.stripeSubscription(models.Subscription{
			OrganizationID: &acme, PlanID: "business", Status: models.StatusActive, Seats: new(int64(42)), OverageRateCents: new(int64(20)),
		})
		use() // the payer changes
		says(t, "a plan at Stripe", cost(), []string{
			"Business, 42 seats × $20.00 $840.00 " + overage + " So far in this period $846.20 " + forecast +
				" Forecast for the whole period $874.00",
			"The number of seats comes from the subscription.",
		}, []string{byHand})

		_, err := f.db.NewUpdate().Model((*models.Subscription)(nil)).Set("status = ?", models.StatusTrialing).
			Where("stripe_subscription_id IS NOT NULL").Exec(context.Background())
		must(t, err)
		says(t, "a trial", cost(), []string{"Business, 42 seats × $0.00 $0.00"}, []string{"$840.00"})
	})
}
