package web

import (
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/html"

	"tollgate/models"
	"tollgate/views"
)

// audited returns the audit log as "actor action subject detail", oldest first.
func (f *fixture) audited(action string) (lines []string) {
	f.t.Helper()
	entries, _, err := models.AuditPage(f.t.Context(), f.db, 1, 1000)
	must(f.t, err)
	for _, e := range slices.Backward(entries) {
		if strings.HasPrefix(e.Action, action) {
			lines = append(lines, strings.TrimSpace(e.Actor+" "+e.Action+" "+e.Detail))
		}
	}
	return lines
}

// title returns the page's title as the browser shows it.
func (p page) title() string { return textOf(p.find("title", "", "")) }

// focus reports whether the focus is within an element when the page opens.
func (p page) focus(within *html.Node) bool {
	for n := range within.Descendants() {
		if n.Type == html.ElementNode && hasAttribute(n, "autofocus") {
			return strings.Count(p.body, " autofocus") == 1
		}
	}
	return false
}

// first reports whether the page begins with the element with the ID.
func (p page) first(id string) bool {
	for n := range p.find("main", "", "").ChildNodes() {
		if n.Type == html.ElementNode {
			return attribute(n, "id") == id
		}
	}
	return false
}

func hasAttribute(n *html.Node, name string) bool {
	return slices.ContainsFunc(n.Attr, func(a html.Attribute) bool { return a.Key == name })
}

// wantErrors checks a page that refuses a form: the title, the summary with its links, each field's
// own message, and the focus.
func (p page) wantErrors(t testing.TB, title string, fields ...string) {
	t.Helper()
	if p.title() != "Error: "+title+" – Tollgate" {
		t.Errorf("the title is %q", p.title())
	}
	summary := p.find("div", "id", "form-errors")
	if summary == nil || !p.first("form-errors") || find(summary, "div", "role", "alert") == nil {
		t.Fatalf("the page does not begin with a summary of its errors: %s", p.main())
	}
	for i, id := range fields {
		field, message := p.find("input", "id", id), textOf(p.find("p", "id", id+"-error"))
		link := find(summary, "a", "href", "#"+id)
		if field == nil || message == "" || link == nil || textOf(link) != message {
			t.Errorf("%s: the field says %q and the summary %q", id, message, textOf(summary))
			continue
		}
		if attribute(field, "aria-invalid") != "true" || !slices.Contains(strings.Fields(attribute(field, "aria-describedby")), id+"-error") ||
			hasAttribute(field, "autofocus") != (i == 0) {
			t.Errorf("%s is not marked as invalid, or the focus is elsewhere: %v", id, field.Attr)
		}
	}
	if n := strings.Count(p.body, " autofocus"); n != 1 {
		t.Errorf("%d elements have autofocus", n)
	}
}

// form returns what a browser sends with the form of an action if the user changes nothing.
func (p page) form(action string) url.Values {
	values := url.Values{}
	form := p.find("form", "action", action)
	for input := range elements(form, "input") {
		if attribute(input, "type") != "checkbox" || hasAttribute(input, "checked") {
			values.Add(attribute(input, "name"), attribute(input, "value"))
		}
	}
	return values
}

// token opens the page with the form that creates keys and returns its token.
func (b *browser) token() string { return b.get("/ops").form(views.PathKeys).Get(views.FieldToken) }

// newKey returns the API key that a page shows; empty if there is none.
func (p page) newKey() string {
	for code := range elements(p.find("main", "", ""), "code") {
		if models.IsKey(textOf(code)) {
			return textOf(code)
		}
	}
	return ""
}

