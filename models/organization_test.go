package models_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"tollgate/models"
	"tollgate/models/modelstest"
)

func TestCreateOrganization(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		o, err := models.CreateOrganization(f.ctx, f.db, noon, "  Quiet Fox Ltd ", []string{"T2", "T1", "T2"})
		if err != nil {
			t.Fatal(err)
		}
		stored := one[models.Organization](t, f, "id = ?", o.ID)
		if o.Name != "Quiet Fox Ltd" || stored.Name != o.Name || !stored.CreatedAt.Equal(noon) {
			t.Errorf("made %+v, stored %+v", o, stored)
		}
		var teams []string
		for _, w := range all[models.Workspace](t, f, "slack_team_id") {
			if w.OrganizationID != o.ID {
				t.Errorf("team %s belongs to %s", w.SlackTeamID, w.OrganizationID)
			}
			teams = append(teams, w.SlackTeamID)
		}
		if !slices.Equal(teams, []string{"T1", "T2"}) {
			t.Errorf("the teams are %v", teams)
		}
		if got := f.audited(t); !slices.Equal(got, []string{"shell organization.create " + o.ID.String()}) {
			t.Errorf("the audit log is %q", got)
		}
	})
}

// A team's first call gives it its own organization. An operator may later join several teams.
func TestCreateOrganizationJoinsKnownTeams(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		for _, team := range []string{"T1", "T2", "T3"} {
			slack := models.SlackIdentity{TeamID: team, UserID: "U1"}
			if _, err := models.LinkPeople(f.ctx, f.db, noon,
				[]models.Link{{Email: strings.ToLower(team) + "@example.com", Slack: slack}}); err != nil {
				t.Fatal(err)
			}
		}
		before := one[models.Workspace](t, f, "slack_team_id = ?", "T1")
		subscribed := one[models.Workspace](t, f, "slack_team_id = ?", "T2").OrganizationID
		if _, err := models.Subscribe(f.ctx, f.db, f.catalogue, noon, models.Subscriber{OrganizationID: &subscribed}, "team"); err != nil {
			t.Fatal(err)
		}

		o, err := models.CreateOrganization(f.ctx, f.db, noon, "Joined", []string{"T1", "T2", "T4"})
		if err != nil {
			t.Fatal(err)
		}
		after := one[models.Workspace](t, f, "slack_team_id = ?", "T1")
		if after.ID != before.ID || after.OrganizationID != o.ID {
			t.Errorf("T1 was %+v and is now %+v, want the same workspace in %s", before, after, o.ID)
		}
		if u := one[models.User](t, f, "email = ?", "t1@example.com"); u.WorkspaceID == nil || *u.WorkspaceID != before.ID {
			t.Errorf("the person of T1 is in workspace %v", u.WorkspaceID)
		}
		if w := one[models.Workspace](t, f, "slack_team_id = ?", "T3"); w.OrganizationID == o.ID {
			t.Error("T3 was moved too")
		}
		entries, err := models.ListOrganizations(f.ctx, f.db, f.catalogue)
		if err != nil {
			t.Fatal(err)
		}
		// T1's own organization was empty and is deleted. T2's has a subscription and stays.
		var names []string
		for _, e := range entries {
			names = append(names, e.Name)
		}
		slices.Sort(names)
		if want := []string{"Joined", "Slack team T2", "Slack team T3"}; !slices.Equal(names, want) {
			t.Errorf("the organizations are %q, want %q", names, want)
		}
	})
}

// An organization that an operator created is not deleted with its last team, whatever its name.
func TestCreateOrganizationKeepsNamedOrganizations(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		first, err := models.CreateOrganization(f.ctx, f.db, noon, "Slack team T1", []string{"T1"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := models.CreateOrganization(f.ctx, f.db, noon, "Second", []string{"T1"}); err != nil {
			t.Fatal(err)
		}
		one[models.Organization](t, f, "id = ?", first.ID)
	})
}

