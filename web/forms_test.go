package web

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"tollgate/models"
	"tollgate/views"
)

// audited is the audit log as "actor action subject detail", oldest first.
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

func TestTheSpendLimit(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		f.subscribe(models.Subscriber{Email: "ada@example.com"}, "pro")
		b := f.signedIn("ada@example.com")
		f.used("ada@example.com", 85, f.clock()) // 10 beyond, for 3.00
		allowed := func(want bool, reason any, limit any) {
			t.Helper()
			f.post("/v1/check", `{"email": "ada@example.com"}`).want(t, 200, map[string]any{"allowed": want, "reason": reason, "spend_limit_cents": limit, "overage_cents": 300})
		}
		set := func(form url.Values) page {
			t.Helper()
			return b.post(views.PathSpendLimit, form)
		}
		saved := "See Other /usage?saved=spend-limit"
		allowed(true, nil, nil)
		if p := set(url.Values{"amount": {"5"}}); p.kind() != saved {
			t.Errorf("set: %s %s", p.kind(), p.main())
		}
		allowed(true, nil, 500)
		if p := b.get("/usage?saved=spend-limit"); !strings.Contains(p.main(), "The spend limit is changed.") || !strings.Contains(textOf(p.section("spend-limit")), "$5.00 (16 suggestions beyond the plan)") {
			t.Errorf("after it was set: %s", p.main())
		}
		// Below what is spent it is asked for again, and nothing is changed until then.
		p := set(url.Values{"amount": {"1"}})
		confirm := p.find("div", "id", "spend-limit-confirm")
		if text := textOf(confirm); p.status != 200 || !strings.Contains(text, "$3.00 of overage is spent already") || !strings.Contains(text, "With a limit of $1.00, suggestions stop at once, until Dec 1, 2026, 00:00 UTC") {
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
		for _, amount := range []string{"", " ", "-1", "abc", "1e3", "1000000.01", "1.234", "12.", "٣", "0x10", "1;DROP TABLE users", `"><script>`, strings.Repeat("9", 100)} {
			p := set(url.Values{"amount": {amount}})
			input := p.find("input", "id", "spend-limit-amount")
			if input == nil {
				t.Fatalf("%q: %s %s", amount, p.kind(), p.main())
			}
			if p.status != http.StatusUnprocessableEntity || attribute(input, "value") != amount || attribute(input, "aria-invalid") != "true" || strings.Contains(p.body, "<script") ||
				!strings.Contains(textOf(p.find("p", "id", "spend-limit-amount-fault")), "from 0 to 1,000,000") {
				t.Errorf("%q: %s %q %s", amount, p.kind(), attribute(input, "value"), p.main())
			}
		}
		allowed(false, "spend_limit_reached", 100)
		if p := b.post(views.PathSpendLimitRemove, nil); p.kind() != saved {
			t.Errorf("removed: %s %s", p.kind(), p.main())
		}
		allowed(true, nil, nil)
		if got, want := f.audited("spend_limit"), []string{
			"ada@example.com spend_limit.set no limit to 500 cents", "ada@example.com spend_limit.set 500 cents to 100 cents", "ada@example.com spend_limit.set 100 cents to no limit",
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
			"no name": {"scope": {"read"}}, "a long name": {"name": {strings.Repeat("a", 101)}, "scope": {"read"}}, "a control character": {"name": {"a\x00b"}, "scope": {"read"}},
			"no scope": {"name": {"a"}}, "an unknown scope": {"name": {"a"}, "scope": {"admin"}}, "two in one": {"name": {"a"}, "scope": {"read,admin"}},
		} {
			if p := otto.post(views.PathKeys, bad); p.status != http.StatusUnprocessableEntity || strings.Contains(p.main(), "shown this once") {
				t.Errorf("%s: %s %s", name, p.kind(), p.main())
			}
		}
		p := otto.post(views.PathKeys, form)
		var key string
		for code := range elements(p.find("main", "", ""), "code") {
			if models.IsKey(textOf(code)) {
				key = textOf(code)
			}
		}
		if p.status != 200 || key == "" || p.header.Get("Cache-Control") != "private, no-store" {
			t.Fatalf("made: %s %s", p.kind(), p.main())
		}
		p = otto.get("/ops")
		if strings.Contains(p.body, key) || strings.Contains(p.body, key[len(key)-12:]) || !strings.Contains(p.main(), "Slack app") {
			t.Errorf("later: %s", p.main())
		}
		f.post("/v1/check", `{"email": "a@example.com"}`, withKey(key)).want(t, 200, nil)
		f.post("/v1/consume", `{"email": "a@example.com", "idempotency_key": "k"}`, withKey(key)).want(t, 403, map[string]any{"code": "insufficient_scope"})
		revoke := url.Values{}
		for form := range elements(p.section("keys"), "form") {
			if button := find(form, "button", "", ""); strings.Contains(attribute(button, "aria-label"), "Slack app") {
				revoke.Set("id", attribute(find(form, "input", "name", "id"), "value"))
			}
		}
		if p := otto.post(views.PathKeyRevoke, revoke); p.kind() != "See Other /ops?saved=revoked" {
			t.Fatalf("revoked: %s %s", p.kind(), p.main())
		}
		time.Sleep(time.Second)
		f.post("/v1/check", `{"email": "a@example.com"}`, withKey(key)).want(t, 401, nil)
		p = otto.get("/ops?saved=revoked")
		if text := p.main(); !strings.Contains(text, "The key is revoked.") || !strings.Contains(textOf(p.section("keys")), "Revoked Nov 23, 2026") || !strings.Contains(textOf(p.section("audit")), "otto@example.com apikey.revoke") {
			t.Errorf("revoked: %s", text)
		}
		for _, id := range []string{"", "7", "00000000-0000-0000-0000-000000000000", revoke.Get("id")} {
			if p := otto.post(views.PathKeyRevoke, url.Values{"id": {id}}); p.status != http.StatusNotFound && id != revoke.Get("id") {
				t.Errorf("revoke %q: %s", id, p.kind())
			}
		}
		if got := f.audited("apikey"); len(got) < 2 || got[0] != "otto@example.com apikey.create check,read" || got[1] != "otto@example.com apikey.revoke" {
			t.Errorf("the audit log has %q", got)
		}
		for _, number := range []string{"0", "-1", "x", "99", "9223372036854775807"} {
			if p := otto.get(fmt.Sprintf("/ops?page=%s", number)); p.status != 200 || strings.Contains(p.main(), "could not be loaded") {
				t.Errorf("page %s of the audit log: %s %s", number, p.kind(), p.main())
			}
		}
	})
}
