package web

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"

	"tollgate/models"
)

// TestNumbersAsJSONWritesThem sends whole numbers in all their forms, and values that are not whole
// numbers.
func TestNumbersAsJSONWritesThem(t *testing.T) {
	f := newFixture(t, "sqlite:"+t.TempDir()+"/tollgate.db")
	for number, ok := range map[string]bool{
		"1": true, "1.0": true, "1e0": true, "10E-1": true, "10000": true, "1e4": true,
		"0": false, "-0": false, "-1": false, "10001": false, "1.5": false, "1e5": false, "99999999999999999999": false, "1e999": false,
		"-1e999": false, "1e-999": false,
		`"1"`: false, "true": false, "null": false, "[]": false, "[1]": false, "{}": false,
	} {
		got := f.post("/v1/check", `{"email": "ada@example.com", "quantity": `+number+`}`)
		if ok {
			got.want(t, 200, nil)
		} else if got.status != 422 || !strings.Contains(got.raw, `"path":"quantity"`) {
			t.Errorf("quantity %s: %d %s", number, got.status, got.raw)
		}
	}
	for _, broken := range []string{"01", "+1", "1.", ".5", "0x1", "NaN", "Infinity", "1_000", "'1'"} {
		f.post("/v1/check", `{"email": "ada@example.com", "quantity": `+broken+`}`).want(t, 400, map[string]any{"code": "invalid_json"})
	}
}

func TestNamesOfPeopleAndWork(t *testing.T) {
	f := newFixture(t, "sqlite:"+t.TempDir()+"/tollgate.db")
	long := func(n int) string { return strings.Repeat("x", n-len("@example.com")) + "@example.com" }
	for email, want := range map[string]string{
		"  Ada.Lovelace@Example.COM\t": "ada.lovelace@example.com", "ÄDA@exämple.com": "äda@xn--exmple-cua.com", long(254): long(254),
		long(255): "", long(300): "",
		"": "", " ": "", "@": "", "ada@": "", "@example.com": "", "ada": "", "a@b@c": "", "a da@example.com": "", "ada@example..com": "",
		"<ada@example.com>": "", "ada@example.com\u0000": "",
	} {
		got := f.post("/v1/check", fmt.Sprintf(`{"email": %s}`, appendString(nil, email)))
		if want != "" {
			got.want(t, 200, map[string]any{"email": want})
		} else {
			got.want(t, 422, map[string]any{"code": "invalid_request", "errors.path": "email"})
		}
	}
	for key, ok := range map[string]bool{
		strings.Repeat("k", 255): true, strings.Repeat("🙂", 255): true, "a b": true, "ключ": true,
		strings.Repeat("k", 256): false, strings.Repeat("🙂", 256): false, "": false, "a\tb": false, "a\x00": false, "a\u200bb": false,
		"a\u2028b": false,
	} {
		got := f.post("/v1/consume", fmt.Sprintf(`{"email": "key@example.com", "idempotency_key": %s}`, appendString(nil, key)))
		if ok {
			got.want(t, 200, nil)
		} else {
			got.want(t, 422, map[string]any{"code": "invalid_request", "errors.path": "idempotency_key"})
		}
	}
}

