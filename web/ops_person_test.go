package web

import (
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"tollgate/models"
	"tollgate/views"
)

// atOnce sends a form twice at the same time, as a double click does.
func (b *browser) atOnce(path string, form url.Values) []page { return b.allAtOnce(path, form, form) }

// allAtOnce sends several forms at the same time.
func (b *browser) allAtOnce(path string, forms ...url.Values) (pages []page) {
	answers := make(chan page)
	for _, form := range forms {
		other := &browser{f: b.f, cookies: maps.Clone(b.cookies)}
		go func() { answers <- other.post(path, form) }()
	}
	for range forms {
		pages = append(pages, <-answers)
	}
	return pages
}

// opsPerson creates the operator otto and the person bob.
func (f *fixture) opsPerson() (otto *browser, bob models.User, path string) {
	f.t.Helper()
	f.person("otto@example.com", "", models.Member, true)
	bob = f.person("bob@example.com", "", models.Member, false)
	return f.signedIn("otto@example.com"), bob, "/ops/people/" + bob.ID.String()
}

func TestOperatorAddsGrants(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		otto, bob, path := f.opsPerson()
		action := views.PathOpsGrant(bob.ID)
		included := func(want int64) {
			t.Helper()
			f.post("/v1/check", `{"email": "bob@example.com"}`).want(t, 200, map[string]any{"included": want})
		}
		granted := func() (rows [][]string) { return table(otto.get(path).section("grants")) }
		f.step(t, "invalid", func(t *testing.T) {
			long := strings.Repeat("a", 10_000)
			for field, bad := range map[string][]string{
				views.FieldQuantity: {"", " ", "0", "-1", "1.5", "1e3", "x", "٣", "1000001", strings.Repeat("9", 100), `"><script>`, "a\x00"},
				views.FieldReason:   {"", "  ", strings.Repeat("a", 256), long, "a\nb", "a\x00", "\xff"},
				views.FieldLastDay: {
					"x", "2026-11-22", "2026-12-01", "2026-11-31", "0000-00-00", "99999-01-01", "-2026-11-25", "2026-11-25T00:00:00Z", long,
				},
			} {
				for _, value := range bad {
					entries := url.Values{views.FieldQuantity: {"10"}, views.FieldReason: {"outage"}, views.FieldLastDay: {"2026-11-25"}}
					entries.Set(field, value)
					p := otto.sendForm(otto.get(path), action, entries)
					p.wantErrors(t, "bob@example.com", "grant-"+strings.ReplaceAll(field, "_", "-"))
					if p.status != http.StatusUnprocessableEntity || strings.Contains(p.body, "<script") {
						t.Errorf("%s %.40q: %s", field, value, p.kind())
					}
					for name, values := range entries {
						if got := p.form(action).Get(name); name != field && got != values[0] {
							t.Errorf("%s %.40q: %s is shown again as %q", field, value, name, got)
						}
					}
				}
			}
			p := otto.sendForm(otto.get(path), action, url.Values{"token": {"7"}, "quantity": {"10"}, "reason": {"outage"}})
			if p.wantErrors(t, "bob@example.com"); !strings.Contains(p.main(), "This form is out of date.") {
				t.Error(p.main())
			}
			otto.post(action, nil).wantErrors(t, "bob@example.com")
			otto.sendForm(otto.get(path), action, nil).wantErrors(t, "bob@example.com", "grant-quantity", "grant-reason")
			if lines := f.audited("grant"); len(lines) != 0 {
				t.Errorf("the audit log has %q", lines)
			}
			included(5)
		})
		var form url.Values
		f.step(t, "added once", func(t *testing.T) {
			form = otto.get(path).form(action)
			form.Set("quantity", "1,000")
			form.Set("reason", " outage ")
			for _, p := range otto.atOnce(action, form) {
				if p.kind() != "See Other "+path {
					t.Fatalf("%s %s", p.kind(), p.main())
				}
			}
			if p := otto.post(action, form); p.kind() != "See Other "+path {
				t.Fatalf("again: %s %s", p.kind(), p.main())
			}
			says(t, "again", otto.get(path).main(), []string{"This grant was already added Nothing was changed."}, []string{"Grant added"})
			says(t, "a reload", otto.get(path).main(), nil, []string{"already added"})
			included(1005)
			want := []string{"otto@example.com grant.create 1,000 units until the period ends: outage"}
			if got := f.audited("grant"); !slices.Equal(got, want) {
				t.Errorf("the audit log has %q, want %q", got, want)
			}
			if got := granted(); len(got) != 2 ||
				!slices.Equal(got[1], []string{"1,000", "End of the period", "outage", "otto@example.com", "Nov 23, 2026, 12:00 UTC"}) {
				t.Errorf("the page lists %q", got)
			}
		})
		f.step(t, "other entries in a used form", func(t *testing.T) {
			for field, value := range map[string]string{"quantity": "7", "reason": "another", "last_day": "2026-11-24"} {
				other := maps.Clone(form)
				other.Set(field, value)
				p := otto.post(action, other)
				p.wantErrors(t, "bob@example.com")
				if next := p.form(action); p.status != http.StatusConflict || next.Get(field) != value || next.Get("token") == form.Get("token") ||
					!strings.Contains(p.main(), "This form has already added a grant.") {
					t.Errorf("%s: %s %v %s", field, p.kind(), next, p.main())
				}
			}
			included(1005)
		})
		f.step(t, "a last day", func(t *testing.T) {
			for day, until := range map[string]string{"2026-11-25": "Nov 26, 2026, 00:00 UTC", "2026-11-30": "End of the period"} {
				p := otto.sendForm(otto.get(path), action, url.Values{"quantity": {"10"}, "reason": {day}, "last_day": {day}})
				if p.kind() != "See Other "+path {
					t.Fatalf("%s: %s %s", day, p.kind(), p.main())
				}
				p = otto.get(path)
				says(t, day, p.main(), []string{"Grant added", "10 " + until + " " + day + " otto@example.com"}, nil)
			}
			included(1025)
		})
		f.step(t, "expired", func(t *testing.T) {
			form = otto.get(path).form(action)
			f.set(time.Date(2026, 11, 26, 1, 0, 0, 0, time.UTC))
			included(1015)
			says(t, "expired", textOf(otto.get(path).section("grants")), []string{"10 Expired Nov 26, 2026, 00:00 UTC; 10 taken back"}, nil)
		})
		f.step(t, "a form of the previous period", func(t *testing.T) {
			f.set(time.Date(2026, 12, 1, 0, 0, 1, 0, time.UTC))
			otto = f.signedIn("otto@example.com")
			form.Set("quantity", "10")
			form.Set("reason", "late")
			p := otto.post(action, form)
			p.wantErrors(t, "bob@example.com")
			if p.status != http.StatusConflict || !strings.Contains(p.main(), "Another billing period has begun") ||
				p.form(action).Get("reason") != "late" {
				t.Errorf("%s %s", p.kind(), p.main())
			}
			says(t, "December", textOf(p.section("grants")), []string{"no grants in this billing period"}, nil)
			included(5)
			if p = otto.post(action, p.form(action)); p.kind() != "See Other "+path {
				t.Errorf("sent again: %s %s", p.kind(), p.main())
			}
			included(15)
		})
		must(t, models.Verify(t.Context(), f.db, func(d models.Difference) { t.Errorf("a recount differs: %s", d) }))
	})
}

