// Package stripetest is a stand-in for Stripe, for tests: what Stripe does with meter events, customers, subscriptions and
// what is set up, with its rules, its answers and its faults, in memory. Its clock and its chance are the test's, so six days
// pass in a second and a seed replays. Where Stripe's documents leave something open, the comment at the rule says so.
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

// The times within which Stripe remembers and takes things.
const (
	// remembered is how long an identifier and an answer to an Idempotency-Key are kept, to the moment.
	remembered = 24 * time.Hour
	oldest     = 35 * 24 * time.Hour
	ahead      = 5 * time.Minute
	// latest is how long after it was lost a late request may still be processed, unless Options say otherwise.
	latest = time.Hour
)

// ErrLost is what Transport returns where a connection would have broken. Over sockets the connection is closed.
var ErrLost = errors.New("stripetest: the connection broke")

// Options say how a stand-in behaves. Only Now and Rand are needed.
type Options struct {
	// Now is the stand-in's clock. It is called with the stand-in locked, so it must not call it.
	Now func() time.Time
	// Rand is used with the stand-in locked.
	Rand *rand.Rand
	// Livemode is what objects say of themselves.
	Livemode bool
	// Account is the id of the account; empty for acct_standin.
	Account string
	// Key is the only key that is let in; empty for every one.
	Key string
	// Lag is how long after its receipt an event appears in the summaries; nil is at once. See Uniform.
	Lag func(*rand.Rand) time.Duration
	// Fault is asked at each request, with its parameters, and with the stand-in locked, so it must not call it but may use
	// the same Rand; nil is None. See Mix.
	Fault func(*http.Request, url.Values) Fault
	// Latest is how long after it was lost a Late request has its effect at the latest; 0 is an hour.
	Latest time.Duration
	// Wait is called while a request is under way, after it arrived and before its effect; nil is not at all. It is the
	// place for latency over sockets, and for a test to hold a call open.
	Wait func(*http.Request)
	// Stall is how a stalled request passes its time; nil waits for the end of its context. Virtual time has its own.
	Stall func(context.Context)
}

// Stripe is the stand-in. It is safe for concurrent use, and the same calls with the same Rand have the same answers.
type Stripe struct {
	routes []route

	mu      sync.Mutex
	o       Options
	outage  bool
	serial  int
	objects map[string]*collection
	pending []pending
	keys    map[string]*kept
	calls   map[string]int
	meter   meterState
	subs    map[string]*Subscription
	bills   map[string]*bill // by the invoice's ID
}

// pending is a request whose effect is still to come.
type pending struct {
	due time.Time
	run func(now time.Time)
}

// kept is the first answer to an Idempotency-Key; the answer is nil while the request is under way.
type kept struct {
	request string
	at      time.Time
	answer  *answer
}

// New makes a stand-in that knows nobody and has no meter.
func New(o Options) *Stripe {
	if o.Account == "" {
		o.Account = "acct_standin"
	}
	if o.Latest == 0 {
		o.Latest = latest
	}
	s := &Stripe{o: o, objects: map[string]*collection{}, keys: map[string]*kept{}, calls: map[string]int{}, meter: newMeterState(),
		subs: map[string]*Subscription{}, bills: map[string]*bill{}}
	s.routes = slices.Concat(
		s.meterRoutes(), s.accountRoutes(), s.customerRoutes(), s.priceRoutes(), s.subscriptionRoutes(), s.checkoutRoutes(),
		s.webhookRoutes(), s.invoiceRoutes(),
	)
	return s
}

// SetFault orders faults from now on; nil is none. Options.Fault has the rules.
func (s *Stripe) SetFault(fault func(*http.Request, url.Values) Fault) {
	s.set(func() { s.o.Fault = fault })
}

// SetOutage says whether everything fails by a broken connection, without effect.
func (s *Stripe) SetOutage(outage bool) { s.set(func() { s.outage = outage }) }

// SetKey changes the only key that is let in; empty is every one.
func (s *Stripe) SetKey(key string) { s.set(func() { s.o.Key = key }) }

// SetAccount changes whose account it is.
func (s *Stripe) SetAccount(id string) { s.set(func() { s.o.Account = id }) }

// SetLag changes how long the events that are received from now on take to appear in the summaries; nil is not at all.
func (s *Stripe) SetLag(lag func(*rand.Rand) time.Duration) { s.set(func() { s.o.Lag = lag }) }

func (s *Stripe) set(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

// Settle lets every late request have its effect whose time has come.
func (s *Stripe) Settle() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settle()
}

// Pending is how many late requests are still to have their effect.
func (s *Stripe) Pending() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settle()
	return len(s.pending)
}

// Calls are how many requests came for each route, such as "POST /v1/billing/meter_events" or
// "GET /v1/billing/meters/{id}/event_summaries", faulted ones included.
func (s *Stripe) Calls() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	calls := make(map[string]int, len(s.calls))
	for route, n := range s.calls {
		calls[route] = n
	}
	return calls
}

// settle is the time, after what was late and is due by then.
func (s *Stripe) settle() time.Time {
	now := s.o.Now()
	for len(s.pending) > 0 && !s.pending[0].due.After(now) {
		p := s.pending[0]
		s.pending = s.pending[1:]
		p.run(p.due)
	}
	return now
}

// later has an effect between now and the latest moment.
func (s *Stripe) later(now time.Time, run func(time.Time)) {
	p := pending{due: now.Add(time.Duration(1 + s.o.Rand.Int64N(int64(s.o.Latest)))), run: run}
	at, _ := slices.BinarySearchFunc(s.pending, p, func(a, b pending) int {
		// One that is due at the same moment stays before.
		return cmp.Or(a.due.Compare(b.due), -1)
	})
	s.pending = slices.Insert(s.pending, at, p)
}

// newID is an id of Stripe's form that was not given before.
func (s *Stripe) newID(prefix string) string {
	s.serial++
	return fmt.Sprintf("%s_%08d", prefix, s.serial)
}

// ServeHTTP answers over sockets. Where a fault loses the answer, it closes the connection. net/http then sends a request with an
// Idempotency-Key again by itself, if it can read the body again and had the connection from an earlier one.
func (s *Stripe) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a, err := s.serve(r)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	a.write(w)
}

// Transport carries requests to the stand-in without sockets, with the faults that sockets would have.
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
	// A server has its own request, and reading the form changes it.
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

// serve is one request from its arrival to its answer. An error means that the answer was lost.
func (s *Stripe) serve(r *http.Request) (*answer, error) {
	if err := parseForm(r); err != nil {
		return refuse(http.StatusBadRequest, "parameter_invalid", "", "Invalid body: %v", err), nil
	}
	rt, id := s.route(r)

	s.mu.Lock()
	s.calls[rt.pattern]++
	// The time of arrival lets what was late have its effect before this request is under way.
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

// parseForm reads the parameters. Go's own reads those of a DELETE from its address only.
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

// answer is what becomes of a request, with the stand-in locked.
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

// change answers a request that has an effect, once for each Idempotency-Key. It is nil when the effect is still to come.
//
// What is not begun is not kept: a request that meets another one, or one with wrong parameters.
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

	k := &kept{request: request, at: now}
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
