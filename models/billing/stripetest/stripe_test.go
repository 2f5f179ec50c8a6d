package stripetest_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"tollgate/models/billing/stripetest"
)

// start is a moment that is a whole day.
var start = time.Date(2026, time.March, 10, 0, 0, 0, 0, time.UTC)

// clock is a clock that a test turns.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) Add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// standIn is a stand-in with a customer, a meter and a clock.
type standIn struct {
	*stripetest.Stripe
	*clock
	meter string
}

func newStandIn(change func(*stripetest.Options)) *standIn {
	c := &clock{now: start}
	o := stripetest.Options{Now: c.Now, Rand: rand.New(rand.NewPCG(1, 2))}
	if change != nil {
		change(&o)
	}
	s := &standIn{Stripe: stripetest.New(o), clock: c}
	s.meter = s.AddMeter("suggestions")
	s.AddCustomer("cus_1", nil)
	s.AddCustomer("cus_2", map[string]string{"tollgate_user": "7"})
	return s
}

// answer is what came back.
type answer struct {
	status   int
	body     map[string]any
	html     bool
	replayed bool
}

// text is a field of the error.
func (a answer) error(field string) string {
	e, _ := a.body["error"].(map[string]any)
	text, _ := e[field].(string)
	return text
}

// do sends a request: "POST /v1/…" with a form, and an Idempotency-Key unless it is empty.
func (s *standIn) do(t *testing.T, ctx context.Context, call string, form url.Values, key string) (answer, error) {
	t.Helper()
	method, path, _ := strings.Cut(call, " ")
	var body io.Reader
	if method == http.MethodPost {
		body = strings.NewReader(form.Encode())
	} else if len(form) > 0 {
		path += "?" + form.Encode()
	}
	r, err := http.NewRequestWithContext(ctx, method, "http://stripe.test"+path, body)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer sk_test_1")
	if method == http.MethodPost {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if key != "" {
		r.Header.Set("Idempotency-Key", key)
	}
	res, err := (&http.Client{Transport: s.Transport()}).Do(r)
	if err != nil {
		return answer{}, err
	}
	return read(t, res), nil
}

func read(t *testing.T, res *http.Response) answer {
	t.Helper()
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	a := answer{status: res.StatusCode, replayed: res.Header.Get("Idempotent-Replayed") == "true"}
	if strings.HasPrefix(res.Header.Get("Content-Type"), "text/html") {
		a.html = true
		return a
	}
	if err := json.Unmarshal(text, &a.body); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return a
}

// must sends a request that is answered.
func (s *standIn) must(t *testing.T, call string, form url.Values, key string) answer {
	t.Helper()
	a, err := s.do(t, t.Context(), call, form, key)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

const post = "POST /v1/billing/meter_events"

// event is a form, with changes by pairs: a value of "-" leaves the parameter out.
func event(identifier, value string, at time.Time, changes ...string) url.Values {
	form := url.Values{
		"event_name": {"suggestions"}, "identifier": {identifier}, "timestamp": {strconv.FormatInt(at.Unix(), 10)},
		"payload[stripe_customer_id]": {"cus_1"}, "payload[value]": {value},
	}
	for i := 0; i < len(changes); i += 2 {
		form.Set(changes[i], changes[i+1])
		if changes[i+1] == "-" {
			form.Del(changes[i])
		}
	}
	return form
}

// total is all that was counted of the customer.
func (s *standIn) total() int64 {
	return s.Total("cus_1", start.AddDate(-1, 0, 0), start.AddDate(1, 0, 0))
}

// summary is what the summaries say of a time, and how many there are.
func (s *standIn) summary(t *testing.T, from, to time.Time) (sum float64, n int) {
	t.Helper()
	a := s.must(t, "GET /v1/billing/meters/"+s.meter+"/event_summaries", url.Values{
		"customer": {"cus_1"}, "start_time": {strconv.FormatInt(from.Unix(), 10)}, "end_time": {strconv.FormatInt(to.Unix(), 10)},
	}, "")
	if a.status != http.StatusOK {
		t.Fatalf("summaries: %d %v", a.status, a.body)
	}
	for _, d := range a.body["data"].([]any) {
		sum += d.(map[string]any)["aggregated_value"].(float64)
		n++
	}
	return sum, n
}

func TestWhatAMeterEventMustBe(t *testing.T) {
	const invalid, missing = "invalid_request_error", "resource_missing"
	for name, test := range map[string]struct {
		form                url.Values
		status              int
		code, param, saying string
	}{
		"well":                        {form: event("a", "3", start), status: 200},
		"no identifier":               {form: event("a", "3", start, "identifier", "-"), status: 200},
		"no timestamp":                {form: event("a", "3", start, "timestamp", "-"), status: 200},
		"35 days ago":                 {form: event("a", "3", start.Add(-35*24*time.Hour)), status: 200},
		"5 minutes ahead":             {form: event("a", "3", start.Add(5*time.Minute)), status: 200},
		"more than 35 days ago":       {form: event("a", "3", start.Add(-35*24*time.Hour-time.Second)), status: 400, code: "timestamp_too_far_in_past", param: "timestamp"},
		"more than 5 minutes ahead":   {form: event("a", "3", start.Add(5*time.Minute+time.Second)), status: 400, code: "timestamp_in_future", param: "timestamp"},
		"a timestamp that is none":    {form: event("a", "3", start, "timestamp", "now"), status: 400, code: "parameter_invalid_integer", param: "timestamp"},
		"no event name":               {form: event("a", "3", start, "event_name", "-"), status: 400, code: "parameter_missing", param: "event_name"},
		"an unknown event name":       {form: event("a", "3", start, "event_name", "other"), status: 400, code: "no_meter", param: "event_name", saying: "other"},
		"an inactive meter":           {form: event("a", "3", start, "event_name", "old"), status: 400, code: "archived_meter", param: "event_name", saying: "old"},
		"an unknown customer":         {form: event("a", "3", start, "payload[stripe_customer_id]", "cus_9"), status: 400, code: missing, param: "payload[stripe_customer_id]", saying: "No such customer: 'cus_9'"},
		"no customer":                 {form: event("a", "3", start, "payload[stripe_customer_id]", "-"), status: 400, code: "meter_event_no_customer_defined", param: "payload[stripe_customer_id]"},
		"no value":                    {form: event("a", "3", start, "payload[value]", "-"), status: 400, code: "meter_event_value_not_found", param: "payload[value]"},
		"half a unit":                 {form: event("a", "0.5", start), status: 400, code: "meter_event_invalid_value", param: "payload[value]"},
		"a value that is no number":   {form: event("a", "many", start), status: 400, code: "meter_event_invalid_value", param: "payload[value]"},
		"an identifier of 100":        {form: event(strings.Repeat("é", 100), "3", start), status: 200},
		"an identifier of 101":        {form: event(strings.Repeat("é", 101), "3", start), status: 400, code: "parameter_invalid_string", param: "identifier"},
		"an unknown parameter":        {form: event("a", "3", start, "quantity", "1"), status: 400, code: "parameter_unknown", param: "quantity"},
		"an unknown field of payload": {form: event("a", "3", start, "payload[who]", "1"), status: 400, code: "parameter_unknown", param: "payload[who]"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStandIn(nil)
			old := s.AddMeter("old")
			if a := s.must(t, "POST /v1/billing/meters/"+old+"/deactivate", nil, ""); a.body["status"] != "inactive" {
				t.Fatalf("deactivated: %v", a.body)
			}
			a := s.must(t, post, test.form, "")
			if a.status != test.status || a.error("code") != test.code || a.error("param") != test.param || !strings.Contains(a.error("message"), test.saying) {
				t.Fatalf("answered %d %v", a.status, a.body)
			}
			want := int64(3)
			if test.status != 200 {
				want = 0
				if a.error("type") != invalid {
					t.Errorf("type %q", a.error("type"))
				}
			} else if a.body["object"] != "billing.meter_event" || a.body["identifier"] == "" || a.body["payload"].(map[string]any)["value"] != "3" {
				t.Errorf("answered %v", a.body)
			}
			if got := s.total(); got != want {
				t.Errorf("counted %d, not %d", got, want)
			}
		})
	}
}

func TestAnIdentifierIsUniqueForExactlyADay(t *testing.T) {
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
		t.Errorf("total %d", s.total())
	}
	all := s.Events()
	if len(all) != 1 || all[0].Times != 2 || all[0].Identifier != "a" || all[0].Customer != "cus_1" || all[0].EventName != "suggestions" ||
		all[0].Value != 3 || !all[0].Timestamp.Equal(start) || !all[0].Received.Equal(start) {
		t.Errorf("events %+v", all)
	}
	// The second receipt is remembered for a day of its own.
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
		t.Errorf("again: %d %v", again.status, again.body)
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
		t.Errorf("total %d", s.total())
	}

	// What failed for good is kept, and what never began is not.
	for name, test := range map[string]struct {
		wrong, right url.Values
		kept         bool
	}{
		"a known identifier": {wrong: event("b", "4", start), right: event("b", "4", start), kept: true},
		"half a unit":        {wrong: event("c", "0.5", start), right: event("c", "5", start)},
	} {
		if a := s.must(t, post, test.wrong, name); a.status != 400 || a.replayed {
			t.Errorf("%s: %d", name, a.status)
		}
		if a := s.must(t, post, test.right, name); a.replayed != test.kept {
			t.Errorf("%s: kept %t", name, a.replayed)
		}
	}
}

