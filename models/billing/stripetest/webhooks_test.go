package stripetest_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stripe/stripe-go/v76"
	"github.com/stripe/stripe-go/v76/webhook"

	"tollgate/models/billing/stripetest"
)

func TestWebhookEndpoints(t *testing.T) {
	s := newStandIn(nil)
	c := s.sdk()
	params := func() *stripe.WebhookEndpointParams {
		return &stripe.WebhookEndpointParams{
			URL: stripe.String("https://tollgate.example/stripe/webhook"), APIVersion: stripe.String("2023-10-16"),
			EnabledEvents: stripe.StringSlice([]string{"customer.subscription.created", "invoice.paid"}),
			Metadata:      map[string]string{"tollgate": "1"},
		}
	}
	made := must(c.WebhookEndpoints.New(params()))(t)
	if !strings.HasPrefix(made.Secret, "whsec_") || made.APIVersion != "2023-10-16" || len(made.EnabledEvents) != 2 ||
		made.Status != "enabled" {
		t.Errorf("the new endpoint is %+v", made)
	}
	if got := must(c.WebhookEndpoints.Get(made.ID, nil))(t); got.Secret != "" || got.URL != made.URL {
		t.Errorf("the endpoint is %+v", got)
	}
	if got := must(c.WebhookEndpoints.Update(made.ID, &stripe.WebhookEndpointParams{
		EnabledEvents: stripe.StringSlice([]string{"*"}), Disabled: stripe.Bool(true),
	}))(t); len(got.EnabledEvents) != 1 || got.Status != "disabled" {
		t.Errorf("the updated endpoint is %+v", got)
	}
	if got := ids(t, c.WebhookEndpoints.List(nil), func(w *stripe.WebhookEndpoint) string { return w.ID }); got != made.ID {
		t.Errorf("the listed endpoints are %q", got)
	}
	for name, test := range map[string]struct {
		param  string
		change func(*stripe.WebhookEndpointParams)
	}{
		"no address":           {"url", func(p *stripe.WebhookEndpointParams) { p.URL = nil }},
		"an invalid address":   {"url", func(p *stripe.WebhookEndpointParams) { p.URL = stripe.String("tollgate.example") }},
		"this machine":         {"url", func(p *stripe.WebhookEndpointParams) { p.URL = stripe.String("http://127.0.0.1:8080/stripe/webhook") }},
		"this machine by name": {"url", func(p *stripe.WebhookEndpointParams) { p.URL = stripe.String("http://localhost/stripe/webhook") }},
		"no events":            {"enabled_events", func(p *stripe.WebhookEndpointParams) { p.EnabledEvents = nil }},
		"a thin event": {"enabled_events[0]", func(p *stripe.WebhookEndpointParams) {
			p.EnabledEvents = stripe.StringSlice([]string{"v1.billing.meter.no_meter_found"})
		}},
	} {
		p := params()
		test.change(p)
		_, err := c.WebhookEndpoints.New(p)
		refused(t, name, err, 400, test.param)
	}
	_, err := c.WebhookEndpoints.Update(made.ID, &stripe.WebhookEndpointParams{APIVersion: stripe.String("2024-01-01")})
	refused(t, "another version", err, 400, "api_version")
	if d := must(c.WebhookEndpoints.Del(made.ID, nil))(t); !d.Deleted {
		t.Errorf("the deletion returned %+v", d)
	}
	_, err = c.WebhookEndpoints.Del(made.ID, nil)
	refused(t, "deleted twice", err, 404, "id")
}

func TestSignedEvents(t *testing.T) {
	s := newStandIn(nil)
	const secret = "whsec_1"
	// The SDK checks a signature's age with the real clock.
	now := time.Now()
	sub := s.AddSubscription(stripetest.Subscription{Customer: "cus_1"})
	body, signature := s.SignedEvent(secret, now, "customer.subscription.created", s.Object(sub))
	e := must(webhook.ConstructEvent(body, signature, secret))(t)
	if e.Type != "customer.subscription.created" || e.Created != now.Unix() || e.Data.Object["id"] != sub || !strings.HasPrefix(e.ID, "evt_") {
		t.Errorf("the event is %+v", e)
	}
	again, _ := s.SignedEvent(secret, now, "customer.subscription.created", s.Object(sub))
	if bytes.Equal(body, again) {
		t.Error("two events have the same ID")
	}
	if _, err := webhook.ConstructEvent(body, signature, "whsec_2"); err == nil {
		t.Error("another secret was accepted")
	}
	body, signature = s.SignedEvent(secret, now.Add(-6*time.Minute), "customer.deleted", nil)
	if _, err := webhook.ConstructEvent(body, signature, secret); !errors.Is(err, webhook.ErrTooOld) {
		t.Errorf("a signature of 6 minutes ago: %v", err)
	}

	report := stripetest.ErrorReport(start, start.Add(time.Hour), "meter_event_no_customer_defined", "no customer", 5, "a", "b")
	body, signature = s.SignedEvent(secret, now, "v1.billing.meter.error_report_triggered", report)
	if err := webhook.ValidatePayload(body, signature, secret); err != nil {
		t.Error(err)
	}
	var thin map[string]any
	if err := json.Unmarshal(body, &thin); err != nil {
		t.Fatal(err)
	}
	if related, _ := thin["related_object"].(map[string]any); thin["object"] != "v2.core.event" || thin["data"] != nil ||
		related["id"] != s.meter || related["type"] != "billing.meter" {
		t.Errorf("the thin event is %v", thin)
	}
	full := s.must(t, "GET /v2/core/events/"+thin["id"].(string), nil, "")
	if reason, _ := full.body["data"].(map[string]any)["reason"].(map[string]any); reason["error_count"] != 5.0 {
		t.Errorf("the full event is %v", full.body)
	}
	body, _ = s.SignedEvent(secret, now, "v1.billing.meter.no_meter_found", nil)
	if bytes.Contains(body, []byte("related_object")) {
		t.Errorf("an event without a meter is %s", body)
	}
}
