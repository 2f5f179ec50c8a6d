package web

import (
	"context"
	"fmt"
	"html"
	"strings"
	"testing"
	"time"

	"tollgate/models"
)

// Refusals are counted by person, period and reason, and shown to the person, to the organization's
// admins and to the operator.
func TestRefusalsAreShown(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		ctx := context.Background()
		_, path := f.team("team")
		f.patch(path, `{"spend_limit_cents": 0, "member_limit": 60}`).want(t, 200, nil)
		refused := func(name string, quantity int, key, reason string) {
			t.Helper()
			f.post("/v1/consume", fmt.Sprintf(memberCall, name, quantity, key)).want(t, 200, map[string]any{"reason": reason})
		}
		f.post("/v1/consume", fmt.Sprintf(memberCall, "ada", 50, "a")).want(t, 200, map[string]any{"allowed": true})
		for i := range 3 {
			refused("ada", 1, fmt.Sprint("b", i), "organization_spend_limit_reached")
		}
		refused("ada", 11, "c", "member_limit_reached")
		refused("bob", 61, "a", "member_limit_reached")
		f.post("/v1/check", `{"email": "bob@example.com", "quantity": 61}`).want(t, 200, map[string]any{"allowed": false})
		f.post("/v1/holds", fmt.Sprintf(memberCall, "bob", 61, "h")).want(t, 200, map[string]any{"allowed": false})
		f.get("/v1/usage/ada@example.com").want(t, 200, map[string]any{"allowed": false}) // no request of the app
		must(t, f.web.refusals.counts.Store(ctx, f.db))
		must(t, f.web.refusals.counts.Store(ctx, f.db)) // nothing is counted twice

		shows := func(b *browser, path string, texts ...string) {
			t.Helper()
			page := html.UnescapeString(b.get(path).body)
			for _, text := range texts {
				if !strings.Contains(page, text) {
					t.Errorf("%s does not show %q", path, text)
				}
			}
		}
		shows(f.signedIn("ada@example.com"), "/usage",
			"Refused 4 times in this billing period: organization's spend limit reached (3 times), member limit reached (1 time).")
		_, err := models.SetUser(ctx, f.db, f.clock(), "bob@example.com", models.UserChange{Role: new(models.Admin), Operator: new(true)})
		must(t, err)
		bob := f.signedIn("bob@example.com")
		shows(bob, "/org", "ada@example.com", "Refused members")
		shows(bob, "/usage", "Refused 3 times in this billing period: member limit reached (3 times).")
		shows(bob, "/ops", "Member limit reached", "Organization's spend limit reached")

		f.advance(40 * 24 * time.Hour)
		bob = f.signedIn("bob@example.com") // the session has expired
		if page := bob.get("/usage").body; strings.Contains(page, "Refused") {
			t.Error("refusals of the last period are shown in the current one")
		}
		ada, err := models.UserByEmail(ctx, f.db, "ada@example.com")
		must(t, err)
		if link := `href="/org/members/` + ada.ID.String() + `?period=2026-11"`; !strings.Contains(bob.get("/org?period=2026-11").body, link) {
			t.Errorf("a refused member has no link to their page about the period: %s", bob.get("/org?period=2026-11").main())
		}
	})
}

// Refusals that cannot be stored are stored later.
func TestRefusalsAreKept(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		for i := range 6 {
			f.post("/v1/consume", fmt.Sprintf(ada, 1, fmt.Sprint("k", i))).want(t, 200, map[string]any{"allowed": i < 5})
		}
		gone, cancel := context.WithCancel(context.Background())
		cancel()
		if err := f.web.refusals.counts.Store(gone, f.db); err == nil {
			t.Error("refusals were stored after the context's end")
		}
		must(t, f.web.refusals.counts.Store(context.Background(), f.db))
		counts, err := models.RefusalsSince(context.Background(), f.db, f.clock().Add(-time.Hour))
		must(t, err)
		if len(counts) != 1 || counts[0].Reason != models.IncludedExhausted || counts[0].Count != 1 {
			t.Errorf("stored %+v, want one refusal", counts)
		}
	})
}
