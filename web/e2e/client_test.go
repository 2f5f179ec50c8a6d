//go:build linux

package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"mime"
	"net/http"
	"net/http/httptrace"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// hangs is how long a call may take, whatever the database does.
const hangs = 10 * time.Second

// client calls the API as the app does, and checks the form of each answer that is not a decision.
type client struct {
	http *http.Client
	key  string

	calls, unavailable, broken, unsent atomic.Int64

	mu      sync.Mutex
	failed  time.Time // when a call last got no answer or a 503
	slowest time.Duration
	slow    string  // the slowest call
	invalid []error // answers that no call may get; the first ten
}

func newClient(key string) *client {
	return &client{key: key, http: &http.Client{
		Transport: &http.Transport{MaxIdleConnsPerHost: 4096, DisableCompression: true},
		// Longer than any valid call, so that the tests detect calls that hang.
		Timeout: 3 * hangs,
	}}
}

// body is the JSON of a request.
type body map[string]any

// reply is the result of one call.
type reply struct {
	status int
	header http.Header
	body   []byte
	took   time.Duration
	// err is the reason why there is no answer.
	err error
	// refused means that no server was listening, so the call was not sent.
	refused bool
	// idle is how long the call's connection was unused before.
	idle time.Duration
	// again means that the call was retried, so an earlier try may have been recorded.
	again bool
}

// decision has the fields of a decision that the tests read, including those that consume, holds
// and settle add.
type decision struct {
	Allowed  bool
	Reason   *string
	Email    string
	Plan     string
	Used     int64
	Held     int64
	Included int64
	Period   struct{ Start time.Time }
	EventID  *string `json:"event_id"`
	Replayed bool
	Hold     *struct {
		ID       string
		Quantity int64
		State    string
	}
}

// problem is an error of the API.
type problem struct {
	Type, Title, Code, Detail string
	Status                    int
}

func (r *reply) decision() (decision, error) {
	var d decision
	return d, r.read(http.StatusOK, &d)
}

// read parses an answer, which must have the status.
func (r *reply) read(status int, into any) error {
	if r.err != nil {
		return r.err
	}
	if r.status != status {
		return fmt.Errorf("status %d, want %d: %s", r.status, status, r.body)
	}
	if err := json.Unmarshal(r.body, into); err != nil {
		return fmt.Errorf("%w: %s", err, r.body)
	}
	return nil
}

func (r *reply) problem() (problem, error) {
	var p problem
	return p, r.read(r.status, &p)
}

// call makes one call. content is sent as JSON, unless it is []byte, which is JSON already. A 5xx
// answer other than a valid 503 is stored in invalid.
func (c *client) call(ctx context.Context, addr, method, path string, content any) *reply {
	r := c.send(ctx, addr, method, path, content)
	c.calls.Add(1)
	c.mu.Lock()
	if r.took > c.slowest {
		c.slowest, c.slow = r.took, fmt.Sprintf("%s %s, answered %d", method, path, r.status)
	}
	if r.err != nil || r.status >= http.StatusInternalServerError {
		c.failed = time.Now()
	}
	c.mu.Unlock()
	switch {
	case r.refused:
		c.unsent.Add(1)
	case r.err != nil:
		c.broken.Add(1)
	case r.status == http.StatusServiceUnavailable:
		c.unavailable.Add(1)
		c.addInvalid(r.wrongUnavailable(), method, path)
	case r.status >= http.StatusInternalServerError:
		c.addInvalid(fmt.Errorf("status %d: %s", r.status, r.body), method, path)
	}
	return r
}

