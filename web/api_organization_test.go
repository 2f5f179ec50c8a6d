package web

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"tollgate/models"
)

// A past period has the figures of /org?period=; the current one, by any name, is the answer
// without a period.
func TestOrganizationUsageInAPeriod(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		id, path := f.team("team")
		path += "/usage"
		f.patch("/v1/organizations/"+id.String(), `{"spend_limit_cents": 5000, "member_limit": 90}`).want(t, 200, nil)
		for name, units := range map[string]int{"ada": 57, "bob": 20, "cleo": 20, "dan": 1} {
			f.post("/v1/consume", fmt.Sprintf(memberCall, name, units, "november")).want(t, 200, nil)
		}
		november := f.get(path)
		f.advance(30 * 24 * time.Hour)
		f.patch("/v1/organizations/"+id.String(), `{"spend_limit_cents": null}`).want(t, 200, nil)
		f.post("/v1/consume", fmt.Sprintf(memberCall, "dan", 30, "december")).want(t, 200, nil)
		f.post("/v1/consume", fmt.Sprintf(memberCall, "eli", 3, "december")).want(t, 200, nil)

		past := f.get(path + "?period=2026-11")
		if want := strings.Replace(november.raw, `"member_limit":90`, `"member_limit":null`, 1); past.raw != want {
			t.Errorf("November is %s, but was %s", past.raw, want)
		}
		past.want(t, 200, map[string]any{"plan": "team", "total_users": 4, "active_users": 4, "total_suggestions": 98, "overage": 7,
			"overage_cents": 175, "spend_limit_cents": 5000, "top_users.email": "ada@example.com", "top_users.percent_used": 114})
		current := f.get(path)
		for _, query := range []string{"?period=2026-12", "?period=2026-12-01", "?period=2026-11-30", "?limit=5"} {
			if got := f.get(path + query); got.raw != current.raw {
				t.Errorf("%s is %s, want %s", query, got.raw, current.raw)
			}
		}
		// A day selects the period that began in the month from this day on.
		if got := f.get(strings.Replace(path, id.String(), strings.ToUpper(id.String()), 1) + "?period=2026-10-15"); got.raw != past.raw {
			t.Errorf("a period in the month from October 15 is %s", got.raw)
		}
		f.get(path+"?period=2026-08").want(t, 200, map[string]any{"plan": "", "total_users": 0, "total_suggestions": 0, "average_per_user": 0,
			"top_users": []any{}, "period": map[string]any{"start": "2026-08-01T00:00:00Z", "end": "2026-09-01T00:00:00Z"}})
		for _, query := range []string{
			"?period=", "?period=november", "?period=2026-13", "?period=2027-01", "?period=2026-11&period=2026-12", "?period=2026-11;x=1",
			"?period=2026-11%00", "?period=9999-12",
		} {
			f.get(path+query).want(t, 422, map[string]any{"code": "invalid_request", "errors.path": "period"})
		}
		f.get("/v1/organizations/0192aaaa-bbbb-7ccc-8ddd-eeeeffff0000/usage?period=2026-11").want(t, 404, map[string]any{
			"code": "unknown_organization",
		})
		f.call("GET", path+"?period=2026-11", "", withKey(f.newKey(models.ScopeManage))).want(t, 403, map[string]any{
			"code": "insufficient_scope",
		})
		// A late event changes the cached sums.
		f.recordPast("bob@example.com", 2, time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC))
		f.get(path+"?period=2026-11").want(t, 200, map[string]any{"total_suggestions": 100})
	})
}