func TestAKeyIsCreatedOnce(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		f.person("otto@example.com", "", models.Member, true)
		otto := f.signedIn("otto@example.com")
		keys := func(want int) {
			f.t.Helper()
			list, err := models.ListAPIKeys(f.t.Context(), f.db)
			must(f.t, err)
			if len(list) != want+1 { // the fixture has one key
				f.t.Fatalf("%d keys, want %d", len(list), want+1)
			}
		}
		keys(0)
		form := otto.get("/ops").form(views.PathKeys)
		f.step(t, "invalid forms show their entries again", func(t *testing.T) {
			bad := url.Values{"token": form["token"], "name": {" "}}
			p := otto.post(views.PathKeys, bad)
			p.wantErrors(t, "Operations", "key-name", "key-scope")
			p = otto.post(views.PathKeys, url.Values{"token": form["token"], "name": {"Reports"}})
			p.wantErrors(t, "Operations", "key-scope")
			if got := p.form(views.PathKeys); got.Get("name") != "Reports" || got.Get("token") != form.Get("token") || got.Has("scope") {
				t.Errorf("the form is shown again as %v", got)
			}
			for _, limit := range []string{"-1", "+", "1.5", "1e3", "1,000", "٣", "1000001", strings.Repeat("9", 100), `"><script>`, "a\x00"} {
				p = otto.post(views.PathKeys, url.Values{"token": form["token"], "name": {"Reports"}, "scope": {"read"}, "rate_limit": {limit}})
				p.wantErrors(t, "Operations", "key-rate-limit")
				if got := p.form(views.PathKeys).Get("rate_limit"); p.status != http.StatusUnprocessableEntity ||
					got != strings.ReplaceAll(limit, "\x00", "\ufffd") {
					t.Errorf("%q: %s, and shown again as %q", limit, p.kind(), got)
				}
			}
			otto.post(views.PathKeys, url.Values{"token": form["token"], "rate_limit": {"x"}}).wantErrors(t, "Operations", "key-name", "key-scope",
				"key-rate-limit")
			keys(0)
		})
		type answer struct {
			page page
			key  string
		}
		var one, two answer
		f.step(t, "two clicks at once create one key", func(t *testing.T) {
			form.Set("name", "Reports")
			answers := make(chan answer)
			for range 2 {
				b := &browser{f: f, cookies: maps.Clone(otto.cookies)}
				go func() {
					p := b.post(views.PathKeys, form)
					answers <- answer{p, p.newKey()}
				}()
			}
			one, two = <-answers, <-answers
			if one.key == "" {
				one, two = two, one
			}
			if one.page.status != 200 || one.key == "" || two.key != "" || two.page.status != http.StatusConflict {
				t.Fatalf("two clicks at once: %s and %s", one.page.main(), two.page.main())
			}
			if secret := one.page.find("div", "id", "new-key-secret"); !strings.Contains(textOf(secret), "shown only once") ||
				!one.page.focus(secret) || one.page.title() != "API key created: Operations – Tollgate" {
				t.Errorf("created: %q %s", one.page.title(), one.page.main())
			}
			keys(1)
		})
		f.step(t, "a reload creates no second key", func(t *testing.T) {
			p := otto.post(views.PathKeys, form)
			if text := p.main(); p.status != http.StatusConflict || p.newKey() != "" ||
				!strings.Contains(text, "No second API key was created This form already created the key “Reports”. A key is shown only once.") {
				t.Errorf("reloaded: %s %s", p.kind(), text)
			}
			for _, c := range append(p.header.Values("Set-Cookie"), one.page.header.Values("Set-Cookie")...) {
				t.Errorf("a cookie is set: %s", c)
			}
			if next := p.form(views.PathKeys); next.Get("token") == form.Get("token") || next.Get("name") != "" {
				t.Errorf("the next form is %v", next)
			}
		})
		f.step(t, "a name can be used once", func(t *testing.T) {
			again := otto.get("/ops").form(views.PathKeys)
			again.Set("name", "Reports")
			otto.post(views.PathKeys, again).wantErrors(t, "Operations", "key-name")
			keys(1)
		})
		f.step(t, "an old form keeps its entries for another key", func(t *testing.T) {
			form.Set("name", "Billing")
			p := otto.post(views.PathKeys, form)
			if next := p.form(views.PathKeys); p.newKey() != "" || next.Get("name") != "Billing" || next.Get("token") == form.Get("token") ||
				!strings.Contains(p.main(), "send the form again") {
				t.Errorf("another name: %v %s", next, p.main())
			}
			keys(1)
			if p = otto.post(views.PathKeys, p.form(views.PathKeys)); p.newKey() == "" {
				t.Errorf("sent again: %s", p.main())
			}
			keys(2)
		})
		f.step(t, "an invalid token creates nothing", func(t *testing.T) {
			for _, token := range []string{"", "7"} {
				p := otto.post(views.PathKeys, url.Values{"token": {token}, "name": {"Other"}, "scope": {"read"}})
				if p.wantErrors(t, "Operations"); p.newKey() != "" || p.form(views.PathKeys).Get("name") != "Other" {
					t.Errorf("the token %q: %s", token, p.main())
				}
			}
			keys(2)
		})
		if got := f.audited("apikey.create"); len(got) != 2 {
			t.Errorf("the audit log has %q", got)
		}
		f.step(t, "the secret is stored nowhere", func(t *testing.T) {
			var sessions []models.Session
			must(t, f.db.NewSelect().Model(&sessions).Scan(t.Context()))
			for _, s := range sessions {
				if strings.Contains(string(s.Data), one.key) {
					t.Error("a session contains the key")
				}
			}
		})
	})
}

