// Package billing is everything between Tollgate and Stripe: the reporter, the effects of webhooks,
// setup and reconciliation. It does not handle HTTP requests itself, and works the same on SQLite
// and on PostgreSQL.
package billing

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/stripe/stripe-go/v76"
	"github.com/stripe/stripe-go/v76/client"

	"tollgate/models"
)

// requestTimeout limits a request to Stripe, from its first byte to the last byte of the answer.
const requestTimeout = 30 * time.Second

// ClientOptions configure the connection to Stripe.
type ClientOptions struct {
	// Key is the secret key.
	Key string
	// APIBase is the address of a stand-in; empty for Stripe.
	APIBase string
	// Transport carries the requests; nil means that of net/http.
	Transport http.RoundTripper
}

var (
	secretKey     = regexp.MustCompile(`^[sr]k_(test|live)_[A-Za-z0-9_]+$`)
	signingSecret = regexp.MustCompile(`^whsec_[A-Za-z0-9+/=_-]+$`)
)

// CheckKey returns an error that says what to set instead if key is not a secret or restricted API
// key of Stripe. The error does not contain the key. Source: https://docs.stripe.com/keys
func CheckKey(key string) error {
	switch {
	case secretKey.MatchString(key):
		return nil
	case strings.HasPrefix(key, "pk_"):
		return errors.New("this is a publishable key (pk_…): set the secret key, which begins with sk_")
	case strings.HasPrefix(key, "whsec_"):
		return errors.New("this is a webhook secret (whsec_…): set the secret key, which begins with sk_")
	}
	return errors.New("this is not a Stripe API key: a secret key begins with sk_test_ or sk_live_, a restricted one with rk_test_ " +
		"or rk_live_")
}

// CheckWebhookSecret returns an error that says what to set instead if one of the secrets,
// separated by commas, is not a signing secret of a webhook endpoint. The error does not contain
// the secret.
func CheckWebhookSecret(secrets string) error {
	valid := false
	for secret := range strings.SplitSeq(secrets, ",") {
		if secret = strings.TrimSpace(secret); secret == "" {
			continue
		}
		if valid = signingSecret.MatchString(secret); !valid {
			break
		}
	}
	if !valid {
		return errors.New("this is not the signing secret of a webhook endpoint, which begins with whsec_")
	}
	return nil
}

// ErrLiveKey means that a live key would be sent to an address other than Stripe's.
var ErrLiveKey = errors.New("a live key is sent only to Stripe: leave out --stripe-api-base, or use a test key")

// Client is Stripe's API with one key. A call makes exactly one request: the retries of the SDK are
// off, because they ignore the context and skip our error handling, and so are those of net/http.
type Client struct {
	// Live means that the key is for live mode, in which real money moves.
	Live bool

	api     *client.API
	key     string
	backend stripe.Backend
}

// NewClient returns a client. It sends nothing yet.
func NewClient(o ClientOptions) (*Client, error) {
	c := &Client{key: o.Key, Live: strings.HasPrefix(o.Key, "sk_live_") || strings.HasPrefix(o.Key, "rk_live_")}
	transport := o.Transport
	if transport == nil {
		transport = http.DefaultTransport
	}
	cfg := &stripe.BackendConfig{
		HTTPClient:        &http.Client{Timeout: requestTimeout, Transport: once{transport, models.NewRedactor(o.Key)}},
		MaxNetworkRetries: stripe.Int64(0),
		LeveledLogger:     &stripe.LeveledLogger{Level: stripe.LevelNull},
		EnableTelemetry:   stripe.Bool(false),
	}
	if o.APIBase != "" {
		if c.Live {
			return nil, ErrLiveKey
		}
		if err := models.CheckStandIn(o.APIBase); err != nil {
			return nil, fmt.Errorf("--stripe-api-base: %w", err)
		}
		cfg.URL = stripe.String(strings.TrimRight(o.APIBase, "/"))
	}
	c.backend = stripe.GetBackendWithConfig(stripe.APIBackend, cfg)
	c.api = client.New(o.Key, &stripe.Backends{API: c.backend, Connect: c.backend, Uploads: c.backend})
	return c, nil
}

// once sends a request exactly once. net/http considers a POST with an Idempotency-Key safe to
// repeat, and sends it again by itself if a kept-alive connection breaks before the answer. The
// second answer would be taken for the only one, so a report that Stripe has could look refused and
// be billed twice a day later. once does not follow redirects either, which Stripe does not send:
// the SDK would treat any JSON body as success. Source: https://pkg.go.dev/net/http#Transport
//
// It also removes the key from errors, which are stored, logged and shown on /ops.
type once struct {
	next http.RoundTripper
	key  *models.Redactor
}

