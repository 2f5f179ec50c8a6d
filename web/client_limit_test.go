package web

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/labstack/echo/v4"

	"tollgate/models"
	"tollgate/models/modelstest"
)

func TestClientAddresses(t *testing.T) {
	for text, want := range map[string]string{
		"192.0.2.7": "192.0.2.7/32", "::ffff:192.0.2.7": "192.0.2.7/32",
		"2001:db8:1:2:3:4:5:6": "2001:db8:1:2::/64", "2001:db8:1:2::9": "2001:db8:1:2::/64", "fe80::1%eth0": "fe80::/64",
	} {
		if got := clientAddress(text).String(); got != want {
			t.Errorf("%s is counted as %s, want %s", text, got, want)
		}
	}
}

// requestFrom is a request of a client at an address.
func requestFrom(address string, headers ...string) echo.Context {
	e := echo.New()
	e.IPExtractor = echo.ExtractIPDirect()
	r := httptest.NewRequestWithContext(context.Background(), http.MethodGet, "/", nil)
	r.RemoteAddr = net.JoinHostPort(address, "1234")
	for _, name := range headers {
		r.Header.Set(name, "203.0.113.7")
	}
	return e.NewContext(r, httptest.NewRecorder())
}

// allowed counts how many requests in a row a client may send.
func (l *clientLimit) allowed(c echo.Context) (n int) {
	for l.take(c) == nil && n < 100*clientBurst {
		n++
	}
	return n
}

func TestClientLimit(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	var log lines
	l := newClientLimit(func() time.Time { return now }, slog.New(slog.NewTextHandler(&log, nil)))
	one, other := requestFrom("192.0.2.1"), requestFrom("192.0.2.2")
	want := func(what string, got, want int) {
		t.Helper()
		if got != want {
			t.Errorf("%s: %d requests are allowed, want %d", what, got, want)
		}
	}
	want("at first", l.allowed(one), clientBurst)
	want("another client", l.allowed(other), clientBurst)
	now = now.Add(time.Second)
	want("after a second", l.allowed(one), clientRate)
	for range 3 {
		l.giveBack(one)
	}
	want("with three given back", l.allowed(one), 3)
	want("another host of the same network", l.allowed(requestFrom("2001:db8::1")), clientBurst)
	want("another host of the same network", l.allowed(requestFrom("2001:db8::2")), 0)
	if p := asProblem(l.take(one)); p.Status != http.StatusTooManyRequests || p.retryAfter <= 0 || p.retryAfter > time.Second {
		t.Errorf("the status is %d, Retry-After %s", p.Status, p.retryAfter)
	}
	// It takes the same time until a client has its whole burst again, whether its address is stored
	// or not.
	for range 2 {
		now = now.Add(clientsTurn / 2)
		want("after half a generation", l.allowed(one), clientBurst/2)
	}

	// If there are more addresses than the limit counts, the others share one bucket.
	now = now.Add(10 * clientsTurn)
	for i := range maxClients {
		if err := l.take(requestFrom(fmt.Sprintf("10.1.%d.%d", i>>8, i&255))); err != nil {
			t.Fatal(err)
		}
	}
	want("beyond the most addresses", l.allowed(requestFrom("192.0.2.9")), sharedBy*clientBurst)
	want("another one beyond", l.allowed(requestFrom("192.0.2.10")), 0)
	want("one that is counted", l.allowed(requestFrom("10.1.0.0")), clientBurst-1)
	if n := len(l.current) + len(l.previous); n > 2*maxClients {
		t.Errorf("%d addresses are stored", n)
	}

	// A public address that claims to be a proxy is limited like any client, and causes no warning.
	now = now.Add(clientsTurn)
	want("a forged header", l.allowed(requestFrom("192.0.2.77", "X-Forwarded-For")), clientBurst)

	// A proxy that --trusted-proxies does not contain forwards the requests of many people. The warning
	// comes with the hundredth request, whether or not the requests were given back.
	for range undeclaredMany - 1 {
		if err := l.take(requestFrom("127.0.0.1", "X-Forwarded-For")); err != nil {
			t.Fatal(err)
		}
		l.giveBack(requestFrom("127.0.0.1", "X-Forwarded-For"))
	}
	if text := strings.Join(log.take(), ""); text != "" {
		t.Errorf("it logged %q", text)
	}
	if err := l.take(requestFrom("127.0.0.1", "X-Forwarded-For")); err != nil {
		t.Fatal(err)
	}
	if text := log.take(); len(text) != 1 || !strings.Contains(text[0], "--trusted-proxies") || !strings.Contains(text[0], "127.0.0.1") {
		t.Errorf("it logged %q", text)
	}
	want("an unknown proxy", l.allowed(requestFrom("127.0.0.1", "X-Forwarded-For")), sharedBy*clientBurst-1)
	if text := strings.Join(log.take(), ""); text != "" {
		t.Errorf("it logged again: %q", text)
	}
}