// A limit of 0 stops suggestions as soon as the included ones are used up, so it must be confirmed
// then.
func TestALimitThatStopsEverythingIsConfirmed(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		f.subscribe(models.Subscriber{Email: "ada@example.com"}, "pro")
		b := f.signedIn("ada@example.com")
		f.used("ada@example.com", 75, f.clock())
		p := b.post(views.PathSpendLimit, url.Values{"amount": {"0"}})
		confirm := p.find("div", "id", "spend-limit-confirm")
		if !strings.Contains(textOf(confirm), "Not saved yet: a limit of $0.00 would stop suggestions immediately") || !p.focus(confirm) ||
			!p.first("spend-limit-confirm") {
			t.Fatalf("0: %s", p.main())
		}
		f.post("/v1/check", `{"email": "ada@example.com"}`).want(t, 200, map[string]any{"allowed": true})
		if p := b.post(views.PathSpendLimit, url.Values{"amount": {"0"}, "confirm": {"yes"}}); p.kind() != "See Other /usage" {
			t.Fatalf("confirmed: %s", p.main())
		}
		f.post("/v1/check", `{"email": "ada@example.com"}`).want(t, 200, map[string]any{"allowed": false})
	})
}

// A message waits for its own page, is shown once, and is never a text from the cookie.
func TestMessagesAreShownOnce(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		f.person("ada@example.com", "", models.Member, false)
		ada, other := f.signedIn("ada@example.com"), f.signedIn("ada@example.com")
		list, err := models.ListSessions(t.Context(), f.db, f.clock(), f.user("ada@example.com").ID)
		must(t, err)
		for _, s := range list {
			path := "/settings/sessions/" + s.ID.String() + "/end"
			if viewer, _, err := models.FindSession(t.Context(), f.db, f.clock(), hashOf(other.session())); err != nil || viewer == nil ||
				viewer.Session.ID != s.ID {
				continue
			}
			if p := ada.post(path, nil); p.kind() != "See Other /settings" {
				t.Fatalf("ended: %s", p.kind())
			}
			if p := ada.get("/usage"); strings.Contains(p.main(), "Session ended") {
				t.Errorf("on another page: %s", p.main())
			}
			if p := ada.get("/settings"); !strings.Contains(p.main(), "Session ended") {
				t.Errorf("on its page: %s", p.main())
			}
			if p := ada.get("/settings"); strings.Contains(p.main(), "Session ended") {
				t.Errorf("after a reload: %s", p.main())
			}
			if p := ada.post(path, nil); p.status != http.StatusNotFound ||
				!strings.Contains(p.main(), "Session not found It may have been ended already. Nothing was changed.") {
				t.Errorf("ended twice: %s %s", p.kind(), p.main())
			}
		}
		ada.cookies["__Host-tollgate-flash"] = "<script>"
		if p := ada.get("/settings"); strings.Contains(p.body, "<script") {
			t.Errorf("a cookie's own text: %s", p.main())
		}
		gone := &browser{f: f, cookies: maps.Clone(ada.cookies)}
		if p := ada.post("/sign-out", nil); p.kind() != "See Other /" || !strings.Contains(ada.get("/").main(), "You are signed out.") ||
			strings.Contains(ada.get("/").main(), "You are signed out.") {
			t.Errorf("signed out: %s", p.kind())
		}
		// A form from a session that has ended.
		if p := gone.post(views.PathSpendLimit, url.Values{"amount": {"5"}}); p.kind() != "See Other /sign-in" {
			t.Errorf("a form without a session: %s", p.kind())
		}
		for _, shown := range []bool{true, false} {
			if p := gone.get("/sign-in"); strings.Contains(p.main(), "You are signed out Nothing was changed.") != shown {
				t.Errorf("the page to sign in, want the message: %t: %s", shown, p.main())
			}
		}
	})
}

