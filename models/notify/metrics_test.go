package notify

import (
	"log/slog"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// TestMetrics delivers a notice in two channels, and compares the figures.
func TestMetrics(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		f.notice(f.person("ada@example.com", "T1", "U1"))
		w := f.worker()
		registry := prometheus.NewRegistry()
		must(t, w.RegisterMetrics(registry, slog.New(slog.DiscardHandler)))
		f.drain(w)
		families, err := registry.Gather()
		must(t, err)
		got := map[string]float64{}
		for _, family := range families {
			for _, m := range family.GetMetric() {
				name := family.GetName()
				for _, l := range m.GetLabel() {
					name += " " + l.GetValue()
				}
				got[name] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
		for name, n := range map[string]float64{
			"tollgate_notice_attempts_total slack sent": 1, "tollgate_notice_attempts_total mail sent": 1,
			"tollgate_notice_deliveries slack sent": 1, "tollgate_notice_deliveries mail sent": 1,
			"tollgate_notice_deliveries mail failed": 0, "tollgate_notice_deliveries webhook pending": 0,
		} {
			if found, ok := got[name]; !ok || found != n {
				t.Errorf("%s is %v, %v, want %v", name, found, ok, n)
			}
		}
	})
}