func TestOperatorVoidsEvents(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		otto, _, path := f.opsPerson()
		f.subscribe(models.Subscriber{Email: "bob@example.com"}, "starter")
		const key = "a&b?c=#é %41"
		f.post("/v1/consume", `{"email": "bob@example.com", "quantity": 3, "idempotency_key": "`+key+`"}`).want(t, 200, nil)
		held := f.post("/v1/holds", `{"email": "bob@example.com", "quantity": 30, "idempotency_key": "h"}`)
		hold := held.body["hold"].(map[string]any)["id"].(string)
		f.advance(time.Second)
		f.post("/v1/holds/"+hold+"/settle", `{"quantity": 30}`).want(t, 200, nil)
		f.post("/v1/consume", `{"email": "eve@example.com", "idempotency_key": "eves"}`).want(t, 200, nil)
		used := func(want int64) {
			t.Helper()
			f.post("/v1/check", `{"email": "bob@example.com"}`).want(t, 200, map[string]any{"used": want})
		}
		action, list := path+"/void", path+"/activity"
		// link returns the address of a row's button.
		link := func(p page, label string) string { return attribute(p.find("a", "aria-label", label), "href") }
		f.step(t, "asks for a reason", func(t *testing.T) {
			p := otto.get(list)
			byKey := link(p, "Void 3 suggestions of Nov 23, 12:00:00")
			confirm := otto.get(byKey)
			says(t, "the question", confirm.main(), []string{
				"Void 3 suggestions? 3 suggestions no longer count in the billing period of the event.", "A void cannot be undone.",
				"Person bob@example.com", "Time Nov 23, 2026, 12:00 UTC", "Overage 0", key,
			}, []string{"Stripe"})
			if confirm.title() != "Confirm: Void an event – Tollgate" {
				t.Errorf("the title is %q", confirm.title())
			}
			for _, reason := range []string{"", " ", strings.Repeat("a", 256), strings.Repeat("a", 10_000), "a\nb", "a\x00", "\xff"} {
				p := otto.sendForm(confirm, action, url.Values{"reason": {reason}})
				p.wantErrors(t, "Void an event", views.FieldIDVoidReason)
				if p.status != http.StatusUnprocessableEntity {
					t.Errorf("%.20q: %s", reason, p.kind())
				}
			}
			used(33)
		})
		f.step(t, "voided once", func(t *testing.T) {
			form := otto.get(link(otto.get(list), "Void 3 suggestions of Nov 23, 12:00:00")).form(action)
			form.Set("reason", "sent <twice>")
			for _, p := range otto.atOnce(action, form) {
				if p.kind() != "See Other "+list {
					t.Fatalf("%s %s", p.kind(), p.main())
				}
			}
			used(30)
			for _, again := range []func() page{
				func() page { return otto.post(action, form) },
				func() page { return otto.get(action + "?" + url.Values{"key": {key}}.Encode()) },
			} {
				if p := again(); p.kind() != "See Other "+list {
					t.Fatalf("again: %s %s", p.kind(), p.main())
				}
				says(t, "again", otto.get(list).main(), []string{"This event was already voided Nothing was changed."}, []string{"Event voided"})
			}
			if lines := f.audited("event.void"); len(lines) != 1 ||
				lines[0] != "otto@example.com event.void 3 suggestions of bob@example.com, with $0.00 of overage: sent <twice>" {
				t.Errorf("the audit log has %q", lines)
			}
			says(t, "the list", otto.get(list).main(), []string{
				"Voided Nov 23, 2026, 12:00 UTC: sent <twice>", "Not reported to Stripe By otto@example.com",
			}, []string{"already voided"})
			own := f.signedIn("bob@example.com").get("/usage/activity")
			says(t, "bob's own list", own.main(), []string{": sent <twice>"}, []string{"Void…", "otto@example.com", "Not reported"})
		})
		f.step(t, "a settled hold in a report to Stripe", func(t *testing.T) {
			_, err := f.db.ExecContext(t.Context(), "UPDATE usage_events SET stripe_report_id = ? WHERE hold_id IS NOT NULL", uuid.NewString())
			must(t, err)
			address := link(otto.get(list+"?period=2026-11"), "Void 30 suggestions of Nov 23, 12:00:01")
			confirm := otto.get(address)
			says(t, "the question", confirm.main(),
				[]string{"The overage is already in a report to Stripe.", "Overage 8 ($2.80)", "Hold " + hold}, nil)
			if p := otto.sendForm(confirm, action, url.Values{"reason": {"refund"}}); p.kind() != "See Other "+list+"?period=2026-11" {
				t.Fatalf("%s %s", p.kind(), p.main())
			}
			says(t, "the list", otto.get(list+"?period=2026-11").main(),
				[]string{"Event voided", "Not taken back at Stripe yet By otto@example.com"}, nil)
			says(t, "no error", textOf(otto.get("/ops").section("stripe")), nil, []string{"Voids without a credit note"})
			const answer = "403 Forbidden: no permission"
			_, err = f.db.ExecContext(t.Context(), "UPDATE usage_voids SET last_error = ? WHERE state = 'waiting'", answer)
			must(t, err)
			says(t, "the error", otto.get(list).main(), []string{"Reason: " + answer}, nil)
			p := otto.get("/ops")
			says(t, "operations", textOf(p.section("stripe")), []string{"Voids without a credit note bob@example.com ($2.80): " + answer}, nil)
			if p.find("a", "href", list+"?period=2026-11") == nil {
				t.Error("/ops does not link to the list")
			}
			rows := otto.get(list + ".csv").csv(t)
			if got := rows[1][10:]; len(rows) != 3 || !slices.Equal(got, []string{"otto@example.com", "waiting", "", answer}) {
				t.Errorf("the file has %q", rows)
			}
			for state, text := range map[models.VoidState]string{models.VoidCredited: "Credited", models.VoidNotBilled: "Not billed"} {
				_, err = f.db.ExecContext(t.Context(), "UPDATE usage_voids SET state = ?, last_error = NULL WHERE reason = 'refund'", state)
				must(t, err)
				says(t, text, otto.get(list).main(), []string{text + " By otto@example.com"}, []string{"refused"})
			}
			_, err = f.db.ExecContext(t.Context(), "UPDATE usage_voids SET state = 'waiting'")
			must(t, err)
			used(0)
		})
		f.step(t, "unknown", func(t *testing.T) {
			for _, query := range []string{
				"", "key=", "key=none", "key=eves", "key=%00", "key=%ff", "hold=7", "hold=" + uuid.NewString(), "key=" + strings.Repeat("a", 10_000),
			} {
				form, err := url.ParseQuery(query)
				must(t, err)
				form.Set("reason", "r")
				if p, sent := otto.get(action+"?"+query), otto.post(action, form); p.status != 404 || sent.status != 404 {
					t.Errorf("%.40s: %s and %s", query, p.kind(), sent.kind())
				}
			}
			unknown := "/ops/people/" + uuid.NewString()
			for _, rest := range []string{"/activity", "/activity.csv", "/void?key=eves"} {
				if p := otto.get(unknown + rest); p.status != 404 {
					t.Errorf("%s: %s", rest, p.kind())
				}
			}
			for _, rest := range []string{"/void", "/grants", "/plan", "/plan/end", "/role"} {
				if p := otto.post(unknown+rest, url.Values{"key": {"eves"}, "reason": {"r"}}); p.status != 404 {
					t.Errorf("%s: %s", rest, p.kind())
				}
			}
		})
	})
}

