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

// browser is one that keeps cookies, says where its forms come from, and does not follow redirects. It sends cookies that
// are meant for HTTPS alone, as the test's server stands for one behind a proxy.
type browser struct {
	f       *fixture
	cookies map[string]string
	// last are the cookies of the last answer.
	last []*http.Cookie
}

func (f *fixture) browser() *browser { return &browser{f: f, cookies: map[string]string{}} }

// signedIn is the browser of a person who used a one-time link; somebody unknown is made.
func (f *fixture) signedIn(email string) *browser {
	f.t.Helper()
	_, err := models.SetUser(context.Background(), f.db, f.clock(), email, models.UserChange{})
	must(f.t, err)
	b := f.browser()
	b.follow(f.link(email))
	return b
}

// link makes a one-time link and returns its path.
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
		b.f.t.Fatalf("the link answered %d: %s", p.status, p.main())
	}
}

// session is the session's cookie; empty without one.
func (b *browser) session() string { return b.cookies["__Host-tollgate"] }

// page is an answer to a browser.
type page struct {
	status   int
	location string
	header   http.Header
	body     string
}

// kind is a page's status, with the address that a redirect leads to.
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
	p.wantWayOut(t, method+" "+path)
	return p
}

// wantWayOut sees to it that a page with a form that leads to another site lets it lead there.
func (p page) wantWayOut(t testing.TB, name string) {
	t.Helper()
	if !strings.HasPrefix(p.header.Get("Content-Type"), "text/html") {
		return
	}
	for _, action := range []string{views.PathCheckout, views.PathPortal, views.PathSignInSlack} {
		if p.find("form", "action", action) != nil && p.header.Get("Content-Security-Policy") != LeadingPolicy {
			t.Errorf("%s: the policy %q does not let its form lead on", name, p.header.Get("Content-Security-Policy"))
		}
	}
}

// from says where a request comes from, as a browser does.
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

// sessions counts those that are stored.
func (f *fixture) sessions() int {
	f.t.Helper()
	n, err := f.db.NewSelect().Model((*models.Session)(nil)).Count(context.Background())
	must(f.t, err)
	return int(n)
}
