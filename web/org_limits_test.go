package web

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/html"

	"tollgate/models"
	"tollgate/views"
)

// withAdmins creates Acme with two admins, ada and amy, and the member bob, on the plan business.
func (f *fixture) withAdmins() (ada *browser) {
	f.t.Helper()
	acme := f.organization("Acme", "T1")
	f.subscribe(models.Subscriber{OrganizationID: &acme}, "business")
	for email, role := range map[string]models.Role{
		"ada@example.com": models.Admin, "amy@example.com": models.Admin, "bob@example.com": models.Member,
	} {
		f.person(email, "T1", role, false)
	}
	return f.signedIn("ada@example.com")
}

// sendForm fills in the form of an action as a browser does, and sends it.
func (b *browser) sendForm(on page, action string, fields url.Values) page {
	b.f.t.Helper()
	form := url.Values{}
	n := on.find("form", "action", action)
	if n == nil {
		b.f.t.Fatalf("no form %s: %s", action, on.main())
	}
	for input := range elements(n, "input") {
		if kind := attribute(input, "type"); kind != "radio" || hasAttribute(input, "checked") {
			form.Set(attribute(input, "name"), attribute(input, "value"))
		}
	}
	for name, values := range fields {
		form[name] = values
	}
	return b.post(action, form)
}

func setTo(limit string) url.Values { return url.Values{"choice": {"limit"}, "amount": {limit}} }

func checkedValue(form *html.Node, name string) string {
	for input := range elements(form, "input") {
		if attribute(input, "name") == name && hasAttribute(input, "checked") {
			return attribute(input, "value")
		}
	}
	return ""
}

