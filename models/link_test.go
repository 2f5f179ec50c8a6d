package models_test

import (
	"fmt"
	"testing"

	"tollgate/models"
)

// TestIdentitiesMove links people, swaps their identities, and gives one to somebody new, in single batches.
func TestIdentitiesMove(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		identity := func(user string) models.SlackIdentity { return models.SlackIdentity{TeamID: "T1", UserID: user} }
		steps := []struct {
			links []models.Link
			want  map[string]string // Slack user to email
		}{
			{[]models.Link{{Email: "a@example.com", Slack: identity("U1")}, {Email: "b@example.com", Slack: identity("U2")}}, map[string]string{"U1": "a@example.com", "U2": "b@example.com"}},
			{[]models.Link{{Email: "a@example.com", Slack: identity("U2")}, {Email: "b@example.com", Slack: identity("U1")}}, map[string]string{"U1": "b@example.com", "U2": "a@example.com"}},
			{[]models.Link{{Email: "c@example.com", Slack: identity("U1")}}, map[string]string{"U1": "c@example.com", "U2": "a@example.com"}},
			{[]models.Link{{Email: "c@example.com", Slack: identity("U1")}, {Email: "c@example.com", Slack: models.SlackIdentity{TeamID: "T2", UserID: "U1"}}}, map[string]string{"U2": "a@example.com"}},
		}
		for i, step := range steps {
			if err := models.LinkPeople(f.ctx, f.db, noon, step.links); err != nil {
				t.Fatalf("step %d: %v", i, err)
			}
			found, err := models.EmailsOf(f.ctx, f.db, []models.SlackIdentity{identity("U1"), identity("U2")})
			if err != nil {
				t.Fatal(err)
			}
			for user, email := range step.want {
				if found[identity(user)] != email {
					t.Errorf("step %d: %s is %q, want %q", i, user, found[identity(user)], email)
				}
			}
			if len(found) != len(step.want) {
				t.Errorf("step %d: %v, want %v", i, found, step.want)
			}
		}
	})
}

// TestAnAdminOfOneOrganizationIsNoneOfTheNext moves an admin to another Slack team, and back.
func TestAnAdminOfOneOrganizationIsNoneOfTheNext(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		link := func(team string) (role models.Role) {
			t.Helper()
			links := []models.Link{{Email: "a@example.com", Slack: models.SlackIdentity{TeamID: team, UserID: "U1"}}}
			if err := models.LinkPeople(f.ctx, f.db, noon, links); err != nil {
				t.Fatal(err)
			}
			return one[models.User](t, f, "email = ?", "a@example.com").Role
		}
		link("T1")
		f.exec(t, "UPDATE users SET role = 'admin'")
		if role := link("T1"); role != models.Admin {
			t.Errorf("linked again, the admin is a %s", role)
		}
		if role := link("T2"); role != models.Member {
			t.Errorf("in another organization the admin is a %s", role)
		}
	})
}

func TestAThousandPeopleAreLinkedAtOnce(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		var links []models.Link
		var identities []models.SlackIdentity
		for i := range 1000 {
			identity := models.SlackIdentity{TeamID: "T1", UserID: fmt.Sprint("U", i)}
			links, identities = append(links, models.Link{Email: fmt.Sprintf("p%d@example.com", i), Slack: identity}), append(identities, identity)
		}
		if err := models.LinkPeople(f.ctx, f.db, noon, links); err != nil {
			t.Fatal(err)
		}
		if found, err := models.EmailsOf(f.ctx, f.db, identities); err != nil || len(found) != len(links) {
			t.Errorf("%d people found, %v", len(found), err)
		}
	})
}
