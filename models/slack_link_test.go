package models_test

import (
	"bytes"
	"cmp"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"

	"tollgate/models"
)

// linkOf returns a link of a test's person and identity.
func linkOf(email, team, user string) models.Link {
	return models.Link{Email: email, Slack: models.SlackIdentity{TeamID: team, UserID: user}}
}

// link links people who can all be linked.
func (f *fixture) link(t *testing.T, links ...models.Link) []models.LinkedPerson {
	t.Helper()
	people, err := models.LinkPeople(f.ctx, f.db, noon, links)
	if err != nil || len(people) != len(links) {
		t.Fatalf("%d of %d people linked, %v", len(people), len(links), err)
	}
	return people
}

// place returns the fields of a person that no link may change.
func (f *fixture) place(t *testing.T, user uuid.UUID) string {
	t.Helper()
	u := one[models.User](t, f, "id = ?", user)
	return fmt.Sprint(u.Role, " ", u.Operator, " ", u.WorkspaceID, " ", deref(u.SlackUserID))
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// TestWhomALinkIdentifies is the table of docs/identities.md. The admin ada has the identity U1 of
// team A. bob is in the same team, eve in team B, and gil gave up an address. fay, hal, ivy and joe
// are known only by email.
func TestWhomALinkIdentifies(t *testing.T) {
	const ignored, notLinked = "email ignored: it belongs to another person", "identity not linked"
	cases := []struct {
		name, identity, email string
		person, label         string // a person of the test, or "new"; the label is the email if it is empty
		logged                string
	}{
		{"known, own email", "A U1", "ada@", "ada", "", ""},
		{"known, free email", "A U1", "free@", "ada", "", ""},
		{"known, email of the same team", "A U1", "bob@", "ada", "ada@", ignored},
		{"known, email of another team", "A U1", "eve@", "ada", "ada@", ignored},
		{"known, email given up", "A U1", "gil.old@", "ada", "", ""},
		{"known, email of a person without an identity", "A U1", "fay@", "ada", "ada@", ignored},
		{"known, placeholder", "A U1", "u9@B.slack.invalid", "ada", "ada@", "email ignored: it is a placeholder"},

		{"unknown, own email", "A U9", "fay@", "fay", "", ""},
		{"unknown, own email, in the same organization", "A U9", "hal@", "hal", "", ""},
		{"unknown, free email", "A U9", "free@", "new", "", ""},
		{"unknown, email of the same team", "A U9", "bob@", "new", "u9@A.slack.invalid", ignored},
		{"unknown, email of another team", "A U9", "eve@", "new", "u9@A.slack.invalid", ignored},
		{"unknown, email of a person in another organization", "B U9", "hal@", "new", "u9@B.slack.invalid", ignored},
		{"unknown, email given up", "A U9", "gil.old@", "new", "", ""},
		{"unknown, email of an admin without an identity", "A U9", "ivy@", "ivy", "", notLinked},
		{"unknown, email of an operator without an identity", "B U9", "joe@", "joe", "", notLinked},
		{"unknown, its own placeholder", "A U9", "u9@A.slack.invalid", "new", "", ""},
		{"unknown, another placeholder", "A U9", "u8@A.slack.invalid", "new", "u9@A.slack.invalid", "email ignored: it is a placeholder"},
		{"unknown team, email of another team", "C U9", "ada@", "new", "u9@C.slack.invalid", ignored},
	}
	onBoth(t, func(t *testing.T, f *fixture) {
		admin, yes := models.Admin, true
		for n, c := range cases {
			t.Run(c.name, func(t *testing.T) {
				team := func(letter string) string { return fmt.Sprint("T", n, letter) }
				address := func(s string) string { // each case has its own people and teams
					name, domain, _ := strings.Cut(s, "@")
					if domain == "" {
						return fmt.Sprintf("%s%d@example.com", name, n)
					}
					letter, rest, _ := strings.Cut(domain, ".")
					return name + "@" + strings.ToLower(team(letter)) + "." + rest
				}
				people := map[string]uuid.UUID{}
				for i, p := range f.link(t, linkOf(address("ada@"), team("A"), "U1"), linkOf(address("bob@"), team("A"), "U2"),
					linkOf(address("eve@"), team("B"), "U1"),
					linkOf(address("gil.old@"), team("A"), "U4"), linkOf(address("gil@"), team("A"), "U4")) {
					people[[]string{"ada", "bob", "eve", "gil", "gil"}[i]] = p.UserID
				}
				f.exec(t, "UPDATE users SET role = 'admin' WHERE id IN (?, ?)", people["ada"], people["eve"])
				home := one[models.Workspace](t, f, "slack_team_id = ?", team("A")).OrganizationID
				for name, change := range map[string]models.UserChange{
					"fay": {}, "hal": {OrganizationID: &home}, "ivy": {OrganizationID: &home, Role: &admin}, "joe": {Operator: &yes},
				} {
					u, err := models.SetUser(f.ctx, f.db, noon, address(name+"@"), change)
					if err != nil {
						t.Fatal(err)
					}
					people[name] = u.ID
				}
				before, places := all[models.User](t, f, "id"), map[string]string{}
				for name, id := range people {
					places[name] = f.place(t, id)
				}

				letter, user, _ := strings.Cut(c.identity, " ")
				link := linkOf(address(c.email), team(letter), user)
				person := f.link(t, link)[0]
				var log bytes.Buffer
				models.LogLinked(f.ctx, slog.New(slog.NewTextHandler(&log, nil)), []models.Link{link}, []models.LinkedPerson{person})

				isNew := !slices.ContainsFunc(before, func(u models.User) bool { return u.ID == person.UserID })
				if isNew != (c.person == "new") || !isNew && person.UserID != people[c.person] {
					t.Errorf("the person is %s (new: %t), want %s %s", person.UserID, isNew, c.person, people[c.person])
				}
				if want := address(cmp.Or(c.label, c.email)); person.Email != want || one[models.User](t, f, "id = ?", person.UserID).Email != want {
					t.Errorf("the label is %s, want %s", person.Email, want)
				}
				if !strings.Contains(log.String(), c.logged) || c.logged == "" && log.Len() > 0 || strings.Contains(log.String(), "@") {
					t.Errorf("the log is %q, want %q", log.String(), c.logged)
				}
				if linked := f.place(t, person.UserID); c.logged != notLinked && !strings.HasSuffix(linked, " "+user) {
					t.Errorf("the person is %s, want the identity %s", linked, user)
				}
				for name, id := range people {
					if got := f.place(t, id); got != places[name] && (name != c.person || !strings.HasPrefix(got, "member false ")) {
						t.Errorf("%s was %s and is now %s", name, places[name], got)
					}
				}
				after := all[models.User](t, f, "id")
				if again := f.link(t, link)[0]; again != person {
					t.Errorf("linked again to %+v, want %+v", again, person)
				}
				if len(after) != len(all[models.User](t, f, "id")) {
					t.Error("a retry created a person")
				}
			})
		}
	})
}

// Links of one batch depend on each other.
func TestLinksApplyInOrder(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		p := f.link(t,
			linkOf("a@example.com", "T1", "U1"), linkOf("b@example.com", "T1", "U2"),
			linkOf("b@example.com", "T1", "U1"), // the email belongs to the second person
			linkOf("c@example.com", "T1", "U1"), // the email is free
			linkOf("a@example.com", "T1", "U3"), // the email was just given up
			linkOf("a@example.com", "T1", "U2"), // the email was just taken
			linkOf("c@example.com", "T2", "U1"), // the email belongs to another team's person
			linkOf("c@example.com", "T2", "U1"))
		var got []string
		for i, person := range p {
			got = append(got, person.Email)
			if stored := one[models.User](t, f, "id = ?", person.UserID); i > 2 && stored.Email != person.Email {
				t.Errorf("%d: stored %s, returned %s", i, stored.Email, person.Email)
			}
		}
		want := []string{"a@example.com", "b@example.com", "a@example.com", "c@example.com", "a@example.com", "b@example.com",
			"u1@t2.slack.invalid", "u1@t2.slack.invalid"}
		if !slices.Equal(got, want) {
			t.Errorf("the labels are %q, want %q", got, want)
		}
		if p[0].UserID != p[2].UserID || p[0].UserID != p[3].UserID || p[1].UserID != p[5].UserID || p[6].UserID != p[7].UserID ||
			p[4].UserID == p[0].UserID {
			t.Errorf("the people are %+v", p)
		}
		if n := len(all[models.User](t, f)); n != 4 {
			t.Errorf("%d people, want 4", n)
		}
		// Their memberships are stored immediately.
		var members int
		if err := f.db.NewSelect().TableExpr("memberships").ColumnExpr("COUNT(*)").Scan(f.ctx, &members); err != nil || members != 4 {
			t.Errorf("%d memberships, %v", members, err)
		}
	})
}

