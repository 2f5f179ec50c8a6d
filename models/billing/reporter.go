package billing

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"tollgate/models"
)

// Stripe's limits, and our margins.
// Source: https://docs.stripe.com/billing/subscriptions/usage-based/recording-usage-api
const (
	// sealGrace is how long after the end of an hour its events are sealed.
	sealGrace = 2 * time.Minute
	// clockMargin is the maximum difference between the clocks of two processes.
	clockMargin = time.Minute
	// resendGuard is how long after its first attempt a report may be sent again. Stripe remembers
	// its identifier for 24 hours, and may process the last attempt up to an hour after it was
	// sent.
	resendGuard    = 23*time.Hour - clockMargin
	requestSettles = models.StripeRequestSettles + clockMargin
	summarySettles = models.StripeTotalsSettle + clockMargin
	// firstRead is when an accepted report is first read.
	firstRead = 2 * time.Hour
	// watched is how long a failed report is read again once a day, because Stripe may still
	// process it.
	watched = 7 * 24 * time.Hour

	// deadAfter is the number of refusals after which a report is dead. Attempts without an answer
	// do not count.
	deadAfter = 3
)

// Calls per second (Stripe allows 1,000 in live mode and 25 in test mode), and streams that are
// sent in parallel.
const (
	liveRate, testRate       = 200, 15
	liveStreams, testStreams = 48, 8
)

// ReporterOptions configure a Reporter.
type ReporterOptions struct {
	DB        *models.DB
	Client    *Client
	Catalogue *models.Catalogue
	Now       func() time.Time
	Log       *slog.Logger
	// Every is how often events are sealed into reports.
	Every time.Duration
	// Rate is the maximum number of calls per second of this process; 0 means the mode's default.
	Rate float64
	// Random returns a number in [0, 1), and NewID a unique UUID; nil means the default.
	Random func() float64
	NewID  func() uuid.UUID
	// Tracer makes the spans of deliveries; nil means no spans.
	Tracer trace.Tracer
}

// Reporter sends each billed unit to Stripe exactly once. It seals events into reports, delivers
// the reports, and reads back what Stripe counted. Any number of processes may run one on the same
// database.
type Reporter struct {
	db        *models.DB
	client    *Client
	catalogue *models.Catalogue
	clock     func() time.Time
	log       *slog.Logger
	tracer    trace.Tracer
	every     time.Duration
	random    func() float64
	newID     func() uuid.UUID

	account     *accountCheck
	environment string
	// guard is resendGuard, except in the test that shows why it is needed.
	guard time.Duration
	limit *limiter
	wake  chan struct{}

	started atomic.Bool
	// loggedReason is the last reason for a stop that this process has logged.
	loggedReason atomic.Pointer[string]

	metersMu    sync.Mutex
	knownMeters map[string]knownMeters // by event name

	workers workers
}

type knownMeters struct {
	ids   []string
	until time.Time
}

// NewReporter returns a reporter. It does nothing before Start.
func NewReporter(o ReporterOptions) *Reporter {
	if o.Random == nil {
		o.Random = rand.Float64
	}
	if o.NewID == nil {
		o.NewID = func() uuid.UUID { return uuid.Must(uuid.NewV7()) }
	}
	if o.Tracer == nil {
		o.Tracer = noop.Tracer{}
	}
	r := &Reporter{
		db: o.DB, client: o.Client, catalogue: o.Catalogue, clock: o.Now, log: o.Log, every: o.Every, random: o.Random, newID: o.NewID,
		tracer: o.Tracer, environment: "test", guard: resendGuard, knownMeters: map[string]knownMeters{},
	}
	r.account = newAccountCheck(o.Client, o.DB, r.accountChecked)
	streams, rate := testStreams, float64(testRate)
	if o.Client.Live {
		r.environment, streams, rate = "live", liveStreams, liveRate
	}
	if o.Rate > 0 {
		rate = o.Rate
	}
	r.limit = newLimiter(rate)
	r.wake = make(chan struct{}, streams)
	r.workers = append(r.workers, newWorker(r.sealing), newWorker(r.reconciling))
	for i := range streams {
		r.workers = append(r.workers, newWorker(func(ctx context.Context) { r.delivering(ctx, i == 0) }))
	}
	return r
}

