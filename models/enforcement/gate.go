// Package enforcement is the gate: it decides, in one database transaction, whether a person may
// use more units, and records their use.
//
// Concurrent calls form groups. The calls that arrive while a worker commits one group are its next
// group, so a busy gate needs one transaction for many calls, and an idle gate adds no wait. A call
// is answered only after the commit.
package enforcement

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/errgroup"

	"tollgate/models"
)

// Options are the options of a gate.
type Options struct {
	Catalogue *models.Catalogue
	// Now returns the current time.
	Now func() time.Time
	Log *slog.Logger
	// Metrics may be nil.
	Metrics prometheus.Registerer
	// QueueLimit is the maximum number of ops that wait in a queue. A call beyond it gets
	// CodeOverloaded.
	QueueLimit int
	// Tracer makes the spans of groups and commits; nil means no spans.
	Tracer trace.Tracer
}

const (
	// maxGroup is the maximum number of ops in one transaction, unless a single call has more.
	maxGroup = 512
	// maxPasses is how often a call is tried. A new person who is not linked yet needs two passes.
	// The others are for conflicts with another process that prepares the same person.
	maxPasses = 6

	// AnswerWithin is the maximum time from a call's arrival to its answer, whatever the database
	// does.
	AnswerWithin = 4750 * time.Millisecond
	// spare is how long before that time the gate stops waiting for the database, so that it can
	// still answer the group's calls.
	spare = 150 * time.Millisecond
	// overdue is how long after AnswerWithin the gate answers a call whose transaction does not
	// return, for example because the disk stalls.
	overdue = 100 * time.Millisecond
	// stalled is how long one transaction must wait without an answer before the database counts as
	// stalled for all waiting calls. A group that had less time says nothing about calls that
	// arrived later.
	stalled = time.Second
)

var (
	errStopping = &models.Error{
		Code: models.CodeUnavailable, Detail: "The server is stopping; try again.", RetryAfter: time.Second,
	}
	errOverloaded = &models.Error{
		Code: models.CodeOverloaded, Detail: "Too many calls are waiting; try again.", RetryAfter: time.Second,
	}
	errKeyReused = &models.Error{
		Code: models.CodeIdempotencyKeyReused, Path: "idempotency_key",
		Detail: "This idempotency key was already used for this person with another quantity. Use a new key.",
	}
	// ErrUnknownUser means that a call has only a Slack identity that is not linked to a person.
	ErrUnknownUser = &models.Error{
		Code: models.CodeUnknownUser, Detail: "No person has this Slack team and user ID. Send an email as well.",
	}
	errLocked = &models.Error{
		Code: models.CodeUnavailable, Detail: "This person's usage record is locked; try again.", RetryAfter: time.Second,
	}
	errNoHold = &models.Error{Code: models.CodeUnknownHold, Detail: "There is no hold with this ID."}
	errQueued = models.Unavailable(errors.New("the call waited too long in the queue"))
)

// errUnconfirmed means that the connection or the disk failed after the commit was sent and before
// it was confirmed.
var errUnconfirmed = errors.New("the database did not confirm the commit")

// unconfirmed returns the error for a call that may have been recorded. After any other 503 of the
// gate, a call was not recorded.
func unconfirmed(cause error) *models.Error {
	return &models.Error{
		Code: models.CodeUnavailable, RetryAfter: time.Second, Cause: cause,
		Detail: "The database did not confirm in time, so this call may have been recorded. " +
			"Repeat it with the same idempotency key or hold ID: it counts once.",
	}
}

// errStale means that a record differs from the remembered one.
var errStale = errors.New("a usage record was changed by another transaction")

// ledger is a worker's connection to the database. PostgreSQL and SQLite have one implementation
// each.
type ledger interface {
	// transact locks the records of the lookups, reads the events and holds that they name, calls
	// decide, and writes and commits its changes. With l.skipLocked, it does not wait for records
	// that another transaction has locked; found says which ones those are.
	transact(ctx context.Context, l lookups, decide func(*found) *changes) error
	// compareAndCommit writes the events and counters of decisions that were made on remembered
	// records. If one of the records has changed, or an idempotency key already exists, it writes
	// nothing, and the error is errStale, retryable or a duplicate.
	compareAndCommit(ctx context.Context, c *changes) error
	// peek reads the record of each key without a lock. A missing record is nil. Only holds that
	// have not expired are counted.
	peek(ctx context.Context, wants []models.RecordKey) ([]*models.UsageRecord, error)
	close()
}

