package web

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"tollgate/models"
	"tollgate/models/modelstest"
)

const ada = `{"email": "ada@example.com", "quantity": %d, "idempotency_key": %q}`

func TestTheDocumentIsValid(t *testing.T) {
	f := newFixture(t, "sqlite:"+t.TempDir()+"/tollgate.db")
	must(t, f.schema.Validate())
	got := f.get("/v1/openapi.json")
	got.want(t, 200, map[string]any{"openapi": "3.1.0"})
	for _, r := range f.web.api() {
		operations := got.body["paths"].(map[string]any)[r.path].(map[string]any)
		responses := operations[strings.ToLower(r.method)].(map[string]any)["responses"].(map[string]any)
		limited, ok := responses["429"].(map[string]any)
		if ok != (r.scope != "") {
			t.Errorf("%s %s has a 429: %t", r.method, r.path, ok)
		}
		for _, name := range []string{
			"Retry-After", "RateLimit", "RateLimit-Policy", "RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset",
		} {
			if headers, _ := limited["headers"].(map[string]any); ok && headers[name] == nil {
				t.Errorf("the 429 of %s %s lacks %s", r.method, r.path, name)
			}
		}
	}
}

func TestConsume(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		first := f.post("/v1/consume", fmt.Sprintf(ada, 4, "k1"))
		first.want(t, 200, map[string]any{
			"allowed": true, "reason": nil, "warning_level": "warning", "email": "ada@example.com", "plan": "free", "used": 4, "held": 0,
			"included":  5,
			"remaining": 1, "percent_used": 80, "overage": 0, "overage_rate_cents": 0, "overage_cents": 0, "spend_limit_cents": nil,
			"period.start": "2026-11-01T00:00:00Z", "period.end": "2026-12-01T00:00:00Z", "replayed": false,
			"usage_url":           f.web.baseURL + "/usage",
			"notice":              "You've used 4 of 5 suggestions (80%). They reset on Dec 1, 2026, 00:00 UTC.",
			"slack.response_type": "ephemeral",
		})
		again := f.post("/v1/consume", fmt.Sprintf(ada, 4, "k1"))
		again.want(t, 200, map[string]any{"allowed": true, "used": 4, "replayed": true, "event_id": first.body["event_id"]})
		f.post("/v1/consume", fmt.Sprintf(ada, 3, "k1")).want(t, 409, map[string]any{"code": "idempotency_key_reused"})
		// A key belongs to one person.
		f.post("/v1/consume", `{"email": "bob@example.com", "quantity": 4, "idempotency_key": "k1"}`).
			want(t, 200, map[string]any{"used": 4, "replayed": false})
		f.post("/v1/consume", fmt.Sprintf(ada, 2, "k2")).want(t, 200, map[string]any{
			"allowed": false, "reason": "included_exhausted", "used": 4, "event_id": nil, "replayed": false,
		})
		f.post("/v1/consume", fmt.Sprintf(ada, 1, "k2")).
			want(t, 200, map[string]any{"allowed": true, "used": 5, "warning_level": "exceeded", "percent_used": 100})
		// A retry gets the first answer, even after the limit was reached.
		f.post("/v1/consume", fmt.Sprintf(ada, 4, "k1")).want(t, 200, map[string]any{"allowed": true, "used": 4, "replayed": true})
		f.post("/v1/check", `{"email": " ADA@Example.com "}`).
			want(t, 200, map[string]any{"allowed": false, "used": 5, "email": "ada@example.com"})
		f.get("/v1/usage/Ada%40example.com").want(t, 200, map[string]any{"used": 5, "allowed": false})
		f.get("/v1/usage/ada@example.com/history").
			want(t, 200, map[string]any{"email": "ada@example.com", "periods.used": 5, "periods.plan": "free", "periods.included": 5})
	})
}

// TestARefusalIsExplained makes every endpoint that decides refuse a request at the level safe. The
// answer must have a notice and a Slack message that say so.
func TestARefusalIsExplained(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		explained := func(what string, a answer, title string) {
			t.Helper()
			a.want(t, 200, map[string]any{
				"allowed": false, "warning_level": "safe", "reason": "included_exhausted", "slack.response_type": "ephemeral",
			})
			if text := a.raw; a.body["notice"] == nil || !strings.Contains(text, ":octagonal_sign: *"+title+"*") {
				t.Errorf("%s: %s", what, text)
			}
		}
		const more = "Not enough left"
		explained("check", f.post("/v1/check", `{"email": "ada@example.com", "quantity": 6}`), more)
		explained("consume", f.post("/v1/consume", fmt.Sprintf(ada, 6, "k1")), more)
		explained("hold", f.post("/v1/holds", fmt.Sprintf(ada, 6, "k2")), more)
		f.post("/v1/holds", fmt.Sprintf(ada, 5, "k3")).
			want(t, 200, map[string]any{"allowed": true, "warning_level": "safe", "notice": nil, "slack": nil})
		explained("with all on hold", f.post("/v1/consume", fmt.Sprintf(ada, 1, "k4")), "No suggestions left")
		explained("with all on hold, usage", f.get("/v1/usage/ada@example.com"), "No suggestions left")
	})
}

