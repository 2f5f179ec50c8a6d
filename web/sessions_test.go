package web

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/uptrace/bun"

	"tollgate/models"
	"tollgate/models/modelstest"
	"tollgate/static"
)

func encode64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// spellings returns forms in which an attacker might try a value from the database.
func spellings(stored []byte) []string {
	return []string{
		encode64(stored), base64.StdEncoding.EncodeToString(stored), hex.EncodeToString(stored), `\x` + hex.EncodeToString(stored),
		string(stored),
	}
}

const toSignIn = "See Other /sign-in?next=%2Fsettings"

func TestTheSessionsCookie(t *testing.T) {
	f := newFixture(t, modelstest.SQLite(t))
	b := f.signedIn("ada@example.com")
	// The cookie has neither a domain nor another path. Otherwise the browser would refuse the name.
	want := "; Path=/; Max-Age=2592000; HttpOnly; Secure; SameSite=Lax"
	if _, attributes, _ := strings.Cut(b.last[0].Raw, "; "); "; "+attributes != want || b.last[0].Name != "__Host-tollgate" ||
		len(b.last[0].Value) != 43 {
		t.Errorf("the cookie is %s", b.last[0].Raw)
	}
	// Without HTTPS, browsers accept no such cookie.
	f = newFixture(t, modelstest.SQLite(t), func(o *Options) { o.BaseURL = "http://127.0.0.1:8080" })
	_, err := models.SetUser(t.Context(), f.db, f.clock(), "ada@example.com", models.UserChange{})
	must(t, err)
	b = f.browser()
	p := b.post(f.link("ada@example.com"), nil, from("", "http://127.0.0.1:8080"))
	if raw := b.last[0].Raw; !strings.HasPrefix(raw, "tollgate=") ||
		!strings.HasSuffix(raw, "; Path=/; Max-Age=2592000; HttpOnly; SameSite=Lax") {
		t.Errorf("the cookie is %s", raw)
	}
	if p.header.Get("Strict-Transport-Security") != "" || b.get("/settings").status != 200 {
		t.Errorf("without HTTPS: %v", p.header)
	}
}

// The stored hash of a session does not sign anyone in.
func TestAStolenSessionOpensNothing(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		f.signedIn("ada@example.com")
		var stored models.Session
		must(t, f.db.NewSelect().Model(&stored).Scan(context.Background()))
		for _, value := range append(spellings(stored.TokenHash), stored.ID.String(), string(stored.Data)) {
			b := f.browser()
			b.cookies["__Host-tollgate"] = url.QueryEscape(value)
			if p := b.get("/settings"); p.kind() != toSignIn {
				t.Errorf("%q: %s", value, p.kind())
			}
		}
	})
}

// An attacker puts a cookie into a browser before its owner signs in. The cookie is made up, or
// belongs to the attacker's session.
func TestAPlantedSessionIsNotTakenOver(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		f.signedIn("ada@example.com")
		eve := f.signedIn("eve@example.com")
		for name, planted := range map[string]string{"made up": strings.Repeat("A", 43), "eve's own": eve.session()} {
			b := f.browser()
			b.cookies["__Host-tollgate"] = planted
			b.follow(f.link("ada@example.com"))
			if b.session() == planted {
				t.Fatalf("%s: the planted session is signed in", name)
			}
			thief := f.browser()
			thief.cookies["__Host-tollgate"] = planted
			if p := thief.get("/settings"); p.kind() != toSignIn {
				t.Errorf("%s: the planted session sees %s %s", name, p.kind(), p.main())
			}
		}
	})
}

func TestSigningOutEndsTheSession(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		b := f.signedIn("ada@example.com")
		kept := b.session()
		if p := b.get("/sign-out"); p.status != http.StatusMethodNotAllowed || b.get("/settings").status != 200 {
			t.Errorf("GET /sign-out: %s", p.kind())
		}
		if p := b.post("/sign-out", nil); p.kind() != "See Other /" || b.session() != "" || f.sessions() != 0 {
			t.Errorf("signing out: %s, cookie %q, %d sessions", p.kind(), b.session(), f.sessions())
		}
		b.cookies["__Host-tollgate"] = kept
		if p := b.get("/settings"); p.kind() != toSignIn {
			t.Errorf("with the old cookie: %s", p.kind())
		}
		if p := f.browser().post("/sign-out", nil); p.kind() != "See Other /" {
			t.Errorf("signed out already: %s", p.kind())
		}
	})
}