func TestFaults(t *testing.T) {
	for fault, test := range map[stripetest.Fault]struct {
		// status is 0 for a broken connection, counted what is by then; and after an hour; and the status of a second try
		// with another Idempotency-Key, and with the same.
		status         int
		html           bool
		code           string
		now, later     int64
		another, again int
	}{
		stripetest.None:        {status: 200, now: 3, later: 3, another: 400, again: 200},
		stripetest.LostBefore:  {another: 200, again: 200},
		stripetest.LostAfter:   {now: 3, later: 3, another: 400, again: 200},
		stripetest.Late:        {later: 3, another: 400, again: 200},
		stripetest.ErrorBefore: {status: 500, another: 200, again: 500},
		stripetest.ErrorAfter:  {status: 500, now: 3, later: 3, another: 400, again: 500},
		stripetest.HTMLBefore:  {status: 200, html: true, another: 200, again: 200},
		stripetest.HTMLAfter:   {status: 200, html: true, now: 3, later: 3, another: 400, again: 200},
		stripetest.Conflict:    {status: 409, code: "lock_timeout", another: 200, again: 200},
		stripetest.LockTimeout: {status: 429, code: "lock_timeout", another: 200, again: 200},
		stripetest.TooFast:     {status: 429, code: "rate_limit", another: 200, again: 200},
		stripetest.Dropped:     {status: 200, another: 400, again: 200},
		stripetest.Stall:       {another: 200, again: 200},
	} {
		for _, same := range []bool{false, true} {
			t.Run(fault.String()+" "+strconv.FormatBool(same), func(t *testing.T) {
				stalled := false
				s := newStandIn(func(o *stripetest.Options) { o.Stall = func(context.Context) { stalled = true } })
				s.SetFault(func(r *http.Request, form url.Values) stripetest.Fault {
					if r.Method != http.MethodPost || form.Get("identifier") != "a" {
						t.Errorf("asked about %s %v", r.Method, form)
					}
					return fault
				})
				a, err := s.do(t, t.Context(), post, event("a", "3", start), "k")
				s.SetFault(nil)
				if (test.status == 0) != errors.Is(err, stripetest.ErrLost) || a.status != test.status || a.html != test.html || a.error("code") != test.code {
					t.Errorf("answered %d %v, %v", a.status, a.body, err)
				}
				if stalled != (fault == stripetest.Stall) {
					t.Errorf("stalled: %t", stalled)
				}
				if got := s.total(); got != test.now {
					t.Errorf("counted %d, not %d", got, test.now)
				}
				if late := s.Pending(); (late == 1) != (fault == stripetest.Late) {
					t.Errorf("%d are late", late)
				}
				s.Add(time.Hour)
				s.Settle()
				if got := s.total(); got != test.later {
					t.Errorf("an hour later counted %d, not %d", got, test.later)
				}
				key, want := "l", test.another
				if same {
					key, want = "k", test.again
				}
				if a := s.must(t, post, event("a", "3", start), key); a.status != want {
					t.Errorf("again with key %s: %d %v, not %d", key, a.status, a.body, want)
				}
				want3 := int64(3)
				if fault == stripetest.Dropped || (same && fault == stripetest.ErrorBefore) {
					want3 = 0
				}
				if got := s.total(); got != want3 {
					t.Errorf("counted %d in the end, not %d", got, want3)
				}
				if dropped := s.Dropped(); (len(dropped) == 1) != (fault == stripetest.Dropped) {
					t.Errorf("dropped %v", dropped)
				}
			})
		}
	}
}

