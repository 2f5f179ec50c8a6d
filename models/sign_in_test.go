package models_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"tollgate/models"
)

// wantCode fails unless the error has the code.
func wantCode(t *testing.T, err error, code models.Code) {
	t.Helper()
	var coded *models.Error
	if !errors.As(err, &coded) || coded.Code != code {
		t.Errorf("error %v, want the code %s", err, code)
	}
}

func TestSignInLinks(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		_, err := models.CreateSignInLink(f.ctx, f.db, noon, "unknown@example.com")
		wantCode(t, err, models.CodeUnknownUser)
		wantError(t, err, "tollgate user set unknown@example.com")
		if _, err := models.CreateSignInLink(f.ctx, f.db, noon, "unknown"); !errors.Is(err, models.ErrEmail) {
			t.Errorf("an invalid address: %v", err)
		}
		if n := len(all[models.User](t, f)); n != 0 {
			t.Errorf("a refused link created %d users", n)
		}
		f.member(t, "ada@example.com", "T1")
		token, err := models.CreateSignInLink(f.ctx, f.db, noon, " Ada@Example.com ")
		if err != nil {
			t.Fatal(err)
		}
		ada := one[models.User](t, f, "email = ?", "ada@example.com").ID
		stored := one[models.SignInLink](t, f, "user_id = ?", ada)
		if hash := models.HashKey(token); string(stored.TokenHash) != string(hash[:]) || len(token) != 26 {
			t.Errorf("%q is stored as %x", token, stored.TokenHash)
		}
		late := noon.Add(models.SignInLinkLife)
		for range 2 {
			if email, err := models.SignInLinkEmail(f.ctx, f.db, late.Add(-time.Microsecond), token); err != nil || email != "ada@example.com" {
				t.Errorf("read: %q, %v", email, err)
			}
		}
		other := "A" + token[1:]
		if other == token {
			other = "B" + token[1:]
		}
		_, err = models.SignInLinkEmail(f.ctx, f.db, late, token)
		wantCode(t, err, models.CodeUnknownLink)
		for _, use := range []struct {
			at    time.Time
			token string
		}{{late, token}, {noon, other}, {noon, ""}} {
			_, err := models.UseSignInLink(f.ctx, f.db, use.at, use.token)
			wantCode(t, err, models.CodeUnknownLink)
		}
		if p, err := models.UseSignInLink(f.ctx, f.db, late.Add(-time.Microsecond), token); err != nil || p.UserID != ada ||
			p.Email != "ada@example.com" {
			t.Errorf("used: %+v, %v", p, err)
		}
		_, err = models.UseSignInLink(f.ctx, f.db, noon, token)
		wantCode(t, err, models.CodeUnknownLink)
		if got, want := strings.Join(f.audited(t), "; "),
			"shell sign_in_link.create ada@example.com; ada@example.com sign_in_link.use ada@example.com"; got != want {
			t.Errorf("the audit log is %q, want %q", got, want)
		}
	})
}

func TestALinkSignsInOnce(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		f.member(t, "ada@example.com", "T1")
		for range 10 {
			token, err := models.CreateSignInLink(f.ctx, f.db, noon, "ada@example.com")
			if err != nil {
				t.Fatal(err)
			}
			var accepted atomic.Int64
			var racers sync.WaitGroup
			for range 8 {
				racers.Go(func() {
					if _, err := models.UseSignInLink(f.ctx, f.db, noon, token); err == nil {
						accepted.Add(1)
					} else {
						wantCode(t, err, models.CodeUnknownLink)
					}
				})
			}
			racers.Wait()
			if accepted.Load() != 1 {
				t.Fatalf("%d sign-ins were accepted", accepted.Load())
			}
		}
	})
}

