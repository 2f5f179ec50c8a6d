package stripetest

import (
	"net/http"
	"slices"
)

// customerKey and valueKey are the payload's keys, unless the meter has others.
const (
	customerKey = "stripe_customer_id"
	valueKey    = "value"
)

func (s *Stripe) accountRoutes() []route {
	return []route{
		{pattern: "GET /v1/account", handle: func(*call) *answer {
			return ok(object{"id": s.o.Account, "object": "account", "charges_enabled": true, "country": "US", "default_currency": "usd"})
		}},
	}
}

func (s *Stripe) meterRoutes() []route {
	create := []string{
		"display_name", "event_name", "event_time_window", "default_aggregation[formula]", "customer_mapping[event_payload_key]",
		"customer_mapping[type]", "value_settings[event_payload_key]",
	}
	return []route{
		{pattern: "GET /v1/billing/meters", params: append(slices.Clone(listParams), "status"), handle: s.listMeters},
		{pattern: "POST /v1/billing/meters", params: create, handle: s.createMeter},
		{pattern: "GET /v1/billing/meters/{id}", handle: s.withMeter(nil)},
		{pattern: "POST /v1/billing/meters/{id}", params: []string{"display_name"}, handle: s.withMeter(func(c *call, m object) {
			if name := c.form.Get("display_name"); name != "" {
				m["display_name"] = name
			}
		})},
		{pattern: "POST /v1/billing/meters/{id}/deactivate", handle: s.withMeter(func(c *call, m object) {
			m["status"], m["status_transitions"] = "inactive", object{"deactivated_at": c.now.Unix()}
		})},
		{pattern: "POST /v1/billing/meters/{id}/reactivate", handle: s.withMeter(func(_ *call, m object) {
			m["status"], m["status_transitions"] = "active", object{"deactivated_at": nil}
		})},
		{
			pattern: "GET /v1/billing/meters/{id}/event_summaries",
			params:  append(slices.Clone(listParams), "customer", "start_time", "end_time", "value_grouping_window"),
			handle:  s.summaries,
		},
		{
			pattern: meterEvents,
			params:  []string{"event_name", "identifier", "timestamp", "payload[*]"},
			handle:  s.createEvent,
		},
	}
}

// AddMeter adds an active meter that sums, and returns its ID.
func (s *Stripe) AddMeter(eventName string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.addMeter(eventName, eventName, s.settle().Unix())["id"].(string)
}

func (s *Stripe) addMeter(eventName, displayName string, created int64) object {
	return s.kind("meter").put(object{
		"id": s.newID("mtr"), "object": "billing.meter", "livemode": s.o.Livemode, "created": created, "updated": created,
		"event_name": eventName, "display_name": displayName, "event_time_window": nil,
		"status": "active", "status_transitions": object{"deactivated_at": nil},
		"default_aggregation": object{"formula": "sum"},
		"customer_mapping":    object{"type": "by_id", "event_payload_key": customerKey},
		"value_settings":      object{"event_payload_key": valueKey},
	})
}

// meterOf returns the meter with an event name, preferably an active one, or nil.
func (s *Stripe) meterOf(eventName string) object {
	all := s.kind("meter").newest(func(m object) bool { return m["event_name"] == eventName })
	if i := slices.IndexFunc(all, func(m object) bool { return m["status"] == "active" }); i >= 0 {
		return all[i]
	}
	if len(all) > 0 {
		return all[0]
	}
	return nil
}

func (s *Stripe) listMeters(c *call) *answer {
	status := c.form.Get("status")
	return s.list(c, s.kind("meter").newest(func(m object) bool { return status == "" || m["status"] == status }))
}

func (s *Stripe) createMeter(c *call) *answer {
	if a := c.require("display_name", "event_name", "default_aggregation[formula]"); a != nil {
		return a
	}
	formula := c.form.Get("default_aggregation[formula]")
	if formula != "sum" && formula != "count" {
		return invalid("", "default_aggregation[formula]", "Invalid default_aggregation[formula]: must be one of count or sum")
	}
	if window := c.form.Get("event_time_window"); window != "" && window != "day" && window != "hour" {
		return invalid("", "event_time_window", "Invalid event_time_window: must be one of day or hour")
	}
	if t := c.form.Get("customer_mapping[type]"); t != "" && t != "by_id" {
		return invalid("", "customer_mapping[type]", "Invalid customer_mapping[type]: must be by_id")
	}
	name := c.form.Get("event_name")
	if m := s.meterOf(name); m != nil && m["status"] == "active" {
		return refuse(http.StatusBadRequest, "", "event_name", "An active meter already exists with event name %s.", name)
	}
	m := s.addMeter(name, c.form.Get("display_name"), c.now.Unix())
	m["default_aggregation"] = object{"formula": formula}
	if window := c.form.Get("event_time_window"); window != "" {
		m["event_time_window"] = window
	}
	if key := c.form.Get("customer_mapping[event_payload_key]"); key != "" {
		m["customer_mapping"] = object{"type": "by_id", "event_payload_key": key}
	}
	if key := c.form.Get("value_settings[event_payload_key]"); key != "" {
		m["value_settings"] = object{"event_payload_key": key}
	}
	return ok(m)
}

// withMeter answers with a meter after change, which may be nil.
func (s *Stripe) withMeter(change func(*call, object)) func(*call) *answer {
	return func(c *call) *answer {
		m := s.kind("meter").by[c.id]
		if m == nil {
			return missing(http.StatusNotFound, "id", "billing meter", c.id)
		}
		if change != nil {
			change(c, m)
			m["updated"] = c.now.Unix()
		}
		return ok(m)
	}
}