func TestALateEffectFollowsTheRulesOfItsMoment(t *testing.T) {
	s := newStandIn(nil)
	late := func(form url.Values, key string) {
		t.Helper()
		s.SetFault(func(*http.Request, url.Values) stripetest.Fault { return stripetest.Late })
		if _, err := s.do(t, t.Context(), post, form, key); !errors.Is(err, stripetest.ErrLost) {
			t.Fatal(err)
		}
		s.SetFault(nil)
	}
	// While it is on its way, its key is in use, and whoever comes first has the identifier.
	late(event("a", "3", start), "k")
	if a := s.must(t, post, event("a", "3", start), "k"); a.status != 409 || a.error("code") != "idempotency_key_in_use" {
		t.Errorf("the same key: %d %v", a.status, a.body)
	}
	if a := s.must(t, post, event("a", "3", start), "l"); a.status != 200 {
		t.Errorf("another key: %d %v", a.status, a.body)
	}
	s.Add(time.Hour)
	if s.total() != 3 || s.Pending() != 0 {
		t.Errorf("total %d, pending %d", s.total(), s.Pending())
	}
	if a := s.must(t, post, event("a", "3", start), "k"); a.status != 400 || !a.replayed {
		t.Errorf("the late one was answered %d", a.status)
	}
	// It comes within the hour, at a moment of its own.
	late(event("b", "1", start), "m")
	for range 60 {
		s.Add(time.Minute)
		s.Settle()
	}
	all := s.Events()
	if received := all[1].Received; all[1].Identifier != "b" || !received.After(start.Add(time.Hour)) || received.After(start.Add(2*time.Hour)) {
		t.Errorf("events %+v", all)
	}
	// One that has become too old by then is refused.
	late(event("c", "1", start.Add(2*time.Hour-35*24*time.Hour)), "n")
	s.Add(time.Hour)
	if s.Settle(); len(s.Events()) != 2 {
		t.Errorf("events %+v", s.Events())
	}
}