// TestBodiesAreOneValueOfTheRightSize tests the size limits of the contract to the byte.
func TestBodiesAreOneValueOfTheRightSize(t *testing.T) {
	f := newFixture(t, "sqlite:"+t.TempDir()+"/tollgate.db")
	sized := func(body string, n int) string { return body + strings.Repeat(" ", n-len(body)) }
	good := `{"email": "ada@example.com"}`
	f.post("/v1/check", sized(good, 64<<10)).want(t, 200, nil)
	f.post("/v1/check", sized(good, 64<<10+1)).want(t, 413, map[string]any{"code": "payload_too_large"})
	chunked := func(r *http.Request) { r.ContentLength, r.Body = -1, io.NopCloser(r.Body) }
	f.post("/v1/check", sized(good, 64<<10), chunked).want(t, 200, nil)
	f.post("/v1/check", sized(good, 64<<10+1), chunked).want(t, 413, map[string]any{"code": "payload_too_large"})
	// A caller without a key learns only that.
	f.post("/v1/check", sized(good, 2<<20), withKey("none")).want(t, 401, map[string]any{"code": "unauthorized"})
	f.post("/v1/check", "{", withKey("none"), withType("text/plain")).want(t, 401, map[string]any{"code": "unauthorized"})

	event := func(n int) string {
		return fmt.Sprintf(`{"email": "e@example.com", "quantity": 1, "idempotency_key": "e%d", "occurred_at": "2026-11-23T11:00:00Z"}`, n)
	}
	var events []string
	for i := range 1001 {
		events = append(events, event(i))
	}
	batch := func(n int) string { return `{"events": [` + strings.Join(events[:n], ",") + `]}` }
	f.post("/v1/events", sized(batch(1), 1<<20+1)).want(t, 413, map[string]any{"code": "payload_too_large"})
	f.post("/v1/events", batch(1001)).want(t, 422, map[string]any{"errors.path": "events"})
	f.post("/v1/events", batch(0)).want(t, 422, map[string]any{"errors.path": "events"})
	f.get("/v1/usage/e@example.com").want(t, 200, map[string]any{"used": 0})
	if got := f.post("/v1/events", sized(batch(1000), 1<<20)); got.status != 200 || strings.Count(got.raw, `"recorded"`) != 1000 {
		t.Errorf("1,000 events in 1 MiB: %d", got.status)
	}

	for name, body := range map[string]string{
		"trailing garbage": good + "x", "a second value": good + good, "a byte order mark": "\ufeff" + good, "a comment": good + "//",
		"a trailing comma": `{"email": "a@example.com",}`, "nothing but space": " ",
		"single quotes": `{'email': 'a@example.com'}`, "too deep": strings.Repeat("[", 60000),
	} {
		if got := f.post("/v1/check", body); got.status != 400 || got.code() != "invalid_json" {
			t.Errorf("%s: %d %s", name, got.status, got.raw)
		}
	}
	for body, path := range map[string]string{
		`{"email": "a@example.com", "quantity": 1, "quantity": 1}`:  "quantity",
		`{"email": "a@example.com", "\u0065mail": "a@example.com"}`: "email",
		`{"email": "a@example.com", "Quantity": 1}`:                 "Quantity", `{"slack_team_id": "T1"}`: "slack_user_id",
		`{"slack_team_id": "", "slack_user_id": "U1"}`:       "slack_team_id",
		`{"email": "a@example.com", "idempotency_key": "k"}`: "idempotency_key", `"text"`: "", `null`: "", `7`: "",
	} {
		f.post("/v1/check", body).want(t, 422, map[string]any{"code": "invalid_request", "errors.path": path})
	}
	for contentType, status := range map[string]int{
		"application/json; charset=utf-8": 200, "application/json;charset=UTF-8": 200, `application/json; charset="Utf-8"`: 200,
		"Application/JSON":                 200,
		"application/json; charset=utf-16": 415, "text/json": 415, "application/problem+json": 415, "application/json, text/plain": 415, "": 415,
		";": 415,
	} {
		if got := f.post("/v1/check", good, withType(contentType)); got.status != status {
			t.Errorf("%q: %d, want %d", contentType, got.status, status)
		}
	}
}

// TestAddressesAndMethods sends requests that match no route.
func TestAddressesAndMethods(t *testing.T) {
	f := newFixture(t, "sqlite:"+t.TempDir()+"/tollgate.db")
	months := "/v1/usage/a@example.com/history?months="
	for _, good := range []string{"1", "36", "6"} {
		f.get(months+good).want(t, 200, nil)
	}
	for _, bad := range []string{"0", "37", "-1", "abc", "01", "%2B1", "+1", "1.0", "", "1&months=2", "99999999999999999999"} {
		f.get(months+bad).want(t, 422, map[string]any{"code": "invalid_request", "errors.path": "months"})
	}
	for _, id := range []string{
		"0192aaaa-bbbb-7ccc-8ddd-eeeeffff0000", "x", "%00", "0192aaaabbbb7ccc8dddeeeeffff0000", "%7B0192aaaa-bbbb-7ccc-8ddd-eeeeffff0000%7D",
	} {
		f.get("/v1/organizations/"+id+"/usage").want(t, 404, map[string]any{"code": "unknown_organization"})
	}
	f.get("/v1/usage/%20Ada%2Bb%40Example.com").want(t, 200, map[string]any{"email": "ada+b@example.com"})
	f.call(http.MethodGet, "/v1/usage/a@example.com", `{"quantity": 7}`).want(t, 200, map[string]any{"used": 0})
	for _, path := range []string{"/v1/check/", "/v1", "/v1/", "/v1/usage", "/v1/usage/a@example.com/", "/v1/holds/x"} {
		f.get(path).want(t, 404, map[string]any{"code": "not_found"})
	}
	// Requests outside the API are answered like pages.
	for _, path := range []string{"/v2/check", "/V1/check", "//v1/check", "/.env"} {
		if p := f.browser().get(path, withKey(f.key)); p.status != 404 || p.header.Get("Content-Type") != "text/html; charset=UTF-8" ||
			!strings.Contains(p.main(), "Page not found") {
			t.Errorf("%s: %s %s", path, p.kind(), p.main())
		}
	}
	for _, c := range []struct{ method, path string }{
		{http.MethodGet, "/v1/check"}, {http.MethodDelete, "/v1/usage/a@example.com"}, {http.MethodPut, "/v1/consume"},
		{http.MethodPatch, "/v1/events"}, {http.MethodPost, "/v1/openapi.json"},
	} {
		got := f.call(c.method, c.path, "")
		got.want(t, 405, map[string]any{"code": "method_not_allowed"})
		if got.header.Get("Allow") == "" {
			t.Errorf("%s %s: no Allow", c.method, c.path)
		}
	}
	for path, status := range map[string]int{
		"/v1/check": 405, "/v1/usage/a@example.com": 401, "/healthz": 200, "/plans": 200, "/nothing": 404,
	} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodHead, f.server.URL+path, http.NoBody)
		must(t, err)
		response, err := f.server.Client().Do(r)
		must(t, err)
		body, err := io.ReadAll(response.Body)
		must(t, err)
		must(t, response.Body.Close())
		if response.StatusCode != status || len(body) != 0 {
			t.Errorf("HEAD %s: %d with %q", path, response.StatusCode, body)
		}
	}
	for header, status := range map[string]int{
		"bearer " + f.key: 200, "BEARER " + f.key: 200, "Bearer  " + f.key: 200,
		"Bearer": 401, "": 401, f.key: 401, "Bearer " + f.key + "x": 401, "Bearer " + f.key + " x": 401, "Bearer\t" + f.key: 401,
		"Bearer " + strings.ToLower(f.key): 401,
	} {
		got := f.post("/v1/check", `{"email": "a@example.com"}`, func(r *http.Request) { r.Header.Set("Authorization", header) })
		if got.status != status {
			t.Errorf("%q: %d, want %d", header, got.status, status)
		}
	}
}

