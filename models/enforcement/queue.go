package enforcement

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// queue has the calls that wait for one worker. The calls that arrive while the worker is busy are
// its next group.
type queue struct {
	mu      sync.Mutex
	calls   []*call
	ops     int
	limit   int // ops
	closed  bool
	arrived chan struct{} // gets a token when a call arrives in the empty queue and when the queue is closed

	group   []*call // the calls that the worker is deciding
	records bool    // whether its calls may record something; calls of other queues are checks
	// failures are the last groups that failed. recorded is when the last group was recorded, in
	// Unix nanoseconds.
	failures failures
	recorded atomic.Int64
}

func newQueue(limit int) *queue {
	return &queue{limit: limit, arrived: make(chan struct{}, 1)}
}

// put adds a call, or returns errStopping or errOverloaded.
func (q *queue) put(c *call) error {
	q.mu.Lock()
	switch {
	case q.closed:
		q.mu.Unlock()
		return errStopping
	case q.ops > 0 && q.ops+len(c.ops) > q.limit:
		q.mu.Unlock()
		return errOverloaded
	}
	first := len(q.calls) == 0
	q.calls = append(q.calls, c)
	q.ops += len(c.ops)
	q.mu.Unlock()
	if first {
		q.signal()
	}
	return nil
}

// length returns the number of ops that wait.
func (q *queue) length() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.ops
}

func (q *queue) signal() {
	select {
	case q.arrived <- struct{}{}:
	default:
	}
}

// take waits for calls and returns the oldest ones: at least one call, and further calls while
// all have at most maxOps ops. It returns nil if the queue is closed and empty. It reuses the slice
// into.
func (q *queue) take(into []*call, maxOps int) []*call {
	for {
		// Callers that are ready to run go first, so that their calls are in this group and not in
		// the next one. On an idle machine, none is ready, and this returns immediately.
		runtime.Gosched()
		q.mu.Lock()
		if len(q.calls) > 0 {
			n, ops := 0, 0
			for n < len(q.calls) && (n == 0 || ops+len(q.calls[n].ops) <= maxOps) {
				ops += len(q.calls[n].ops)
				n++
			}
			into = append(into[:0], q.calls[:n]...)
			left := copy(q.calls, q.calls[n:])
			clear(q.calls[left:])
			q.calls, q.ops, q.group = q.calls[:left], q.ops-ops, into
			q.mu.Unlock()
			return into
		}
		closed := q.closed
		q.mu.Unlock()
		if closed {
			return nil
		}
		<-q.arrived
	}
}

// finish wakes the callers of the worker's group, whose calls are decided.
func (q *queue) finish() {
	q.mu.Lock()
	group := q.group
	q.group = nil
	q.mu.Unlock()
	for _, c := range group {
		if !c.left {
			c.done <- decided
		}
	}
}

// release wakes callers before the rest of their group is decided.
func (q *queue) release(calls []*call) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, c := range calls {
		if !c.left {
			c.left = true
			c.done <- released
		}
	}
}

// sweep answers the calls that ran out of time: those in the queue, and those whose transaction
// does not return.
func (q *queue) sweep(now time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	kept := q.calls[:0]
	for _, c := range q.calls {
		if now.Before(c.until) {
			kept = append(kept, c)
			continue
		}
		q.ops -= len(c.ops)
		c.done <- waited
	}
	clear(q.calls[len(kept):])
	q.calls = kept
	for _, c := range q.group {
		if !c.left && now.After(c.until.Add(overdue)) {
			c.left = true
			c.done <- givenUp
		}
	}
}

// drain removes and returns all waiting calls.
func (q *queue) drain() []*call {
	q.mu.Lock()
	defer q.mu.Unlock()
	waiting := q.calls
	q.calls, q.ops = nil, 0
	return waiting
}

// close refuses new calls. The worker finishes the accepted ones.
func (q *queue) close() {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	q.signal()
}