func TestHowLateALateEffectIs(t *testing.T) {
	s := newStandIn(func(o *stripetest.Options) { o.Latest = time.Second })
	s.SetFault(func(*http.Request, url.Values) stripetest.Fault { return stripetest.Late })
	if _, err := s.do(t, t.Context(), post, event("a", "3", start), ""); !errors.Is(err, stripetest.ErrLost) || s.total() != 0 {
		t.Errorf("%v, total %d", err, s.total())
	}
	s.Add(time.Second)
	if s.total() != 3 {
		t.Errorf("total %d", s.total())
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
	if a := s.must(t, post, event("b", "3", start), "k"); a.status != 409 || a.error("code") != "lock_timeout" || a.error("type") != "invalid_request_error" {
		t.Errorf("the second: %d %v", a.status, a.body)
	}
	if a := s.must(t, post, event("c", "3", start, "payload[stripe_customer_id]", "cus_2"), ""); a.status != 200 {
		t.Errorf("another customer: %d %v", a.status, a.body)
	}
	if a := s.must(t, post, event("d", "3", start, "event_name", "other"), ""); a.status != 200 {
		t.Errorf("another meter: %d %v", a.status, a.body)
	}
	close(leave)
	if a := <-done; a.status != 200 {
		t.Errorf("the first: %d %v", a.status, a.body)
	}
	if a := s.must(t, post, event("b", "3", start), "k"); a.status != 200 {
		t.Errorf("the second, again: %d %v", a.status, a.body)
	}
	if most := s.MaxConcurrent(); most["cus_1"] != 2 || most["cus_2"] != 1 {
		t.Errorf("most %v", most)
	}
}

func TestAKeyThatIsNotTheOne(t *testing.T) {
	s := newStandIn(nil)
	s.SetKey("sk_test_2")
	if a := s.must(t, post, event("a", "3", start), "k"); a.status != 401 || a.error("type") != "invalid_request_error" {
		t.Errorf("%d %v", a.status, a.body)
	}
	s.SetKey("sk_test_1")
	if a := s.must(t, post, event("a", "3", start), "k"); a.status != 200 || a.replayed {
		t.Errorf("%d %v", a.status, a.body)
	}
}

func TestAnOutage(t *testing.T) {
	s := newStandIn(nil)
	s.SetOutage(true)
	for _, call := range []string{post, "GET /v1/account"} {
		if _, err := s.do(t, t.Context(), call, nil, ""); !errors.Is(err, stripetest.ErrLost) {
			t.Errorf("%s: %v", call, err)
		}
	}
	s.SetOutage(false)
	if a := s.must(t, "GET /v1/account", nil, ""); a.body["id"] != "acct_standin" {
		t.Errorf("account: %v", a.body)
	}
	s.SetAccount("acct_2")
	if a := s.must(t, "GET /v1/account", nil, ""); a.body["id"] != "acct_2" {
		t.Errorf("account: %v", a.body)
	}
	calls := s.Calls()
	if calls[post] != 1 || calls["GET /v1/account"] != 3 {
		t.Errorf("calls %v", calls)
	}
}

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
		"a minute":           {start, start.Add(time.Minute), 3, 1},
		"the next":           {start.Add(time.Minute), start.Add(2 * time.Minute), 4, 1},
		"the one before":     {start.Add(-time.Minute), start, 8, 1},
		"all":                {start.Add(-48 * time.Hour), start.Add(time.Hour), 31, 1},
		"nothing, every 2nd": {start.Add(2 * time.Minute), start.Add(3 * time.Minute), 0, 1},
		"nothing, the other": {start.Add(3 * time.Minute), start.Add(4 * time.Minute), 0, 0},
	} {
		if sum, n := s.summary(t, test.from, test.to); sum != test.sum || n != test.n {
			t.Errorf("%s: %v in %d", name, sum, n)
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
		t.Fatalf("days: %v", a.body)
	}
	newest := data[0].(map[string]any)
	if newest["aggregated_value"] != 7.0 || newest["start_time"] != float64(start.Unix()) || newest["end_time"] != float64(start.AddDate(0, 0, 1).Unix()) ||
		newest["object"] != "billing.meter_event_summary" || newest["livemode"] != true || newest["meter"] != s.meter {
		t.Errorf("newest day: %v", newest)
	}
	days.Set("starting_after", data[1].(map[string]any)["id"].(string))
	a = s.must(t, list, days, "")
	if data := a.body["data"].([]any); a.body["has_more"] != false || len(data) != 1 || data[0].(map[string]any)["aggregated_value"] != 16.0 {
		t.Errorf("the rest: %v", a.body)
	}
	days.Del("starting_after")
	days.Del("limit")
	days.Set("value_grouping_window", "hour")
	if a := s.must(t, list, days, ""); len(a.body["data"].([]any)) != 3 {
		t.Errorf("hours: %v", a.body)
	}

	minute := start.Add(time.Minute)
	for name, test := range map[string]struct {
		from, to         string
		customer, window string
		status           int
		code, param      string
	}{
		"not a whole minute":       {from: unix(start.Add(time.Second)), to: unix(minute), customer: "cus_1", status: 400, param: "start_time"},
		"not up to a whole minute": {from: unix(start), to: unix(minute.Add(time.Second)), customer: "cus_1", status: 400, param: "end_time"},
		"not a whole hour":         {from: unix(start), to: unix(minute), customer: "cus_1", window: "hour", status: 400, param: "end_time"},
		"not a whole day":          {from: unix(start.Add(time.Hour)), to: unix(start.Add(24 * time.Hour)), customer: "cus_1", window: "day", status: 400, param: "start_time"},
		"no window of Stripe's":    {from: unix(start), to: unix(minute), customer: "cus_1", window: "minute", status: 400, param: "value_grouping_window"},
		"backwards":                {from: unix(minute), to: unix(start), customer: "cus_1", status: 400, param: "end_time"},
		"no end":                   {from: unix(start), customer: "cus_1", status: 400, code: "parameter_missing", param: "end_time"},
		"nobody":                   {from: unix(start), to: unix(minute), customer: "cus_9", status: 400, code: "resource_missing", param: "customer"},
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
		t.Errorf("no such meter: %d %v", a.status, a.body)
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
		t.Errorf("%v in the end, after growing %d times; total %d", before, grew, s.total())
	}
	s.SetLag(func(*rand.Rand) time.Duration { return 24 * time.Hour })
	s.must(t, post, event("later", "1", start), "")
	s.Add(24*time.Hour - 1)
	if sum, _ := s.summary(t, start, start.Add(time.Minute)); sum != 100 {
		t.Errorf("%v before a day", sum)
	}
	s.Add(1)
	if sum, _ := s.summary(t, start, start.Add(time.Minute)); sum != 101 {
		t.Errorf("%v after a day", sum)
	}
}

