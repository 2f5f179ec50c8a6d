package models_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/uptrace/bun"

	"tollgate/models"
)

// A change with KeepAdmin never takes the last admin from an organization, also not by moving them.
// The operator's changes may.
func TestSetUserKeepsAnAdmin(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		id, _ := pair(t, f)
		other := f.organization(t, noon, "Other", "T9")
		member, boss := models.Member, models.Admin
		set := func(email string, change models.UserChange) (models.User, error) {
			return models.SetUser(f.ctx, f.db, noon, email, change)
		}
		if u, err := set("bob@example.com", models.UserChange{OrganizationID: &other, Role: &boss, KeepAdmin: true}); err != nil ||
			u.Role != models.Admin {
			t.Fatalf("one of two admins: %+v, %v", u, err)
		}
		entries := len(f.audited(t))
		for what, change := range map[string]models.UserChange{
			"a member": {Role: &member}, "removed": {Leaves: true}, "moved": {OrganizationID: &other},
			"moved as an admin": {OrganizationID: &other, Role: &boss}, "removed as a member": {Leaves: true, Role: &member},
		} {
			change.KeepAdmin, change.Existing = true, true
			if _, err := set("ada@example.com", change); !errors.Is(err, models.ErrLastAdmin) {
				t.Errorf("%s: %v", what, err)
			}
		}
		if _, err := set("ada@example.com", models.UserChange{OrganizationID: &id, KeepAdmin: true}); err != nil {
			t.Errorf("moved to the same organization: %v", err)
		}
		if got := len(f.audited(t)) - entries; got != 0 {
			t.Errorf("%d entries in the audit log", got)
		}
		if u, err := set("ada@example.com", models.UserChange{Role: &member}); err != nil || u.Role != models.Member {
			t.Errorf("the operator: %+v, %v", u, err)
		}
	})
}

// Only changes are in the audit log.
func TestSetUserWithoutAChange(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		id, _ := pair(t, f)
		boss, member, no := models.Admin, models.Member, false
		entries := len(f.audited(t))
		for email, changes := range map[string][]models.UserChange{
			"ada@example.com": {
				{}, {Role: &boss}, {OrganizationID: &id}, {Operator: &no}, {MemberLimit: &models.LimitChange{Unseen: true}},
				{OrganizationID: &id, Role: &boss, Operator: &no, KeepAdmin: true, Existing: true},
			},
			"new@example.com": {{}, {Leaves: true}, {Role: &member}},
		} {
			for i, change := range changes {
				if _, err := models.SetUser(f.ctx, f.db, noon, email, change); err != nil {
					t.Errorf("%s, change %d: %v", email, i, err)
				}
			}
		}
		if got := f.audited(t)[entries:]; len(got) != 1 || !strings.Contains(got[0], "new@example.com") {
			t.Errorf("the audit log has %q", got)
		}
		if detail := one[models.AuditEntry](t, f, "subject = ?", "new@example.com").Detail; detail != "created" {
			t.Errorf("the detail is %q", detail)
		}
	})
}

// handover passes an email to another person after the first query that looks for it.
type handover struct {
	t      *testing.T
	f      *fixture
	passed bool
}

func (h *handover) BeforeQuery(ctx context.Context, _ *bun.QueryEvent) context.Context { return ctx }

func (h *handover) AfterQuery(ctx context.Context, e *bun.QueryEvent) {
	if h.passed || !strings.Contains(e.Query, "email = 'ada@example.com'") {
		return
	}
	h.passed = true
	for _, statement := range []string{
		"UPDATE users SET email = 'lovelace@example.com' WHERE email = 'ada@example.com'",
		"UPDATE users SET email = 'ada@example.com' WHERE email = 'bob@example.com'",
	} {
		if _, err := h.f.db.DB.DB.ExecContext(ctx, statement); err != nil {
			h.t.Error(err)
		}
	}
}

// An email that passes to another person between the lookup and the write does not pass the change
// on. SQLite has only one transaction at a time, so there it cannot happen.
func TestSetUserPinsThePerson(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		_, admins := pair(t, f)
		ada, bob := admins[0].ID, admins[1].ID
		if f.db.Postgres {
			f.db.DB = f.db.WithQueryHook(&handover{t: t, f: f})
		}
		member := models.Member
		u, err := models.SetUser(f.ctx, f.db, noon, "ada@example.com", models.UserChange{Role: &member, KeepAdmin: true, Existing: true})
		if err != nil || u.ID != ada {
			t.Errorf("changed %s, %v, want %s", u.ID, err, ada)
		}
		if got := one[models.User](t, f, "id = ?", bob); got.Role != models.Admin {
			t.Errorf("the next person with the email is %+v", got)
		}
		_, err = models.SetUser(f.ctx, f.db, noon, u.Email, models.UserChange{New: true})
		wantError(t, err, "the email belongs to another user now: "+ada.String())
		_, err = models.SetUser(f.ctx, f.db, noon, "new@example.com", models.UserChange{UserID: ada})
		wantError(t, err, "the email belongs to no user now")
		unknown := (*models.Error)(nil)
		if err := models.SetSpendLimit(f.ctx, f.db, f.catalogue, noon, models.ActorShell, uuid.New(), nil); !errors.As(err, &unknown) ||
			unknown.Code != models.CodeUnknownUser {
			t.Errorf("a spend limit of an unknown person: %v", err)
		}
	})
}
