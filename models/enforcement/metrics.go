package enforcement

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics counts what the workers do. Without a registry it counts for nobody.
type metrics struct {
	groups  prometheus.Histogram
	seconds prometheus.Histogram
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		groups: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "tollgate_gate_group_size", Help: "Calls decided together in one transaction.",
			Buckets: prometheus.ExponentialBuckets(1, 2, 11),
		}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "tollgate_gate_group_seconds", Help: "Time from taking a group to its commit.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 2, 16),
		}),
	}
	if r != nil {
		r.MustRegister(m.groups, m.seconds)
	}
	return m
}

func (m *metrics) observe(ops int, took time.Duration) {
	m.groups.Observe(float64(ops))
	m.seconds.Observe(took.Seconds())
}