// TestABilledCallReachedNoLimit reads the message of calls that are allowed and billed.
func TestABilledCallReachedNoLimit(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		catalogue, err := models.LoadCatalogue("")
		must(t, err)
		_, err = models.Subscribe(context.Background(), f.db, catalogue, f.clock(), models.Subscriber{Email: "ada@example.com"}, "pro")
		must(t, err)
		for _, quantity := range []int{75, 1} {
			a := f.post("/v1/consume", fmt.Sprintf(`{"email": "ada@example.com", "quantity": %d, "idempotency_key": "k%[1]d", "notify": "always"}`,
				quantity))
			a.want(t, 200, map[string]any{"allowed": true, "warning_level": "exceeded"})
			text := a.raw
			if strings.Contains(text, "octagonal_sign") || strings.Contains(text, "imit reached") ||
				!strings.Contains(text, "*Extra suggestions are billed*") ||
				!strings.Contains(text, "Each extra suggestion costs $0.30.") {
				t.Errorf("%d: %s", quantity, text)
			}
		}
	})
}

func TestCheckRecordsNothing(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		f.post("/v1/check", `{"email": "new@example.com", "quantity": 5}`).
			want(t, 200, map[string]any{"allowed": true, "used": 0, "plan": "free", "notice": nil, "slack": nil})
		f.post("/v1/check", `{"email": "new@example.com", "quantity": 6}`).
			want(t, 200, map[string]any{"allowed": false, "reason": "included_exhausted"})
		f.get("/v1/usage/new@example.com").want(t, 200, map[string]any{"allowed": true, "used": 0})
		f.get("/v1/usage/new@example.com/history?months=3").want(t, 200, map[string]any{"periods": []any{}})
		if n := f.recorded(); n != 0 {
			t.Errorf("%d rows were created", n)
		}
	})
}

func TestPeopleBySlackIdentity(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		pair := `{"slack_team_id": "T1", "slack_user_id": "U1"`
		f.post("/v1/check", pair+`}`).want(t, 404, map[string]any{"code": "unknown_user"})
		f.post("/v1/consume", pair+`, "idempotency_key": "a"}`).want(t, 404, map[string]any{"code": "unknown_user"})
		f.post("/v1/consume", pair+`, "email": "ada@example.com", "idempotency_key": "a"}`).want(t, 200, map[string]any{"used": 1})
		f.post("/v1/consume", pair+`, "idempotency_key": "b"}`).want(t, 200, map[string]any{"email": "ada@example.com", "used": 2})
		f.post("/v1/check", pair+`}`).want(t, 200, map[string]any{"used": 2})
		f.post("/v1/holds", pair+`, "idempotency_key": "c", "quantity": 1}`).want(t, 200, map[string]any{"held": 1})
		// The same team with another person: one workspace, one organization.
		f.post("/v1/check", `{"slack_team_id": "T1", "slack_user_id": "U2", "email": "bob@example.com"}`).
			want(t, 200, map[string]any{"email": "bob@example.com"})
		f.post("/v1/check", `{"slack_team_id": "T1", "slack_user_id": "U2"}`).want(t, 200, map[string]any{"email": "bob@example.com"})
		var teams, organizations int
		must(t, f.db.NewSelect().TableExpr("workspaces").ColumnExpr("COUNT(*)").Scan(context.Background(), &teams))
		must(t, f.db.NewSelect().TableExpr("organizations").ColumnExpr("COUNT(*)").Scan(context.Background(), &organizations))
		if teams != 1 || organizations != 1 {
			t.Errorf("%d workspaces, %d organizations", teams, organizations)
		}
		// A new email in Slack: the person continues with their usage.
		f.post("/v1/consume", pair+`, "email": "ada.new@example.com", "idempotency_key": "d"}`).
			want(t, 200, map[string]any{"email": "ada.new@example.com", "used": 3})
		f.post("/v1/check", pair+`}`).want(t, 200, map[string]any{"email": "ada.new@example.com"})
	})
}

