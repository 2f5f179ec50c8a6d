// Package billing is all that Tollgate tells Stripe and hears from it: the reporter, the webhooks' effects, the set-up and the
// reconciliation. It runs without HTTP of its own, on SQLite and on PostgreSQL alike.
package billing

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/stripe/stripe-go/v76"
	"github.com/stripe/stripe-go/v76/client"
)

// requestTimeout bounds a request to Stripe from its first byte to the answer's last one.
const requestTimeout = 30 * time.Second

// ClientOptions say how Stripe is reached.
type ClientOptions struct {
	// Key is the secret key.
	Key string
	// APIBase is a stand-in's address; empty for Stripe's own.
	APIBase string
	// Transport is what carries requests; nil is a transport of the client's own.
	Transport http.RoundTripper
}

// ErrLiveKey says that a live key must not reach anything but Stripe.
var ErrLiveKey = errors.New("a live key goes to Stripe alone: leave out --stripe-api-base, or use a test key")

// Client is Stripe's API by one key. The SDK's own retries are off: they ignore the context and skip what matters.
type Client struct {
	*client.API
	// Live says that the key is one of live mode, in which money moves.
	Live bool
}

// NewClient makes a client; it sends nothing yet.
func NewClient(o ClientOptions) (*Client, error) {
	c := &Client{Live: strings.HasPrefix(o.Key, "sk_live_") || strings.HasPrefix(o.Key, "rk_live_")}
	cfg := &stripe.BackendConfig{
		HTTPClient:        &http.Client{Timeout: requestTimeout, Transport: o.Transport},
		MaxNetworkRetries: stripe.Int64(0),
		LeveledLogger:     &stripe.LeveledLogger{Level: stripe.LevelNull},
		EnableTelemetry:   stripe.Bool(false),
	}
	if o.APIBase != "" {
		if c.Live {
			return nil, ErrLiveKey
		}
		if err := checkBase(o.APIBase); err != nil {
			return nil, err
		}
		cfg.URL = stripe.String(strings.TrimRight(o.APIBase, "/"))
	}
	backend := stripe.GetBackendWithConfig(stripe.APIBackend, cfg)
	c.API = client.New(o.Key, &stripe.Backends{API: backend, Connect: backend, Uploads: backend})
	return c, nil
}

// checkBase says why an address is no stand-in's on this machine.
func checkBase(base string) error {
	u, err := url.Parse(base)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || strings.Trim(u.Path, "/") != "" {
		return fmt.Errorf("--stripe-api-base: %q is not an address such as http://127.0.0.1:12111", base)
	}
	if ip := net.ParseIP(u.Hostname()); u.Hostname() != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return fmt.Errorf("--stripe-api-base: %s is not on this machine; a stand-in for Stripe is", u.Host)
	}
	return nil
}

// params are those of a request that ends with the context.
func params(ctx context.Context) stripe.Params { return stripe.Params{Context: ctx} }

// stripeError is the error of Stripe's that err is, or nil: then what became of the request is not known.
func stripeError(err error) *stripe.Error {
	var e *stripe.Error
	if errors.As(err, &e) {
		return e
	}
	return nil
}
