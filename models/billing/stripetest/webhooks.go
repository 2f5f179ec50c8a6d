package stripetest

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"
)

// apiVersion is the version of stripe-go v76, and of webhooks unless their endpoint has another
// one.
const apiVersion = "2023-10-16"

func (s *Stripe) webhookRoutes() []route {
	fields := []string{"url", "enabled_events[]", "description", "metadata[*]", "metadata"}
	return []route{
		{pattern: "POST /v1/webhook_endpoints", params: params(fields, []string{"api_version"}), handle: s.createEndpoint},
		{pattern: "GET /v1/webhook_endpoints", params: params(listParams), handle: func(c *call) *answer {
			return s.list(c, s.kind("webhook_endpoint").newest(nil))
		}},
		{pattern: "GET /v1/webhook_endpoints/{id}", params: params(), handle: s.get("webhook_endpoint", "webhook endpoint")},
		{
			pattern: "POST /v1/webhook_endpoints/{id}", params: params(fields, []string{"disabled"}),
			handle: s.withObject("webhook_endpoint", "webhook endpoint", func(c *call, o object) *answer {
				change := c.change()
				if a := checkEndpoint(change); a != nil {
					return a
				}
				if disabled, is := change["disabled"].(bool); is {
					delete(change, "disabled")
					o["status"] = "enabled"
					if disabled {
						o["status"] = "disabled"
					}
				}
				merge(o, change)
				return nil
			}),
		},
		{pattern: "DELETE /v1/webhook_endpoints/{id}", handle: func(c *call) *answer {
			all := s.kind("webhook_endpoint")
			if all.by[c.id] == nil {
				return missing(http.StatusNotFound, "id", "webhook endpoint", c.id)
			}
			all.remove(c.id)
			return ok(object{"id": c.id, "object": "webhook_endpoint", "deleted": true})
		}},
		{pattern: "GET /v2/core/events/{id}", handle: s.get("event", "event")},
	}
}

// createEndpoint answers with the secret, which no later answer contains.
func (s *Stripe) createEndpoint(c *call) *answer {
	if a := c.require("url"); a != nil {
		return a
	}
	change := c.change()
	if change["enabled_events"] == nil {
		return invalid("parameter_missing", "enabled_events", "Missing required param: enabled_events.")
	}
	if a := checkEndpoint(change); a != nil {
		return a
	}
	o := s.kind("webhook_endpoint").put(object{
		"id": s.newID("we"), "object": "webhook_endpoint", "livemode": s.o.Livemode, "created": c.now.Unix(), "api_version": nil,
		"description": nil,
		"metadata":    object{}, "status": "enabled", "application": nil, "secret": fmt.Sprintf("whsec_%016x%016x", s.o.Rand.Uint64(),
			s.o.Rand.Uint64()),
	})
	merge(o, change)
	return ok(o)
}

// eventType matches an event's type.
var eventType = regexp.MustCompile(`^(\*|[a-z][a-z_]*(\.[a-z_]+)+)$`)

// checkEndpoint refuses an address that Stripe cannot reach, and types that such an endpoint does
// not receive: thin events, whose names start with a version, have their own destinations
// (POST /v2/core/event_destinations).
func checkEndpoint(change object) *answer {
	if text, is := change["url"].(string); is {
		u, err := url.Parse(text)
		if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
			return invalid("url_invalid", "url", "Not a valid URL")
		}
		if ip := net.ParseIP(u.Hostname()); !strings.Contains(u.Hostname(), ".") || (ip != nil && (ip.IsLoopback() || ip.IsPrivate())) {
			return invalid("url_invalid", "url", "Invalid URL: URL must be publicly accessible.")
		}
	}
	if given, is := change["enabled_events"]; is {
		types, _ := given.([]any)
		if len(types) == 0 {
			return invalid("", "enabled_events", "Invalid array")
		}
		for i, each := range types {
			if name, _ := each.(string); !eventType.MatchString(name) {
				return invalid("", fmt.Sprintf("enabled_events[%d]", i), "Invalid enabled_events[%d]: must be the type of an event, not %v", i, each)
			}
		}
	}
	return nil
}

// SignedEvent returns an event of Stripe's and its Stripe-Signature, both of the same time: a
// webhook's body and header. A snapshot event has an object, such as one that Object returns. A
// thin event, whose type starts with v1., names only the object that it is about;
// GET /v2/core/events/{id} then returns data, which may be nil. Each event has a new ID.
func (s *Stripe) SignedEvent(secret string, at time.Time, eventType string, data map[string]any) (body []byte, signature string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := s.newID("evt")
	var o object
	if strings.HasPrefix(eventType, "v1.") {
		o = object{
			"id": id, "object": "v2.core.event", "type": eventType, "created": at.UTC().Format("2006-01-02T15:04:05.000Z"), "livemode": s.o.Livemode,
			"context": nil, "reason": nil,
		}
		if meters := s.kind("meter"); eventType == "v1.billing.meter.error_report_triggered" && len(meters.order) > 0 {
			m := meters.order[0]
			o["related_object"] = object{"id": m, "type": "billing.meter", "url": "/v1/billing/meters/" + m}
		}
		full := clone(o)
		full["data"] = data
		s.kind("event").put(full)
	} else {
		o = object{
			"id": id, "object": "event", "type": eventType, "created": at.Unix(), "livemode": s.o.Livemode, "api_version": apiVersion,
			"data": object{"object": data}, "pending_webhooks": 1, "request": object{"id": nil, "idempotency_key": nil},
		}
	}
	body, err := json.Marshal(o)
	if err != nil {
		// Tests pass objects that can be encoded.
		panic(err)
	}
	return body, Sign(secret, at, body)
}

// Sign returns the Stripe-Signature of a body that is sent at a time.
// Source: https://docs.stripe.com/webhooks#verify-manually.
func Sign(secret string, at time.Time, body []byte) string {
	mac := hmac.New(sha256.New, []byte(secret))
	// Writing to a hash never fails.
	_, _ = fmt.Fprintf(mac, "%d.%s", at.Unix(), body)
	return fmt.Sprintf("t=%d,v1=%s", at.Unix(), hex.EncodeToString(mac.Sum(nil)))
}

// ErrorReport returns the data of v1.billing.meter.error_report_triggered and
// v1.billing.meter.no_meter_found: one code, the number of its events, and some of their
// identifiers.
// Source: https://docs.stripe.com/api/v2/core/events/event-types.
func ErrorReport(from, to time.Time, code, message string, count int, identifiers ...string) map[string]any {
	samples := make([]any, len(identifiers))
	for i, id := range identifiers {
		samples[i] = object{"error_message": message, "request": object{"identifier": id}}
	}
	return object{
		"developer_message_summary": fmt.Sprintf("There is %d invalid event", count),
		"reason": object{"error_count": count,
			"error_types": []any{object{"code": code, "error_count": count, "sample_errors": samples}}},
		"validation_start": from.UTC().Format(time.RFC3339), "validation_end": to.UTC().Format(time.RFC3339),
	}
}
