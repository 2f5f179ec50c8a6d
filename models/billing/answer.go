package billing

import (
	"net/http"
	"strings"

	"github.com/stripe/stripe-go/v76"
)

// verdict is the meaning of Stripe's answer to a meter event.
type verdict int

const (
	// accepted means that Stripe has the report.
	accepted verdict = iota
	// clash means that Stripe has an event with this identifier that Tollgate did not send.
	clash
	// unknown means that Stripe may have accepted the report, or may still accept it.
	unknown
	// busy means that Stripe did not accept the report, and would not accept the stream's next one
	// now either.
	busy
	// tooFast means that Stripe did not accept the report, and the whole process must slow down.
	tooFast
	// misconfigured means that the key, the address or the request is wrong, so that every report
	// would fail.
	misconfigured
	// noMeter means that Stripe would refuse every report to this meter, and noCustomer every
	// report of this customer.
	noMeter
	noCustomer
	// tooOld means that Stripe will never accept the report.
	tooOld
	// refused means that Stripe did not accept the report, and probably never will.
	refused
)

// outcome is a verdict and Stripe's message.
type outcome struct {
	verdict verdict
	text    string
}

// classify returns the meaning of the answer to an attempt; attempts includes this one. For the
// codes and words, see https://docs.stripe.com/api/errors and
// https://docs.stripe.com/billing/subscriptions/usage-based/recording-usage-api#handle-meter-event-errors.
func classify(err error, attempts int) outcome {
	if err == nil {
		return outcome{verdict: accepted}
	}
	e := stripeError(err)
	if e == nil {
		return outcome{unknown, short(err.Error())}
	}
	o := outcome{unknown, short(strings.TrimSpace(http.StatusText(e.HTTPStatusCode) + ": " + e.Msg))}
	says := func(words ...string) bool {
		for _, w := range words {
			if strings.Contains(strings.ToLower(e.Msg+" "+string(e.Code)), w) {
				return true
			}
		}
		return false
	}
	switch status := e.HTTPStatusCode; {
	case e.Type == stripe.ErrorTypeIdempotency, status == http.StatusUnauthorized, status == http.StatusForbidden,
		status == http.StatusNotFound:
		o.verdict = misconfigured
	case status == http.StatusConflict, status == http.StatusTooManyRequests && (e.Code == stripe.ErrorCodeLockTimeout ||
		says("lock_timeout")):
		o.verdict = busy
	case status == http.StatusTooManyRequests:
		o.verdict = tooFast
	case status >= 500 || status < 400:
		o.verdict = unknown
	case says("already exists with identifier", "already exists with this identifier"), says("identifier") && says("already exists"):
		o.verdict = accepted
		if attempts == 1 {
			o.verdict = clash
		}
	case says("timestamp_too_far_in_past", "too far in the past", "past 35 calendar days", "35 days"):
		o.verdict = tooOld
	case says("no such customer", "customer_not_found", "no_customer_defined"), e.Code == stripe.ErrorCodeResourceMissing &&
		strings.Contains(e.Param, "customer"):
		o.verdict = noCustomer
	case says("no_meter", "archived_meter", "no such meter", "no active meter", "no meter", "inactive meter", "meter is inactive",
		"deactivated", "archived"):
		o.verdict = noMeter
	default:
		o.verdict = refused
	}
	return o
}

// short limits the part of an answer that is stored.
func short(text string) string {
	const most = 500
	text = strings.ToValidUTF8(strings.ReplaceAll(text, "\x00", ""), "")
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "…"
	}
	return text
}
