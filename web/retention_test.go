package web

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"tollgate/models"
)

// TestDeletedEvents reads a period whose events are deleted. Its totals stay, and each answer says
// that the events are gone.
func TestDeletedEvents(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		f.post("/v1/events", pastEvents(4, time.Date(2026, 10, 20, 10, 0, 0, 0, time.UTC))).want(t, 200, nil)
		const events, void = "/v1/usage/ada@example.com/events", "/v1/void"
		const october = events + "?period=2026-10"
		f.get(october).want(t, 200, map[string]any{"deleted_before": nil})
		f.set(time.Date(2027, 3, 15, 12, 0, 0, 0, time.UTC))
		f.used("erin@example.com", 1, f.clock()) // without a recent event, the clock is not believed
		history := f.get("/v1/usage/ada@example.com/history").raw
		if deleted := f.retain("90d"); deleted["usage_events"] != 4 {
			t.Fatalf("deleted %s", deleted)
		}
		if got := f.get("/v1/usage/ada@example.com/history").raw; got != history {
			t.Errorf("the history is %s, and was %s", got, history)
		}
		f.get(october).want(t, 200, map[string]any{"events": []any{}, "deleted_before": "2026-12-15T00:00:00Z"})
		f.get(events).want(t, 200, map[string]any{"events": []any{}, "deleted_before": nil})

		const gone = " Events from before Dec 15, 2026, 00:00 UTC may already have been deleted. A deleted event cannot be voided."
		f.post(void, `{"email": "ada@example.com", "idempotency_key": "e1792490400-0", "reason": "by mistake"}`).want(t, 404, map[string]any{
			"code": "unknown_event", "detail": "No person with this email or Slack identity has an event with this idempotency key." + gone})
		f.post(void, `{"hold_id": "01a00000-0000-8000-8000-000000000001", "reason": "by mistake"}`).want(t, 404, map[string]any{
			"code": "unknown_hold", "detail": "There is no hold with this ID." + gone})
		f.post("/v1/events", pastEvents(1, time.Date(2026, 10, 20, 10, 0, 0, 0, time.UTC))).want(t, 200, map[string]any{
			"results.status": "invalid", "results.event_id": nil, "results.error": "This event was not recorded, because it occurred before " +
				"2026-12-15T00:00:00Z. Events from before then may have been deleted, so Tollgate cannot tell whether it was recorded " +
				"earlier. Do not send it again."})

		browser := f.signedIn("ada@example.com")
		page := browser.get("/usage/activity?period=2026-10")
		for _, want := range []string{
			"Events recorded before Dec 15, 2026, 00:00 UTC may already have been deleted. All totals still include them.",
			"No events of this billing period are stored anymore",
		} {
			if page.status != http.StatusOK || !strings.Contains(page.body, want) {
				t.Errorf("the page (%s) does not say %q", page.kind(), want)
			}
		}
		if page := browser.get("/usage/activity"); strings.Contains(page.body, "deleted") {
			t.Error("the page of the current period mentions deleted events")
		}
		file := browser.get("/usage/activity.csv?period=2026-10").header.Get("Content-Disposition")
		if want := `attachment; filename="activity-2026-10-without-deleted-events.csv"`; file != want {
			t.Errorf("the file is %s, want %s", file, want)
		}
	})
}

// retain deletes what is no longer needed now.
func (f *fixture) retain(keep string) models.Deletions {
	f.t.Helper()
	catalogue, err := models.LoadCatalogue("")
	must(f.t, err)
	k, err := models.ParseKeepEvents(keep)
	must(f.t, err)
	retention := models.Retention{
		DB: f.db, Catalogue: catalogue, Keep: k, Clock: func(context.Context) (time.Time, error) { return f.clock(), nil },
	}
	deleted, err := retention.Pass(f.t.Context())
	must(f.t, err)
	return deleted
}
