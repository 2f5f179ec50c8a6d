package enforcement

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"time"

	"tollgate/models"
)

// worker runs the groups of one queue on one connection.
type worker struct {
	*Gate
	ledger ledger
	queue  *queue
	memory memory
	// lapsed are the organizations' records whose expired holds must be counted again.
	lapsed []int64
	// far means that the last read took long and found records missing; see farAway.
	far bool
	// ctx is the current group's context, which has its span.
	ctx context.Context
}

func newWorker(g *Gate, l ledger, q *queue) *worker {
	return &worker{Gate: g, ledger: l, queue: q, memory: memory{accounts: map[string]*account{}}, ctx: context.Background()}
}

// write decides one group after another until the queue is closed and empty.
func (w *worker) write() {
	w.work(func(calls []*call) { w.group(calls, 1) })
}

// read answers one group of checks after another until the queue is closed and empty.
func (w *worker) read() { w.work(w.peek) }

func (w *worker) work(run func([]*call)) {
	var batch, live []*call
	for {
		batch = w.queue.take(batch, maxGroup)
		if batch == nil {
			return
		}
		// The worker skips calls whose caller left, or that can no longer be answered in time.
		live = live[:0]
		ops := 0
		start := time.Now()
		for _, c := range batch {
			switch {
			case c.ctx.Err() != nil:
				c.err = context.Cause(c.ctx)
			case !start.Before(c.until.Add(-spare)):
				c.err = errQueued
			default:
				live = append(live, c)
				ops += len(c.ops)
			}
		}
		w.ctx = w.startGroup(live, ops)
		w.guard(live, run)
		w.endGroup(live)
		w.metrics.observe(ops, time.Since(start))
		w.queue.finish()
	}
}

// guard turns a panic into an error of the group's calls. The worker continues.
func (w *worker) guard(batch []*call, run func([]*call)) {
	defer func() {
		if p := recover(); p != nil {
			w.log.Error("a group of calls panicked", "panic", p, "stack", string(debug.Stack()))
			for _, c := range batch {
				c.fail(fmt.Errorf("the gate panicked: %v", p))
			}
		}
	}()
	if len(batch) > 0 {
		// run reorders the list, so it gets a copy.
		run(slices.Clone(batch))
	}
}

// group decides the calls. For calls that need it, it links people and prepares records first, and
// then decides them.
func (w *worker) group(calls []*call, pass int) {
	if pass > maxPasses {
		failAll(calls, models.Unavailable(errors.New("usage records were still not ready after several attempts")))
		return
	}
	calls = w.identify(calls)
	unready := w.transact(calls)
	if len(unready) == 0 {
		return
	}
	if unready = w.prepare(unready); len(unready) > 0 {
		w.group(unready, pass+1)
	}
}

// transact runs the calls as one transaction. It returns the calls that were not decided because
// their people or records must be prepared first. If one call makes the transaction fail, transact
// tries each half separately, down to that call.
func (w *worker) transact(calls []*call) (unready []*call) {
	if len(calls) == 0 {
		return nil
	}
	var err error
	start := time.Now()
	skipLocked := false
	for try := 1; try <= 5; try++ {
		if unready, err = w.attempt(calls, skipLocked); err == nil {
			return unready
		}
		// A transaction that locks a record for so long is stuck. The next try leaves out the calls
		// that need the record.
		skipLocked = skipLocked || models.IsLockTimeout(err)
		if !models.IsRetryable(err) && !models.IsDuplicate(err) {
			break
		}
		if calls = w.failDue(calls, err); len(calls) == 0 {
			return nil
		}
		time.Sleep(time.Duration(rand.IntN(try*4000)) * time.Microsecond) //nolint:gosec // jitter needs no secrecy
	}
	switch {
	case models.IsUnavailable(err) || errors.Is(err, errUnconfirmed):
		return w.transact(w.failed(calls, err, start))
	case len(calls) == 1:
		calls[0].fail(fmt.Errorf("decide a call: %w", err))
		return nil
	}
	half := len(calls) / 2
	return append(w.transact(slices.Clone(calls[:half])), w.transact(slices.Clone(calls[half:]))...)
}

func (w *worker) attempt(all []*call, skipLocked bool) (unready []*call, err error) {
	ctx, cancel := w.inTime(all)
	defer cancel()
	now := models.Now(w.now)
	look := collectLookups(all, now)
	look.skipLocked = skipLocked
	// A decision on remembered records is one round trip, including the commit. If it had less time
	// than PostgreSQL waits for a lock, its outcome could stay unknown.
	if f := w.memory.recall(look, now); f != nil && hasTime(ctx) {
		if done, err := w.compareAndCommit(ctx, all, look, f, now); done || err != nil {
			return nil, err
		}
	}
	var accounts []*account
	writes := false
	var committed func(error)
	err = w.ledger.transact(ctx, look, func(f *found) *changes {
		var ready []*call
		ready, unready = bindAccounts(slices.Clone(all), look, f, w.catalogue, now)
		c, lapsed := decideAll(ready, f, now)
		if len(lapsed) > 0 {
			w.lapsed, unready = lapsed, all
			return &changes{}
		}
		accounts = f.accounts
		w.memory.noteLimits(ready, time.Now())
		if writes = !c.empty(); writes {
			committed = w.startCommit()
		}
		return c
	})
	if writes {
		committed(err)
	}
	if err != nil {
		// The commit may have succeeded. On SQLite, a connection's own commits do not change the
		// version by which records are compared.
		w.memory.forget(look)
		return nil, err
	}
	w.memory.keep(accounts, now)
	if writes {
		w.queue.recorded.Store(time.Now().UnixNano())
	}
	return unready, nil
}

