package stripetest_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"tollgate/models/billing/stripetest"
)

func TestMeterEventsAreChecked(t *testing.T) {
	const invalid, missing = "invalid_request_error", "resource_missing"
	for name, test := range map[string]struct {
		form                 url.Values
		status               int
		code, param, message string
	}{
		"valid":           {form: event("a", "3", start), status: 200},
		"no identifier":   {form: event("a", "3", start, "identifier", "-"), status: 200},
		"no timestamp":    {form: event("a", "3", start, "timestamp", "-"), status: 200},
		"35 days ago":     {form: event("a", "3", start.Add(-35*24*time.Hour)), status: 200},
		"5 minutes ahead": {form: event("a", "3", start.Add(5*time.Minute)), status: 200},
		"more than 35 days ago": {form: event("a", "3", start.Add(-35*24*time.Hour-time.Second)), status: 400,
			code: "timestamp_too_far_in_past", param: "timestamp"},
		"more than 5 minutes ahead": {form: event("a", "3", start.Add(5*time.Minute+time.Second)), status: 400,
			code: "timestamp_in_future", param: "timestamp"},
		"an invalid timestamp": {form: event("a", "3", start, "timestamp", "now"), status: 400, code: "parameter_invalid_integer",
			param: "timestamp"},
		"no event name": {form: event("a", "3", start, "event_name", "-"), status: 400, code: "parameter_missing",
			param: "event_name"},
		"an unknown event name": {form: event("a", "3", start, "event_name", "other"), status: 400, code: "no_meter",
			param: "event_name", message: "other"},
		"an inactive meter": {form: event("a", "3", start, "event_name", "old"), status: 400, code: "archived_meter",
			param: "event_name", message: "old"},
		"an unknown customer": {form: event("a", "3", start, "payload[stripe_customer_id]", "cus_9"), status: 400, code: missing,
			param: "payload[stripe_customer_id]", message: "No such customer: 'cus_9'"},
		"no customer": {form: event("a", "3", start, "payload[stripe_customer_id]", "-"), status: 400,
			code: "meter_event_no_customer_defined", param: "payload[stripe_customer_id]"},
		"no value": {form: event("a", "3", start, "payload[value]", "-"), status: 400,
			code: "meter_event_value_not_found", param: "payload[value]"},
		"half a unit": {form: event("a", "0.5", start), status: 400, code: "meter_event_invalid_value", param: "payload[value]"},
		"a value that is not a number": {form: event("a", "many", start), status: 400, code: "meter_event_invalid_value",
			param: "payload[value]"},
		"an identifier of 100": {form: event(strings.Repeat("é", 100), "3", start), status: 200},
		"an identifier of 101": {form: event(strings.Repeat("é", 101), "3", start), status: 400, code: "parameter_invalid_string",
			param: "identifier"},
		"an unknown parameter": {form: event("a", "3", start, "quantity", "1"), status: 400, code: "parameter_unknown", param: "quantity"},
		"an unknown field of payload": {form: event("a", "3", start, "payload[person]", "1"), status: 400, code: "parameter_unknown",
			param: "payload[person]"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStandIn(nil)
			old := s.AddMeter("old")
			if a := s.must(t, "POST /v1/billing/meters/"+old+"/deactivate", nil, ""); a.body["status"] != "inactive" {
				t.Fatalf("deactivated: %v", a.body)
			}
			a := s.must(t, post, test.form, "")
			if a.status != test.status || a.error("code") != test.code || a.error("param") != test.param ||
				!strings.Contains(a.error("message"), test.message) {
				t.Fatalf("the answer is %d %v", a.status, a.body)
			}
			want := int64(3)
			if test.status != 200 {
				want = 0
				if a.error("type") != invalid {
					t.Errorf("the type is %q", a.error("type"))
				}
			} else if a.body["object"] != "billing.meter_event" || a.body["identifier"] == "" || a.body["payload"].(map[string]any)["value"] != "3" {
				t.Errorf("the answer is %v", a.body)
			}
			if got := s.total(); got != want {
				t.Errorf("%d units are counted, want %d", got, want)
			}
		})
	}
}

func TestAnIdentifierIsUniqueForADay(t *testing.T) {
	s := newStandIn(nil)
	s.must(t, post, event("a", "3", start), "")
	s.Add(24*time.Hour - 1)
	a := s.must(t, post, event("a", "5", start), "")
	if a.status != 400 || a.error("type") != "invalid_request_error" || a.error("message") != "An event already exists with identifier a." {
		t.Fatalf("a second one: %d %v", a.status, a.body)
	}
	s.Add(1)
	if a := s.must(t, post, event("a", "3", start), ""); a.status != 200 {
		t.Fatalf("after a day: %d %v", a.status, a.body)
	}
	if s.total() != 6 {
		t.Errorf("the total is %d, want 6", s.total())
	}
	all := s.Events()
	if len(all) != 1 || all[0].Times != 2 || all[0].Identifier != "a" || all[0].Customer != "cus_1" || all[0].EventName != "suggestions" ||
		all[0].Value != 3 || !all[0].Timestamp.Equal(start) || !all[0].Received.Equal(start) {
		t.Errorf("the events are %+v", all)
	}
	// The second receipt is remembered for another day.
	s.Add(24*time.Hour - 1)
	if a := s.must(t, post, event("a", "3", start), ""); a.status != 400 {
		t.Errorf("within a day of the second: %d", a.status)
	}
}

