package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"
)

// remember is how long a hold and its spooled usage are remembered, so that a repeated call for the
// same work finds them.
const remember = time.Hour

// Hold sets units aside while work runs. If it is allowed, pass the decision's Hold to Settle or
// Release.
func (c *Client) Hold(ctx context.Context, r HoldRequest) (*Decision, error) {
	w := r.work(r.IdempotencyKey)
	known := c.known(w)
	if known != nil && known.hold.Quantity != r.Quantity && known.spooled == 0 {
		return nil, errKeyReused
	}
	if known != nil && known.hold.ID == "" {
		// Tollgate does not know that this hold was allowed, so it must not decide about it again.
		return unanswered(known, nil), nil
	}
	d, err := c.decide(ctx, "/v1/holds", r)
	if err != nil && !isUnavailable(err) {
		return nil, err
	}
	hold := Hold{Person: r.Person, Quantity: r.Quantity, IdempotencyKey: r.IdempotencyKey}
	if err == nil {
		if !d.Allowed || d.Confirmed == nil {
			return d, nil
		}
		if d.Confirmed.State == "released" {
			return nil, &Error{Code: "hold_released", Status: http.StatusConflict, Detail: "the hold with this key was released; use another key"}
		}
		hold.ID, hold.ExpiresAt = d.Confirmed.ID, d.Confirmed.ExpiresAt
		if known := c.remember(w, hold); known.hold.ID == "" {
			return unanswered(known, nil), nil // a call at the same time has got no answer
		}
		d.Hold = &hold
		return d, nil
	}
	if known := c.known(w); known != nil {
		return unanswered(known, err), nil
	}
	if !c.reserve(r.Person, r.Quantity) {
		return refused(err), nil
	}
	first := c.remember(w, hold)
	if first.hold != hold { // another call was faster
		c.unreserve(r.Person, r.Quantity)
	}
	return unanswered(first, err), nil
}

func unanswered(known *knownHold, cause error) *Decision {
	hold := known.hold
	return &Decision{Allowed: true, Spooled: known.spooled > 0, Replayed: cause == nil, Hold: &hold, Cause: cause}
}

// known returns a copy of a hold of the last hour; nil if there is none.
func (c *Client) known(w work) *knownHold {
	c.mu.Lock()
	defer c.mu.Unlock()
	k := c.holds[w]
	if k == nil {
		return nil
	}
	known := *k
	return &known
}

// remember stores a hold, unless the work has one. It returns a copy of the stored one.
func (c *Client) remember(w work, hold Hold) *knownHold {
	c.mu.Lock()
	defer c.mu.Unlock()
	if k := c.holds[w]; k != nil {
		known := *k
		return &known
	}
	if len(c.holds)%1024 == 1023 {
		for old, k := range c.holds {
			if time.Since(k.at) > remember {
				delete(c.holds, old)
			}
		}
	}
	known := knownHold{hold: hold, at: time.Now()}
	c.holds[w] = &known
	first := known
	return &first
}

type settleBody struct {
	Quantity int64  `json:"quantity"`
	Notify   Notify `json:"notify,omitempty"`
}

// Settle records what the work used, at most the units on hold. When it returns without an error,
// the usage is recorded or in the spool, even if ctx has ended.
func (c *Client) Settle(ctx context.Context, hold Hold, quantity int64, notify Notify) (*Decision, error) {
	if quantity < 1 || quantity > hold.Quantity {
		return nil, fmt.Errorf("settle: quantity must be 1 to %d, the units on hold: %d", hold.Quantity, quantity)
	}
	if hold.ID == "" {
		return c.recordHold(hold, quantity, nil)
	}
	d, err := c.decide(ctx, holdPath(hold.ID, "settle"), settleBody{quantity, notify})
	var e *Error
	switch {
	case err == nil:
		return d, nil
	case ctx.Err() != nil, isUnavailable(err):
	case !errors.As(err, &e):
		return nil, err
	case e.Code == codeHoldExpired:
		return c.recordHold(hold, quantity, nil)
	case e.Status != http.StatusUnauthorized && e.Status != http.StatusForbidden:
		return nil, err
	}
	if c.spool == nil {
		return nil, err
	}
	stored := hold.entry(kindSettle, quantity)
	stored.HoldID = hold.ID
	if err := c.append(stored); err != nil {
		return nil, err
	}
	c.noteSpooled(hold, quantity)
	return &Decision{Allowed: true, Spooled: true, Cause: err}, nil
}