func TestHolds(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		hold := `{"email": "ada@example.com", "quantity": 3, "idempotency_key": "h1"}`
		made := f.post("/v1/holds", hold)
		made.want(t, 200, map[string]any{
			"allowed": true, "used": 0, "held": 3, "remaining": 2, "hold.state": "open", "hold.quantity": 3,
			"hold.expires_at": "2026-11-23T12:02:00Z",
		})
		id := made.body["hold"].(map[string]any)["id"].(string)
		f.post("/v1/holds", hold).want(t, 200, map[string]any{"held": 3, "hold.id": id})
		f.post("/v1/holds", strings.Replace(hold, "3", "2", 1)).want(t, 409, map[string]any{"code": "idempotency_key_reused"})
		f.post("/v1/consume", fmt.Sprintf(ada, 3, "x")).want(t, 200, map[string]any{"allowed": false, "held": 3})
		f.post("/v1/holds", `{"email": "ada@example.com", "quantity": 3, "idempotency_key": "h2"}`).
			want(t, 200, map[string]any{"allowed": false, "hold": nil})
		settle := "/v1/holds/" + id + "/settle"
		f.post(settle, `{"quantity": 4}`).want(t, 422, map[string]any{"code": "invalid_request", "errors.path": "quantity"})
		done := f.post(settle, `{"quantity": 2}`)
		done.want(t, 200, map[string]any{"used": 2, "held": 0, "remaining": 3, "hold.state": "settled", "replayed": false})
		f.post(settle, `{"quantity": 2}`).want(t, 200, map[string]any{"used": 2, "replayed": true, "event_id": done.body["event_id"]})
		f.post(settle, `{"quantity": 1}`).want(t, 409, map[string]any{"code": "hold_settled"})
		f.post("/v1/holds/"+id+"/release", "").want(t, 409, map[string]any{"code": "hold_settled"})

		made = f.post("/v1/holds", `{"email": "ada@example.com", "quantity": 2, "idempotency_key": "h3", "ttl_seconds": 10}`)
		id = made.body["hold"].(map[string]any)["id"].(string)
		f.post("/v1/holds/"+id+"/release", "").want(t, 200, map[string]any{"held": 0, "used": 2, "hold.state": "released"})
		f.post("/v1/holds/"+id+"/release", "{}").want(t, 200, map[string]any{"held": 0, "hold.state": "released"})
		for _, body := range []string{"", "{}"} { // sent without a Content-Length
			f.post("/v1/holds/"+id+"/release", "", func(r *http.Request) {
				r.Body, r.ContentLength = io.NopCloser(iotest.OneByteReader(strings.NewReader(body))), -1
				if body != "" {
					r.Header.Set("Content-Type", "application/json")
				}
			}).want(t, 200, map[string]any{"held": 0, "hold.state": "released"})
		}
		f.post("/v1/holds/"+id+"/settle", `{"quantity": 1}`).want(t, 409, map[string]any{"code": "hold_released"})

		made = f.post("/v1/holds", `{"email": "ada@example.com", "quantity": 3, "idempotency_key": "h4", "ttl_seconds": 10}`)
		id = made.body["hold"].(map[string]any)["id"].(string)
		f.advance(9 * time.Second)
		f.post("/v1/check", `{"email": "ada@example.com"}`).want(t, 200, map[string]any{"held": 3, "allowed": false})
		f.advance(time.Second)
		f.post("/v1/check", `{"email": "ada@example.com"}`).want(t, 200, map[string]any{"held": 0, "allowed": true})
		f.post("/v1/holds/"+id+"/settle", `{"quantity": 1}`).want(t, 409, map[string]any{"code": "hold_expired"})
		f.post("/v1/holds", `{"email": "ada@example.com", "quantity": 3, "idempotency_key": "h4", "ttl_seconds": 10}`).
			want(t, 200, map[string]any{"hold.state": "expired"})
		f.post("/v1/consume", fmt.Sprintf(ada, 3, "y")).want(t, 200, map[string]any{"allowed": true, "used": 5, "held": 0})
		f.post("/v1/holds/0192aaaa-bbbb-7ccc-8ddd-eeeeffff0000/settle", `{"quantity": 1}`).want(t, 404, map[string]any{"code": "unknown_hold"})
		f.post("/v1/holds/nonsense/release", "").want(t, 404, map[string]any{"code": "unknown_hold"})
	})
}

