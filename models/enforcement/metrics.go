package enforcement

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics counts what the workers do. Without a registry, the counts are not exported.
type metrics struct {
	groups  prometheus.Histogram
	seconds prometheus.Histogram
	// remembered counts the groups that were written based on remembered records. moved counts the
	// groups that had to be decided again because a record was stale.
	remembered, moved prometheus.Counter
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
		remembered: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "tollgate_gate_remembered_groups_total", Help: "Groups written in one round trip, based on remembered usage records.",
		}),
		moved: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "tollgate_gate_moved_groups_total",
			Help: "Groups decided again under locks, because another process had changed a record or recorded a key.",
		}),
	}
	if r != nil {
		r.MustRegister(m.groups, m.seconds, m.remembered, m.moved)
	}
	return m
}

func (m *metrics) observe(ops int, took time.Duration) {
	m.groups.Observe(float64(ops))
	m.seconds.Observe(took.Seconds())
}
