package models_test

import (
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"tollgate/models"
)

// wantCode fails unless the error has the code.
func wantCode(t *testing.T, err error, code models.Code) {
	t.Helper()
	var fault *models.Error
	if !errors.As(err, &fault) || fault.Code != code {
		t.Errorf("error %v, want the code %s", err, code)
	}
}

func TestSignInLinks(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		_, err := models.CreateSignInLink(f.ctx, f.db, noon, "nobody@example.com")
		wantCode(t, err, models.CodeUnknownUser)
		wantError(t, err, "tollgate user set nobody@example.com")
		if _, err := models.CreateSignInLink(f.ctx, f.db, noon, "nobody"); !errors.Is(err, models.ErrEmail) {
			t.Errorf("for no address: %v", err)
		}
		if n := len(all[models.User](t, f)); n != 0 {
			t.Errorf("a link that was not made made %d users", n)
		}
		f.member(t, "ada@example.com", "T1")
		token, err := models.CreateSignInLink(f.ctx, f.db, noon, " Ada@Example.com ")
		if err != nil {
			t.Fatal(err)
		}
		stored := one[models.SignInLink](t, f, "email = ?", "ada@example.com")
		if hash := models.HashKey(token); string(stored.TokenHash) != string(hash[:]) || len(token) != 26 {
			t.Errorf("%q is stored as %x", token, stored.TokenHash)
		}
		late := noon.Add(models.SignInLinkLife)
		for range 2 {
			if email, err := models.SignInLinkEmail(f.ctx, f.db, late.Add(-time.Microsecond), token); err != nil || email != "ada@example.com" {
				t.Errorf("looked at: %q, %v", email, err)
			}
		}
		other := "A" + token[1:]
		if other == token {
			other = "B" + token[1:]
		}
		for _, use := range []func() (string, error){
			func() (string, error) { return models.SignInLinkEmail(f.ctx, f.db, late, token) },
			func() (string, error) { return models.UseSignInLink(f.ctx, f.db, late, token) },
			func() (string, error) { return models.UseSignInLink(f.ctx, f.db, noon, other) },
			func() (string, error) { return models.UseSignInLink(f.ctx, f.db, noon, "") },
		} {
			_, err := use()
			wantCode(t, err, models.CodeUnknownLink)
		}
		if email, err := models.UseSignInLink(f.ctx, f.db, late.Add(-time.Microsecond), token); err != nil || email != "ada@example.com" {
			t.Errorf("used: %q, %v", email, err)
		}
		_, err = models.UseSignInLink(f.ctx, f.db, noon, token)
		wantCode(t, err, models.CodeUnknownLink)
		if got, want := strings.Join(f.audited(t), "; "), "shell sign_in_link.create ada@example.com; ada@example.com sign_in_link.use ada@example.com"; got != want {
			t.Errorf("audited %q, want %q", got, want)
		}
	})
}

func TestOfManyWhoUseALinkOneSignsIn(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		f.member(t, "ada@example.com", "T1")
		for range 10 {
			token, err := models.CreateSignInLink(f.ctx, f.db, noon, "ada@example.com")
			if err != nil {
				t.Fatal(err)
			}
			var let atomic.Int64
			var racers sync.WaitGroup
			for range 8 {
				racers.Go(func() {
					if _, err := models.UseSignInLink(f.ctx, f.db, noon, token); err == nil {
						let.Add(1)
					} else {
						wantCode(t, err, models.CodeUnknownLink)
					}
				})
			}
			racers.Wait()
			if let.Load() != 1 {
				t.Fatalf("%d were let in", let.Load())
			}
		}
	})
}

