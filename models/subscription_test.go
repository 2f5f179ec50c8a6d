package models_test

import (
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"tollgate/models"
)

// planNow returns the plan that a decision would find.
func (f *fixture) planNow(t *testing.T, email string) models.PlanID {
	t.Helper()
	var plan models.PlanID
	err := f.db.QueryRowContext(f.ctx, `SELECT COALESCE(s.plan_id, 'free') FROM (SELECT id FROM users
		WHERE email = ?) k `+models.EntitlementJoins, email).Scan(&plan)
	if err != nil {
		t.Fatal(err)
	}
	return plan
}

func TestSubscribePerson(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		ada := models.Subscriber{Email: " Ada@example.com "}
		// The clock repeats a time and then goes back. The newest subscription still counts.
		for i, plan := range []models.PlanID{"starter", "pro", "starter"} {
			now := noon.Add(-time.Duration(i/2) * time.Hour)
			s, err := models.Subscribe(f.ctx, f.db, f.catalogue, now, ada, plan)
			if err != nil {
				t.Fatal(err)
			}
			stored := one[models.Subscription](t, f, "id = ?", s.ID)
			if stored.PlanID != plan || stored.Status != models.StatusActive || stored.StripeSubscriptionID != nil || stored.OrganizationID != nil {
				t.Errorf("stored %+v", stored)
			}
			if got := f.planNow(t, "ada@example.com"); got != plan {
				t.Errorf("the plan is %q, want %q", got, plan)
			}
		}
		var created []time.Time
		for i, s := range all[models.Subscription](t, f, "created_at") {
			if i > 0 && !s.CreatedAt.After(created[i-1]) {
				t.Errorf("subscriptions made at %v and %v: the second is not newer", created[i-1], s.CreatedAt)
			}
			created = append(created, s.CreatedAt)
			if want := i == 2; (s.Status == models.StatusActive) != want {
				t.Errorf("subscription %d is %s", i, s.Status)
			}
		}
		s, err := models.Subscribe(f.ctx, f.db, f.catalogue, noon, ada, "free")
		if err != nil || s != nil {
			t.Errorf("free: %+v, %v", s, err)
		}
		if got := f.planNow(t, "ada@example.com"); got != "free" {
			t.Errorf("after free, the plan is %q", got)
		}
		if n := len(all[models.Subscription](t, f)); n != 3 {
			t.Errorf("%d subscriptions are stored, want 3", n)
		}
		got := f.audited(t)
		slices.Sort(got)
		want := []string{
			"shell subscription.end ada@example.com", "shell subscription.give ada@example.com",
			"shell subscription.give ada@example.com", "shell subscription.give ada@example.com",
		}
		if !slices.Equal(got, want) {
			t.Errorf("the audit log is %q, want %q", got, want)
		}
	})
}

// included returns the included units of the period at a time, as the next decision finds them.
func (f *fixture) included(t *testing.T, email string, at time.Time) int64 {
	t.Helper()
	return f.foresee(t, f.catalogue, email, at).Included
}

// A downgrade keeps the period's included units, even for a person who used nothing on the better
// plan.
func TestADowngradeKeepsWhatIsIncluded(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		want := func(email string, at time.Time, included int64) {
			t.Helper()
			if got := f.included(t, email, at); got != included {
				t.Errorf("%s has %d included, want %d", email, got, included)
			}
		}
		next := noon.AddDate(0, 1, 0)
		ada := models.Subscriber{Email: "ada@example.com"}
		for _, step := range []struct {
			plan     models.PlanID
			included int64
		}{{"starter", 25}, {"pro", 75}, {"starter", 75}, {"free", 75}} {
			f.subscribe(t, ada, step.plan)
			want("ada@example.com", noon, step.included)
		}
		want("ada@example.com", next, 5)

		acme := f.organization(t, noon, "Acme", "T1")
		f.member(t, "bob@example.com", "T1")
		f.member(t, "cyd@example.com", "T1")
		for _, step := range []struct {
			plan     models.PlanID
			included int64
		}{{"team", 50}, {"business", 100}, {"team", 100}, {"free", 100}} {
			f.subscribe(t, models.Subscriber{OrganizationID: &acme}, step.plan)
			want("bob@example.com", noon, step.included)
			want("cyd@example.com", noon, step.included)
		}
		want("bob@example.com", next, 5)
		if lines := f.verify(t); len(lines) > 0 {
			t.Error(lines)
		}
	})
}

func TestSubscribeOrganization(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		id := f.organization(t, noon, "Quiet Fox Ltd", "T1")
		f.member(t, "ada@example.com", "T1")
		f.subscribe(t, models.Subscriber{Email: "ada@example.com"}, "pro")
		f.subscribe(t, models.Subscriber{OrganizationID: &id}, "team")
		if got := f.planNow(t, "ada@example.com"); got != "team" {
			t.Errorf("the plan is %q, want the organization's", got)
		}
		f.subscribe(t, models.Subscriber{OrganizationID: &id}, "free")
		if got := f.planNow(t, "ada@example.com"); got != "pro" {
			t.Errorf("without the organization's plan, the plan is %q, want the person's own", got)
		}
	})
}

