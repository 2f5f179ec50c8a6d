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

// metrics exports the number of deliveries in each state, which all processes share. Those that were
// sent or skipped are by far the most, and no index has only them, so they are counted more rarely.
type metrics struct {
	deliveries *prometheus.Desc
	live, done models.Scrape[[]deliveryCount]
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
		live: models.Scrape[[]deliveryCount]{Of: "notices", Log: log, Read: func(ctx context.Context) (*[]deliveryCount, error) {
			return countDeliveries(ctx, w.DB, liveDeliveries)
		}},
		done: models.Scrape[[]deliveryCount]{
			Of: "sent notices", Log: log, Every: models.ScrapeSlowly, Read: func(ctx context.Context) (*[]deliveryCount, error) {
				return countDeliveries(ctx, w.DB, doneDeliveries)
			},
		},
	}
	if err := registry.Register(m); err != nil {
		return fmt.Errorf("notify: %w", err)
	}
	return nil
}

const (
	// liveDeliveries has one part for each partial index: notice_deliveries_due, _leased, _problems.
	liveDeliveries = `SELECT channel, state, COUNT(*) AS n FROM notice_deliveries WHERE state = 'pending' GROUP BY channel, state
		UNION ALL SELECT channel, state, COUNT(*) FROM notice_deliveries WHERE state = 'sending' GROUP BY channel, state
		UNION ALL SELECT channel, state, COUNT(*) FROM notice_deliveries WHERE state IN ('failed', 'unknown') GROUP BY channel, state`
	// doneDeliveries reads the whole table.
	doneDeliveries = "SELECT channel, state, COUNT(*) AS n FROM notice_deliveries WHERE state IN ('sent', 'skipped') GROUP BY channel, state"
)

func countDeliveries(ctx context.Context, db bun.IDB, query string) (*[]deliveryCount, error) {
	var counts []deliveryCount
	if err := db.NewRaw(query).Scan(ctx, &counts); err != nil {
		return nil, fmt.Errorf("count deliveries of notices: %w", err)
	}
	return &counts, nil
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(to chan<- *prometheus.Desc) { to <- m.deliveries }

// Collect implements prometheus.Collector. It exports only the states whose count could be read.
func (m *metrics) Collect(to chan<- prometheus.Metric) {
	m.collect(to, m.live.Figures(), models.DeliveryPending, models.DeliverySending, models.DeliveryFailed, models.DeliveryUnknown)
	m.collect(to, m.done.Figures(), models.DeliverySent, models.DeliverySkipped)
}

func (m *metrics) collect(to chan<- prometheus.Metric, counts *[]deliveryCount, states ...models.DeliveryState) {
	if counts == nil {
		return
	}
	known := map[deliveryCount]int64{}
	for _, c := range *counts {
		known[deliveryCount{Channel: c.Channel, State: c.State}] = c.N
	}
	for _, channel := range models.NoticeChannels {
		for _, state := range states {
			n := known[deliveryCount{Channel: channel, State: state}]
			to <- prometheus.MustNewConstMetric(m.deliveries, prometheus.GaugeValue, float64(n), string(channel), string(state))
		}
	}
}
