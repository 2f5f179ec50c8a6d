package models_test

import (
	"fmt"
	"maps"
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

// TestTheLastLinkOfAnIdentityStands gives one new identity to two people in one batch, in both orders.
func TestTheLastLinkOfAnIdentityStands(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		for i, emails := range [][]string{{"a@example.com", "b@example.com"}, {"b@example.com", "a@example.com"}} {
			identity := models.SlackIdentity{TeamID: "T1", UserID: fmt.Sprint("U", i)}
			links := []models.Link{{Email: emails[0], Slack: identity}, {Email: emails[1], Slack: identity}}
			if err := models.LinkPeople(f.ctx, f.db, noon, links); err != nil {
				t.Fatal(err)
			}
			found, err := models.EmailsOf(f.ctx, f.db, []models.SlackIdentity{identity})
			if err != nil || found[identity] != emails[1] {
				t.Errorf("of %q the identity is %q's, %v", emails, found[identity], err)
			}
			if first := one[models.User](t, f, "email = ?", emails[0]); first.WorkspaceID == nil || first.SlackUserID != nil {
				t.Errorf("%s is %v in workspace %v, want to be in it without an identity", first.Email, first.SlackUserID, first.WorkspaceID)
			}
		}
	})
}

// TestAGentleLinkTakesNothingFromAnybody links people gently: the new ones are linked, and all others stay who they were.
func TestAGentleLinkTakesNothingFromAnybody(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		identity := func(team, user string) models.SlackIdentity {
			return models.SlackIdentity{TeamID: team, UserID: user}
		}
		f.exec(t, "INSERT INTO users (id, email, created_at) VALUES (?, 'known@example.com', ?)", newID(), noon)
		f.organization(t, noon, "Another", "T2")
		if _, err := models.SetUser(f.ctx, f.db, noon, "placed@example.com", models.UserChange{OrganizationID: &all[models.Organization](t, f, "id")[0].ID}); err != nil {
			t.Fatal(err)
		}
		if err := models.LinkPeople(f.ctx, f.db, noon, []models.Link{{Email: "ada@example.com", Slack: identity("T1", "U1")}}); err != nil {
			t.Fatal(err)
		}
		var links []models.Link
		for _, l := range []models.Link{
			{Email: "eve@example.com", Slack: identity("T1", "U1")},    // is Ada's
			{Email: "ada@example.com", Slack: identity("T1", "U2")},    // has another one
			{Email: "ada@example.com", Slack: identity("T2", "U1")},    // and in another team
			{Email: "placed@example.com", Slack: identity("T1", "U3")}, // is in another team
			{Email: "known@example.com", Slack: identity("T1", "U4")},
			{Email: "new@example.com", Slack: identity("T1", "U5")},
			{Email: "late@example.com", Slack: identity("T1", "U5")}, // was just given away
			{Email: "placed@example.com", Slack: identity("T2", "U6")},
		} {
			l.Gentle = true
			links = append(links, l)
		}
		if err := models.LinkPeople(f.ctx, f.db, noon, links); err != nil {
			t.Fatal(err)
		}
		want := map[models.SlackIdentity]string{
			identity("T1", "U1"): "ada@example.com", identity("T1", "U4"): "known@example.com", identity("T1", "U5"): "new@example.com", identity("T2", "U6"): "placed@example.com",
		}
		var asked []models.SlackIdentity
		for _, l := range links {
			asked = append(asked, l.Slack)
		}
		if got, err := models.EmailsOf(f.ctx, f.db, asked); err != nil || !maps.Equal(got, want) {
			t.Errorf("identities are %v, want %v; %v", got, want, err)
		}
	})
}
