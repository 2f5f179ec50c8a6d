package stripetest

import (
	"math/rand/v2"
	"net/http"
	"net/url"
	"time"
)

// Fault is a failure of one request.
type Fault int

// The faults. Those that change only the answer keep the effect; a request that only reads has
// none.
const (
	None Fault = iota
	// LostBefore breaks the connection before the request has its effect.
	LostBefore
	// LostAfter breaks the connection after the effect.
	LostAfter
	// Late breaks the connection. The effect happens up to an hour later (Options.Latest), by the
	// rules of that time.
	Late
	// ErrorBefore is a 500 without an effect. It is stored under the Idempotency-Key like any
	// answer.
	ErrorBefore
	// ErrorAfter is a 500 after the effect, stored in the same way.
	ErrorAfter
	// HTMLBefore is a 200 with an HTML page, as from a proxy, without an effect.
	HTMLBefore
	// HTMLAfter is the same after the effect.
	HTMLAfter
	// Conflict is a 409 lock_timeout, without an effect.
	Conflict
	// LockTimeout is the same with a 429.
	LockTimeout
	// TooFast is a 429 rate_limit, without an effect.
	TooFast
	// Dropped answers 200 to a meter event that is never counted. Stripe.Dropped lists these.
	Dropped
	// Stall holds the request until its context ends, without an effect.
	Stall
	// Refused is a 400 parameter_invalid, without an effect.
	Refused
)

// String returns the fault's name.
func (f Fault) String() string {
	names := [...]string{
		"none", "lost before", "lost after", "late", "500 before", "500 after", "HTML before", "HTML after",
		"409", "429 lock_timeout", "429 rate_limit", "dropped", "stall", "400",
	}
	if f < 0 || int(f) >= len(names) {
		return "unknown"
	}
	return names[f]
}

// Mix makes a share of all requests fail, from 0 to 1. It uses every fault that a client can
// recover from: all except None, Dropped, Stall and Refused. The Rand may be that of Options.
func Mix(r *rand.Rand, share float64) func(*http.Request, url.Values) Fault {
	// The faults after which a client can find out what happened.
	faults := []Fault{
		LostBefore, LostAfter, Late, ErrorBefore, ErrorAfter, HTMLBefore, HTMLAfter, Conflict, LockTimeout, TooFast,
	}
	return func(*http.Request, url.Values) Fault {
		if r.Float64() >= share {
			return None
		}
		return faults[r.IntN(len(faults))]
	}
}

// Uniform returns a lag of uniform length from 0 to longest.
func Uniform(longest time.Duration) func(*rand.Rand) time.Duration {
	return func(r *rand.Rand) time.Duration { return time.Duration(r.Int64N(int64(longest) + 1)) }
}