func TestAHoldBelongsToThePeriodInWhichItWasCreated(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		f.set(time.Date(2026, 11, 30, 23, 59, 30, 0, time.UTC))
		made := f.post("/v1/holds", `{"email": "ada@example.com", "quantity": 5, "idempotency_key": "h"}`)
		id := made.body["hold"].(map[string]any)["id"].(string)
		f.advance(time.Minute)
		f.post("/v1/check", `{"email": "ada@example.com", "quantity": 5}`).
			want(t, 200, map[string]any{"allowed": true, "held": 0, "period.start": "2026-12-01T00:00:00Z"})
		f.post("/v1/holds/"+id+"/settle", `{"quantity": 5}`).want(t, 200, map[string]any{"used": 5, "period.start": "2026-11-01T00:00:00Z"})
		f.post("/v1/check", `{"email": "ada@example.com"}`).want(t, 200, map[string]any{"used": 0})
		f.get("/v1/usage/ada@example.com/history").want(t, 200, map[string]any{"periods.used": 5})
	})
}

func TestEvents(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		event := func(email string, quantity int, key, at string) string {
			return fmt.Sprintf(`{"email": %q, "quantity": %d, "idempotency_key": %q, "occurred_at": %q}`, email, quantity, key, at)
		}
		batch := `{"events": [` + strings.Join([]string{
			event("ada@example.com", 7, "e1", "2026-11-02T10:00:00Z"),
			event("ada@example.com", 7, "e1", "2026-11-02T10:00:00Z"),
			event("ada@example.com", 8, "e1", "2026-11-02T10:00:00Z"),
			event("ada@example.com", 3, "e2", "2026-10-31t23:59:59.5z"),
			event("ada@example.com", 0, "e3", "2026-11-02T10:00:00Z"),
			event("ada@example.com", 1, "e4", "2026-11-23T12:06:00Z"),
			event("ada@example.com", 1, "e5", "2025-01-01T00:00:00Z"),
			event("bob@example.com", 1, "e6", "2026-11-23T14:00:00+02:00"),
			`{"slack_team_id": "T1", "slack_user_id": "U1", "quantity": 1, "idempotency_key": "e7", "occurred_at": "2026-11-02T10:00:00Z"}`,
			`7`,
			`{"email": "bob@example.com", "quantity": 1, "idempotency_key": "cut \ud83d", "occurred_at": "2026-11-02T10:00:00Z"}`,
			`{"email": "bob@example.com", "quantity": 1, "idempotency_key": "e8", "occurred_at": "2026-11-02T10:00:00Z", "\ud83d": 1}`,
			event("bob@example.com", 1, "e9", "2026-11-02T1:00:00Z"),
			event("bob@example.com", 1, "e10", "2026-11-02T10:00:00,5Z"),
			event("bob@example.com", 1, "e11", "2026-11-02T10:00:00+24:00"),
		}, ",") + `]}`
		for _, first := range []bool{true, false} {
			got := f.post("/v1/events", batch)
			got.want(t, 200, nil)
			recorded := "recorded"
			if !first {
				recorded = "duplicate"
			}
			want := []string{
				recorded, "duplicate", "conflict", recorded, "invalid", "invalid", "invalid", recorded, "invalid", "invalid", "invalid", "invalid",
				"invalid", "invalid", "invalid",
			}
			results := got.body["results"].([]any)
			if len(results) != len(want) {
				t.Fatalf("%d results for %d events: %s", len(results), len(want), got.raw)
			}
			for i, r := range results {
				if status := r.(map[string]any)["status"]; status != want[i] {
					t.Errorf("event %d is %v, want %s: %v", i, status, want[i], r)
				}
			}
		}
		f.get("/v1/usage/ada@example.com").want(t, 200, map[string]any{
			"used": 7, "allowed": false, "percent_used": 140, "overage": 0, "overage_cents": 0,
		})
		f.get("/v1/usage/ada@example.com/history").want(t, 200, map[string]any{"periods": []any{
			map[string]any{
				"period": map[string]any{"start": "2026-11-01T00:00:00Z", "end": "2026-12-01T00:00:00Z"}, "plan": "free", "used": 7, "included": 5,
				"overage": 0, "overage_cents": 0,
			},
			map[string]any{
				"period": map[string]any{"start": "2026-10-01T00:00:00Z", "end": "2026-11-01T00:00:00Z"}, "plan": "free", "used": 3, "included": 5,
				"overage": 0, "overage_cents": 0,
			},
		}})
		// A consume that is reported again through events counts once.
		f.post("/v1/consume", `{"email": "bob@example.com", "idempotency_key": "c1"}`).want(t, 200, map[string]any{"used": 2})
		f.post("/v1/events", `{"events": [`+event("bob@example.com", 1, "c1", "2026-11-23T11:00:00Z")+`]}`).
			want(t, 200, map[string]any{"results.status": "duplicate"})
	})
}

