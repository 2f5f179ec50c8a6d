// Package stripetest is a stand-in for Stripe in tests. In memory, it does what Stripe does with
// meter events, customers, subscriptions and the objects of setup, with Stripe's rules, answers and
// faults. The test controls the clock and the random numbers, so six days pass in a second, and a
// seed repeats a test. If Stripe's documentation leaves something open, the comment at the rule
// says so.
package stripetest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

// How long Stripe remembers and accepts things.
const (
	// remembered is exactly how long an identifier and an answer to an Idempotency-Key are stored.
	remembered = 24 * time.Hour
	oldest     = 35 * 24 * time.Hour
	ahead      = 5 * time.Minute
	// latest is how long after its loss a late request may still be processed, unless Options say
	// otherwise.
	latest = time.Hour
)

// ErrLost is Transport's error when a connection breaks. Over sockets, the connection is closed.
var ErrLost = errors.New("stripetest: the connection broke")

// Options configure a stand-in. Only Now and Rand are required.
type Options struct {
	// Now is the stand-in's clock. It is called with the stand-in locked, so it must not call the
	// stand-in.
	Now func() time.Time
	// Rand is used with the stand-in locked.
	Rand *rand.Rand
	// Livemode is the livemode field of all objects.
	Livemode bool
	// Account is the ID of the account; empty means acct_standin.
	Account string
	// Key is the only accepted API key; empty means that all are accepted.
	Key string
	// Lag returns how long after its receipt an event appears in the summaries; nil means
	// immediately. See Uniform.
	Lag func(*rand.Rand) time.Duration
	// Fault returns the fault of each request, given its parameters; nil means None. See Mix. It is
	// called with the stand-in locked, so it must not call the stand-in, but it may use the same
	// Rand.
	Fault func(*http.Request, url.Values) Fault
	// Latest is the maximum time after its loss at which a Late request has its effect; 0 means an
	// hour.
	Latest time.Duration
	// Wait, if not nil, is called after a request arrived and before its effect. Use it for latency
	// over sockets, or to hold a call open.
	Wait func(*http.Request)
	// Stall is called for a stalled request; nil waits until its context ends. Set it for virtual
	// time.
	Stall func(context.Context)
}

// Stripe is the stand-in. It is safe for concurrent use. The same calls with the same Rand get the
// same answers.
type Stripe struct {
	routes []route

	mu      sync.Mutex
	o       Options
	outage  bool
	serial  int
	objects map[string]*collection
	pending []pending
	keys    map[string]*storedAnswer
	calls   map[string]int
	meter   meterState
	subs    map[string]*Subscription
	bills   map[string]*bill // by the invoice's ID
}

// pending is a request whose effect has not happened yet.
type pending struct {
	due time.Time
	run func(now time.Time)
}

// storedAnswer is the first answer to an Idempotency-Key. The answer is nil while the request runs.
type storedAnswer struct {
	request string
	at      time.Time
	answer  *answer
}

// New returns a stand-in without customers and meters.
func New(o Options) *Stripe {
	if o.Account == "" {
		o.Account = "acct_standin"
	}
	if o.Latest == 0 {
		o.Latest = latest
	}
	s := &Stripe{o: o, objects: map[string]*collection{}, keys: map[string]*storedAnswer{}, calls: map[string]int{}, meter: newMeterState(),
		subs: map[string]*Subscription{}, bills: map[string]*bill{}}
	s.routes = slices.Concat(
		s.meterRoutes(), s.accountRoutes(), s.customerRoutes(), s.priceRoutes(), s.subscriptionRoutes(), s.checkoutRoutes(),
		s.webhookRoutes(), s.invoiceRoutes(), s.creditRoutes(),
	)
	return s
}

// SetFault replaces Options.Fault; nil means no faults.
func (s *Stripe) SetFault(fault func(*http.Request, url.Values) Fault) {
	s.set(func() { s.o.Fault = fault })
}