func TestAnIdempotencyKeyKeepsTheFirstAnswer(t *testing.T) {
	s := newStandIn(nil)
	first := s.must(t, post, event("a", "3", start), "k")
	s.Add(24*time.Hour - 1)
	again := s.must(t, post, event("a", "3", start), "k")
	if again.status != 200 || !again.replayed || again.body["created"] != first.body["created"] {
		t.Errorf("the retry: %d %v", again.status, again.body)
	}
	other := s.must(t, post, event("b", "3", start), "k")
	if other.status != 400 || other.error("type") != "idempotency_error" {
		t.Errorf("other parameters: %d %v", other.status, other.body)
	}
	s.Add(1)
	if a := s.must(t, post, event("b", "4", start), "k"); a.status != 200 || a.replayed {
		t.Errorf("after a day: %d %v", a.status, a.body)
	}
	if s.total() != 7 {
		t.Errorf("the total is %d, want 7", s.total())
	}

	// The answer to a request that failed is stored. The one to an invalid request is not.
	for name, test := range map[string]struct {
		wrong, right url.Values
		stored       bool
	}{
		"a known identifier": {wrong: event("b", "4", start), right: event("b", "4", start), stored: true},
		"half a unit":        {wrong: event("c", "0.5", start), right: event("c", "5", start)},
	} {
		if a := s.must(t, post, test.wrong, name); a.status != 400 || a.replayed {
			t.Errorf("%s: %d", name, a.status)
		}
		if a := s.must(t, post, test.right, name); a.replayed != test.stored {
			t.Errorf("%s: stored is %t", name, a.replayed)
		}
	}
}

func TestOneCallAtATimeForACustomerAndMeter(t *testing.T) {
	arrived, leave := make(chan struct{}), make(chan struct{})
	s := newStandIn(func(o *stripetest.Options) {
		o.Wait = func(r *http.Request) {
			if r.Form.Get("identifier") == "a" {
				close(arrived)
				<-leave
			}
		}
	})
	s.AddMeter("other")
	done := make(chan answer)
	go func() { done <- s.must(t, post, event("a", "3", start), "") }()
	<-arrived
	if a := s.must(t, post, event("b", "3", start), "k"); a.status != 409 || a.error("code") != "lock_timeout" ||
		a.error("type") != "invalid_request_error" {
		t.Errorf("the second call: %d %v", a.status, a.body)
	}
	if a := s.must(t, post, event("c", "3", start, "payload[stripe_customer_id]", "cus_2"), ""); a.status != 200 {
		t.Errorf("another customer: %d %v", a.status, a.body)
	}
	if a := s.must(t, post, event("d", "3", start, "event_name", "other"), ""); a.status != 200 {
		t.Errorf("another meter: %d %v", a.status, a.body)
	}
	close(leave)
	if a := <-done; a.status != 200 {
		t.Errorf("the first call: %d %v", a.status, a.body)
	}
	if a := s.must(t, post, event("b", "3", start), "k"); a.status != 200 {
		t.Errorf("the second call again: %d %v", a.status, a.body)
	}
	if most := s.MaxConcurrent(); most["cus_1"] != 2 || most["cus_2"] != 1 {
		t.Errorf("the maximum is %v", most)
	}
}

func TestPlantedDifferences(t *testing.T) {
	s := newStandIn(nil)
	for _, id := range []string{"a", "b", "c"} {
		s.must(t, post, event(id, "10", start), "")
	}
	if !s.Lose("a") || s.Lose("a") || s.Lose("z") || !s.Double("b") || s.Double("z") {
		t.Error("Lose or Double reported a wrong result")
	}
	s.AddForeign("suggestions", "cus_1", 7, start.Add(30*time.Second))
	if sum, _ := s.summary(t, start, start.Add(time.Minute)); sum != 37 || s.total() != 37 {
		t.Errorf("the summary is %v, the total %d", sum, s.total())
	}
	times := map[string]int{}
	for _, e := range s.Events() {
		id, _, _ := strings.Cut(e.Identifier, ":")
		times[id] = e.Times
	}
	if times["a"] != 0 || times["b"] != 2 || times["c"] != 1 || times["foreign"] != 1 {
		t.Errorf("the counts are %v", times)
	}
	// The identifier of a lost event is still known.
	if a := s.must(t, post, event("a", "10", start), ""); a.status != 400 {
		t.Errorf("a lost event again: %d", a.status)
	}
}