func TestSpendLimitAndPlans(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		ctx := context.Background()
		catalogue, err := models.LoadCatalogue("")
		must(t, err)
		f.post("/v1/consume", fmt.Sprintf(ada, 5, "a")).want(t, 200, map[string]any{"used": 5, "included": 5})
		_, err = models.Subscribe(ctx, f.db, catalogue, f.clock(), models.Subscriber{Email: "ada@example.com"}, "pro")
		must(t, err)
		f.get("/v1/usage/ada@example.com/history").want(t, 200, map[string]any{"periods.plan": "pro", "periods.included": 75, "periods.used": 5})
		// An upgrade applies immediately and keeps the usage.
		f.post("/v1/consume", fmt.Sprintf(ada, 70, "b")).
			want(t, 200, map[string]any{"plan": "pro", "used": 75, "included": 75, "warning_level": "exceeded", "allowed": true})
		f.post("/v1/consume", fmt.Sprintf(ada, 5, "c")).want(t, 200, map[string]any{
			"used": 80, "overage": 5, "overage_cents": 150, "percent_used": 106,
			"notice": "You've used all 75 included suggestions and 5 extra ($1.50 so far). Each extra suggestion costs $0.30. " +
				"Your included suggestions reset on Dec 1, 2026, 00:00 UTC.",
		})
		_, err = f.db.NewUpdate().TableExpr("users").Set("spend_limit_cents = 180").Where("email = 'ada@example.com'").Exec(ctx)
		must(t, err)
		f.post("/v1/consume", fmt.Sprintf(ada, 2, "d")).
			want(t, 200, map[string]any{"allowed": false, "reason": "spend_limit_reached", "spend_limit_cents": 180})
		f.post("/v1/consume", fmt.Sprintf(ada, 1, "d")).want(t, 200, map[string]any{"allowed": true, "overage_cents": 180})
		f.post("/v1/check", `{"email": "ada@example.com"}`).want(t, 200, map[string]any{"allowed": false, "reason": "spend_limit_reached"})
		// A downgrade does not lower the included units before the period ends.
		_, err = models.Subscribe(ctx, f.db, catalogue, f.clock().Add(time.Second), models.Subscriber{Email: "ada@example.com"}, "starter")
		must(t, err)
		f.get("/v1/usage/ada@example.com").want(t, 200, map[string]any{"plan": "starter", "included": 75, "used": 81})
		f.set(time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC))
		f.get("/v1/usage/ada@example.com").want(t, 200, map[string]any{"plan": "starter", "included": 25, "used": 0})
		f.post("/v1/consume", fmt.Sprintf(ada, 1, "e")).want(t, 200, map[string]any{"plan": "starter", "included": 25, "used": 1})
	})
}

