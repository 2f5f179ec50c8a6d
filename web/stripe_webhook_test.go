package web

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stripe/stripe-go/v76/webhook"

	"tollgate/models"
	"tollgate/models/billing"
	"tollgate/models/modelstest"
)

const webhookSecret = "whsec_test"

// oneSubscription is a Stripe API with one customer, ada, who buys one subscription to the plan
// pro.
type oneSubscription struct {
	start  time.Time
	bought atomic.Bool
}

func (s *oneSubscription) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var answer any
	switch {
	case strings.HasPrefix(r.URL.Path, "/v1/customers/"):
		answer = map[string]any{"id": "cus_1", "object": "customer", "metadata": map[string]any{"tollgate_email": "ada@example.com"}}
	case !s.bought.Load():
		answer = map[string]any{"object": "list", "url": "/v1/subscriptions", "data": []any{}}
	case r.URL.Path == "/v1/subscriptions":
		answer = map[string]any{"object": "list", "url": "/v1/subscriptions", "data": []any{map[string]any{
			"id": "sub_1", "object": "subscription", "customer": "cus_1", "status": "active", "created": s.start.Unix(),
			"billing_cycle_anchor": s.start.Unix(),
			"current_period_start": s.start.Unix(), "current_period_end": s.start.AddDate(0, 1, 0).Unix(),
			"items": map[string]any{
				"data": []any{
					map[string]any{
						"quantity": 1,
						"price":    map[string]any{"id": "price_1", "lookup_key": "tollgate_base_pro", "recurring": map[string]any{"usage_type": "licensed"}},
					},
				},
			},
		}}}
	}
	_ = json.NewEncoder(w).Encode(answer)
}

// withWebhooks returns a server that receives webhooks from a Stripe API.
func withWebhooks(t *testing.T, address string, stripe http.Handler) *fixture {
	t.Helper()
	server := httptest.NewServer(stripe)
	t.Cleanup(server.Close)
	client, err := billing.NewClient(billing.ClientOptions{Key: "sk_test_1", APIBase: server.URL})
	must(t, err)
	return newFixture(t, address, func(o *Options) {
		o.Webhooks = billing.NewWebhooks(billing.WebhookOptions{
			DB: o.DB, Client: client, Catalogue: o.Catalogue, Secret: webhookSecret, Now: o.Now,
			Random: func() float64 { return 0.5 }, Log: slog.New(slog.DiscardHandler),
		})
		o.Webhooks.Start(context.Background())
		t.Cleanup(o.Webhooks.Stop)
	})
}

// webhook sends a payload that was signed at a time.
func (f *fixture) webhook(payload string, at time.Time, changes ...change) answer {
	f.t.Helper()
	signed := webhook.GenerateTestSignedPayload(&webhook.UnsignedPayload{Payload: []byte(payload), Secret: webhookSecret, Timestamp: at})
	r, err := http.NewRequestWithContext(context.Background(), http.MethodPost, f.server.URL+webhookPath, strings.NewReader(payload))
	must(f.t, err)
	r.Header.Set("Stripe-Signature", signed.Header)
	for _, c := range changes {
		c(r)
	}
	response, err := f.server.Client().Do(r)
	must(f.t, err)
	defer response.Body.Close()
	a := answer{status: response.StatusCode, header: response.Header}
	must(f.t, json.NewDecoder(response.Body).Decode(&a.body))
	if got := a.header.Get("Content-Type"); a.status >= 400 && got != problemContentType {
		f.t.Errorf("an error with the type %s", got)
	}
	return a
}

func subscriptionEvent(id string) string {
	return fmt.Sprintf(`{"id": %q, "object": "event", "type": "customer.subscription.created", "created": 1,
		"data": {"object": {"object": "subscription", "customer": "cus_1"}}}`, id)
}

