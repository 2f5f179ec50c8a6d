package enforcement_test

import (
	"errors"
	"testing"
	"time"

	"tollgate/models"
	"tollgate/models/enforcement"
)

// TestKeyBelongsToOnePerson checks that two people can use the same idempotency key, for example
// because both act on one Slack message, and that the same person's key with another quantity is
// refused without an effect on other entries.
func TestKeyBelongsToOnePerson(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		ada, bob := by("ada@example.com"), enforcement.Person{Email: "bob@example.com", Slack: models.SlackIdentity{TeamID: "T1", UserID: "U2"}}
		happened := func(p enforcement.Person, quantity int64, key string) enforcement.PastEvent {
			return enforcement.PastEvent{Person: p, Quantity: quantity, IdempotencyKey: key, OccurredAt: f.now}
		}
		for _, p := range []enforcement.Person{ada, bob} {
			first, err := f.Consume(f.ctx, p, 1, "message")
			if err != nil || first.Replayed {
				t.Fatalf("%+v, %v", first, err)
			}
			held, err := f.Hold(f.ctx, p, 1, "message", time.Minute) // holds have their own keys
			if err != nil || held.Replayed {
				t.Fatalf("%+v, %v", held, err)
			}
			again, err := f.Consume(f.ctx, p, 1, "message")
			if err != nil || !again.Replayed || again.EventID != first.EventID || again.Standing.Used != 1 {
				t.Errorf("second consume: %+v, %v", again, err)
			}
			if again, err := f.Hold(f.ctx, p, 1, "message", time.Minute); err != nil || !again.Replayed || again.Hold.ID != held.Hold.ID {
				t.Errorf("second hold: %+v, %v", again, err)
			}
			if _, err := f.Consume(f.ctx, p, 2, "message"); !isReused(err) {
				t.Errorf("consume with another quantity: %v", err)
			}
			if _, err := f.Hold(f.ctx, p, 2, "message", time.Minute); !isReused(err) {
				t.Errorf("hold with another quantity: %v", err)
			}
		}
		for _, replayed := range []bool{false, true} { // the second time as a retry
			outcomes, err := f.Record(f.ctx, []enforcement.PastEvent{
				happened(ada, 2, "message"), happened(bob, 1, "batch"), happened(ada, 1, "batch"), happened(ada, 2, "batch"),
				happened(by("new@example.com"), 1, "batch"),
			})
			if err != nil {
				t.Fatal(err)
			}
			for i, refused := range []bool{true, false, false, true, false} {
				if o := outcomes[i]; isReused(o.Err) != refused || !refused && (o.Err != nil || o.Answer.Replayed != replayed) {
					t.Errorf("retry %v, entry %d: %+v", replayed, i, o)
				}
			}
		}
		for email, used := range map[string]int64{"ada@example.com": 2, "bob@example.com": 2, "new@example.com": 1} {
			if a, err := f.Check(f.ctx, by(email), 1); err != nil || a.Standing.Used != used {
				t.Errorf("%s used %d, %v; want %d", email, a.Standing.Used, err, used)
			}
		}
		f.clean(t)
	})
}

func isReused(err error) bool {
	var e *models.Error
	return errors.As(err, &e) && e.Code == models.CodeIdempotencyKeyReused
}
