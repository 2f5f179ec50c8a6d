package stripetest_test

import (
	"math/rand/v2"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"tollgate/models/billing/stripetest"
)

func TestSummaries(t *testing.T) {
	s := newStandIn(func(o *stripetest.Options) { o.Livemode = true })
	for i, e := range []struct {
		at    time.Time
		value string
	}{
		{start, "1"},
		{start.Add(59 * time.Second), "2"},
		{start.Add(time.Minute), "4"},
		{start.Add(-time.Second), "8"},
		{start.Add(-25 * time.Hour), "16"},
	} {
		s.must(t, post, event(strconv.Itoa(i), e.value, e.at), "")
	}
	for name, test := range map[string]struct {
		from, to time.Time
		sum      float64
		n        int
	}{
		"a minute":                    {start, start.Add(time.Minute), 3, 1},
		"the next minute":             {start.Add(time.Minute), start.Add(2 * time.Minute), 4, 1},
		"the minute before":           {start.Add(-time.Minute), start, 8, 1},
		"all":                         {start.Add(-48 * time.Hour), start.Add(time.Hour), 31, 1},
		"no usage, with a summary":    {start.Add(2 * time.Minute), start.Add(3 * time.Minute), 0, 1},
		"no usage, without a summary": {start.Add(3 * time.Minute), start.Add(4 * time.Minute), 0, 0},
	} {
		if sum, n := s.summary(t, test.from, test.to); sum != test.sum || n != test.n {
			t.Errorf("%s: %v in %d summaries", name, sum, n)
		}
	}

	list := "GET /v1/billing/meters/" + s.meter + "/event_summaries"
	unix := func(t time.Time) string { return strconv.FormatInt(t.Unix(), 10) }
	days := url.Values{
		"customer": {"cus_1"}, "start_time": {unix(start.AddDate(0, 0, -2))}, "end_time": {unix(start.AddDate(0, 0, 1))},
		"value_grouping_window": {"day"}, "limit": {"2"},
	}
	a := s.must(t, list, days, "")
	data := a.body["data"].([]any)
	if a.body["object"] != "list" || a.body["url"] != strings.TrimPrefix(list, "GET ") || a.body["has_more"] != true || len(data) != 2 {
		t.Fatalf("the days are %v", a.body)
	}
	newest := data[0].(map[string]any)
	if newest["aggregated_value"] != 7.0 || newest["start_time"] != float64(start.Unix()) ||
		newest["end_time"] != float64(start.AddDate(0, 0, 1).Unix()) ||
		newest["object"] != "billing.meter_event_summary" || newest["livemode"] != true || newest["meter"] != s.meter {
		t.Errorf("the newest day is %v", newest)
	}
	days.Set("starting_after", data[1].(map[string]any)["id"].(string))
	a = s.must(t, list, days, "")
	if data := a.body["data"].([]any); a.body["has_more"] != false || len(data) != 1 || data[0].(map[string]any)["aggregated_value"] != 16.0 {
		t.Errorf("the remaining days are %v", a.body)
	}
	days.Del("starting_after")
	days.Del("limit")
	days.Set("value_grouping_window", "hour")
	if a := s.must(t, list, days, ""); len(a.body["data"].([]any)) != 3 {
		t.Errorf("the hours are %v", a.body)
	}

	minute := start.Add(time.Minute)
	for name, test := range map[string]struct {
		from, to         string
		customer, window string
		status           int
		code, param      string
	}{
		"start within a minute": {from: unix(start.Add(time.Second)), to: unix(minute), customer: "cus_1", status: 400, param: "start_time"},
		"end within a minute":   {from: unix(start), to: unix(minute.Add(time.Second)), customer: "cus_1", status: 400, param: "end_time"},
		"end within an hour":    {from: unix(start), to: unix(minute), customer: "cus_1", window: "hour", status: 400, param: "end_time"},
		"start within a day": {from: unix(start.Add(time.Hour)), to: unix(start.Add(24 * time.Hour)), customer: "cus_1",
			window: "day", status: 400, param: "start_time"},
		"an unknown window": {from: unix(start), to: unix(minute), customer: "cus_1", window: "minute", status: 400,
			param: "value_grouping_window"},
		"end before start": {from: unix(minute), to: unix(start), customer: "cus_1", status: 400, param: "end_time"},
		"no end":           {from: unix(start), customer: "cus_1", status: 400, code: "parameter_missing", param: "end_time"},
		"an unknown customer": {from: unix(start), to: unix(minute), customer: "cus_9", status: 400, code: "resource_missing",
			param: "customer"},
	} {
		form := url.Values{"customer": {test.customer}, "start_time": {test.from}, "end_time": {test.to}}
		if test.window != "" {
			form.Set("value_grouping_window", test.window)
		}
		if a := s.must(t, list, form, ""); a.status != test.status || a.error("code") != test.code || a.error("param") != test.param {
			t.Errorf("%s: %d %v", name, a.status, a.body)
		}
	}
	if a := s.must(t, "GET /v1/billing/meters/mtr_9/event_summaries", days, ""); a.status != 404 || a.error("code") != "resource_missing" {
		t.Errorf("an unknown meter: %d %v", a.status, a.body)
	}
}

