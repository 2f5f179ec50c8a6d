package stripetest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// meterEvents is the route of meter events.
const meterEvents = "POST /v1/billing/meter_events"

// maxIdentifier is the maximum length in characters.
const maxIdentifier = 100

// Event is a meter event, or several equal ones.
type Event struct {
	// Identifier is "foreign:…" for an event of AddForeign.
	Identifier, EventName, Customer string
	// Value is the number of units, counted once.
	Value int64
	// Timestamp is when the units were used, in whole seconds, UTC.
	Timestamp time.Time
	// Received is when the event was first received.
	Received time.Time
	// Times is how often the event was counted. If more than once, a customer pays twice.
	Times int
}

// meterState is the state of all meter events.
type meterState struct {
	// identifiers has the time when each identifier was last received.
	identifiers map[string]time.Time
	// records are in the order of receipt. byCustomer has the same records.
	records    []*record
	byCustomer map[string][]*record
	dropped    []*record
	// open counts the running calls for a customer and meter. most is the maximum for a customer
	// and any one meter.
	open map[stream]int
	most map[string]int
}

// stream is a customer and a meter. Stripe accepts one call at a time for each.
type stream struct{ customer, eventName string }

// record is one received event.
type record struct {
	identifier string
	stream
	meter     string // ID of the meter that counted it
	value     int64
	timestamp int64
	received  time.Time
	// visible is when the event appears in the summaries.
	visible time.Time
	lost    bool
}

func newMeterState() meterState {
	return meterState{identifiers: map[string]time.Time{}, byCustomer: map[string][]*record{}, open: map[stream]int{}, most: map[string]int{}}
}

// enter counts a call as running until leave is called. alone reports whether no other call runs
// for its customer and meter.
func (s *Stripe) enter(rt *route, form url.Values) (leave func(), alone bool) {
	if rt.pattern != meterEvents {
		return func() {}, true
	}
	k := stream{s.customerOf(form), form.Get("event_name")}
	s.meter.open[k]++
	n := s.meter.open[k]
	s.meter.most[k.customer] = max(s.meter.most[k.customer], n)
	return func() {
		if s.meter.open[k]--; s.meter.open[k] == 0 {
			delete(s.meter.open, k)
		}
	}, n == 1
}

// customerOf returns the customer of an event.
func (s *Stripe) customerOf(form url.Values) string {
	key := customerKey
	if m := s.meterOf(form.Get("event_name")); m != nil {
		key = m["customer_mapping"].(object)["event_payload_key"].(string)
	}
	return form.Get("payload[" + key + "]")
}