func TestOrganizationSpendLimitForm(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		ada := f.withAdmins()
		f.used("bob@example.com", 162, f.clock()) // 62 overage units, for $12.40
		allowed := func(want bool, reason any) {
			t.Helper()
			f.post("/v1/check", `{"email": "bob@example.com"}`).want(t, 200, map[string]any{"allowed": want, "reason": reason})
		}
		action, saved := views.PathOrgSpendLimit, "See Other /org"
		first := ada.get("/org")
		says(t, "no limit", textOf(first.section("spend-limit")), []string{
			"No limit is set: extra suggestions are billed at $0.20 each, without a maximum for the organization.",
			"At $0.20 each, $50.00 pays for 250 extra suggestions per billing period; after that, extra suggestions are paused for everyone.",
		}, []string{"Spent"})
		f.step(t, "set", func(t *testing.T) {
			if p := ada.sendForm(first, action, setTo("50")); p.kind() != saved {
				t.Fatalf("set: %s %s", p.kind(), p.main())
			}
			p := ada.get("/org")
			says(t, "set", textOf(p.section("spend-limit")), []string{
				"Spent $12.40 of $50.00.", "At $0.20 each, $50.00 pays for 250 extra suggestions per billing period",
			}, []string{"left the organization", "paused for everyone Until"})
			says(t, "the member's page", f.signedIn("bob@example.com").get("/usage").main(), []string{
				"up to a spend limit that all members of your organization share", "until your organization's spend limit is reached",
			}, []string{"No spend limit is set", "No limit is set"})
			says(t, "the notice", p.main(), []string{"Spend limit saved At $0.20 each, $50.00 pays for 250 extra suggestions"}, nil)
			says(t, "a reload", ada.get("/org").main(), nil, []string{"Spend limit saved"})
			allowed(true, nil)
		})
		f.step(t, "sent twice", func(t *testing.T) {
			if p := ada.sendForm(first, action, setTo("50.00")); p.kind() != saved { // which saw no limit
				t.Errorf("%s %s", p.kind(), p.main())
			}
			want := []string{"ada@example.com organization.set spend limit from no limit to $50.00"}
			if got := f.audited("organization.set"); !slices.Equal(got, want) {
				t.Errorf("the audit log has %q, want %q", got, want)
			}
		})
		f.step(t, "out of date", func(t *testing.T) {
			amy := f.signedIn("amy@example.com")
			for _, fields := range []url.Values{setTo("60"), setTo("1"), {"choice": {"none"}, "amount": {""}}} {
				if fields.Get("choice") == "none" {
					first = ada.get("/org")
					if p := amy.sendForm(amy.get("/org"), action, setTo("70")); p.kind() != saved {
						t.Fatalf("by amy: %s", p.main())
					}
				}
				p := ada.sendForm(first, action, fields)
				p.wantErrors(t, "Acme", views.FieldIDOrgSpendLimit)
				if text := p.main(); p.status != http.StatusConflict || !strings.Contains(text, "Someone else changed this limit in the meantime.") {
					t.Errorf("%v: %s %s", fields, p.kind(), text)
				}
			}
			if p := ada.sendForm(ada.get("/org"), action, setTo("50")); p.kind() != saved {
				t.Fatal(p.main())
			}
		})
		f.step(t, "below what is spent", func(t *testing.T) {
			p := ada.sendForm(ada.get("/org"), action, setTo("12.50"))
			confirm := p.find("div", "id", "org-spend-limit-confirm")
			if p.status != 200 || !p.focus(confirm) || !p.first("org-spend-limit-confirm") || p.title() != "Confirm: Acme – Tollgate" {
				t.Fatalf("%s %s", p.kind(), p.main())
			}
			says(t, "the question", textOf(confirm), []string{
				"Not saved yet. A limit of $12.50 would pause extra suggestions for everyone immediately",
				"$12.40 of overage was used in this period and is billed in any case.",
				"paused for everyone until Dec 1, 2026, 00:00 UTC",
			}, nil)
			allowed(true, nil)
			form := url.Values{}
			for input := range elements(confirm, "input") {
				form.Set(attribute(input, "name"), attribute(input, "value"))
			}
			if p := ada.post(action, form); p.kind() != saved {
				t.Fatalf("confirmed: %s %s", p.kind(), p.main())
			}
			allowed(false, "organization_spend_limit_reached")
			says(t, "paused", textOf(ada.get("/org").section("spend-limit")),
				[]string{"Spent $12.40 of $12.50.", "Extra suggestions are paused for everyone They are paused until Dec 1, 2026, 00:00 UTC"}, nil)
			says(t, "the member", textOf(f.signedIn("bob@example.com").get("/usage").section("left")),
				[]string{"Paused: your organization's spend limit is reached"}, nil)
		})
		f.step(t, "invalid", func(t *testing.T) {
			entries := len(f.audited(""))
			for _, amount := range []string{
				"", " ", "-1", "abc", "1e3", "1000000.01", "1.234", "12.", "٣", `"><script>`, strings.Repeat("9", 100), "a\x00",
			} {
				p := ada.sendForm(ada.get("/org"), action, setTo(amount))
				p.wantErrors(t, "Acme", views.FieldIDOrgSpendLimit)
				form := p.find("form", "action", action)
				if p.status != http.StatusUnprocessableEntity || strings.Contains(p.body, "<script") || checkedValue(form, "choice") != "limit" ||
					p.form(action).Get("amount") != strings.ReplaceAll(amount, "\x00", "\ufffd") {
					t.Errorf("%q: %s %v", amount, p.kind(), p.form(action))
				}
			}
			for _, fields := range []url.Values{
				{"choice": {"none"}, "amount": {"99"}}, {"choice": {"both"}}, {"choice": {""}}, {"seen": {"x"}}, {"seen": {"99999999999999999999"}},
			} {
				p := ada.sendForm(ada.get("/org"), action, fields)
				p.wantErrors(t, "Acme", views.FieldIDOrgSpendLimit)
			}
			if got := len(f.audited("")); got != entries {
				t.Errorf("%d changes", got-entries)
			}
		})
		f.step(t, "the usage of people who left", func(t *testing.T) {
			bob := f.user("bob@example.com")
			path := "/org/members/" + bob.ID.String() + "/remove"
			if p := ada.sendForm(ada.get(path), path, nil); p.kind() != "See Other /org/members" {
				t.Fatalf("removed: %s %s", p.kind(), p.main())
			}
			says(t, "members", ada.get("/org/members").main(), []string{"Member removed"}, []string{"bob@example.com"})
			says(t, "spent", textOf(ada.get("/org").section("spend-limit")),
				[]string{"Spent $12.40 of $12.50.", "$12.40 of the spent amount is not in the overage above. It was used by people who have left"}, nil)
		})
		f.step(t, "removed", func(t *testing.T) {
			if p := ada.sendForm(ada.get("/org"), action, url.Values{"choice": {"none"}}); p.kind() != saved {
				t.Fatalf("removed: %s %s", p.kind(), p.main())
			}
			says(t, "removed", ada.get("/org").main(), []string{"Spend limit removed", "No limit is set"}, []string{"Spent $"})
			says(t, "who changed what", textOf(ada.get("/org").section("changes")), []string{
				"ada@example.com Acme spend limit from $12.50 to no limit", "ada@example.com bob@example.com removed from the organization",
				"amy@example.com Acme spend limit from $50.00 to $70.00", "ada@example.com Acme spend limit from no limit to $50.00",
			}, nil)
		})
		must(t, models.Verify(t.Context(), f.db, func(d models.Difference) { t.Errorf("a recount differs: %s", d) }))
	})
}

