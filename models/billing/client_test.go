package billing

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stripe/stripe-go/v76"

	"tollgate/models"
)

// A reused connection that breaks is the usual way to lose an answer. The HTTP client must neither
// repeat the request on its own nor follow a redirect.
func TestACallIsOneRequest(t *testing.T) {
	var mu sync.Mutex
	var seen []string
	answer := map[string]int{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || len(body) > 0 && int64(len(body)) != r.ContentLength {
			t.Errorf("a body of %d bytes with the length %d: %v", len(body), r.ContentLength, err)
		}
		mu.Lock()
		defer mu.Unlock()
		key := r.Header.Get("Idempotency-Key")
		seen = append(seen, r.URL.Path+" "+key)
		switch status := answer[key]; status {
		case http.StatusOK:
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, "{}")
		case 0:
			panic(http.ErrAbortHandler) // the connection is cut
		default:
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("Location", "/elsewhere")
			w.WriteHeader(status)
			_, _ = io.WriteString(w, `{"message": "moved"}`)
		}
	}))
	defer server.Close()
	c, err := NewClient(ClientOptions{Key: "sk_test_1", APIBase: server.URL, Transport: &http.Transport{}})
	if err != nil {
		t.Fatal(err)
	}
	report := func(identifier string) error {
		return c.sendMeterEvent(t.Context(), &models.StripeReport{Identifier: identifier, Attempts: 1, Minute: time.Unix(0, 0), Value: 1,
			StripeCustomerID: "cus_1", MeterEventName: "m"})
	}
	answer["kept:1"], answer["moved:1"], answer["sent on:1"] = http.StatusOK, http.StatusTemporaryRedirect, http.StatusFound
	for _, identifier := range []string{"kept", "lost", "kept", "moved", "kept", "sent on"} {
		if err := report(identifier); (err == nil) != (identifier == "kept") || classify(err,
			1).verdict != map[bool]verdict{true: accepted, false: unknown}[err == nil] {
			t.Errorf("%s: %v", identifier, err)
		}
	}
	// Without a body as well.
	if err := report("kept"); err != nil {
		t.Error(err)
	}
	p := &stripe.BillingMeterDeactivateParams{}
	p.SetIdempotencyKey("deactivated")
	if _, err := c.api.BillingMeters.Deactivate("mtr_1", p); err == nil {
		t.Error("a lost answer returned no error")
	}
	mu.Lock()
	defer mu.Unlock()
	var want []string
	for _, identifier := range []string{"kept", "lost", "kept", "moved", "kept", "sent on", "kept"} {
		want = append(want, "/v1/billing/meter_events "+identifier+":1")
	}
	want = append(want, "/v1/billing/meters/mtr_1/deactivate deactivated")
	if strings.Join(seen, "\n") != strings.Join(want, "\n") {
		t.Errorf("requests:\n%s\nwant:\n%s", strings.Join(seen, "\n"), strings.Join(want, "\n"))
	}
}
