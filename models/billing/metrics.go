package billing

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/uptrace/bun"

	"tollgate/models"
)

// metrics exports the figures of Status. They are read at each scrape.
type metrics struct {
	sends  func() bool
	now    func() time.Time
	status models.Scrape[scraped]

	reports, units, unsealed, oldest, drift, blocked, held, sending *prometheus.Desc

	overageUnits, overageCents, notInvoicedUnits, notInvoicedCents *prometheus.Desc

	webhooks, oldestWebhook *prometheus.Desc
}

// scraped are the figures of one scrape.
type scraped struct {
	*Status
	// Webhooks is the number of webhooks that are not applied yet, and OldestWebhook is when the oldest
	// of them arrived.
	Webhooks      int64
	OldestWebhook bun.NullTime
}

func readScraped(ctx context.Context, db bun.IDB) (*scraped, error) {
	s := &scraped{}
	var err error
	if s.Status, err = ReadStatus(ctx, db); err != nil {
		return nil, err
	}
	if err := db.NewRaw("SELECT COUNT(*) AS webhooks, MIN(received_at) AS oldest_webhook FROM stripe_webhook_events WHERE applied_at IS NULL").
		Scan(ctx, &s.Webhooks, &s.OldestWebhook); err != nil {
		return nil, fmt.Errorf("count webhooks: %w", err)
	}
	return s, nil
}

// RegisterMetrics adds the figures of /ops to a registry. sends reports whether this process sends
// reports.
func RegisterMetrics(registry prometheus.Registerer, db bun.IDB, sends func() bool, now func() time.Time, log *slog.Logger) error {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("tollgate_stripe_"+name, help, labels, nil)
	}
	overage := func(name, help, label string) *prometheus.Desc {
		return prometheus.NewDesc("tollgate_overage_"+name, help+" Includes current billing periods and those that ended in the last 35 days.",
			[]string{label}, nil)
	}
	return registry.Register(&metrics{
		sends: sends, now: now,
		status: models.Scrape[scraped]{
			Of: "Stripe", Log: log, Read: func(ctx context.Context) (*scraped, error) { return readScraped(ctx, db) },
		},
		reports:  desc("reports", "Reports by state.", "state"),
		units:    desc("report_units", "Units of the reports by state.", "state"),
		unsealed: desc("unsealed_units", "Units that are in no report yet."),
		oldest:   desc("oldest_unsent_seconds", "Age of the oldest usage that Stripe has not accepted."),
		drift:    desc("drift_units", "Units by which Stripe's totals differ from what was sent, summed without their signs."),
		blocked:  desc("blocked_streams", "Streams (one customer and one meter) whose reports wait for an operator."),
		held: desc("held_customers", "Customers whose reports are held back: two subscriptions would bill them, or an overage "+
			"price has tiers."),
		sending: desc("sending", "1 while this process sends reports, 0 while sending is paused or stopped, or off in this process."),

		overageUnits: overage("units", "Overage that reached each state from the decision to the invoice, in units.", "state"),
		overageCents: overage("cents", "Overage that reached each state, in the smallest unit of the currency. Stripe's totals "+
			"have no amounts.", "state"),
		notInvoicedUnits: overage("not_invoiced_units", "Overage that is not invoiced, in units, by reason.", "reason"),
		notInvoicedCents: overage("not_invoiced_cents", "Overage that is not invoiced, in the smallest unit of the currency, by reason.",
			"reason"),

		webhooks:      desc("webhooks_waiting", "Webhooks that are stored and not applied yet."),
		oldestWebhook: desc("oldest_webhook_seconds", "Age of the oldest webhook that is not applied yet; 0 without one."),
	})
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{m.reports, m.units, m.unsealed, m.oldest, m.drift, m.blocked, m.held, m.sending,
		m.overageUnits, m.overageCents, m.notInvoicedUnits, m.notInvoicedCents, m.webhooks, m.oldestWebhook} {
		to <- d
	}
}

// Collect implements prometheus.Collector. If the database is unavailable, it exports nothing.
func (m *metrics) Collect(to chan<- prometheus.Metric) {
	s := m.status.Figures()
	if s == nil {
		return
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	for _, c := range s.Counts {
		gauge(m.reports, float64(c.Reports), string(c.State))
		gauge(m.units, float64(c.Units), string(c.State))
	}
	gauge(m.unsealed, float64(s.UnsealedUnits))
	age := func(since *time.Time) float64 {
		if since == nil || since.IsZero() {
			return 0
		}
		return max(0, m.now().Sub(*since).Seconds())
	}
	gauge(m.oldest, age(s.OldestUnsent))
	gauge(m.webhooks, float64(s.Webhooks))
	gauge(m.oldestWebhook, age(&s.OldestWebhook.Time))
	gauge(m.drift, float64(s.Drift))
	gauge(m.blocked, float64(s.BlockedStreams))
	gauge(m.held, float64(s.HeldCustomers))
	for _, step := range s.Overage.Steps {
		gauge(m.overageUnits, float64(step.Units), string(step.Part))
		if step.Part != models.OverageCounted {
			gauge(m.overageCents, float64(step.Cents), string(step.Part))
		}
	}
	for _, reason := range s.Overage.Reasons {
		gauge(m.notInvoicedUnits, float64(reason.Units), string(reason.Part))
		gauge(m.notInvoicedCents, float64(reason.Cents), string(reason.Part))
	}
	sending := 0.0
	if m.sends() && s.State.Stopped == nil && s.State.Paused == nil {
		sending = 1
	}
	gauge(m.sending, sending)
}