// A limit whose counting takes longer than the form waits is stored and shown as such.
func TestASpendLimitThatIsStillBeingCounted(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		ada := f.withAdmins()
		f.used("bob@example.com", 162, f.clock())
		if p := ada.sendForm(ada.get("/org"), views.PathOrgSpendLimit, setTo("50")); p.kind() != "See Other /org" {
			t.Fatal(p.main())
		}
		_, err := f.db.ExecContext(t.Context(), "UPDATE organization_records SET counted = FALSE, spend_limit_cents = NULL")
		must(t, err)
		says(t, "the page", textOf(ada.get("/org").section("spend-limit")),
			[]string{"The limit of $50.00 is being applied", "Reload this page in a minute."}, []string{"Spent"})
		must(t, models.FinishSpendLimits(t.Context(), f.db, f.web.catalogue, f.clock(), nil))
		says(t, "finished", textOf(ada.get("/org").section("spend-limit")), []string{"Spent $12.40 of $50.00."}, []string{"being applied"})
	})
}

func TestMemberLimitForms(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		ada := f.withAdmins()
		f.used("bob@example.com", 30, f.clock())
		bob := f.user("bob@example.com")
		own := views.PathMemberLimit(bob.ID)
		limited := func(want bool, limit any) {
			t.Helper()
			f.post("/v1/check", `{"email": "bob@example.com"}`).want(t, 200, map[string]any{"allowed": want, "member_limit": limit})
		}
		limited(true, nil)
		if p := ada.sendForm(ada.get("/org"), views.PathOrgMemberLimit, setTo("30")); p.kind() != "See Other /org" {
			t.Fatalf("the default: %s %s", p.kind(), p.main())
		}
		says(t, "the default", ada.get("/org").main(), []string{
			"Default member limit saved Once a member has used 30 suggestions in a billing period (included and extra), usage is " +
				"paused until the next period.",
		}, nil)
		limited(false, 30)
		member := ada.get("/org/members/" + bob.ID.String())
		says(t, "the member's page", textOf(member.section("limit")), []string{
			"The organization's default applies. Once the member has used 30 suggestions",
			"The organization's default: 30 suggestions per billing period",
		}, nil)
		for range 2 { // the second time, as by a double click
			if p := ada.sendForm(member, own, setTo("1,000")); p.kind() != "See Other /org/members/"+bob.ID.String() {
				t.Fatalf("the member's own: %s %s", p.kind(), p.main())
			}
		}
		limited(true, 1000)
		p := ada.sendForm(member, own, setTo("40"))
		if p.wantErrors(t, "bob@example.com", views.FieldIDMemberLimit); p.status != http.StatusConflict {
			t.Errorf("out of date: %s", p.kind())
		}
		for _, units := range []string{"", "-1", "x", "1.5", "1000000001", strings.Repeat("9", 100)} {
			ada.sendForm(ada.get("/org"), views.PathOrgMemberLimit, setTo(units)).wantErrors(t, "Acme", views.FieldIDOrgMemberLimit)
			ada.sendForm(member, own, setTo(units)).wantErrors(t, "bob@example.com", views.FieldIDMemberLimit)
		}
		limited(true, 1000)
		if p := ada.sendForm(ada.get("/org/members/"+bob.ID.String()), own, url.Values{"choice": {"none"}}); p.status != http.StatusSeeOther {
			t.Fatalf("removed: %s %s", p.kind(), p.main())
		}
		limited(false, 30)
		want := []string{
			"ada@example.com user.set member limit from the organization's default to 1,000",
			"ada@example.com user.set member limit from 1,000 to the organization's default",
		}
		var got []string
		for _, line := range f.audited("user.set") {
			if strings.HasPrefix(line, "ada@") {
				got = append(got, line)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("the audit log has %q, want %q", got, want)
		}
	})
}

