package enforcement

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tollgate/models"
)

// metrics counts what the workers do. Without a registry, the counts are not exported.
type metrics struct {
	groups  prometheus.Histogram
	seconds prometheus.Histogram
	// remembered counts the groups that were written based on remembered records. moved counts the
	// groups that had to be decided again because a record was stale.
	remembered, moved prometheus.Counter
	decisions         [len(kindNames)]decisionCounters
}

// kindNames are the calls as the metrics name them.
var kindNames = [...]string{consume: "consume", record: "event", hold: "hold", settle: "settle", release: "release", check: "check"}

// decisionCounters counts the answers to one kind of call.
type decisionCounters struct {
	allowed, replayed, failed prometheus.Counter
	refused                   map[models.Reason]prometheus.Counter
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		groups: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "tollgate_gate_group_size", Help: "Decisions made together in one transaction.",
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
			Help: "Groups decided again under locks, because a record had changed, a key was already recorded, or the database reported a conflict.",
		}),
	}
	decisions := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "tollgate_gate_decisions_total", Help: "Answers of the gate, including those to pages, by call, outcome and reason of a refusal.",
	}, []string{"call", "outcome", "reason"})
	for kind, name := range kindNames {
		c := decisionCounters{refused: map[models.Reason]prometheus.Counter{}}
		c.allowed, c.replayed = decisions.WithLabelValues(name, "allowed", ""), decisions.WithLabelValues(name, "replayed", "")
		c.failed = decisions.WithLabelValues(name, "error", "")
		for _, reason := range models.Reasons {
			c.refused[reason] = decisions.WithLabelValues(name, "refused", string(reason))
		}
		m.decisions[kind] = c
	}
	if r != nil {
		r.MustRegister(m.groups, m.seconds, m.remembered, m.moved, decisions)
	}
	return m
}

// watch exports the lengths of the gate's queues.
func (m *metrics) watch(r prometheus.Registerer, g *Gate) {
	if r == nil {
		return
	}
	for name, queues := range map[string][]*queue{"write": g.writers, "read": g.readers} {
		r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "tollgate_gate_queue_length", Help: "Decisions that wait for a worker.", ConstLabels: prometheus.Labels{"queue": name},
		}, func() float64 {
			n := 0
			for _, q := range queues {
				n += q.length()
			}
			return float64(n)
		}))
	}
}

// count counts an answer.
func (m *metrics) count(k kind, a *Answer, err error) {
	c := &m.decisions[k]
	switch {
	case err != nil:
		c.failed.Inc()
	case a.Replayed:
		c.replayed.Inc()
	case a.Verdict.Allowed:
		c.allowed.Inc()
	default:
		c.refused[a.Verdict.Reason].Inc()
	}
}

func (m *metrics) observe(ops int, took time.Duration) {
	m.groups.Observe(float64(ops))
	m.seconds.Observe(took.Seconds())
}
