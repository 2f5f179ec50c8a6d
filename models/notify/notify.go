// Package notify delivers notices: it decides who gets each one, and sends it in Slack, by mail and to
// webhooks.
//
// A Slack message and a mail are sent at most once. If it is not known whether one was sent, because
// the process ended or no answer came, it is not sent again. A webhook is sent at least once, always
// with the same ID.
package notify

import (
	"context"
	"crypto/x509"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"tollgate/models"
)

// Options configure a Worker. A channel without its option is off.
type Options struct {
	DB        *models.DB
	Catalogue *models.Catalogue
	Now       func() time.Time
	Log       *slog.Logger
	// BaseURL is where people reach the server; links begin with it.
	BaseURL string

	// SlackToken is a bot token. SlackAPI is the URL of a stand-in for Slack, for tests.
	SlackToken, SlackAPI string
	// SMTP is the mail server.
	SMTP *SMTP
	// Dial connects to webhook endpoints, and RootCAs verifies them; nil means the defaults: only public
	// addresses, and the system's certificates.
	Dial    func(ctx context.Context, network, address string) (net.Conn, error)
	RootCAs *x509.CertPool

	// Every is how often a worker looks for something to do; 0 means the default.
	Every time.Duration
	// Random returns a number in [0, 1); nil means the default.
	Random func() float64
	// Tracer makes the spans of deliveries; nil means no spans.
	Tracer trace.Tracer
}

const (
	// normalEvery is the default of Options.Every. Without Slack and mail, it is rareEvery: there may be
	// webhook endpoints, which operators add at any time.
	normalEvery = 2 * time.Second
	rareEvery   = 10 * time.Second
	// callPatience is how long one attempt may take. stopPatience is how long a current one may continue
	// after Stop.
	callPatience = 15 * time.Second
	stopPatience = 3 * time.Second
	// leaseTime is how long a process may take for an attempt and for storing its outcome.
	leaseTime = 90 * time.Second
	// storePatience is how long storing an outcome may take.
	storePatience = 5 * time.Second
)

// Worker delivers notices. Any number of processes may run one on the same database.
type Worker struct {
	Options
	slack    *slackChannel // nil: off
	mail     *mailChannel  // nil: off
	webhooks *webhookChannel
	// digested is the last day whose summaries this process has written. Only prepare uses it.
	digested time.Time
	// attempts counts the attempts of this process.
	attempts *prometheus.CounterVec

	mu     sync.Mutex
	cancel context.CancelFunc // nil while the worker is not running
	done   sync.WaitGroup
}

// New returns a worker. It does nothing before Start.
func New(o Options) *Worker {
	switch {
	case o.Every != 0:
	case o.SlackToken == "" && o.SMTP == nil:
		o.Every = rareEvery
	default:
		o.Every = normalEvery
	}
	if o.Random == nil {
		o.Random = rand.Float64
	}
	if o.Tracer == nil {
		o.Tracer = noop.Tracer{}
	}
	w := &Worker{Options: o, webhooks: newWebhookChannel(o), attempts: newAttempts()}
	if o.SlackToken != "" {
		w.slack = newSlackChannel(o)
	}
	if o.SMTP != nil {
		w.mail = &mailChannel{smtp: o.SMTP}
	}
	return w
}

// The number of deliveries that one process attempts at a time. Slack allows about one message per
// second. An endpoint that does not answer must not delay all others.
const (
	slackParallel   = 1
	mailParallel    = 2
	webhookParallel = 4
)

// Start starts the worker, which runs until ctx ends or Stop is called. A second Start before Stop does
// nothing.
func (w *Worker) Start(ctx context.Context) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cancel != nil {
		return
	}
	ctx, w.cancel = context.WithCancel(ctx)
	w.done.Go(func() { w.repeat(ctx, preparing, w.prepare) })
	for channel, n := range map[models.NoticeChannel]int{
		models.ChannelSlack: slackParallel, models.ChannelMail: mailParallel, models.ChannelWebhook: webhookParallel,
	} {
		if !w.has(channel) {
			continue
		}
		for range n {
			w.done.Go(func() {
				w.repeat(ctx, "deliver notices", func(ctx context.Context) (bool, error) { return w.deliver(ctx, channel) })
			})
		}
	}
}

// Stop ends the worker and waits for it. Current attempts have a few seconds to finish. It does nothing
// if the worker does not run.
func (w *Worker) Stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cancel == nil {
		return
	}
	w.cancel()
	w.done.Wait()
	w.cancel = nil
}

// has reports whether a channel is configured. Webhooks need no setting: operators add endpoints.
func (w *Worker) has(channel models.NoticeChannel) bool {
	switch channel {
	case models.ChannelSlack:
		return w.slack != nil
	case models.ChannelMail:
		return w.mail != nil
	}
	return true
}

// preparing names the loop that prepares deliveries.
const preparing = "prepare notices"

// now returns the time as the database stores it.
func (w *Worker) now() time.Time { return models.Now(w.Now) }

// repeat calls do until ctx ends: at once if it found something to do, otherwise at the interval. While
// the database is unavailable, only one of the loops logs it.
func (w *Worker) repeat(ctx context.Context, what string, do func(context.Context) (found bool, err error)) {
	logged := "" // do not log an error again that continues
	for ctx.Err() == nil {
		found, err := do(ctx)
		switch {
		case err == nil:
			logged = ""
		case ctx.Err() == nil && err.Error() != logged:
			logged = err.Error()
			level := slog.LevelWarn
			if models.IsUnavailable(err) && what != preparing {
				level = slog.LevelDebug
			}
			w.Log.Log(ctx, level, "could not "+what+"; retrying", "error", err)
		}
		if found && err == nil {
			continue
		}
		// Processes that started together do not stay together.
		pause := w.Every/2 + time.Duration(w.Random()*float64(w.Every))
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}
