package web

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"tollgate/models"
	"tollgate/models/modelstest"
	"tollgate/static"
	"tollgate/views"
)

// addTestPages adds a page for each rule, which shows its viewer.
func (f *fixture) addTestPages() {
	f.t.Helper()
	var pages []pageRoute
	for _, r := range []rule{anyone, public, member, admin, operator} {
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			show := func(c echo.Context, viewer *models.Viewer) error {
				if viewer == nil {
					return c.String(http.StatusOK, "no viewer")
				}
				organization := "none"
				if viewer.Organization != nil {
					organization = viewer.Organization.Name
				}
				u := &viewer.User
				return c.String(http.StatusOK, fmt.Sprintf("%s %s %t %s", u.Email, u.Role, viewer.IsOperator(), organization))
			}
			pages = append(pages, pageRoute{method: method, path: "/test/" + string(r), rule: r, handle: show})
		}
	}
	must(f.t, f.web.addPages(pages))
}

// cast returns a browser for every kind of person. ada, an admin, and bob, a member, belong to
// Acme. eve is an admin of another organization, lea is an admin without one, and otto is an
// operator.
func (f *fixture) cast() map[string]func() *browser {
	f.t.Helper()
	ctx := context.Background()
	yes, boss := true, models.Admin
	person := func(email, team string, change models.UserChange) {
		if team != "" {
			_, err := models.LinkPeople(ctx, f.db, f.clock(), []models.Link{
				{Email: email, Slack: models.SlackIdentity{TeamID: team, UserID: "U1" + email[:3]}},
			})
			must(f.t, err)
		}
		_, err := models.SetUser(ctx, f.db, f.clock(), email, change)
		must(f.t, err)
	}
	_, err := models.CreateOrganization(ctx, f.db, f.clock(), "Acme", []string{"T1"})
	must(f.t, err)
	_, err = models.CreateOrganization(ctx, f.db, f.clock(), "Evil", []string{"T2"})
	must(f.t, err)
	person("ada@example.com", "T1", models.UserChange{Role: &boss})
	person("bob@example.com", "T1", models.UserChange{})
	person("eve@example.com", "T2", models.UserChange{Role: &boss})
	person("lea@example.com", "", models.UserChange{})
	// SetUser refuses admins without an organization. A person who is one anyway may open no admin
	// page.
	_, err = f.db.NewUpdate().Model((*models.User)(nil)).Set("role = ?", boss).Where("email = 'lea@example.com'").Exec(ctx)
	must(f.t, err)
	person("otto@example.com", "", models.UserChange{Operator: &yes})
	cast := map[string]func() *browser{"signed out": f.browser}
	for _, name := range []string{"ada", "bob", "eve", "lea", "otto"} {
		cast[name] = func() *browser { return f.signedIn(name + "@example.com") }
	}
	return cast
}

// example is a path for a route with a parameter: the path of an object of Acme.
type example struct {
	// theirs lists the people for whom the object exists. For other people whom the rule allows, it is
	// not found.
	theirs []string
	path   func(f *fixture) string
	// form returns the form of a POST; nil if there is none.
	form func(f *fixture) url.Values
}

