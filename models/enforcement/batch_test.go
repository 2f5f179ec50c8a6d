package enforcement_test

import (
	"fmt"
	"testing"

	"tollgate/models"
	"tollgate/models/enforcement"
)

// TestTheLastLinkOfABatchStands has a batch begin with a link that is there already, and go on with one that takes it away.
func TestTheLastLinkOfABatchStands(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		first, second := models.SlackIdentity{TeamID: "T1", UserID: "U1"}, models.SlackIdentity{TeamID: "T2", UserID: "U2"}
		entry := func(key, email string, id models.SlackIdentity) enforcement.Happened {
			return enforcement.Happened{Person: enforcement.Person{Email: email, Slack: id}, Quantity: 1, IdempotencyKey: key, OccurredAt: f.now}
		}
		for i, c := range []struct {
			batch []enforcement.Happened
			whose map[models.SlackIdentity]string
		}{
			{[]enforcement.Happened{entry("a", "ada@example.com", first)}, map[models.SlackIdentity]string{first: "ada@example.com"}},
			{[]enforcement.Happened{entry("b", "ada@example.com", first), entry("c", "bob@example.com", first), entry("d", "", first)}, map[models.SlackIdentity]string{first: "bob@example.com"}},
			{[]enforcement.Happened{entry("e", "bob@example.com", first), entry("f", "bob@example.com", second)}, map[models.SlackIdentity]string{first: "", second: "bob@example.com"}},
			{[]enforcement.Happened{entry("g", "ada@example.com", second), entry("h", "bob@example.com", second)}, map[models.SlackIdentity]string{second: "bob@example.com"}},
		} {
			outcomes, err := f.Record(f.ctx, c.batch)
			if err != nil {
				t.Fatal(err)
			}
			for n, o := range outcomes {
				if o.Err != nil {
					t.Errorf("batch %d, entry %d: %v", i, n, o.Err)
				}
			}
			for id, want := range c.whose {
				a, err := f.Check(f.ctx, enforcement.Person{Slack: id}, 1)
				if a.Standing.Email != want || (err == nil) != (want != "") {
					t.Errorf("after batch %d %v is %q, %v; want %q", i, id, a.Standing.Email, err, want)
				}
			}
		}
		if a, err := f.Check(f.ctx, by("bob@example.com"), 1); err != nil || a.Standing.Used != 5 {
			t.Errorf("bob used %d, %v", a.Standing.Used, err)
		}
		f.clean(t)
	})
}

// TestABatchLinksAndNames has entries of one batch name people by an identity that an earlier entry of it links, whoever
// had it before.
func TestABatchLinksAndNames(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		slack := models.SlackIdentity{TeamID: "T1", UserID: "U1"}
		entry := func(n int, email string, id models.SlackIdentity) enforcement.Happened {
			return enforcement.Happened{Person: enforcement.Person{Email: email, Slack: id}, Quantity: 1, IdempotencyKey: fmt.Sprint("k", n), OccurredAt: f.now}
		}
		batch := []enforcement.Happened{
			entry(0, "", slack), // nobody's yet
			entry(1, "ada@example.com", slack),
			entry(2, "", slack),
			entry(3, "bob@example.com", slack),
			entry(4, "", slack),
			entry(5, "ada@example.com", models.SlackIdentity{}),
		}
		outcomes, err := f.Record(f.ctx, batch)
		if err != nil {
			t.Fatal(err)
		}
		for i, want := range []string{"", "ada@example.com", "ada@example.com", "bob@example.com", "bob@example.com", "ada@example.com"} {
			if got := outcomes[i].Answer.Standing.Email; got != want || (outcomes[i].Err == nil) != (want != "") {
				t.Errorf("entry %d went to %q, %v; want %q", i, got, outcomes[i].Err, want)
			}
		}
		if a, err := f.Check(f.ctx, enforcement.Person{Slack: slack}, 1); err != nil || a.Standing.Email != "bob@example.com" {
			t.Errorf("the identity is %q's, %v", a.Standing.Email, err)
		}
		f.clean(t)
	})
}
