package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// batchSize is the number of events in one call. Even with the longest fields, they fit into a
// body.
const batchSize = 200

// pauses are the times between two tries to record the spool.
var pauses = []time.Duration{250 * time.Millisecond, time.Second, 2 * time.Second, 5 * time.Second}

// record records the spool until ctx ends.
func (c *Client) record(ctx context.Context) {
	for failures := 0; ; {
		var again <-chan time.Time // blocks if nothing failed
		if failures > 0 {
			again = time.After(pauses[min(failures, len(pauses))-1])
		}
		select {
		case <-ctx.Done():
			return
		case <-again:
		case <-c.wake:
			if failures > 0 {
				select { // a new entry does not shorten the pause
				case <-again:
				case <-ctx.Done():
					return
				}
			}
		}
		err := c.recordAll(ctx)
		switch {
		case err == nil:
			failures = 0
			continue
		case ctx.Err() == nil && !isUnavailable(err):
			c.o.OnError(fmt.Errorf("record the usage in the spool: %w", err))
		}
		failures++
	}
}

// Flush tries once to record everything in the spool, and returns how many entries are left. The
// error says why.
func (c *Client) Flush(ctx context.Context) (left int, err error) {
	if c.spool == nil {
		return 0, nil
	}
	err = c.recordAll(ctx)
	return c.Pending(), err
}

func (c *Client) recordAll(ctx context.Context) error {
	c.replay.Lock()
	defer c.replay.Unlock()
	for {
		batch := c.spool.next(batchSize)
		var err error
		switch {
		case len(batch) == 0:
			return nil
		case batch[0].Kind == kindSettle:
			err = c.recordSettlement(ctx, batch[0])
		default:
			err = c.recordEvents(ctx, batch)
		}
		if err != nil {
			return err
		}
	}
}

type eventBody struct {
	Person
	Quantity       int64     `json:"quantity"`
	IdempotencyKey string    `json:"idempotency_key"`
	OccurredAt     time.Time `json:"occurred_at"`
}

func (c *Client) recordEvents(ctx context.Context, batch []*entry) error {
	events := make([]eventBody, len(batch))
	for i, e := range batch {
		events[i] = eventBody{e.Person, e.Quantity, e.IdempotencyKey, e.OccurredAt}
	}
	var answer struct {
		Results []struct{ Status, Error string } `json:"results"`
	}
	if err := c.call(ctx, "/v1/events", map[string]any{"events": events}, &answer, 1); err != nil {
		return err
	}
	if len(answer.Results) != len(batch) {
		return &Error{Code: CodeUnavailable, Status: http.StatusOK, Detail: "/v1/events does not answer for each event"}
	}
	var done []*entry
	var errs []error
	for i, e := range batch {
		if r := answer.Results[i]; r.Status == "recorded" || r.Status == "duplicate" {
			done = append(done, e)
		} else {
			errs = append(errs, c.reject(e, r.Status+": "+r.Error))
		}
	}
	errs = append(errs, c.spool.finish(done))
	for _, e := range batch {
		if !e.OfHold {
			c.setConsumed(e.work(), nil)
		}
	}
	return errors.Join(errs...)
}

// recordSettlement repeats a settlement. No one sees its answer, so it must not be the first one at
// its level, which has a message. If the hold has expired without it, the usage is recorded
// under the hold's key.
func (c *Client) recordSettlement(ctx context.Context, e *entry) error {
	err := c.call(ctx, holdPath(e.HoldID, "settle"), settleBody{e.Quantity, Never}, &Decision{}, 1)
	var refused *Error
	switch {
	case err == nil:
		return c.spool.finish([]*entry{e})
	case !errors.As(err, &refused), refused.Code == "not_found", refused.Code == CodeUnexpectedAnswer:
		return err
	case refused.Code == codeHoldExpired:
		return c.recordEvents(ctx, []*entry{e})
	case refused.Status == http.StatusNotFound, refused.Status == http.StatusConflict, refused.Status == http.StatusUnprocessableEntity:
		return c.reject(e, refused.Error())
	}
	return err
}

func (c *Client) reject(e *entry, reason string) error {
	if err := c.spool.reject(e, reason); err != nil {
		return err
	}
	moved := c.o.Spool + ".rejected"
	c.o.OnError(fmt.Errorf("%d units with the idempotency key %q were moved to %q: %s", e.Quantity, e.IdempotencyKey, moved, reason))
	return nil
}