func TestSessionsAreListedAndEnded(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		here, there, third := f.signedIn("ada@example.com"), f.signedIn("ada@example.com"), f.signedIn("ada@example.com")
		eve := f.signedIn("eve@example.com")
		list, err := models.ListSessions(t.Context(), f.db, f.clock(), f.user("ada@example.com").ID)
		must(t, err)
		own, _, err := models.FindSession(t.Context(), f.db, f.clock(), hashOf(here.session()))
		must(t, err)
		page := here.get("/settings")
		shown := page.find("section", "aria-labelledby", "sessions")
		for _, s := range list {
			forms := 1 // the button that ends it; people end their current session by signing out
			if s.ID == own.Session.ID {
				forms = 0
			}
			if n := strings.Count(page.body, s.ID.String()); n != forms {
				t.Errorf("the session %s is on the page %d times, want %d: %s", s.ID, n, forms, textOf(shown))
			}
			if s.UserAgent != "Testfox" || !s.CreatedAt.Equal(f.clock()) || !s.LastSeenAt.Equal(f.clock()) {
				t.Errorf("listed as %+v", s)
			}
		}
		if text := textOf(shown); len(list) != 3 || strings.Count(text, "Testfox") != 3 || strings.Count(text, "this browser") != 1 ||
			strings.Contains(page.body, here.session()) {
			t.Errorf("%d sessions: %s", len(list), text)
		}
		endOf := func(b *browser) string {
			viewer, _, err := models.FindSession(t.Context(), f.db, f.clock(), hashOf(b.session()))
			must(t, err)
			return "/settings/sessions/" + viewer.Session.ID.String() + "/end"
		}
		if p := eve.post(endOf(there), nil); p.status != http.StatusNotFound || there.get("/settings").status != 200 {
			t.Errorf("eve ends it: %s", p.kind())
		}
		if p := here.post(endOf(there), nil); p.kind() != "See Other /settings" || there.get("/settings").kind() != toSignIn {
			t.Errorf("ended elsewhere: %s, then %s", p.kind(), there.get("/settings").kind())
		}
		for _, id := range []string{"7", "00000000-0000-0000-0000-000000000000"} {
			if p := here.post("/settings/sessions/"+id+"/end", nil); p.status != http.StatusNotFound {
				t.Errorf("%s: %s", id, p.kind())
			}
		}
		if p := here.post("/settings/sessions/end-others", nil); p.kind() != "See Other /settings" || third.get("/settings").kind() != toSignIn ||
			here.get("/settings").status != 200 {
			t.Errorf("all others: %s, then %s", p.kind(), third.get("/settings").kind())
		}
		if p := eve.get("/settings"); p.status != 200 {
			t.Errorf("eve's own: %s", p.kind())
		}
		here.post(endOf(here), nil)
		if p := here.get("/settings"); p.kind() != toSignIn {
			t.Errorf("this one: %s", p.kind())
		}
	})
}

func hashOf(token string) []byte {
	hash := models.HashKey(token)
	return hash[:]
}

func TestSessionsExpire(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		start := f.clock()
		idle, busy := f.signedIn("ada@example.com"), f.signedIn("ada@example.com")
		use := func() int {
			status := busy.get("/settings").status
			f.web.sessions.maintain(t.Context())
			return status
		}
		f.set(start.Add(models.SessionIdle - time.Second))
		if use() != 200 {
			t.Error("used within the idle time, the session has ended")
		}
		f.set(start.Add(models.SessionIdle))
		if p := idle.get("/settings"); p.kind() != toSignIn || use() != 200 {
			t.Errorf("idle for a week: %s", p.kind())
		}
		f.retain("forever")
		if n := f.sessions(); n != 1 {
			t.Errorf("%d sessions are stored, want only the active one", n)
		}
		for day := 8; day < 30; day++ {
			f.set(start.AddDate(0, 0, day))
			if use() != 200 {
				t.Fatalf("used daily, the session ended on day %d", day)
			}
		}
		f.set(start.Add(models.SessionLifetime - time.Second))
		if use() != 200 {
			t.Error("it ended before its time")
		}
		f.set(start.Add(models.SessionLifetime))
		if p := busy.get("/settings"); p.kind() != toSignIn {
			t.Errorf("after a month: %s", p.kind())
		}
	})
}