// spend uses up the limit of the tests' client.
func (f *fixture) spend() {
	f.web.strangers = newClientLimit(f.clock, f.web.log)
	for range 10 * clientBurst {
		if f.web.strangers.take(requestFrom("127.0.0.1")) != nil {
			return
		}
	}
	f.t.Fatal("the limit of a client allows everything")
}

// TestStrangersAreLimited sends requests that reach the database or the issuer without a session,
// from an address whose limit is used up. People who are signed in, API keys and Stripe are still
// accepted.
func TestStrangersAreLimited(t *testing.T) {
	f := withWebhooks(t, modelstest.SQLite(t), &oneSubscription{start: time.Now()})
	ada := f.signedIn("ada@example.com")
	ada.get("/usage")
	link := f.link("ada@example.com")
	f.post("/v1/check", `{"email": "ada@example.com"}`).want(t, http.StatusOK, nil)
	for name, test := range map[string]struct {
		method, path, cookie string
		form                 url.Values
	}{
		"sign-in":                  {http.MethodGet, "/sign-in", "", nil},
		"start of a sign-in":       {http.MethodPost, "/sign-in/slack", "", url.Values{"next": {"/usage"}}},
		"callback":                 {http.MethodGet, "/auth/callback?state=1&code=1", "", nil},
		"one-time link":            {http.MethodGet, link, "", nil},
		"use of a one-time link":   {http.MethodPost, link, "", url.Values{}},
		"page":                     {http.MethodGet, "/usage", "", nil},
		"page with another cookie": {http.MethodGet, "/usage", "invalid", nil},
		"form with another cookie": {http.MethodPost, "/usage/spend-limit", "invalid", url.Values{}},
	} {
		t.Run(name, func(t *testing.T) {
			f.t = t
			f.spend()
			b := f.browser()
			if test.cookie != "" {
				b.cookies["__Host-tollgate"] = test.cookie
			}
			p := b.send(test.method, test.path, test.form)
			if p.status != http.StatusTooManyRequests || p.header.Get("Retry-After") != "1" || !strings.Contains(p.body, "Too many requests") {
				t.Errorf("status %d, Retry-After %q, %s", p.status, p.header.Get("Retry-After"), p.main())
			}
			f.advance(time.Second / clientRate)
			if p := b.send(test.method, test.path, test.form); p.status == http.StatusTooManyRequests {
				t.Error("it is still refused after the time of one request")
			}
		})
	}
	f.t = t
	f.spend()
	if p := ada.get("/usage"); p.status != http.StatusOK {
		t.Errorf("a signed-in person got %d", p.status)
	}
	if p := f.browser().get("/docs"); p.status != http.StatusOK {
		t.Errorf("/docs got %d", p.status)
	}
	f.post("/v1/check", `{"email": "ada@example.com"}`).want(t, http.StatusOK, nil)
	f.post("/v1/check", `{}`, withKey("tg_live_typo")).want(t, http.StatusUnauthorized, nil) // the database is not queried
	a := f.post("/v1/check", `{"email": "ada@example.com"}`, withKey(models.NewKey()))
	a.want(t, http.StatusTooManyRequests, map[string]any{"code": "rate_limited"})
	if a.header.Get("Retry-After") != "1" {
		t.Errorf("Retry-After is %q", a.header.Get("Retry-After"))
	}
	// A valid key that this process has not seen yet is accepted.
	f.web.keys.storedAsked = time.Time{}
	f.post("/v1/check", `{"email": "ada@example.com"}`, withKey(f.newKey(models.ScopeCheck))).want(t, http.StatusOK, nil)
	unsigned := func(r *http.Request) { r.Header.Del("Stripe-Signature") }
	forged := func(r *http.Request) {
		r.Header.Set("Stripe-Signature", fmt.Sprintf("t=%d,v1=%064x", f.clock().Unix(), 1))
	}
	for _, change := range []change{unsigned, forged} {
		f.webhook(subscriptionEvent("evt_0"), f.clock(), change).want(t, http.StatusTooManyRequests, map[string]any{"code": "rate_limited"})
	}
	for i := range 2 * clientBurst { // Stripe may send any number
		f.webhook(fmt.Sprintf(`{"id": "evt_%d", "object": "event", "type": "charge.succeeded", "created": 1}`, i), f.clock()).
			want(t, http.StatusOK, nil)
	}
}

// While the database does not answer, no session or key can be looked up, so valid ones count against
// the client's limit. They get 503 as before the limit, and are accepted as soon as it answers.
func TestAnOutageIsNoRateLimit(t *testing.T) {
	f := newFixture(t, modelstest.SQLite(t))
	ada, key := f.signedIn("ada@example.com"), f.newKey(models.ScopeCheck)
	away, err := models.Open(t.Context(), modelstest.SQLite(t))
	must(t, err)
	must(t, away.Close())
	f.web.strangers = newClientLimit(f.clock, f.web.log)
	working := f.web.keys.db
	f.web.keys.db = away
	check := func() answer { return f.post("/v1/check", `{"email": "ada@example.com"}`, withKey(key)) }
	for range clientBurst + 20 {
		a := check()
		a.want(t, http.StatusServiceUnavailable, map[string]any{"code": "unavailable"})
		if a.header.Get("Retry-After") != "1" {
			t.Fatalf("Retry-After is %q", a.header.Get("Retry-After"))
		}
	}
	if p := ada.get("/usage"); p.status != http.StatusServiceUnavailable {
		t.Errorf("a session that was not looked up yet: %s", p.kind())
	}
	f.web.keys.db, f.web.keys.storedAsked = working, time.Time{}
	check().want(t, http.StatusOK, nil)
	f.advance(outageShows)
	f.spend()
	f.post("/v1/check", `{}`, withKey(models.NewKey())).want(t, http.StatusTooManyRequests, map[string]any{"code": "rate_limited"})
}

