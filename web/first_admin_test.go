package web

import (
	"net/url"
	"slices"
	"strings"
	"testing"

	"tollgate/models"
	"tollgate/models/billing/stripetest"
	"tollgate/views"
)

// Whoever buys a team plan for an organization without an admin becomes its admin. After that, only
// an admin can buy.
func TestTheBuyerBecomesTheFirstAdmin(t *testing.T) {
	withStripe(t, func(t *testing.T, f *fixture, stand *stripetest.Stripe) {
		f.organization("Acme", "T1")
		for _, email := range []string{"bob@example.com", "cyd@example.com"} {
			f.person(email, "T1", models.Member, false)
		}
		bob, cyd, team := f.signedIn("bob@example.com"), f.signedIn("cyd@example.com"), url.Values{"plan": {"team"}}
		says(t, "the plans", bob.get("/plans").main(), []string{"The buyer becomes the admin of Acme."}, nil)
		if p := f.signedIn("dan@example.com").post(views.PathCheckout, team); outcome(p) != "no organization" {
			t.Errorf("a person without an organization: %s", p.main())
		}
		session := func(b *browser) string {
			address := b.post(views.PathCheckout, team).left(t)
			return address[strings.LastIndex(address, "/")+1:]
		}
		role := func(email string, want models.Role) {
			t.Helper()
			if got := f.user(email).Role; got != want {
				t.Errorf("%s is %s, want %s", email, got, want)
			}
		}
		first := session(bob)
		role("bob@example.com", models.Member) // nothing is bought yet
		second := session(cyd)
		if first == second {
			t.Fatal("two buyers share a Checkout, so the wrong one can become the admin")
		}
		bought := stand.CompleteCheckout(second)
		for range 2 { // a webhook may arrive twice
			f.receiveWebhook(stand, "checkout.session.completed", second)
			f.receiveWebhook(stand, "customer.subscription.created", bought)
		}
		role("cyd@example.com", models.Admin)
		role("bob@example.com", models.Member)
		want := []string{"cyd@example.com user.set role from member to admin, as the buyer of the plan"}
		if got := f.audited("user.set"); !slices.Equal(got[len(got)-1:], want) {
			t.Errorf("the audit log has %q", got)
		}
		says(t, "/org", textOf(cyd.get("/org").section("changes")), []string{"as the buyer of the plan"}, nil)
		if p := cyd.get(views.PathReturn + "?plan=team&session_id=" + second); p.kind() != "See Other /plans" {
			t.Errorf("back: %s", p.kind())
		}
		if p := bob.post(views.PathCheckout, team); p.status != 403 || !strings.Contains(p.main(), "cyd@example.com") {
			t.Errorf("a member: %s %s", p.kind(), p.main())
		}
		says(t, "the plans", bob.get("/plans").main(), nil, []string{"The buyer becomes"})

		// The operator has taken the role away. Whoever bought again would pay twice.
		_, err := f.db.NewUpdate().Model((*models.User)(nil)).Set("role = ?", models.Member).Where("email = 'cyd@example.com'").Exec(t.Context())
		must(t, err)
		p := bob.get("/plans")
		says(t, "without an admin", p.main(), []string{
			"Acme already has a subscription, but no admin. Ask the operator of this service to make someone an admin.",
		}, []string{"The buyer becomes"})
		p = bob.post(views.PathCheckout, team)
		says(t, "a second purchase", p.main(), []string{"Acme already has a subscription", "Ask the operator of this service"}, nil)
		if p.status != 409 || len(p.buttons(views.PathPortal)) != 0 {
			t.Errorf("a second purchase: %s %s", p.kind(), p.main())
		}
	})
}

