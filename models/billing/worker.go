package billing

import (
	"context"
	"sync"
	"time"
)

// worker is something that runs until it is stopped; all workers have this shape.
type worker struct {
	run    func(context.Context)
	cancel context.CancelFunc
	done   sync.WaitGroup
}

func newWorker(run func(context.Context)) *worker { return &worker{run: run, cancel: func() {}} }

// Start sets it to work. It ends with ctx, or by Stop.
func (w *worker) Start(ctx context.Context) {
	ctx, w.cancel = context.WithCancel(ctx)
	w.done.Go(func() { w.run(ctx) })
}

// Stop ends it and returns when it has ended; a worker that was never started has.
func (w *worker) Stop() {
	w.cancel()
	w.done.Wait()
}

// workers are several that work together.
type workers []*worker

// Start sets all to work.
func (ws workers) Start(ctx context.Context) {
	for _, w := range ws {
		w.Start(ctx)
	}
}

// Stop tells all to end, and returns when they have.
func (ws workers) Stop() {
	for _, w := range ws {
		w.cancel()
	}
	for _, w := range ws {
		w.Stop()
	}
}

// nudge wakes one of those who wait on a channel, unless as many are awake already as there are.
func nudge(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// The waits between tries that fail double from the first to the last.
const (
	minDelay = 5 * time.Second
	maxDelay = 15 * time.Minute
	// failurePatience is how long a stream that failed goes on waiting at most, once there is something new to send.
	failurePatience = time.Minute
)

// fullJitter is a wait after so many failures in a row, drawn evenly from zero on by a number in [0, 1), so that those who
// failed together do not come back together.
func fullJitter(random float64, failures int) time.Duration {
	return time.Duration(random * float64(min(maxDelay, minDelay<<min(failures, 20))))
}

// every calls do at once and then each time that the interval has passed since it last returned.
func every(ctx context.Context, interval time.Duration, do func()) {
	for {
		do()
		select {
		case <-ctx.Done():
			return
		case <-time.After(interval):
		}
	}
}

// limiter is a token bucket that is slowed down by a refusal and recovers by itself.
type limiter struct {
	mu sync.Mutex
	// most and rate are calls a second: as configured, and now.
	most, rate float64
	next, slow time.Time
}

func newLimiter(rate float64) *limiter { return &limiter{most: rate, rate: rate} }

// wait returns when a call may be made.
func (l *limiter) wait(ctx context.Context) error {
	l.mu.Lock()
	now := time.Now()
	if l.rate < l.most && now.Sub(l.slow) > time.Second {
		// A tenth a second: from half to all of it in five seconds without a refusal.
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

// halve slows the process down, to one call a second at least.
func (l *limiter) halve() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rate, l.slow = max(1, l.rate/2), time.Now()
}