// TestBadRequests sends invalid requests, and checks that they leave nothing behind.
func TestBadRequests(t *testing.T) {
	huge := strings.Repeat("x", 70<<10)
	key := `"idempotency_key": "k"`
	cases := []struct {
		name, path, body string
		status           int
		code, field      string
		changes          []change
	}{
		{"no body", "/v1/check", "", 415, "unsupported_media_type", "", nil},
		{"empty body", "/v1/check", "", 400, "invalid_json", "", []change{withType("application/json")}},
		{"not JSON", "/v1/consume", "{", 400, "invalid_json", "", nil},
		{"two values", "/v1/consume", `{"email": "a@example.com", ` + key + `} {}`, 400, "invalid_json", "", nil},
		{"broken UTF-8", "/v1/consume", "{\"email\": \"a@example.com\", \"idempotency_key\": \"\xff\"}", 400, "invalid_json", "", nil},
		{
			"half a surrogate", "/v1/consume", `{"email": "a@example.com", "idempotency_key": "\ud800"}`,
			422, "invalid_request", "idempotency_key", nil,
		},
		{"a form", "/v1/consume", "email=a", 415, "unsupported_media_type", "", []change{withType("application/x-www-form-urlencoded")}},
		{
			"a compressed body", "/v1/consume", "{}",
			415, "unsupported_media_type", "", []change{func(r *http.Request) { r.Header.Set("Content-Encoding", "gzip") }},
		},
		{
			"one encoding too many", "/v1/consume", "{}",
			415, "unsupported_media_type", "", []change{func(r *http.Request) { r.Header["Content-Encoding"] = []string{"identity", "gzip"} }},
		},
		{
			"identity encoding", "/v1/consume", "{",
			400, "invalid_json", "", []change{func(r *http.Request) { r.Header.Set("Content-Encoding", "Identity") }},
		},
		{"another charset", "/v1/consume", "{}", 415, "unsupported_media_type", "", []change{withType("application/json; charset=latin1")}},
		{"huge", "/v1/consume", `{"email": "` + huge + `"}`, 413, "payload_too_large", "", nil},
		{"an array", "/v1/check", `[]`, 422, "invalid_request", "", nil},
		{"no person", "/v1/check", `{}`, 422, "invalid_request", "email", nil},
		{"no email", "/v1/check", `{"email": "ada"}`, 422, "invalid_request", "email", nil},
		{"two emails", "/v1/check", `{"email": "a@example.com", "email": "b@example.com"}`, 422, "invalid_request", "email", nil},
		{"null email", "/v1/check", `{"email": null}`, 422, "invalid_request", "email", nil},
		{"half an identity", "/v1/check", `{"slack_team_id": "T1"}`, 422, "invalid_request", "slack_user_id", nil},
		{"the other half", "/v1/check", `{"email": "a@example.com", "slack_user_id": "U1"}`, 422, "invalid_request", "slack_team_id", nil},
		{"an odd team", "/v1/check", `{"slack_team_id": "T 1", "slack_user_id": "U1"}`, 422, "invalid_request", "slack_team_id", nil},
		{"unknown field", "/v1/check", `{"email": "a@example.com", "qty": 1}`, 422, "invalid_request", "qty", nil},
		{"zero", "/v1/check", `{"email": "a@example.com", "quantity": 0}`, 422, "invalid_request", "quantity", nil},
		{"negative", "/v1/consume", `{"email": "a@example.com", "quantity": -1, ` + key + `}`, 422, "invalid_request", "quantity", nil},
		{"too many", "/v1/consume", `{"email": "a@example.com", "quantity": 10001, ` + key + `}`, 422, "invalid_request", "quantity", nil},
		{"a fraction", "/v1/consume", `{"email": "a@example.com", "quantity": 1.5, ` + key + `}`, 422, "invalid_request", "quantity", nil},
		{
			"beyond all numbers", "/v1/consume", `{"email": "a@example.com", "quantity": 1e999, ` + key + `}`,
			422, "invalid_request", "quantity", nil,
		},
		{
			"a number in quotes", "/v1/consume", `{"email": "a@example.com", "quantity": "1", ` + key + `}`,
			422, "invalid_request", "quantity", nil,
		},
		{"no key", "/v1/consume", `{"email": "a@example.com"}`, 422, "invalid_request", "idempotency_key", nil},
		{"empty key", "/v1/consume", `{"email": "a@example.com", "idempotency_key": ""}`, 422, "invalid_request", "idempotency_key", nil},
		{
			"long key", "/v1/consume", `{"email": "a@example.com", "idempotency_key": "` + strings.Repeat("k", 256) + `"}`,
			422, "invalid_request", "idempotency_key", nil,
		},
		{
			"control character", "/v1/consume", `{"email": "a@example.com", "idempotency_key": "a\u0000"}`,
			422, "invalid_request", "idempotency_key", nil,
		},
		{"hold without quantity", "/v1/holds", `{"email": "a@example.com", ` + key + `}`, 422, "invalid_request", "quantity", nil},
		{
			"hold forever", "/v1/holds", `{"email": "a@example.com", "quantity": 1, "ttl_seconds": 86401, ` + key + `}`,
			422, "invalid_request", "ttl_seconds", nil,
		},
		{"settle nothing", "/v1/holds/0192aaaa-bbbb-7ccc-8ddd-eeeeffff0000/settle", `{}`, 422, "invalid_request", "quantity", nil},
		{
			"release something", "/v1/holds/0192aaaa-bbbb-7ccc-8ddd-eeeeffff0000/release", `{"quantity": 1}`,
			422, "invalid_request", "quantity", nil,
		},
		{"no events", "/v1/events", `{"events": []}`, 422, "invalid_request", "events", nil},
		{"events that are not an array", "/v1/events", `{"events": {}}`, 422, "invalid_request", "events", nil},
		{"1,001 events", "/v1/events", `{"events": [` + strings.Repeat("0,", 1000) + `0]}`, 422, "invalid_request", "events", nil},
		{"huge events", "/v1/events", `{"events": ["` + strings.Repeat("x", 1<<20) + `"]}`, 413, "payload_too_large", "", nil},
	}
	onBoth(t, func(t *testing.T, f *fixture) {
		checkOnly := f.newKey(models.ScopeCheck)
		before := f.recorded()
		for _, c := range cases {
			t.Run(c.name, func(t *testing.T) {
				got := f.post(c.path, c.body, c.changes...)
				if got.status != c.status || got.code() != c.code || (c.field != "" && !strings.Contains(got.raw, `"path":"`+c.field+`"`)) {
					t.Errorf("%d %s", got.status, got.raw)
				}
			})
		}
		good := `{"email": "a@example.com", ` + key + `}`
		for name, change := range map[string]change{
			"no key":       func(r *http.Request) { r.Header.Del("Authorization") },
			"another kind": func(r *http.Request) { r.Header.Set("Authorization", "Basic "+f.key) },
			"a typo":       withKey(f.key[:len(f.key)-1] + "!"),
			"unknown":      withKey(models.NewKey()),
		} {
			t.Run("authorization: "+name, func(t *testing.T) {
				got := f.post("/v1/consume", good, change)
				got.want(t, 401, map[string]any{"code": "unauthorized"})
				if got.header.Get("WWW-Authenticate") == "" {
					t.Error("no WWW-Authenticate")
				}
			})
		}
		f.post("/v1/consume", good, withKey(checkOnly)).want(t, 403, map[string]any{"code": "insufficient_scope"})
		f.call(http.MethodGet, "/v1/usage/a@example.com", "", withKey(checkOnly)).want(t, 403, map[string]any{"code": "insufficient_scope"})
		f.get("/v1/usage/ada").want(t, 422, map[string]any{"errors.path": "email"})
		f.get("/v1/usage/a@example.com/history?months=0").want(t, 422, map[string]any{"errors.path": "months"})
		f.get("/v1/usage/a@example.com/history?months=1;x=1").want(t, 422, map[string]any{"errors.path": "months"})
		f.get("/v1/organizations/nonsense/usage").want(t, 404, map[string]any{"code": "unknown_organization"})
		f.get("/v1/organizations/0192aaaa-bbbb-7ccc-8ddd-eeeeffff0000/usage").want(t, 404, map[string]any{"code": "unknown_organization"})
		f.get("/v1/nothing").want(t, 404, map[string]any{"code": "not_found"})
		f.call(http.MethodPut, "/v1/check", "{}").want(t, 405, map[string]any{"code": "method_not_allowed"})
		if after := f.recorded(); after != before {
			t.Errorf("bad requests left %d rows", after-before)
		}
	})
}

