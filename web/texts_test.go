package web

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"tollgate/models"
	"tollgate/models/modelstest"
)

// notTexts are strings that PostgreSQL does not accept as text.
var notTexts = []string{"\x00", "a\x00b", "\xff", "a\xc3"}

// A signed webhook with a NUL in an ID is not a Stripe event. It is refused, because a retry cannot
// help.
func TestWebhookWithNUL(t *testing.T) {
	modelstest.OnBoth(t, func(t *testing.T, address string) {
		f := withWebhooks(t, address, http.NotFoundHandler())
		refused := map[string]any{"code": "bad_signature"}
		event := func(id, kind, customer, subscription string) string {
			return fmt.Sprintf(`{"id": "%s", "object": "event", "type": "%s", "created": 1,
				"data": {"object": {"object": "subscription", "id": "%s", "customer": "%s"}}}`,
				id, kind, subscription, customer)
		}
		const kind = "customer.subscription.created"
		f.webhook(event(`evt\u00001`, kind, "cus_1", "sub_1"), f.clock()).want(t, 400, refused)
		f.webhook(event("evt_1", `ping\u0000`, "cus_1", "sub_1"), f.clock()).want(t, 400, refused)
		f.webhook(event("evt_1", kind, `cus\u00001`, "sub_1"), f.clock()).want(t, 400, refused)
		f.webhook(event("evt_1", kind, "\xff", "sub_1"), f.clock()).want(t, 200, nil)
		f.webhook(event("evt_2", kind, "cus_2", `sub\u00001`), f.clock()).want(t, 200, nil)
		f.webhook(`{"id": "evt_3", "type": "customer.deleted", "data": {"object": {"object": "customer", "id": "\u0000"}}}`, f.clock()).
			want(t, 400, refused)
		f.webhook(`{"id": "evt_4", "type": "invoice.paid", "data": {"object": {"object": "invoice", "customer": {"id": "\u0000"}}}}`, f.clock()).
			want(t, 400, refused)
		f.webhook(`{"id": "evt\u00005", "type": "v1.billing.meter.no_meter_found", "created": "\u0000"}`, f.clock()).want(t, 400, refused)
	})
}

// Invalid text is refused everywhere, and is never an internal error.
func TestInvalidTextIsRefused(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		o, err := models.CreateOrganization(t.Context(), f.db, f.clock(), "Acme", []string{"T1"})
		must(t, err)
		admin, yes := models.Admin, true
		_, err = models.SetUser(t.Context(), f.db, f.clock(), "otto@example.com", models.UserChange{
			OrganizationID: &o.ID, Role: &admin, Operator: &yes,
		})
		must(t, err)
		b := f.signedIn("otto@example.com")
		sound := func(what string, status int) {
			t.Helper()
			if status >= http.StatusInternalServerError {
				t.Errorf("%s: status %d", what, status)
			}
		}
		for _, bad := range notTexts {
			escaped := url.QueryEscape(bad)
			fields := url.Values{}
			for _, name := range []string{
				"q", "query", "next", "page", "period", "session_id", "try", "plan", "sort", "level", "cursor", "saved", "code", "state",
				"error", "name", "amount", "id", "reason", "scope", "confirm", "email", bad,
			} {
				fields.Set(name, bad)
			}
			for _, r := range f.web.pages() {
				path := strings.NewReplacer(":email", escaped, ":token", escaped, ":id", escaped, ":name", escaped).Replace(r.path)
				if r.method == http.MethodGet {
					sound("GET "+path, b.get(path).status)
					sound("GET "+path+" with fields", b.get(path+"?"+fields.Encode()).status)
				} else if !strings.Contains(path, "sign-out") {
					sound(r.method+" "+path, b.post(path, fields).status)
				}
			}
			for _, r := range f.web.api() {
				path := strings.NewReplacer("{email}", escaped, "{id}", escaped).Replace(r.path)
				for _, body := range []string{
					"", `{"email": "` + bad + `"}`, `{"email": "a\u0000@example.com", "idempotency_key": "\u0000", "quantity": 1}`,
				} {
					if r.method == http.MethodGet && body != "" {
						continue
					}
					request, err := http.NewRequestWithContext(t.Context(), r.method, f.server.URL+path, strings.NewReader(body))
					must(t, err)
					request.Header.Set("Authorization", "Bearer "+f.key)
					request.Header.Set("Content-Type", "application/json")
					response, err := f.server.Client().Do(request)
					must(t, err)
					sound(r.method+" "+path, response.StatusCode)
					must(t, response.Body.Close())
				}
			}
		}
	})
}

// A browser may send any name.
func TestBrowserWithAnInvalidName(t *testing.T) {
	withIssuer(t, func(t *testing.T, f *fixture, i *testIssuer) {
		b := f.browser()
		strange := func(r *http.Request) { r.Header.Set("User-Agent", "Mozilla\xff") }
		if p := b.get(b.through(i, ""), strange); p.kind() != "See Other /usage" {
			t.Errorf("back from the issuer: %s %s", p.kind(), p.main())
		}
	})
}
