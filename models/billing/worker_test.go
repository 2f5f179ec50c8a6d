package billing

import (
	"context"
	"sync"
	"testing"
	"time"
)

// calls returns how many calls a limiter allows several callers in a given time.
func calls(l *limiter, callers int, while time.Duration) (n int) {
	ctx, cancel := context.WithTimeout(context.Background(), while)
	defer cancel()
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for l.wait(ctx) == nil {
				mu.Lock()
				n++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return n
}

// A process makes as many calls as it may. It makes half as many after Stripe said that it was too
// fast, and returns to the full rate on its own.
func TestLimiter(t *testing.T) {
	l := newLimiter(200)
	if n := calls(l, 8, 500*time.Millisecond); n < 80 || n > 125 {
		t.Errorf("%d calls in half a second at 200 a second", n)
	}
	l.halve()
	l.halve()
	if n := calls(l, 8, 500*time.Millisecond); n < 15 || n > 50 {
		t.Errorf("%d calls in half a second at 50 a second", n)
	}
	for range 20 {
		l.halve()
	}
	if l.rate != 1 {
		t.Errorf("the limiter slowed down to %g calls a second", l.rate)
	}
	for range 12 {
		l.slow = l.slow.Add(-2 * time.Second)
		l.next = time.Time{}
		if err := l.wait(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if l.rate != 200 {
		t.Errorf("the limiter returned to %g calls a second", l.rate)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if l.wait(ended) == nil {
		t.Error("a call is allowed after the context ended")
	}
}

// A worker is started twice, and once more after it has stopped.
func TestAWorkerStartsOnce(t *testing.T) {
	runs := make(chan struct{}, 3)
	w := newWorker(func(ctx context.Context) {
		runs <- struct{}{}
		<-ctx.Done()
	})
	w.Stop() // it does nothing before the first Start
	for range 2 {
		w.Start(t.Context())
		w.Start(t.Context())
		<-runs
		w.Stop()
	}
	if n := len(runs); n != 0 {
		t.Errorf("the worker ran %d times more than it was started", n)
	}
}
