package stripetest_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"tollgate/models/billing/stripetest"
)

func TestFaults(t *testing.T) {
	for fault, test := range map[stripetest.Fault]struct {
		// status is 0 for a broken connection. now and later are the units counted immediately and after
		// an hour. another and again are the statuses of a retry with another Idempotency-Key and with
		// the same one.
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
						t.Errorf("SetFault's function got %s %v", r.Method, form)
					}
					return fault
				})
				a, err := s.do(t, t.Context(), post, event("a", "3", start), "k")
				s.SetFault(nil)
				if (test.status == 0) != errors.Is(err, stripetest.ErrLost) || a.status != test.status || a.html != test.html ||
					a.error("code") != test.code {
					t.Errorf("the answer is %d %v, %v", a.status, a.body, err)
				}
				if stalled != (fault == stripetest.Stall) {
					t.Errorf("stalled is %t", stalled)
				}
				if got := s.total(); got != test.now {
					t.Errorf("%d units are counted, want %d", got, test.now)
				}
				if late := s.Pending(); (late == 1) != (fault == stripetest.Late) {
					t.Errorf("%d requests are late", late)
				}
				s.Add(time.Hour)
				s.Settle()
				if got := s.total(); got != test.later {
					t.Errorf("an hour later, %d units are counted, want %d", got, test.later)
				}
				key, want := "l", test.another
				if same {
					key, want = "k", test.again
				}
				if a := s.must(t, post, event("a", "3", start), key); a.status != want {
					t.Errorf("a retry with key %s: %d %v, want %d", key, a.status, a.body, want)
				}
				want3 := int64(3)
				if fault == stripetest.Dropped || (same && fault == stripetest.ErrorBefore) {
					want3 = 0
				}
				if got := s.total(); got != want3 {
					t.Errorf("in the end, %d units are counted, want %d", got, want3)
				}
				if dropped := s.Dropped(); (len(dropped) == 1) != (fault == stripetest.Dropped) {
					t.Errorf("the dropped events are %v", dropped)
				}
			})
		}
	}
}

func TestALateEffectFollowsTheRulesOfItsTime(t *testing.T) {
	s := newStandIn(nil)
	late := func(form url.Values, key string) {
		t.Helper()
		s.SetFault(func(*http.Request, url.Values) stripetest.Fault { return stripetest.Late })
		if _, err := s.do(t, t.Context(), post, form, key); !errors.Is(err, stripetest.ErrLost) {
			t.Fatal(err)
		}
		s.SetFault(nil)
	}
	// While the request is on its way, its key is in use. Its identifier belongs to the first event
	// that arrives.
	late(event("a", "3", start), "k")
	if a := s.must(t, post, event("a", "3", start), "k"); a.status != 409 || a.error("code") != "idempotency_key_in_use" {
		t.Errorf("the same key: %d %v", a.status, a.body)
	}
	if a := s.must(t, post, event("a", "3", start), "l"); a.status != 200 {
		t.Errorf("another key: %d %v", a.status, a.body)
	}
	s.Add(time.Hour)
	if s.total() != 3 || s.Pending() != 0 {
		t.Errorf("the total is %d, and %d requests are pending", s.total(), s.Pending())
	}
	if a := s.must(t, post, event("a", "3", start), "k"); a.status != 400 || !a.replayed {
		t.Errorf("the late request was answered with %d", a.status)
	}
	// A late effect happens within the hour, at a random time.
	late(event("b", "1", start), "m")
	for range 60 {
		s.Add(time.Minute)
		s.Settle()
	}
	all := s.Events()
	if received := all[1].Received; all[1].Identifier != "b" || !received.After(start.Add(time.Hour)) ||
		received.After(start.Add(2*time.Hour)) {
		t.Errorf("the events are %+v", all)
	}
	// An event that is too old by then is refused.
	late(event("c", "1", start.Add(2*time.Hour-35*24*time.Hour)), "n")
	s.Add(time.Hour)
	if s.Settle(); len(s.Events()) != 2 {
		t.Errorf("the events are %+v", s.Events())
	}
}

func TestLatestTimeOfALateEffect(t *testing.T) {
	s := newStandIn(func(o *stripetest.Options) { o.Latest = time.Second })
	s.SetFault(func(*http.Request, url.Values) stripetest.Fault { return stripetest.Late })
	if _, err := s.do(t, t.Context(), post, event("a", "3", start), ""); !errors.Is(err, stripetest.ErrLost) || s.total() != 0 {
		t.Errorf("the error is %v, the total %d", err, s.total())
	}
	s.Add(time.Second)
	if s.total() != 3 {
		t.Errorf("the total is %d, want 3", s.total())
	}
}

func TestAnInvalidKey(t *testing.T) {
	s := newStandIn(nil)
	s.SetKey("sk_test_2")
	if a := s.must(t, post, event("a", "3", start), "k"); a.status != 401 || a.error("type") != "invalid_request_error" {
		t.Errorf("an invalid key: %d %v", a.status, a.body)
	}
	s.SetKey("sk_test_1")
	if a := s.must(t, post, event("a", "3", start), "k"); a.status != 200 || a.replayed {
		t.Errorf("a valid key: %d %v", a.status, a.body)
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
		t.Errorf("the account is %v", a.body)
	}
	s.SetAccount("acct_2")
	if a := s.must(t, "GET /v1/account", nil, ""); a.body["id"] != "acct_2" {
		t.Errorf("the account is %v", a.body)
	}
	calls := s.Calls()
	if calls[post] != 1 || calls["GET /v1/account"] != 3 {
		t.Errorf("the calls are %v", calls)
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
		t.Errorf("the kinds of answers are %v", kinds)
	}
	for _, kind := range []string{"lost", "html", "500", "409", "429"} {
		if kinds[kind] == 0 {
			t.Errorf("there is no %s in %v", kind, kinds)
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
		t.Errorf("the total is %d, want 0", s.total())
	}
}

func TestOverSockets(t *testing.T) {
	arrived := make(chan struct{})
	s := newStandIn(nil)
	server := httptest.NewServer(s.Stripe)
	defer server.Close()
	send := func(ctx context.Context, identifier string) (answer, error) {
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, server.URL+"/v1/billing/meter_events",
			strings.NewReader(event(identifier, "3", start).Encode()))
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
		t.Errorf("without a fault: %d %v", a.status, err)
	}
	fault(stripetest.LostBefore)
	if _, err := send(t.Context(), "b"); err == nil || s.total() != 3 {
		t.Errorf("lost before: %v, the total is %d", err, s.total())
	}
	fault(stripetest.LostAfter)
	if _, err := send(t.Context(), "c"); err == nil || s.total() != 6 {
		t.Errorf("lost after: %v, the total is %d", err, s.total())
	}
	fault(stripetest.HTMLAfter)
	if a, err := send(t.Context(), "d"); err != nil || !a.html || s.total() != 9 {
		t.Errorf("HTML after: %v, the total is %d", err, s.total())
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
		t.Errorf("the total is %d, want 9", s.total())
	}
}
