package web

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"tollgate/models"
	"tollgate/views"
)

// browser stores cookies, sends the origin of its forms, and does not follow redirects. It also
// sends cookies that require HTTPS, because the test's server acts as if it were behind a proxy.
type browser struct {
	f       *fixture
	cookies map[string]string
	// last are the cookies of the last answer.
	last []*http.Cookie
}

func (f *fixture) browser() *browser { return &browser{f: f, cookies: map[string]string{}} }

// signedIn returns the browser of a person who used a one-time link. It creates the person if
// necessary.
func (f *fixture) signedIn(email string) *browser {
	f.t.Helper()
	_, err := models.SetUser(context.Background(), f.db, f.clock(), email, models.UserChange{})
	must(f.t, err)
	b := f.browser()
	b.follow(f.link(email))
	return b
}

// link creates a one-time link and returns its path.
func (f *fixture) link(email string) string {
	f.t.Helper()
	token, err := models.CreateSignInLink(context.Background(), f.db, f.clock(), email)
	must(f.t, err)
	return "/sign-in/" + token
}

// follow signs in with a one-time link.
func (b *browser) follow(link string) {
	b.f.t.Helper()
	if p := b.post(link, nil); p.status != http.StatusSeeOther || b.session() == "" {
		b.f.t.Fatalf("the link returned %d: %s", p.status, p.main())
	}
}

// session returns the session cookie; empty if there is none.
func (b *browser) session() string { return b.cookies["__Host-tollgate"] }

// page is an answer to a browser.
type page struct {
	status   int
	location string
	header   http.Header
	body     string
}

// kind returns a page's status and the address of a redirect.
func (p page) kind() string {
	if p.location != "" {
		return http.StatusText(p.status) + " " + p.location
	}
	return http.StatusText(p.status)
}

func (b *browser) get(path string, changes ...change) page {
	b.f.t.Helper()
	return b.send(http.MethodGet, path, nil, changes...)
}

func (b *browser) post(path string, form url.Values, changes ...change) page {
	b.f.t.Helper()
	return b.send(http.MethodPost, path, form, changes...)
}

func (b *browser) send(method, path string, form url.Values, changes ...change) page {
	t := b.f.t
	t.Helper()
	r, err := http.NewRequestWithContext(context.Background(), method, b.f.server.URL+path, strings.NewReader(form.Encode()))
	must(t, err)
	r.Header.Set("User-Agent", "Testfox")
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	if method != http.MethodGet {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Origin", "https://tollgate.example.com")
	}
	for name, value := range b.cookies {
		r.AddCookie(&http.Cookie{Name: name, Value: value})
	}
	for _, c := range changes {
		c(r)
	}
	client := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	response, err := client.Do(r)
	must(t, err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	must(t, err)
	b.last = response.Cookies()
	for _, c := range b.last {
		if c.MaxAge < 0 {
			delete(b.cookies, c.Name)
		} else {
			b.cookies[c.Name] = c.Value
		}
	}
	p := page{response.StatusCode, response.Header.Get("Location"), response.Header, string(body)}
	p.checkFormPolicy(t, method+" "+path)
	return p
}

// checkFormPolicy checks that the policy of a page allows its forms to redirect to other sites.
func (p page) checkFormPolicy(t testing.TB, name string) {
	t.Helper()
	if !strings.HasPrefix(p.header.Get("Content-Type"), "text/html") {
		return
	}
	for _, action := range []string{views.PathCheckout, views.PathPortal, views.PathSignInSlack} {
		if p.find("form", "action", action) != nil && p.header.Get("Content-Security-Policy") != LeadingPolicy {
			policy := p.header.Get("Content-Security-Policy")
			t.Errorf("%s: the policy %q does not let its form redirect to another site", name, policy)
		}
	}
}

// from sets the headers that say where a request comes from, as a browser does.
func from(site, origin string) change {
	return func(r *http.Request) {
		r.Header.Del("Sec-Fetch-Site")
		r.Header.Del("Origin")
		if site != "" {
			r.Header.Set("Sec-Fetch-Site", site)
		}
		if origin != "" {
			r.Header.Set("Origin", origin)
		}
	}
}

// sessions returns the number of stored sessions.
func (f *fixture) sessions() int {
	f.t.Helper()
	n, err := f.db.NewSelect().Model((*models.Session)(nil)).Count(context.Background())
	must(f.t, err)
	return int(n)
}
