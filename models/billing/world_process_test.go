package billing

import (
	"context"
	"log/slog"
	"math"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/google/uuid"
	"github.com/uptrace/bun"

	"tollgate/models/enforcement"
)

// process has a gate, a reporter and webhooks, and its own clock.
type process struct {
	*world
	number   int
	offset   time.Duration
	gate     *enforcement.Gate
	reporter *Reporter
	hooks    *Webhooks
}

// clocks are the differences between the processes' clocks and the world's.
var clocks = []time.Duration{-15 * time.Second, 0, 15 * time.Second}

// crash is the panic of a process that ends immediately.
type crash struct{}

// start starts or restarts a process.
func (w *world) start(i int) {
	p := &process{world: w, number: i, offset: clocks[i]}
	log := slog.New(slog.DiscardHandler)
	var err error
	// Opening a gate is slow, so the gates of some processes survive.
	if before := w.processes[i]; before != nil && w.rand.IntN(4) > 0 {
		p.gate = before.gate
	} else {
		if before != nil {
			before.gate.Close()
		}
		p.gate, err = enforcement.Open(w.ctx, w.db, enforcement.Options{Catalogue: w.catalogue, Now: p.clock, Log: log, QueueLimit: 16})
		w.must(err)
	}
	w.processes[i] = p
	client, err := NewClient(ClientOptions{Key: "sk_test_simulated", Transport: carrier{w, w.stripe.Transport()}})
	w.must(err)
	ids := rand.NewChaCha8([32]byte{byte(w.rand.Uint32()), byte(w.rand.Uint32()), byte(w.rand.Uint32()), byte(w.rand.Uint32())})
	p.reporter = NewReporter(ReporterOptions{
		DB: w.crashing, Client: client, Catalogue: w.catalogue, Now: p.clock, Log: log, Every: time.Minute,
		Rate:   math.Inf(1), // the limiter uses the real clock, which hardly moves here
		Random: w.rand.Float64, NewID: func() uuid.UUID { return uuid.Must(uuid.NewRandomFromReader(ids)) },
	})
	if w.s.without == longGuard {
		p.reporter.guard = 60 * time.Hour
	}
	p.hooks = NewWebhooks(WebhookOptions{
		DB: w.crashing, Client: client, Catalogue: w.catalogue, Secret: webhookSecret, Now: p.clock, Random: w.rand.Float64, Log: log,
	})
	for range receiveWaiters {
		p.hooks.waiters <- struct{}{} // the goroutine that applies webhooks must not wait for itself
	}
}

func (p *process) clock() time.Time { return p.now.Add(p.offset) }

func (w *world) anyProcess() *process { return w.processes[w.rand.IntN(len(w.processes))] }

// BeforeQuery and AfterQuery make world a hook of the database: a process may crash after each of
// its statements, including commits.
func (w *world) BeforeQuery(ctx context.Context, _ *bun.QueryEvent) context.Context { return ctx }

// AfterQuery is described at BeforeQuery.
func (w *world) AfterQuery(_ context.Context, e *bun.QueryEvent) {
	if e.Query != "BEGIN" && e.Query != "ROLLBACK" {
		w.point()
	}
}

func (w *world) point() {
	if w.points--; w.points == -1 {
		panic(crash{})
	}
	w.points = max(w.points, -1)
}

// carrier carries requests. A process may crash before and after each of them.
type carrier struct {
	w    *world
	next http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (c carrier) RoundTrip(r *http.Request) (*http.Response, error) {
	c.w.point()
	r, err := c.w.spoil(r)
	if err != nil {
		return nil, err
	}
	res, err := c.next.RoundTrip(r)
	c.w.answered(r, res)
	c.w.point()
	return res, err
}

// perform lets a process do something and crash with a probability. It reports whether the process
// survived.
func (w *world) perform(p *process, crashes float64, do func()) (survived bool) {
	if w.rand.Float64() < crashes {
		w.points = w.rand.IntN(60)
	}
	defer func() {
		w.points = -1
		if thrown := recover(); thrown != nil {
			if _, crashed := thrown.(crash); !crashed {
				panic(thrown)
			}
			w.counts["crashes"]++
			w.busy = nil
			w.start(p.number)
		}
	}()
	do()
	return true
}

// work lets a process do the work of its workers.
func (w *world) work(p *process, crashes float64) {
	w.perform(p, crashes, func() {
		w.must(p.hooks.applyDue(w.ctx))
		_ = p.hooks.housekeeping(w.ctx) // Stripe may not answer
		if w.mute {
			return
		}
		_, err := p.reporter.Seal(w.ctx)
		w.must(err)
		w.sealed()
		if p.reporter.account.check(w.ctx) != nil {
			return
		}
		for {
			found, err := p.reporter.DeliverStream(w.ctx)
			w.must(err)
			w.delivered()
			if !found {
				break
			}
		}
		_, _ = p.reporter.Reconcile(w.ctx) // Stripe may fail to list the meters
		_ = p.reporter.resolveVoids(w.ctx)
		_ = p.reporter.dailyTotals(w.ctx)
		_ = p.reporter.balanceInvoiced(w.ctx)
	})
}
