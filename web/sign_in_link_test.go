package web

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"

	"tollgate/models"
)

func TestALinkSignsInOnce(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		f.signedIn("ada@example.com").post("/sign-out", nil)
		link := f.link("ada@example.com")
		b := f.browser()
		for range 3 { // a chat program that previews the link, and a person who opens it twice
			if p := b.get(link + "?next=/settings"); p.status != 200 || !strings.Contains(p.body, "ada@example.com") ||
				!strings.Contains(p.body, `value="/settings"`) {
				t.Fatalf("the link's page: %d %s", p.status, p.main())
			}
		}
		if n := f.sessions(); n != 0 {
			t.Errorf("opening the page created %d sessions", n)
		}
		if p := b.post(link, url.Values{"next": {"/settings"}}); p.kind() != "See Other /settings" || f.sessions() != 1 {
			t.Errorf("used: %s", p.kind())
		}
		for _, p := range []page{f.browser().post(link, nil), f.browser().get(link)} {
			if p.status != http.StatusNotFound || !strings.Contains(p.body, "used before") {
				t.Errorf("used again: %s %s", p.kind(), p.main())
			}
		}
		old := f.link("ada@example.com")
		f.advance(models.SignInLinkLife)
		for _, path := range []string{
			old, "/sign-in/AAAAAAAAAAAAAAAAAAAAAAAAAA", "/sign-in/%00", link + "A", strings.ToLower(f.link("ada@example.com")),
		} {
			if p := f.browser().post(path, nil); p.status != http.StatusNotFound {
				t.Errorf("%s: %s", path, p.kind())
			}
		}
		if n := f.sessions(); n != 1 {
			t.Errorf("%d sessions", n)
		}
	})
}

func TestALinkUsedTwiceAtOnceSignsInOnce(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		f.signedIn("ada@example.com").post("/sign-out", nil)
		for range 5 {
			link := f.link("ada@example.com")
			before := f.sessions()
			var all sync.WaitGroup
			kinds := make([]string, 8)
			for i := range kinds {
				all.Go(func() { kinds[i] = f.browser().post(link, nil).kind() })
			}
			all.Wait()
			if n := f.sessions() - before; n != 1 {
				t.Errorf("%d sessions of %q", n, kinds)
			}
		}
	})
}

// The stored hash of a link does not sign anyone in.
func TestAStolenLinkOpensNothing(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		f.signedIn("ada@example.com").post("/sign-out", nil)
		f.link("ada@example.com")
		var stored models.SignInLink
		must(t, f.db.NewSelect().Model(&stored).Scan(context.Background()))
		for _, token := range spellings(stored.TokenHash) {
			if p := f.browser().post("/sign-in/"+url.PathEscape(token), nil); p.status != http.StatusNotFound || f.sessions() != 0 {
				t.Errorf("%q: %s", token, p.kind())
			}
		}
	})
}
