package enforcement_test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"tollgate/models"
	"tollgate/models/enforcement"
)

const ada = "ada@example.com"

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// messages consumes one unit at a time, and returns the numbers of used units at which an answer had
// the first message of its level.
func (f *fixture) messages(t *testing.T, units int, key string) (at []int64) {
	t.Helper()
	for i := range units {
		if a := f.consume(t, ada, 1, fmt.Sprint(key, i)); a.Message {
			at = append(at, a.Standing.Used)
		}
	}
	return at
}

func wantMessages(t *testing.T, what string, got []int64, want ...int64) {
	t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%s: messages at %v, want %v", what, got, want)
	}
}

// Each level of a billing period has one message. A void, a hold or a retry adds none. Raising the
// included units makes the levels above the current one possible again.
func TestMessagesOncePerLevel(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		_, err := models.Subscribe(f.ctx, f.db, f.catalogue, f.now, models.Subscriber{Email: ada}, "starter") // 25 units
		must(t, err)
		wantMessages(t, "25 included", f.messages(t, 30, "a"), 20, 24, 25)

		// A retry has the message of the first answer, also from another process and after a void.
		other := f.another(t, 64)
		for range 2 {
			for i, want := range map[int]bool{18: false, 19: true, 20: false, 23: true, 24: true, 25: false} {
				a, err := other.Consume(f.ctx, by(ada), 1, fmt.Sprint("a", i), enforcement.Silent)
				must(t, err)
				if a.Message != want || !a.Replayed {
					t.Errorf("the retry of unit %d: message %v, replayed %v", i+1, a.Message, a.Replayed)
				}
			}
			_, err := models.Void(f.ctx, f.db, f.catalogue, f.now, models.NewVoid{
				Actor: models.ActorShell, Email: ada, IdempotencyKey: "a3", Reason: "by mistake",
			})
			must(t, err)
		}
		for i := 4; i < 16; i++ {
			_, err := models.Void(f.ctx, f.db, f.catalogue, f.now, models.NewVoid{
				Actor: models.ActorShell, Email: ada, IdempotencyKey: fmt.Sprint("a", i), Reason: "by mistake",
			})
			must(t, err)
		}
		wantMessages(t, "after voids", f.messages(t, 13, "b"))

		f.grant(t, 25, 0, "") // 30 units are used, 5 of them extra, and 50 are included
		wantMessages(t, "after a grant", f.messages(t, 25, "c"), 45, 53, 55)
		_, err = models.Subscribe(f.ctx, f.db, f.catalogue, f.now, models.Subscriber{Email: ada}, "pro") // 100 units
		must(t, err)
		wantMessages(t, "after an upgrade", f.messages(t, 51, "d"), 85, 100, 105)
		f.now = time.Date(2026, 12, 2, 0, 0, 0, 0, time.UTC)
		wantMessages(t, "in the next period", f.messages(t, 76, "e"), 60, 72, 75)
		f.clean(t)
	})
}

// A silent call gives no message, so the next other one does. So does the first one after recorded
// usage. A hold's answer can have the message, and so can a settlement's.
func TestMessagesOfOtherCalls(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		_, err := models.Subscribe(f.ctx, f.db, f.catalogue, f.now, models.Subscriber{Email: ada}, "starter")
		must(t, err)
		first := func(a enforcement.Answer, err error) bool {
			t.Helper()
			must(t, err)
			return a.Message
		}
		if first(f.Consume(f.ctx, by(ada), 20, "a", enforcement.Silent)) || first(f.Check(f.ctx, by(ada), 1)) {
			t.Error("a silent call or a check has the message")
		}
		a, err := f.Hold(f.ctx, by(ada), 2, "h", time.Minute)
		if !first(a, err) || !first(f.Hold(f.ctx, by(ada), 2, "h", time.Minute)) || first(f.Hold(f.ctx, by(ada), 1, "h2", time.Minute)) {
			t.Error("the first hold at 80% has the message, also in a retry, and the second has none")
		}
		if first(f.Settle(f.ctx, a.Hold.ID, 2)) {
			t.Error("22 of 25 units have a message")
		}
		outcomes, err := f.Record(f.ctx, []enforcement.PastEvent{{Person: by(ada), Quantity: 2, IdempotencyKey: "past", OccurredAt: f.now}})
		must(t, err)
		if outcomes[0].Answer.Message {
			t.Error("recorded usage has a message")
		}
		b, err := f.Hold(f.ctx, by(ada), 1, "h3", time.Minute)
		if !first(b, err) {
			t.Error("the first hold at 96% has no message")
		}
		for range 2 { // the settlement and a retry
			if !first(f.Settle(f.ctx, b.Hold.ID, 1)) {
				t.Error("the settlement at 100% has no message")
			}
		}

		// A hold that is settled after its period gives none.
		f.now = time.Date(2026, 12, 31, 23, 59, 0, 0, time.UTC)
		c, err := f.Hold(f.ctx, by(ada), 25, "h4", time.Hour)
		must(t, err)
		f.now = time.Date(2027, 1, 1, 0, 1, 0, 0, time.UTC)
		if first(f.Settle(f.ctx, c.Hold.ID, 25)) {
			t.Error("a settlement of the previous period has a message")
		}
		f.clean(t)
	})
}

// Several processes decide for one person at once, with retries. Each level has one message, and its
// retries have it too.
func TestMessagesAtOnce(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		_, err := models.Subscribe(f.ctx, f.db, f.catalogue, f.now, models.Subscriber{Email: ada}, "pro") // 75 units
		must(t, err)
		gates := []*enforcement.Gate{f.Gate, f.another(t, 4096), f.another(t, 4096), f.another(t, 4096)}
		var mu sync.Mutex
		given := map[string]bool{}
		var next atomic.Int64
		var wg sync.WaitGroup
		for w := range 16 {
			wg.Go(func() {
				for {
					n := next.Add(1)
					if n > 90 {
						return
					}
					key := fmt.Sprint("k", n)
					var answers [2]enforcement.Answer
					for i := range answers {
						var err error
						if answers[i], err = gates[(w+i)%len(gates)].Consume(f.ctx, by(ada), 1, key); err != nil {
							t.Error(err)
							return
						}
					}
					if answers[0].Message != answers[1].Message || answers[0].Standing != answers[1].Standing {
						t.Errorf("the answer %+v and its retry %+v", answers[0], answers[1])
					}
					if answers[0].Message {
						mu.Lock()
						given[string(answers[0].Standing.Level())] = !given[string(answers[0].Standing.Level())]
						mu.Unlock()
					}
				}
			})
		}
		wg.Wait()
		if len(given) != 3 || !given["warning"] || !given["critical"] || !given["exceeded"] {
			t.Errorf("the messages: %v", given)
		}
		f.clean(t)
	})
}
