package cli

import (
	"context"
	"io"
	"log/slog"
	"net"
	"os"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/alecthomas/kong"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"tollgate/models"
	"tollgate/models/notify"
	"tollgate/web"
)

// Serve runs a server until ctx ends. main passes it to the commands.
type Serve func(ctx context.Context, d Deployment) error

// Deployment has the data that a command serves and the listener that it serves on.
type Deployment struct {
	DB        *models.DB
	Catalogue *models.Catalogue
	Listener  net.Listener
	// Background runs as long as the server does, such as the demo's traffic. It may be nil.
	Background func(context.Context, *slog.Logger) error
}

const (
	gcPercent = 200 // Go's default is 100; see docs/decisions.md
	// softMemoryLimit is the number of bytes above which garbage is collected more often.
	softMemoryLimit = 128 << 20
)

// Prepare does what comes before everything else in a server: it tunes the garbage collector, opens the
// database connections that stay open, and reads which meters the plans use.
func (d Deployment) Prepare(ctx context.Context) error {
	tuneGC()
	d.DB.KeepWarm(ctx)
	return d.Catalogue.ReadMeters(ctx, d.DB)
}

// tuneGC sets how often garbage is collected, unless GOGC or GOMEMLIMIT is set.
func tuneGC() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(softMemoryLimit)
	}
}

// Logger returns the server's log. It has no emails, and none of the settings' secrets.
func (s *Settings) Logger(w io.Writer) *slog.Logger {
	return slog.New(web.Redacted(web.NewLogHandler(w, s.LogLevel, s.LogFormat), s.secrets()...))
}

// secrets returns the secrets of the settings.
func (s *Settings) secrets() []string {
	all := append(models.DatabasePasswords(s.Database), s.StripeSecretKey, s.SlackClientSecret, s.SlackSigningSecret, s.SlackBotToken)
	for secret := range strings.SplitSeq(s.StripeWebhookSecret, ",") {
		all = append(all, strings.TrimSpace(secret))
	}
	if server, err := notify.ParseSMTP(s.SMTP); err == nil {
		all = append(all, server.Secrets()...)
	}
	return append(all, tracesSecrets()...)
}

// NewRegistry returns a registry with the metrics of the process.
func NewRegistry() *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}

// ServerOptions returns a server's options from the settings.
func (s *Settings) ServerOptions(parsed *kong.Context, d Deployment) web.Options {
	o := web.Options{
		DB: d.DB, Catalogue: d.Catalogue, Now: time.Now, BaseURL: string(s.BaseURL), Version: Version(), RateLimit: s.RateLimit,
		SignIn: web.SignIn{Issuer: s.OIDCIssuer, ClientID: s.SlackClientID, ClientSecret: s.SlackClientSecret}, Drain: s.Drain,
		Slack: web.SlackApp{SigningSecret: s.SlackSigningSecret, BotToken: s.SlackBotToken, API: s.slackAPI()},
	}
	if d.Background != nil && !Given(parsed, "drain") {
		o.Drain = 0 // Ctrl-C at a terminal should stop the demo immediately
	}
	if o.BaseURL == "" {
		o.BaseURL = web.URLOf(d.Listener.Addr())
	}
	for _, n := range s.TrustedProxies {
		o.TrustedProxies = append(o.TrustedProxies, (*net.IPNet)(&n))
	}
	return o
}

// StartMetrics serves the server's metrics until stop is called. wait returns when serving fails or
// ctx ends.
func (s *Settings) StartMetrics(ctx context.Context, server *web.Server, log *slog.Logger) (
	wait func(ctx context.Context) error, stop func(), err error,
) {
	l, err := web.Listen(ctx, "--metrics-listen", s.MetricsListen)
	if err != nil {
		return nil, nil, err
	}
	log.Info("metrics are served", "url", web.URLOf(l.Addr())+"/metrics")
	serving, end := context.WithCancel(context.WithoutCancel(ctx))
	failed, done := make(chan error, 1), make(chan struct{})
	go func() {
		failed <- server.ServeMetrics(serving, l)
		close(done)
	}()
	wait = func(ctx context.Context) error {
		select {
		case err := <-failed:
			return err
		case <-ctx.Done():
			return nil
		}
	}
	return wait, func() { end(); <-done }, nil
}

// warnNewerSchema logs a warning if a newer release has changed the database. This release works with
// it; see docs/upgrade.md.
func warnNewerSchema(d Deployment, log *slog.Logger) {
	if n := len(d.DB.Unknown); n > 0 {
		log.Warn("a newer release of Tollgate has changed the database; start that release soon", "migrations", n)
	}
}

// finishEvery is how often a server looks for grants that expired, and for spend limits whose change
// another process did not finish, because it ended in between.
const finishEvery = 10 * time.Second

// Housekeeping does what a server does beside its requests, until ctx ends.
func (s *Settings) Housekeeping(ctx context.Context, d Deployment, log *slog.Logger, metrics prometheus.Registerer) {
	var retaining sync.WaitGroup
	retaining.Go(func() { s.retain(ctx, d, log, metrics) })
	defer retaining.Wait()
	warnNewerSchema(d, log)
	warnUnknownPlans(ctx, d, log)
	tick := time.NewTicker(finishEvery)
	defer tick.Stop()
	for {
		if err := models.FinishSpendLimits(ctx, d.DB, d.Catalogue, models.Now(time.Now), nil); err != nil && ctx.Err() == nil {
			log.Warn("could not apply a spend limit; retrying", "error", err)
		}
		if err := models.EndGrants(ctx, d.DB, d.Catalogue, models.Now(time.Now)); err != nil && ctx.Err() == nil {
			log.Warn("could not take back expired grants; retrying", "error", err)
		}
		if err := models.NoteOrganizationLimits(ctx, d.DB, d.Catalogue, models.Now(time.Now)); err != nil && ctx.Err() == nil {
			log.Warn("could not look for organizations that reached their spend limits; retrying", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// warnUnknownPlans logs a warning for each plan that has subscriptions and is not in the catalog.
// Such a subscription gives what the free plan gives.
func warnUnknownPlans(ctx context.Context, d Deployment, log *slog.Logger) {
	unknown, err := models.UnknownPlans(ctx, d.DB, d.Catalogue)
	if err != nil && ctx.Err() == nil {
		log.Warn("subscribed plans could not be read", "error", err)
	}
	for _, p := range unknown {
		log.Warn("people are subscribed to a plan that is not in the catalog, so they get the free plan", "plan", p.ID,
			"subscriptions", p.Subscriptions)
	}
}
