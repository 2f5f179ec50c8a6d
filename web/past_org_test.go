package web

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"tollgate/models"
)

// A past period of an organization has its own totals, top members, days, refusals and spend limit.
func TestPastPeriodOfAnOrganization(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		_, path := f.team("team")
		key := withKey(f.newKey(models.ScopeManage))
		f.patch(path, `{"spend_limit_cents": 5000}`, key).want(t, 200, nil)
		for name, units := range map[string]int{"ada": 57, "bob": 20, "cleo": 20, "dan": 1} {
			f.post("/v1/consume", fmt.Sprintf(memberCall, name, units, "november")).want(t, 200, nil)
		}
		f.person("boss@example.com", "T1", models.Admin, false)
		november := f.clock()
		f.advance(30 * 24 * time.Hour)
		f.patch(path, `{"spend_limit_cents": null}`, key).want(t, 200, nil)
		f.post("/v1/consume", fmt.Sprintf(memberCall, "dan", 30, "december")).want(t, 200, nil)
		f.post("/v1/consume", fmt.Sprintf(memberCall, "eli", 3, "december")).want(t, 200, nil)
		_, err := f.db.NewInsert().Model(&models.UsageRefusal{
			UserID: f.user("bob@example.com").ID, BillingPeriodStart: models.CalendarMonth(november).Start, Reason: models.MemberLimitReached,
			Count: 4, LastAt: november,
		}).Exec(t.Context())
		must(t, err)

		admin := f.signedIn("boss@example.com")
		past := admin.get("/org?period=2026-11")
		for _, want := range []string{
			"Acme in Nov 2026 Most common plan in this billing period: Team", "98 suggestions used Used by 4 of 5 members",
			"Members counted 5 Active members 4 Total used 98 Average per member 19.60", "Overage: 7 × $0.25 $1.75",
			"7 suggestions beyond the plan, by 1 member.", "Spend limit of the organization: $50.00. Overage that counted toward it: $1.75.",
			"Nov 23, 2026 98", "Member limit reached",
		} {
			if !strings.Contains(past.main(), want) {
				t.Errorf("the page of November does not say %q:\n%s", want, past.main())
			}
		}
		var top []string
		for _, row := range table(past.section("top"))[1:] {
			top = append(top, strings.Join(row[:4], " "))
		}
		if want := []string{
			"1 ada@example.com 57 50 114%", "2 bob@example.com 20 50 40%", "3 cleo@example.com 20 50 40%", "4 dan@example.com 1 50 2%",
		}; !slices.Equal(top, want) {
			t.Errorf("the top members are %q, want %q", top, want)
		}
		for _, not := range []string{"Forecast", "At this pace", "so far in", "eli@example.com", "the current billing period"} {
			if strings.Contains(past.main(), not) {
				t.Errorf("the page of a past period says %q", not)
			}
		}
		if !strings.Contains(past.body, `aria-label="Nov 2026" aria-current="true"`) {
			t.Error("the month of the page is not marked")
		}
		current := admin.get("/org")
		if got := admin.get("/org?period=2026-12"); got.main() != current.main() || !strings.Contains(got.body, `href="/org?period=2026-11"`) {
			t.Errorf("the page of the current period is not the current page:\n%s", got.main())
		}
		if got := admin.get("/org?period=2026-09"); !strings.Contains(got.main(), "before the organization was created") {
			t.Errorf("the page of a month before the organization says %s", got.main())
		}
		for _, query := range []string{"?period=x", "?period=2027-01"} {
			if got := admin.get("/org" + query); got.status != http.StatusNotFound {
				t.Errorf("%s: %s", query, got.kind())
			}
		}
		// A late event changes the cached sums of the period.
		f.recordPast("bob@example.com", 2, november.Add(time.Hour))
		if got := admin.get("/org?period=2026-11").main(); !strings.Contains(got, "100 suggestions used") ||
			!strings.Contains(got, "Nov 23, 2026 100") ||
			!strings.Contains(got, "Nov 2026 100") {
			t.Errorf("after a late event, the page says %s", got)
		}
		if got := f.signedIn("ada@example.com").get("/org?period=2026-11"); got.status != http.StatusForbidden {
			t.Errorf("a member gets %s", got.kind())
		}
	})
}