func TestSignInBySlack(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		yes, boss := true, models.Admin
		slack := func(team, user string) models.SlackIdentity { return models.SlackIdentity{TeamID: team, UserID: user} }
		in := func(identity models.SlackIdentity, email, want string) models.LinkedPerson {
			t.Helper()
			got, err := models.SignInBySlack(f.ctx, f.db, noon, identity, email, "")
			if err != nil || got.Email != want || one[models.User](t, f, "email = ?", want).ID != got.UserID {
				t.Errorf("%v with %s is %+v, %v; want %s", identity, email, got, err, want)
			}
			return got
		}
		refused := func(identity models.SlackIdentity, email string) {
			t.Helper()
			before := len(all[models.Workspace](t, f))
			_, err := models.SignInBySlack(f.ctx, f.db, noon, identity, email, "Eve")
			wantCode(t, err, models.CodeSignInRefused)
			if found, err := models.PeopleByIdentity(f.ctx, f.db, []models.SlackIdentity{identity}); err != nil || len(found) > 0 ||
				len(all[models.Workspace](t, f)) != before {
				t.Errorf("refused, but linked: %v, %v", found, err)
			}
		}
		first := in(slack("T1", "U1"), " New@Example.com", "new@example.com") // the team is new too
		for email, want := range map[string]string{"": "new@example.com", "no address": "new@example.com"} {
			in(slack("T1", "U1"), email, want) // the identity is enough
		}
		if p := in(slack("T1", "U1"), "other@example.com", "other@example.com"); p.UserID != first.UserID {
			t.Errorf("with another email, the person is %+v, was %+v", p, first)
		}
		if n := len(all[models.User](t, f)); n != 1 {
			t.Errorf("%d users, want 1", n)
		}
		if p := in(slack("T1", "U2"), "new@example.com", "new@example.com"); p.UserID == first.UserID {
			t.Error("the next person with an address is the previous owner")
		}
		f.use(t, "usage@example.com", noon, "free", 3) // known only by email
		in(slack("T2", "U1"), "usage@example.com", "usage@example.com")
		in(slack("T2", "U7"), "usage@example.com", "u7@t2.slack.invalid") // another account in the team
		in(slack("T9", "U1"), "usage@example.com", "u1@t9.slack.invalid")

		// An operator put an admin into an organization. A verified address of that organization's team
		// links the admin; one of another team does not.
		acme := f.organization(t, noon, "Acme", "T3")
		for _, email := range []string{"boss@example.com", "ops@example.com"} {
			if _, err := models.SetUser(f.ctx, f.db, noon, email, models.UserChange{OrganizationID: &acme, Role: &boss,
				Operator: &yes}); err != nil {
				t.Fatal(err)
			}
		}
		in(slack("T1", "U8"), "boss@example.com", "u8@t1.slack.invalid")
		f.link(t, models.Link{Email: "boss@example.com", Slack: slack("T3", "U8")}) // an API call does not link them
		in(slack("T3", "U9"), "boss@example.com", "boss@example.com")
		if u := one[models.User](t, f, "email = ?", "boss@example.com"); u.Role != models.Admin || !u.Operator || *u.SlackUserID != "U9" {
			t.Errorf("the admin is %+v", u)
		}
		in(slack("T3", "U8"), "boss@example.com", "u8@t3.slack.invalid")
		// A Slack team cannot sign its people in as operators.
		if _, err := models.SetUser(f.ctx, f.db, noon, "root@example.com", models.UserChange{Operator: &yes}); err != nil {
			t.Fatal(err)
		}
		refused(slack("T3", "U6"), "root@example.com")
		refused(slack("T8", "U6"), "root@example.com")

		for _, identity := range []models.SlackIdentity{{}, slack("", "U1"), slack("T1", ""), slack("T1 ", "U1"), slack("T1", "U/1"),
			slack(strings.Repeat("T", 101), "U1")} {
			if _, err := models.SignInBySlack(f.ctx, f.db, noon, identity, "a@example.com", ""); !errors.Is(err, models.ErrSlackIdentity) {
				t.Errorf("%v: %v", identity, err)
			}
		}
		if _, err := models.SignInBySlack(f.ctx, f.db, noon, slack("T1", "U5"), "a", ""); !errors.Is(err, models.ErrEmail) {
			t.Errorf("an invalid address: %v", err)
		}
	})
}