// examples has an example for each page route with a parameter, and for the forms with an ID.
var examples = map[string]example{
	"/sign-in/:token": {
		theirs: []string{"signed out", "ada", "bob", "eve", "lea", "otto"}, path: func(f *fixture) string { return f.link("bob@example.com") },
	},
	"/settings/sessions/:id/end": {theirs: []string{"bob"}, path: func(f *fixture) string {
		viewer, _, err := models.FindSession(context.Background(), f.db, f.clock(), hashOf(f.signedIn("bob@example.com").session()))
		must(f.t, err)
		return "/settings/sessions/" + viewer.Session.ID.String() + "/end"
	}},
	"/org/members/:id":              memberExample(""),
	"/org/members/:id/activity":     memberExample("/activity"),
	"/org/members/:id/activity.csv": memberExample("/activity.csv"),
	"/org/members/:id/limit":        bobsForm("/limit"),
	"/org/members/:id/role":         bobsForm("/role"),
	"/org/members/:id/remove":       bobsForm("/remove"),
	"/ops/people/:id": {
		theirs: []string{"otto"}, path: func(f *fixture) string { return "/ops/people/" + f.user("bob@example.com").ID.String() },
	},
	"/ops/people/:id/activity":     opsExample("/activity"),
	"/ops/people/:id/activity.csv": opsExample("/activity.csv"),
	"/ops/people/:id/grants":       opsForm("/grants", url.Values{views.FieldQuantity: {"1"}, views.FieldReason: {"test"}}),
	"/ops/people/:id/plan":         opsForm("/plan", url.Values{views.FieldPlan: {"pro"}}),
	"/ops/people/:id/role":         opsForm("/role", url.Values{views.FieldRole: {"admin"}}),
	"/ops/people/:id/void": {theirs: []string{"otto"}, path: func(f *fixture) string {
		f.post("/v1/consume", `{"email": "bob@example.com", "idempotency_key": "one"}`).want(f.t, 200, nil)
		return "/ops/people/" + f.user("bob@example.com").ID.String() + "/void?key=one"
	}},
	"/ops/people/:id/plan/end": {theirs: []string{"otto"}, path: func(f *fixture) string {
		made, err := models.Subscribe(f.t.Context(), f.db, f.web.catalogue, f.clock(), models.Subscriber{Email: "bob@example.com"}, "starter")
		must(f.t, err)
		return "/ops/people/" + f.user("bob@example.com").ID.String() + "/plan/end?id=" + made.ID.String()
	}},
	// Without Stripe there are no reports, also for an operator; TestOperatorControlsReports has some.
	views.PathReportRetry:  {path: func(*fixture) string { return views.PathReportRetry }},
	views.PathReportGiveUp: {path: func(*fixture) string { return views.PathReportGiveUp }},
	views.PathUnsubscribe: {theirs: []string{"signed out", "ada", "bob", "eve", "lea", "otto"}, path: func(f *fixture) string {
		return f.unsubscribeLink("bob@example.com")
	}},
	views.PathWebhookRemove: {theirs: []string{"otto"}, path: func(f *fixture) string {
		return views.PathWebhookRemove + "?id=" + f.webhookEndpoint().String()
	}},
	views.PathKeyRevoke: {theirs: []string{"otto"}, path: func(f *fixture) string {
		f.newKey(models.ScopeRead)
		keys, err := models.ListAPIKeys(context.Background(), f.db)
		must(f.t, err)
		return views.PathKeyRevoke + "?id=" + keys[len(keys)-1].ID.String()
	}},
}

// opsExample is a page about bob, for the operator.
func opsExample(rest string) example {
	return example{
		theirs: []string{"otto"}, path: func(f *fixture) string { return "/ops/people/" + f.user("bob@example.com").ID.String() + rest },
	}
}

// opsForm is a form about bob, for the operator.
func opsForm(action string, form url.Values) example {
	e := opsExample(action)
	e.form = func(*fixture) url.Values { return form }
	return e
}

// memberExample is a page about bob, for admins of his organization.
func memberExample(rest string) example {
	return example{
		theirs: []string{"ada"}, path: func(f *fixture) string { return "/org/members/" + f.user("bob@example.com").ID.String() + rest },
	}
}

// bobsForm is a form about bob, a member of Acme.
func bobsForm(action string) example {
	return example{
		theirs: []string{"ada"},
		path: func(f *fixture) string {
			acme := f.organizationOf("ada@example.com")
			_, err := models.SetUser(f.t.Context(), f.db, f.clock(), "bob@example.com", models.UserChange{OrganizationID: &acme})
			must(f.t, err) // the form may have removed him before
			return "/org/members/" + f.user("bob@example.com").ID.String() + action
		},
	}
}

// organizationOf returns the ID of a person's organization.
func (f *fixture) organizationOf(email string) uuid.UUID {
	f.t.Helper()
	id, err := models.OrganizationOfWorkspace(f.t.Context(), f.db, *f.user(email).WorkspaceID)
	must(f.t, err)
	return id
}