// SetOutage sets whether every request fails with a broken connection and without an effect.
func (s *Stripe) SetOutage(outage bool) { s.set(func() { s.outage = outage }) }

// SetKey sets the only accepted API key; empty means that all are accepted.
func (s *Stripe) SetKey(key string) { s.set(func() { s.o.Key = key }) }

// SetAccount sets the ID of the account.
func (s *Stripe) SetAccount(id string) { s.set(func() { s.o.Account = id }) }

// SetLag sets how long events that are received from now on take to appear in the summaries; nil
// means no time.
func (s *Stripe) SetLag(lag func(*rand.Rand) time.Duration) { s.set(func() { s.o.Lag = lag }) }

func (s *Stripe) set(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

// Settle runs the effects of all late requests that are due.
func (s *Stripe) Settle() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settle()
}

// Pending returns the number of late requests without an effect so far.
func (s *Stripe) Pending() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settle()
	return len(s.pending)
}

// Calls returns the number of requests for each route, such as "POST /v1/billing/meter_events" or
// "GET /v1/billing/meters/{id}/event_summaries". It includes failed ones.
func (s *Stripe) Calls() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	calls := make(map[string]int, len(s.calls))
	for route, n := range s.calls {
		calls[route] = n
	}
	return calls
}

// settle runs the late effects that are due and returns the time.
func (s *Stripe) settle() time.Time {
	now := s.o.Now()
	for len(s.pending) > 0 && !s.pending[0].due.After(now) {
		p := s.pending[0]
		s.pending = s.pending[1:]
		p.run(p.due)
	}
	return now
}

// later schedules an effect between now and the latest time.
func (s *Stripe) later(now time.Time, run func(time.Time)) {
	p := pending{due: now.Add(time.Duration(1 + s.o.Rand.Int64N(int64(s.o.Latest)))), run: run}
	at, _ := slices.BinarySearchFunc(s.pending, p, func(a, b pending) int {
		// An earlier effect that is due at the same time stays first.
		return cmp.Or(a.due.Compare(b.due), -1)
	})
	s.pending = slices.Insert(s.pending, at, p)
}

// newID returns a new ID in Stripe's format.
func (s *Stripe) newID(prefix string) string {
	s.serial++
	return fmt.Sprintf("%s_%08d", prefix, s.serial)
}

// ServeHTTP answers over sockets. If a fault loses the answer, it closes the connection. net/http
// then repeats a request with an Idempotency-Key on its own if it can read the body again and
// reused the connection.
func (s *Stripe) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a, err := s.serve(r)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	a.write(w)
}

// Transport returns a transport that calls the stand-in without sockets, with the same faults.
func (s *Stripe) Transport() http.RoundTripper { return transport{s} }

type transport struct{ s *Stripe }

// RoundTrip implements http.RoundTripper.
func (t transport) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body != nil {
		defer func() { _ = r.Body.Close() }()
	}
	ctx := r.Context()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	// A server has its own copy of the request, and reading the form changes it.
	a, err := t.s.serve(r.Clone(ctx))
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	rec := httptest.NewRecorder()
	a.write(rec)
	res := rec.Result()
	res.Request = r
	return res, nil
}

// serve handles a request from its arrival to its answer. An error means that the answer was lost.
func (s *Stripe) serve(r *http.Request) (*answer, error) {
	if err := parseForm(r); err != nil {
		return refuse(http.StatusBadRequest, "parameter_invalid", "", "Invalid body: %v", err), nil
	}
	rt, id := s.route(r)

	s.mu.Lock()
	s.calls[rt.pattern]++
	// Run the late effects that are due before this request counts as running.
	s.settle()
	fault := None
	if s.o.Fault != nil {
		fault = s.o.Fault(r, r.Form)
	}
	if s.outage {
		fault = LostBefore
	}
	leave, alone := s.enter(rt, r.Form)
	wait, stall := s.o.Wait, s.o.Stall
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		leave()
	}()

	if fault == Stall {
		if stall == nil {
			stall = func(ctx context.Context) { <-ctx.Done() }
		}
		stall(r.Context())
		if err := r.Context().Err(); err != nil {
			return nil, err
		}
		return nil, fmt.Errorf("%w: no answer in time", ErrLost)
	}
	if wait != nil {
		wait(r)
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	return s.answer(r, rt, id, fault, alone)
}