// createEvent receives a meter event.
//
// Stripe checks some of this only after its answer and then sends an event of its own. Here, every
// error is in the answer, because that gives the reporter more to handle. Use Dropped for errors
// that Stripe reports late or never.
// Sources: https://docs.stripe.com/api/billing/meter-event/create and
// https://docs.stripe.com/billing/subscriptions/usage-based/recording-usage-api.
func (s *Stripe) createEvent(c *call) *answer {
	if a := c.require("event_name"); a != nil {
		return a
	}
	r := &record{identifier: c.form.Get("identifier"), received: c.now}
	r.eventName = c.form.Get("event_name")
	if len([]rune(r.identifier)) > maxIdentifier {
		return invalid("parameter_invalid_string", "identifier", "Invalid string: identifier must be at most %d characters", maxIdentifier)
	}
	at, a := c.seconds("timestamp", c.now.Unix())
	if a != nil {
		return a
	}
	r.timestamp = at

	m := s.meterOf(r.eventName)
	switch {
	case m == nil:
		return refuse(http.StatusBadRequest, "no_meter", "event_name", "No meter found with event name %s.", r.eventName)
	case m["status"] != "active":
		return refuse(http.StatusBadRequest, "archived_meter", "event_name", "The meter with event name %s is inactive.", r.eventName)
	}
	r.meter = m["id"].(string)
	customerKey := m["customer_mapping"].(object)["event_payload_key"].(string)
	valueKey := m["value_settings"].(object)["event_payload_key"].(string)
	customerParam, valueParam := "payload["+customerKey+"]", "payload["+valueKey+"]"
	payload := object{}
	for name := range c.form {
		if key, is := strings.CutPrefix(name, "payload["); is {
			payload[strings.TrimSuffix(key, "]")] = c.form.Get(name)
			if name != customerParam && name != valueParam {
				return invalid("parameter_unknown", name, "Received unknown parameter: %s", name)
			}
		}
	}
	if r.customer = c.form.Get(customerParam); r.customer == "" {
		return invalid("meter_event_no_customer_defined", customerParam, "The payload has no %s.", customerKey)
	}
	if c.form.Get(valueParam) == "" {
		return invalid("meter_event_value_not_found", valueParam, "The payload has no %s.", valueKey)
	}
	value, err := strconv.ParseInt(c.form.Get(valueParam), 10, 64)
	if err != nil || strings.HasPrefix(c.form.Get(valueParam), "+") {
		return invalid("meter_event_invalid_value", valueParam, "The value must be a whole number: %q.", c.form.Get(valueParam))
	}
	r.value = value
	if o := s.kind("customer").by[r.customer]; o == nil || o["deleted"] == true {
		return missing(http.StatusBadRequest, customerParam, "customer", r.customer)
	}

	switch t := time.Unix(r.timestamp, 0); {
	case t.Before(c.now.Add(-oldest)):
		return refuse(http.StatusBadRequest, "timestamp_too_far_in_past", "timestamp", "The timestamp must be within the past 35 days.")
	case t.After(c.now.Add(ahead)):
		return refuse(http.StatusBadRequest, "timestamp_in_future", "timestamp", "The timestamp must be at most 5 minutes in the future.")
	}
	if r.identifier == "" {
		r.identifier = s.newID("mtr_evt")
	}
	if at, known := s.meter.identifiers[r.identifier]; known && at.Add(remembered).After(c.now) {
		return refuse(http.StatusBadRequest, "", "identifier", "An event already exists with identifier %s.", r.identifier)
	}
	s.meter.identifiers[r.identifier] = c.now
	if c.dropped {
		s.meter.dropped = append(s.meter.dropped, r)
	} else {
		s.count(r)
	}
	return ok(object{
		"object": "billing.meter_event", "created": c.now.Unix(), "event_name": r.eventName, "identifier": r.identifier,
		"livemode": s.o.Livemode, "payload": payload, "timestamp": r.timestamp,
	})
}

// count counts a record. It appears in the summaries after their lag.
func (s *Stripe) count(r *record) {
	r.visible = r.received
	if s.o.Lag != nil {
		r.visible = r.received.Add(s.o.Lag(s.o.Rand))
	}
	s.meter.records = append(s.meter.records, r)
	s.meter.byCustomer[r.customer] = append(s.meter.byCustomer[r.customer], r)
}

// summaries lists the usage as one sum, or by hour or day, newest first.
// Source: https://docs.stripe.com/api/billing/meter-event-summary/list.
func (s *Stripe) summaries(c *call) *answer {
	m := s.kind("meter").by[c.id]
	if m == nil {
		return missing(http.StatusNotFound, "id", "billing meter", c.id)
	}
	if a := c.require("customer", "start_time", "end_time"); a != nil {
		return a
	}
	step, window := int64(60), c.form.Get("value_grouping_window")
	switch window {
	case "":
	case "hour":
		step = 60 * 60
	case "day":
		step = 24 * 60 * 60
	default:
		return invalid("", "value_grouping_window", "Invalid value_grouping_window: must be one of day or hour")
	}
	start, a := c.seconds("start_time", 0)
	if a != nil {
		return a
	}
	end, a := c.seconds("end_time", 0)
	if a != nil {
		return a
	}
	switch boundary := time.Duration(step) * time.Second; {
	case start%step != 0:
		return invalid("", "start_time", "start_time must be aligned with boundaries of %v.", boundary)
	case end%step != 0:
		return invalid("", "end_time", "end_time must be aligned with boundaries of %v.", boundary)
	case end <= start:
		return invalid("", "end_time", "end_time must be after start_time.")
	}
	customer := c.form.Get("customer")
	if s.kind("customer").by[customer] == nil {
		return missing(http.StatusBadRequest, "customer", "customer", customer)
	}

	width := end - start
	if window != "" {
		width = step
	}
	sums := map[int64]int64{}
	for _, r := range s.meter.byCustomer[customer] {
		if r.lost || r.meter != m["id"] || r.timestamp < start || r.timestamp >= end || r.visible.After(c.now) {
			continue
		}
		by := r.value
		if m["default_aggregation"].(object)["formula"] == "count" {
			by = 1
		}
		sums[start+(r.timestamp-start)/width*width] += by
	}
	// The documentation does not say whether Stripe returns a summary without usage. Every second
	// minute has one here, so that readers must handle both.
	if window == "" && len(sums) == 0 && start/60%2 == 0 {
		sums[start] = 0
	}
	var all []object
	for at := range sums {
		all = append(all, object{
			"id": fmt.Sprintf("mtrusg_%s_%s_%d_%d", c.id, customer, at, width), "object": "billing.meter_event_summary",
			// Stripe writes a number with a fraction.
			"aggregated_value": json.Number(fmt.Sprintf("%d.0", sums[at])),
			"start_time":       at, "end_time": at + width, "livemode": s.o.Livemode, "meter": c.id,
		})
	}
	slices.SortFunc(all, func(a, b object) int { return int(b["start_time"].(int64) - a["start_time"].(int64)) })
	return s.list(c, all)
}

