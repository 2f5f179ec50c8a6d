package notify

import (
	"context"
	"log/slog"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/uptrace/bun"

	"tollgate/models"
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
			"tollgate_notice_deliveries slack sending": 0, "tollgate_notice_deliveries mail unknown": 0,
			"tollgate_notice_deliveries webhook skipped": 0,
		} {
			if found, ok := got[name]; !ok || found != n {
				t.Errorf("%s is %v, %v, want %v", name, found, ok, n)
			}
		}
	})
}

// TestScrapesAreCheap checks that a scrape reads no deliveries that were sent, except every five minutes.
func TestScrapesAreCheap(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		plan := planOf(t, f.db, liveDeliveries)
		for _, index := range []string{"notice_deliveries_due", "notice_deliveries_leased", "notice_deliveries_problems"} {
			if !strings.Contains(plan, index) || strings.Contains(plan, "Seq Scan") {
				t.Errorf("the plan does not use only indexes such as %s: %s", index, plan)
			}
		}
	})
}

// planOf returns how the database runs a query. PostgreSQL reads so few rows without an index if it may.
func planOf(t *testing.T, db *models.DB, query string) string {
	t.Helper()
	var plan []string
	must(t, db.InTx(t.Context(), func(ctx context.Context, tx bun.Tx) error {
		if db.Postgres {
			if _, err := tx.ExecContext(ctx, "SET LOCAL enable_seqscan = off"); err != nil {
				return err
			}
			return tx.NewRaw("EXPLAIN "+query).Scan(ctx, &plan)
		}
		var steps []struct {
			ID, Parent, Notused int64
			Detail              string
		}
		if err := tx.NewRaw("EXPLAIN QUERY PLAN "+query).Scan(ctx, &steps); err != nil {
			return err
		}
		for _, s := range steps {
			plan = append(plan, s.Detail)
		}
		return nil
	}))
	return strings.Join(plan, "\n")
}
