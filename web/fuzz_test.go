package web

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"tollgate/models"
)

var bodySeeds = []string{
	`{"email": "ada@example.com", "quantity": 3, "idempotency_key": "k"}`,
	`{"slack_team_id": "T1", "slack_user_id": "U1", "idempotency_key": "\u00e9"}`,
	`{"email": "ada@example.com", "quantity": 1e0, "idempotency_key": "k"}`,
	`{"email": "a@b", "\u0065mail": "c@d"}`, `[]`, `{`, `{"quantity": -0}`, `{"idempotency_key": "\ud800"}`, "{\"email\":\"\xff@x\"}",
	`{"a":{"b":[1,2,{"c":null}]}}`,
	`{"email": "ada@example.com", "quantity": 1, "idempotency_key": "k"} x`, `null`, `{"quantity": 99999999999999999999}`,
}

// FuzzDecoder compares our decoder with encoding/json: it accepts only valid JSON and reads the
// same values.
func FuzzDecoder(f *testing.F) {
	for _, seed := range bodySeeds {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var b body
		b.raw.Write(data)
		r := consumeRequest{CheckRequest: CheckRequest{Quantity: 1}}
		err := b.parse(func(b *body) error {
			err := readObject(b, consumeFields, &r)
			b.person(&r.PersonName)
			return err
		})
		var p *Problem
		if err != nil {
			if !errors.As(err, &p) || p.Status != http.StatusBadRequest && p.Status != http.StatusUnprocessableEntity {
				t.Fatalf("an error that is not a Problem: %v", err)
			}
			if p.Status == http.StatusUnprocessableEntity && (len(p.Errors) == 0 || !json.Valid(data)) {
				t.Fatalf("a 422 without a field, or for invalid JSON: %v", p.Errors)
			}
			return
		}
		var reference map[string]any
		if !utf8.Valid(data) || json.Unmarshal(data, &reference) != nil {
			t.Fatal("accepted JSON that encoding/json refuses")
		}
		if key, _ := reference["idempotency_key"].(string); key != r.IdempotencyKey || !isKey(r.IdempotencyKey) {
			t.Fatalf("key %q, encoding/json reads %q", r.IdempotencyKey, key)
		}
		if email, _ := reference["email"].(string); email != "" {
			if parsed, err := models.ParseEmail(email); err != nil || parsed != r.Email {
				t.Fatalf("email %q, encoding/json reads %q", r.Email, email)
			}
		}
		if quantity, given := reference["quantity"].(float64); given && quantity != float64(r.Quantity) || r.Quantity < 1 ||
			r.Quantity > maxQuantity {
			t.Fatalf("quantity %d, encoding/json reads %v", r.Quantity, quantity)
		}
	})
}

// FuzzEndpoints sends any body to any endpoint. Each answer must be one that the document has, and
// none may be a 500.
func FuzzEndpoints(f *testing.F) {
	paths := []string{
		"/v1/check", "/v1/consume", "/v1/holds", "/v1/holds/0192aaaa-bbbb-7ccc-8ddd-eeeeffff0000/settle", "/v1/holds/x/release", "/v1/events",
	}
	for i, seed := range bodySeeds {
		f.Add(uint8(i), seed)
	}
	f.Add(uint8(5),
		`{"events": [{"email": "ada@example.com", "quantity": 1, "idempotency_key": "e", "occurred_at": "2026-11-23T09:30:00Z"}, 1]}`)
	f.Add(uint8(2), `{"email": "ada@example.com", "quantity": 1, "idempotency_key": "e", "ttl_seconds": 1}`)
	server := newFixture(f, "sqlite:"+f.TempDir()+"/tollgate.db")
	f.Fuzz(func(t *testing.T, which uint8, body string) {
		server.t = t
		got := server.post(paths[int(which)%len(paths)], body, withType("application/json"))
		if got.status >= 500 {
			t.Errorf("%d for %q", got.status, body)
		}
	})
}

// FuzzUsagePath does the same with the path.
func FuzzUsagePath(f *testing.F) {
	for _, seed := range []string{"ada@example.com", "ada%40example.com", "a b@x", "%2e%2e/%2f@x", "ä@x.de", "?@x", "%00@x"} {
		f.Add(seed, "6")
	}
	server := newFixture(f, "sqlite:"+f.TempDir()+"/tollgate.db")
	f.Fuzz(func(t *testing.T, email, months string) {
		server.t = t
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.server.URL, strings.NewReader(""))
		must(t, err)
		r.URL.Path = "/v1/usage/" + email + "/history"
		r.URL.RawQuery = "months=" + months
		r.Header.Set("Authorization", "Bearer "+server.key)
		client := http.Client{
			Timeout: 5 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}
		response, err := client.Do(r)
		if err != nil {
			return // not a valid request
		}
		defer response.Body.Close()
		if response.StatusCode >= 500 {
			t.Errorf("%d for %q", response.StatusCode, r.URL)
		}
	})
}