func TestSummariesLag(t *testing.T) {
	s := newStandIn(func(o *stripetest.Options) { o.Lag = stripetest.Uniform(time.Hour) })
	for i := range 100 {
		s.must(t, post, event(strconv.Itoa(i), "1", start), "")
	}
	before := 0.0
	grew := 0
	for range 61 {
		sum, _ := s.summary(t, start, start.Add(time.Minute))
		if sum < before {
			t.Fatalf("%v after %v", sum, before)
		}
		if sum > before {
			grew++
		}
		before = sum
		s.Add(time.Minute)
	}
	if before != 100 || grew < 20 || s.total() != 100 {
		t.Errorf("the sum is %v after growing %d times; the total is %d", before, grew, s.total())
	}
	s.SetLag(func(*rand.Rand) time.Duration { return 24 * time.Hour })
	s.must(t, post, event("later", "1", start), "")
	s.Add(24*time.Hour - 1)
	if sum, _ := s.summary(t, start, start.Add(time.Minute)); sum != 100 {
		t.Errorf("the sum is %v before a day", sum)
	}
	s.Add(1)
	if sum, _ := s.summary(t, start, start.Add(time.Minute)); sum != 101 {
		t.Errorf("the sum is %v after a day", sum)
	}
}

func TestMeters(t *testing.T) {
	s := newStandIn(nil)
	form := url.Values{
		"display_name": {"Replies"}, "event_name": {"replies"}, "default_aggregation[formula]": {"sum"},
		"customer_mapping[type]": {"by_id"}, "customer_mapping[event_payload_key]": {"person"}, "value_settings[event_payload_key]": {"units"},
	}
	made := s.must(t, "POST /v1/billing/meters", form, "k")
	id, _ := made.body["id"].(string)
	if made.status != 200 || id == "" || made.body["status"] != "active" || made.body["display_name"] != "Replies" {
		t.Fatalf("the new meter: %d %v", made.status, made.body)
	}
	if again := s.must(t, "POST /v1/billing/meters", form, "k"); !again.replayed || again.body["id"] != id {
		t.Errorf("the retry: %v", again.body)
	}
	if another := s.must(t, "POST /v1/billing/meters", form, "l"); another.status != 400 || another.error("param") != "event_name" {
		t.Errorf("a second meter with the name: %d %v", another.status, another.body)
	}
	if got := s.must(t, "GET /v1/billing/meters/"+id, nil, ""); got.body["event_name"] != "replies" {
		t.Errorf("the meter is %v", got.body)
	}
	if got := s.must(t, "POST /v1/billing/meters/"+id, url.Values{"display_name": {"Answers"}}, ""); got.body["display_name"] != "Answers" {
		t.Errorf("the updated meter is %v", got.body)
	}
	// The payload has the meter's own keys.
	own := url.Values{"event_name": {"replies"}, "payload[person]": {"cus_1"}, "payload[units]": {"2"}}
	if a := s.must(t, post, own, ""); a.status != 200 || s.total() != 2 {
		t.Errorf("an event with the meter's keys: %d %v", a.status, a.body)
	}
	if most := s.MaxConcurrent(); most["cus_1"] != 1 {
		t.Errorf("the maximum is %v", most)
	}
	s.must(t, "POST /v1/billing/meters/"+id+"/deactivate", nil, "")
	for status, n := range map[string]int{"": 2, "active": 1, "inactive": 1} {
		if a := s.must(t, "GET /v1/billing/meters", url.Values{"status": {status}}, ""); len(a.body["data"].([]any)) != n {
			t.Errorf("status %q: %v", status, a.body)
		}
	}
	s.must(t, "POST /v1/billing/meters/"+id+"/reactivate", nil, "")
	if a := s.must(t, post, own, ""); a.status != 200 {
		t.Errorf("an event after reactivation: %d %v", a.status, a.body)
	}
	first := s.must(t, "GET /v1/billing/meters", url.Values{"limit": {"1"}}, "")
	if first.body["has_more"] != true || first.body["data"].([]any)[0].(map[string]any)["id"] != id {
		t.Errorf("the first page is %v", first.body)
	}
	if a := s.must(t, "GET /v1/billing/meters", url.Values{"ending_before": {s.meter}}, ""); len(a.body["data"].([]any)) != 1 ||
		a.body["has_more"] != false {
		t.Errorf("the previous page is %v", a.body)
	}
	for name, wrong := range map[string][]string{
		"formula": {"default_aggregation[formula]", "max"}, "mapping": {"customer_mapping[type]", "by_name"},
		"window": {"event_time_window", "minute"}, "unknown": {"color", "red"}, "limit": {"limit", "3"},
	} {
		form := url.Values{"display_name": {"x"}, "event_name": {name}, "default_aggregation[formula]": {"sum"}}
		form.Set(wrong[0], wrong[1])
		if a := s.must(t, "POST /v1/billing/meters", form, ""); a.status != 400 || a.error("param") != wrong[0] {
			t.Errorf("%s: %d %v", name, a.status, a.body)
		}
	}
	if a := s.must(t, "GET /v1/unknown", nil, ""); a.status != 404 {
		t.Errorf("an unknown path: %d", a.status)
	}
}
