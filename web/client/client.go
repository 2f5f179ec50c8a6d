// Package client calls a Tollgate server from a Go program. It retries calls with the same
// idempotency key. While Tollgate gives no decision, an outage policy decides, and what is to be
// recorded later is stored in a file, the spool. So nothing is lost if the program or Tollgate is
// killed, and nothing is counted twice.
//
// The package imports only the standard library, so a program can copy it.
package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// Options are the settings of a client. URL, APIKey and Outage are required.
type Options struct {
	// URL is the address of Tollgate, such as https://tollgate.example.com.
	URL string
	// APIKey needs the scopes check and consume.
	APIKey string
	// Outage decides while Tollgate gives no decision.
	Outage Outage
	// Spool is the file for what is to be recorded later. Each process needs its own, on a local disk.
	// It is required with Allow. With Refuse and without a spool, Settle returns an error if Tollgate
	// cannot be reached.
	Spool string
	// Timeout is how long an attempt may take. Default: 800 ms.
	Timeout time.Duration
	// Attempts is how often a call is tried. Default: 3.
	Attempts int
	// HTTP makes the requests. It must not follow redirects. By default, the client has its own.
	HTTP *http.Client
	// OnError is called if usage could not be recorded. By default, the error is logged.
	OnError func(error)
}

// Outage is an outage policy: Allow or Refuse.
type Outage struct {
	set   bool
	allow int64
}

// Refuse refuses all calls during an outage.
var Refuse = Outage{set: true}

// Allow allows each person up to n units that are not recorded yet. They are recorded later.
func Allow(n int64) Outage { return Outage{set: true, allow: n} }

// Person identifies a person: by email, by Slack identity, or by both.
type Person struct {
	Email       string `json:"email,omitempty"`
	SlackTeamID string `json:"slack_team_id,omitempty"`
	SlackUserID string `json:"slack_user_id,omitempty"`
}

// Notify says when an answer has a Slack message. Empty means Once.
type Notify string

// The values of Notify.
const (
	Once   Notify = "once"
	Always Notify = "always"
	Never  Notify = "never"
)

// CheckRequest asks whether a person may have more. A quantity of 0 means 1.
type CheckRequest struct {
	Person
	Quantity int64  `json:"quantity,omitempty"`
	Notify   Notify `json:"notify,omitempty"`
}

// ConsumeRequest asks for units and records them. A quantity of 0 means 1.
type ConsumeRequest struct {
	CheckRequest
	IdempotencyKey string `json:"idempotency_key"`
}

// HoldRequest sets units aside. They are given back after the TTL; 0 means 120 seconds.
type HoldRequest struct {
	Person
	Quantity       int64  `json:"quantity"`
	IdempotencyKey string `json:"idempotency_key"`
	TTLSeconds     int64  `json:"ttl_seconds,omitempty"`
	Notify         Notify `json:"notify,omitempty"`
}

// Decision is a decision of Tollgate, or, if Answered is false, of the outage policy. Then it has
// no figures.
type Decision struct {
	Answered bool `json:"-"`
	// Spooled means that the units are in the spool, to be recorded later.
	Spooled bool `json:"-"`
	// Cause says why there is no decision of Tollgate. It is nil if the hold of a settlement was not
	// confirmed or has expired.
	Cause error `json:"-"`

	Allowed          bool            `json:"allowed"`
	Reason           string          `json:"reason"` // empty if allowed
	WarningLevel     string          `json:"warning_level"`
	Email            string          `json:"email"`
	Plan             string          `json:"plan"`
	Used             int64           `json:"used"`
	Held             int64           `json:"held"`
	Included         int64           `json:"included"`
	Remaining        int64           `json:"remaining"`
	PercentUsed      int64           `json:"percent_used"`
	Overage          int64           `json:"overage"`
	OverageRateCents int64           `json:"overage_rate_cents"`
	OverageCents     int64           `json:"overage_cents"`
	SpendLimitCents  *int64          `json:"spend_limit_cents"`
	MemberLimit      *int64          `json:"member_limit"`
	Period           Period          `json:"period"`
	UsageURL         string          `json:"usage_url"`
	Notice           string          `json:"notice"` // empty if there is nothing to say
	Slack            json.RawMessage `json:"slack"`  // a Block Kit message; nil if there is nothing to say
	EventID          string          `json:"event_id"`
	Replayed         bool            `json:"replayed"`

	// Hold is what Settle and Release need. It is nil unless the decision is about an allowed hold.
	Hold *Hold `json:"-"`

	Confirmed *confirmedHold `json:"hold"`
}

