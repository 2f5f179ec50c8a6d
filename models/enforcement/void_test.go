package enforcement_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"tollgate/models"
	"tollgate/models/enforcement"
)

// void voids an event of ada@example.com by its key, or by a hold's ID.
func (f *fixture) void(t *testing.T, key string, hold uuid.UUID) models.Voided {
	t.Helper()
	v, err := models.Void(f.ctx, f.db, f.catalogue, f.now, models.NewVoid{
		Actor: models.ActorShell, Email: "ada@example.com", IdempotencyKey: key, HoldID: hold, Reason: "by mistake",
	})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestVoid(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		const ada = "ada@example.com"
		if _, err := models.Subscribe(f.ctx, f.db, f.catalogue, f.now, models.Subscriber{Email: ada}, "starter"); err != nil {
			t.Fatal(err)
		}
		first := f.consume(t, ada, 20, "a")
		f.consume(t, ada, 10, "b") // 5 of them billed
		v := f.void(t, "a", uuid.Nil)
		want := models.UsageVoid{
			UserID: first.Standing.UserID, EventID: first.EventID, Email: ada, Quantity: 20, Reason: "by mistake", VoidedBy: models.ActorShell,
			VoidedAt: f.now, Figures: v.Void.Figures, State: models.VoidNotReported,
		}
		if s := v.Standing; v.Void != want || v.Replayed || s.Used != 10 || s.Overage != 5 || s.OverageCents != 175 || s.Remaining() != 20 {
			t.Errorf("the void is %+v", v)
		}
		f.wants(t, "after the void", 10, 25, 20)
		// The other decision stays, and so does the answer to a retry. New units are included again.
		if a := f.consume(t, ada, 10, "b"); !a.Replayed || a.Standing.Used != 30 || a.Standing.Overage != 5 {
			t.Errorf("a retry of the other call: %+v", a)
		}
		if a := f.consume(t, ada, 20, "a"); !a.Replayed || a.Standing != first.Standing || a.EventID != first.EventID {
			t.Errorf("a retry of the voided call: %+v", a)
		}
		if a := f.consume(t, ada, 21, "c"); a.Verdict.Overage != 1 {
			t.Errorf("the next units: %+v", a)
		}
		// A second call gets the first answer, also later and from another process.
		f.now = f.now.AddDate(0, 1, 0)
		if again := f.void(t, "a", uuid.Nil); !again.Replayed || again.Standing != v.Standing || again.Void != v.Void {
			t.Errorf("the second call: %+v", again)
		}
		v = f.void(t, "b", uuid.Nil)
		if v.Void.OverageQuantity != 5 || v.Void.OverageCents != 175 || v.Standing.Used != 21 || v.Standing.Overage != 1 {
			t.Errorf("the other event: %+v", v)
		}
		f.clean(t)
	})
}

func TestVoidOfAHoldAndOfAnotherPersonsEvent(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		const ada = "ada@example.com"
		identity := models.SlackIdentity{TeamID: "T1", UserID: "U1"}
		f.consume(t, ada, 1, "k")
		f.consume(t, "bob@example.com", 2, "k")
		settled, err := f.Hold(f.ctx, by(ada), 3, "h", time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		open, err := f.Hold(f.ctx, by(ada), 1, "o", time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Settle(f.ctx, settled.Hold.ID, 2); err != nil {
			t.Fatal(err)
		}
		for _, bad := range []struct {
			v    models.NewVoid
			code models.Code
		}{
			{models.NewVoid{Email: ada, IdempotencyKey: "h"}, models.CodeUnknownEvent},
			{models.NewVoid{Email: "carl@example.com", IdempotencyKey: "k"}, models.CodeUnknownEvent},
			{models.NewVoid{Slack: identity, IdempotencyKey: "k"}, models.CodeUnknownUser},
			{models.NewVoid{HoldID: open.Hold.ID}, models.CodeUnknownEvent},
			{models.NewVoid{HoldID: uuid.New()}, models.CodeUnknownHold},
			{models.NewVoid{Email: ada, IdempotencyKey: "k", Reason: "\n"}, models.CodeInvalidRequest},
		} {
			if bad.v.Actor = models.ActorShell; bad.v.Reason == "" {
				bad.v.Reason = "by mistake"
			}
			var refused *models.Error
			if _, err := models.Void(f.ctx, f.db, f.catalogue, f.now, bad.v); !errors.As(err, &refused) || refused.Code != bad.code {
				t.Errorf("%+v: %v, want %s", bad.v, err, bad.code)
			}
		}
		f.wants(t, "before", 3, 5, 1)
		if v := f.void(t, "", settled.Hold.ID); v.Void.Quantity != 2 || v.Standing.Used != 1 || v.Standing.Held != 1 {
			t.Errorf("the void of the hold: %+v", v)
		}
		if a, err := f.Settle(f.ctx, settled.Hold.ID, 2); err != nil || !a.Replayed || a.Standing.Used != 3 {
			t.Errorf("a retry of the settlement: %+v, %v", a, err)
		}
		f.wants(t, "after", 1, 5, 3)

		// An identity of another team is another person, whatever address it comes with.
		if _, err := models.LinkPeople(f.ctx, f.db, f.now, []models.Link{{Email: ada, Slack: identity}}); err != nil {
			t.Fatal(err)
		}
		for _, test := range []struct {
			v    models.NewVoid
			code models.Code
		}{
			{models.NewVoid{Email: ada, Slack: models.SlackIdentity{TeamID: "T2", UserID: "U1"}}, models.CodeUnknownEvent},
			{models.NewVoid{Email: "bob@example.com", Slack: identity}, ""},
		} {
			test.v.Actor, test.v.Reason, test.v.IdempotencyKey = models.ActorShell, "by mistake", "k"
			v, err := models.Void(f.ctx, f.db, f.catalogue, f.now, test.v)
			var refused *models.Error
			if errors.As(err, &refused) && refused.Code != test.code || err == nil && v.Standing.Email != ada || test.code != "" && err == nil {
				t.Errorf("%+v: %+v, %v", test.v, v, err)
			}
		}
		f.wants(t, "all voided", 0, 5, 4)
	})
}

