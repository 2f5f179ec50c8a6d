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

	"tollgate/models"
)

// Stripe's limits, and the margins that are kept to them.
// Source: https://docs.stripe.com/billing/subscriptions/usage-based/recording-usage-api
const (
	// sealGrace is how long after an hour's end its events are taken.
	sealGrace = 2 * time.Minute
	// maxAge is the age from which nothing is sent; Stripe takes 35 days.
	maxAge = 34 * 24 * time.Hour
	// clockMargin is how far the clocks of two processes may be apart.
	clockMargin = time.Minute
	// resendGuard is how long after its first attempt a report may be sent again. Stripe remembers its identifier for 24 hours, and may
	// process the last attempt an hour after it was sent.
	resendGuard    = 23*time.Hour - clockMargin
	requestSettles = models.StripeRequestSettles + clockMargin
	summarySettles = models.StripeTotalsSettle + clockMargin
	// firstRead is when an accepted report is first read.
	firstRead = 2 * time.Hour
	// watched is for how long a failed report is read again, once a day: what Stripe does late heals it.
	watched = 7 * 24 * time.Hour

	// deadAfter is the number of refusals after which a report is dead. Attempts without an answer are not refusals.
	deadAfter = 3
)

// Calls a second, of a thousand that Stripe allows in live mode and 25 in test mode, and streams at a time.
const (
	liveRate, testRate       = 200, 15
	liveStreams, testStreams = 48, 8
)

// ReporterOptions are what a Reporter works with.
type ReporterOptions struct {
	DB        *models.DB
	Client    *Client
	Catalogue *models.Catalogue
	Now       func() time.Time
	Log       *slog.Logger
	// Every is how often events are sealed into reports.
	Every time.Duration
	// Rate is the most calls a second that this process makes; 0 takes the mode's own.
	Rate float64
	// Random returns a number in [0, 1), and NewID a UUID that nobody else makes; nil takes the runtime's.
	Random func() float64
	NewID  func() uuid.UUID
}

// Reporter tells Stripe of every unit once: it seals events into reports, delivers them and reads back what was counted. Any number of processes
// may run one on one database.
type Reporter struct {
	ReporterOptions
	environment string
	// guard is resendGuard, but for the test that shows what it is for.
	guard time.Duration
	limit *limiter
	wake  chan struct{}

	mu        sync.Mutex
	started   bool
	contacted bool
	// refused is why this process sends nothing for as long as it runs; nil when its key fits.
	refused error
	// loggedReason is the last reason to stop that this process has logged.
	loggedReason atomic.Pointer[string]

	metersMu    sync.Mutex
	knownMeters map[string]knownMeters // by event name

	workers workers
}

type knownMeters struct {
	ids   []string
	until time.Time
}

// NewReporter makes a reporter; it does nothing before Start.
func NewReporter(o ReporterOptions) *Reporter {
	if o.Random == nil {
		o.Random = rand.Float64
	}
	if o.NewID == nil {
		o.NewID = func() uuid.UUID { return uuid.Must(uuid.NewV7()) }
	}
	r := &Reporter{ReporterOptions: o, environment: "test", guard: resendGuard, knownMeters: map[string]knownMeters{}}
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

// Start sets the workers to work until Stop.
func (r *Reporter) Start(ctx context.Context) {
	r.mu.Lock()
	r.started = true
	r.mu.Unlock()
	r.workers.Start(ctx)
}

// Stop ends the workers. A call to Stripe that is under way has a few seconds to be answered.
func (r *Reporter) Stop() { r.workers.Stop() }

// sealing seals every so often, and tells those who deliver.
func (r *Reporter) sealing(ctx context.Context) {
	every(ctx, r.Every, func() {
		sealed, err := r.Seal(ctx)
		r.logError(ctx, "seal events into reports", err)
		if sealed > 0 {
			nudge(r.wake)
		}
	})
}

// reconciling reads what is due, and once a day the totals.
func (r *Reporter) reconciling(ctx context.Context) {
	every(ctx, max(r.Every, time.Minute), func() {
		if r.contact(ctx) != nil {
			return
		}
		_, err := r.Reconcile(ctx)
		r.logError(ctx, "read reports back", err)
		r.logError(ctx, "compare totals", r.dailyTotals(ctx))
		r.logError(ctx, "compare new invoices", r.balanceInvoiced(ctx))
	})
}

// delivering delivers one stream after another. Of those that find nothing to do, one looks again each second and the rest sleep until
// somebody finds something.
func (r *Reporter) delivering(ctx context.Context, looks bool) {
	for ctx.Err() == nil {
		found := false
		err := r.contact(ctx)
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
		r.Log.Error("could not "+what, "error", err)
	}
}

func (r *Reporter) now() time.Time { return models.Now(r.Now) }

// jitter is a wait after so many failures in a row, of minDelay at least.
func (r *Reporter) jitter(failures int) time.Duration {
	return max(minDelay, fullJitter(r.Random(), failures))
}

// Sends says that this process sends reports, unless sending is paused or stopped for all.
func (r *Reporter) Sends() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.started && r.refused == nil
}

// contact makes sure, once in a process, that the key is of the account and the mode that this database reports to; the first
// contact decides which. A process whose key does not fit sends and reads nothing, and when it was started to report it stops all sending,
// for somebody to see; one that starts to report with a key that fits goes on with it.
func (r *Reporter) contact(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.contacted || r.refused != nil {
		return r.refused
	}
	err := r.Client.claimAccount(ctx, r.DB)
	switch o := classify(err, 1); {
	case errors.Is(err, ErrOtherAccount):
		r.refused = err
		if r.started {
			err = errors.Join(err, r.stop(ctx, err.Error()))
		}
	case err != nil && o.verdict == misconfigured:
		return errors.Join(err, r.stop(ctx, o.text))
	case err == nil && r.started:
		_, err = r.DB.NewUpdate().Model((*models.StripeState)(nil)).Set("stopped = NULL, stopped_at = NULL").Where("id = 1 AND stopped IS NOT NULL").Exec(ctx)
		if err == nil {
			_, err = unblock(r.DB, r.now()).Where("blocked_kind = ?", models.BlockedByMeter).Exec(ctx)
		}
	}
	r.contacted = err == nil
	return err
}

// stop ends all sending, of every process, until one starts with another key or an operator goes on.
func (r *Reporter) stop(ctx context.Context, why string) error {
	if told := r.loggedReason.Swap(&why); told == nil || *told != why {
		r.Log.Error("all sending to Stripe is stopped", "reason", why)
	}
	_, err := r.DB.NewUpdate().Model((*models.StripeState)(nil)).Set("stopped = ?, stopped_at = ?", why, r.now()).Where("id = 1 AND stopped IS NULL").Exec(ctx)
	return err
}