// user reads a person.
func (f *fixture) user(email string) (u models.User) {
	f.t.Helper()
	must(f.t, f.db.NewSelect().Model(&u).Where("email = ?", email).Scan(context.Background()))
	return u
}

// TestEveryRoleAtEveryRoute tries every route of the router as every kind of person. It fails for a
// new route without a rule, and for a new route with a parameter and no example.
func TestEveryRoleAtEveryRoute(t *testing.T) {
	withIssuer(t, func(t *testing.T, f *fixture, _ *testIssuer) {
		f.addTestPages()
		cast := f.cast()
		rules, unruled := f.rules()
		if len(unruled) > 0 {
			t.Errorf("routes without a rule: %q", unruled)
		}
		for _, route := range slices.SortedFunc(maps.Keys(rules), func(a, b [2]string) int { return strings.Compare(a[1]+a[0], b[1]+b[0]) }) {
			method, path := route[0], route[1]
			of, hasExample := examples[path]
			if strings.ContainsAny(path, ":*") && !hasExample {
				t.Errorf("%s has no example", path)
				continue
			}
			f.web.strangers = newClientLimit(time.Now, f.web.log) // all people have one address
			for _, name := range slices.Sorted(maps.Keys(cast)) {
				address, found := path, true
				var form url.Values
				if hasExample {
					address, found = of.path(f), slices.Contains(of.theirs, name)
				}
				if of.form != nil {
					form = of.form(f)
				}
				b := cast[name]()
				wanted := wanted(rules[route], name, found)
				if got := outcome(b.send(method, address, form)); got != wanted {
					t.Errorf("%s %s by %s: %s, want %s", method, path, name, got, wanted)
				}
				if method == http.MethodGet || method == http.MethodPost && path == views.PathUnsubscribe {
					continue // mail programs send the unsubscribe form; see TestUnsubscribe
				}
				if hasExample {
					address = of.path(f)
				}
				b = cast[name]()
				sessions := f.sessions()
				for _, evil := range []change{
					from("cross-site", "https://evil.example"), from("same-site", "https://shop.example.com"), from("cross-site", "null"),
					from("", "https://evil.example"), from("", "null"),
				} {
					if p := b.send(method, address, form, evil); p.status != http.StatusForbidden || !strings.Contains(p.body, "another site") ||
						len(b.last) > 0 {
						t.Errorf("%s %s by %s from another site: %s, cookies %v\n%s", method, path, name, p.kind(), b.last, p.main())
					}
				}
				if f.sessions() != sessions {
					t.Errorf("%s %s by %s from another site created or ended a session", method, path, name)
				}
			}
		}
		// The API uses no cookies, so a request from another site is harmless.
		f.post("/v1/check", `{"email": "ada@example.com"}`, from("cross-site", "https://evil.example")).want(t, 200, nil)
	})
}

// rules returns the rules of all page routes, and the routes that have none and do not belong to
// the API.
func (f *fixture) rules() (rules map[[2]string]rule, unruled []string) {
	rules = map[[2]string]rule{}
	pages := f.web.pages()
	for _, r := range []rule{anyone, public, member, admin, operator} {
		pages = append(pages, pageRoute{method: http.MethodGet, path: "/test/" + string(r), rule: r}, pageRoute{
			method: http.MethodPost, path: "/test/" + string(r), rule: r,
		})
	}
	for _, p := range pages {
		rules[[2]string{p.method, p.path}] = p.rule
	}
	known := map[[2]string]bool{{http.MethodGet, "/static/*"}: true, {http.MethodPost, webhookPath}: true}
	for _, r := range f.web.api() {
		known[[2]string{r.method, openAPIParameter.ReplaceAllString(r.path, ":$1")}] = true
	}
	for _, r := range f.web.echo.Routes() {
		route := [2]string{r.Method, r.Path}
		if _, ok := rules[route]; !ok && !known[route] {
			unruled = append(unruled, r.Method+" "+r.Path)
		}
	}
	return rules, unruled
}

