package enforcement_test

import (
	"fmt"
	"testing"

	"github.com/google/uuid"

	"tollgate/models"
	"tollgate/models/enforcement"
)

// TestBatchLinksPeople records a batch whose later entries identify people by a Slack identity that
// an earlier entry links. The identity decides, whatever email a later entry gives.
func TestBatchLinksPeople(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		slack, elsewhere := models.SlackIdentity{TeamID: "T1", UserID: "U1"}, models.SlackIdentity{TeamID: "T2", UserID: "U2"}
		n := 0
		entry := func(email string, id models.SlackIdentity) enforcement.PastEvent {
			n++
			return enforcement.PastEvent{
				Person: enforcement.Person{Email: email, Slack: id}, Quantity: 1, IdempotencyKey: fmt.Sprint("k", n), OccurredAt: f.now,
			}
		}
		batch := []enforcement.PastEvent{
			entry("", slack), // not linked yet
			entry("ada@example.com", slack),
			entry("", slack),
			entry("bob@example.com", slack), // the person's new address
			entry("", slack),
			entry("ada@example.com", models.SlackIdentity{}), // the next person who gets the address
			entry("bob@example.com", elsewhere),              // a person of another team with the same address
			entry("", elsewhere),
		}
		outcomes, err := f.Record(f.ctx, batch)
		if err != nil {
			t.Fatal(err)
		}
		users := map[uuid.UUID]string{}
		for i, want := range []string{"", "first", "first", "first", "first", "next", "other", "other"} {
			o := outcomes[i]
			if (o.Err == nil) != (want != "") {
				t.Fatalf("entry %d: %v", i, o.Err)
			}
			if id := o.Answer.Standing.UserID; want != "" && users[id] == "" {
				users[id] = want
			} else if users[id] != want {
				t.Errorf("entry %d was recorded for the %q person (%s), want the %q one", i, users[id], o.Answer.Standing.Email, want)
			}
		}
		for _, c := range []struct {
			person enforcement.Person
			email  string
			used   int64
		}{
			{enforcement.Person{Slack: slack}, "bob@example.com", 4}, {by("bob@example.com"), "bob@example.com", 4},
			{by("ada@example.com"), "ada@example.com", 1}, {enforcement.Person{Slack: elsewhere}, "u2@t2.slack.invalid", 2},
			{enforcement.Person{Email: "bob@example.com", Slack: elsewhere}, "u2@t2.slack.invalid", 2},
		} {
			if a, err := f.Check(f.ctx, c.person, 1); err != nil || a.Standing.Email != c.email || a.Standing.Used != c.used {
				t.Errorf("%+v is %s with %d used, %v; want %s with %d", c.person, a.Standing.Email, a.Standing.Used, err, c.email, c.used)
			}
		}
		f.clean(t)
	})
}