// Two identities have one placeholder, one identity's ID cannot be in an address, and a person lost
// the identity of the placeholder.
func TestPlaceholdersThatAreTaken(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		f.member(t, "ada@example.com", "T1")
		p := f.link(t, linkOf("ada@example.com", "T2", "U1"), linkOf("ada@example.com", "T2", "u1"), linkOf("ada@example.com", "T3.", "U1"))
		if p[0].Email != "u1@t2.slack.invalid" {
			t.Errorf("the first label is %s", p[0].Email)
		}
		for _, other := range p[1:] {
			if other.Email != other.UserID.String()+"@slack.invalid" {
				t.Errorf("another label is %s", other.Email)
			}
		}
		if _, err := models.SetUser(f.ctx, f.db, noon, "u1@t2.slack.invalid", models.UserChange{Leaves: true}); err != nil {
			t.Fatal(err)
		}
		if again := f.link(t, linkOf("ada@example.com", "T2", "U1"))[0]; again != p[0] {
			t.Errorf("linked again to %+v, want %+v", again, p[0])
		}
		// A free address replaces the placeholder.
		if free := f.link(t, linkOf("eve@example.com", "T2", "U1"))[0]; free.UserID != p[0].UserID || free.Email != "eve@example.com" {
			t.Errorf("with a free address, the person is %+v", free)
		}
	})
}