// Period is a billing period in UTC, without its end.
type Period struct {
	Start time.Time `json:"start"`
	End   time.Time `json:"end"`
}

// confirmedHold is a hold as Tollgate answers it.
type confirmedHold struct {
	ID        string    `json:"id"`
	Quantity  int64     `json:"quantity"`
	State     string    `json:"state"`
	ExpiresAt time.Time `json:"expires_at"`
}

// Hold is what Settle and Release need. It is plain data, so it can be stored.
type Hold struct {
	// ID is empty if Tollgate did not confirm the hold.
	ID             string    `json:"id"`
	Person         Person    `json:"person"`
	Quantity       int64     `json:"quantity"`
	IdempotencyKey string    `json:"idempotency_key"`
	ExpiresAt      time.Time `json:"expires_at"`
}

// Client calls one Tollgate server. Its methods can be called concurrently.
type Client struct {
	o     Options
	spool *spool // nil without one

	mu       sync.Mutex
	holds    map[work]*knownHold
	reserved map[string]int64 // units that the outage policy allowed and that are not in the spool yet, by person
	consumed map[work]*entry  // consumes in the spool

	// spooling is held while units get into the spool, so that a call for the same work returns after
	// they are on disk.
	spooling sync.Mutex

	wake   chan struct{}
	stop   context.CancelFunc
	worker sync.WaitGroup
	replay sync.Mutex // held while the spool is recorded
}

// work is a person and an idempotency key.
type work struct{ person, key string }

// knownHold is a hold of the last hour.
type knownHold struct {
	hold    Hold
	at      time.Time
	spooled int64 // the units that were spooled for it; 0 if none
}

// Open returns a client, and starts to record what an earlier process left in the spool.
func Open(o Options) (*Client, error) {
	switch {
	case !o.Outage.set || o.Outage.allow < 0:
		return nil, errors.New("open client: Outage must be Refuse, or Allow with at least 0")
	case o.Outage.allow > 0 && o.Spool == "":
		return nil, errors.New("open client: Allow needs a Spool")
	}
	if o.Timeout == 0 {
		o.Timeout = 800 * time.Millisecond
	}
	if o.Attempts == 0 {
		o.Attempts = 3
	}
	if o.HTTP == nil {
		o.HTTP = &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	}
	if o.OnError == nil {
		o.OnError = func(err error) { slog.Error("usage is not recorded", "error", err) }
	}
	o.URL = strings.TrimRight(o.URL, "/")
	c := &Client{
		o: o, holds: map[work]*knownHold{}, reserved: map[string]int64{}, consumed: map[work]*entry{},
		wake: make(chan struct{}, 1),
	}
	ctx, stop := context.WithCancel(context.Background())
	c.stop = stop
	if o.Spool == "" {
		return c, nil
	}
	var err error
	if c.spool, err = openSpool(o.Spool); err != nil {
		stop()
		return nil, err
	}
	for _, e := range slices.Concat(c.spool.recent, c.spool.pending) {
		c.restore(e)
	}
	c.worker.Go(func() { c.record(ctx) })
	c.wakeUp()
	return c, nil
}

// restore remembers what an earlier process spooled.
func (c *Client) restore(e *entry) {
	if !e.OfHold {
		c.consumed[e.work()] = e
		return
	}
	c.holds[e.work()] = &knownHold{
		hold: Hold{ID: e.HoldID, Person: e.Person, Quantity: e.Quantity, IdempotencyKey: e.IdempotencyKey},
		at:   e.OccurredAt, spooled: e.Quantity,
	}
}

// Close stops recording and unlocks the spool. What is left is recorded by the next process.
func (c *Client) Close() error {
	c.stop()
	c.worker.Wait()
	if c.spool == nil {
		return nil
	}
	c.replay.Lock()
	defer c.replay.Unlock()
	return c.spool.close()
}

// Pending returns how many entries of the spool are not recorded yet.
func (c *Client) Pending() int {
	if c.spool == nil {
		return 0
	}
	return c.spool.count()
}

