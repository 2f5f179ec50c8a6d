package web

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc/oidctest"
	"github.com/go-jose/go-jose/v4"
)

const (
	clientID     = "123.456"
	clientSecret = "a+secret/of=it"
)

// issuerKey signs for all tests' issuers. otherKey is unknown to them.
var issuerKey, otherKey = sync.OnceValue(newRSAKey), sync.OnceValue(newRSAKey)

func newRSAKey() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
}

// testIssuer is an OpenID issuer on loopback that works like Slack's, and lies on request.
type testIssuer struct {
	t      *testing.T
	server *httptest.Server
	now    func() time.Time
	// pkce means that it advertises and requires PKCE. post means that it accepts the secret in
	// Slack's other way.
	pkce, post bool

	mu sync.Mutex
	// says are the claims about the person who signs in.
	says map[string]any
	// lie changes true claims.
	lie func(claims map[string]any)
	// token creates an ID token from claims; nil signs them correctly.
	token func(claims string) string
	// info is the answer of its UserInfo endpoint; nil if it has none.
	info  map[string]any
	codes map[string]url.Values // of the request that asked for each code
	asked url.Values            // by the last authorization request
}

// slackSays returns Slack's claims about a person.
func slackSays(team, user, email string) map[string]any {
	return map[string]any{
		"sub": user, "https://slack.com/team_id": team, "https://slack.com/user_id": user, "email": email, "email_verified": true,
		"name": "Ada Lovelace",
	}
}

func newTestIssuer(t *testing.T) *testIssuer {
	i := &testIssuer{t: t, pkce: true, says: slackSays("T1", "U1", "ada@example.com"), codes: map[string]url.Values{}}
	i.server = httptest.NewServer(i.handler())
	t.Cleanup(i.server.Close)
	return i
}

// signsIn makes the server of a fixture use the issuer.
func (i *testIssuer) signsIn(o *Options) {
	i.now = o.Now
	o.SignIn = SignIn{Issuer: i.server.URL, ClientID: clientID, ClientSecret: clientSecret}
}

func (i *testIssuer) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		about := map[string]any{
			"issuer": i.server.URL, "authorization_endpoint": i.server.URL + "/authorize", "token_endpoint": i.server.URL + "/token",
			"jwks_uri": i.server.URL + "/keys", "id_token_signing_alg_values_supported": []string{"RS256", "HS256", "none"},
		}
		if i.pkce {
			about["code_challenge_methods_supported"] = []string{"plain", "S256"}
		}
		if i.info != nil {
			about["userinfo_endpoint"] = i.server.URL + "/userinfo"
		}
		if i.post {
			about["token_endpoint_auth_methods_supported"] = []string{"client_secret_post"}
		}
		i.answer(w, about)
	})
	mux.HandleFunc("GET /keys", func(w http.ResponseWriter, _ *http.Request) {
		i.answer(w, jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: issuerKey().Public(), KeyID: "1", Algorithm: "RS256", Use: "sig"}}})
	})
	mux.HandleFunc("GET /authorize", i.authorize)
	mux.HandleFunc("POST /token", i.redeem)
	mux.HandleFunc("GET /userinfo", i.userInfo)
	return mux
}

// userInfo answers UserInfo for the access token that redeem returns.
func (i *testIssuer) userInfo(w http.ResponseWriter, r *http.Request) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if r.Header.Get("Authorization") != "Bearer xoxp-1" {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	i.answer(w, i.info)
}

func (i *testIssuer) answer(w http.ResponseWriter, body any) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(body); err != nil {
		i.t.Error(err)
	}
}

func (i *testIssuer) authorize(w http.ResponseWriter, r *http.Request) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.asked = r.URL.Query()
	code := rand.Text()
	i.codes[code] = i.asked
	back := i.asked.Get("redirect_uri") + "?" + url.Values{"code": {code}, "state": {i.asked.Get("state")}}.Encode()
	http.Redirect(w, r, back, http.StatusFound)
}