func TestCreateOrganizationRefuses(t *testing.T) {
	f := newFixture(t, modelstest.SQLite(t))
	for _, test := range []struct {
		name  string
		teams []string
		want  error
	}{
		{" \t", nil, models.ErrOrganizationName},
		{strings.Repeat("ä", 201), nil, models.ErrOrganizationName},
		{"a\x00b", nil, models.ErrOrganizationName},
		{"a\xffb", nil, models.ErrOrganizationName},
		{"Fine", []string{"T1", ""}, models.ErrSlackTeam},
		{"Fine", []string{"T 1"}, models.ErrSlackTeam},
		{"Fine", []string{strings.Repeat("T", 65)}, models.ErrSlackTeam},
		{"Fine", []string{"TÄ"}, models.ErrSlackTeam},
	} {
		if _, err := models.CreateOrganization(f.ctx, f.db, noon, test.name, test.teams); !errors.Is(err, test.want) {
			t.Errorf("%q with teams %q: %v, want %v", test.name, test.teams, err, test.want)
		}
	}
	if n := len(all[models.Organization](t, f)) + len(all[models.Workspace](t, f)) + len(all[models.AuditEntry](t, f)); n != 0 {
		t.Errorf("%d rows were created", n)
	}
	if _, err := models.CreateOrganization(f.ctx, f.db, noon, strings.Repeat("ä", 200),
		[]string{"T-1.x_y", strings.Repeat("T", 64)}); err != nil {
		t.Errorf("200 characters, and teams that the API accepts: %v", err)
	}
}

func TestListOrganizations(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		big := f.organization(t, noon, "Big", "T1", "T2")
		small := f.organization(t, noon.Add(time.Hour), "Small", "T3")
		f.organization(t, noon.Add(2*time.Hour), "Empty")
		f.member(t, "a@example.com", "T1")
		f.member(t, "b@example.com", "T1")
		f.member(t, "c@example.com", "T2")
		f.member(t, "d@example.com", "T3")
		f.subscribe(t, models.Subscriber{OrganizationID: &big}, "team")
		f.subscribe(t, models.Subscriber{OrganizationID: &big}, "business")
		f.insert(t, &models.Subscription{
			ID: newID(), OrganizationID: &big, PlanID: "team", Status: models.StatusActive, StripeSubscriptionID: ptr("sub_1"),
			CreatedAt: noon.Add(-time.Hour), UpdatedAt: noon,
		})
		f.subscribe(t, models.Subscriber{OrganizationID: &small}, "team")
		f.subscribe(t, models.Subscriber{OrganizationID: &small}, "free")

		entries, err := models.ListOrganizations(f.ctx, f.db, f.catalogue)
		if err != nil {
			t.Fatal(err)
		}
		type line struct {
			name           string
			teams, members int64
			plan           models.PlanID
		}
		var got []line
		for _, e := range entries {
			got = append(got, line{e.Name, e.Teams, e.Members, e.PlanID})
		}
		if want := []line{{"Big", 2, 3, "business"}, {"Small", 1, 1, "free"}, {"Empty", 0, 0, "free"}}; !slices.Equal(got, want) {
			t.Errorf("got %+v, want %+v", got, want)
		}
		if entries[0].ID != big || !entries[0].CreatedAt.Equal(noon) {
			t.Errorf("the first is %+v", entries[0].Organization)
		}
	})
}