// outcome returns how a page answered, in one word.
func outcome(p page) string {
	switch {
	case p.status == http.StatusSeeOther && (p.location == "/sign-in" || strings.HasPrefix(p.location, "/sign-in?next=")):
		return "sign in"
	case p.status == http.StatusForbidden && strings.Contains(p.body, "ada@example.com"):
		return "ask ada"
	case p.status == http.StatusForbidden && strings.Contains(p.body, "you belong to none"):
		return "no organization"
	case p.status == http.StatusForbidden:
		return "forbidden"
	case p.status == http.StatusNotFound:
		return "not found"
	case p.status >= 500:
		return p.kind()
	}
	return "in"
}

// wanted returns the required outcome for a person at a route with the rule. found means that the
// object exists for them.
func wanted(r rule, name string, found bool) string {
	signedOut := name == "signed out"
	switch {
	case r != anyone && r != public && signedOut:
		return "sign in"
	case r == operator && name != "otto":
		return "not found"
	case r == admin && name == "bob":
		return "ask ada"
	case r == admin && (name == "lea" || name == "otto"):
		return "no organization"
	case !found:
		return "not found"
	}
	return "in"
}

func TestARouteWithoutARuleIsNoticed(t *testing.T) {
	f := newFixture(t, modelstest.SQLite(t))
	for _, r := range []rule{"", "everybody"} {
		if err := f.web.addPages([]pageRoute{{method: http.MethodGet, path: "/new", rule: r}}); err == nil {
			t.Errorf("a page with the rule %q was registered", r)
		}
	}
	f.web.echo.GET("/stray", func(echo.Context) error { return nil })
	if _, unruled := f.rules(); !slices.Equal(unruled, []string{"GET /stray"}) {
		t.Errorf("routes without a rule: %q", unruled)
	}
}

func TestViewers(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		f.addTestPages()
		cast := f.cast()
		for name, want := range map[string]string{
			"signed out": "no viewer", "ada": "ada@example.com admin false Acme", "bob": "bob@example.com member false Acme",
			"eve": "eve@example.com admin false Evil", "lea": "lea@example.com admin false none", "otto": "otto@example.com member true none",
		} {
			if p := cast[name]().get("/test/public"); p.body != want {
				t.Errorf("%s is %q", name, p.main())
			}
		}
		if p := cast["ada"]().get("/test/anyone"); p.body != "no viewer" {
			t.Errorf("a page for anyone knows %q", p.main())
		}
	})
}

func TestHeadersOfPages(t *testing.T) {
	f := newFixture(t, modelstest.SQLite(t))
	b := f.signedIn("ada@example.com")
	for _, path := range []string{
		"/settings", "/usage", "/docs", "/sign-in", f.link("ada@example.com"), "/nothing", "/auth/callback",
		"/sign-in/AAAAAAAAAAAAAAAAAAAAAAAAAA",
	} {
		p := f.browser().get(path)
		if path == "/settings" || path == "/usage" {
			p = b.get(path)
		}
		policy := "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; frame-ancestors 'none'; form-action 'self'"
		if path == "/sign-in" || path == "/usage" {
			policy += " https:"
		}
		for name, want := range map[string]string{
			"Content-Security-Policy":    policy,
			"X-Content-Type-Options":     "nosniff",
			"Referrer-Policy":            "same-origin",
			"Cross-Origin-Opener-Policy": "same-origin",
			"Cache-Control":              "private, no-store",
			"Content-Type":               "text/html; charset=UTF-8",
			"Strict-Transport-Security":  "max-age=31536000",
		} {
			if got := p.header.Get(name); got != want {
				t.Errorf("%s: %s is %q", path, name, got)
			}
		}
		if p.header.Get("Permissions-Policy") == "" || strings.Contains(p.body, "style=") || strings.Contains(p.body, "<script") {
			t.Errorf("%s: %v %s", path, p.header, p.main())
		}
	}
	if p := b.get(static.Address("app.css")); p.header.Get("Cache-Control") != "public, max-age=31536000, immutable" {
		t.Errorf("a static file: %v", p.header)
	}
}

