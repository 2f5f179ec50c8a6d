package web

import (
	"strings"
	"testing"

	"tollgate/models"
)

// The operator finds people and sees their pages as they do, without anything that acts for them.
func TestOperatorSeesAPersonsPage(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		acme := f.organization("Acme", "T1")
		f.subscribe(models.Subscriber{OrganizationID: &acme}, "business")
		bob := f.person("bob@example.com", "T1", models.Member, false)
		f.person("otto@example.com", "", models.Member, true)
		f.used("bob@example.com", 120, f.clock())
		otto, own := f.signedIn("otto@example.com"), f.signedIn("bob@example.com").get("/usage")
		path := "/ops/people/" + bob.ID.String()
		for query, found := range map[string]bool{
			"": true, "?q=BOB@": true, "?q=+bob+": true, "?q=no-one-else": false, "?q=%25": false, "?q=%00": false, "?q=%ff": false,
			"?q=" + strings.Repeat("a", 5000): false,
		} {
			if p := otto.get("/ops/people" + query); p.status != 200 || (p.find("a", "href", path) != nil) != found {
				t.Errorf("%.40q: %s %s", query, p.kind(), p.main())
			}
		}
		p := otto.get(path)
		says(t, "the banner", textOf(p.find("div", "id", "read-only")), []string{"This is the page of bob@example.com", "It is read-only"}, nil)
		says(t, "plan and role", textOf(p.section("person")), []string{"Role Member of Acme", "Plan Business, from Acme"}, nil)
		for _, id := range []string{"left", "reset", "cost", "unusual", "days", "months"} {
			if got, want := textOf(p.section(id)), textOf(own.section(id)); got != want {
				t.Errorf("%s differs from the person's own page:\n%s\n%s", id, got, want)
			}
		}
		for form := range elements(p.document(), "form") {
			if action := attribute(form, "action"); action != "/sign-out" && !strings.HasPrefix(action, path+"/") {
				t.Errorf("the form %s acts for the person", action)
			}
		}
		for _, link := range []string{"/usage.csv", "#spend-limit"} {
			if find(p.find("main", "", ""), "a", "href", link) != nil {
				t.Errorf("the page links to %s", link)
			}
		}
		for _, id := range []string{"7", "00000000-0000-0000-0000-000000000000", "%00", "'"} {
			if p := otto.get("/ops/people/" + id); p.status != 404 {
				t.Errorf("person %s: %s", id, p.kind())
			}
		}
	})
}