// Check returns the decision and records nothing.
func (c *Client) Check(ctx context.Context, r CheckRequest) (*Decision, error) {
	d, err := c.decide(ctx, "/v1/check", r)
	if !isUnavailable(err) {
		return d, err
	}
	quantity := max(1, r.Quantity)
	if !c.reserve(r.Person, quantity) {
		return refused(err), nil
	}
	c.unreserve(r.Person, quantity)
	return &Decision{Allowed: true, Cause: err}, nil
}

// Consume decides and records.
func (c *Client) Consume(ctx context.Context, r ConsumeRequest) (*Decision, error) {
	w, quantity := r.work(r.IdempotencyKey), max(1, r.Quantity)
	if d, err := c.repeatedConsume(w, quantity); d != nil || err != nil {
		return d, err
	}
	d, err := c.decide(ctx, "/v1/consume", r)
	if !isUnavailable(err) {
		return d, err
	}
	c.spooling.Lock()
	defer c.spooling.Unlock()
	if d, err := c.repeatedConsume(w, quantity); d != nil || err != nil {
		return d, err
	}
	if !c.reserve(r.Person, quantity) {
		return refused(err), nil
	}
	defer c.unreserve(r.Person, quantity)
	e := &entry{
		Kind: kindEvent, Person: r.Person, Quantity: quantity, IdempotencyKey: r.IdempotencyKey, OccurredAt: time.Now().UTC(), Granted: true,
	}
	c.setConsumed(w, e)
	if failed := c.append(e); failed != nil {
		c.setConsumed(w, nil)
		return refused(failed), nil
	}
	return &Decision{Allowed: true, Spooled: true, Cause: err}, nil
}

// repeatedConsume returns the answer to a call whose units are in the spool; nil if they are not.
func (c *Client) repeatedConsume(w work, quantity int64) (*Decision, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch e := c.consumed[w]; {
	case e == nil:
		return nil, nil //nolint:nilnil // the caller goes on
	case e.Quantity != quantity:
		return nil, errKeyReused
	}
	return &Decision{Allowed: true, Spooled: true, Replayed: true}, nil
}

// setConsumed remembers that units are in the spool, or, with nil, that they are not.
func (c *Client) setConsumed(w work, e *entry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e == nil {
		delete(c.consumed, w)
	} else {
		c.consumed[w] = e
	}
}

// append stores an entry in the spool and wakes the worker.
func (c *Client) append(e *entry) error {
	if c.spool == nil {
		return &Error{Code: CodeSpoolFailed, Detail: "there is no spool"}
	}
	if err := c.spool.append(e); err != nil {
		return &Error{Code: CodeSpoolFailed, Detail: "write the spool", Cause: err}
	}
	c.wakeUp()
	return nil
}

func (c *Client) wakeUp() {
	select {
	case c.wake <- struct{}{}:
	default: // it is awake already
	}
}

// reserve sets units of the outage policy aside. It returns false if the person has too few left.
func (c *Client) reserve(p Person, quantity int64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	name := p.name()
	units := c.reserved[name] + quantity
	if c.spool != nil {
		units += c.spool.granted(name)
	}
	if units > c.o.Outage.allow {
		return false
	}
	c.reserved[name] += quantity
	return true
}

func (c *Client) unreserve(p Person, quantity int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	name := p.name()
	if c.reserved[name] -= quantity; c.reserved[name] <= 0 {
		delete(c.reserved, name)
	}
}

// name identifies the person for the outage policy: by Slack identity if there is one.
func (p Person) name() string {
	if p.SlackTeamID != "" {
		return p.SlackTeamID + " " + p.SlackUserID
	}
	return strings.ToLower(strings.TrimSpace(p.Email))
}

func (p Person) work(key string) work { return work{p.name(), key} }

// refusal is the notice of the outage policy.
const refusal = "Your usage can't be checked right now. Please try again in a minute."

func refused(cause error) *Decision {
	const message = `{"response_type":"ephemeral","text":%[1]q,"blocks":[{"type":"section","text":{"type":"mrkdwn","text":%[1]q}}]}`
	slack := fmt.Sprintf(message, refusal)
	return &Decision{Reason: CodeUnavailable, Notice: refusal, Slack: json.RawMessage(slack), Cause: cause}
}
