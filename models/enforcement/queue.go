package enforcement

import (
	"runtime"
	"sync"
)

// queue holds the calls that wait for one worker. What has arrived while the worker was busy is its next group.
type queue struct {
	mu      sync.Mutex
	calls   []*call
	ops     int
	limit   int // ops
	closed  bool
	arrived chan struct{} // one token: there is something to take, or the queue was closed
}

func newQueue(limit int) *queue {
	return &queue{limit: limit, arrived: make(chan struct{}, 1)}
}

// put adds a call. It returns errStopping or errOverloaded, and then holds on to nothing.
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

func (q *queue) signal() {
	select {
	case q.arrived <- struct{}{}:
	default:
	}
}

// take waits for calls and returns the oldest ones, of at most most ops but at least one call. It returns nil when the
// queue is closed and empty. into is reused.
func (q *queue) take(into []*call, most int) []*call {
	for {
		// Callers that are ready to run come first, so that they are of this group and not of the next. On an idle machine
		// nobody is ready and this returns at once.
		runtime.Gosched()
		q.mu.Lock()
		if len(q.calls) > 0 {
			n, ops := 0, 0
			for n < len(q.calls) && (n == 0 || ops+len(q.calls[n].ops) <= most) {
				ops += len(q.calls[n].ops)
				n++
			}
			into = append(into[:0], q.calls[:n]...)
			left := copy(q.calls, q.calls[n:])
			clear(q.calls[left:])
			q.calls, q.ops = q.calls[:left], q.ops-ops
			q.mu.Unlock()
			if left > 0 {
				q.signal()
			}
			return into
		}
		closed := q.closed
		q.mu.Unlock()
		if closed {
			q.signal() // for the other workers of this queue
			return nil
		}
		<-q.arrived
	}
}

// drain takes all that wait.
func (q *queue) drain() []*call {
	q.mu.Lock()
	defer q.mu.Unlock()
	waiting := q.calls
	q.calls, q.ops = nil, 0
	return waiting
}

// close lets the workers finish what was taken in and refuses the rest.
func (q *queue) close() {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	q.signal()
}
