package notify

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/uptrace/bun"

	"tollgate/models"
)

// deliveryCount is the number of deliveries of a channel in a state.
type deliveryCount struct {
	Channel models.NoticeChannel
	State   models.DeliveryState
	N       int64
}

// metrics exports the number of deliveries in each state, which all processes share. attempts are
// those of this process.
type metrics struct {
	deliveries *prometheus.Desc
	counts     models.Scrape[[]deliveryCount]
}

func newAttempts() *prometheus.CounterVec {
	attempts := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "tollgate_notice_attempts_total", Help: "Attempts to deliver a notice, by channel and outcome.",
	}, []string{"channel", "outcome"})
	for _, channel := range models.NoticeChannels {
		for _, outcome := range []models.AttemptOutcome{models.AttemptSent, models.AttemptNotSent, models.AttemptFailed, models.AttemptUnknown} {
			attempts.WithLabelValues(string(channel), string(outcome))
		}
	}
	return attempts
}

// RegisterMetrics adds the worker's figures to a registry.
func (w *Worker) RegisterMetrics(registry prometheus.Registerer, log *slog.Logger) error {
	if err := registry.Register(w.attempts); err != nil {
		return fmt.Errorf("notify: %w", err)
	}
	m := &metrics{
		deliveries: prometheus.NewDesc("tollgate_notice_deliveries", "Deliveries of notices, by channel and state.",
			[]string{"channel", "state"}, nil),
		counts: models.Scrape[[]deliveryCount]{Of: "notices", Log: log, Read: func(ctx context.Context) (*[]deliveryCount, error) {
			return readDeliveries(ctx, w.DB)
		}},
	}
	if err := registry.Register(m); err != nil {
		return fmt.Errorf("notify: %w", err)
	}
	return nil
}

func readDeliveries(ctx context.Context, db bun.IDB) (*[]deliveryCount, error) {
	var counts []deliveryCount
	err := db.NewRaw("SELECT channel, state, COUNT(*) AS n FROM notice_deliveries GROUP BY channel, state").Scan(ctx, &counts)
	if err != nil {
		return nil, fmt.Errorf("count deliveries of notices: %w", err)
	}
	return &counts, nil
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(to chan<- *prometheus.Desc) { to <- m.deliveries }

// Collect implements prometheus.Collector. If the database is unavailable, it exports nothing.
func (m *metrics) Collect(to chan<- prometheus.Metric) {
	counts := m.counts.Figures()
	if counts == nil {
		return
	}
	known := map[deliveryCount]int64{}
	for _, c := range *counts {
		known[deliveryCount{Channel: c.Channel, State: c.State}] = c.N
	}
	for _, channel := range models.NoticeChannels {
		for _, state := range models.DeliveryStates {
			n := known[deliveryCount{Channel: channel, State: state}]
			to <- prometheus.MustNewConstMetric(m.deliveries, prometheus.GaugeValue, float64(n), string(channel), string(state))
		}
	}
}
