package web

import (
	"context"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"tollgate/models"
)

// allMembers reads the whole list of an organization, and calls between after each part but the last.
func (f *fixture) allMembers(path, query string, between func(part int)) (all []map[string]any, parts int) {
	f.t.Helper()
	for cursor := ""; ; parts++ {
		a := f.get(path + "/members?" + query + cursor)
		a.want(f.t, 200, nil)
		part := a.body["members"].([]any)
		if len(part) > membersPerPage {
			f.t.Errorf("a part has %d members", len(part))
		}
		for _, m := range part {
			all = append(all, m.(map[string]any))
		}
		next, more := a.body["next_cursor"].(string)
		if !more {
			return all, parts + 1
		}
		between(parts)
		cursor = "&cursor=" + next
	}
}

// addMembers adds people with the emails to a Slack team.
func (f *fixture) addMembers(team string, emails ...string) {
	f.t.Helper()
	var w models.Workspace
	must(f.t, f.db.NewSelect().Model(&w).Where("slack_team_id = ?", team).Scan(context.Background()))
	users := make([]models.User, len(emails))
	for i, email := range emails {
		users[i] = models.User{ID: uuid.Must(uuid.NewV7()), Email: email, Role: models.Member, WorkspaceID: &w.ID, CreatedAt: f.clock()}
	}
	_, err := f.db.NewInsert().Model(&users).Exec(context.Background())
	must(f.t, err)
}

