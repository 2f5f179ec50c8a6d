//go:build linux

package e2e_test

import (
	"bufio"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"html"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"tollgate/models/billing/stripetest"
)

// The settings' secrets, and what clients send, contain the word "hidden". The log never does.
const (
	leakStripeKey     = "sk_test_hiddenStripeKey"
	leakStripeSecret  = "whsec_hiddenWebhookSecret"
	leakSlackSecret   = "hiddenhiddenhiddenhiddenhidden00"
	leakBotToken      = "xoxb-hidden-bot-token"
	leakClientSecret  = "hidden-client-secret"
	leakMailPassword  = "hidden-mail-password"
	leakDatabase      = "hidden-database-password"
	leakCollectorKey  = "hidden-collector-key"
	leakWrongKey      = "tg_live_hiddenhiddenhiddenhiddenhidden"
	leakIdempotency   = "hidden-idempotency-key"
	leakEmail         = "hidden@notices.example"
	leakName          = "hidden" // the name of the person with this email
	leakCollectorText = "could not export traces"
)

// leakSite is a server whose settings and requests have marked secrets. The other servers that it calls
// repeat in their errors what they got.
type leakSite struct {
	t       *testing.T
	server  *server
	site    *site
	metrics string
	issuer  string
	browser *http.Client
	// secrets are secrets that this installation made.
	secrets []string
	revoked string
}

// No secret, token, body or query is in the log, at any level and in both formats, nor in the metrics or
// on the operator's pages.
func TestNoSecretIsLogged(t *testing.T) {
	t.Parallel()
	for i, kind := range kinds {
		t.Run(kind.name, func(t *testing.T) {
			t.Parallel()
			l := newLeakSite(t, kind.database(t), []string{"json", "text"}[i])
			l.signIn()
			l.deliverNotice()
			l.callAPI()
			l.openPages()
			l.sendSignedRequests()
			l.sendNoHTTP()
			shown := l.operatorPages()
			l.loseTables()
			l.site.stopAll()
			l.judge(shown)
		})
	}
}

func newLeakSite(t *testing.T, database, format string) *leakSite {
	t.Helper()
	database = strings.Replace(database, "postgres@", "postgres:"+leakDatabase+"@", 1)
	l := &leakSite{t: t, issuer: slackIssuer(t), site: &site{t: t, database: database, program: program(t)}}
	l.site.client = newClient(l.site.apiKey("leaks", "check,consume,read,manage"))
	t.Cleanup(l.site.client.http.CloseIdleConnections)
	l.revoked = l.site.apiKey("revoked", "read")
	list := l.site.command("apikey", "list")
	for line := range strings.Lines(list) {
		if id, _, _ := strings.Cut(line, " "); strings.Contains(line, "revoked") {
			l.site.command("apikey", "revoke", id)
		}
	}
	l.secrets = append(l.secrets, l.site.client.key, l.revoked)
	p := newServer(t, "server", database)
	p.log.all = true
	l.server, l.site.servers = p, []*server{p}
	l.metrics = net.JoinHostPort("127.0.0.1", strconv.Itoa(freePort(t)))
	p.args = append(p.args, "--log-level", "debug", "--log-format", format, "--metrics-listen", l.metrics, "--report-every", "1s",
		"--stripe-api-base", l.echo(), "--slack-api-base", l.echoSlack(), "--oidc-issuer", l.echoTokens())
	p.env = append(p.env, "STRIPE_SECRET_KEY="+leakStripeKey, "STRIPE_WEBHOOK_SECRET="+leakStripeSecret, "SLACK_CLIENT_ID="+inboxClient,
		"SLACK_CLIENT_SECRET="+leakClientSecret, "SLACK_SIGNING_SECRET="+leakSlackSecret, "SLACK_BOT_TOKEN="+leakBotToken,
		"TOLLGATE_SMTP=smtp://ada:"+leakMailPassword+"@"+l.echoMail()+"?from=tollgate@example.com",
		"OTEL_EXPORTER_OTLP_ENDPOINT="+l.echo(), "OTEL_EXPORTER_OTLP_HEADERS=api-key="+leakCollectorKey, "OTEL_BSP_SCHEDULE_DELAY=10")
	l.site.startAll()
	return l
}

// echo starts a server that refuses every request and repeats its header and body, as Stripe would
// describe an error.
func (l *leakSite) echo() string {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		content, _ := io.ReadAll(r.Body)
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusUnauthorized)
		_ = json.NewEncoder(w).Encode(body{"error": body{
			"type": "invalid_request_error", "message": fmt.Sprintf("invalid key %q of %s %q", r.Header, r.URL, content),
		}})
	}))
	l.t.Cleanup(s.Close)
	return s.URL
}