// refusedWithinASecond makes calls with a key that was just revoked until one is refused.
func (f *fixture) refusedWithinASecond(t *testing.T, key string) {
	t.Helper()
	revoked := time.Now()
	for f.post("/v1/check", `{"email": "a@example.com"}`, withKey(key)).status == 200 {
		if time.Since(revoked) > time.Second {
			t.Fatal("a revoked key still works after a second")
		}
	}
}

func TestARevokedKeyIsRefusedWithinASecond(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		key := f.newKey(models.ScopeCheck)
		use := func() answer { return f.post("/v1/check", `{"email": "a@example.com"}`, withKey(key)) }
		use().want(t, 200, nil)
		keys, err := models.ListAPIKeys(context.Background(), f.db)
		must(t, err)
		must(t, models.RevokeAPIKey(context.Background(), f.db, time.Now(), keys[len(keys)-1].ID))
		f.refusedWithinASecond(t, key)
		use().want(t, 401, map[string]any{"code": "unauthorized"})
	})
}

func TestPagesAndHealth(t *testing.T) {
	f := newFixture(t, "sqlite:"+t.TempDir()+"/tollgate.db")
	f.get("/healthz").want(t, 200, map[string]any{"status": "ok", "version": "test"})
	f.get("/readyz").want(t, 200, map[string]any{"status": "ok"})
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, f.server.URL+"/docs", http.NoBody)
	must(t, err)
	response, err := f.server.Client().Do(r)
	must(t, err)
	defer response.Body.Close()
	if response.StatusCode != 200 || response.Header.Get("Content-Security-Policy") != PagePolicy {
		t.Errorf("/docs: %d with the policy %q", response.StatusCode, response.Header.Get("Content-Security-Policy"))
	}
	must(t, f.db.Close())
	f.get("/healthz").want(t, 200, nil)
	gone := f.get("/readyz")
	gone.want(t, 503, map[string]any{"code": "unavailable"})
	if gone.header.Get("Retry-After") == "" || strings.Contains(gone.raw, "sql") {
		t.Errorf("readyz without a database: %v %s", gone.header, gone.raw)
	}
}