// A void changes the sums of a past period, which are cached.
func TestVoidChangesThePast(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		p := payers{f, t}
		acme := p.organization(f.now.AddDate(-1, 0, 0), "Acme", "T1")
		p.join(f.now, "ada@example.com", "T1")
		f.consume(t, "ada@example.com", 2, "a")
		f.consume(t, "ada@example.com", 3, "b")
		f.now = f.now.AddDate(0, 1, 0)
		var cache models.PastUsageCache
		november := func() int64 {
			t.Helper()
			summary, err := models.OrganizationUsage(f.ctx, f.db, f.catalogue, f.now, acme)
			p.must(err)
			months, err := cache.OrganizationMonths(f.ctx, f.db, f.now, &summary, f.now.AddDate(-1, 0, 0), 6)
			p.must(err)
			return months[4].Used
		}
		if n := november(); n != 5 {
			t.Errorf("November has %d units before the void", n)
		}
		f.void(t, "b", uuid.Nil)
		if n := november(); n != 2 {
			t.Errorf("November has %d units after the void", n)
		}
		f.clean(t)
	})
}

// The organization's spend limit counts what a void gives back.
func TestVoidInAnOrganization(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		l := newLimited(t, f)
		ada := l.member("ada")
		l.spendLimit(new(int64(60)))
		f.consume(t, ada, included, "included")
		f.consume(t, ada, 2, "extra")
		l.spends("at the limit", 60, 0)
		l.wants(ada, 1, models.OrganizationSpendLimitReached)
		v, err := models.Void(f.ctx, f.db, f.catalogue, f.now, models.NewVoid{
			Actor: models.ActorShell, Email: ada, IdempotencyKey: "extra", Reason: "by mistake",
		})
		if err != nil || v.Standing.OverageCents != 0 {
			t.Errorf("the void: %+v, %v", v, err)
		}
		l.spends("after the void", 0, 0)
		l.wants(ada, 2, "")
		l.spends("again", 60, 0)
	})
}

// Calls of two processes, voids of the same events and grants happen at once.
func TestVoidsAndCallsAtOnce(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		const ada, n = "ada@example.com", 24
		if _, err := models.Subscribe(f.ctx, f.db, f.catalogue, f.now, models.Subscriber{Email: ada}, "starter"); err != nil {
			t.Fatal(err)
		}
		gates := []*enforcement.Gate{f.Gate, f.another(t, 4096)}
		for i := range n {
			f.consume(t, ada, int64(i%3+1), fmt.Sprint("old", i))
		}
		var wg sync.WaitGroup
		var mu sync.Mutex
		first := map[string]int{}
		for i := range n {
			key := fmt.Sprint("old", i)
			wg.Go(func() {
				if _, err := gates[i%2].Consume(f.ctx, by(ada), 1, fmt.Sprint("new", i)); err != nil {
					t.Error(err)
				}
			})
			for range 2 {
				wg.Go(func() {
					v, err := models.Void(f.ctx, f.db, f.catalogue, f.now, models.NewVoid{
						Actor: models.ActorShell, Email: ada, IdempotencyKey: key, Reason: "by mistake",
					})
					if err != nil {
						t.Error(err)
					} else if !v.Replayed {
						mu.Lock()
						first[key]++
						mu.Unlock()
					}
				})
			}
		}
		wg.Wait()
		for i := range n {
			if key := fmt.Sprint("old", i); first[key] != 1 {
				t.Errorf("%s was voided %d times", key, first[key])
			}
		}
		a, err := f.Check(f.ctx, by(ada), 1)
		if err != nil || a.Standing.Used != n {
			t.Errorf("%d units are left of %d new ones, %v", a.Standing.Used, n, err)
		}
		f.clean(t)
	})
}