// echoSlack starts a stand-in for Slack that knows the team and refuses everything else.
func (l *leakSite) echoSlack() string {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer := body{"ok": false, "error": "invalid_auth " + r.FormValue("token") + r.Header.Get("Authorization")}
		if r.URL.Path == "/auth.test" {
			answer = body{"ok": true, "team_id": inboxTeam}
		}
		_ = json.NewEncoder(w).Encode(answer)
	}))
	l.t.Cleanup(s.Close)
	return s.URL
}

// echoTokens starts an issuer that refuses a code that begins with "refused" or "away", and repeats the
// request.
func (l *leakSite) echoTokens() string {
	var own string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		content, _ := io.ReadAll(r.Body)
		status := map[bool]int{true: http.StatusBadRequest}[strings.Contains(string(content), "code=refused")]
		if strings.Contains(string(content), "code=away") {
			status = http.StatusInternalServerError
		}
		if status != 0 {
			w.WriteHeader(status)
			_, _ = fmt.Fprintf(w, "%s %s", content, r.Header)
			return
		}
		forward, err := http.NewRequestWithContext(r.Context(), r.Method, l.issuer+r.URL.Path, strings.NewReader(string(content)))
		if err != nil {
			l.t.Error(err)
			return
		}
		forward.Header = r.Header
		forward.Host = strings.TrimPrefix(own, "http://")
		answer, err := http.DefaultClient.Do(forward)
		if err != nil {
			l.t.Error(err)
			return
		}
		defer answer.Body.Close()
		text, _ := io.ReadAll(answer.Body)
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, strings.ReplaceAll(string(text), l.issuer, own))
	}))
	l.t.Cleanup(s.Close)
	own = s.URL
	return own
}

// echoMail starts a mail server that repeats the password that it refuses.
func (l *leakSite) echoMail() string {
	listener, err := new(net.ListenConfig).Listen(l.t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { _ = listener.Close() })
	serve := func(c net.Conn) {
		defer func() { _ = c.Close() }()
		_, _ = io.WriteString(c, "220 localhost\r\n")
		lines := bufio.NewScanner(c)
		for lines.Scan() {
			answer := "250 ok\r\n"
			switch command, rest, _ := strings.Cut(lines.Text(), " "); command {
			case "EHLO":
				answer = "250-localhost\r\n250 AUTH PLAIN LOGIN\r\n"
			case "AUTH":
				sent := strings.TrimPrefix(rest, "PLAIN ")
				plain, _ := base64.StdEncoding.DecodeString(sent)
				answer = fmt.Sprintf("535 5.7.8 refused %s = %q\r\n", sent, plain)
			}
			if _, err := io.WriteString(c, answer); err != nil {
				return
			}
		}
	}
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			go serve(c)
		}
	}()
	return listener.Addr().String()
}

