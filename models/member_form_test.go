package models_test

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"

	"tollgate/models"
)

func TestParseUnits(t *testing.T) {
	for text, want := range map[string]int64{"0": 0, "\t60\n": 60, "1,000": 1000, "1,000,000,000": 1e9, "1000000000": 1e9} {
		if got, err := models.ParseUnits(text); err != nil || got != want {
			t.Errorf("%q is %d, %v", text, got, err)
		}
	}
	for _, text := range []string{
		"", " ", "-1", "+1", "1.5", "1,5", "1,00", ",100", "1e3", "1000000001", "99999999999999999999", "٣", "0x1", "a",
	} {
		if got, err := models.ParseUnits(text); !errors.Is(err, models.ErrUnits) {
			t.Errorf("%q is %d, %v", text, got, err)
		}
	}
}

// pair creates an organization with two admins.
func pair(t *testing.T, f *fixture) (id uuid.UUID, admins []models.User) {
	t.Helper()
	id = f.organization(t, noon, "Quiet Fox", "T1")
	boss := models.Admin
	for _, email := range []string{"ada@example.com", "bob@example.com"} {
		u, err := models.SetUser(f.ctx, f.db, noon, email, models.UserChange{OrganizationID: &id, Role: &boss})
		if err != nil {
			t.Fatal(err)
		}
		admins = append(admins, u)
	}
	return id, admins
}

// form returns a change that ada's form makes.
func form(organization uuid.UUID, of models.User, change models.UserChange) models.UserChange {
	change.Actor, change.Existing, change.KeepAdmin, change.UserID = "ada@example.com", true, true, of.ID
	change.Form = &models.MemberForm{OrganizationID: organization, Role: of.Role}
	return change
}

func TestMemberForms(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		id, admins := pair(t, f)
		bob := admins[1]
		send := func(change models.UserChange) error {
			_, err := models.SetUser(f.ctx, f.db, noon, "bob@example.com", change)
			return err
		}
		coded := func(what string, err error, want models.Code) {
			t.Helper()
			if refused := (*models.Error)(nil); !errors.As(err, &refused) || refused.Code != want {
				t.Errorf("%s: %v, want %s", what, err, want)
			}
		}
		entries := len(f.audited(t))
		member, boss := models.Member, models.Admin
		for range 2 { // the second time, as by a double click, it changes nothing
			if err := send(form(id, bob, models.UserChange{Role: &member})); err != nil {
				t.Fatal(err)
			}
		}
		if got := len(f.audited(t)) - entries; got != 1 {
			t.Errorf("%d entries in the audit log, want 1", got)
		}
		stale := form(id, bob, models.UserChange{Leaves: true}) // saw an admin
		coded("a removal that is out of date", send(stale), models.CodeChangedMeanwhile)
		other := f.organization(t, noon, "Evil", "T9")
		bob = one[models.User](t, f, "email = ?", "bob@example.com")
		coded("another organization's member", send(form(other, bob, models.UserChange{Role: &boss})), models.CodeUnknownUser)
		coded("another person", send(form(id, admins[0], models.UserChange{Role: &boss})), models.CodeUnknownUser)
		for _, change := range []models.UserChange{{Role: &member}, {Leaves: true}} {
			if _, err := models.SetUser(f.ctx, f.db, noon, "ada@example.com", form(id, admins[0], change)); !errors.Is(err, models.ErrLastAdmin) {
				t.Errorf("the only admin: %v", err)
			}
		}
		limit := models.LimitChange{To: ptr(int64(5))}
		if err := send(form(id, bob, models.UserChange{MemberLimit: &limit})); err != nil {
			t.Fatal(err)
		}
		coded("a limit that is out of date", send(form(id, bob, models.UserChange{MemberLimit: &models.LimitChange{To: ptr(int64(6))}})),
			models.CodeChangedMeanwhile)
		if err := send(form(id, bob, models.UserChange{Leaves: true})); err != nil {
			t.Fatal(err)
		}
		coded("removed twice", send(form(id, bob, models.UserChange{Leaves: true})), models.CodeUnknownUser)

		log, err := models.OrganizationAudit(f.ctx, f.db, id, 3)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, e := range log {
			got = append(got, e.Actor+" "+e.Subject+" "+e.Detail)
		}
		if want := []string{
			"ada@example.com bob@example.com removed from the organization",
			"ada@example.com bob@example.com member limit from the organization's default to 5",
			"ada@example.com bob@example.com role from admin to member",
		}; !slices.Equal(got, want) {
			t.Errorf("the organization's changes are\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		if log, err := models.OrganizationAudit(f.ctx, f.db, other, 10); err != nil || len(log) != 1 {
			t.Errorf("the other organization's changes: %v %v", log, err)
		}
	})
}

// Two admins who remove each other's role at once, in forms or through the API, leave one admin.
func TestAdminsWhoDemoteEachOther(t *testing.T) {
	member := models.Member
	t.Run("forms", func(t *testing.T) {
		demoteEachOther(t, func(id uuid.UUID, u models.User) models.UserChange {
			return form(id, u, models.UserChange{Role: &member})
		})
	})
	t.Run("calls", func(t *testing.T) {
		demoteEachOther(t, func(uuid.UUID, models.User) models.UserChange {
			return models.UserChange{Role: &member, KeepAdmin: true, Existing: true}
		})
	})
}

func demoteEachOther(t *testing.T, demote func(id uuid.UUID, u models.User) models.UserChange) {
	onBoth(t, func(t *testing.T, f *fixture) {
		id, admins := pair(t, f)
		release := func() {}
		if f.db.Postgres { // both begin while their rows are locked, and go on at once
			tx, err := f.db.BeginTx(f.ctx, nil)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := tx.ExecContext(f.ctx, "SELECT id FROM users FOR UPDATE"); err != nil {
				t.Fatal(err)
			}
			release = func() {
				for waiting := 0; waiting < len(admins); {
					if err := tx.QueryRowContext(f.ctx, "SELECT COUNT(*) FROM pg_locks WHERE NOT granted").Scan(&waiting); err != nil {
						t.Error(err)
						break
					}
				}
				if err := tx.Rollback(); err != nil {
					t.Error(err)
				}
			}
		}
		errs := make([]error, len(admins))
		var group sync.WaitGroup
		for i, u := range admins {
			group.Go(func() {
				_, errs[i] = models.SetUser(f.ctx, f.db, noon, u.Email, demote(id, u))
			})
		}
		release()
		group.Wait()
		left, err := models.AdminsOf(f.ctx, f.db, id)
		if err != nil || len(left) != 1 || errors.Is(errs[0], models.ErrLastAdmin) == errors.Is(errs[1], models.ErrLastAdmin) {
			t.Errorf("%d admins are left: %v %v", len(left), errs, err)
		}
	})
}
