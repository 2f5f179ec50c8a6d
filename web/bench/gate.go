//go:build linux

package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// gate is the product's binary with one database.
type gate struct {
	binary string
	// home is the directory that it runs in. It also has the plan catalog.
	home     string
	name     string
	database string
	token    string
	// keepEvents is --keep-events; empty for the default.
	keepEvents string
	// plans is the catalog's file. It is empty for the embedded catalog.
	plans string
}

// plansFile is a catalog whose business plan has more included units than a run can use. With the
// embedded catalog, answers would contain a warning from the middle of a run on, and the other
// servers send none.
const plansFile = `unit: {singular: suggestion, plural: suggestions}
currency: usd
meter_event_name: bench
plans:
  - {id: free, name: Free, type: individual, description: Free, base_price_cents: 0, included: 5, overage_rate_cents: 0,
     stripe_price_id: "", stripe_overage_price_id: "", features: [Free], call_to_action: Free}
  - {id: %s, name: Business, type: team, description: Business, base_price_cents: 2000, included: %d,
     overage_rate_cents: %d, stripe_price_id: "", stripe_overage_price_id: "", features: [All], call_to_action: Choose}
  - {id: %s, name: Metered, type: team, description: Metered, base_price_cents: 2000, included: 0,
     overage_rate_cents: 1, stripe_price_id: "", stripe_overage_price_id: "", features: [All], call_to_action: Choose}
`

// buildProduct compiles the binary as users do.
func buildProduct(ctx context.Context, root, dir string) (string, error) {
	binary := filepath.Join(dir, "tollgate")
	cmd := exec.CommandContext(ctx, "go", "build", "-o", binary, ".") //nolint:gosec // a fixed command
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the product: %w\n%s", err, out)
	}
	return binary, nil
}

// moduleRoot returns the root directory of the product's sources.
func moduleRoot(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	file := strings.TrimSpace(string(out))
	if err != nil || filepath.Base(file) != "go.mod" {
		return "", fmt.Errorf("run the benchmark inside the product's sources: go env GOMOD: %q %w", file, err)
	}
	return filepath.Dir(file), nil
}

// newGate creates an organization with the large plan in a new database, and an API key.
func newGate(ctx context.Context, binary, dir, name, database string) (*gate, error) {
	g := &gate{binary: binary, home: filepath.Join(dir, name), name: name, database: database}
	if err := os.MkdirAll(g.home, 0o700); err != nil {
		return nil, err
	}
	plans := fmt.Sprintf(plansFile, benchPlan, benchIncluded, benchOverageRate, meteredPlan)
	g.plans = filepath.Join(g.home, "plans.yaml")
	if err := os.WriteFile(g.plans, []byte(plans), 0o600); err != nil {
		return nil, err
	}
	if _, err := g.command(ctx, "migrate"); err != nil {
		return nil, err
	}
	organization, err := g.command(ctx, "organization", "create", "bench", "--slack-team", slackTeam)
	if err != nil {
		return nil, err
	}
	if _, err := g.command(ctx, "subscribe", "--organization", organization, "--plan", benchPlan); err != nil {
		return nil, err
	}
	g.token, err = g.command(ctx, "apikey", "create", "--name", "bench", "--scopes", "check,consume,read")
	return g, err
}

// environment returns the variables for the product. The rate limit is never reached, but its cost
// is measured.
func (g *gate) environment() []string {
	environment := []string{"DATABASE_URL=" + g.database, "TOLLGATE_DRAIN=0s", "TOLLGATE_RATE_LIMIT=1000000"}
	if g.plans != "" {
		environment = append(environment, "TOLLGATE_PLANS="+g.plans)
	}
	if g.keepEvents != "" {
		environment = append(environment, "TOLLGATE_KEEP_EVENTS="+g.keepEvents)
	}
	return environment
}

// command runs a command of the product and returns what it printed.
func (g *gate) command(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, g.binary, args...) //nolint:gosec // the product
	cmd.Dir, cmd.Env = g.home, append(g.environment(), "HOME="+g.home)
	var out, messages bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &messages
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s: tollgate %s: %w\n%s%s", g.name, strings.Join(args, " "), err, out.Bytes(), messages.Bytes())
	}
	return strings.TrimSpace(out.String()), nil
}

// serve starts the gate.
func (g *gate) serve(ctx context.Context) (*process, string, error) {
	port, err := freePort(ctx)
	if err != nil {
		return nil, "", err
	}
	addr := "127.0.0.1:" + strconv.Itoa(port)
	cmd := exec.Command(g.binary, "serve", "--listen", addr) //nolint:gosec,noctx // the product
	cmd.Env = g.environment()
	p, err := start(g.home, g.name, cmd)
	return p, addr, err
}

// ready waits until the gate is ready.
func (g *gate) ready(ctx context.Context, p *process, addr string) error {
	return p.waitUntil(ctx, func(ctx context.Context) error {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/readyz", nil)
		if err != nil {
			return err
		}
		_, err = fetch(request)
		return err
	})
}

// call makes one API call and returns the answer's body.
func call(ctx context.Context, url, token, body string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Authorization", "Bearer "+token)
	request.Header.Set("Content-Type", "application/json")
	return fetch(request)
}

// fetch returns the answer's body. Any status other than 200 is an error.
func fetch(request *http.Request) ([]byte, error) {
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %s", request.URL, answer.Status, body)
	}
	return body, err
}

// firstDecision starts the gate on an existing database and returns the time until its first
// decision. It tries every two milliseconds, and leaves one event.
func (g *gate) firstDecision(ctx context.Context, n int) (time.Duration, error) {
	begin := time.Now()
	p, addr, err := g.serve(ctx)
	if err != nil {
		return 0, err
	}
	body := fmt.Sprintf(`{"email":%q,"quantity":1,"idempotency_key":"start-%d"}`, personEmail(0), n)
	err = p.waitUntil(ctx, func(ctx context.Context) error {
		_, err := call(ctx, "http://"+addr+"/v1/consume", g.token, body)
		return err
	})
	took := time.Since(begin)
	http.DefaultClient.CloseIdleConnections()
	if err != nil {
		return 0, fmt.Errorf("start to first decision: %w", err)
	}
	return took, p.stop()
}

// verify runs the product's verify command.
func (g *gate) verify(ctx context.Context) error {
	_, err := g.command(ctx, "verify")
	return err
}
