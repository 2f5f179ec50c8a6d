package billing

import (
	"log/slog"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Paused, nothing is sent, and nothing is lost.
func TestPauseAndUnblock(t *testing.T) {
	onBoth(t, nil, func(t *testing.T, d *desk) {
		d.use("cus_1", 3, d.now.Add(-3*time.Hour))
		d.use("cus_gone", 4, d.now.Add(-3*time.Hour))
		d.must(Pause(d.ctx, d.db, d.now, "op@example.com"))
		_, err := d.Seal(d.ctx)
		d.must(err)
		d.deliver()
		if n := len(d.stripe.Events()); n != 0 {
			t.Errorf("%d events were sent while sending was paused", n)
		}
		d.must(Resume(d.ctx, d.db, d.now, "op@example.com"))
		d.deliver()
		if s := d.status(); len(d.stripe.Events()) != 1 || len(s.Blocked) != 1 || s.Blocked[0].StripeCustomerID != "cus_gone" {
			t.Errorf("%d events were sent, and blocked is %+v", len(d.stripe.Events()), s.Blocked)
		}
		d.stripe.AddCustomer("cus_gone", nil)
		d.must(Unblock(d.ctx, d.db, d.now, "op@example.com", "cus_gone"))
		d.deliver()
		if n := len(d.stripe.Events()); n != 2 {
			t.Errorf("%d events were sent after unblocking, want 2", n)
		}
	})
}

// The metrics are the figures of /ops.
func TestMetrics(t *testing.T) {
	onBoth(t, nil, func(t *testing.T, d *desk) {
		d.use("cus_1", 3, d.now.Add(-3*time.Hour))
		d.use("cus_gone", 4, d.now.Add(-3*time.Hour))
		d.use("cus_1", 5, d.now)
		_, err := d.Seal(d.ctx)
		d.must(err)
		d.deliver()
		d.stripe.AddForeign("cus_1", 7, d.now.Add(-5*time.Hour))
		_, err = d.Totals(d.ctx, true)
		d.must(err)
		d.must(Pause(d.ctx, d.db, d.now, "op@example.com"))
		registry := prometheus.NewRegistry()
		d.must(RegisterMetrics(registry, d.db, d.clock, slog.New(slog.DiscardHandler)))
		want := map[string]string{
			"tollgate_stripe_reports":               "accepted 1, conflict 0, dead 0, expired 0, given_up 0, missing 0, rejected 0, sealed 1, unknown 0, verified 0",
			"tollgate_stripe_report_units":          "accepted 3, conflict 0, dead 0, expired 0, given_up 0, missing 0, rejected 0, sealed 4, unknown 0, verified 0",
			"tollgate_stripe_unsealed_units":        "5",
			"tollgate_stripe_oldest_unsent_seconds": "10800",
			"tollgate_stripe_drift_units":           "7",
			"tollgate_stripe_blocked_streams":       "1",
			"tollgate_stripe_sending":               "0",
		}
		families, err := registry.Gather()
		d.must(err)
		if len(families) != len(want) {
			t.Errorf("%d metrics, want %d", len(families), len(want))
		}
		for _, f := range families {
			var parts []string
			for _, m := range f.Metric {
				text := strconv.FormatFloat(m.Gauge.GetValue(), 'f', -1, 64)
				for _, l := range m.Label {
					text = l.GetValue() + " " + text
				}
				parts = append(parts, text)
			}
			if got := strings.Join(parts, ", "); got != want[f.GetName()] {
				t.Errorf("%s is %s, want %s", f.GetName(), got, want[f.GetName()])
			}
		}
	})
}