// RoundTrip sends a body that cannot be read twice. If the body is not empty, it sets its length.
func (o once) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Method == http.MethodPost {
		var body []byte
		if r.Body != nil {
			var err error
			body, err = io.ReadAll(r.Body)
			if err = errors.Join(err, r.Body.Close()); err != nil {
				return nil, err
			}
		}
		r = r.Clone(r.Context())
		r.Body, r.GetBody, r.ContentLength = io.NopCloser(bytes.NewReader(body)), nil, int64(len(body))
	}
	response, err := o.next.RoundTrip(r)
	if err == nil && response.StatusCode >= 300 && response.StatusCode < 400 {
		return nil, errors.Join(fmt.Errorf("the response is a redirect: %s", response.Status), response.Body.Close())
	}
	if err == nil && response.StatusCode >= http.StatusBadRequest {
		var body []byte
		body, err = io.ReadAll(response.Body)
		if err = errors.Join(err, response.Body.Close()); err != nil {
			return nil, err
		}
		response.Body = io.NopCloser(strings.NewReader(o.key.Replace(string(body))))
	}
	return response, err
}

// params returns parameters for a request that ends with the context.
func params(ctx context.Context) stripe.Params { return stripe.Params{Context: ctx} }

// stripeError returns the Stripe error in err. If there is none, the effect of the request is
// unknown.
func stripeError(err error) *stripe.Error {
	var e *stripe.Error
	if errors.As(err, &e) {
		return e
	}
	return nil
}

// account returns the ID of the key's account. It is empty if a restricted key may not read it or a
// stand-in has none. The SDK's own call takes no context.
func (c *Client) account(ctx context.Context) (string, error) {
	var a stripe.Account
	err := c.backend.Call(http.MethodGet, "/v1/account", c.key, &stripe.AccountParams{Params: params(ctx)}, &a)
	if e := stripeError(err); e != nil && (e.HTTPStatusCode == http.StatusForbidden || e.HTTPStatusCode == http.StatusNotFound) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("ask Stripe for the account: %w", err)
	}
	return a.ID, nil
}

// The keys of a meter event's payload.
const (
	meterCustomerKey = "stripe_customer_id"
	meterValueKey    = "value"
)

// sendMeterEvent sends a report to Stripe. Each attempt has its own idempotency key, because with a
// constant key, Stripe would return a stored error for a day.
func (c *Client) sendMeterEvent(ctx context.Context, r *models.StripeReport) error {
	p := &stripe.BillingMeterEventParams{
		Params:     params(ctx),
		EventName:  &r.MeterEventName,
		Identifier: &r.Identifier,
		Timestamp:  stripe.Int64(r.Minute.Unix()),
		Payload:    map[string]string{meterCustomerKey: r.StripeCustomerID, meterValueKey: strconv.FormatInt(r.Value, 10)},
	}
	p.SetIdempotencyKey(r.Identifier + ":" + strconv.Itoa(r.Attempts))
	_, err := c.api.BillingMeterEvents.New(p)
	return err
}

// total returns Stripe's total of a customer in [from, to), in units. Both must be whole minutes.
func (c *Client) total(ctx context.Context, meterID, customer string, from, to time.Time) (int64, error) {
	p := &stripe.BillingMeterEventSummaryListParams{ID: &meterID, Customer: &customer, StartTime: stripe.Int64(from.Unix()),
		EndTime: stripe.Int64(to.Unix())}
	p.Context = ctx
	var sum float64
	list := c.api.BillingMeterEventSummaries.List(p)
	for list.Next() {
		sum += list.BillingMeterEventSummary().AggregatedValue
	}
	if err := list.Err(); err != nil {
		return 0, fmt.Errorf("read Stripe's total of %s from %s: %w", customer, from.Format(time.RFC3339), err)
	}
	return int64(math.Round(sum)), nil
}

// meters returns the meters by event name: the active one first, if there is one, and then archived
// ones.
func (c *Client) meters(ctx context.Context) (map[string][]*stripe.BillingMeter, error) {
	list := &stripe.BillingMeterListParams{}
	list.Context, list.Limit = ctx, stripe.Int64(100)
	found := map[string][]*stripe.BillingMeter{}
	meters := c.api.BillingMeters.List(list)
	for meters.Next() {
		m := meters.BillingMeter()
		if m.Status == stripe.BillingMeterStatusActive {
			found[m.EventName] = slices.Insert(found[m.EventName], 0, m)
		} else {
			found[m.EventName] = append(found[m.EventName], m)
		}
	}
	if err := meters.Err(); err != nil {
		return nil, fmt.Errorf("list Stripe's meters: %w", err)
	}
	return found, nil
}
