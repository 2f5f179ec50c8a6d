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
			// The second and the third have one key, and the first of it counts. The last one's person must be made.
			outcomes, err := f.Record(f.ctx, []enforcement.Happened{
				happened(p, "event"), happened(by("other@example.com"), "batch "+p.Email+p.Slack.TeamID), happened(p, "batch "+p.Email+p.Slack.TeamID),
				happened(by("fresh-"+p.Email), "fresh "+p.Email+p.Slack.TeamID),
			})
			if err != nil || !isReused(outcomes[0].Err) || outcomes[1].Err != nil || !isReused(outcomes[2].Err) || outcomes[3].Err != nil {
				t.Errorf("batch with %v: %v, %v", p, outcomes, err)
			}
		}
		if _, err := f.Consume(f.ctx, by("other@example.com"), 2, "event"); !isReused(err) {
			t.Errorf("consume of another quantity: %v", err)
		}
		if _, err := f.Hold(f.ctx, by("other@example.com"), 2, "hold", time.Minute); !isReused(err) {
			t.Errorf("hold of another quantity: %v", err)
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

// TestAContradictedEntryNamesNobody has an entry of a batch that is refused name somebody by an identity that a later entry uses
// alone: that one is of whoever has the identity, or of nobody, as it would be without the first.
func TestAContradictedEntryNamesNobody(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		bobs, nobodys := models.SlackIdentity{TeamID: "T1", UserID: "U1"}, models.SlackIdentity{TeamID: "T9", UserID: "U9"}
		for _, p := range []enforcement.Person{{Email: "bob@example.com", Slack: bobs}, by("carl@example.com"), by("ada@example.com")} {
			if _, err := f.Consume(f.ctx, p, 1, "of "+p.Email); err != nil {
				t.Fatal(err)
			}
		}
		before := f.people(t)
		entry := func(p enforcement.Person, key string) enforcement.Happened {
			return enforcement.Happened{Person: p, Quantity: 1, IdempotencyKey: key, OccurredAt: f.now}
		}
		outcomes, err := f.Record(f.ctx, []enforcement.Happened{ // of people who all have records
			entry(enforcement.Person{Email: "ada@example.com", Slack: bobs}, "of carl@example.com"), entry(enforcement.Person{Slack: bobs}, "z"),
		})
		if err != nil || !isReused(outcomes[0].Err) || outcomes[1].Answer.Standing.Email != "bob@example.com" {
			t.Errorf("%+v, %v", outcomes, err)
		}
		for i := range 2 { // the second time as a retry
			outcomes, err = f.Record(f.ctx, []enforcement.Happened{
				entry(enforcement.Person{Email: "ada@example.com", Slack: bobs}, "of carl@example.com"),
				entry(enforcement.Person{Slack: bobs}, "a"),
				entry(enforcement.Person{Email: "eve@example.com", Slack: nobodys}, "of carl@example.com"),
				entry(enforcement.Person{Slack: nobodys}, "b"),
				entry(enforcement.Person{Email: "bob@example.com", Slack: bobs}, "c"),
				entry(enforcement.Person{Slack: bobs}, "d"),
			})
			if err != nil {
				t.Fatal(err)
			}
			for n, want := range []string{"reused", "bob@example.com", "reused", "unknown", "bob@example.com", "bob@example.com"} {
				got := outcomes[n].Answer.Standing.Email
				switch fault := outcomes[n].Err; {
				case isReused(fault):
					got = "reused"
				case fault != nil:
					got = "unknown"
				}
				if got != want {
					t.Errorf("try %d, entry %d: %s (%v), want %s", i, n, got, outcomes[n].Err, want)
				}
			}
		}
		if after := f.people(t); after != before {
			t.Errorf("people were %s\nand are %s", before, after)
		}
		f.clean(t)
	})
}

// people is everybody's place, role and records, as text, but for those who are made on purpose.
func (f *fixture) people(t *testing.T) string {
	t.Helper()
	var users, records []string
	err := f.db.NewRaw(`SELECT CAST(u.email || ' ' || u.role || ' ' || COALESCE(w.slack_team_id, '') || ' ' || COALESCE(u.slack_user_id, '') AS text)
		FROM users u LEFT JOIN workspaces w ON w.id = u.workspace_id WHERE u.email NOT LIKE 'fresh-%' ORDER BY u.email`).Scan(f.ctx, &users)
	if err == nil {
		err = f.db.NewRaw("SELECT email FROM usage_records WHERE email NOT LIKE 'fresh-%' ORDER BY email").Scan(f.ctx, &records)
	}
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(users, records)
}