func TestTheSpendLimit(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		f.subscribe(models.Subscriber{Email: "ada@example.com"}, "pro")
		b := f.signedIn("ada@example.com")
		f.used("ada@example.com", 85, f.clock()) // 10 overage units, for $3.00
		allowed := func(want bool, reason any, limit any) {
			t.Helper()
			f.post("/v1/check", `{"email": "ada@example.com"}`).
				want(t, 200, map[string]any{"allowed": want, "reason": reason, "spend_limit_cents": limit, "overage_cents": 300})
		}
		set := func(form url.Values) page {
			t.Helper()
			return b.post(views.PathSpendLimit, form)
		}
		saved := "See Other /usage"
		allowed(true, nil, nil)
		if p := set(url.Values{"amount": {"5"}}); p.kind() != saved {
			t.Errorf("set: %s %s", p.kind(), p.main())
		}
		allowed(true, nil, 500)
		if p := b.get("/usage"); !strings.Contains(p.main(), "Spend limit saved Extra suggestions are paused when one more would exceed "+
			"$5.00 in a billing period. Your overage so far is still billed.") ||
			!strings.Contains(textOf(p.section("spend-limit")), "$5.00 (16 suggestions beyond the plan)") {
			t.Errorf("after it was set: %s", p.main())
		}
		if p := b.get("/usage"); strings.Contains(p.main(), "Spend limit saved") {
			t.Errorf("after a reload: %s", p.main())
		}
		// Sending the same form again, as by a double click or in another tab, changes nothing.
		set(url.Values{"amount": {"5.00"}})
		// A limit below the current cost needs a confirmation, and changes nothing until then.
		p := set(url.Values{"amount": {"1"}})
		confirm := p.find("div", "id", "spend-limit-confirm")
		if text := textOf(confirm); p.status != 200 ||
			!strings.Contains(text, "$3.00 of overage was used in this period and is billed in any case.") ||
			!strings.Contains(text, "With a limit of $1.00, suggestions stop immediately, until Dec 1, 2026, 00:00 UTC") ||
			p.title() != "Confirm: Usage – Tollgate" || !p.focus(confirm) || !p.first("spend-limit-confirm") ||
			attribute(p.find("input", "id", "spend-limit-amount"), "value") != "1" {
			t.Errorf("below what is spent: %s %s", p.kind(), p.main())
		}
		allowed(true, nil, 500)
		form := url.Values{}
		for input := range elements(confirm, "input") {
			form.Set(attribute(input, "name"), attribute(input, "value"))
		}
		if p := set(form); p.kind() != saved {
			t.Errorf("confirmed with %v: %s %s", form, p.kind(), p.main())
		}
		allowed(false, "spend_limit_reached", 100)
		if p := b.get("/usage"); !strings.Contains(textOf(p.section("left")), "Paused: your spend limit is reached") {
			t.Errorf("paused: %s", p.main())
		}
		for _, amount := range []string{
			"", " ", "-1", "abc", "1e3", "1000000.01", "1.234", "12.", "٣", "0x10", "1;DROP TABLE users", `"><script>`, strings.Repeat("9", 100),
		} {
			p := set(url.Values{"amount": {amount}})
			input := p.find("input", "id", "spend-limit-amount")
			if input == nil {
				t.Fatalf("%q: %s %s", amount, p.kind(), p.main())
			}
			if p.status != http.StatusUnprocessableEntity || attribute(input, "value") != amount || attribute(input, "aria-invalid") != "true" ||
				strings.Contains(p.body, "<script") ||
				!strings.Contains(textOf(p.find("p", "id", "spend-limit-amount-error")), "from 0 to 1,000,000") {
				t.Errorf("%q: %s %q %s", amount, p.kind(), attribute(input, "value"), p.main())
			}
			p.wantErrors(t, "Usage", "spend-limit-amount")
		}
		allowed(false, "spend_limit_reached", 100)
		if p := b.post(views.PathSpendLimitRemove, nil); p.kind() != saved {
			t.Errorf("removed: %s %s", p.kind(), p.main())
		}
		allowed(true, nil, nil)
		if got, want := f.audited("spend_limit"), []string{
			"ada@example.com spend_limit.set no limit to $5.00", "ada@example.com spend_limit.set $5.00 to $1.00",
			"ada@example.com spend_limit.set $1.00 to no limit",
		}; !slices.Equal(got, want) {
			t.Errorf("the audit log has %q, want %q", got, want)
		}
	})
}