// Many goroutines link the same new identities in different orders. Others claim some of the
// addresses too.
func TestConcurrentLinksMakeOnePersonPerIdentity(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		const identities, callers = 8, 8
		other, err := models.Open(f.ctx, f.db.URL) // like another process
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = other.Close() }()
		f.link(t, linkOf("old0@example.com", "T0", "U0"))
		people := make([][]models.LinkedPerson, callers)
		var all sync.WaitGroup
		for c := range callers {
			all.Go(func() {
				db := []*models.DB{f.db, other}[c%2]
				for i := range identities {
					n := (i*3 + c) % identities
					links := []models.Link{
						linkOf(fmt.Sprintf("p%d@example.com", n), "T1", fmt.Sprint("U", n)), linkOf(fmt.Sprintf("p%d@example.com", n), "T2",
							fmt.Sprint("U", n)),
						linkOf(fmt.Sprintf("old%d@example.com", (i+c)%3), "T0", "U0"),
					}
					linked, err := models.LinkPeople(f.ctx, db, noon, links)
					if err != nil {
						t.Error(err)
						return
					}
					people[c] = append(people[c], linked[:2]...)
				}
			})
		}
		all.Wait()
		ids := map[uuid.UUID]bool{}
		for _, linked := range people {
			for _, p := range linked {
				ids[p.UserID] = true
			}
		}
		stored := map[string]bool{}
		var users []models.User
		if err := f.db.NewSelect().Model(&users).Where("slack_user_id <> 'U0' OR email LIKE 'p0@%' OR email LIKE 'u0@%'").
			Scan(f.ctx); err != nil {
			t.Fatal(err)
		}
		for _, u := range users {
			stored[u.Email] = ids[u.ID]
		}
		if len(ids) != 2*identities || len(users) != 2*identities {
			t.Errorf("%d people were returned and %d are stored, want %d", len(ids), len(users), 2*identities)
		}
		for n := range identities {
			// One team has the address; the other team's person has the placeholder.
			if !stored[fmt.Sprintf("p%d@example.com", n)] ||
				stored[fmt.Sprintf("u%d@t1.slack.invalid", n)] == stored[fmt.Sprintf("u%d@t2.slack.invalid", n)] {
				t.Errorf("identity %d: the labels are %v", n, stored)
			}
		}
		if n, err := f.db.NewSelect().Model((*models.User)(nil)).Where("email LIKE 'old%'").Count(f.ctx); err != nil || n != 1 {
			t.Errorf("%d people have one of the old addresses, %v", n, err)
		}
	})
}

func TestAThousandPeopleAreLinkedAtOnce(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		var links []models.Link
		var identities []models.SlackIdentity
		for i := range 1000 {
			l := linkOf(fmt.Sprintf("p%d@example.com", i), "T1", fmt.Sprint("U", i))
			links, identities = append(links, l), append(identities, l.Slack)
		}
		f.link(t, links...)
		if found, err := models.PeopleByIdentity(f.ctx, f.db, identities); err != nil || len(found) != len(links) {
			t.Errorf("%d people found, %v", len(found), err)
		}
	})
}