func TestMeters(t *testing.T) {
	s := newStandIn(nil)
	form := url.Values{
		"display_name": {"Replies"}, "event_name": {"replies"}, "default_aggregation[formula]": {"sum"},
		"customer_mapping[type]": {"by_id"}, "customer_mapping[event_payload_key]": {"who"}, "value_settings[event_payload_key]": {"units"},
	}
	made := s.must(t, "POST /v1/billing/meters", form, "k")
	id, _ := made.body["id"].(string)
	if made.status != 200 || id == "" || made.body["status"] != "active" || made.body["display_name"] != "Replies" {
		t.Fatalf("made: %d %v", made.status, made.body)
	}
	if again := s.must(t, "POST /v1/billing/meters", form, "k"); !again.replayed || again.body["id"] != id {
		t.Errorf("again: %v", again.body)
	}
	if another := s.must(t, "POST /v1/billing/meters", form, "l"); another.status != 400 || another.error("param") != "event_name" {
		t.Errorf("a second of the name: %d %v", another.status, another.body)
	}
	if got := s.must(t, "GET /v1/billing/meters/"+id, nil, ""); got.body["event_name"] != "replies" {
		t.Errorf("got %v", got.body)
	}
	if got := s.must(t, "POST /v1/billing/meters/"+id, url.Values{"display_name": {"Answers"}}, ""); got.body["display_name"] != "Answers" {
		t.Errorf("updated %v", got.body)
	}
	// The payload's names are the meter's.
	own := url.Values{"event_name": {"replies"}, "payload[who]": {"cus_1"}, "payload[units]": {"2"}}
	if a := s.must(t, post, own, ""); a.status != 200 || s.total() != 2 {
		t.Errorf("its own names: %d %v", a.status, a.body)
	}
	if most := s.MaxConcurrent(); most["cus_1"] != 1 {
		t.Errorf("most %v", most)
	}
	s.must(t, "POST /v1/billing/meters/"+id+"/deactivate", nil, "")
	for status, n := range map[string]int{"": 2, "active": 1, "inactive": 1} {
		if a := s.must(t, "GET /v1/billing/meters", url.Values{"status": {status}}, ""); len(a.body["data"].([]any)) != n {
			t.Errorf("status %q: %v", status, a.body)
		}
	}
	s.must(t, "POST /v1/billing/meters/"+id+"/reactivate", nil, "")
	if a := s.must(t, post, own, ""); a.status != 200 {
		t.Errorf("reactivated: %d %v", a.status, a.body)
	}
	first := s.must(t, "GET /v1/billing/meters", url.Values{"limit": {"1"}}, "")
	if first.body["has_more"] != true || first.body["data"].([]any)[0].(map[string]any)["id"] != id {
		t.Errorf("first page: %v", first.body)
	}
	if a := s.must(t, "GET /v1/billing/meters", url.Values{"ending_before": {s.meter}}, ""); len(a.body["data"].([]any)) != 1 || a.body["has_more"] != false {
		t.Errorf("the page before: %v", a.body)
	}
	for name, wrong := range map[string][]string{
		"formula": {"default_aggregation[formula]", "max"}, "mapping": {"customer_mapping[type]", "by_name"},
		"window": {"event_time_window", "minute"}, "unknown": {"colour", "red"}, "limit": {"limit", "3"},
	} {
		form := url.Values{"display_name": {"x"}, "event_name": {name}, "default_aggregation[formula]": {"sum"}}
		form.Set(wrong[0], wrong[1])
		if a := s.must(t, "POST /v1/billing/meters", form, ""); a.status != 400 || a.error("param") != wrong[0] {
			t.Errorf("%s: %d %v", name, a.status, a.body)
		}
	}
	if a := s.must(t, "GET /v1/unknown", nil, ""); a.status != 404 {
		t.Errorf("unknown path: %d", a.status)
	}
}

