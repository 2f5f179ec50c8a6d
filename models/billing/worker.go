package billing

import (
	"context"
	"sync"
	"time"
)

// worker runs a function in the background until it is stopped.
type worker struct {
	run  func(context.Context)
	done sync.WaitGroup

	mu     sync.Mutex
	cancel context.CancelFunc // nil while the worker is not running
}

func newWorker(run func(context.Context)) *worker { return &worker{run: run} }

// Start runs the worker until ctx ends or Stop is called. A second Start before Stop does nothing.
func (w *worker) Start(ctx context.Context) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cancel != nil {
		return
	}
	ctx, w.cancel = context.WithCancel(ctx)
	w.done.Go(func() { w.run(ctx) })
}

// interrupt asks the worker to end, and returns at once.
func (w *worker) interrupt() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cancel != nil {
		w.cancel()
	}
}

// Stop ends the worker and waits for it. It does nothing if the worker was never started.
func (w *worker) Stop() {
	w.interrupt()
	w.done.Wait()
	w.mu.Lock()
	w.cancel = nil
	w.mu.Unlock()
}

// workers are several workers that start and stop together.
type workers []*worker

// Start starts all workers.
func (ws workers) Start(ctx context.Context) {
	for _, w := range ws {
		w.Start(ctx)
	}
}

// Stop ends all workers and waits for them.
func (ws workers) Stop() {
	for _, w := range ws {
		w.interrupt()
	}
	for _, w := range ws {
		w.Stop()
	}
}

// nudge wakes one worker that waits on a channel, unless a wake-up is already pending for each.
func nudge(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// The delays between failed attempts double from minDelay to maxDelay.
const (
	minDelay = 5 * time.Second
	maxDelay = 15 * time.Minute
	// failurePatience is the maximum remaining delay of a failed stream after there is something
	// new to send.
	failurePatience = time.Minute
)

// fullJitter returns the delay after a number of failures in a row, scaled by a random number in
// [0, 1), so that processes that failed together do not retry together.
func fullJitter(random float64, failures int) time.Duration {
	return time.Duration(random * float64(min(maxDelay, minDelay<<min(failures, 20))))
}

// every calls do at once, and again whenever the interval has passed since do returned.
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
