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
			"Acme in Nov 2026 Team plan in this billing period", "98 suggestions used Used by 4 of 5 members",
			"Members then 5 Active members 4 Total used 98 Average per member 19.60", "Overage: 7 × $0.25 $1.75",
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
		if got := admin.get("/org?period=2026-11").main(); !strings.Contains(got, "100 suggestions used") || !strings.Contains(got, "Nov 23, 2026 100") ||
			!strings.Contains(got, "Nov 2026 100") {
			t.Errorf("after a late event, the page says %s", got)
		}
		if got := f.signedIn("ada@example.com").get("/org?period=2026-11"); got.status != http.StatusForbidden {
			t.Errorf("a member gets %s", got.kind())
		}
	})
}
