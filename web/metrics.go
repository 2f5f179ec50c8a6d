package web

import (
	"errors"
	"fmt"
	"runtime"

	"github.com/labstack/echo/v4"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"tollgate/models"
)

// counters are the server's own metrics.
type counters struct {
	requests *prometheus.HistogramVec
	signIns  *prometheus.CounterVec
}

// The ways to sign in, and how an attempt can end.
const (
	byIssuer, byLink                    = "issuer", "link"
	signedIn, signInRefused, signInLost = "signed_in", "refused", "unavailable"
)

// newCounters registers the server's metrics, and those of the database pool and the build.
func newCounters(o *Options) (*counters, error) {
	c := &counters{
		requests: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "tollgate_http_request_seconds", Help: "Time from a request's header to the end of its response.",
			Buckets: prometheus.ExponentialBuckets(0.00025, 2, 16),
		}, []string{"route", "status"}),
		signIns: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tollgate_sign_ins_total", Help: "Sign-ins that people finished, by method and outcome.",
		}, []string{"method", "outcome"}),
	}
	for _, method := range []string{byIssuer, byLink} {
		for _, outcome := range []string{signedIn, signInRefused, signInLost} {
			c.signIns.WithLabelValues(method, outcome)
		}
	}
	build := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "tollgate_build_info", Help: "1, with the version of the program and of Go.",
		ConstLabels: prometheus.Labels{"version": o.Version, "go_version": runtime.Version()},
	}, func() float64 { return 1 })
	for _, collector := range []prometheus.Collector{c.requests, c.signIns, build, collectors.NewDBStatsCollector(o.DB.DB.DB, "tollgate")} {
		if err := o.Metrics.Register(collector); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return c, nil
}

// countSignIn counts how a handler's sign-in ends. A person who is signed in already is only
// redirected, which is not counted.
func (s *Server) countSignIn(method string, handle pageHandler) pageHandler {
	return func(c echo.Context, viewer *models.Viewer) error {
		err := handle(c, viewer)
		if viewer == nil {
			s.counters.signIns.WithLabelValues(method, signInOutcome(err)).Inc()
		}
		return err
	}
}

func signInOutcome(err error) string {
	var coded *models.Error
	switch {
	case err == nil:
		return signedIn
	case errors.As(err, &coded) && coded.Code == models.CodeUnavailable, models.IsUnavailable(err):
		return signInLost
	}
	return signInRefused
}
