package web

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"
)

// figures returns the server's metrics as "name{label=value,…}" and their values. A histogram has the
// number of its observations.
func (f *fixture) figures() map[string]float64 {
	f.t.Helper()
	families, err := f.web.metrics.Gather()
	must(f.t, err)
	all := map[string]float64{}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetName()+"="+l.GetValue())
			}
			value := m.GetCounter().GetValue() + m.GetGauge().GetValue()
			if family.GetType() == dto.MetricType_HISTOGRAM {
				value = float64(m.GetHistogram().GetSampleCount())
			}
			all[family.GetName()+"{"+strings.Join(labels, ",")+"}"] = value
		}
	}
	return all
}

// TestMetrics makes calls and sign-ins, and compares their counts.
func TestMetrics(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		call := func(path string, quantity int, key string, want int) {
			t.Helper()
			f.post(path, fmt.Sprintf(`{"email": "ada@example.com", "quantity": %d, "idempotency_key": %q}`, quantity, key)).want(t, want, nil)
		}
		call("/v1/consume", 2, "a", 200)
		call("/v1/consume", 2, "a", 200) // a retry
		call("/v1/consume", 3, "a", 409)
		call("/v1/consume", 9, "b", 200) // refused: the free plan includes 5
		call("/v1/holds", 1, "h", 200)
		f.post("/v1/check", `{"email": "ada@example.com", "quantity": 9}`).want(t, 200, map[string]any{"allowed": false})
		f.used("bob@example.com", 7, f.clock())
		f.signedIn("ada@example.com")
		if p := f.browser().post("/sign-in/unknown", nil); p.status != http.StatusNotFound && p.status != http.StatusBadRequest {
			t.Errorf("an unknown link returned %d", p.status)
		}
		got := f.figures()
		for name, want := range map[string]float64{
			"tollgate_gate_decisions_total{call=consume,outcome=allowed,reason=}":                   1,
			"tollgate_gate_decisions_total{call=consume,outcome=replayed,reason=}":                  1,
			"tollgate_gate_decisions_total{call=consume,outcome=error,reason=}":                     1,
			"tollgate_gate_decisions_total{call=consume,outcome=refused,reason=included_exhausted}": 1,
			"tollgate_gate_decisions_total{call=check,outcome=refused,reason=included_exhausted}":   1,
			"tollgate_gate_decisions_total{call=hold,outcome=allowed,reason=}":                      1,
			"tollgate_gate_decisions_total{call=event,outcome=allowed,reason=}":                     1,
			"tollgate_gate_decisions_total{call=settle,outcome=allowed,reason=}":                    0,
			"tollgate_gate_queue_length{queue=read}":                                                0,
			"tollgate_gate_queue_length{queue=write}":                                               0,
			"tollgate_sign_ins_total{method=link,outcome=signed_in}":                                1,
			"tollgate_sign_ins_total{method=link,outcome=refused}":                                  1,
			"tollgate_sign_ins_total{method=issuer,outcome=signed_in}":                              0,
		} {
			if n, ok := got[name]; !ok || n != want {
				t.Errorf("%s is %v, %v, want %v", name, n, ok, want)
			}
		}
		for name, n := range got {
			if strings.HasPrefix(name, "tollgate_build_info{") && n == 1 {
				return
			}
		}
		t.Errorf("no tollgate_build_info in %v", got)
	})
}
