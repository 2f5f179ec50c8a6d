// Package web handles all requests: it reads and validates them, lets models decide, and writes the
// answers.
package web

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"runtime/debug"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/otel/trace"

	"tollgate/models"
	"tollgate/models/billing"
	"tollgate/models/enforcement"
)

// Options configure a server. TrustedProxies and the fields for Stripe are optional.
type Options struct {
	DB        *models.DB
	Gate      *enforcement.Gate
	Catalogue *models.Catalogue
	Now       func() time.Time
	Log       *slog.Logger
	Metrics   *prometheus.Registry
	// BaseURL is where people reach this server, such as https://tollgate.example.com.
	BaseURL string
	// TrustedProxies may set the client's address in X-Forwarded-For. The header is ignored from other
	// addresses.
	TrustedProxies []*net.IPNet
	Version        string
	// SignIn configures sign-in in addition to one-time links.
	SignIn SignIn
	// Slack configures the slash command and the App Home.
	Slack SlackApp
	// Reporter lets the operator control reports; nil without Stripe.
	Reporter *billing.Reporter
	// Webhooks processes Stripe's events; nil without Stripe.
	Webhooks *billing.Webhooks
	// Shop sells plans through Stripe; nil without Stripe.
	Shop *billing.Shop
	// StripeLive means that the Stripe key is a live mode key.
	StripeLive bool
	// Drain is how long the server continues to serve after it was asked to stop, while /readyz
	// answers 503.
	Drain time.Duration
	// NoticeChannels are the channels that people can choose for their notices: Slack and mail.
	NoticeChannels []models.NoticeChannel
	// RateLimit is the number of API calls per second for a key without its own limit; 0 means no
	// limit.
	RateLimit int64
	// Tracer makes a span for each request; nil means no spans.
	Tracer trace.Tracer
}

// StripeMode returns how Stripe is connected: "live", "test" or "not connected".
func (o *Options) StripeMode() string {
	switch {
	case o.Reporter == nil:
		return "not connected"
	case o.StripeLive:
		return "live"
	}
	return "test"
}

// Server answers HTTP requests.
type Server struct {
	db        *models.DB
	gate      *enforcement.Gate
	catalogue *models.Catalogue
	now       func() time.Time
	log       *slog.Logger
	metrics   *prometheus.Registry
	baseURL   string
	usageURL  string
	version   string
	reporter  *billing.Reporter
	webhooks  *billing.Webhooks
	shop      *billing.Shop
	pastUsage models.PastUsageCache
	messages  *slackMessages
	slack     *slackApp
	channels  []models.NoticeChannel

	echo      *echo.Echo
	tracer    trace.Tracer // may be nil
	keys      apiKeys
	refusals  *refusals
	sessions  *sessions
	issuer    *issuer
	crossSite *http.CrossOriginProtection
	https     bool   // people use HTTPS to reach the server
	document  []byte // OpenAPI
	counters  *counters
	fileGone  atomic.Bool // see checkFile
	drain     time.Duration
	stop      stop
	docsPage  []byte

	strangers                               *clientLimit
	callBodies, batchBodies, strangerBodies *bodyBudget
}

// The server's timeouts for clients that send or read slowly.
const (
	readHeaderTimeout = 5 * time.Second
	readTimeout       = 15 * time.Second
	writeTimeout      = 30 * time.Second
	idleTimeout       = 2 * time.Minute
	// queryTimeout limits the database queries of one request.
	queryTimeout = 4 * time.Second
)

// New returns a server. Serve starts it.
func New(o Options) (*Server, error) {
	s := &Server{
		db: o.DB, gate: o.Gate, catalogue: o.Catalogue, now: o.Now, log: o.Log, metrics: o.Metrics,
		baseURL: o.BaseURL, usageURL: o.BaseURL + "/usage", version: o.Version,
		reporter: o.Reporter, webhooks: o.Webhooks, shop: o.Shop, drain: o.Drain, channels: o.NoticeChannels, tracer: o.Tracer,
		keys:      apiKeys{db: o.DB, log: o.Log, limits: keyLimits{normal: o.RateLimit, now: time.Now}},
		strangers: newClientLimit(time.Now, o.Log), callBodies: newBodyBudget(callBodies, false),
		batchBodies: newBodyBudget(batchBodies, false), strangerBodies: newBodyBudget(strangerBodies, true),
	}
	s.messages = &slackMessages{catalogue: o.Catalogue, baseURL: o.BaseURL, situation: newSituations(o.DB, o.Log).of,
		signIn: o.SignIn.withSlack()}
	s.slack = newSlackApp(&o)
	var err error
	if s.counters, err = newCounters(&o); err != nil {
		return nil, fmt.Errorf("web: %w", err)
	}
	if s.refusals, err = newRefusals(o.Metrics); err != nil {
		return nil, fmt.Errorf("web: %w", err)
	}
	if err := s.guard(&o); err != nil {
		return nil, fmt.Errorf("web: %w", err)
	}
	e := echo.New()
	e.HideBanner, e.HidePort = true, true
	e.IPExtractor = echo.ExtractIPDirect()
	if len(o.TrustedProxies) > 0 {
		trust := []echo.TrustOption{echo.TrustLoopback(false), echo.TrustLinkLocal(false), echo.TrustPrivateNet(false)}
		for _, proxy := range o.TrustedProxies {
			trust = append(trust, echo.TrustIPRange(proxy))
		}
		e.IPExtractor = echo.ExtractIPFromXFFHeader(trust...)
	}
	if s.tracer != nil {
		e.Use(s.trace)
	}
	e.Use(s.observe, s.checkFile)
	s.echo = e
	if err := s.routes(); err != nil {
		return nil, fmt.Errorf("web: %w", err)
	}
	return s, nil
}