// Opening pages writes nothing. The last use of a session is stored later, and not each time.
func TestPagesWriteNothing(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		f.person("ada@example.com", "T1", models.Admin, true)
		b := f.signedIn("ada@example.com")
		stored := func() (s models.Session) {
			must(t, f.db.NewSelect().Model(&s).Scan(context.Background()))
			return s
		}
		began := stored()
		watch := &watch{}
		f.db.DB = f.db.WithQueryHook(watch)
		f.advance(lastSeenEvery - time.Second)
		recorded := f.recorded()
		for _, path := range []string{
			"/settings", "/", "/docs", "/sign-in", "/usage", "/usage.csv", "/plans", "/org", "/org/members", "/org/members.csv", "/ops",
		} {
			if p := b.get(path); p.status != 200 && p.status != 303 {
				t.Errorf("%s: %s", path, p.kind())
			}
		}
		if n := f.recorded() - recorded; n != 0 {
			t.Errorf("opening pages created %d rows", n)
		}
		f.web.sessions.maintain(t.Context())
		f.advance(time.Second)
		for range 3 {
			b.get("/settings")
		}
		for _, q := range watch.take() {
			if !strings.HasPrefix(q, "SELECT") && !strings.Contains(q, "expires_at <= ") {
				t.Errorf("a page wrote: %s", q)
			}
		}
		if now := stored(); !now.LastSeenAt.Equal(began.LastSeenAt) {
			t.Errorf("seen at %v", now.LastSeenAt)
		}
		f.web.sessions.maintain(t.Context())
		if now := stored(); !now.LastSeenAt.Equal(f.clock()) || !now.ExpiresAt.Equal(f.clock().Add(models.SessionIdle)) {
			t.Errorf("stored: seen at %v, expires at %v", now.LastSeenAt, now.ExpiresAt)
		}
		// A session that was ended elsewhere in the meantime stays ended.
		f.advance(lastSeenEvery)
		b.get("/settings")
		_, err := models.EndOtherSessions(t.Context(), f.db, f.user("ada@example.com").ID, [16]byte{})
		must(t, err)
		f.web.sessions.maintain(t.Context())
		if n := f.sessions(); n != 0 {
			t.Errorf("%d sessions after it was ended", n)
		}
	})
}

// watch stores the statements that were run.
type watch struct {
	mu    sync.Mutex // pages and the server's workers run queries at the same time
	texts []string
}

var _ bun.QueryHook = (*watch)(nil)

func (w *watch) BeforeQuery(ctx context.Context, _ *bun.QueryEvent) context.Context { return ctx }

func (w *watch) AfterQuery(_ context.Context, e *bun.QueryEvent) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.texts = append(w.texts, e.Query)
}

func (w *watch) take() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	texts := w.texts
	w.texts = nil
	return texts
}

// A page reads its viewer once. Other requests do not read it.
func TestTheViewerIsReadOnce(t *testing.T) {
	f := newFixture(t, modelstest.SQLite(t))
	b := f.signedIn("ada@example.com")
	watch := &watch{}
	f.db.DB = f.db.WithQueryHook(watch)
	of := func() (n int) {
		for _, q := range watch.take() {
			if strings.Contains(q, "sessions") || strings.Contains(q, "users") {
				n++
			}
		}
		return n
	}
	for path, want := range map[string]int{
		"/v1/openapi.json": 0, "/healthz": 0, "/readyz": 0, static.Address("app.css"): 0, "/docs": 0, "/v1/organizations/7/usage": 0,
		"/sign-in": 1, "/settings": 5, // reads the sessions and the standing of a person without a record
	} {
		b.get(path)
		if n := of(); n != want {
			t.Errorf("%s read a session or a user %d times, want %d", path, n, want)
		}
	}
}

// A person's permissions are read again for each page.
func TestPermissionsApplyAtOnce(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		f.addTestPages()
		b := f.signedIn("ada@example.com")
		_, err := models.LinkPeople(t.Context(), f.db, f.clock(), []models.Link{
			{Email: "ada@example.com", Slack: models.SlackIdentity{TeamID: "T1", UserID: "U1"}},
		})
		must(t, err)
		set := func(role models.Role, operator bool) {
			t.Helper()
			_, err := models.SetUser(t.Context(), f.db, f.clock(), "ada@example.com", models.UserChange{Role: &role, Operator: &operator})
			must(t, err)
		}
		for _, step := range []struct {
			role           models.Role
			operator       bool
			admins, theirs int
		}{
			{models.Member, false, 403, 404}, {models.Admin, false, 200, 404}, {models.Admin, true, 200, 200}, {models.Member, true, 403, 200},
			{models.Member, false, 403, 404},
		} {
			set(step.role, step.operator)
			if a, o := b.get("/test/admin").status, b.get("/test/operator").status; a != step.admins || o != step.theirs {
				t.Errorf("%+v: the admin's page is %d, the operator's %d", step, a, o)
			}
		}
		_, err = f.db.ExecContext(t.Context(), "DELETE FROM users")
		must(t, err)
		if p := b.get("/settings"); p.kind() != toSignIn {
			t.Errorf("deleted: %s", p.kind())
		}
	})
}