// The parts of the list have each member once, also while people are added, and add up to the
// organization's usage.
func TestOrganizationMembers(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		id := f.organization("Acme", "T1", "T3", "T4")
		f.subscribe(models.Subscriber{OrganizationID: &id}, "team")
		other := f.organization("Other", "T2")
		path := "/v1/organizations/" + id.String()
		if a := f.get(path + "/members"); a.status != 200 || !strings.Contains(a.raw, `"members":[],"next_cursor":null`) {
			t.Errorf("without members: %s", a.raw)
		}
		var want []string
		add := func(format string, n int, team string) {
			emails := make([]string, n)
			for i := range emails {
				emails[i] = fmt.Sprintf(format, i)
			}
			f.addMembers(team, emails...)
			if team != "T2" {
				want = append(want, emails...)
			}
		}
		add("m%03d@example.com", 230, "T1")
		add("m%03dx@example.com", 120, "T3")
		add("m%03dz@example.com", 120, "T2")
		f.post("/v1/consume", fmt.Sprintf(memberCall, "ada", 57, "a")).want(t, 200, nil)
		f.person("boss@example.com", "T1", models.Admin, false)
		f.patch("/v1/users/ada@example.com", `{"member_limit": 60}`).want(t, 200, nil)
		want = append(want, "ada@example.com", "boss@example.com")

		all, parts := f.allMembers(path, "", func(part int) {
			add(fmt.Sprintf("a%d-%%d@example.com", part), 2, "T1") // before the cursor
			want = want[:len(want)-2]
			add(fmt.Sprintf("z%d-%%d@example.com", part), 2, "T4")
		})
		slices.Sort(want)
		emails := make([]string, len(all))
		for i, m := range all {
			emails[i] = m["email"].(string)
		}
		if !slices.Equal(emails, want) || parts != 4 {
			t.Errorf("%d members in %d parts, want %d:\n%q", len(emails), parts, len(want), emails)
		}
		got := fmt.Sprint(all[0])
		if want := fmt.Sprint(map[string]any{
			"id": f.user("ada@example.com").ID.String(), "email": "ada@example.com", "name": "", "role": "member", "used": 57, "included": 50,
			"percent_used": 114, "warning_level": "exceeded", "overage": 7, "overage_cents": 175, "member_limit": 60,
		}); got != want {
			t.Errorf("ada is %s, want %s", got, want)
		}
		got = fmt.Sprint(all[1])
		if want := fmt.Sprint(map[string]any{
			"id": f.user("boss@example.com").ID.String(), "email": "boss@example.com", "name": "", "role": "admin", "used": 0, "included": 50,
			"percent_used": 0, "warning_level": "safe", "overage": 0, "overage_cents": 0, "member_limit": nil,
		}); got != want {
			t.Errorf("boss is %s, want %s", got, want)
		}
		if all, parts := f.allMembers("/v1/organizations/"+other.String(), "", func(int) {}); len(all) != 120 || parts != 2 {
			t.Errorf("an organization with one team has %d members in %d parts", len(all), parts)
		}
		now, _ := f.allMembers(path, "period=2026-11", func(int) {})
		f.get(path+"/usage").want(t, 200, map[string]any{"total_users": len(now), "total_suggestions": 57})

		f.step(t, "a past period", func(t *testing.T) {
			f.advance(30 * 24 * time.Hour)
			f.addMembers("T1", "late@example.com", "n@example.com")
			f.used("late@example.com", 3, time.Date(2026, 11, 25, 0, 0, 0, 0, time.UTC))
			past, _ := f.allMembers(path, "period=2026-11", func(int) {})
			f.get(path+"/usage?period=2026-11").want(t, 200, map[string]any{"total_users": len(past), "total_suggestions": 60})
			ada := func(of []map[string]any) string {
				return fmt.Sprint(of[slices.IndexFunc(of, func(m map[string]any) bool { return m["email"] == "ada@example.com" })])
			}
			if len(past) != len(now)+1 || ada(past) != ada(now) {
				t.Errorf("November has %d members, had %d; ada is %s, was %s", len(past), len(now), ada(past), ada(now))
			}
			before, _ := f.allMembers(path, "period=2026-08", func(int) {})
			if len(before) != 0 {
				t.Errorf("August has %d members", len(before))
			}
			f.get(path+"/members?period=2026-11").want(t, 200, map[string]any{"id": id.String(),
				"period": map[string]any{"start": "2026-11-01T00:00:00Z", "end": "2026-12-01T00:00:00Z"}})
			f.get(path+"/members").want(t, 200, map[string]any{
				"period": map[string]any{"start": "2026-12-01T00:00:00Z", "end": "2027-01-01T00:00:00Z"}})
		})
		f.step(t, "bad input", func(t *testing.T) {
			cursor := f.get(path + "/members").body["next_cursor"].(string)
			forged := base64.RawURLEncoding.EncodeToString([]byte(id.String() + ":\x00"))
			for query, field := range map[string]string{
				"?cursor=": "cursor", "?cursor=x": "cursor", "?cursor=" + cursor + "A": "cursor", "?cursor=" + forged: "cursor",
				"?cursor=" + cursor + "&cursor=" + cursor: "cursor", "?cursor=" + (models.ActivityCursor{}).String(): "cursor",
				"?period=": "period", "?period=2027-02": "period", "?period=2026-11&period=2026-11": "period", "?cursor=1;x": "period",
			} {
				f.get(path+"/members"+query).want(t, 422, map[string]any{"code": "invalid_request", "errors.path": field})
			}
			// A cursor of another organization would skip members.
			f.get("/v1/organizations/"+other.String()+"/members?cursor="+cursor).want(t, 422, map[string]any{"errors.path": "cursor"})
			whole := f.get(path + "/members?cursor=" + cursor).raw
			if upper := strings.ToUpper(id.String()); f.get("/v1/organizations/"+upper+"/members?limit=100000&cursor="+cursor).raw != whole {
				t.Error("the ID in uppercase, or an unknown parameter, changes the answer")
			}
			for _, unknown := range []string{"acme", uuid.NewString()} {
				f.get("/v1/organizations/"+unknown+"/members").want(t, 404, map[string]any{"code": "unknown_organization"})
			}
		})
	})
}

// TestEveryScopeAtEveryCall tries each call of the API without a key, with its own scope alone, and
// with all others.
func TestEveryScopeAtEveryCall(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		keys := map[models.Scope][2]string{}
		for _, scope := range models.Scopes {
			others := slices.DeleteFunc(slices.Clone(models.Scopes), func(s models.Scope) bool { return s == scope })
			keys[scope] = [2]string{f.newKey(scope), f.newKey(others...)}
		}
		fill := strings.NewReplacer("{email}", "ada@example.com", "{id}", f.organization("Acme", "T1").String())
		for _, r := range f.web.api() {
			if r.scope == "" {
				continue
			}
			path, body := fill.Replace(r.path), ""
			if r.request != nil {
				body = "{}"
			}
			f.call(r.method, path, body, withKey("")).want(t, 401, map[string]any{"code": "unauthorized"})
			f.call(r.method, path, body, withKey(keys[r.scope][1])).want(t, 403, map[string]any{"code": "insufficient_scope"})
			if got := f.call(r.method, path, body, withKey(keys[r.scope][0])); got.status == 401 || got.status == 403 || got.status >= 500 {
				t.Errorf("%s %s with the scope %s: %d %s", r.method, path, r.scope, got.status, got.raw)
			}
		}
	})
}