// The document must accept the same requests as the server.
func TestTheDocumentKnowsWhichPersonIsIdentified(t *testing.T) {
	f := newFixture(t, modelstest.SQLite(t))
	const hold = `"hold_id": "0193524e-0000-7000-8000-000000000001"`
	for path, bodies := range map[string]map[string]bool{
		"/v1/check": {
			`{"email": "ada@example.com"}`: true,
			`{"email": "ada@example.com", "slack_team_id": "T1", "slack_user_id": "U1", "quantity": 2}`: true,
			`{"slack_team_id": "T1", "slack_user_id": "U1"}`:                                            true,
			`{}`:                      false,
			`{"slack_team_id": "T1"}`: false,
			`{"email": "ada@example.com", "slack_user_id": "U1"}`: false,
			`{"email": "ada@example.com", "quantity": 0}`:         false,
			`{"email": "ada@example.com", "unknown": 1}`:          false,
		},
		"/v1/void": {
			`{"email": "ada@example.com", "idempotency_key": "k", "reason": "r"}`:                   true,
			`{"slack_team_id": "T1", "slack_user_id": "U1", "idempotency_key": "k", "reason": "r"}`: true,
			`{` + hold + `, "reason": "r"}`:                                                         true,
			`{"email": "ada@example.com", "reason": "r"}`:                                           false,
			`{"idempotency_key": "k", "reason": "r"}`:                                               false,
			`{` + hold + `}`: false,
			`{` + hold + `, "idempotency_key": "k", "reason": "r"}`:     false,
			`{` + hold + `, "email": "ada@example.com", "reason": "r"}`: false,
		},
	} {
		for body, fits := range bodies {
			a := f.call(http.MethodPost, path, body)
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, f.server.URL+path, strings.NewReader(body))
			must(t, err)
			r.Header.Set("Authorization", "Bearer "+f.key)
			r.Header.Set("Content-Type", "application/json")
			err = f.schema.ValidateRequest(r)
			if accepted := a.status != http.StatusUnprocessableEntity; accepted != fits || (err == nil) != fits {
				t.Errorf("%s %s: accepted %v, want %v; the document says: %v", path, body, accepted, fits, err)
			}
		}
	}
}

// An address with a character that folds into ASCII could match another person's address. Every
// call refuses it and records nothing.
func TestAddressesThatFoldIntoOthersAreRefused(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		recorded := f.recorded()
		for _, email := range []string{"quac\u212a@example.com", "m\u0130ke@example.com", "ada@example\u037ecom", "ada\u1fef@example.com"} {
			for _, path := range []string{"/v1/check", "/v1/consume", "/v1/holds"} {
				a := f.post(path, fmt.Sprintf(`{"email": %q, "quantity": 1, "idempotency_key": "k"}`, email))
				a.want(t, http.StatusUnprocessableEntity, map[string]any{"code": "invalid_request"})
				if !strings.Contains(a.raw, `"path":"email"`) {
					t.Errorf("%s %s: %s", path, email, a.raw)
				}
			}
			a := f.post("/v1/events",
				fmt.Sprintf(`{"events": [{"email": %q, "quantity": 1, "idempotency_key": "k", "occurred_at": "2026-11-22T00:00:00Z"}]}`, email))
			if a.status != http.StatusOK || !strings.Contains(a.raw, `"status":"invalid"`) {
				t.Errorf("events %s: %d %s", email, a.status, a.raw)
			}
			f.call(http.MethodGet, "/v1/usage/"+url.PathEscape(email), "").want(t, http.StatusUnprocessableEntity, nil)
		}
		if now := f.recorded(); now != recorded {
			t.Errorf("%d rows, want %d", now, recorded)
		}
		// All forms of the same address identify one person.
		for i, email := range []string{"A\u0308da@Exämple.com", "äda@exa\u0308mple.COM", "ÄDA@xn--exmple-cua.com"} {
			f.post("/v1/consume", fmt.Sprintf(`{"email": %q, "quantity": 1, "idempotency_key": "form%d"}`, email, i)).
				want(t, http.StatusOK, map[string]any{"used": i + 1, "email": "äda@xn--exmple-cua.com"})
		}
	})
}