func TestNamesAtSignIn(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		for _, step := range []struct{ given, want string }{
			{" Ada Lovelace\n", "Ada Lovelace"}, {"", "Ada Lovelace"}, {"\u202e \x00", "Ada Lovelace"}, {"A\xffda\x00", "Ada"},
			{strings.Repeat("é", 300), strings.Repeat("é", 200)},
		} {
			if p, err := models.SignInByIssuer(f.ctx, f.db, noon, models.IssuerIdentity{Issuer: "https://id.example.com", Subject: "1"},
				"Ada@example.com", step.given); err != nil || p.Email != "ada@example.com" {
				t.Fatalf("%+v, %v", p, err)
			}
			if u := one[models.User](t, f, "email = ?", "ada@example.com"); u.Name != step.want {
				t.Errorf("the name %q is stored as %q", step.given, u.Name)
			}
		}
		if _, err := models.SignInByIssuer(f.ctx, f.db, noon, models.IssuerIdentity{Issuer: "https://id.example.com", Subject: "2"}, "ada",
			""); !errors.Is(err, models.ErrEmail) {
			t.Errorf("an invalid address: %v", err)
		}
	})
}

func TestAdminsOf(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		acme, boss := f.organization(t, noon, "Acme", "T1", "T2"), models.Admin
		f.organization(t, noon, "Other", "T3")
		for _, person := range []struct{ email, team string }{{"zoe@example.com", "T1"}, {"ada@example.com", "T2"}, {"eve@example.com", "T3"}} {
			f.member(t, person.email, person.team)
			if _, err := models.SetUser(f.ctx, f.db, noon, person.email, models.UserChange{Role: &boss}); err != nil {
				t.Fatal(err)
			}
		}
		f.member(t, "bob@example.com", "T1")
		admins, err := models.AdminsOf(f.ctx, f.db, acme)
		if err != nil || len(admins) != 2 || admins[0].Email != "ada@example.com" || admins[1].Email != "zoe@example.com" {
			t.Errorf("%+v, %v", admins, err)
		}
	})
}

// Members' pages ask for the admins, so this must not read all members of a large organization.
func TestAdminsOfALargeOrganization(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		acme := f.organization(t, noon, "Acme", "T1")
		team := one[models.Workspace](t, f, "slack_team_id = ?", "T1").ID
		members := make([]models.User, 3000)
		for i := range members {
			members[i] = models.User{
				ID: uuid.Must(uuid.NewV7()), Email: fmt.Sprintf("m%d@example.com", i), WorkspaceID: &team, Role: models.Member, CreatedAt: noon,
			}
		}
		members[0].Role = models.Admin
		for part := range slices.Chunk(members, 500) {
			if _, err := f.db.NewInsert().Model(&part).Exec(f.ctx); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := f.db.ExecContext(f.ctx, "ANALYZE"); err != nil {
			t.Fatal(err)
		}
		seen := &queries{}
		if admins, err := models.AdminsOf(f.ctx, f.db.WithQueryHook(seen), acme); err != nil || len(admins) != 1 {
			t.Fatalf("%+v, %v", admins, err)
		}
		var err error
		var plan []string
		if f.db.Postgres {
			err = f.db.NewRaw("EXPLAIN "+seen.texts[0]).Scan(f.ctx, &plan)
		} else {
			var ids, parents, unused []int64
			err = f.db.NewRaw("EXPLAIN QUERY PLAN "+seen.texts[0]).Scan(f.ctx, &ids, &parents, &unused, &plan)
		}
		if text := strings.Join(plan, "\n"); err != nil || !strings.Contains(text, "users_admins") {
			t.Errorf("%v\n%s\n%s", err, seen.texts[0], text)
		}
	})
}