// TestClientsThatLeaveAreNoOutage sends requests whose clients leave before the lookup of a session ends.
func TestClientsThatLeaveAreNoOutage(t *testing.T) {
	f := newFixture(t, modelstest.SQLite(t))
	ada := f.signedIn("ada@example.com")
	f.web.strangers = newClientLimit(f.clock, f.web.log)
	get := func(ctx context.Context) int {
		r := httptest.NewRequestWithContext(ctx, http.MethodGet, "/usage", http.NoBody)
		for name, value := range ada.cookies {
			r.AddCookie(&http.Cookie{Name: name, Value: value})
		}
		w := httptest.NewRecorder()
		f.web.echo.ServeHTTP(w, r)
		return w.Code
	}
	left, leave := context.WithCancel(t.Context())
	leave()
	for range clientBurst {
		get(left)
	}
	if status := get(t.Context()); status != http.StatusTooManyRequests {
		t.Errorf("status %d", status)
	}
}

// TestASessionIsNotCounted opens more pages than a client without a session may.
func TestASessionIsNotCounted(t *testing.T) {
	f := newFixture(t, modelstest.SQLite(t))
	f.web.strangers = newClientLimit(f.clock, f.web.log)
	ada := f.signedIn("ada@example.com")
	for range clientBurst + 10 {
		if p := ada.get("/settings"); p.status != http.StatusOK {
			t.Fatalf("status %d", p.status)
		}
	}
	// A session that has ended is counted again.
	token := ada.session()
	ada.post("/sign-out", url.Values{})
	f.spend()
	ada.cookies["__Host-tollgate"] = token
	if p := ada.get("/settings"); p.status != http.StatusTooManyRequests {
		t.Errorf("an ended session got %d", p.status)
	}
}

// listen serves like the program, not like httptest, and returns the address.
func (f *fixture) listen() string {
	f.t.Helper()
	l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
	must(f.t, err)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- f.web.Serve(ctx, l) }()
	f.t.Cleanup(func() {
		stop()
		must(f.t, <-done)
	})
	return l.Addr().String()
}

// TestAWebhookIsRefusedBeforeItsBody announces a body and sends none of it.
func TestAWebhookIsRefusedBeforeItsBody(t *testing.T) {
	f := withWebhooks(t, modelstest.SQLite(t), &oneSubscription{start: time.Now()})
	address := f.listen()
	now := f.clock().Unix()
	sum := strings.Repeat("ab", 32)
	for name, signature := range map[string]string{
		"missing": "", "empty": "Stripe-Signature: ", "no time": "Stripe-Signature: v1=" + sum,
		"no signature":    fmt.Sprintf("Stripe-Signature: t=%d", now),
		"malformed":       "Stripe-Signature: nonsense",
		"short":           fmt.Sprintf("Stripe-Signature: t=%d,v1=abcd", now),
		"not hexadecimal": fmt.Sprintf("Stripe-Signature: t=%d,v1=%s", now, strings.Repeat("zz", 32)),
		"old":             fmt.Sprintf("Stripe-Signature: t=%d,v1=%s", now-301, sum),
		"ahead":           fmt.Sprintf("Stripe-Signature: t=%d,v1=%s", now+301, sum),
		"another scheme":  fmt.Sprintf("Stripe-Signature: t=%d,v0=%s", now, sum),
	} {
		size := map[bool]int{true: 100, false: 1_000_000}[name == "missing" || name == "old"]
		t.Run(name, func(t *testing.T) {
			conn, err := new(net.Dialer).DialContext(context.Background(), "tcp", address)
			must(t, err)
			defer func() { _ = conn.Close() }()
			must(t, conn.SetDeadline(time.Now().Add(10*time.Second)))
			if signature != "" {
				signature += "\r\n"
			}
			_, err = fmt.Fprintf(conn, "POST /stripe/webhook HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n%s\r\n", size, signature)
			must(t, err)
			response, err := http.ReadResponse(bufio.NewReader(conn), nil)
			must(t, err)
			defer response.Body.Close()
			answer, err := io.ReadAll(response.Body)
			must(t, err)
			if response.StatusCode != http.StatusBadRequest || !strings.Contains(string(answer), "bad_signature") {
				t.Errorf("status %d, %s", response.StatusCode, answer)
			}
		})
	}
}
