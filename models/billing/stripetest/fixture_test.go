package stripetest_test

import (
	"context"
	"encoding/json"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"tollgate/models/billing/stripetest"
)

// start is the start of a day.
var start = time.Date(2026, time.March, 10, 0, 0, 0, 0, time.UTC)

// clock is a clock that a test moves.
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

// standIn is a stand-in with two customers, a meter and a clock.
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

// answer is a response.
type answer struct {
	status   int
	body     map[string]any
	html     bool
	replayed bool
}

// error returns a field of the error.
func (a answer) error(field string) string {
	e, _ := a.body["error"].(map[string]any)
	text, _ := e[field].(string)
	return text
}

// do sends a request: "POST /v1/…" with a form, and with an Idempotency-Key unless it is empty.
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

// must sends a request that must be answered.
func (s *standIn) must(t *testing.T, call string, form url.Values, key string) answer {
	t.Helper()
	a, err := s.do(t, t.Context(), call, form, key)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

const post = "POST /v1/billing/meter_events"

// event returns a form, with changes in pairs. The value "-" removes a parameter.
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

// total returns all units counted for the customer.
func (s *standIn) total() int64 {
	return s.Total("cus_1", start.AddDate(-1, 0, 0), start.AddDate(1, 0, 0))
}

// summary returns the sum of the summaries in a time range, and their number.
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