// Browsers get an error as a page, programs get it as a problem.
func TestErrorsOfPages(t *testing.T) {
	f := newFixture(t, modelstest.SQLite(t))
	must(t, f.web.addPages([]pageRoute{
		{
			method: http.MethodGet, path: "/broken", rule: public,
			handle: func(echo.Context, *models.Viewer) error { return errors.New("SELECT secret") },
		},
		{method: http.MethodGet, path: "/panics", rule: public, handle: func(echo.Context, *models.Viewer) error { panic("secret") }},
		{
			method: http.MethodGet, path: "/away", rule: public,
			handle: func(echo.Context, *models.Viewer) error { return models.Unavailable(errors.New("secret")) },
		},
		{method: http.MethodGet, path: "/slow", rule: public, within: time.Millisecond, handle: func(c echo.Context, _ *models.Viewer) error {
			<-c.Request().Context().Done()
			return c.Request().Context().Err()
		}},
	}))
	b := f.browser()
	for path, want := range map[string]int{
		"/nothing": 404, "/broken": 500, "/panics": 500, "/away": 503, "/slow": 503, "/settings/": 404, "/v2": 404,
	} {
		p := b.get(path)
		if p.status != want || !strings.HasPrefix(p.header.Get("Content-Type"), "text/html") ||
			!strings.Contains(p.body, p.header.Get("X-Request-Id")) ||
			strings.Contains(p.body, "secret") || (p.status == 503) != (p.header.Get("Retry-After") == "1") {
			t.Errorf("%s: %s %v\n%s", path, p.kind(), p.header, p.main())
		}
	}
	if p := b.send(http.MethodDelete, "/settings", nil); p.status != 405 || !strings.HasPrefix(p.header.Get("Content-Type"), "text/html") {
		t.Errorf("another method: %s %v", p.kind(), p.header)
	}
	for _, path := range []string{"/v1/nothing", "/v1/", "/v1", "/static/app.css"} {
		if p := b.get(path); p.status != 404 || p.header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s: %s %v", path, p.kind(), p.header)
		}
	}
	b = f.signedIn("ada@example.com")
	if p := b.post("/settings/sessions/"+uuid.NewString()+"/end",
		url.Values{"x": {strings.Repeat("a", formLimit)}}); p.status != http.StatusRequestEntityTooLarge {
		t.Errorf("a large form: %s", p.kind())
	}
	if p := b.send(http.MethodPost, "/sign-out", nil, func(r *http.Request) { r.URL.RawQuery = "%zz" }); p.status != http.StatusBadRequest ||
		b.session() == "" {
		t.Errorf("an invalid form: %s", p.kind())
	}
	// The API's documents contain no code that only pages use.
	for _, code := range []string{"cross_site", "sign_in", "unknown_link", "forbidden"} {
		if strings.Contains(b.get("/docs").body, code) || strings.Contains(string(f.web.document), code) {
			t.Errorf("the API's documents contain %s", code)
		}
	}
}

// Without its database, a page is a 503. Pages that do not need the database work.
func TestPagesWithoutTheDatabase(t *testing.T) {
	cluster, err := modelstest.StartPostgres(t.Context(), modelstest.PostgresOptions{})
	must(t, err)
	defer func() { must(t, cluster.Stop()) }()
	must(t, cluster.CreateDatabase(t.Context(), "pages"))
	f := newFixture(t, cluster.URL("pages"))
	b := f.signedIn("ada@example.com")
	must(t, cluster.StopKeep())
	for path, want := range map[string]int{"/settings": 503, "/sign-in": 503, "/docs": 200, static.Address("app.css"): 200} {
		if p := b.get(path); p.status != want || (want == 503) != (p.header.Get("Retry-After") == "1") {
			t.Errorf("%s: %s %v", path, p.kind(), p.header)
		}
	}
	if b.session() == "" {
		t.Error("the session's cookie is gone")
	}
}

// The page of the API is the same for everyone, so it is rendered once, when the server is created.
func TestTheDocsAreRenderedOnce(t *testing.T) {
	f := newFixture(t, modelstest.SQLite(t))
	f.web.docsPage = append(f.web.docsPage, "<!-- the one that was drawn -->"...)
	for range 2 {
		if p := f.browser().get("/docs"); p.status != http.StatusOK || p.body != string(f.web.docsPage) {
			t.Errorf("%s %s", p.kind(), p.body)
		}
	}
}