// A key that may only check claims another person's identity and address. Neither moves to another
// person.
func TestAKeyThatMayOnlyCheckMovesNoOne(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		checkOnly := withKey(f.newKey(models.ScopeCheck, models.ScopeRead))
		body := func(user, email string) string {
			if email != "" {
				email = `, "email": "` + email + `"`
			}
			return `{"slack_team_id": "T1", "slack_user_id": "` + user + `"` + email + `}`
		}
		is := func(user, email string) {
			t.Helper()
			if email == "" {
				f.post("/v1/check", body(user, "")).want(t, 404, map[string]any{"code": "unknown_user"})
			} else {
				f.post("/v1/check", body(user, "")).want(t, 200, map[string]any{"email": email})
			}
		}
		f.post("/v1/check", body("U1", "ada@example.com"), checkOnly).want(t, 200, map[string]any{"email": "ada@example.com"})
		is("U1", "ada@example.com") // new people are linked
		f.post("/v1/check", body("U2", "bob@example.com"), checkOnly).want(t, 200, map[string]any{"email": "bob@example.com"})
		f.post("/v1/check", body("U1", "bob@example.com"), checkOnly).want(t, 200, map[string]any{"email": "ada@example.com"})
		is("U1", "ada@example.com")
		is("U2", "bob@example.com")
		f.post("/v1/check", body("U3", "ada@example.com"), checkOnly).want(t, 200, map[string]any{"email": "u3@t1.slack.invalid"})
		is("U3", "u3@t1.slack.invalid")
		is("U1", "ada@example.com")
		is("U4", "")
	})
}

// TestAFailureIsOneLineOfTheLog makes the database unavailable and a handler panic.
func TestAFailureIsOneLineOfTheLog(t *testing.T) {
	f := newFixture(t, "sqlite:"+t.TempDir()+"/tollgate.db")
	lines := &lines{}
	f.web.log = slog.New(slog.NewJSONHandler(lines, nil))
	gate := f.web.gate
	f.web.gate = nil
	f.post("/v1/check", `{"email": "a@example.com"}`).want(t, 500, map[string]any{"code": "internal"})
	f.web.gate = gate
	if got := lines.take(); len(got) != 1 || !strings.Contains(got[0], "nil pointer") || !strings.Contains(got[0], "api_check.go") {
		t.Errorf("a panic is logged as %q", got)
	}
	must(t, f.db.Close())
	f.get("/readyz").want(t, 503, nil)
	if got := lines.take(); len(got) != 1 || !strings.Contains(got[0], `"level":"ERROR"`) || !strings.Contains(got[0], `"status":503`) ||
		!strings.Contains(got[0], "closed") {
		t.Errorf("a 503 is logged as %q", got)
	}
	f.get("/v1/nothing").want(t, 404, nil)
	if got := lines.take(); len(got) != 1 || !strings.Contains(got[0], `"level":"INFO"`) {
		t.Errorf("a 404 is logged as %q", got)
	}
}

// lines stores the lines that are logged.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *lines) take() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.text.Reset()
	return strings.Split(strings.TrimSpace(l.text.String()), "\n")
}
