package enforcement_test

import (
	"fmt"
	"testing"

	"tollgate/models"
	"tollgate/models/enforcement"
)

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