func TestOperations(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		f.organization("Acme", "T1")
		f.person("ada@example.com", "T1", models.Admin, false)
		f.person("otto@example.com", "", models.Member, true)
		ada, otto := f.signedIn("ada@example.com"), f.signedIn("otto@example.com")
		form := url.Values{"name": {" Slack app "}, "scope": {"check", "read"}}
		for _, p := range []page{ada.get("/ops"), ada.post(views.PathKeys, form), ada.post(views.PathKeyRevoke, url.Values{"id": {"7"}})} {
			if p.status != http.StatusNotFound {
				t.Errorf("an admin at operations: %s %s", p.kind(), p.main())
			}
		}
		if n := len(f.audited("apikey")); n != 0 {
			t.Errorf("an admin left %d lines", n)
		}
		for name, bad := range map[string]url.Values{
			"no name":             {"scope": {"read"}},
			"a long name":         {"name": {strings.Repeat("a", 101)}, "scope": {"read"}},
			"a control character": {"name": {"a\x00b"}, "scope": {"read"}},
			"no scope":            {"name": {"a"}},
			"an unknown scope":    {"name": {"a"}, "scope": {"admin"}},
			"two in one":          {"name": {"a"}, "scope": {"read,admin"}},
		} {
			bad.Set(views.FieldToken, otto.token())
			if p := otto.post(views.PathKeys, bad); p.status != http.StatusUnprocessableEntity || strings.Contains(p.main(), "shown only once") {
				t.Errorf("%s: %s %s", name, p.kind(), p.main())
			}
		}
		form.Set(views.FieldToken, otto.token())
		p := otto.post(views.PathKeys, form)
		key := p.newKey()
		if p.status != 200 || key == "" || p.header.Get("Cache-Control") != "private, no-store" {
			t.Fatalf("made: %s %s", p.kind(), p.main())
		}
		p = otto.get("/ops")
		if strings.Contains(p.body, key) || strings.Contains(p.body, key[len(key)-12:]) || !strings.Contains(p.main(), "Slack app") {
			t.Errorf("later: %s", p.main())
		}
		f.post("/v1/check", `{"email": "a@example.com"}`, withKey(key)).want(t, 200, nil)
		f.post("/v1/consume", `{"email": "a@example.com", "idempotency_key": "k"}`, withKey(key)).
			want(t, 403, map[string]any{"code": "insufficient_scope"})
		// The button asks for confirmation.
		asked := otto.get(attribute(p.find("a", "aria-label", "Revoke the key Slack app"), "href"))
		revoke := asked.form(views.PathKeyRevoke)
		if text := asked.main(); asked.status != 200 || !strings.Contains(text, "Revoke “Slack app”?") ||
			!strings.Contains(text, "cannot be restored") {
			t.Fatalf("asked: %s %s", asked.kind(), text)
		}
		f.post("/v1/check", `{"email": "a@example.com"}`, withKey(key)).want(t, 200, nil)
		if p := otto.post(views.PathKeyRevoke, revoke); p.kind() != "See Other /ops" {
			t.Fatalf("revoked: %s %s", p.kind(), p.main())
		}
		f.refusedWithinASecond(t, key)
		f.post("/v1/check", `{"email": "a@example.com"}`, withKey(key)).want(t, 401, nil)
		p = otto.get("/ops")
		if text := p.main(); !strings.Contains(text, "API key revoked") || !strings.Contains(textOf(p.section("keys")), "Revoked Nov 23, 2026") ||
			!strings.Contains(textOf(p.section("audit")), "otto@example.com apikey.revoke") {
			t.Errorf("revoked: %s", text)
		}
		if p := otto.get("/ops"); strings.Contains(p.main(), "API key revoked") {
			t.Errorf("after a reload: %s", p.main())
		}
		if p := otto.get(views.PathKeyRevoke + "?id=" + revoke.Get("id")); p.kind() != "See Other /ops" {
			t.Errorf("asked about a revoked key: %s", p.kind())
		}
		otto.post(views.PathKeyRevoke, revoke)
		if p := otto.get("/ops"); !strings.Contains(p.main(), "This API key was already revoked Nothing was changed.") {
			t.Errorf("revoked twice: %s", p.main())
		}
		for _, id := range []string{"", "7", "00000000-0000-0000-0000-000000000000", revoke.Get("id")} {
			if p := otto.post(views.PathKeyRevoke, url.Values{"id": {id}}); p.status != http.StatusNotFound && id != revoke.Get("id") {
				t.Errorf("revoke %q: %s", id, p.kind())
			}
		}
		if got := f.audited("apikey"); len(got) != 2 || got[0] != "otto@example.com apikey.create check,read" ||
			got[1] != "otto@example.com apikey.revoke" {
			t.Errorf("the audit log has %q", got)
		}
		for _, number := range []string{"0", "-1", "x", "99", "9223372036854775807"} {
			if p := otto.get(fmt.Sprintf("/ops?page=%s", number)); p.status != 200 || strings.Contains(p.main(), "could not be loaded") {
				t.Errorf("page %s of the audit log: %s %s", number, p.kind(), p.main())
			}
		}
	})
}
