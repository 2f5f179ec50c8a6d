package stripetest

import (
	"math/rand/v2"
	"net/http"
	"net/url"
	"time"
)

// Fault is what goes wrong with one request.
type Fault int

// The faults. Those of the answer alone leave the effect as it is; a request that reads has none.
const (
	None Fault = iota
	// LostBefore breaks the connection before the request has its effect.
	LostBefore
	// LostAfter breaks it after.
	LostAfter
	// Late breaks it, and the effect comes up to an hour later (Options.Latest), by the rules of that moment.
	Late
	// ErrorBefore is a 500 without an effect, kept under the Idempotency-Key like any answer.
	ErrorBefore
	// ErrorAfter is a 500 after the effect, kept in the same way.
	ErrorAfter
	// HTMLBefore is a 200 with a page of HTML, as somebody in between would answer, without an effect.
	HTMLBefore
	// HTMLAfter is the same after the effect.
	HTMLAfter
	// Conflict is a 409 lock_timeout, without an effect.
	Conflict
	// LockTimeout is the same as a 429.
	LockTimeout
	// TooFast is a 429 rate_limit, without an effect.
	TooFast
	// Dropped answers 200 to a meter event that is never counted. Dropped lists them.
	Dropped
	// Stall keeps the request waiting until its context ends, without an effect.
	Stall
	// Refused is a 400 parameter_invalid, without an effect.
	Refused
)

// String is the fault's name.
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

// Mix faults a share of all requests, from 0 to 1, each in one of the ways that a client can get over: every fault but None,
// Dropped, Stall and Refused. The Rand may be that of Options.
func Mix(r *rand.Rand, share float64) func(*http.Request, url.Values) Fault {
	// What leaves the truth to be found out.
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

// Uniform is a lag of any length from 0 up to a longest one.
func Uniform(longest time.Duration) func(*rand.Rand) time.Duration {
	return func(r *rand.Rand) time.Duration { return time.Duration(r.Int64N(int64(longest) + 1)) }
}