func (i *testIssuer) redeem(w http.ResponseWriter, r *http.Request) {
	i.mu.Lock()
	defer i.mu.Unlock()
	id, secret, basic := r.BasicAuth()
	if i.post {
		id, secret = r.PostFormValue("client_id"), r.PostFormValue("client_secret")
	} else {
		id, secret = unescape(id), unescape(secret)
	}
	asked, known := i.codes[r.PostFormValue("code")]
	delete(i.codes, r.PostFormValue("code"))
	challenge := sha256.Sum256([]byte(r.PostFormValue("code_verifier")))
	switch {
	case id != clientID || secret != clientSecret || basic == i.post:
		i.answer(w, map[string]any{"ok": false, "error": "bad_client_secret"})
		return
	// Slack returns errors with status 200.
	case !known, asked.Get("redirect_uri") != r.PostFormValue("redirect_uri"):
		i.answer(w, map[string]any{"ok": false, "error": "invalid_code"})
		return
	case i.pkce && asked.Get("code_challenge") != base64.RawURLEncoding.EncodeToString(challenge[:]):
		i.answer(w, map[string]any{"ok": false, "error": "invalid_code_verifier"})
		return
	}
	said := map[string]any{
		"iss": i.server.URL, "aud": clientID, "nonce": asked.Get("nonce"), "iat": i.now().Unix(), "exp": i.now().Add(5 * time.Minute).Unix(),
	}
	maps.Copy(said, i.says)
	if i.lie != nil {
		i.lie(said)
	}
	text, err := json.Marshal(said)
	if err != nil {
		i.t.Error(err)
	}
	token := oidctest.SignIDToken(issuerKey(), "1", "RS256", string(text))
	if i.token != nil {
		token = i.token(string(text))
	}
	i.answer(w, map[string]any{"ok": true, "access_token": "xoxp-1", "token_type": "Bearer", "id_token": token})
}

func unescape(s string) string {
	text, err := url.QueryUnescape(s)
	if err != nil {
		return s
	}
	return text
}

// set changes the issuer's claims or lies.
func (i *testIssuer) set(change func()) {
	i.mu.Lock()
	defer i.mu.Unlock()
	change()
}

// through begins a sign-in, goes to the issuer, and returns the path to which it sends the browser
// back.
func (b *browser) through(i *testIssuer, next string) string {
	t := b.f.t
	t.Helper()
	p := b.post("/sign-in/slack", url.Values{"next": {next}})
	address := p.header.Get("Location")
	if p.status != http.StatusSeeOther || !strings.HasPrefix(address, i.server.URL+"/authorize?") {
		t.Fatalf("the sign-in began with %d and %q: %s", p.status, address, p.main())
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, http.NoBody)
	must(t, err)
	response, err := http.DefaultTransport.RoundTrip(r)
	must(t, err)
	response.Body.Close()
	back, err := url.Parse(response.Header.Get("Location"))
	must(t, err)
	if got, want := back.Scheme+"://"+back.Host+back.Path, "https://tollgate.example.com/auth/callback"; got != want {
		t.Fatalf("the issuer sends people back to %s, want %s", got, want)
	}
	return back.RequestURI()
}

// unsigned returns a token with the test's own header, signed by sign.
func unsigned(header, claims string, sign func(text string) []byte) string {
	text := base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + base64.RawURLEncoding.EncodeToString([]byte(claims))
	return text + "." + base64.RawURLEncoding.EncodeToString(sign(text))
}

// freeAddress returns an unused loopback address.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	must(t, err)
	must(t, l.Close())
	return l.Addr().String()
}

// start serves an issuer at a free address.
func (i *testIssuer) start(address string) {
	l, err := new(net.ListenConfig).Listen(i.t.Context(), "tcp", address)
	must(i.t, err)
	i.server.Close()
	i.server = httptest.NewUnstartedServer(i.handler())
	must(i.t, i.server.Listener.Close())
	i.server.Listener = l
	i.server.Start()
	i.t.Cleanup(i.server.Close)
	if want := fmt.Sprintf("http://%s", address); i.server.URL != want {
		i.t.Fatalf("the issuer is at %s, want %s", i.server.URL, want)
	}
}
