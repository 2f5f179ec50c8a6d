package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"
)

const (
	// longestWait limits Retry-After: a caller does not wait longer.
	longestWait = time.Second
	// mostRead is the size of the largest answer in bytes.
	mostRead = 8 << 20
)

// decide makes a call that answers with a decision.
func (c *Client) decide(ctx context.Context, path string, body any) (*Decision, error) {
	d := &Decision{}
	if err := c.call(ctx, path, body, d, c.o.Attempts); err != nil {
		return nil, err
	}
	d.Answered = true
	if bytes.Equal(d.Slack, []byte("null")) {
		d.Slack = nil
	}
	return d, nil
}

// call tries a call until it gets an answer. Without one, the error has the code CodeUnavailable,
// unless ctx has ended.
func (c *Client) call(ctx context.Context, path string, body, into any, attempts int) error {
	encoded, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("call %s: %w", path, err)
	}
	for attempt := 1; ; attempt++ {
		wait, err := c.attempt(ctx, path, encoded, into)
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return fmt.Errorf("call %s: %w", path, ctx.Err())
		case !isUnavailable(err) || attempt >= attempts || wait > longestWait:
			return err
		}
		pause := time.Duration(attempt) * time.Duration(50+rand.IntN(50)) * time.Millisecond //nolint:gosec // spreads calls
		select {
		case <-time.After(max(wait, pause)):
		case <-ctx.Done():
			return fmt.Errorf("call %s: %w", path, ctx.Err())
		}
	}
}

// attempt makes one request. It returns how long to wait before the next one.
func (c *Client) attempt(ctx context.Context, path string, body []byte, into any) (wait time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, c.o.Timeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, c.o.URL+path, bytes.NewReader(body))
	if err != nil {
		return 0, fmt.Errorf("call %s: %w", path, err)
	}
	request.Header.Set("Authorization", "Bearer "+c.o.APIKey)
	request.Header.Set("Content-Type", "application/json")
	unavailable := func(status int, detail string, cause error) error {
		return &Error{Code: CodeUnavailable, Status: status, Detail: detail, Cause: cause}
	}
	response, err := c.o.HTTP.Do(request)
	if err != nil {
		return 0, unavailable(0, "no answer", err)
	}
	defer response.Body.Close()
	content, err := io.ReadAll(io.LimitReader(response.Body, mostRead))
	if err != nil {
		return 0, unavailable(0, "the answer is incomplete", err)
	}
	status := response.StatusCode
	if status == http.StatusOK {
		if err := json.Unmarshal(content, into); err != nil {
			return 0, unavailable(0, "the answer is not Tollgate's", err)
		}
		return 0, nil
	}
	problem := &Error{}
	known := json.Unmarshal(content, problem) == nil && problem.Code != ""
	if status == http.StatusTooManyRequests || status >= http.StatusInternalServerError {
		seconds, _ := strconv.Atoi(response.Header.Get("Retry-After")) // 0 if it is missing
		var cause error
		if known {
			cause = errors.New(problem.Code + ": " + problem.Detail)
		}
		return time.Duration(seconds) * time.Second, unavailable(status, "no decision", cause)
	}
	if !known {
		return 0, &Error{Code: CodeUnexpectedAnswer, Status: status, Detail: "the answer is not Tollgate's; is the URL right?"}
	}
	problem.Status = status
	return 0, problem
}