func TestRolesAndRemovals(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		ada := f.withAdmins()
		ids := map[string]string{}
		for _, name := range []string{"ada", "amy", "bob"} {
			ids[name] = f.user(name + "@example.com").ID.String()
		}
		page := func(name string) string { return "/org/members/" + ids[name] }
		role := func(name string) models.Role { return f.user(name + "@example.com").Role }
		become := func(r string) url.Values { return url.Values{"role": {r}} }
		before := ada.get(page("bob"))
		for range 2 {
			if p := ada.sendForm(before, page("bob")+"/role", become("admin")); p.kind() != "See Other "+page("bob") || role("bob") != models.Admin {
				t.Fatalf("an admin: %s %s", p.kind(), p.main())
			}
		}
		says(t, "saved", ada.get(page("bob")).main(), []string{"Role saved"}, nil)
		if p := f.signedIn("bob@example.com").get("/org"); p.status != 200 {
			t.Errorf("bob's /org: %s", p.kind())
		}
		f.step(t, "out of date", func(t *testing.T) {
			amy := f.signedIn("amy@example.com")
			removal := ada.get(page("bob") + "/remove")
			if p := amy.sendForm(amy.get(page("bob")), page("bob")+"/role", become("member")); p.status != http.StatusSeeOther {
				t.Fatal(p.main())
			}
			if p := ada.sendForm(removal, page("bob")+"/remove", nil); p.status != http.StatusConflict ||
				!strings.Contains(p.main(), "Someone else changed this role in the meantime.") || role("bob") != models.Member {
				t.Errorf("a removal: %s %s", p.kind(), p.main())
			}
			if p := amy.sendForm(amy.get(page("bob")), page("bob")+"/role", become("admin")); p.status != http.StatusSeeOther {
				t.Fatal(p.main())
			}
			p := ada.sendForm(before, page("bob")+"/role", become("member"))
			if p.wantErrors(t, "bob@example.com", views.FieldIDRole); role("bob") != models.Admin {
				t.Errorf("a role: %s %s", p.kind(), p.main())
			}
			p = ada.sendForm(before, page("bob")+"/role", become("boss"))
			p.wantErrors(t, "bob@example.com", views.FieldIDRole)
		})
		f.step(t, "the last admin", func(t *testing.T) {
			for _, name := range []string{"amy", "bob"} {
				if p := ada.sendForm(ada.get(page(name)), page(name)+"/role", become("member")); p.status != http.StatusSeeOther {
					t.Fatal(p.main())
				}
			}
			p := ada.get(page("ada"))
			says(t, "the page", textOf(p.section("role")),
				[]string{"To change the role or remove the admin, first make another member an admin."}, nil)
			if p.find("form", "action", page("ada")+"/remove") != nil || find(p.section("role"), "button", "type", "submit") != nil {
				t.Error("the last admin can be removed")
			}
			for path, form := range map[string]url.Values{
				"/role": {"seen": {"admin"}, "role": {"member"}}, "/remove": {"seen": {"admin"}},
			} {
				p := ada.post(page("ada")+path, form)
				if p.status != http.StatusConflict || role("ada") != models.Admin || !strings.Contains(p.title(), "Error: ") ||
					!strings.Contains(p.main(), "Nothing was changed. There is a problem: This is the only admin of the organization.") {
					t.Errorf("%s: %s %s", path, p.kind(), p.main())
				}
			}
		})
		f.step(t, "removed twice", func(t *testing.T) {
			confirm := ada.get(page("bob") + "/remove")
			says(t, "the question", confirm.main(), []string{
				"Remove bob@example.com from Acme?", "Their usage so far stays billed to Acme.",
				"their next suggestion in Slack adds them to the organization again",
			}, nil)
			if p := ada.sendForm(confirm, page("bob")+"/remove", nil); p.kind() != "See Other /org/members" {
				t.Fatal(p.main())
			}
			if p := ada.sendForm(confirm, page("bob")+"/remove", nil); p.status != 404 ||
				!strings.Contains(p.main(), "Member not found They may have been removed already. Nothing was changed.") {
				t.Errorf("twice: %s %s", p.kind(), p.main())
			}
			if u := f.user("bob@example.com"); u.WorkspaceID != nil {
				t.Errorf("bob is %+v", u)
			}
		})
		f.step(t, "an admin who leaves", func(t *testing.T) {
			if p := ada.sendForm(ada.get(page("amy")), page("amy")+"/role", become("admin")); p.status != http.StatusSeeOther {
				t.Fatal(p.main())
			}
			says(t, "the question", ada.get(page("ada")+"/remove").main(), []string{
				"You lose the organization's plan", "First leave the organization's Slack workspaces.", "adds you to the organization again",
			}, []string{"this person"})
			if p := ada.sendForm(ada.get(page("ada")), page("ada")+"/role", become("member")); p.kind() != "See Other /usage" {
				t.Errorf("resigned: %s %s", p.kind(), p.main())
			}
			says(t, "resigned", ada.get("/usage").main(), []string{"You are no longer an admin"}, nil)
			if p := ada.post(page("amy")+"/role", become("member")); p.status != 403 {
				t.Errorf("a form of a former admin: %s", p.kind())
			}
		})
		must(t, models.Verify(t.Context(), f.db, func(d models.Difference) { t.Errorf("a recount differs: %s", d) }))
	})
}

// The admin of an organization without a plan reads that a removal ends no plan.
func TestARemovalWithoutAPlan(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		f.person("ada@example.com", "T1", models.Admin, false)
		f.person("amy@example.com", "T1", models.Admin, false)
		bob := f.person("bob@example.com", "T1", models.Member, false)
		ada := f.signedIn("ada@example.com")
		says(t, "bob's page", ada.get(views.PathMember(bob.ID)).main(),
			[]string{"bob@example.com leaves the organization immediately. Their own plan and usage do not change."}, []string{"stays billed"})
		says(t, "ada's page", ada.get(views.PathMember(f.user("ada@example.com").ID)).main(),
			[]string{"You leave the organization and can no longer open its pages. Your own plan and usage do not change."},
			[]string{"stays billed"})
		says(t, "the organization's page", ada.get("/org").main(), []string{"No organization plan"}, []string{"Free plan"})
	})
}