func TestOnlyStripeSendsWebhooks(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		// Without a secret, there is no such endpoint.
		f.webhook(subscriptionEvent("evt_0"), f.clock()).want(t, 404, map[string]any{"code": "not_found"})
	})
	modelstest.OnBoth(t, func(t *testing.T, address string) {
		f := withWebhooks(t, address, http.NotFoundHandler())
		refused := map[string]any{"code": "bad_signature"}
		f.webhook("{}", f.clock().Add(-6*time.Minute)).want(t, 400, refused)
		f.webhook("{}", f.clock().Add(time.Hour)).want(t, 400, refused)
		f.webhook("{}", f.clock(), func(r *http.Request) { r.Header.Del("Stripe-Signature") }).want(t, 400, refused)
		f.webhook("{}", f.clock(), func(r *http.Request) { r.Header.Set("Stripe-Signature", "t=1,v1=ab") }).want(t, 400, refused)
		f.webhook("{}", f.clock()).want(t, 400, refused)
		f.webhook(strings.Repeat(" ", webhookLimit+1), f.clock()).want(t, 413, map[string]any{"code": "payload_too_large"})
		large := `{"id": "evt_large", "type": "ping", "data": "` + strings.Repeat("x", 1<<19) + `"}`
		f.webhook(large, f.clock()).want(t, 200, map[string]any{"received": true})
		f.webhook(`{"id": "evt_nul", "type": "ping", "data": "\u0000`+"\xff"+`"}`, f.clock()).want(t, 200, nil)
		// Stripe is not a browser and has no key. Its requests come from another site.
		f.webhook(`{"id": "evt_1", "type": "ping"}`, f.clock(), from("cross-site", "https://stripe.com")).want(t, 200, nil)
	})
}

// A person who buys a plan in the middle of a month has it when the webhook is answered. Usage from
// before the purchase is not billed.
func TestAPlanAppliesWhenTheWebhookIsAnswered(t *testing.T) {
	modelstest.OnBoth(t, func(t *testing.T, address string) {
		start := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
		stripe := &oneSubscription{start: start}
		f := withWebhooks(t, address, stripe)
		consume := func(key string) answer {
			t.Helper()
			return f.post("/v1/consume", fmt.Sprintf(`{"email": "ada@example.com", "quantity": 3, "idempotency_key": %q}`, key))
		}
		f.set(start.Add(-time.Hour))
		consume("a").want(t, 200, map[string]any{"allowed": true, "plan": "free", "used": 3})
		consume("b").want(t, 200, map[string]any{"allowed": false, "reason": "included_exhausted"})
		f.set(start.Add(time.Minute))
		stripe.bought.Store(true)
		f.webhook(subscriptionEvent("evt_1"), f.clock()).want(t, 200, nil)
		f.webhook(subscriptionEvent("evt_1"), f.clock()).want(t, 200, nil)
		consume("b").want(t, 200, map[string]any{
			"allowed": true, "plan": "pro", "used": 3, "included": 75, "period.start": "2026-11-23T12:00:00Z", "period.end": "2026-12-23T12:00:00Z",
		})
		var events []models.UsageEvent
		must(t, f.db.NewSelect().Model(&events).Order("occurred_at").Scan(context.Background()))
		if len(events) != 2 || events[0].StripeCustomerID != nil || events[1].StripeCustomerID == nil || *events[1].StripeCustomerID != "cus_1" {
			t.Errorf("the ledger has %+v", events)
		}
	})
}

func TestAWebhookWithoutTheDatabase(t *testing.T) {
	cluster, err := modelstest.StartPostgres(t.Context(), modelstest.PostgresOptions{})
	must(t, err)
	defer func() { must(t, cluster.Stop()) }()
	must(t, cluster.CreateDatabase(t.Context(), "webhooks"))
	f := withWebhooks(t, cluster.URL("webhooks"), http.NotFoundHandler())
	must(t, cluster.StopKeep())
	a := f.webhook(subscriptionEvent("evt_1"), f.clock())
	if a.want(t, 503, map[string]any{"code": "unavailable"}); a.header.Get("Retry-After") == "" {
		t.Error("the answer has no Retry-After")
	}
}