// AddForeign counts an event that another source sent to the meter with an event name. The meter
// must exist. The event is in the summaries immediately.
func (s *Stripe) AddForeign(eventName, customer string, value int64, at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.settle()
	r := &record{identifier: s.newID("foreign:mtr_evt"), value: value, timestamp: at.Unix(), received: now, visible: now}
	r.meter, r.stream = s.meterOf(eventName)["id"].(string), stream{customer, eventName}
	s.meter.records = append(s.meter.records, r)
	s.meter.byCustomer[customer] = append(s.meter.byCustomer[customer], r)
}

// Lose removes a counted event, also from the summaries. It reports whether there was one.
func (s *Stripe) Lose(identifier string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settle()
	lost := false
	for _, r := range s.meter.records {
		if r.identifier == identifier && !r.lost {
			r.lost, lost = true, true
		}
	}
	return lost
}

// Double counts an event again. It reports whether there was one. The summaries show both at the
// same time.
func (s *Stripe) Double(identifier string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settle()
	i := slices.IndexFunc(s.meter.records, func(r *record) bool { return r.identifier == identifier && !r.lost })
	if i < 0 {
		return false
	}
	again := *s.meter.records[i]
	s.meter.records = append(s.meter.records, &again)
	s.meter.byCustomer[again.customer] = append(s.meter.byCustomer[again.customer], &again)
	return true
}

// Total returns the units of a customer that all meters counted from one time and before another,
// whether or not they are in the summaries yet.
func (s *Stripe) Total(customer string, from, to time.Time) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settle()
	var total int64
	for _, r := range s.meter.byCustomer[customer] {
		if t := time.Unix(r.timestamp, 0); !r.lost && !t.Before(from) && t.Before(to) {
			total += r.value
		}
	}
	return total
}

// Events returns all counted events in the order of their first receipt.
func (s *Stripe) Events() []Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settle()
	return events(s.meter.records)
}

// Dropped returns the events that were answered with 200 and never counted.
func (s *Stripe) Dropped() []Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settle()
	return events(s.meter.dropped)
}

func events(records []*record) []Event {
	type same struct {
		identifier string
		stream
		value, timestamp int64
	}
	at := map[same]int{}
	var all []Event
	for _, r := range records {
		if r.lost {
			continue
		}
		k := same{r.identifier, r.stream, r.value, r.timestamp}
		i, known := at[k]
		if !known {
			i = len(all)
			at[k] = i
			all = append(all, Event{
				Identifier: r.identifier, EventName: r.eventName, Customer: r.customer, Value: r.value,
				Timestamp: time.Unix(r.timestamp, 0).UTC(), Received: r.received,
			})
		}
		all[i].Times++
	}
	return all
}

// MaxConcurrent returns the maximum number of simultaneous calls for each customer and one meter.
func (s *Stripe) MaxConcurrent() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	most := make(map[string]int, len(s.meter.most))
	for customer, n := range s.meter.most {
		most[customer] = n
	}
	return most
}
