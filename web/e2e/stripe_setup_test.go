//go:build linux

package e2e_test

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"tollgate/models/billing/stripetest"
)

// `stripe setup` prints only the webhook's secret, and only once. A server with this secret applies
// webhooks.
func TestStripeSetupCommand(t *testing.T) {
	stand := stripetest.New(stripetest.Options{Now: time.Now, Rand: rand.New(rand.NewPCG(1, 2)), Key: "sk_test_e2e"})
	server := httptest.NewServer(stand)
	defer server.Close()
	database := sqliteDatabase(t)
	variables := []string{"DATABASE_URL=" + database, "STRIPE_SECRET_KEY=sk_test_e2e", "STRIPE_API_BASE=" + server.URL}
	setup := func(args ...string) result {
		t.Helper()
		return runIt(t, variables, append([]string{"stripe", "setup", "--base-url", "https://tollgate.example.com"}, args...)...)
	}
	dry := setup("--dry-run")
	if dry.status != 0 || dry.stdout != "" || strings.Count(dry.stderr, "would create: ") != 18 || strings.Contains(dry.stderr, "created: ") {
		t.Errorf("a dry run: %+v", dry)
	}
	first := setup()
	secret := strings.TrimSpace(first.stdout)
	if first.status != 0 || !strings.HasPrefix(secret, "whsec_") || strings.ContainsAny(secret, " \n") ||
		strings.Count(first.stderr, "created: ") != 18 || strings.Contains(first.stderr, secret) {
		t.Fatalf("set up: %+v", first)
	}
	if r := setup(); r.status != 0 || r.stdout != "" || strings.Count(r.stderr, "found: ") != 18 || strings.Contains(r.stderr, "created: ") {
		t.Errorf("again: %+v", r)
	}
	sh := shell{t, database}
	sh.fails(1, "Stripe is not connected: set STRIPE_SECRET_KEY", "stripe", "setup")
	live := []string{"DATABASE_URL=" + database, "STRIPE_SECRET_KEY=sk_live_1", "STRIPE_API_BASE=" + server.URL}
	if r := runIt(t, live, "stripe", "setup"); r.status != 1 || !strings.Contains(r.stderr, "a live key is sent only to Stripe") {
		t.Errorf("a live key and a stand-in: %+v", r)
	}

	// The server reads the secret from a file.
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte(secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := startWith(t, append(variables, "STRIPE_WEBHOOK_SECRET_FILE="+file), "serve", "--listen", "127.0.0.1:0")
	key := strings.TrimSpace(sh.ok("apikey", "create", "--name", "app", "--scopes", "check"))
	stand.AddCustomer("cus_1", map[string]string{"tollgate_email": "ada@example.com"})
	_, after, _ := strings.Cut(first.stderr, "created: price:pro, ")
	price, _, _ := strings.Cut(after, "\n")
	bought := stand.AddSubscription(stripetest.Subscription{Customer: "cus_1", Items: []stripetest.Item{{Price: price, Quantity: 1}}})
	body, signature := stand.SignedEvent(secret, time.Now(), "customer.subscription.created", stand.Object(bought))
	send := func(path, body, header, value string) (int, string) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.url+path, bytes.NewBufferString(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set(header, value)
		response, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		answer, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		return response.StatusCode, string(answer)
	}
	if status, answer := send("/stripe/webhook", string(body), "Stripe-Signature", signature); status != http.StatusOK {
		t.Fatalf("the webhook got %d %s", status, answer)
	}
	status, answer := send("/v1/check", `{"email": "ada@example.com"}`, "Authorization", "Bearer "+key)
	if status != http.StatusOK || !strings.Contains(answer, `"plan":"pro"`) {
		t.Errorf("a check after the webhook: %d %s", status, answer)
	}
	if status := s.stop(t, syscall.SIGTERM); status != 0 {
		t.Errorf("status %d, %s", status, s.stderr)
	}
}