// Start starts the workers, which run until Stop.
func (r *Reporter) Start(ctx context.Context) {
	r.started.Store(true)
	r.workers.Start(ctx)
}

// Stop stops the workers. Open calls to Stripe have a few seconds to finish.
func (r *Reporter) Stop() { r.workers.Stop() }

// sealing seals events at an interval, and wakes a worker that delivers.
func (r *Reporter) sealing(ctx context.Context) {
	every(ctx, r.every, func() {
		sealed, err := r.Seal(ctx)
		r.logError(ctx, "seal events into reports", err)
		if sealed > 0 {
			nudge(r.wake)
		}
	})
}

// reconciling reads the reports that are due, and the totals once a day.
func (r *Reporter) reconciling(ctx context.Context) {
	every(ctx, max(r.every, time.Minute), func() {
		if r.account.check(ctx) != nil {
			return
		}
		_, err := r.Reconcile(ctx)
		r.logError(ctx, "read reports back", err)
		r.logError(ctx, "compare totals", r.dailyTotals(ctx))
		r.logError(ctx, "take back voided events", r.resolveVoids(ctx))
		r.logError(ctx, "compare new invoices", r.balanceInvoiced(ctx))
	})
}

// delivering delivers one stream after another. When there is nothing to deliver, one worker checks
// again each second, and the others sleep until a worker finds something.
func (r *Reporter) delivering(ctx context.Context, looks bool) {
	for ctx.Err() == nil {
		found := false
		err := r.account.check(ctx)
		if err == nil {
			if found, err = r.DeliverStream(ctx); found {
				nudge(r.wake)
			}
			r.logError(ctx, "deliver reports", err)
		}
		if found && err == nil {
			continue
		}
		var look <-chan time.Time
		if looks || err != nil {
			look = time.After(time.Second)
		}
		select {
		case <-ctx.Done():
		case <-r.wake:
		case <-look:
		}
	}
}

func (r *Reporter) logError(ctx context.Context, what string, err error) {
	if err != nil && ctx.Err() == nil {
		r.log.Error("could not "+what, "error", err)
	}
}

func (r *Reporter) now() time.Time { return models.Now(r.clock) }

// jitter returns the wait after a number of failures in a row, at least minDelay.
func (r *Reporter) jitter(failures int) time.Duration {
	return max(minDelay, fullJitter(r.random(), failures))
}

// Sends reports whether this process sends reports, unless sending is paused or stopped for all
// processes.
func (r *Reporter) Sends() bool { return r.started.Load() && r.account.refused.Load() == nil }

// accountChecked gets the result of checking the account. With another key, the process sends and
// reads nothing. If it was started to report, it also stops sending in all processes, so that an
// operator notices; a process that starts with the right key ends that stop.
func (r *Reporter) accountChecked(ctx context.Context, err error) error {
	started := r.started.Load()
	switch o := classify(err, 1); {
	case errors.Is(err, ErrOtherAccount):
		if started {
			err = errors.Join(err, r.stop(ctx, err.Error()))
		}
	case err != nil && o.verdict == misconfigured:
		err = errors.Join(err, r.stop(ctx, o.text))
	case err == nil && started:
		_, err = r.db.NewUpdate().Model((*models.StripeState)(nil)).Set("stopped = NULL, stopped_at = NULL").
			Where("id = 1 AND stopped IS NOT NULL").Exec(ctx)
		if err == nil {
			_, err = unblock(r.db, r.now()).Where("blocked_kind = ?", models.BlockedByMeter).Exec(ctx)
		}
	}
	return err
}

// stop stops sending in all processes, until one starts with another key or an operator resumes it.
func (r *Reporter) stop(ctx context.Context, why string) error {
	if logged := r.loggedReason.Swap(&why); logged == nil || *logged != why {
		r.log.Error("all sending to Stripe is stopped", "reason", why)
	}
	_, err := r.db.NewUpdate().Model((*models.StripeState)(nil)).Set("stopped = ?, stopped_at = ?", why, r.now()).
		Where("id = 1 AND stopped IS NULL").Exec(ctx)
	return err
}
