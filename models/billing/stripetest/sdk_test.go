package stripetest_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/stripe/stripe-go/v76"
	"github.com/stripe/stripe-go/v76/client"
)

// sdk returns Stripe's own client, configured like the product's.
func (s *standIn) sdk() *client.API {
	b := stripe.GetBackendWithConfig(stripe.APIBackend, &stripe.BackendConfig{
		HTTPClient: &http.Client{Transport: s.Transport()}, MaxNetworkRetries: stripe.Int64(0),
		LeveledLogger: &stripe.LeveledLogger{Level: stripe.LevelNull}, EnableTelemetry: stripe.Bool(false),
	})
	return client.New("sk_test_1", &stripe.Backends{API: b, Connect: b, Uploads: b})
}

// must returns a function that returns a value, or fails the test with the error.
func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// refused checks that an error is Stripe's, with a status and a parameter.
func refused(t *testing.T, what string, err error, status int, param string) {
	t.Helper()
	var e *stripe.Error
	if !errors.As(err, &e) || e.HTTPStatusCode != status || e.Param != param {
		t.Errorf("%s: %v, want %d for %q", what, err, status, param)
	}
}

// ids returns the IDs of an iterator's objects, in order.
func ids[T any](t *testing.T, i interface {
	Next() bool
	Err() error
	Current() any
}, id func(T) string) string {
	t.Helper()
	var all []string
	for i.Next() {
		all = append(all, id(i.Current().(T)))
	}
	if err := i.Err(); err != nil {
		t.Fatal(err)
	}
	return strings.Join(all, " ")
}