// guard sets up the sessions, the issuer and the check of a form's origin.
func (s *Server) guard(o *Options) error {
	base, err := url.Parse(o.BaseURL)
	if err != nil {
		return err
	}
	if err := o.SignIn.check(); err != nil {
		return err
	}
	s.https = base.Scheme == "https"
	s.sessions, s.issuer, s.crossSite = newSessions(o, s.https), newIssuer(o), http.NewCrossOriginProtection()
	// This is for a proxy that passes on another host name than the browser's.
	return s.crossSite.AddTrustedOrigin(base.Scheme + "://" + base.Host)
}

// Handler returns the server without its listener. It answers HEAD wherever it answers GET;
// net/http sends only the header, because it uses the method of the original request.
func (s *Server) Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodHead {
			get := *r
			get.Method = http.MethodGet
			r = &get
		}
		s.echo.ServeHTTP(w, r)
	})
}

// Serve answers on l until ctx ends. Then it continues for the drain time, accepts no more requests
// and finishes the current ones.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	var background sync.WaitGroup
	defer background.Wait()
	inner, stop := context.WithCancel(context.WithoutCancel(ctx)) // calls are served until the end
	defer stop()
	background.Go(func() { s.keys.run(inner) })
	background.Go(func() { s.sessions.run(inner) })
	background.Go(func() { s.watchFile(inner) })
	background.Go(func() { s.storeRefusals(inner) })
	background.Go(func() { s.slack.run(inner) })
	return s.serve(ctx, l)
}

// ServeMetrics answers /metrics, /healthz and /readyz on l until ctx ends.
func (s *Server) ServeMetrics(ctx context.Context, l net.Listener) error {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.metrics, promhttp.HandlerOpts{}))
	mux.Handle("GET /healthz", s.Handler())
	mux.Handle("GET /readyz", s.Handler())
	server := s.httpServer(mux)
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(l) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
		return server.Close()
	}
}

func (s *Server) httpServer(h http.Handler) *http.Server {
	return &http.Server{
		Handler: h, ReadHeaderTimeout: readHeaderTimeout, ReadTimeout: readTimeout, WriteTimeout: writeTimeout,
		IdleTimeout: idleTimeout, MaxHeaderBytes: 32 << 10,
		ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
	}
}

// hsts makes browsers that used HTTPS once use only HTTPS for a year. It does not include
// subdomains, which are not ours.
var hsts = []string{"max-age=31536000"}

func requestID(c echo.Context) string { return c.Response().Header().Get(echo.HeaderXRequestID) }

// observe gives each request an ID and a metric. It logs requests that failed or were slow, and
// turns a panic into a 500.
func (s *Server) observe(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) (err error) {
		start := time.Now()
		r, w := c.Request(), c.Response()
		id := requestIDOf(r.Header.Get(echo.HeaderXRequestID))
		w.Header()[echo.HeaderXRequestID] = []string{id}
		if s.https {
			w.Header()["Strict-Transport-Security"] = hsts
		}
		var stack []slog.Attr // of a panic
		defer func() {
			if p := recover(); p != nil {
				if p == http.ErrAbortHandler { //nolint:errorlint // net/http compares it in the same way
					panic(p)
				}
				err = fmt.Errorf("panic: %v", p)
				stack = append(stack, slog.String("stack", string(debug.Stack())))
			}
			if err != nil {
				s.fail(c, err)
			}
			took := time.Since(start)
			route := c.Path()
			if route == "" {
				route = "none"
			}
			status := w.Status
			s.counters.requests.WithLabelValues(route, statusText(status)).Observe(took.Seconds())
			level := slog.LevelDebug
			switch {
			case s.noteFile(err): // it was already logged
			case status == http.StatusServiceUnavailable && s.stop.draining.Load():
				level = slog.LevelInfo
			case status >= http.StatusInternalServerError:
				level = slog.LevelError
			case status >= http.StatusBadRequest || took > time.Second:
				level = slog.LevelInfo
			}
			if s.log.Enabled(r.Context(), level) {
				line := []slog.Attr{
					slog.String("request_id", id), slog.String("method", r.Method), slog.String("route", route),
					slog.Int("status", status), slog.Duration("took", took), slog.String("client", c.RealIP()),
				}
				if level == slog.LevelError && err != nil {
					line = append(line, slog.String("error", err.Error()))
				}
				s.log.LogAttrs(r.Context(), level, "request", append(line, stack...)...)
			}
			err = nil
		}()
		return next(c)
	}
}

// statusText avoids the conversion of the most common status.
func statusText(status int) string {
	if status == http.StatusOK {
		return "200"
	}
	return strconv.Itoa(status)
}

// limited sets a timeout for a request's queries to the database and other services. The gate has
// its own timeout. The context also ends when the client is gone, so that the database does no work
// for a page that no one reads.
func limited(within time.Duration, next echo.HandlerFunc) echo.HandlerFunc {
	return bounded(within, func(ctx context.Context) context.Context { return ctx }, next)
}

// answered sets the same timeout, but continues when the client closes its side of the connection:
// it may still wait for the answer.
func answered(within time.Duration, next echo.HandlerFunc) echo.HandlerFunc {
	return bounded(within, context.WithoutCancel, next)
}

func bounded(within time.Duration, of func(context.Context) context.Context, next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		request := c.Request()
		ctx, cancel := context.WithTimeout(of(request.Context()), within)
		defer cancel()
		c.SetRequest(request.WithContext(ctx))
		defer c.SetRequest(request) // errors are reported without this time limit
		return next(c)
	}
}
