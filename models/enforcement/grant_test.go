package enforcement_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"tollgate/models"
)

func (f *fixture) grant(t *testing.T, quantity int64, expires time.Duration, key string) models.Granted {
	t.Helper()
	g := models.NewGrant{Actor: models.ActorShell, Email: "ada@example.com", Quantity: quantity, Reason: "sorry"}
	if expires != 0 {
		g.ExpiresAt = new(f.now.Add(expires))
	}
	if key != "" {
		g.IdempotencyKey = &key
	}
	granted, err := models.Grant(f.ctx, f.db, f.catalogue, f.now, g)
	if err != nil {
		t.Fatal(err)
	}
	return granted
}

// wants checks a person's figures, in a check and in what is stored.
func (f *fixture) wants(t *testing.T, what string, used, included, remaining int64) {
	t.Helper()
	a, err := f.Check(f.ctx, by("ada@example.com"), 1)
	if err != nil {
		t.Fatal(err)
	}
	if s := a.Standing; s.Used != used || s.Included != included || s.Remaining() != remaining {
		t.Errorf("%s: %d used, %d included, %d left, want %d, %d and %d", what, s.Used, s.Included, s.Remaining(), used, included, remaining)
	}
	f.clean(t)
}

func TestGrant(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		const ada = "ada@example.com"
		other := f.another(t, 64)
		f.consume(t, ada, 5, "a")
		if a := f.consume(t, ada, 1, "b"); a.Verdict.Allowed {
			t.Fatal("more than the plan includes was allowed")
		}
		if g := f.grant(t, 10, 0, ""); g.Standing.Included != 15 || g.Standing.Remaining() != 10 || g.Replayed {
			t.Errorf("after the grant: %+v", g)
		}
		if a := f.consume(t, ada, 4, "c"); !a.Verdict.Allowed || a.Verdict.Overage != 0 || a.Standing.Remaining() != 6 {
			t.Errorf("a granted unit: %+v", a)
		}
		if a, err := other.Consume(f.ctx, by(ada), 1, "d"); err != nil || !a.Verdict.Allowed || a.Standing.Included != 15 {
			t.Errorf("another process: %+v, %v", a, err)
		}
		f.wants(t, "before the upgrade", 10, 15, 5)

		// An upgrade adds to it, and a downgrade takes nothing away.
		for _, plan := range []models.PlanID{"pro", "starter"} {
			if _, err := models.Subscribe(f.ctx, f.db, f.catalogue, f.now, models.Subscriber{Email: ada}, plan); err != nil {
				t.Fatal(err)
			}
			f.consume(t, ada, 1, string(plan))
		}
		f.wants(t, "after the downgrade", 12, 85, 73)

		// It ends with its period.
		f.now = time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)
		f.consume(t, ada, 1, "e")
		f.wants(t, "the next period", 1, 25, 24)
	})
}

func TestGrantExpires(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		const ada = "ada@example.com"
		f.grant(t, 10, time.Hour, "")
		f.grant(t, 3, 2*time.Hour, "")
		f.grant(t, 2, time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC).Sub(f.now), "")
		f.consume(t, ada, 9, "a")
		if _, err := f.Hold(f.ctx, by(ada), 2, "h", 3*time.Hour); err != nil {
			t.Fatal(err)
		}
		f.wants(t, "before", 9, 20, 9)
		f.now = f.now.Add(time.Hour)
		f.wants(t, "9 of the first grant are unused", 9, 11, 0)
		if a := f.consume(t, ada, 1, "b"); a.Verdict.Allowed {
			t.Error("a unit that was taken back was allowed")
		}
		f.now = f.now.Add(time.Hour)
		f.wants(t, "the others are in use", 9, 11, 0)

		// A worker takes back what no call does, also after the period.
		f.now = time.Date(2026, 11, 30, 22, 0, 0, 0, time.UTC)
		f.wants(t, "after the hold expired", 9, 11, 2)
		f.grant(t, 4, time.Hour, "")
		f.now = f.now.Add(2 * time.Hour)
		if err := models.EndGrants(f.ctx, f.db, f.catalogue, f.now); err != nil {
			t.Fatal(err)
		}
		past, err := models.UsageHistory(f.ctx, f.db, f.now, ada, 1)
		if err != nil || len(past) != 1 || past[0].SuggestionsIncluded+past[0].Granted != 11 || past[0].GrantsExpireAt != nil {
			t.Errorf("the past period is %+v, %v", past, err)
		}
		f.clean(t)
	})
}