// parseForm reads the parameters. For a DELETE, Go itself reads only those in the address.
func parseForm(r *http.Request) error {
	if err := r.ParseForm(); err != nil || r.Method != http.MethodDelete || r.Body == nil {
		return err
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	more, err := url.ParseQuery(string(body))
	if err != nil {
		return err
	}
	maps.Copy(r.Form, more)
	return nil
}

// answer determines the answer to a request, with the stand-in locked.
func (s *Stripe) answer(r *http.Request, rt *route, id string, fault Fault, alone bool) (*answer, error) {
	now := s.settle()
	switch fault {
	case LostBefore:
		return nil, ErrLost
	case HTMLBefore:
		return html(), nil
	case Conflict:
		return lockTimeout(http.StatusConflict), nil
	case LockTimeout:
		return lockTimeout(http.StatusTooManyRequests), nil
	case Refused:
		return invalid("parameter_invalid", "", "Invalid request."), nil
	case TooFast:
		return refuse(http.StatusTooManyRequests, "rate_limit", "", "Request rate limit exceeded."), nil
	}
	if key, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); key == "" || (s.o.Key != "" && key != s.o.Key) {
		return refuse(http.StatusUnauthorized, "", "", "Invalid API Key provided."), nil
	}

	var a *answer
	if r.Method != http.MethodGet {
		a = s.change(r, rt, id, fault, alone, now)
	} else {
		a = rt.run(&call{id: id, path: r.URL.Path, form: r.Form, now: now})
		if fault == ErrorBefore || fault == ErrorAfter {
			a = unknownError()
		}
	}
	switch {
	case a == nil, fault == LostAfter, fault == Late:
		return nil, ErrLost
	case fault == HTMLAfter:
		return html(), nil
	}
	return a, nil
}

// change answers a request that has an effect, once for each Idempotency-Key. It returns nil if the
// effect is still to come.
//
// An answer is not stored if the request never began: because another one was running, or a
// parameter was wrong.
// Source: https://docs.stripe.com/api/idempotent_requests.
func (s *Stripe) change(r *http.Request, rt *route, id string, fault Fault, alone bool, now time.Time) *answer {
	key := r.Header.Get("Idempotency-Key")
	request := r.URL.Path + "?" + r.Form.Encode()
	if k := s.keys[key]; key != "" && k != nil && k.at.Add(remembered).After(now) {
		switch {
		case k.request != request:
			a := refuse(http.StatusBadRequest, "", "", "Keys for idempotent requests can only be used with the same parameters they were "+
				"first used with.")
			a.kind("idempotency_error")
			return a
		case k.answer == nil:
			return refuse(http.StatusConflict, "idempotency_key_in_use", "", "There is another request under way with the same Idempotency-Key.")
		}
		again := *k.answer
		again.replayed = true
		return &again
	}
	if !alone {
		return lockTimeout(http.StatusConflict)
	}

	k := &storedAnswer{request: request, at: now}
	run := func(now time.Time) {
		k.answer = rt.run(&call{id: id, path: r.URL.Path, form: r.Form, now: now, dropped: fault == Dropped})
		if k.answer.invalid && s.keys[key] == k {
			delete(s.keys, key)
		}
	}
	if key != "" {
		s.keys[key] = k
	}
	switch fault {
	case Late:
		s.later(now, run)
		return nil
	case ErrorBefore:
		k.answer = unknownError()
	case ErrorAfter:
		run(now)
		k.answer = unknownError()
		if key != "" {
			s.keys[key] = k
		}
	default:
		run(now)
	}
	return k.answer
}