func TestPlantedDifferences(t *testing.T) {
	s := newStandIn(nil)
	for _, id := range []string{"a", "b", "c"} {
		s.must(t, post, event(id, "10", start), "")
	}
	if !s.Lose("a") || s.Lose("a") || s.Lose("z") || !s.Double("b") || s.Double("z") {
		t.Error("what was there was not found, or what was not was")
	}
	s.AddForeign("cus_1", 7, start.Add(30*time.Second))
	if sum, _ := s.summary(t, start, start.Add(time.Minute)); sum != 37 || s.total() != 37 {
		t.Errorf("summary %v, total %d", sum, s.total())
	}
	times := map[string]int{}
	for _, e := range s.Events() {
		id, _, _ := strings.Cut(e.Identifier, ":")
		times[id] = e.Times
	}
	if times["a"] != 0 || times["b"] != 2 || times["c"] != 1 || times["foreign"] != 1 {
		t.Errorf("times %v", times)
	}
	// It is known all the same.
	if a := s.must(t, post, event("a", "10", start), ""); a.status != 400 {
		t.Errorf("a lost one again: %d", a.status)
	}
}

func TestAMixIsTheSameForTheSameSeed(t *testing.T) {
	run := func() (string, map[string]int) {
		r := rand.New(rand.NewPCG(7, 7))
		s := newStandIn(func(o *stripetest.Options) {
			o.Rand = r
			o.Fault = stripetest.Mix(r, 0.25)
			o.Lag = stripetest.Uniform(time.Hour)
		})
		var story strings.Builder
		kinds := map[string]int{}
		for i := range 2000 {
			a, err := s.do(t, t.Context(), post, event(strconv.Itoa(i), "1", start), strconv.Itoa(i))
			kind := strconv.Itoa(a.status)
			if err != nil {
				kind = "lost"
			} else if a.html {
				kind = "html"
			}
			kinds[kind]++
			story.WriteString(kind)
			s.Add(time.Second)
		}
		s.Add(time.Hour)
		story.WriteString(strconv.FormatInt(s.total(), 10))
		return story.String(), kinds
	}
	first, kinds := run()
	if second, _ := run(); first != second {
		t.Error("two runs differ")
	}
	if kinds["200"] < 1400 || kinds["200"] > 1600 {
		t.Errorf("kinds %v", kinds)
	}
	for _, kind := range []string{"lost", "html", "500", "409", "429"} {
		if kinds[kind] == 0 {
			t.Errorf("no %s in %v", kind, kinds)
		}
	}
}