// Only Stripe changes its subscriptions.
func TestSubscribeLeavesStripeAlone(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		u, err := models.SetUser(f.ctx, f.db, noon, "ada@example.com", models.UserChange{})
		if err != nil {
			t.Fatal(err)
		}
		later := noon.Add(time.Hour)
		f.insert(t, &models.Subscription{
			ID: newID(), UserID: &u.ID, PlanID: "starter", Status: models.StatusPastDue, StripeSubscriptionID: ptr("sub_1"),
			CreatedAt: later, UpdatedAt: later,
		})
		f.subscribe(t, models.Subscriber{Email: u.Email}, "pro")
		if got := f.planNow(t, u.Email); got != "pro" {
			t.Errorf("the plan is %q, want the one given last", got)
		}
		f.subscribe(t, models.Subscriber{Email: u.Email}, "free")
		if got := f.planNow(t, u.Email); got != "starter" {
			t.Errorf("after free, the plan is %q, want Stripe's", got)
		}
	})
}

func TestSubscribeRefuses(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		id := f.organization(t, noon, "Quiet Fox Ltd")
		ada, fox, unknown := models.Subscriber{Email: "ada@example.com"}, models.Subscriber{OrganizationID: &id},
			models.Subscriber{OrganizationID: ptr(newID())}
		for _, test := range []struct {
			subscriber models.Subscriber
			plan       models.PlanID
			want       string
		}{
			{ada, "gold", `the catalog has no plan "gold", only free, starter, pro, team, business`},
			{ada, "team", `"team" is a team plan, which only an organization can have`},
			{fox, "pro", `"pro" is an individual plan, which only a person can have`},
			{unknown, "team", "There is no organization " + unknown.String()},
			{models.Subscriber{}, "pro", `"" must be an email address`},
		} {
			s, err := models.Subscribe(f.ctx, f.db, f.catalogue, noon, test.subscriber, test.plan)
			wantError(t, err, test.want)
			if s != nil {
				t.Errorf("%s to %s: %+v was stored", test.subscriber, test.plan, s)
			}
		}
		_, err := models.Subscribe(f.ctx, f.db, f.catalogue, noon, unknown, "free")
		var coded *models.Error
		if !errors.As(err, &coded) || coded.Code != models.CodeUnknownOrganization {
			t.Errorf("free for an unknown organization: %v", err)
		}
		if n := len(all[models.Subscription](t, f)) + len(all[models.User](t, f)) + len(all[models.AuditEntry](t, f)) - 1; n != 0 {
			t.Errorf("%d rows were stored", n)
		}
	})
}

func TestSubscribeAtOnce(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		id := f.organization(t, noon, "Quiet Fox Ltd")
		for _, test := range []struct {
			subscriber models.Subscriber
			plans      []models.PlanID
		}{
			{models.Subscriber{Email: "ada@example.com"}, []models.PlanID{"starter", "pro"}},
			{models.Subscriber{OrganizationID: &id}, []models.PlanID{"team", "business"}},
		} {
			var wg sync.WaitGroup
			for i := range 8 {
				wg.Go(func() {
					if _, err := models.Subscribe(f.ctx, f.db, f.catalogue, noon, test.subscriber, test.plans[i%2]); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
		}
		one[models.Subscription](t, f, "status = ? AND organization_id IS NULL", models.StatusActive)
		one[models.Subscription](t, f, "status = ? AND user_id IS NULL", models.StatusActive)
	})
}

// An unpaid subscription still exists at Stripe, so pages show it before a newer one that has ended.
func TestASuspendedSubscriptionIsFoundFirst(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		acme := f.organization(t, noon, "Acme", "T1")
		ada := f.user(t, "ada@example.com")
		add := func(id string, status models.SubscriptionStatus, age time.Duration) {
			for _, s := range []models.Subscription{{UserID: &ada, PlanID: "pro"}, {OrganizationID: &acme, PlanID: "team"}} {
				s.ID, s.Status, s.CreatedAt, s.UpdatedAt = newID(), status, noon.Add(-age), noon.Add(-age)
				s.StripeSubscriptionID = ptr(id + string(s.PlanID))
				f.insert(t, &s)
			}
		}
		found := func(want models.SubscriptionStatus) {
			t.Helper()
			own, err := models.SubscriptionOf(f.ctx, f.db, "ada@example.com")
			if err != nil || own == nil || own.Status != want {
				t.Errorf("the person's: %+v, %v, want %s", own, err, want)
			}
			shared, err := models.SubscriptionOfOrganization(f.ctx, f.db, acme)
			if err != nil || shared == nil || shared.Status != want {
				t.Errorf("the organization's: %+v, %v, want %s", shared, err, want)
			}
		}
		add("old", models.StatusCanceled, 3*time.Hour)
		found(models.StatusCanceled)
		add("unpaid", models.StatusUnpaid, 2*time.Hour)
		add("new", models.StatusCanceled, time.Hour)
		found(models.StatusUnpaid)
		add("active", models.StatusActive, 4*time.Hour)
		found(models.StatusActive)
	})
}
