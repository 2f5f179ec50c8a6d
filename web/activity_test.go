package web

import (
	"encoding/csv"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"tollgate/models"
)

// pastEvents is the body of a call that records n events of ada, a minute apart, up to an instant.
func pastEvents(n int, last time.Time) string {
	events := make([]string, n)
	for i := range events {
		events[i] = fmt.Sprintf(`{"email": "ada@example.com", "quantity": %d, "idempotency_key": "e%d-%d", "occurred_at": %q}`, 1+i%3,
			last.Unix(), i, last.Add(time.Duration(i-n+1)*time.Minute).Format(time.RFC3339))
	}
	return `{"events": [` + strings.Join(events, ",") + `]}`
}

// Activity lists each event once, newest first, through all parts of the list, in the API, on the
// page and in the CSV.
func TestActivity(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		_, path := f.team("team")
		f.post("/v1/consume", fmt.Sprintf(memberCall, "ada", 2, "first")).want(t, 200, nil)
		const n = 250
		f.post("/v1/events", pastEvents(n, f.clock().Add(-time.Minute))).want(t, 200, nil)
		held := f.post("/v1/holds", fmt.Sprintf(memberCall, "ada", 3, "h"))
		id := held.body["hold"].(map[string]any)["id"].(string)
		f.advance(time.Minute)
		f.post("/v1/holds/"+id+"/settle", `{"quantity": 2}`).want(t, 200, nil)

		events := "/v1/usage/ada@example.com/events"
		first := f.get(events)
		first.want(t, 200, map[string]any{"email": "ada@example.com", "events.quantity": 2, "events.hold_id": id, "events.idempotency_key": nil,
			"events.workspace": "T1", "events.voided_at": nil, "period": map[string]any{"start": "2026-11-01T00:00:00Z",
				"end": "2026-12-01T00:00:00Z"}})
		seen, units, last := map[string]bool{}, 0.0, ""
		parts := 0
		for a := first; ; parts++ {
			for _, e := range a.body["events"].([]any) {
				e := e.(map[string]any)
				at := e["occurred_at"].(string)
				if seen[e["id"].(string)] || last != "" && at > last {
					t.Fatalf("event %s at %s is there twice or out of order", e["id"], at)
				}
				seen[e["id"].(string)], last = true, at
				units += e["quantity"].(float64)
			}
			cursor, more := a.body["next_cursor"].(string)
			if !more {
				break
			}
			a = f.get(events + "?cursor=" + cursor)
		}
		used := f.get("/v1/usage/ada@example.com").number("used")
		if len(seen) != n+2 || int64(units) != used || parts != 2 {
			t.Errorf("%d events with %v units in %d further parts, want %d with %d in 2", len(seen), units, parts, n+2, used)
		}

		ada := f.signedIn("ada@example.com")
		page := ada.get("/usage/activity")
		if strings.Count(page.body, "<time ") < activityPerPage || !strings.Contains(page.body, "Older events") ||
			strings.Contains(page.body, "Newest events") {
			t.Errorf("the page has %d times", strings.Count(page.body, "<time "))
		}
		file := ada.get("/usage/activity.csv")
		rows, err := csv.NewReader(strings.NewReader(strings.TrimPrefix(file.body, byteOrderMark))).ReadAll()
		must(t, err)
		if len(rows) != n+3 || rows[1][2] != "2" || rows[1][6] != "T1" {
			t.Errorf("the file has %d rows, and the first one %q", len(rows), rows[1])
		}

		f.person("boss@example.com", "T1", models.Admin, false)
		admin := f.signedIn("boss@example.com")
		about := "/org/members/" + f.user("ada@example.com").ID.String() + "/activity"
		if got := admin.get(about); got.status != 200 || !strings.Contains(got.body, "Activity of ada@example.com") {
			t.Errorf("an admin gets %s", got.kind())
		}
		if got := admin.get(about + ".csv"); got.body != file.body {
			t.Error("an admin's file differs from the member's")
		}
		f.person("stranger@example.com", "T2", models.Admin, false)
		if got := f.signedIn("stranger@example.com").get(about); got.status != http.StatusNotFound {
			t.Errorf("an admin of another organization gets %s", got.kind())
		}
		if got := ada.get(about); got.status != http.StatusForbidden {
			t.Errorf("a member gets %s", got.kind())
		}
		f.patch(path, `{}`).want(t, 200, nil)
	})
}

func TestActivityOfPastPeriods(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		october := time.Date(2026, 10, 20, 10, 0, 0, 0, time.UTC)
		f.post("/v1/events", pastEvents(4, october)).want(t, 200, nil)
		f.post("/v1/consume", fmt.Sprintf(ada, 1, "now")).want(t, 200, nil)
		const events = "/v1/usage/ada@example.com/events"
		count := func(query string, want int) {
			t.Helper()
			a := f.get(events + query)
			a.want(t, 200, nil)
			if got := len(a.body["events"].([]any)); got != want {
				t.Errorf("%q lists %d events, want %d", query, got, want)
			}
		}
		count("", 1)
		count("?period=2026-10", 4)
		count("?period=2026-10-01", 4)
		count("?period=2026-09-02", 4)
		count("?period=2026-10-02", 1)
		count("?period=2026-09", 0)
		f.get("/v1/usage/unknown@example.com/events").want(t, 200, map[string]any{"events": []any{}, "next_cursor": nil})
		for query, field := range map[string]string{
			"?period=october": "period", "?period=2026-13": "period", "?period=2026-10&period=2026-11": "period", "?period=": "period",
			"?period=2026-12": "period", "?period=2026-12-01": "period",
			"?cursor=x": "cursor", "?cursor=" + url.QueryEscape("MTIz"): "cursor", "?cursor=": "cursor", "?period=1;x=2": "period",
		} {
			f.get(events+query).want(t, 422, map[string]any{"code": "invalid_request", "errors.path": field})
		}
		browser := f.signedIn("ada@example.com")
		if got := browser.get("/usage/activity?period=2026-10"); !strings.Contains(got.body, "Oct 1, 2026") ||
			strings.Count(got.body, `scope="row"`) != 4 {
			t.Errorf("the page of October has %d events", strings.Count(got.body, `scope="row"`))
		}
		for _, query := range []string{"?period=x", "?cursor=x"} {
			if got := browser.get("/usage/activity" + query); got.status != http.StatusNotFound {
				t.Errorf("%s: %s", query, got.kind())
			}
		}
		if got := f.call(http.MethodGet, events, "", withKey(f.newKey(models.ScopeConsume))); got.status != http.StatusForbidden {
			t.Errorf("without the scope read: %d", got.status)
		}
		if c, err := models.ParseCursor(models.ActivityCursor{}.String()); err != nil || c == nil {
			t.Errorf("a cursor is not its own text: %v", err)
		}
	})
}