// inTime returns a context that ends when the gate must stop waiting for the database, so that it
// can answer the most urgent call in time.
func (w *worker) inTime(calls []*call) (context.Context, context.CancelFunc) {
	first := calls[0].until
	for _, c := range calls[1:] {
		if c.until.Before(first) {
			first = c.until
		}
	}
	return context.WithDeadline(w.ctx, first.Add(-spare))
}

// hasTime reports whether there is enough time for the database to report a lock timeout.
func hasTime(ctx context.Context) bool {
	end, _ := ctx.Deadline()
	return time.Until(end) > stalled+spare/2
}

// failDue fails the calls that have no time left for another try, and returns the others.
func (w *worker) failDue(calls []*call, err error) (rest []*call) {
	soon := time.Now().Add(spare + stalled)
	for _, c := range calls {
		if c.until.Before(soon) {
			w.end([]*call{c}, models.Unavailable(err))
		} else {
			rest = append(rest, c)
		}
	}
	return rest
}

// compareAndCommit decides the calls on remembered records and writes the decisions, if all calls
// are allowed. done is false if they must be decided under locks instead: a refusal must be based
// on the current record, and so must everything except a consume.
func (w *worker) compareAndCommit(ctx context.Context, all []*call, look lookups, f *found, now time.Time) (done bool, err error) {
	ready, unready := bindAccounts(slices.Clone(all), look, f, w.catalogue, now)
	if len(unready) > 0 {
		return false, nil
	}
	c, _ := decideAll(ready, f, now)
	if w.memory.limited(c.organizations(), time.Now()) {
		return false, nil
	}
	for _, a := range c.accounts {
		if a.organization != nil && len(a.notices) > 0 {
			return false, nil // the notice says whether the organization's limit is reached, which is not remembered
		}
	}
	for _, call := range ready {
		for i := range call.ops {
			if o := &call.ops[i]; o.kind != consume || o.err != nil || !o.answer.Verdict.Allowed {
				return false, nil
			}
		}
	}
	inOrder(c.accounts)
	committed := w.startCommit()
	err = w.ledger.compareAndCommit(ctx, c)
	committed(err)
	w.memory.adjust(look, err)
	switch {
	case err == nil:
		w.memory.keep(c.accounts, now)
		w.queue.recorded.Store(time.Now().UnixNano())
		w.metrics.remembered.Inc()
		return true, nil
	case isStale(err):
		w.metrics.moved.Inc()
		return false, nil
	}
	return false, err
}

// decideAll decides the calls one after another. If lapsed is not empty, the calls must be decided
// again after the holds of these organizations were counted again.
func decideAll(calls []*call, f *found, now time.Time) (c *changes, lapsed []int64) {
	d := decider{found: f, now: now, changes: changes{now: now, events: make([]models.UsageEvent, 0, len(calls))}}
	for _, c := range calls {
		for i := range c.ops {
			if o := &c.ops[i]; !o.unknown {
				d.decide(o)
			}
		}
	}
	return &d.changes, d.lapsed
}

const (
	// groupPatience is how long the preparation of a group waits for each lock. partPatience is how
	// long the preparation of a part waits after the whole group timed out: a transaction that
	// locks a row for so long is stuck.
	groupPatience = time.Second
	partPatience  = 50 * time.Millisecond
	// answersPatience is how long the database may take to answer a trivial query.
	answersPatience = 500 * time.Millisecond
)

// failed ends calls with an error. It returns the calls to try again: the newer ones, if the oldest
// ran out of time before the database could answer. If the database is unreachable, the calls in
// the queue end too, because they would only find the same later. A lost race with another
// transaction does not mean that the database is unreachable.
func (w *worker) failed(calls []*call, err error, start time.Time) (again []*call) {
	late := errors.Is(err, context.DeadlineExceeded)
	switch {
	case errors.Is(err, errUnconfirmed):
		w.end(calls, unconfirmed(err))
	case !models.IsUnavailable(err):
		w.end(calls, err)
		return nil
	case late && time.Since(start) < stalled:
		return w.failDue(calls, err)
	default:
		w.end(calls, models.Unavailable(err))
	}
	if models.IsRetryable(err) && !late {
		return nil
	}
	w.queue.failures.add(time.Now())
	away := models.Unavailable(err)
	for _, c := range w.queue.drain() {
		c.fail(away)
		c.done <- decided
	}
	return nil
}

// end fails calls and wakes their callers immediately, because the rest of their group may take
// long.
func (w *worker) end(calls []*call, err error) {
	failAll(calls, err)
	w.queue.release(calls)
}

func failAll(calls []*call, err error) {
	for _, c := range calls {
		c.fail(err)
	}
}