func TestAStalledCallEndsWithItsContext(t *testing.T) {
	s := newStandIn(nil)
	s.SetFault(func(*http.Request, url.Values) stripetest.Fault { return stripetest.Stall })
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		_, err := s.do(t, ctx, post, event("a", "3", start), "")
		done <- err
	}()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if s.total() != 0 {
		t.Errorf("total %d", s.total())
	}
}

func TestOverSockets(t *testing.T) {
	arrived := make(chan struct{})
	s := newStandIn(nil)
	server := httptest.NewServer(s.Stripe)
	defer server.Close()
	send := func(ctx context.Context, identifier string) (answer, error) {
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, server.URL+"/v1/billing/meter_events", strings.NewReader(event(identifier, "3", start).Encode()))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer sk_test_1")
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		res, err := server.Client().Do(r)
		if err != nil {
			return answer{}, err
		}
		return read(t, res), nil
	}
	fault := func(f stripetest.Fault) {
		s.SetFault(func(*http.Request, url.Values) stripetest.Fault {
			if f == stripetest.Stall {
				close(arrived)
			}
			return f
		})
	}
	if a, err := send(t.Context(), "a"); err != nil || a.status != 200 {
		t.Errorf("%d %v", a.status, err)
	}
	fault(stripetest.LostBefore)
	if _, err := send(t.Context(), "b"); err == nil || s.total() != 3 {
		t.Errorf("lost before: %v, total %d", err, s.total())
	}
	fault(stripetest.LostAfter)
	if _, err := send(t.Context(), "c"); err == nil || s.total() != 6 {
		t.Errorf("lost after: %v, total %d", err, s.total())
	}
	fault(stripetest.HTMLAfter)
	if a, err := send(t.Context(), "d"); err != nil || !a.html || s.total() != 9 {
		t.Errorf("html: %v, total %d", err, s.total())
	}
	fault(stripetest.Stall)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-arrived
		cancel()
	}()
	if _, err := send(ctx, "e"); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	s.SetFault(nil)
	if s.total() != 9 {
		t.Errorf("total %d", s.total())
	}
}