// Granted units that a person used are not the plan's when the person returns to the same payer.
func TestGrantBeforeAnotherPayer(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		const ada = "ada@example.com"
		p := payers{f, t}
		acme := p.organization(f.now, "Acme", "T1")
		if _, err := models.Subscribe(f.ctx, f.db, f.catalogue, f.now, models.Subscriber{OrganizationID: &acme}, "team"); err != nil {
			t.Fatal(err)
		}
		f.grant(t, 10, 0, "")
		f.consume(t, ada, 8, "a")
		f.now = f.now.Add(time.Hour)
		p.move(f.now, ada, acme)
		f.consume(t, ada, 1, "b")
		f.now = f.now.Add(time.Hour)
		p.leave(f.now, ada)
		f.wants(t, "back on the free plan", 0, 0, 0)
		if _, err := models.Subscribe(f.ctx, f.db, f.catalogue, f.now, models.Subscriber{Email: ada}, "pro"); err != nil {
			t.Fatal(err)
		}
		f.consume(t, ada, 1, "c")
		f.wants(t, "5 of the plan's 75 units were used before", 1, 70, 69)
	})
}

// A grant expires while a call on the remembered record is on its way.
func TestGrantExpiresForARememberedRecord(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		const ada = "ada@example.com"
		f.grant(t, 1, time.Hour, "")
		for i := range 3 {
			f.consume(t, ada, 1, fmt.Sprint("k", i))
		}
		f.now = f.now.Add(time.Hour)
		for i := range 3 {
			if a := f.consume(t, ada, 1, fmt.Sprint("l", i)); a.Verdict.Allowed != (i < 2) {
				t.Errorf("call %d after the expiry: %+v", i, a.Verdict)
			}
		}
		f.wants(t, "all used", 5, 5, 0)
	})
}

func TestGrantOnce(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		var wg sync.WaitGroup
		var first [8]models.Granted
		for i := range first {
			wg.Go(func() {
				g, err := models.Grant(f.ctx, f.db, f.catalogue, f.now, models.NewGrant{
					Actor: "API key x", Email: "ada@example.com", Quantity: 7, Reason: "sorry", IdempotencyKey: new("k"),
				})
				if err != nil {
					t.Error(err)
				}
				first[i] = g
			})
		}
		wg.Wait()
		made := 0
		for _, g := range first {
			if g.Grant.ID != first[0].Grant.ID || g.Standing.Included != 12 {
				t.Errorf("another grant: %+v", g)
			}
			if !g.Replayed {
				made++
			}
		}
		if made != 1 {
			t.Errorf("%d calls made a grant", made)
		}
		for _, bad := range []struct {
			change func(*models.NewGrant)
			code   models.Code
			path   string
		}{
			{func(g *models.NewGrant) { g.IdempotencyKey, g.Quantity = new("k"), 8 }, models.CodeIdempotencyKeyReused, ""},
			{func(g *models.NewGrant) { g.ExpiresAt = &f.now }, models.CodeInvalidRequest, "expires_at"},
			{func(g *models.NewGrant) { g.ExpiresAt = new(f.now.AddDate(0, 1, 0)) }, models.CodeInvalidRequest, "expires_at"},
			{func(g *models.NewGrant) { g.Quantity = 0 }, models.CodeInvalidRequest, "quantity"},
			{func(g *models.NewGrant) { g.Reason = "" }, models.CodeInvalidRequest, "reason"},
			{func(g *models.NewGrant) { g.Reason = "a\nb" }, models.CodeInvalidRequest, "reason"},
		} {
			g := models.NewGrant{Actor: models.ActorShell, Email: "ada@example.com", Quantity: 1, Reason: "sorry"}
			bad.change(&g)
			var refused *models.Error
			_, err := models.Grant(f.ctx, f.db, f.catalogue, f.now, g)
			if !errors.As(err, &refused) || refused.Code != bad.code || refused.Path != bad.path {
				t.Errorf("%+v: %v, want %s at %q", g, err, bad.code, bad.path)
			}
		}
		f.wants(t, "once", 0, 12, 12)
	})
}

// A retry in a later period says when the grant ended.
func TestGrantRepeatedLater(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		first := f.grant(t, 3, 0, "k")
		f.now = f.now.AddDate(0, 1, 0)
		again := f.grant(t, 3, 0, "k")
		if end := time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC); !again.Replayed || !first.Ends.Equal(end) || !again.Ends.Equal(end) {
			t.Errorf("the grant ends at %s, and at %s in the retry, want %s", first.Ends, again.Ends, end)
		}
	})
}

// The history shows no units of a grant that has expired.
func TestGrantExpiresInHistory(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		f.grant(t, 10, time.Hour, "")
		f.now = f.now.Add(time.Hour)
		history, err := models.StandingHistory(f.ctx, f.db, f.catalogue, f.now, "ada@example.com", 1)
		if err != nil || len(history) != 1 || history[0].Included != 5 {
			t.Errorf("the history is %+v, %v", history, err)
		}
	})
}
