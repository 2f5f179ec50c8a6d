package enforcement

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"time"

	"github.com/google/uuid"

	"tollgate/models"
)

// worker runs the groups of one queue on one connection.
type worker struct {
	*Gate
	ledger ledger
	queue  *queue
	memory memory
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
		w.guard(live, run)
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
		failAll(calls, models.Unavailable(errors.New("usage records were not ready after all passes")))
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
		// A transaction that locks a record for so long is stuck. The next try leaves out the calls that
		// need the record.
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
	case models.IsUnavailable(err):
		return w.transact(w.failed(calls, err, start))
	case len(calls) == 1:
		calls[0].fail(fmt.Errorf("decide a call: %w", err))
		return nil
	}
	half := len(calls) / 2
	return append(w.transact(slices.Clone(calls[:half])), w.transact(slices.Clone(calls[half:]))...)
}

func (w *worker) attempt(all []*call, skipLocked bool) (unready []*call, err error) {
	ctx, cancel := inTime(all)
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
	err = w.ledger.transact(ctx, look, func(f *found) *changes {
		var ready []*call
		ready, unready = bindAccounts(slices.Clone(all), look, f, w.catalogue, now)
		accounts = f.accounts
		c := decideAll(ready, f, now)
		writes = !c.empty()
		return c
	})
	if err != nil {
		// The commit may have succeeded. On SQLite, a connection's own commits do not change the version
		// by which records are compared.
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
func inTime(calls []*call) (context.Context, context.CancelFunc) {
	first := calls[0].until
	for _, c := range calls[1:] {
		if c.until.Before(first) {
			first = c.until
		}
	}
	return context.WithDeadline(context.Background(), first.Add(-spare))
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
	c := decideAll(ready, f, now)
	for _, call := range ready {
		for i := range call.ops {
			if o := &call.ops[i]; o.kind != consume || o.err != nil || !o.answer.Verdict.Allowed {
				return false, nil
			}
		}
	}
	inOrder(c.accounts)
	err = w.ledger.compareAndCommit(ctx, c)
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

// decideAll decides the calls one after another.
func decideAll(calls []*call, f *found, now time.Time) *changes {
	d := decider{found: f, now: now, changes: changes{now: now, events: make([]models.UsageEvent, 0, len(calls))}}
	for _, c := range calls {
		for i := range c.ops {
			if o := &c.ops[i]; !o.unknown {
				d.decide(o)
			}
		}
	}
	return &d.changes
}

// identify finds the people of calls that have only a Slack identity, and the records of the holds
// to close. It returns the calls with at least one known person or hold.
func (w *worker) identify(calls []*call) []*call {
	var slack []models.SlackIdentity
	var holds []uuid.UUID
	for _, c := range calls {
		c.resolveEmails()
		for i := range c.ops {
			switch o := &c.ops[i]; {
			case o.kind == settle || o.kind == release:
				holds = append(holds, o.holdID)
			case o.email == "" && !o.unknown:
				slack = append(slack, o.person.Slack)
			case o.user.UserID == uuid.Nil && o.person.Slack != (models.SlackIdentity{}):
				if known, ok := w.memory.people[o.link()]; ok && time.Now().Before(known.until) {
					o.user = known.person
				}
			}
		}
	}
	if len(slack)+len(holds) == 0 {
		return calls
	}
	start := time.Now()
	ctx, cancel := inTime(calls)
	defer cancel()
	people, err := map[models.SlackIdentity]models.LinkedPerson{}, error(nil)
	if len(slack) > 0 {
		people, err = models.PeopleByIdentity(ctx, w.db, slack)
	}
	wants := map[uuid.UUID]models.RecordKey{}
	if len(holds) > 0 && err == nil {
		wants, err = models.RecordsOfHolds(ctx, w.db, holds)
	}
	if err != nil {
		if calls = w.failed(calls, err, start); len(calls) > 0 {
			return w.identify(calls)
		}
		return nil
	}
	var known []*call
	for _, c := range calls {
		some := false
		for i := range c.ops {
			o := &c.ops[i]
			var ok bool
			switch {
			case o.kind == settle || o.kind == release:
				if o.held, ok = wants[o.holdID]; !ok {
					o.unknown, o.err = true, errNoHold
				}
			case o.email == "":
				var p models.LinkedPerson
				if p, ok = people[o.person.Slack]; !ok {
					o.unknown, o.err = true, errNoUser
				}
				o.name(p)
			}
			some = some || !o.unknown
		}
		if some {
			known = append(known, c)
		}
	}
	return known
}

// prepare links people and prepares records. It returns the calls for which this succeeded.
func (w *worker) prepare(calls []*call) []*call {
	now := models.Now(w.now)
	return w.prepareBisecting(calls, func(ctx context.Context, db *models.DB, calls []*call) error {
		var ops, linking []*op
		for _, c := range calls {
			for i := range c.ops {
				o := &c.ops[i]
				if o.unknown {
					continue
				}
				var known models.SlackIdentity
				if o.account != nil {
					known = o.account.record.Slack()
				}
				if o.mustLink(known) {
					linking = append(linking, o)
				}
				ops = append(ops, o)
			}
		}
		links, people := linksOf(linking), []models.LinkedPerson(nil)
		prepared, err := models.LinkAndPrepare(ctx, db, w.catalogue, now, links, func(linked []models.LinkedPerson) []models.RecordKey {
			people = linked
			for i, o := range linking {
				o.name(people[i])
			}
			wants := make([]models.RecordKey, len(ops))
			for i, o := range ops {
				wants[i] = o.recordKey(now)
			}
			slices.SortFunc(wants, compareWants)
			return slices.Compact(wants)
		})
		if err != nil {
			for _, o := range linking {
				o.user, o.linked = models.LinkedPerson{}, false // the links were rolled back
			}
			return err
		}
		w.remember(ctx, linking, people)
		w.memory.learn(prepared)
		return nil
	})
}

func linksOf(ops []*op) []models.Link {
	links := make([]models.Link, len(ops))
	for i, o := range ops {
		links[i] = o.link()
	}
	return links
}

// remember stores the people that the links of ops named, after the commit.
func (w *worker) remember(ctx context.Context, ops []*op, people []models.LinkedPerson) {
	for i, o := range ops {
		o.name(people[i])
		w.memory.name(o.link(), people[i], time.Now())
	}
	models.LogLinked(ctx, w.log, linksOf(ops), people)
}

const (
	// groupPatience is how long the preparation of a group waits for each lock. partPatience is how
	// long the preparation of a part waits after the whole group timed out: a transaction that locks a
	// row for so long is stuck.
	groupPatience = time.Second
	partPatience  = 50 * time.Millisecond
	// answersPatience is how long the database may take to answer a trivial query.
	answersPatience = 500 * time.Millisecond
)

// prepareBisecting prepares calls with do, and returns the calls for which this succeeded. If one
// call makes it fail, or if another transaction locks a row that one person needs, it tries each
// half separately, down to that call.
func (w *worker) prepareBisecting(calls []*call, do func(context.Context, *models.DB, []*call) error) []*call {
	start := time.Now()
	ctx, cancel := inTime(calls)
	defer cancel()
	if end, _ := ctx.Deadline(); time.Until(end) > 2*answersPatience {
		// The rest of the time is for checking whether the database answers.
		ctx, cancel = context.WithDeadline(ctx, end.Add(-answersPatience))
		defer cancel()
	}
	var half func(calls []*call, patience time.Duration) []*call
	half = func(calls []*call, patience time.Duration) []*call {
		err := do(ctx, w.db.WithLockTimeout(patience), calls)
		switch {
		case err == nil:
			return calls
		case models.IsLockTimeout(err):
			patience = partPatience
			err = errLocked
		case errors.Is(err, context.DeadlineExceeded) && time.Since(start) >= stalled && w.db.Postgres && w.answers():
			// The group waited for the locks of many people, one after another. The database answers, so the
			// calls in the queue can proceed.
			failAll(calls, errLocked)
			return nil
		case models.IsUnavailable(err):
			return w.failed(calls, err, start) // the next pass prepares them
		default:
			err = fmt.Errorf("prepare a call: %w", err)
		}
		if len(calls) == 1 {
			calls[0].fail(err)
			return nil
		}
		n := len(calls) / 2
		return append(half(calls[:n:n], patience), half(calls[n:], patience)...)
	}
	return half(calls, groupPatience)
}

// answers reports whether the database answers.
func (w *worker) answers() bool {
	ctx, cancel := context.WithTimeout(context.Background(), answersPatience)
	defer cancel()
	_, err := w.db.ExecContext(ctx, "SELECT 1")
	return err == nil
}

// peek answers checks.
func (w *worker) peek(calls []*call) {
	calls = w.identify(calls)
	for pass := range maxPasses {
		if len(calls) == 0 {
			return
		}
		start := time.Now()
		ctx, cancel := inTime(calls)
		now := models.Now(w.now)
		wants := make([]models.RecordKey, len(calls))
		for i, c := range calls {
			wants[i] = c.one[0].recordKey(now)
		}
		standings, err := w.standings(ctx, wants, now, pass > 0)
		cancel()
		if err != nil {
			calls = w.failed(calls, err, start)
			continue
		}
		var again []*call
		for i, c := range calls {
			o, s := &c.one[0], &standings[i]
			if s.moves || o.mustLink(s.slack) {
				again = append(again, c)
				continue
			}
			o.answer = Answer{Standing: s.Standing, Verdict: models.Decide(s.Standing, o.quantity)}
		}
		if len(again) == 0 {
			return
		}
		calls = w.prepareBisecting(again, func(ctx context.Context, db *models.DB, calls []*call) error {
			var linking []*op
			var moving []models.RecordKey
			for i := range calls {
				o := &calls[i].one[0]
				if o.mustLink(models.SlackIdentity{}) {
					linking = append(linking, o)
				} else {
					moving = append(moving, o.recordKey(now))
				}
			}
			if len(linking) > 0 {
				people, err := models.LinkPeople(ctx, db, now, linksOf(linking))
				if err != nil {
					return err
				}
				w.remember(ctx, linking, people)
			}
			if len(moving) == 0 {
				return nil
			}
			return models.PrepareRecords(ctx, db, w.catalogue, now, moving)
		})
	}
	failAll(calls, models.Unavailable(errors.New("people or usage records were not ready after all passes")))
}

// peeked is a person's standing, read without a lock.
type peeked struct {
	models.Standing
	slack models.SlackIdentity
	// moves means that the person's events must first move to another record, because Tollgate learned
	// late of a period.
	moves bool
}

// standings reads people's standings. If a person's record is missing or not ready, it computes
// what the record will be. likely means that all of them probably need that, so it reads both at
// the same time.
func (w *worker) standings(ctx context.Context, wants []models.RecordKey, now time.Time, likely bool) ([]peeked, error) {
	read := func(wants []models.RecordKey) (*models.Foreseen, error) {
		return models.ReadAhead(ctx, w.db, w.catalogue, now, wants)
	}
	if likely {
		done := make(chan struct{})
		var all *models.Foreseen
		var err error
		go func() {
			defer close(done)
			all, err = models.ReadAhead(ctx, w.db, w.catalogue, now, wants)
		}()
		read = func([]models.RecordKey) (*models.Foreseen, error) { <-done; return all, err }
	}
	records, err := w.ledger.peek(ctx, wants)
	if err != nil {
		return nil, err
	}
	standings := make([]peeked, len(wants))
	var unready []int
	var missing []models.RecordKey
	for i, r := range records {
		if r != nil {
			var ready bool
			if standings[i].Standing, ready = w.catalogue.Standing(r, now); ready {
				standings[i].slack = r.Slack()
				continue
			}
		}
		unready, missing = append(unready, i), append(missing, wants[i])
	}
	if len(unready) == 0 {
		return standings, nil
	}
	ahead, err := read(missing)
	if err != nil {
		return nil, err
	}
	for _, i := range unready {
		standings[i].Standing, standings[i].slack, standings[i].moves = ahead.Standing(wants[i], records[i])
	}
	return standings, nil
}

// failed ends calls with an error. It returns the calls to try again: the newer ones, if the oldest
// ran out of time before the database could answer. If the database is unreachable, the calls in
// the queue end too, because they would only find the same later. A lost race with another
// transaction does not mean that the database is unreachable.
func (w *worker) failed(calls []*call, err error, start time.Time) (again []*call) {
	late := errors.Is(err, context.DeadlineExceeded)
	switch {
	case !models.IsUnavailable(err):
		w.end(calls, err)
		return nil
	case errors.Is(err, errUnconfirmed):
		w.end(calls, unconfirmed(err))
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