func TestOperatorAssignsPlans(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		otto, bob, path := f.opsPerson()
		action, end := views.PathOpsPlan(bob.ID), views.PathOpsPlanEnd(bob.ID)
		plan := func(email string, want models.PlanID) {
			t.Helper()
			f.post("/v1/check", `{"email": "`+email+`"}`).want(t, 200, map[string]any{"plan": want})
		}
		choose := func(id string) url.Values { return url.Values{"plan": {id}} }
		endLink := func(p page) string {
			for a := range elements(p.section("assigned-plan"), "a") {
				return attribute(a, "href")
			}
			return ""
		}
		first := otto.get(path)
		says(t, "no plan", textOf(first.section("assigned-plan")),
			[]string{"is on the free plan", "Only members of an organization"}, []string{"Business"})
		f.step(t, "invalid", func(t *testing.T) {
			for _, id := range []string{"", "free", "gold", "team", "PRO", "pro\x00", strings.Repeat("a", 10_000), `"><script>`} {
				p := otto.sendForm(first, action, choose(id))
				if p.wantErrors(t, "bob@example.com", views.FieldIDPlan); p.status != http.StatusUnprocessableEntity {
					t.Errorf("%.20q: %s", id, p.kind())
				}
			}
			otto.sendForm(first, action, url.Values{"plan": {"pro"}, "seen": {"7"}}).wantErrors(t, "bob@example.com", views.FieldIDPlan)
			plan("bob@example.com", "free")
		})
		f.step(t, "assigned once", func(t *testing.T) {
			form := first.form(action)
			form["plan"] = []string{"pro"}
			for _, p := range append(otto.atOnce(action, form), otto.post(action, form)) {
				if p.kind() != "See Other "+path {
					t.Fatalf("%s %s", p.kind(), p.main())
				}
			}
			p := otto.get(path)
			says(t, "assigned", p.main(), []string{"Plan assigned", "Pro End… bob@example.com Assigned by hand Nov 23, 2026"}, nil)
			says(t, "a reload", otto.get(path).main(), nil, []string{"Plan assigned"})
			plan("bob@example.com", "pro")
			want := []string{"otto@example.com subscription.give plan pro assigned by hand; plans that this ended: none"}
			if got := f.audited("subscription"); !slices.Equal(got, want) {
				t.Errorf("the audit log has %q, want %q", got, want)
			}
		})
		f.step(t, "out of date", func(t *testing.T) {
			confirm := otto.get(endLink(otto.get(path)))
			before := otto.get(path)
			f.subscribe(models.Subscriber{Email: "bob@example.com"}, "starter")
			p := otto.sendForm(before, action, choose("pro"))
			p.wantErrors(t, "bob@example.com", views.FieldIDPlan)
			if p.status != http.StatusConflict || !strings.Contains(p.main(), "Someone else changed this plan in the meantime.") {
				t.Errorf("%s %s", p.kind(), p.main())
			}
			if p := otto.sendForm(confirm, end, nil); p.kind() != "See Other "+path {
				t.Errorf("the end of a plan that was replaced: %s %s", p.kind(), p.main())
			}
			says(t, "replaced", otto.get(path).main(), []string{"This plan has already ended Nothing was changed."}, nil)
			plan("bob@example.com", "starter")
		})
		f.step(t, "ended once", func(t *testing.T) {
			address := endLink(otto.get(path))
			confirm := otto.get(address)
			says(t, "the question", confirm.main(), []string{
				"End Starter of bob@example.com? This plan and its overage price end immediately for bob@example.com.",
			}, nil)
			for _, p := range otto.atOnce(end, confirm.form(end)) {
				if p.kind() != "See Other "+path {
					t.Fatalf("%s %s", p.kind(), p.main())
				}
			}
			if p := otto.get(address); p.kind() != "See Other "+path {
				t.Errorf("again: %s", p.kind())
			}
			says(t, "again", otto.get(path).main(), []string{"This plan has already ended Nothing was changed.", "is on the free plan"}, nil)
			want := []string{"otto@example.com subscription.end plans assigned by hand that this ended: starter"}
			if got := f.audited("subscription.end"); !slices.Equal(got, want) {
				t.Errorf("the audit log has %q", got)
			}
		})
		f.step(t, "two operators at once", func(t *testing.T) {
			one, two := otto.get(path).form(action), otto.get(path).form(action)
			one["plan"], two["plan"] = []string{"pro"}, []string{"starter"}
			answers := map[int]int{}
			for _, p := range otto.allAtOnce(action, one, two) {
				answers[p.status]++
			}
			if answers[http.StatusSeeOther] != 1 || answers[http.StatusConflict] != 1 || len(f.audited("subscription.give")) != 3 {
				t.Errorf("%v, and the audit log has %q", answers, f.audited("subscription.give"))
			}
			f.subscribe(models.Subscriber{Email: "bob@example.com"}, models.FreePlan)
		})
		f.step(t, "a Stripe subscription ends in Stripe", func(t *testing.T) {
			atStripe := models.Subscription{
				ID: uuid.New(), UserID: &bob.ID, PlanID: "pro", Status: models.StatusPastDue, StripeSubscriptionID: new("sub_1"),
				StripeCustomerID: new("cus_1"), CreatedAt: f.clock().Add(time.Hour), UpdatedAt: f.clock(),
			}
			_, err := f.db.NewInsert().Model(&atStripe).Exec(t.Context())
			must(t, err)
			p := otto.get(path)
			says(t, "listed", textOf(p.section("assigned-plan")),
				[]string{"Stripe (past due). To end it, cancel sub_1 in Stripe."}, []string{"End…"})
			form := url.Values{"id": {atStripe.ID.String()}}
			for _, p := range []page{otto.get(end + "?" + form.Encode()), otto.post(end, form)} {
				if p.wantErrors(t, "bob@example.com"); p.status != http.StatusConflict || !strings.Contains(p.main(), "cancel sub_1 in Stripe") {
					t.Errorf("%s %s", p.kind(), p.main())
				}
			}
			// A plan that is assigned now is newer, so it applies.
			if p := otto.sendForm(p, action, choose("starter")); p.kind() != "See Other "+path {
				t.Fatalf("%s %s", p.kind(), p.main())
			}
			plan("bob@example.com", "starter")
		})
		f.step(t, "an organization's plan", func(t *testing.T) {
			acme := f.organization("Acme", "T1")
			f.person("amy@example.com", "T1", models.Member, false)
			ada := f.person("ada@example.com", "T1", models.Admin, false)
			about := "/ops/people/" + ada.ID.String()
			before := otto.get(about)
			if p := otto.sendForm(before, about+"/plan", choose("business")); p.kind() != "See Other "+about {
				t.Fatalf("%s %s", p.kind(), p.main())
			}
			plan("amy@example.com", "business")
			p := otto.get(about)
			says(t, "the page", textOf(p.section("assigned-plan")), []string{
				"Business End… Acme Assigned by hand", "It has no effect while the plan of Acme applies.",
			}, nil)
			says(t, "Acme's changes", textOf(f.signedIn("ada@example.com").get("/org").section("changes")),
				[]string{"otto@example.com Acme plan business assigned by hand; plans that this ended: none"}, nil)
			if p := otto.sendForm(before, about+"/plan", choose("team")); p.status != http.StatusConflict {
				t.Errorf("out of date: %s", p.kind())
			}
			address := endLink(p)
			says(t, "the question", otto.get(address).main(), []string{
				"End Business of Acme? This plan and its overage price end immediately for all members of Acme.",
			}, nil)
			id := strings.TrimPrefix(address, about+"/plan/end?")
			for _, other := range []string{id, "", "id=7", "id=" + uuid.NewString()} { // of another person, and unknown
				form, err := url.ParseQuery(other)
				must(t, err)
				if p, sent := otto.get(end+"?"+other), otto.post(end, form); p.status != 404 || sent.status != 404 {
					t.Errorf("%s: %s and %s", other, p.kind(), sent.kind())
				}
			}
			evil := f.organization("Evil", "T2")
			_, err := models.SetUser(t.Context(), f.db, f.clock(), "ada@example.com", models.UserChange{OrganizationID: &evil})
			must(t, err)
			p = otto.sendForm(p, about+"/plan", choose("team"))
			p.wantErrors(t, "ada@example.com", views.FieldIDPlan)
			if !strings.Contains(p.main(), "This person’s organization changed in the meantime.") {
				t.Error(p.main())
			}
			held, err := models.SubscriptionOfOrganization(t.Context(), f.db, acme)
			must(t, err)
			if none, err := models.SubscriptionOfOrganization(t.Context(), f.db, evil); err != nil || none != nil || held.PlanID != "business" {
				t.Errorf("Acme has %v, Evil %v, %v", held, none, err)
			}
		})
	})
}