// Gate decides and records. Any number of goroutines may call it, and any number of processes may
// use one PostgreSQL database.
type Gate struct {
	db        *models.DB
	catalogue *models.Catalogue
	now       func() time.Time
	log       *slog.Logger
	metrics   *metrics
	tracer    trace.Tracer // may be nil

	writers []*queue // by shard of the person
	readers []*queue
	seed    maphash.Seed
	workers sync.WaitGroup
	probe   probe
	closed  chan struct{}
}

// Open starts the gate's workers.
func Open(ctx context.Context, db *models.DB, o Options) (*Gate, error) {
	g := &Gate{
		db: db, catalogue: o.Catalogue, now: o.Now, log: o.Log, seed: maphash.MakeSeed(), metrics: newMetrics(o.Metrics),
		tracer: o.Tracer,
		closed: make(chan struct{}),
	}
	shards := 1 // SQLite has one writer
	if db.Postgres {
		shards = 2
	}
	// Each worker has its own connection. They connect at the same time, so that the gate starts
	// quickly.
	ledgers := make([]ledger, 2*shards)
	var opening errgroup.Group
	for i := range ledgers {
		opening.Go(func() error {
			l, err := openLedger(ctx, db)
			if err == nil {
				ledgers[i] = l
			}
			return err
		})
	}
	if err := opening.Wait(); err != nil {
		for _, l := range ledgers {
			if l != nil {
				l.close()
			}
		}
		return nil, fmt.Errorf("open the gate: %w", err)
	}
	var writing sync.WaitGroup
	for i, l := range ledgers {
		queues, run := &g.writers, (*worker).write
		if i >= shards {
			queues, run = &g.readers, (*worker).read
		}
		q := newQueue(o.QueueLimit)
		q.records = i < shards
		*queues = append(*queues, q)
		writing.Go(func() {
			defer l.close()
			run(newWorker(g, l, q))
		})
	}
	g.metrics.watch(o.Metrics, g)
	g.workers.Go(g.sweep)
	g.workers.Go(func() {
		writing.Wait()
		close(g.closed)
	})
	return g, nil
}

// sweep answers the calls that ran out of time, until the workers have ended.
func (g *Gate) sweep() {
	tick := time.NewTicker(overdue / 2)
	defer tick.Stop()
	for {
		select {
		case <-g.closed:
			return
		case now := <-tick.C:
			for _, queues := range [][]*queue{g.writers, g.readers} {
				for _, q := range queues {
					q.sweep(now)
				}
			}
		}
	}
}

func openLedger(ctx context.Context, db *models.DB) (ledger, error) {
	if db.Postgres {
		return openPostgres(ctx, db)
	}
	return openSQLite(ctx, db)
}

// Close refuses new calls, finishes the accepted ones and returns when all are answered.
func (g *Gate) Close() {
	for _, q := range append(g.writers[:len(g.writers):len(g.writers)], g.readers...) {
		q.close()
	}
	g.workers.Wait()
}

// Check decides without recording anything.
func (g *Gate) Check(ctx context.Context, p Person, quantity int64) (Answer, error) {
	answer, err := g.single(ctx, g.readers, request{kind: consume, person: p, quantity: quantity})
	g.metrics.count(check, &answer, err)
	return answer, err
}

// Consume decides and records. A person's second call with the same key and quantity gets the first
// answer again. With another quantity, the error is idempotency_key_reused. Refusals are not
// stored.
func (g *Gate) Consume(ctx context.Context, p Person, quantity int64, key string, o ...CallOption) (Answer, error) {
	return g.write(ctx, request{kind: consume, person: p, quantity: quantity, key: key, silent: slices.Contains(o, Silent)})
}

// Hold sets units aside until they are settled, released, or ttl has passed.
func (g *Gate) Hold(ctx context.Context, p Person, quantity int64, key string, ttl time.Duration, o ...CallOption) (Answer, error) {
	return g.write(ctx, request{
		kind: hold, person: p, quantity: quantity, key: key, ttl: ttl, silent: slices.Contains(o, Silent),
	})
}