func TestSignInBySlack(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		yes, boss := true, models.Admin
		slack := func(team, user string) models.SlackIdentity { return models.SlackIdentity{TeamID: team, UserID: user} }
		in := func(who models.SlackIdentity, email, want string) {
			t.Helper()
			if got, err := models.SignInBySlack(f.ctx, f.db, noon, who, email, ""); err != nil || got != want {
				t.Errorf("%v with %s is %q, %v; want %s", who, email, got, err, want)
			}
		}
		refused := func(who models.SlackIdentity, email string) {
			t.Helper()
			before := len(all[models.Workspace](t, f))
			_, err := models.SignInBySlack(f.ctx, f.db, noon, who, email, "Eve")
			wantCode(t, err, models.CodeSignInRefused)
			if found, err := models.EmailsOf(f.ctx, f.db, []models.SlackIdentity{who}); err != nil || len(found) > 0 || len(all[models.Workspace](t, f)) != before {
				t.Errorf("refused, and linked all the same: %v, %v", found, err)
			}
		}
		in(slack("T1", "U1"), " New@Example.com", "new@example.com") // of a team that is new as well
		in(slack("T1", "U1"), "other@example.com", "new@example.com")
		if n := len(all[models.User](t, f)); n != 1 {
			t.Errorf("%d users", n)
		}
		f.use(t, "usage@example.com", noon, "free", 3) // known by email alone
		in(slack("T2", "U1"), "usage@example.com", "usage@example.com")
		in(slack("T2", "U7"), "usage@example.com", "usage@example.com") // the team gave the email to another account
		refused(slack("T9", "U1"), "usage@example.com")
		refused(slack("T1", "U9"), "usage@example.com")

		// Put into a team by hand, an admin is known there and nowhere else.
		acme := f.organization(t, noon, "Acme", "T3")
		for _, email := range []string{"boss@example.com", "ops@example.com"} {
			if _, err := models.SetUser(f.ctx, f.db, noon, email, models.UserChange{OrganizationID: &acme, Role: &boss, Operator: &yes}); err != nil {
				t.Fatal(err)
			}
		}
		refused(slack("T1", "U8"), "boss@example.com")
		in(slack("T3", "U8"), "boss@example.com", "boss@example.com")
		if u := one[models.User](t, f, "email = ?", "boss@example.com"); u.Role != models.Admin || !u.Operator {
			t.Errorf("the admin is %+v", u)
		}
		// An operator of no team is nobody's whom a team could name.
		if _, err := models.SetUser(f.ctx, f.db, noon, "root@example.com", models.UserChange{Operator: &yes}); err != nil {
			t.Fatal(err)
		}
		refused(slack("T3", "U6"), "root@example.com")
		refused(slack("T8", "U6"), "root@example.com")

		for _, who := range []models.SlackIdentity{{}, slack("", "U1"), slack("T1", ""), slack("T1 ", "U1"), slack("T1", "U/1"), slack(strings.Repeat("T", 101), "U1")} {
			if _, err := models.SignInBySlack(f.ctx, f.db, noon, who, "a@example.com", ""); !errors.Is(err, models.ErrSlackIdentity) {
				t.Errorf("%v: %v", who, err)
			}
		}
		if _, err := models.SignInBySlack(f.ctx, f.db, noon, slack("T1", "U5"), "a", ""); !errors.Is(err, models.ErrEmail) {
			t.Errorf("no address: %v", err)
		}
	})
}

func TestNamesOfWhoSignsIn(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		for _, step := range []struct{ said, want string }{
			{" Ada Lovelace\n", "Ada Lovelace"}, {"", "Ada Lovelace"}, {"\u202e \x00", "Ada Lovelace"}, {"A\xffda\x00", "Ada"}, {strings.Repeat("é", 300), strings.Repeat("é", 200)},
		} {
			if email, err := models.SignInByIssuer(f.ctx, f.db, noon, models.IssuerIdentity{Issuer: "https://id.example.com", Subject: "1"}, "Ada@example.com", step.said); err != nil || email != "ada@example.com" {
				t.Fatalf("%q, %v", email, err)
			}
			if u := one[models.User](t, f, "email = ?", "ada@example.com"); u.Name != step.want {
				t.Errorf("called %q, they are %q", step.said, u.Name)
			}
		}
		if _, err := models.SignInByIssuer(f.ctx, f.db, noon, models.IssuerIdentity{Issuer: "https://id.example.com", Subject: "2"}, "ada", ""); !errors.Is(err, models.ErrEmail) {
			t.Errorf("no address: %v", err)
		}
	})
}

func TestAdminsOf(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		acme, boss := f.organization(t, noon, "Acme", "T1", "T2"), models.Admin
		f.organization(t, noon, "Other", "T3")
		for _, who := range []struct{ email, team string }{{"zoe@example.com", "T1"}, {"ada@example.com", "T2"}, {"eve@example.com", "T3"}} {
			f.member(t, who.email, who.team)
			if _, err := models.SetUser(f.ctx, f.db, noon, who.email, models.UserChange{Role: &boss}); err != nil {
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
