package web

import (
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/labstack/echo/v4"
	"golang.org/x/time/rate"

	"tollgate/models"
)

// Limits for the requests of one client address without a session or a valid API key. With them, 66
// people behind one address can sign in at the same time, and 6 more in each second after that; see
// docs/decisions.md.
const (
	clientRate  = 20 // per second
	clientBurst = 200
	// sharedBy is how much more each shared limit allows. Addresses beyond maxClients share one limit,
	// and so do the clients behind an untrusted proxy.
	sharedBy = 10
	// maxClients is how many addresses are counted at a time, in each of two generations.
	maxClients = 8192
	// clientsTurn is how long a generation lasts. After this time, an address has its whole burst
	// again, so it makes no difference if the address is forgotten.
	clientsTurn = clientBurst * time.Second / clientRate
	// outageShows is how long after a failed lookup of a session or key a client over its limit gets a 503
	// instead of a 429.
	outageShows = 2 * time.Second
	// undeclaredMany is how many requests through an undeclared proxy cause a warning in the log.
	undeclaredMany = 100
)

// clientLimit limits expensive requests that anyone may send, by client address.
type clientLimit struct {
	now func() time.Time
	log *slog.Logger

	mu                sync.Mutex
	current, previous map[netip.Prefix]*rate.Limiter
	turned            time.Time
	overflow          *rate.Limiter // for addresses beyond maxClients
	undeclared        *rate.Limiter // for clients behind untrusted proxies
	undeclaredSeen    int
	lookupFailed      time.Time
}

func newClientLimit(now func() time.Time, log *slog.Logger) *clientLimit {
	return &clientLimit{
		now: now, log: log, current: map[netip.Prefix]*rate.Limiter{}, previous: map[netip.Prefix]*rate.Limiter{}, turned: now(),
		overflow:   rate.NewLimiter(sharedBy*clientRate, sharedBy*clientBurst),
		undeclared: rate.NewLimiter(sharedBy*clientRate, sharedBy*clientBurst),
	}
}

// take counts a request of the client. It returns a Problem if the client sent too many.
func (l *clientLimit) take(c echo.Context) error {
	bucket, now := l.bucket(c)
	if bucket == l.undeclared {
		l.warnOfProxy(c.RealIP())
	}
	if bucket.AllowN(now, 1) {
		return nil
	}
	p := newProblem(codeRateLimited, "Too many requests came from your address. Wait a moment, then try again.")
	p.retryAfter = waitFor(bucket, now)
	return p
}

// errLookups is the cause of a 503 to a client over its limit.
var errLookups = errors.New("the sessions and keys of other requests could not be looked up")

// takeLookup counts a request whose session or key must be looked up. While lookups fail, requests with
// a valid one count, too, so the Problem for too many says that the database does not answer.
func (l *clientLimit) takeLookup(c echo.Context) error {
	err := l.take(c)
	if err == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.now().Sub(l.lookupFailed) < outageShows {
		return models.Unavailable(errLookups)
	}
	return err
}

// noteFailedLookup is called if the database did not answer a lookup.
func (l *clientLimit) noteFailedLookup() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lookupFailed = l.now()
}

// giveBack subtracts a request from the count, because it turned out to have a session or a valid
// key.
func (l *clientLimit) giveBack(c echo.Context) {
	bucket, now := l.bucket(c)
	bucket.AllowN(now, -1)
}

// waitFor returns how long it takes until a bucket allows the next request, at least a millisecond.
func waitFor(bucket *rate.Limiter, now time.Time) time.Duration {
	missing := 1 - bucket.TokensAt(now)
	return max(time.Millisecond, time.Duration(missing/float64(bucket.Limit())*float64(time.Second)))
}

func (l *clientLimit) bucket(c echo.Context) (*rate.Limiter, time.Time) {
	now, address := l.now(), clientAddress(c.RealIP())
	if ip := address.Addr(); (ip.IsLoopback() || ip.IsPrivate()) && isUndeclaredProxy(c) {
		return l.undeclared, now
	}
	l.mu.Lock()
	defer l.mu.Unlock()
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
		// An address of the previous generation keeps its bucket; otherwise it would get a new one after
		// the next turn.
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

// warnOfProxy warns, once, that requests come through an undeclared proxy.
func (l *clientLimit) warnOfProxy(address string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.undeclaredSeen++; l.undeclaredSeen == undeclaredMany {
		l.log.Warn("requests come through a proxy that --trusted-proxies does not contain, so its clients share one limit; add its address",
			"proxy", address, "requests", l.undeclaredSeen)
	}
}

// clientAddress returns what a client is counted by: its IPv4 address, or the /64 network of its
// IPv6 address, because one subscriber has at least a /64.
func clientAddress(text string) netip.Prefix {
	ip, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Prefix{} // a Unix socket; all of them share one bucket
	}
	ip = ip.Unmap().WithZone("")
	bits := 32
	if ip.Is6() {
		bits = 64
	}
	return netip.PrefixFrom(ip, bits).Masked()
}

// isUndeclaredProxy reports whether a request was forwarded by a proxy that is not trusted.
func isUndeclaredProxy(c echo.Context) bool {
	h := c.Request().Header
	if len(h["X-Forwarded-For"]) == 0 && len(h["Forwarded"]) == 0 {
		return false
	}
	peer, _, err := net.SplitHostPort(c.Request().RemoteAddr)
	return err == nil && peer == c.RealIP()
}