// A purchase makes no admin of an organization that has one by then, or that the buyer left.
func TestAPurchaseMakesNoSecondAdmin(t *testing.T) {
	withStripe(t, func(t *testing.T, f *fixture, stand *stripetest.Stripe) {
		for name, change := range map[string]func(email, other string){
			"T1": func(_, other string) {
				boss := models.Admin
				_, err := models.SetUser(t.Context(), f.db, f.clock(), other, models.UserChange{Role: &boss})
				must(t, err)
			},
			"T2": func(email, _ string) {
				_, err := models.SetUser(t.Context(), f.db, f.clock(), email, models.UserChange{Leaves: true})
				must(t, err)
			},
		} {
			f.organization("Acme "+name, name)
			email, other := strings.ToLower(name)+"@example.com", "other-"+strings.ToLower(name)+"@example.com"
			f.person(email, name, models.Member, false)
			f.person(other, name, models.Member, false)
			address := f.signedIn(email).post(views.PathCheckout, url.Values{"plan": {"team"}}).left(t)
			change(email, other)
			f.receiveWebhook(stand, "customer.subscription.created", stand.CompleteCheckout(address[strings.LastIndex(address, "/")+1:]))
			if u := f.user(email); u.Role != models.Member {
				t.Errorf("%s: the buyer is %s", name, u.Role)
			}
		}
	})
}

// A page that names a step with a subscription says who can take it: an admin, the operator if there
// is no admin, and the operator if Stripe is not connected.
func TestWhomToAskAboutASubscription(t *testing.T) {
	withStripe(t, func(t *testing.T, f *fixture, _ *stripetest.Stripe) {
		acme := f.organization("Acme", "T1")
		f.person("bob@example.com", "T1", models.Member, false)
		bob := f.signedIn("bob@example.com")
		f.stripeSubscription(models.Subscription{OrganizationID: &acme, PlanID: "team", Status: models.StatusPastDue, Seats: new(int64(1))})
		check := func(what string, want ...string) {
			t.Helper()
			p := bob.get("/usage")
			says(t, what, p.main(), want, nil)
			if len(p.buttons(views.PathPortal)) != 0 {
				t.Errorf("%s: a member may open the portal", what)
			}
		}
		change := func(query string, values ...any) {
			t.Helper()
			_, err := f.db.NewRaw(query, values...).Exec(t.Context())
			must(t, err)
		}
		const none = ", and there is none. Ask the operator of this service to make someone an admin."
		check("past due", "Only an admin of Acme can update the payment method"+none)
		change("UPDATE subscriptions SET cancel_at = current_period_end, status = 'active'")
		check("canceled", "Only an admin of Acme can keep Team"+none)
		change("UPDATE organizations SET member_limit = 60")
		check("a member limit", "Acme has no admin, so no one can raise its limits. Ask the operator of this service to make someone an admin.")
		change("UPDATE subscriptions SET cancel_at = NULL, status = 'unpaid'")
		check("unpaid", "Only an admin of your organization can continue or end it"+none)
		change("UPDATE subscriptions SET status = 'incomplete'")
		check("never paid", "Your organization's first payment did not succeed", "See plans")
		change("UPDATE subscriptions SET status = 'unpaid'")
		f.person("ada@example.com", "T1", models.Admin, false)
		check("with an admin", "To continue or end it, ask an admin of your organization.")
		says(t, "with an admin", bob.get("/usage").main(), nil, []string{"there is none"})
		change("UPDATE subscriptions SET status = 'incomplete'")
		check("never paid, with an admin", "To start a subscription, ask an admin of your organization.")
	})
	onBoth(t, func(t *testing.T, f *fixture) {
		acme := f.organization("Acme", "T1")
		f.person("ada@example.com", "T1", models.Admin, false)
		dan := f.person("dan@example.com", "", models.Member, false)
		for _, s := range []models.Subscription{{OrganizationID: &acme, PlanID: "team", Seats: new(int64(1))}, {UserID: &dan.ID, PlanID: "pro"}} {
			s.Status = models.StatusPastDue
			f.stripeSubscription(s)
		}
		check := func(step string) {
			t.Helper()
			for _, page := range [][2]string{{"ada@example.com", "/org"}, {"ada@example.com", "/usage"}, {"dan@example.com", "/usage"}} {
				says(t, strings.Join(page[:], " "), f.signedIn(page[0]).get(page[1]).main(), []string{
					"Stripe is not connected here at the moment. To " + step + ", ask the operator of this service.",
				}, []string{"ask an admin"})
			}
		}
		check("update the payment method")
		_, err := f.db.NewRaw("UPDATE subscriptions SET status = 'unpaid'").Exec(t.Context())
		must(t, err)
		check("continue or end it")
	})
}