// The list of a past period has the same members on the page and in the CSV, in each order, and its
// links stay in the period.
func TestPastPeriodOfMembers(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		f.team("team")
		f.recordPast("bob@example.com", 4, time.Date(2026, 10, 5, 0, 0, 0, 0, time.UTC))
		for name, units := range map[string]int{"ada": 57, "bob": 45, "cleo": 20} {
			f.post("/v1/consume", fmt.Sprintf(memberCall, name, units, "november")).want(t, 200, nil)
		}
		f.person("boss@example.com", "T1", models.Admin, false)
		f.advance(30 * 24 * time.Hour)
		f.post("/v1/consume", fmt.Sprintf(memberCall, "eli", 3, "december")).want(t, 200, nil)
		admin := f.signedIn("boss@example.com")
		for query, want := range map[string][]string{
			"":                        {"ada 57 50 114 exceeded 7 175 ", "bob 45 50 90 warning 0 0 4", "cleo 20 50 40 safe 0 0 ", "boss 0    0 0 "},
			"&sort=used&order=asc":    {"boss 0    0 0 ", "cleo 20 50 40 safe 0 0 ", "bob 45 50 90 warning 0 0 4", "ada 57 50 114 exceeded 7 175 "},
			"&sort=name":              {"ada", "bob", "boss", "cleo"},
			"&sort=email&order=desc":  {"cleo", "boss", "bob", "ada"},
			"&sort=percent&order=asc": {"boss", "cleo", "bob", "ada"},
			"&sort=level&order=desc":  {"ada", "bob", "boss", "cleo"},
			"&sort=overage":           {"bob", "boss", "cleo", "ada"},
			"&sort=included":          {"boss", "ada", "bob", "cleo"},
			"&sort=last&order=desc":   {"bob", "ada", "boss", "cleo"},
			"&level=warning":          {"bob"},
			"&q=BO":                   {"bob", "boss"},
			"&q=nomatch":              nil,
		} {
			var rows, names []string
			for _, row := range admin.get("/org/members.csv?period=2026-11" + query).csv(t)[1:] {
				name, _, _ := strings.Cut(row[1], "@")
				rows, names = append(rows, name+" "+strings.Join(row[6:], " ")), append(names, name)
				if row[4] != "2026-11-01T00:00:00Z" || row[5] != "2026-12-01T00:00:00Z" {
					t.Errorf("%q has the period %s to %s", query, row[4], row[5])
				}
			}
			if !slices.Equal(rows, want) && !slices.Equal(names, want) {
				t.Errorf("%q is %q, want %q", query, rows, want)
			}
			page := admin.get("/org/members?period=2026-11" + query)
			var shown []string
			for i, row := range table(page.find("section", "aria-label", "All members")) {
				if i > 0 {
					name, _, _ := strings.Cut(row[1], "@")
					shown = append(shown, name)
				}
			}
			if !slices.Equal(shown, names) {
				t.Errorf("%q shows %q, but the file has %q", query, shown, names)
			}
			for a := range elements(page.find("main", "", ""), "a") {
				href := attribute(a, "href")
				if strings.Contains(href, "/org/members") && !strings.Contains(href, "period=2026-11") && textOf(a) != "Current billing period" {
					t.Errorf("%q has the link %s outside of the period", query, href)
				}
			}
			if page.find("input", "value", "2026-11") == nil {
				t.Errorf("%q: the search leaves the period", query)
			}
		}
		current := admin.get("/org/members")
		if got := admin.get("/org/members?period=2026-12"); got.main() != current.main() {
			t.Errorf("the list of the current period is %s", got.main())
		}
		for _, path := range []string{"/org/members?period=x", "/org/members.csv?period=2027-01"} {
			if got := admin.get(path); got.status != http.StatusNotFound {
				t.Errorf("%s: %s", path, got.kind())
			}
		}
	})
}