func (c *client) send(ctx context.Context, addr, method, path string, content any) *reply {
	reader := io.Reader(http.NoBody)
	if content != nil {
		encoded, ok := content.([]byte)
		if !ok {
			var err error
			if encoded, err = json.Marshal(content); err != nil {
				return &reply{err: err}
			}
		}
		reader = bytes.NewReader(encoded)
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://"+addr+path, reader)
	if err != nil {
		return &reply{err: err}
	}
	request.Header.Set("Authorization", "Bearer "+c.key)
	if content != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	var idle time.Duration
	trace := &httptrace.ClientTrace{GotConn: func(conn httptrace.GotConnInfo) { idle = conn.IdleTime }}
	request = request.WithContext(httptrace.WithClientTrace(ctx, trace))
	begun := time.Now()
	response, err := c.http.Do(request)
	if err != nil {
		return &reply{err: err, refused: errors.Is(err, syscall.ECONNREFUSED), took: time.Since(begun), idle: idle}
	}
	defer response.Body.Close()
	r := &reply{status: response.StatusCode, header: response.Header}
	r.body, r.err = io.ReadAll(response.Body)
	r.took = time.Since(begun)
	return r
}

// wrongUnavailable returns an error if a 503 does not have the promised form.
func (r *reply) wrongUnavailable() error {
	p, err := r.problem()
	if err != nil {
		return err
	}
	if media, _, err := mime.ParseMediaType(r.header.Get("Content-Type")); err != nil || media != "application/problem+json" {
		return fmt.Errorf("a 503 has the type %q: %s", r.header.Get("Content-Type"), r.body)
	}
	if p.Status != http.StatusServiceUnavailable || p.Code != "unavailable" && p.Code != "overloaded" || p.Title == "" || p.Detail == "" {
		return fmt.Errorf("a 503 has other fields: %s", r.body)
	}
	if after, err := strconv.Atoi(r.header.Get("Retry-After")); err != nil || after < 1 || after > 60 {
		return fmt.Errorf("a 503 has Retry-After %q", r.header.Get("Retry-After"))
	}
	for _, secret := range []string{"SQL", "sqlite", "postgres", "127.0.0.1", ".go:", "/tmp", "dial", "commit"} {
		if strings.Contains(string(r.body), secret) {
			return fmt.Errorf("a 503 shows internals (%q): %s", secret, r.body)
		}
	}
	return nil
}

func (c *client) addInvalid(err error, method, path string) {
	if err == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.invalid) < 10 {
		c.invalid = append(c.invalid, fmt.Errorf("%s %s: %w", method, path, err))
	}
}

// insist repeats a call until it is decided, on one address after another from the nth on, as the
// app does without an answer. It returns the first answer that is not a 503.
func (c *client) insist(ctx context.Context, addresses []string, nth int, method, path string, content any) *reply {
	ctx, cancel := context.WithTimeoutCause(ctx, time.Minute, errors.New("a call was not decided within a minute"))
	defer cancel()
	for again := false; ; nth, again = nth+1, true {
		r := c.call(ctx, addresses[nth%len(addresses)], method, path, content)
		if r.err == nil && r.status != http.StatusServiceUnavailable {
			r.again = again
			return r
		}
		select {
		case <-ctx.Done():
			return &reply{err: errors.Join(context.Cause(ctx), fmt.Errorf("the last answer: status %d %s", r.status, r.body), r.err)}
		case <-time.After(time.Duration(2+rand.IntN(20)) * time.Millisecond):
		}
	}
}

func (c *client) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return fmt.Sprintf("%d calls, %d answered with 503, %d without an answer, the slowest %s (%s)",
		c.calls.Load(), c.unavailable.Load(), c.broken.Load(), c.slowest.Round(time.Millisecond), c.slow)
}

// spread calls do for 0 to n-1, in order, with this many concurrent clients. It returns when all
// calls are done or ctx ends.
func spread(ctx context.Context, clients, n int, do func(i int)) {
	var next atomic.Int64
	var all sync.WaitGroup
	for range clients {
		all.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				do(i)
			}
		})
	}
	all.Wait()
}

// count is a counter that can be waited for.
type count struct {
	mu    sync.Mutex
	n     int
	marks map[int][]chan struct{}
}

func (c *count) add() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n++
	for _, mark := range c.marks[c.n] {
		close(mark)
	}
	delete(c.marks, c.n)
}

func (c *count) now() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n
}

// more returns a channel that is closed when n more have been counted.
func (c *count) more(n int) <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.marks == nil {
		c.marks = map[int][]chan struct{}{}
	}
	mark := make(chan struct{})
	c.marks[c.n+n] = append(c.marks[c.n+n], mark)
	return mark
}