// request sends a request with headers, given as names and values, and returns the answer.
func (l *leakSite) request(c *http.Client, method, path, content string, header ...string) (status int, answer string, to *url.URL) {
	l.t.Helper()
	r, err := http.NewRequestWithContext(l.t.Context(), method, "http://"+l.server.addr+path, strings.NewReader(content))
	if err != nil {
		l.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	response, err := c.Do(r)
	if err != nil {
		l.t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		l.t.Fatal(err)
	}
	if to, err = response.Location(); err != nil {
		to = &url.URL{}
	}
	return response.StatusCode, string(text), to
}

var formHeader = []string{"Content-Type", "application/x-www-form-urlencoded"}

// signIn signs the person in by the issuer, after it refused a code, and by a one-time link, and makes
// the person an operator.
func (l *leakSite) signIn() {
	l.t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		l.t.Fatal(err)
	}
	l.browser = &http.Client{Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	l.t.Cleanup(l.browser.CloseIdleConnections)
	for _, code := range []string{"refused hidden", "away hidden", ""} {
		_, _, to := l.request(l.browser, http.MethodPost, "/sign-in/slack", "", formHeader...)
		asked := to.Query()
		if code == "" {
			code = leakName + "." + asked.Get("nonce")
		}
		back := url.Values{"code": {code}, "state": {asked.Get("state")}}
		l.secrets = append(l.secrets, asked.Get("state"), asked.Get("nonce"))
		_, _, to = l.request(l.browser, http.MethodGet, "/auth/callback?"+back.Encode(), "")
		if signedIn := to.Path == "/usage"; signedIn != strings.HasPrefix(code, leakName) {
			l.t.Fatalf("the code %q led to %q", code, to)
		}
	}
	l.site.command("user", "set", leakEmail, "--operator")
	link, err := url.Parse(l.site.command("sign-in", leakEmail, "--base-url", "http://"+l.server.addr))
	if err != nil {
		l.t.Fatal(err)
	}
	l.request(http.DefaultClient, http.MethodGet, link.Path, "")
	for range 2 {
		l.request(&http.Client{CheckRedirect: l.browser.CheckRedirect}, http.MethodPost, link.Path, "", formHeader...)
	}
	l.secrets = append(l.secrets, strings.TrimPrefix(link.Path, "/sign-in/"))
	for _, cookie := range jar.Cookies(&url.URL{Scheme: "http", Host: l.server.addr, Path: "/"}) {
		l.secrets = append(l.secrets, cookie.Value)
	}
}

// deliverNotice lets the person reach a threshold. Slack and the mail server refuse the message.
func (l *leakSite) deliverNotice() {
	l.t.Helper()
	form := url.Values{"url": {"https://webhooks.invalid/hidden"}, "token": {uuid.NewString()}}
	status, page, _ := l.request(l.browser, http.MethodPost, "/ops/webhooks", form.Encode(), formHeader...)
	secret := regexp.MustCompile(`whsec_[A-Za-z0-9+/=]{44}`).FindString(html.UnescapeString(page))
	if secret == "" {
		l.t.Fatalf("adding a webhook endpoint: %d", status)
	}
	l.secrets = append(l.secrets, secret)
	r := l.site.client.call(l.t.Context(), l.server.addr, http.MethodPost, "/v1/consume",
		body{"slack_team_id": inboxTeam, "slack_user_id": slackID(leakName), "quantity": 4, "idempotency_key": leakIdempotency})
	if d, err := r.decision(); err != nil || !d.Allowed {
		l.t.Fatalf("consume: %+v, %v", d, err)
	}
	db := l.site.open()
	defer func() { _ = db.Close() }()
	within(l.t, noticePatience, "Slack, the mail server and the endpoint get the notice", func() bool {
		var attempts, clean int
		if err := db.QueryRowContext(l.t.Context(), `SELECT COUNT(*), COUNT(CASE WHEN detail LIKE '%[secret]%' THEN 1 END)
			FROM notice_attempts WHERE outcome <> 'sending' AND detail NOT LIKE '%hidden%'`).Scan(&attempts, &clean); err != nil {
			l.t.Fatal(err)
		}
		return attempts >= 3 && clean >= 2 // Slack and the mail server repeat their secrets
	})
}

// callAPI makes each call with valid and invalid keys and bodies.
func (l *leakSite) callAPI() {
	l.t.Helper()
	for _, call := range [][2]string{
		{http.MethodPost, "/v1/check"}, {http.MethodPost, "/v1/consume"}, {http.MethodPost, "/v1/holds"},
		{http.MethodPost, "/v1/holds/hidden/settle"}, {http.MethodPost, "/v1/holds/hidden/release"}, {http.MethodPost, "/v1/events"},
		{http.MethodPost, "/v1/void"}, {http.MethodPost, "/v1/grants"}, {http.MethodPatch, "/v1/organizations/hidden"},
		{http.MethodPatch, "/v1/users/" + leakEmail}, {http.MethodGet, "/v1/usage/" + leakEmail},
		{http.MethodGet, "/v1/usage/" + leakEmail + "/events?cursor=hidden"}, {http.MethodGet, "/v1/usage/hidden/history?months=hidden"},
		{http.MethodGet, "/v1/organizations/hidden/members?cursor=hidden"}, {http.MethodDelete, "/v1/hidden"},
	} {
		for _, key := range []string{"Bearer " + l.site.client.key, "Bearer " + leakWrongKey, "Bearer " + l.revoked, "Basic hidden"} {
			for _, content := range []string{
				`{"email": "` + leakEmail + `", "idempotency_key": "hidden", "quantity": 1, "reason": "hidden"}`,
				`{"email": "hidden", "hidden": "hidden", "quantity": "hidden"}`, `{"email": "hidden`, `hidden`,
				`{"events": [{"email": "` + leakEmail + `", "quantity": 1, "idempotency_key": "hidden", "occurred_at": "hidden"}]}`,
			} {
				l.request(http.DefaultClient, call[0], call[1], content, "Authorization", key, "Content-Type", "application/json",
					"User-Agent", "hidden", "Referer", "hidden")
			}
		}
	}
}

// openPages opens pages and sends forms, with and without a session.
func (l *leakSite) openPages() {
	l.t.Helper()
	for _, c := range []*http.Client{http.DefaultClient, l.browser} {
		for _, path := range []string{
			"/?q=hidden", "/usage?period=hidden", "/usage/activity?cursor=hidden", "/hidden/hidden", "/static/hidden", "/sign-in?next=/hidden",
			"/sign-in/hidden", "/auth/callback?error=hidden+error&state=hidden", "/auth/callback?code=hidden&state=hidden",
			"/unsubscribe?token=hidden", "/ops/people?q=hidden", "/ops/people/hidden", "/org/members/hidden",
		} {
			l.request(c, http.MethodGet, path, "", "Accept", "text/html")
		}
		for _, path := range []string{
			"/sign-in/hidden", "/usage/spend-limit", "/plans/checkout", "/settings/notices", "/ops/keys", "/ops/webhooks", "/org/spend-limit",
			"/ops/people/hidden/grants", "/unsubscribe?token=hidden",
		} {
			for _, content := range []string{"amount=hidden&name=hidden&plan=hidden&url=hidden&scopes=hidden", "%zzhidden=%zz"} {
				l.request(c, http.MethodPost, path, content, formHeader...)
				l.request(c, http.MethodPost, path, content, append(formHeader, "Origin", "https://hidden.example", "Sec-Fetch-Site", "cross-site")...)
			}
		}
	}
	stolen := &http.Client{CheckRedirect: l.browser.CheckRedirect}
	l.request(stolen, http.MethodGet, "/usage", "", "Cookie", "session=hidden; tollgate_session=hidden")
}

// sendSignedRequests sends what Slack and Stripe send, with right and wrong signatures.
func (l *leakSite) sendSignedRequests() {
	l.t.Helper()
	now := time.Now()
	at := strconv.FormatInt(now.Unix(), 10)
	for _, secret := range []string{leakSlackSecret, "wrong"} {
		for path, contents := range map[string][]string{
			"/slack/commands": {"command=%2Fusage&text=hidden&team_id=" + inboxTeam + "&user_id=UHIDDEN&token=hidden", "hidden=%zz"},
			"/slack/events":   {`{"type": "event_callback", "team_id": "T1", "event": {"type": "app_home_opened", "user": "UHIDDEN"}}`, `{"hidden`},
		} {
			for _, content := range contents {
				mac := hmac.New(sha256.New, []byte(secret))
				mac.Write([]byte("v0:" + at + ":" + content))
				signature := "v0=" + hex.EncodeToString(mac.Sum(nil))
				l.secrets = append(l.secrets, signature)
				l.request(http.DefaultClient, http.MethodPost, path, content, "Content-Type", "application/x-www-form-urlencoded",
					"X-Slack-Request-Timestamp", at, "X-Slack-Signature", signature)
			}
		}
	}
	for _, secret := range []string{leakStripeSecret, "whsec_hiddenWrong"} {
		for i, content := range []string{
			`{"id": "evt_hidden1", "object": "event", "type": "hidden.type", "created": 1, "data": {"object": {"id": "hidden"}}}`,
			`{"id": "evt_hidden2", "object": "event", "type": "customer.subscription.created", "created": 1, "livemode": false,
				"data": {"object": {"id": "sub_hidden", "object": "subscription", "customer": "cus_1", "metadata": {"x": "hidden"}}}}`,
			`{"hidden`,
		} {
			signature := stripetest.Sign(secret, now.Add(-time.Duration(i)*time.Second), []byte(content))
			l.secrets = append(l.secrets, signature)
			l.request(http.DefaultClient, http.MethodPost, "/stripe/webhook", content, "Content-Type", "application/json",
				"Stripe-Signature", signature)
		}
	}
}

// sendNoHTTP sends what is not HTTP.
func (l *leakSite) sendNoHTTP() {
	l.t.Helper()
	for _, text := range []string{
		"GET /hidden HTTP/9.9\r\n\r\n", "hidden\r\n\r\n", "\x16\x03\x01hidden\r\n\r\n", "GET / HTTP/1.1\r\nhidden: \x00\r\n\r\n",
	} {
		c, err := new(net.Dialer).DialContext(l.t.Context(), "tcp", l.server.addr)
		if err != nil {
			l.t.Fatal(err)
		}
		_, _ = io.WriteString(c, text)
		_, _ = io.Copy(io.Discard, c) // until the server closes the connection
		_ = c.Close()
	}
}

// operatorPages returns the pages under /ops and the metrics. They show what Stripe answered, without
// the key.
func (l *leakSite) operatorPages() string {
	l.t.Helper()
	var all strings.Builder
	within(l.t, noticePatience, "the operator's page shows that Stripe refuses the key", func() bool {
		_, page, _ := l.request(l.browser, http.MethodGet, "/ops", "")
		all.Reset()
		all.WriteString(page)
		return strings.Contains(page, "[secret]")
	})
	_, people, _ := l.request(l.browser, http.MethodGet, "/ops/people", "")
	all.WriteString(people)
	r, err := http.NewRequestWithContext(l.t.Context(), http.MethodGet, "http://"+l.metrics+"/metrics", http.NoBody)
	if err != nil {
		l.t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		l.t.Fatal(err)
	}
	defer response.Body.Close()
	metrics, err := io.ReadAll(response.Body)
	if err != nil || !strings.Contains(string(metrics), "tollgate_http_request_seconds") {
		l.t.Fatalf("the metrics are %s, %v", metrics, err)
	}
	all.Write(metrics)
	return all.String()
}

// loseTables renames tables, so that statements fail, and makes calls.
func (l *leakSite) loseTables() {
	l.t.Helper()
	db := l.site.open()
	defer func() { _ = db.Close() }()
	for _, table := range []string{"usage_events", "usage_records", "users", "subscriptions"} {
		if _, err := db.ExecContext(context.WithoutCancel(l.t.Context()), "ALTER TABLE "+table+" RENAME TO away_"+table); err != nil {
			l.t.Fatal(err)
		}
	}
	contents := map[string]string{
		"/v1/consume": `{"email": "new` + leakEmail + `", "idempotency_key": "hidden-2"}`, "/v1/check": `{"email": "new` + leakEmail + `"}`,
		"/v1/grants": `{"email": "` + leakEmail + `", "quantity": 1, "reason": "hidden"}`,
	}
	for _, call := range [][2]string{
		{http.MethodPost, "/v1/consume"}, {http.MethodPost, "/v1/check"}, {http.MethodPost, "/v1/grants"},
		{http.MethodGet, "/v1/usage/" + leakEmail},
	} {
		status, _, _ := l.request(http.DefaultClient, call[0], call[1],
			contents[call[1]],
			"Authorization", "Bearer "+l.site.client.key, "Content-Type", "application/json")
		if status < http.StatusInternalServerError {
			l.t.Errorf("without the tables, %s was answered with %d", call[1], status)
		}
	}
	l.request(l.browser, http.MethodGet, "/usage?period=hidden", "")
}

// judge searches the log and what was shown to the operator.
func (l *leakSite) judge(shown string) {
	l.t.Helper()
	settings := []string{
		leakStripeKey, leakStripeSecret, leakSlackSecret, leakBotToken, leakClientSecret, leakMailPassword, leakDatabase, leakCollectorKey,
		base64.StdEncoding.EncodeToString([]byte("\x00ada\x00" + leakMailPassword)),
	}
	shown = html.UnescapeString(shown)
	for _, secret := range slices.Concat(settings, l.secrets) {
		if len(secret) < 6 {
			l.t.Errorf("%q is not a secret", secret)
		}
		if strings.Contains(shown, secret) {
			l.t.Errorf("an operator's page or the metrics have %q", secret)
		}
	}
	var leaks []string
	for line := range strings.Lines(string(l.server.log.text)) {
		if strings.Contains(strings.ToLower(line), "hidden") ||
			slices.ContainsFunc(slices.Concat(settings, l.secrets), func(s string) bool { return strings.Contains(line, s) }) {
			leaks = append(leaks, line)
		}
	}
	if len(leaks) > 0 {
		l.t.Errorf("%d lines of the log have a secret:\n%s", len(leaks), strings.Join(leaks[:min(len(leaks), 30)], ""))
	}
	for _, part := range []string{
		"a sign-in failed", "a webhook was refused", "a request was refused because Slack did not sign it", leakCollectorText,
		"/v1/consume", "[secret]",
	} {
		if l.server.log.count(part) == 0 {
			l.t.Errorf("the log does not have %q, so the test misses something", part)
		}
	}
}