func TestSetUser(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		first := f.organization(t, noon, "First", "T1", "T2")
		second := f.organization(t, noon, "Second", "T3")
		workspace := func(team string) uuid.UUID { return one[models.Workspace](t, f, "slack_team_id = ?", team).ID }
		set := func(change models.UserChange) models.User {
			t.Helper()
			u, err := models.SetUser(f.ctx, f.db, noon, " Ada@Example.com", change)
			if err != nil {
				t.Fatal(err)
			}
			stored := one[models.User](t, f, "email = ?", "ada@example.com")
			if stored.ID != u.ID || stored.Role != u.Role || stored.Operator != u.Operator || (stored.WorkspaceID == nil) != (u.WorkspaceID == nil) {
				t.Fatalf("returned %+v, stored %+v", u, stored)
			}
			return stored
		}

		made := set(models.UserChange{})
		if made.Role != models.Member || made.Operator || made.WorkspaceID != nil || !made.CreatedAt.Equal(noon) {
			t.Errorf("a new person is %+v", made)
		}
		u := set(models.UserChange{OrganizationID: &first, Role: ptr(models.Admin), Operator: ptr(true)})
		if u.ID != made.ID || *u.WorkspaceID != workspace("T1") || u.Role != models.Admin || !u.Operator {
			t.Errorf("after all changes: %+v", u)
		}
		if u = set(models.UserChange{Role: ptr(models.Member)}); u.Role != models.Member || !u.Operator || *u.WorkspaceID != workspace("T1") {
			t.Errorf("after a change of role: %+v", u)
		}
		if u = set(models.UserChange{Operator: ptr(false)}); u.Operator {
			t.Errorf("still an operator: %+v", u)
		}

		// Slack puts them in the second team. The organization is the same, so they stay there, with
		// their role.
		if _, err := models.LinkPeople(f.ctx, f.db, noon,
			[]models.Link{{Email: "ada@example.com", Slack: models.SlackIdentity{TeamID: "T2", UserID: "U1"}}}); err != nil {
			t.Fatal(err)
		}
		set(models.UserChange{Role: ptr(models.Admin)})
		if u = set(models.UserChange{OrganizationID: &first}); *u.WorkspaceID != workspace("T2") || u.SlackUserID == nil ||
			u.Role != models.Admin {
			t.Errorf("moved to the same organization: %+v", u)
		}
		// Another organization has its own Slack user IDs and its own admins.
		if u = set(models.UserChange{OrganizationID: &second}); *u.WorkspaceID != workspace("T3") || u.SlackUserID != nil ||
			u.Role != models.Member {
			t.Errorf("moved to another organization: %+v", u)
		}
		// A person who leaves is not a member or an admin, and has no Slack user ID.
		f.exec(t, "UPDATE users SET slack_user_id = 'U1'")
		set(models.UserChange{Role: ptr(models.Admin)})
		if u = set(models.UserChange{Leaves: true}); u.WorkspaceID != nil || u.SlackUserID != nil || u.Role != models.Member {
			t.Errorf("removed from their organization: %+v", u)
		}
		if _, err := models.SetUser(f.ctx, f.db, noon, "ada@example.com", models.UserChange{Leaves: true, Role: ptr(models.Admin)}); err == nil {
			t.Error("an admin without an organization is accepted")
		}
		if got := f.audited(t); len(got) != 11 || got[7] != "shell user.leave ada@example.com" || got[10] != "shell user.set ada@example.com" {
			t.Errorf("the audit log is %q", got)
		}
		if detail := all[models.AuditEntry](t, f, "id")[10].Detail; detail != "removed from the organization" {
			t.Errorf("the audit detail is %q", detail)
		}
		detail := all[models.AuditEntry](t, f, "id")[3].Detail
		if want := "put in the organization " + first.String() + ", role from member to admin, operator true"; detail != want {
			t.Errorf("the audit detail is %q, want %q", detail, want)
		}
	})
}

func TestSetUserRefuses(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		empty := f.organization(t, noon, "Hollow Oak")
		unknown := newID()
		_, err := models.SetUser(f.ctx, f.db, noon, "ada@example.com", models.UserChange{OrganizationID: &unknown})
		var coded *models.Error
		if !errors.As(err, &coded) || coded.Code != models.CodeUnknownOrganization || !strings.Contains(err.Error(), unknown.String()) {
			t.Errorf("an unknown organization: %v", err)
		}
		_, err = models.SetUser(f.ctx, f.db, noon, "ada@example.com", models.UserChange{OrganizationID: &empty})
		wantError(t, err, `"Hollow Oak" has no Slack team, so no one can be put in it; create another organization with --slack-team`)
		_, err = models.SetUser(f.ctx, f.db, noon, "ada", models.UserChange{})
		if !errors.Is(err, models.ErrEmail) {
			t.Errorf("not an email: %v", err)
		}
		_, err = models.SetUser(f.ctx, f.db, noon, "ada@example.com", models.UserChange{Role: ptr(models.Role("owner"))})
		wantError(t, err, `the role is "owner", must be "member" or "admin"`)
		_, err = models.SetUser(f.ctx, f.db, noon, "ada@example.com", models.UserChange{Role: ptr(models.Admin)})
		wantError(t, err, "an admin needs an organization; set it with --organization")
		if users := all[models.User](t, f); len(users) != 0 {
			t.Errorf("the stored users are %+v", users)
		}
		if got := f.audited(t); len(got) != 1 {
			t.Errorf("the audit log is %q", got)
		}
	})
}