func holdPath(id, verb string) string { return "/v1/holds/" + url.PathEscape(id) + "/" + verb }

func (h Hold) entry(kind string, quantity int64) *entry {
	return &entry{
		Kind: kind, Person: h.Person, Quantity: quantity, IdempotencyKey: h.IdempotencyKey, OccurredAt: time.Now().UTC(), OfHold: true,
	}
}

// recordHold spools units under the key of a hold that Tollgate will not settle.
func (c *Client) recordHold(hold Hold, quantity int64, cause error) (*Decision, error) {
	if c.spool == nil {
		return nil, &Error{Code: codeHoldExpired, Status: http.StatusConflict, Detail: "the hold has expired, and there is no spool"}
	}
	c.spooling.Lock()
	defer c.spooling.Unlock()
	switch before := c.noteSpooled(hold, quantity); {
	case before == quantity:
		return &Decision{Allowed: true, Spooled: true, Replayed: true, Cause: cause}, nil
	case before != 0:
		return nil, &Error{Code: "hold_settled", Status: http.StatusConflict, Detail: "this hold was settled with another quantity"}
	}
	e := hold.entry(kindEvent, quantity)
	e.Granted = hold.ID == ""
	if err := c.append(e); err != nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.holds[hold.Person.work(hold.IdempotencyKey)].spooled = 0
		return nil, err
	}
	if e.Granted {
		c.unreserve(hold.Person, hold.Quantity)
	}
	return &Decision{Allowed: true, Spooled: true, Cause: cause}, nil
}

// noteSpooled remembers that units of a hold are in the spool, and returns how many were before.
func (c *Client) noteSpooled(hold Hold, quantity int64) (before int64) {
	w := hold.Person.work(hold.IdempotencyKey)
	c.remember(w, hold)
	c.mu.Lock()
	defer c.mu.Unlock()
	k := c.holds[w]
	if before = k.spooled; before == 0 {
		k.spooled = quantity
	}
	return before
}

// Release gives the units back. If Tollgate is unreachable, the hold expires instead.
func (c *Client) Release(ctx context.Context, hold Hold) (*Decision, error) {
	if hold.ID == "" {
		c.mu.Lock()
		w := hold.Person.work(hold.IdempotencyKey)
		k := c.holds[w]
		if k != nil && k.spooled == 0 {
			delete(c.holds, w)
		}
		c.mu.Unlock()
		switch {
		case k == nil:
		case k.spooled > 0:
			return nil, &Error{Code: "hold_settled", Status: http.StatusConflict, Detail: "this hold was settled"}
		default:
			c.unreserve(hold.Person, hold.Quantity)
		}
		return &Decision{Allowed: true}, nil
	}
	d, err := c.decide(ctx, holdPath(hold.ID, "release"), struct{}{})
	if isUnavailable(err) {
		return &Decision{Allowed: true, Cause: err}, nil
	}
	return d, err
}

// WithHold sets units aside, runs work, and records how many units it used. If work used nothing or
// fails, the units are given back. If the hold is refused, work does not run, and the decision is not
// allowed. The decision has the Slack message of the settlement or else of the hold.
func WithHold[T any](ctx context.Context, c *Client, r HoldRequest, work func(context.Context, Hold) (used int64, value T, err error)) (
	value T, d *Decision, err error,
) {
	var none T
	held, err := c.Hold(ctx, r)
	if err != nil || !held.Allowed {
		return none, held, err
	}
	used, value, err := work(ctx, *held.Hold)
	if err == nil && (used < 0 || used > r.Quantity) {
		err = fmt.Errorf("used must be 0 to %d, the units on hold: %d", r.Quantity, used)
	}
	if err != nil {
		_, _ = c.Release(context.WithoutCancel(ctx), *held.Hold) // the error of the work is the one to report
		return none, nil, err
	}
	if used == 0 {
		d, err = c.Release(context.WithoutCancel(ctx), *held.Hold)
	} else {
		d, err = c.Settle(ctx, *held.Hold, used, r.Notify)
	}
	if err != nil {
		return none, nil, err
	}
	if d.Slack == nil {
		d.Slack = held.Slack
	}
	if d.Notice == "" {
		d.Notice = held.Notice
	}
	return value, d, nil
}
