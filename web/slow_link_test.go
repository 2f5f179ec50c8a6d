package web

import (
	"context"
	"fmt"
	"net/http"
	"testing"
	"time"

	"tollgate/models"
	"tollgate/models/modelstest"
)

// slowStep is a call over a slow link, and some fields of its answer.
type slowStep struct {
	name, method, path, body string
	fields                   map[string]any
}

// TestSlowLink uses a link with a delay of 300 milliseconds in each direction between Tollgate and
// PostgreSQL. Each call is answered within five seconds, including the first calls of a process and
// those after a broken connection. Some calls wait for six round trips, so a busy machine may make
// one too slow. Then the test tries again with another process.
func TestSlowLink(t *testing.T) {
	const delay, limit, tries = 300 * time.Millisecond, 5 * time.Second, 3
	post := func(name, path, body string, fields map[string]any) slowStep {
		return slowStep{name, http.MethodPost, path, body, fields}
	}
	for name, steps := range map[string][]slowStep{
		"known": {
			post("check of a known person", "/v1/check", `{"email":"known@example.com"}`, map[string]any{"used": 1}),
			post("first consume of a known person", "/v1/consume", `{"email":"known@example.com","idempotency_key":"k1"}`,
				map[string]any{"used": 2}),
			post("consume of a cached person", "/v1/consume", `{"email":"known@example.com","idempotency_key":"k2"}`, map[string]any{"used": 3}),
			{"usage", http.MethodGet, "/v1/usage/known@example.com", "", map[string]any{"used": 3}},
			post("one event", "/v1/events",
				`{"events":[{"email":"known@example.com","quantity":1,"idempotency_key":"e1","occurred_at":"2026-11-22T00:00:00Z"}]}`, nil),
			post("broken", "/v1/check", `{"email":"known@example.com"}`, map[string]any{"used": 4}),
			post("broken", "/v1/consume", `{"email":"known@example.com","idempotency_key":"k3"}`, map[string]any{"used": 5}),
		},
		"new": {
			post("check of a new person", "/v1/check", `{"email":"new@example.com"}`, map[string]any{"used": 0}),
			post("consume of a new person", "/v1/consume", `{"email":"new@example.com","idempotency_key":"n1"}`, map[string]any{"used": 1}),
			post("event of a new person in a past period", "/v1/events",
				`{"events":[{"email":"late@example.com","quantity":1,"idempotency_key":"l1","occurred_at":"2026-10-22T00:00:00Z"}]}`, nil),
		},
		"slack": {
			post("consume of a new person of a new team", "/v1/consume",
				`{"email":"slack@example.com","slack_team_id":"T1","slack_user_id":"U1","idempotency_key":"s1"}`, map[string]any{"used": 1}),
			post("consume by Slack identity", "/v1/consume", `{"slack_team_id":"T1","slack_user_id":"U1","idempotency_key":"s2"}`,
				map[string]any{"used": 2}),
			post("check of another new person", "/v1/check", `{"email":"slack2@example.com","slack_team_id":"T1","slack_user_id":"U2"}`,
				map[string]any{"used": 0}),
			post("hold", "/v1/holds", `{"slack_team_id":"T1","slack_user_id":"U1","quantity":2,"idempotency_key":"h1"}`, map[string]any{"held": 2}),
			post("settle", "/v1/holds/HOLD/settle", `{"quantity":1}`, map[string]any{"used": 3, "held": 0}),
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for try := 1; ; try++ {
				late := trySlowLink(t, steps, delay, limit)
				if late == "" {
					return
				}
				if try == tries {
					t.Fatal(late)
				}
				t.Logf("try %d: %s", try, late)
			}
		})
	}
}

// trySlowLink makes the calls with a new database and a new process. It returns the call that was
// not answered in time, if any.
func trySlowLink(t *testing.T, steps []slowStep, delay, limit time.Duration) (late string) {
	t.Helper()
	address := modelstest.Postgres(t)
	link, slow := modelstest.NewSlowLink(t, address, delay)
	direct, err := models.Open(t.Context(), address)
	must(t, err)
	defer func() { _ = direct.Close() }()
	near := newFixture(t, address)
	near.post("/v1/consume", `{"email":"known@example.com","idempotency_key":"k0"}`).want(t, http.StatusOK, nil)

	start := time.Now()
	f := newFixture(t, slow)
	f.db.KeepWarm(t.Context()) // as `tollgate serve` does
	t.Logf("the start took %s", time.Since(start))
	hold := ""
	for _, s := range steps {
		if s.name == "broken" {
			link.Break()
		}
		// A cached key is read again in the background; after a pause, a call waits for that.
		f.web.keys.known.Clear()
		path := s.path
		if hold != "" {
			path = "/v1/holds/" + hold + "/settle"
		}
		start := time.Now()
		a := f.call(s.method, path, s.body)
		took := time.Since(start)
		t.Logf("%s took %s", s.name, took)
		if took > limit || a.status == http.StatusServiceUnavailable {
			return fmt.Sprintf("%s took %s: %d %s", s.name, took, a.status, a.raw)
		}
		if a.status != http.StatusOK {
			t.Fatalf("%s: %d %s", s.name, a.status, a.raw)
		}
		for field, want := range s.fields {
			if got := fmt.Sprint(a.body[field]); got != fmt.Sprint(want) {
				t.Errorf("%s: %s is %s, want %v", s.name, field, got, want)
			}
		}
		if h, ok := a.body["hold"].(map[string]any); ok {
			hold, _ = h["id"].(string)
		}
	}
	must(t, models.Verify(context.Background(), direct, func(d models.Difference) { t.Error(d) }))
	return ""
}
