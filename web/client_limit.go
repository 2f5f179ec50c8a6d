package web

import (
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/labstack/echo/v4"
	"golang.org/x/time/rate"
)

// What one client address may ask for without a session or a valid API key. An office of 500 people behind one address
// who all sign in at nine o'clock stay below the burst; see docs/decisions.md.
const (
	clientRate  = 20 // per second
	clientBurst = 200
	// sharedBy is how much more addresses get together: those beyond maxClients, and those behind a proxy that the server was not
	// told to trust.
	sharedBy = 10
	// maxClients is how many addresses are counted at a time, in each of two generations.
	maxClients = 8192
	// clientsTurn is when a generation ends: as long as an address takes to get its whole burst back, so that one that is
	// forgotten loses nothing and gains nothing.
	clientsTurn = clientBurst * time.Second / clientRate
	// undeclaredMany is how many requests through an unknown proxy make a line in the log.
	undeclaredMany = 100
)

// clientLimit limits the requests that cost something, and that anyone may send, by client address.
type clientLimit struct {
	now func() time.Time
	log *slog.Logger

	mu                sync.Mutex
	current, previous map[netip.Prefix]*rate.Limiter
	turned            time.Time
	overflow          *rate.Limiter // of the addresses beyond maxClients
	undeclared        *rate.Limiter // of the clients of proxies that are not trusted
	undeclaredSeen    int
}

func newClientLimit(now func() time.Time, log *slog.Logger) *clientLimit {
	return &clientLimit{
		now: now, log: log, current: map[netip.Prefix]*rate.Limiter{}, previous: map[netip.Prefix]*rate.Limiter{}, turned: now(),
		overflow:   rate.NewLimiter(sharedBy*clientRate, sharedBy*clientBurst),
		undeclared: rate.NewLimiter(sharedBy*clientRate, sharedBy*clientBurst),
	}
}

// take counts a request of the client. It returns a Problem if the client has sent too many.
func (l *clientLimit) take(c echo.Context) error {
	bucket, now := l.bucket(c)
	if bucket.AllowN(now, 1) {
		return nil
	}
	p := newProblem(codeRateLimited, "Too many requests came from your address. Wait a moment, then try again.")
	p.retryAfter = waitFor(bucket, now)
	return p
}

// giveBack takes a request out of the count: it turned out to be one of a session or of a valid key.
func (l *clientLimit) giveBack(c echo.Context) {
	bucket, now := l.bucket(c)
	bucket.AllowN(now, -1)
}

// waitFor is how long a bucket takes until the next request is allowed, at least a millisecond.
func waitFor(bucket *rate.Limiter, now time.Time) time.Duration {
	missing := 1 - bucket.TokensAt(now)
	return max(time.Millisecond, time.Duration(missing/float64(bucket.Limit())*float64(time.Second)))
}

func (l *clientLimit) bucket(c echo.Context) (*rate.Limiter, time.Time) {
	now, address := l.now(), clientAddress(c.RealIP())
	proxied := isUndeclaredProxy(c)
	l.mu.Lock()
	defer l.mu.Unlock()
	if proxied {
		if l.undeclaredSeen++; l.undeclaredSeen == undeclaredMany {
			l.log.Warn("requests come through a proxy that --trusted-proxies does not name, so that its clients share one limit; name its address there",
				"proxy", c.RealIP(), "requests", l.undeclaredSeen)
		}
		if ip := address.Addr(); ip.IsLoopback() || ip.IsPrivate() {
			return l.undeclared, now
		}
	}
	if passed := now.Sub(l.turned); passed >= clientsTurn {
		l.previous, l.current, l.turned = l.current, map[netip.Prefix]*rate.Limiter{}, now
		if passed >= 2*clientsTurn {
			clear(l.previous)
		}
	}
	if bucket, ok := l.current[address]; ok {
		return bucket, now
	}
	bucket, ok := l.previous[address]
	switch {
	case len(l.current) >= maxClients:
		// Also one of the last generation: it would otherwise get a new bucket after the next turn.
		if !ok {
			bucket = l.overflow
		}
		return bucket, now
	case !ok:
		bucket = rate.NewLimiter(clientRate, clientBurst)
	}
	l.current[address] = bucket
	return bucket, now
}

// clientAddress is what a client is counted by: its IPv4 address, or the network of its IPv6 address, as one subscriber has at least
// a /64 of them.
func clientAddress(text string) netip.Prefix {
	ip, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Prefix{} // a Unix socket; they share one bucket
	}
	ip = ip.Unmap().WithZone("")
	bits := 32
	if ip.Is6() {
		bits = 64
	}
	return netip.PrefixFrom(ip, bits).Masked()
}

// isUndeclaredProxy reports whether a request says that it was forwarded, and its sender is not trusted to say so.
func isUndeclaredProxy(c echo.Context) bool {
	h := c.Request().Header
	if len(h["X-Forwarded-For"]) == 0 && len(h["Forwarded"]) == 0 {
		return false
	}
	peer, _, err := net.SplitHostPort(c.Request().RemoteAddr)
	return err == nil && peer == c.RealIP()
}
