package web

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/uptrace/bun"

	"tollgate/models"
	"tollgate/models/modelstest"
	"tollgate/views"
)

func withRateLimit(n int64) func(*Options) { return func(o *Options) { o.RateLimit = n } }

// limitedKey creates a key with its own limit.
func (f *fixture) limitedKey(limit int64) string {
	f.t.Helper()
	key, err := models.CreateLimitedAPIKey(context.Background(), f.db, f.clock(), "limited", models.Scopes, &limit)
	must(f.t, err)
	return key
}

func TestAKeysRateLimit(t *testing.T) {
	f := newFixture(t, modelstest.SQLite(t), withRateLimit(3))
	f.web.keys.limits.now = f.clock
	for left := 2; left >= 0; left-- {
		a := f.post("/v1/consume", fmt.Sprintf(ada, 1, fmt.Sprint("k", left)))
		a.want(t, http.StatusOK, nil)
		wantHeaders(t, a, map[string]string{
			"RateLimit": fmt.Sprintf(`"key";r=%d;t=1`, left), "RateLimit-Policy": "", "RateLimit-Remaining": "", "Retry-After": "",
		})
	}
	recorded := f.recorded()
	for _, path := range []string{"/v1/consume", "/v1/check", "/v1/holds", "/v1/events"} {
		a := f.post(path, fmt.Sprintf(ada, 1, "beyond"))
		a.want(t, http.StatusTooManyRequests, map[string]any{"code": "rate_limited", "type": "/docs#rate_limited"})
		wantHeaders(t, a, map[string]string{
			"RateLimit": `"key";r=0;t=1`, "RateLimit-Policy": `"key";q=3;w=1`,
			"RateLimit-Limit": "3", "RateLimit-Remaining": "0", "RateLimit-Reset": "1", "Retry-After": "1",
		})
	}
	if now := f.recorded(); now != recorded {
		t.Errorf("the refused calls recorded something: %d rows, want %d", now, recorded)
	}
	// Another key has its own count, whether it has its own limit, the default limit or none.
	f.post("/v1/check", `{"email": "ada@example.com"}`, withKey(f.newKey(models.ScopeCheck))).want(t, http.StatusOK, nil)
	own, none := f.limitedKey(1), f.limitedKey(0)
	f.post("/v1/check", `{"email": "ada@example.com"}`, withKey(own)).want(t, http.StatusOK, nil)
	f.post("/v1/check", `{"email": "ada@example.com"}`, withKey(own)).want(t, http.StatusTooManyRequests, nil)
	for range 10 {
		if a := f.post("/v1/check", `{"email": "ada@example.com"}`, withKey(none)); a.status != http.StatusOK || a.header.Get("RateLimit") != "" {
			t.Fatalf("a key without a limit got %d, %v", a.status, a.header)
		}
	}
	// A third of a second allows one call.
	f.advance(334 * time.Millisecond)
	f.post("/v1/consume", fmt.Sprintf(ada, 1, "later")).want(t, http.StatusOK, nil)
	f.post("/v1/consume", fmt.Sprintf(ada, 1, "too early")).want(t, http.StatusTooManyRequests, nil)
}

func wantHeaders(t *testing.T, a answer, want map[string]string) {
	t.Helper()
	for name, value := range want {
		if got := a.header.Get(name); got != value {
			t.Errorf("%s is %q, want %q", name, got, value)
		}
	}
}

// TestARateLimitSurvivesTheKeysCache reads the key from the database again, as a busy server does
// three times per second. The key does not get new calls from that. A change or removal of the
// limit applies immediately.
func TestARateLimitSurvivesTheKeysCache(t *testing.T) {
	f := newFixture(t, modelstest.SQLite(t))
	f.web.keys.limits.now = f.clock
	key := f.limitedKey(2)
	again := func() {
		_, err := f.web.keys.fetch(t.Context(), key)
		must(t, err)
	}
	check := func() answer { return f.post("/v1/check", `{"email": "ada@example.com"}`, withKey(key)) }
	check().want(t, http.StatusOK, nil)
	again()
	check().want(t, http.StatusOK, nil)
	again()
	check().want(t, http.StatusTooManyRequests, nil)
	set := func(limit *int64) {
		_, err := f.db.NewUpdate().Model((*models.APIKey)(nil)).Set("rate_limit = ?", limit).Where("name = 'limited'").Exec(t.Context())
		must(t, err)
		again()
	}
	set(new(int64(4)))
	check().want(t, http.StatusTooManyRequests, nil) // calls that were counted stay counted
	f.advance(250 * time.Millisecond)
	check().want(t, http.StatusOK, nil)
	check().want(t, http.StatusTooManyRequests, nil)
	set(nil)
	check().want(t, http.StatusOK, nil)
	set(new(int64(1)))
	must(t, f.db.InTx(t.Context(), func(ctx context.Context, tx bun.Tx) error {
		keys, err := models.ListAPIKeys(ctx, tx)
		if err != nil {
			return err
		}
		return models.RevokeAPIKey(ctx, tx, f.clock(), keys[len(keys)-1].ID)
	}))
	again()
	left := 0
	f.web.keys.limits.known.Range(func(any, any) bool { left++; return true })
	if left != 0 {
		t.Errorf("%d limits of revoked keys are left", left)
	}
}

// TestARateLimitCountsExactly sends many calls at the same moment. Only as many as the limit are
// allowed.
func TestARateLimitCountsExactly(t *testing.T) {
	f := newFixture(t, modelstest.SQLite(t), withRateLimit(20))
	f.web.keys.limits.now = f.clock
	var mu sync.Mutex
	statuses := map[int]int{}
	var all sync.WaitGroup
	for i := range 60 {
		all.Go(func() {
			a := f.post("/v1/check", fmt.Sprintf(`{"email": "p%d@example.com"}`, i))
			mu.Lock()
			defer mu.Unlock()
			statuses[a.status]++
		})
	}
	all.Wait()
	if statuses[http.StatusOK] != 20 || statuses[http.StatusTooManyRequests] != 40 {
		t.Errorf("60 calls at once with a limit of 20 got %v", statuses)
	}
}

// TestAKeysLimitIsSetOnOperations creates a key with a limit on /ops. The page shows the limit, and
// the key has it.
func TestAKeysLimitIsSetOnOperations(t *testing.T) {
	f := newFixture(t, modelstest.SQLite(t))
	f.web.keys.limits.now = f.clock
	f.person("otto@example.com", "", models.Member, true)
	otto := f.signedIn("otto@example.com")
	form := otto.get("/ops").form(views.PathKeys)
	form.Set("name", "Slow reports")
	form.Set("rate_limit", "2")
	key := otto.post(views.PathKeys, form).newKey()
	if text := otto.get("/ops").main(); !strings.Contains(text, "2/s") {
		t.Errorf("the page does not show the limit: %s", text)
	}
	for _, want := range []int{http.StatusOK, http.StatusOK, http.StatusTooManyRequests} {
		f.post("/v1/check", `{"email": "ada@example.com"}`, withKey(key)).want(t, want, nil)
	}
}

func BenchmarkRateLimit(b *testing.B) {
	l := (&keyLimits{normal: 1_000_000, now: time.Now}).of(&models.APIKey{})
	h := http.Header{}
	b.ReportAllocs()
	for range b.N {
		l.allow(h)
	}
}
