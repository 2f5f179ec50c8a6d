package enforcement_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"tollgate/models"
	"tollgate/models/enforcement"
)

// TestAConflictChangesNobody sends keys that were used already, with another person whom the call would make, or link and so move out
// of their organization. It is refused, and nobody is made, moved or given a record.
func TestAConflictChangesNobody(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		o, err := models.CreateOrganization(f.ctx, f.db, f.now, "Big", []string{"TBIG"})
		if err != nil {
			t.Fatal(err)
		}
		admin := models.Admin
		if _, err := models.SetUser(f.ctx, f.db, f.now, "admin@example.com", models.UserChange{OrganizationID: &o.ID, Role: &admin}); err != nil {
			t.Fatal(err)
		}
		if _, err := f.Consume(f.ctx, by("other@example.com"), 1, "event"); err != nil {
			t.Fatal(err)
		}
		if _, err := f.Hold(f.ctx, by("other@example.com"), 1, "hold", time.Minute); err != nil {
			t.Fatal(err)
		}
		before := f.people(t)
		moved := func(email string) enforcement.Person {
			return enforcement.Person{Email: email, Slack: models.SlackIdentity{TeamID: "TNEW", UserID: "U" + email[:1]}}
		}
		happened := func(p enforcement.Person, key string) enforcement.Happened {
			return enforcement.Happened{Person: p, Quantity: 1, IdempotencyKey: key, OccurredAt: f.now}
		}
		for _, p := range []enforcement.Person{moved("admin@example.com"), moved("nobody@example.com"), by("new@example.com"), by("admin@example.com")} {
			if _, err := f.Consume(f.ctx, p, 1, "event"); !isReused(err) {
				t.Errorf("consume of %v: %v", p, err)
			}
			if _, err := f.Hold(f.ctx, p, 1, "hold", time.Minute); !isReused(err) {
				t.Errorf("hold of %v: %v", p, err)
			}
			// The last two are at odds with entries of the same batch: the first of a key counts.
			outcomes, err := f.Record(f.ctx, []enforcement.Happened{
				happened(p, "event"), happened(by("other@example.com"), "batch "+p.Email+p.Slack.TeamID), happened(p, "batch "+p.Email+p.Slack.TeamID),
			})
			if err != nil || !isReused(outcomes[0].Err) || outcomes[1].Err != nil || !isReused(outcomes[2].Err) {
				t.Errorf("batch with %v: %v, %v", p, outcomes, err)
			}
		}
		if after := f.people(t); after != before {
			t.Errorf("people were %s\nand are %s", before, after)
		}
		f.clean(t)
	})
}

func isReused(err error) bool {
	var fault *models.Error
	return errors.As(err, &fault) && fault.Code == models.CodeIdempotencyKeyReused
}

// people is everybody's place, role and records, as text.
func (f *fixture) people(t *testing.T) string {
	t.Helper()
	var users, records []string
	err := f.db.NewRaw(`SELECT CAST(u.email || ' ' || u.role || ' ' || COALESCE(w.slack_team_id, '') || ' ' || COALESCE(u.slack_user_id, '') AS text)
		FROM users u LEFT JOIN workspaces w ON w.id = u.workspace_id ORDER BY u.email`).Scan(f.ctx, &users)
	if err == nil {
		err = f.db.NewRaw("SELECT email FROM usage_records ORDER BY email").Scan(f.ctx, &records)
	}
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(users, records)
}