func TestOperatorSetsRoles(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		f.person("otto@example.com", "", models.Member, true)
		otto := f.signedIn("otto@example.com")
		f.organization("Acme", "T1")
		ada, bob := f.person("ada@example.com", "T1", models.Admin, false), f.person("bob@example.com", "T1", models.Member, false)
		path, action := views.PathOpsPerson(bob.ID), views.PathOpsRole(bob.ID)
		become := func(r string) url.Values { return url.Values{"role": {r}} }
		role := func(email string, want models.Role) {
			t.Helper()
			if got := f.user(email).Role; got != want {
				t.Errorf("%s is %s, want %s", email, got, want)
			}
		}
		first := otto.get(path)
		says(t, "the identity", textOf(first.section("assigned-role")), []string{
			"bob@example.com is a member of Acme.",
			"bob@example.com belongs to the user " + bob.ID.String() + ": Slack user UBOBEXAMPLECOM in team T1.",
			"tollgate user set bob@example.com --operator",
		}, nil)
		for _, bad := range []string{"", "boss", "operator", "ADMIN", strings.Repeat("a", 10_000)} {
			if p := otto.sendForm(first, action, become(bad)); p.status != http.StatusUnprocessableEntity {
				t.Errorf("%.20q: %s", bad, p.kind())
			} else {
				p.wantErrors(t, "bob@example.com", views.FieldIDOpsRole)
			}
		}
		form := first.form(action)
		form["role"] = []string{"admin"}
		for _, p := range append(otto.atOnce(action, form), otto.post(action, form)) {
			if p.kind() != "See Other "+path {
				t.Fatalf("%s %s", p.kind(), p.main())
			}
		}
		role("bob@example.com", models.Admin)
		says(t, "saved", otto.get(path).main(), []string{"Role saved", "bob@example.com is an admin of Acme."}, nil)
		says(t, "a reload", otto.get(path).main(), nil, []string{"Role saved"})
		p := otto.sendForm(first, action, become("member")) // which showed a member
		if p.status != http.StatusConflict || !strings.Contains(p.main(), "Someone else changed this role in the meantime.") {
			t.Errorf("out of date: %s %s", p.kind(), p.main())
		}
		p.wantErrors(t, "bob@example.com", views.FieldIDOpsRole)
		role("bob@example.com", models.Admin)

		// An operator may leave an organization without an admin.
		for _, u := range []models.User{bob, ada} {
			about := views.PathOpsPerson(u.ID)
			p := otto.get(about)
			if got := strings.Contains(p.main(), "The organization has no other admin."); got != (u.ID == ada.ID) {
				t.Errorf("%s: %s", u.Email, textOf(p.section("assigned-role")))
			}
			if p := otto.sendForm(p, about+"/role", become("member")); p.kind() != "See Other "+about {
				t.Fatalf("%s: %s %s", u.Email, p.kind(), p.main())
			}
			role(u.Email, models.Member)
		}
		var got []string
		for _, line := range f.audited("user.set") {
			if strings.HasPrefix(line, "otto@") {
				got = append(got, line)
			}
		}
		if want := []string{
			"otto@example.com user.set role from member to admin", "otto@example.com user.set role from admin to member",
			"otto@example.com user.set role from admin to member",
		}; !slices.Equal(got, want) {
			t.Errorf("the audit log has %q, want %q", got, want)
		}

		before := otto.get(path)
		evil := f.organization("Evil", "T2")
		for name, change := range map[string]models.UserChange{"moved": {OrganizationID: &evil}, "left": {Leaves: true}} {
			_, err := models.SetUser(t.Context(), f.db, f.clock(), "bob@example.com", change)
			must(t, err)
			p := otto.sendForm(before, action, become("admin"))
			p.wantErrors(t, "bob@example.com")
			if p.status != http.StatusConflict || !strings.Contains(p.main(), "organization changed in the meantime") {
				t.Errorf("%s: %s %s", name, p.kind(), p.main())
			}
			role("bob@example.com", models.Member)
		}
		_, err := models.SetUser(t.Context(), f.db, f.clock(), "bob@example.com", models.UserChange{Leaves: true})
		must(t, err)
		says(t, "in no organization", textOf(otto.get(path).section("assigned-role")), []string{"in no organization, so they have no role"}, nil)
	})
}
