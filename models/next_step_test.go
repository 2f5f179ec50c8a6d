package models_test

import (
	"reflect"
	"strings"
	"testing"

	"github.com/google/uuid"

	"tollgate/models"
)

// TestSituation reads what a person's next step depends on, of people in organizations with and
// without a plan, and of a person in none.
func TestSituation(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		paying, other := f.organization(t, noon, "Acme", "T1"), f.organization(t, noon, "Other", "T2")
		people := f.link(t, linkOf("ada@example.com", "T1", "U1"), linkOf("bob@example.com", "T1", "U2"), linkOf("eve@example.com", "T2", "U1"))
		if _, err := models.SetUser(f.ctx, f.db, noon, "ada@example.com", models.UserChange{Role: ptr(models.Admin)}); err != nil {
			t.Fatal(err)
		}
		f.subscribe(t, models.Subscriber{OrganizationID: &paying}, "team")
		f.subscribe(t, models.Subscriber{Email: "alone@example.com"}, "pro")
		f.exec(t, "UPDATE subscriptions SET status = 'past_due' WHERE plan_id = 'pro'")

		admins := []models.OrganizationAdmin{{Email: "ada@example.com"}}
		for _, want := range []models.Situation{
			{UserID: people[0].UserID, Email: "ada@example.com", OrganizationID: &paying, Organization: "Acme", Admin: true, Admins: admins,
				PaidByOrganization: true},
			{UserID: people[1].UserID, Email: "bob@example.com", OrganizationID: &paying, Organization: "Acme", Admins: admins,
				PaidByOrganization: true},
			{UserID: people[2].UserID, Email: "eve@example.com", OrganizationID: &other, Organization: "Other"},
			{UserID: f.user(t, "alone@example.com"), Email: "alone@example.com", PastDue: true},
		} {
			if got, err := models.SituationOf(f.ctx, f.db, want.UserID); err != nil || !reflect.DeepEqual(got, &want) {
				t.Errorf("%s: %+v, %v; want %+v", want.Email, got, err, want)
			}
		}
		asked := &queries{}
		got, err := models.SituationBySlack(f.ctx, f.db.WithQueryHook(asked), models.SlackIdentity{TeamID: "T1", UserID: "U2"})
		if err != nil || got == nil || got.UserID != people[1].UserID || len(asked.texts) != 1 {
			t.Errorf("by Slack identity: %+v, %v, %d queries", got, err, len(asked.texts))
		}
		for _, unknown := range []models.SlackIdentity{{TeamID: "T1", UserID: "U9"}, {TeamID: "T9", UserID: "U1"}} {
			if got, err := models.SituationBySlack(f.ctx, f.db, unknown); got != nil || err != nil {
				t.Errorf("%+v: %+v, %v", unknown, got, err)
			}
		}
	})
}

// TestStepOfASubscription: no larger plan can be bought before a trial ends, and extra units are
// available afterward only if the subscription continues and bills them. No plan can be bought while
// a subscription is suspended.
func TestStepOfASubscription(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		acme := f.organization(t, noon, "Acme", "T1")
		bob := f.link(t, linkOf("bob@example.com", "T1", "U2"))[0].UserID
		eve := f.link(t, linkOf("eve@example.com", "T1", "U3"))[0].UserID
		f.subscribe(t, models.Subscriber{OrganizationID: &acme}, "team")
		f.subscribe(t, models.Subscriber{Email: "alone@example.com"}, "pro")
		alone := f.user(t, "alone@example.com")
		used := models.Standing{Plan: "team", Included: 50, Used: 50}
		step := func(set string, user uuid.UUID) string {
			t.Helper()
			f.exec(t, "UPDATE subscriptions SET "+set)
			in, err := models.SituationOf(f.ctx, f.db, user)
			if err != nil {
				t.Fatal(err)
			}
			return f.catalogue.NextStep(used, models.Decide(used, 1), in).Text
		}
		const trial = "status = 'trialing', overage_rate_cents = "
		const noAdmin = "Your organization has no admin. Ask the operator of this service to add one."
		for _, test := range []struct {
			set  string
			user uuid.UUID
			want string
		}{
			{trial + "25, cancel_at = NULL", bob, "Extra suggestions are available after the trial."},
			{trial + "25, cancel_at = NULL", alone, "Compare plans"},
			{trial + "0, cancel_at = NULL", bob, noAdmin},
			{trial + "25, cancel_at = created_at", bob, noAdmin},
			{"status = 'active'", alone, "Upgrade your plan"},
			{"status = 'unpaid'", alone, "Update the payment method"},
			{"status = 'paused'", alone, "Update the payment method"},
			{"status = 'unpaid'", bob, "Upgrade your plan"}, // the members may buy a plan of their own
			{"status = 'unpaid'", eve, "Update the payment method"},
			{"status = 'canceled'", eve, "Upgrade your plan"},
		} {
			if test.user == eve {
				f.exec(t, "UPDATE users SET role = 'admin' WHERE id = ?", eve)
			}
			if got := step(test.set, test.user); got != test.want {
				t.Errorf("%s: %q, want %q", test.set, got, test.want)
			}
		}
	})
}

func TestAdminNames(t *testing.T) {
	admin := func(name, email string) models.OrganizationAdmin {
		return models.OrganizationAdmin{Name: name, Email: email}
	}
	ada, bob := admin("Ada Admin", "a@example.com"), admin("", "bob@example.com")
	hidden := admin("", "u1@t1.slack.invalid")
	for want, admins := range map[string][]models.OrganizationAdmin{
		"":                             nil,
		"Ada Admin":                    {ada},
		"Ada Admin or bob@example.com": {ada, bob},
		"Ada Admin, bob@example.com or another admin": {ada, bob, ada},
		"an admin of your organization":               {hidden},
		"Ada Admin or another admin":                  {ada, hidden},
		"Ada Admin or \u2068عادل\u2069":               {ada, admin("عادل", "")},
		"a b c":                                       {admin(" a\n\tb\u202e\x00 c ", "")},
		strings.Repeat("é", 79) + "…":                 {admin(strings.Repeat("é", 300), "")},
	} {
		if got := (&models.Situation{Admins: admins}).AdminNames(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
