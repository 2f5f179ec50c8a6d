package web

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tollgate/models"
	"tollgate/models/enforcement"
)

// storeRefusalsEvery is how often refusals are stored. A process that is killed loses those since
// the last time.
const storeRefusalsEvery = 2 * time.Second

// refusals counts the app's calls that were refused.
type refusals struct {
	counts models.Refusals
	total  *prometheus.CounterVec
}

func newRefusals(registry *prometheus.Registry) (*refusals, error) {
	r := &refusals{total: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "tollgate_refusals_total", Help: "Calls of check, consume and holds that were refused, by reason.",
	}, []string{"reason"})}
	for _, reason := range models.Reasons {
		r.total.WithLabelValues(string(reason))
	}
	return r, registry.Register(r.total)
}

// countRefusal counts the answer if it is a refusal, and returns it. storeRefusals writes the count
// later, so that no caller waits.
func (s *Server) countRefusal(a *enforcement.Answer) *enforcement.Answer {
	if reason := a.Verdict.Reason; reason != "" {
		s.refusals.total.WithLabelValues(string(reason)).Inc()
		s.refusals.counts.Add(&a.Standing, reason, models.Now(s.now))
	}
	return a
}

// storeRefusals stores refusals until ctx ends, and then once more.
func (s *Server) storeRefusals(ctx context.Context) {
	tick := time.NewTicker(storeRefusalsEvery)
	defer tick.Stop()
	for done := false; !done; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			done = true
		}
		storing, cancel := context.WithTimeout(context.WithoutCancel(ctx), queryTimeout)
		if err := s.refusals.counts.Store(storing, s.db); err != nil {
			s.log.Warn("could not store refusals; retrying", "error", err)
		}
		cancel()
	}
}
