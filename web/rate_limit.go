package web

import (
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"
	"github.com/labstack/echo/v4"
	"golang.org/x/time/rate"

	"tollgate/models"
)

// keyLimits are the limits of API keys in this process, by the key's ID.
type keyLimits struct {
	normal int64 // of a key without its own limit; 0 means none
	now    func() time.Time
	known  sync.Map
}

// keyLimit limits a key to a number of calls per second. After an idle second, all of them may come
// at once.
type keyLimit struct {
	bucket *rate.Limiter
	now    func() time.Time
	most   int64
}

// of returns the limit of a key; nil if it has none. It returns the same one as before if the limit
// has not changed.
func (k *keyLimits) of(key *models.APIKey) *keyLimit {
	most := k.normal
	if key.RateLimit != nil {
		most = *key.RateLimit
	}
	if most <= 0 {
		k.remove(key.ID)
		return nil
	}
	old, ok := k.known.Load(key.ID)
	if ok && old.(*keyLimit).most == most {
		return old.(*keyLimit)
	}
	l := &keyLimit{now: k.now, most: most}
	if ok { // calls that were counted stay counted
		l.bucket = old.(*keyLimit).bucket
		l.bucket.SetLimitAt(k.now(), rate.Limit(most))
		l.bucket.SetBurstAt(k.now(), int(most))
	} else {
		l.bucket = rate.NewLimiter(rate.Limit(most), int(most))
	}
	k.known.Store(key.ID, l)
	return l
}

func (k *keyLimits) remove(id uuid.UUID) { k.known.Delete(id) }

// The headers of a limit, as net/http spells them. Header names are case-insensitive. The first two
// are from draft-ietf-httpapi-ratelimit-headers-10, the others from earlier versions, which most
// clients use.
const (
	headerRateLimit = "Ratelimit"
	headerPolicy    = "Ratelimit-Policy"
	headerLimit     = "Ratelimit-Limit"
	headerRemaining = "Ratelimit-Remaining"
	headerReset     = "Ratelimit-Reset"
)

// take counts a call and sets the RateLimit header. If the key made too many calls, take sets the
// other headers too and returns a Problem. A nil limit allows every call.
func (l *keyLimit) take(c echo.Context) error {
	if l == nil {
		return nil
	}
	h := c.Response().Header()
	if l.allow(h) {
		return nil
	}
	h[headerPolicy] = []string{fmt.Sprintf(`"key";q=%d;w=1`, l.most)}
	h[headerLimit] = []string{strconv.FormatInt(l.most, 10)}
	h[headerRemaining], h[headerReset] = []string{"0"}, []string{"1"}
	p := newProblem(codeRateLimited, fmt.Sprintf("This API key may make %d calls per second. Nothing was recorded; try again.", l.most))
	p.retryAfter = waitFor(l.bucket, l.now())
	return p
}

// allow counts a call and sets the RateLimit header. The bucket is full again within a second, so t
// is always 1.
func (l *keyLimit) allow(h http.Header) bool {
	now := l.now()
	allowed := l.bucket.AllowN(now, 1)
	remaining := int64(max(0, l.bucket.TokensAt(now)))
	h[headerRateLimit] = []string{`"key";r=` + strconv.FormatInt(remaining, 10) + ";t=1"}
	return allowed
}

// rateLimitHeader describes the header of every answer for the API's document. It is missing for a
// key without a limit.
func rateLimitHeader() map[string]*huma.Param {
	return map[string]*huma.Param{"RateLimit": {
		Description: "Calls left, such as `\"key\";r=99;t=1`: 99 calls are left now, and " +
			"all are available again within 1 second. Missing if the key has no limit.",
		Schema: &huma.Schema{Type: "string"},
	}}
}

// rateLimitedHeaders describes the additional headers of a 429 answer.
func rateLimitedHeaders() map[string]*huma.Param {
	number, text := &huma.Schema{Type: "integer"}, &huma.Schema{Type: "string"}
	return map[string]*huma.Param{
		"RateLimit-Policy":    {Description: "The key's limit, such as `\"key\";q=100;w=1`: 100 calls in a second.", Schema: text},
		"RateLimit-Limit":     {Description: "The maximum number of calls per second.", Schema: number},
		"RateLimit-Remaining": {Description: "Calls left now.", Schema: number},
		"RateLimit-Reset":     {Description: "Seconds until all calls are available again.", Schema: number},
	}
}
