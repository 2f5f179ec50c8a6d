package billing

import (
	"context"
	"sync"
	"time"
)

// limiter is a token bucket that slows down after a refusal and recovers by itself.
type limiter struct {
	mu sync.Mutex
	// most is the configured rate and rate the current one, in calls per second.
	most, rate float64
	next, slow time.Time
}

func newLimiter(rate float64) *limiter { return &limiter{most: rate, rate: rate} }

// wait returns when the next call may be made.
func (l *limiter) wait(ctx context.Context) error {
	l.mu.Lock()
	now := time.Now()
	if l.rate < l.most && now.Sub(l.slow) > time.Second {
		// Recover by a tenth per second: from half to all of the rate in five seconds without a
		// refusal.
		l.rate, l.slow = min(l.most, l.rate+l.most/10), now
	}
	// A burst is at most a tenth of a second's calls.
	if earliest := now.Add(-100 * time.Millisecond); l.next.Before(earliest) {
		l.next = earliest
	}
	l.next = l.next.Add(time.Duration(float64(time.Second) / l.rate))
	wait := l.next.Sub(now)
	l.mu.Unlock()
	if wait <= 0 {
		return ctx.Err()
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(wait):
		return nil
	}
}

// halve halves the rate, down to one call per second.
func (l *limiter) halve() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rate, l.slow = max(1, l.rate/2), time.Now()
}