// Settle turns a hold, or a part of it, into an event of the period in which the hold was created.
func (g *Gate) Settle(ctx context.Context, id uuid.UUID, quantity int64, o ...CallOption) (Answer, error) {
	return g.write(ctx, request{kind: settle, holdID: id, quantity: quantity, silent: slices.Contains(o, Silent)})
}

// Release gives a hold's units back. A second release changes nothing.
func (g *Gate) Release(ctx context.Context, id uuid.UUID) (Answer, error) {
	return g.write(ctx, request{kind: release, holdID: id})
}

// write makes a call that may record something.
func (g *Gate) write(ctx context.Context, r request) (Answer, error) {
	answer, err := g.single(ctx, g.writers, r)
	g.metrics.count(r.kind, &answer, err)
	return answer, err
}

// Outcome is the result of one entry of Record.
type Outcome struct {
	Answer Answer
	// Err is idempotency_key_reused or unknown_user. It affects only its own entry.
	Err error
}

// Record records usage that already happened, in one transaction, even beyond limits.
func (g *Gate) Record(ctx context.Context, entries []PastEvent) ([]Outcome, error) {
	c := &call{ctx: ctx, ops: make([]op, len(entries)), done: make(chan ending, 1)}
	for i, e := range entries {
		c.ops[i].request = request{
			kind: record, person: e.Person, quantity: e.Quantity, key: e.IdempotencyKey, at: e.OccurredAt.UTC().Truncate(time.Microsecond),
		}
	}
	if len(entries) == 0 {
		return nil, nil
	}
	if _, err := g.submit(g.shard(g.writers, &c.ops[0].request), c); err != nil {
		for range entries {
			g.metrics.count(record, &Answer{}, err)
		}
		return nil, err
	}
	outcomes := make([]Outcome, len(c.ops))
	for i := range c.ops {
		outcomes[i] = Outcome{Answer: c.ops[i].answer, Err: c.ops[i].err}
		g.metrics.count(record, &outcomes[i].Answer, outcomes[i].Err)
	}
	return outcomes, nil
}

func (g *Gate) single(ctx context.Context, queues []*queue, r request) (Answer, error) {
	c := calls.Get().(*call)
	c.ctx, c.one[0], c.err = ctx, op{request: r}, nil
	c.ops = c.one[:]
	if free, err := g.submit(g.shard(queues, &c.one[0].request), c); err != nil {
		if free {
			calls.Put(c)
		}
		return Answer{}, err
	}
	answer, err := c.one[0].answer, c.one[0].err
	c.one[0] = op{}
	calls.Put(c)
	return answer, err
}

// calls holds calls for reuse. A call returns to it when its worker has finished with it.
var calls = sync.Pool{New: func() any { return &call{done: make(chan ending, 1)} }}

// shard picks the queue for the request's person, so that two workers seldom wait for the same
// record.
func (g *Gate) shard(queues []*queue, r *request) *queue {
	if len(queues) == 1 {
		return queues[0]
	}
	var h uint64
	switch {
	case r.person.Email != "":
		h = maphash.String(g.seed, r.person.Email)
	case r.kind == settle || r.kind == release:
		h = maphash.Bytes(g.seed, r.holdID[:])
	default:
		h = maphash.String(g.seed, r.person.Slack.UserID)
	}
	return queues[h%uint64(len(queues))]
}

// submit puts the call into the queue and waits for its answer. If the call's context ends first,
// the call may or may not be recorded. free is false if the worker may still use the call.
func (g *Gate) submit(q *queue, c *call) (free bool, err error) {
	c.until = time.Now().Add(AnswerWithin)
	if end, ok := c.ctx.Deadline(); ok && end.Add(-2*overdue).Before(c.until) {
		c.until = end.Add(-2 * overdue) // so that the answer says what happened to the call
	}
	if err := q.put(c); err != nil {
		return true, err
	}
	select {
	case end := <-c.done:
		switch end {
		case waited:
			return true, errQueued
		case givenUp:
			if q.records {
				return false, unconfirmed(errors.New("the transaction does not return"))
			}
			return false, models.Unavailable(errors.New("the query does not return"))
		case released:
			return false, c.err // the group's list still has the call
		}
		return true, c.err
	case <-c.ctx.Done():
		return false, c.ctx.Err()
	}
}