// ada gives up her address, and another person gets it.
func TestSignInsFollowThePersonAndNotTheAddress(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		issuer := func(subject string) models.IssuerIdentity {
			return models.IssuerIdentity{Issuer: "https://id.example.com", Subject: subject}
		}
		ada := f.link(t, linkOf("ada@example.com", "T1", "U1"))[0].UserID
		if p, err := models.SignInByIssuer(f.ctx, f.db, noon, issuer("1"), "ada@example.com", ""); err != nil || p.UserID != ada {
			t.Fatalf("the issuer's verified address signs in %+v, %v", p, err)
		}
		hash := models.HashKey("session")
		if err := models.SaveSession(f.ctx, f.db, noon, hash[:], ada, "", []byte("data")); err != nil {
			t.Fatal(err)
		}
		token, err := models.CreateSignInLink(f.ctx, f.db, noon, "ada@example.com")
		if err != nil {
			t.Fatal(err)
		}
		f.link(t, linkOf("ada.new@example.com", "T1", "U1"))
		next, err := models.SignInByIssuer(f.ctx, f.db, noon, issuer("2"), "ada@example.com", "")
		if err != nil || next.UserID == ada || next.Email != "ada@example.com" {
			t.Errorf("the next person is %+v, %v", next, err)
		}
		if p := f.link(t, linkOf("ada@example.com", "T2", "U1"))[0]; p.UserID != next.UserID {
			t.Errorf("linked by Slack, the next person is %+v", p)
		}
		viewer, _, err := models.FindSession(f.ctx, f.db, noon, hash[:])
		if err != nil || viewer.User.ID != ada || viewer.User.Email != "ada.new@example.com" {
			t.Errorf("the session belongs to %+v, %v", viewer, err)
		}
		if email, err := models.SignInLinkEmail(f.ctx, f.db, noon, token); err != nil || email != "ada.new@example.com" {
			t.Errorf("the link is for %s, %v", email, err)
		}
		if p, err := models.UseSignInLink(f.ctx, f.db, noon, token); err != nil || p.UserID != ada {
			t.Errorf("the link signs in %+v, %v", p, err)
		}
		if p, err := models.SignInByIssuer(f.ctx, f.db, noon, issuer("1"), "ada@example.com", ""); err != nil || p.UserID != ada {
			t.Errorf("the issuer's known identity signs in %+v, %v", p, err)
		}
	})
}

// The text names the owner of an address, as "user set" prints it before it grants a role.
func TestIdentitiesOf(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		f.link(t, linkOf("ada@example.com", "T1", "U1"))
		if _, err := models.SignInByIssuer(f.ctx, f.db, noon, models.IssuerIdentity{Issuer: "https://id.example.com", Subject: "7"},
			"ada@example.com", ""); err != nil {
			t.Fatal(err)
		}
		bob, err := models.SetUser(f.ctx, f.db, noon, "bob@example.com", models.UserChange{})
		if err != nil {
			t.Fatal(err)
		}
		ada := one[models.User](t, f, "email = ?", "ada@example.com").ID
		for email, want := range map[string]string{
			"ada@example.com": "ada@example.com belongs to the user " + ada.String() +
				`: Slack user U1 in team T1, subject "7" at https://id.example.com.`,
			"bob@example.com": "bob@example.com belongs to the user " + bob.ID.String() +
				", who is not linked to Slack or another sign-in provider yet. The first person who signs in with this verified " +
				"address can get the role. Make sure that the address belongs to the person whom you mean.",
			"unknown@example.com": "No person has the email unknown@example.com yet. If the command succeeds, it creates one.",
		} {
			if known, err := models.IdentitiesOf(f.ctx, f.db, email); err != nil || known.Describe() != want {
				t.Errorf("%q, %v, want %q", known.Describe(), err, want)
			}
		}
		// The address gets another owner after its owner was printed.
		_, err = models.SetUser(f.ctx, f.db, noon, "ada@example.com", models.UserChange{Operator: ptr(true), UserID: bob.ID})
		wantError(t, err, "the email belongs to another user now: "+ada.String())
		if one[models.User](t, f, "id = ?", ada).Operator {
			t.Error("the role was granted")
		}
	})
}
