//go:build linux

package e2e_test

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

const (
	alertRules = "../../deploy/prometheus/tollgate.rules.yml"
	alertTests = "../../deploy/prometheus/tollgate.rules.test.yml"
	dashboard  = "../../deploy/grafana/tollgate.json"
	// scrapePatience is how long Prometheus may take to start and to scrape a server twice.
	scrapePatience = 30 * time.Second
)

// TestAlertRules checks the alert rules with promtool, and that each has a runbook in the docs.
func TestAlertRules(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"check", "rules", alertRules}, {"test", "rules", alertTests}} {
		if out, err := exec.CommandContext(t.Context(), installed(t, "promtool"), args...).CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	rules, err := os.ReadFile(alertRules)
	if err != nil {
		t.Fatal(err)
	}
	docs, err := os.ReadFile("../../docs/monitoring.md")
	if err != nil {
		t.Fatal(err)
	}
	names := regexp.MustCompile(`(?m)alert: (\w+)$`).FindAllStringSubmatch(string(rules), -1)
	if len(names) == 0 || strings.Count(string(rules), "runbook:") != len(names) {
		t.Errorf("%d alerts, %d runbooks", len(names), strings.Count(string(rules), "runbook:"))
	}
	for _, name := range names {
		if !strings.Contains(string(docs), "`"+name[1]+"`") {
			t.Errorf("docs/monitoring.md does not explain %s", name[1])
		}
	}
}

// TestDashboard lets Prometheus scrape a server that reports to Stripe, and evaluates the query of
// each panel. The metrics that the docs list are those that the server exports.
func TestDashboard(t *testing.T) {
	t.Parallel()
	metrics := net.JoinHostPort("127.0.0.1", strconv.Itoa(freePort(t)))
	s, _ := newStripeSite(t, sqliteDatabase(t), 1, func(_ int, p *server) {
		p.args = append(p.args, "--metrics-listen", metrics)
	})
	p := startPrometheus(t, metrics)
	for key := 0; !p.ready(t); key++ { // calls between two scrapes give rates
		s.client.call(t.Context(), s.servers[0].addr, http.MethodPost, "/v1/consume", body{
			"email": "ada@example.com", "quantity": 1, "idempotency_key": strconv.Itoa(key),
		})
	}
	for _, q := range panelQueries(t) {
		// Some panels have only what is not zero.
		if n := p.query(t, q); n == 0 && !strings.HasSuffix(q, "> 0") {
			t.Errorf("no result of %s", q)
		}
	}
	groups := string(fetch(t, p.base+"/api/v1/rules"))
	if !strings.Contains(groups, `"health":"ok"`) || strings.Contains(groups, `"health":"err"`) {
		t.Errorf("the rules are not evaluated: %s", groups)
	}
	wantDocumentedMetrics(t, "http://"+metrics+"/metrics")
}

// panelQueries returns the queries of the dashboard's panels, with its variables replaced.
func panelQueries(t *testing.T) (queries []string) {
	t.Helper()
	text, err := os.ReadFile(dashboard)
	if err != nil {
		t.Fatal(err)
	}
	var d struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	for _, p := range d.Panels {
		for _, target := range p.Targets {
			queries = append(queries, strings.NewReplacer("$job", "tollgate", "$__rate_interval", "10s").Replace(target.Expr))
		}
	}
	if len(queries) < 20 {
		t.Fatalf("the dashboard has %d queries", len(queries))
	}
	return queries
}

// wantDocumentedMetrics compares the names of the exported metrics with those in the docs.
func wantDocumentedMetrics(t *testing.T, address string) {
	t.Helper()
	docs, err := os.ReadFile("../../docs/monitoring.md")
	if err != nil {
		t.Fatal(err)
	}
	text := fetch(t, address)
	exported := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^# TYPE (tollgate_\w+) `).FindAllStringSubmatch(string(text), -1) {
		exported[m[1]] = true
		if !strings.Contains(string(docs), "`"+m[1]) {
			t.Errorf("docs/monitoring.md does not list %s", m[1])
		}
	}
	for _, m := range regexp.MustCompile("`(tollgate_\\w+)").FindAllStringSubmatch(string(docs), -1) {
		if !exported[m[1]] {
			t.Errorf("docs/monitoring.md lists %s, which the server does not export", m[1])
		}
	}
}

// prometheus is a Prometheus server of Debian's package.
type prometheus struct{ base string }

func startPrometheus(t *testing.T, target string) *prometheus {
	t.Helper()
	rules, err := filepath.Abs(alertRules)
	if err != nil {
		t.Fatal(err)
	}
	config := writeConfig(t, t.TempDir(), "prometheus.yml", `global: {scrape_interval: 1s, evaluation_interval: 1s}
rule_files: [`+rules+`]
scrape_configs:
  - job_name: tollgate
    static_configs: [{targets: ["`+target+`"]}]
`)
	listen := net.JoinHostPort("127.0.0.1", strconv.Itoa(freePort(t)))
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), installed(t, "prometheus"), "--config.file="+config,
		"--storage.tsdb.path="+t.TempDir(), "--web.listen-address="+listen, "--log.level=error")
	output := &tail{}
	cmd.Stdout, cmd.Stderr = output, output
	r, err := launch(cmd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = r.process.Kill()
		<-r.exited
		if t.Failed() {
			t.Logf("Prometheus: %s", output)
		}
	})
	p := &prometheus{base: "http://" + listen}
	end := time.Now().Add(scrapePatience)
	for ; ; time.Sleep(20 * time.Millisecond) {
		if response, err := http.Get(p.base + "/-/ready"); err == nil { //nolint:noctx // the test's own server
			_ = response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return p
			}
		}
		if time.Now().After(end) {
			t.Fatalf("Prometheus is not ready within %s: %s", scrapePatience, output)
		}
	}
}

// ready reports whether the server was scraped after several calls, so that rates have values.
func (p *prometheus) ready(t *testing.T) bool {
	t.Helper()
	return p.query(t, `rate(tollgate_gate_group_seconds_count{job="tollgate"}[10s]) > 0`) > 0 &&
		p.query(t, `sum(rate(tollgate_http_request_seconds_count{route="/v1/consume"}[10s])) > 0`) > 0 &&
		p.query(t, `tollgate_stripe_reports`) > 0
}

// fetch returns the body of a page.
func fetch(t *testing.T, address string) []byte {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("%s returned %s, %v: %s", address, response.Status, err, body)
	}
	return body
}

// query returns the number of series in the result of a query.
func (p *prometheus) query(t *testing.T, q string) int {
	t.Helper()
	body := fetch(t, p.base+"/api/v1/query?query="+url.QueryEscape(q))
	var result struct {
		Status string
		Data   struct{ Result []json.RawMessage }
	}
	if err := json.Unmarshal(body, &result); err != nil || result.Status != "success" {
		t.Fatalf("%s: %v, %s", q, err, body)
	}
	return len(result.Data.Result)
}
