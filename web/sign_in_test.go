package web

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coreos/go-oidc/v3/oidc/oidctest"
	"golang.org/x/oauth2"

	"tollgate/models"
	"tollgate/models/modelstest"
)

// withIssuer runs a test with a real server and a real issuer, on each database.
func withIssuer(t *testing.T, test func(t *testing.T, f *fixture, i *testIssuer)) {
	t.Helper()
	modelstest.OnBoth(t, func(t *testing.T, address string) {
		i := newTestIssuer(t)
		test(t, newFixture(t, address, i.signsIn), i)
	})
}

func TestSignInThroughTheIssuer(t *testing.T) {
	withIssuer(t, func(t *testing.T, f *fixture, i *testIssuer) {
		b := f.browser()
		if p := b.get("/sign-in?next=/settings"); p.status != 200 || !strings.Contains(p.body, `value="/settings"`) {
			t.Errorf("the sign-in page: %d %s", p.status, p.main())
		}
		i.says["email"] = " Ada@Example.com"
		back := b.through(i, "/settings?from=issuer")
		for name, want := range map[string]string{
			"response_type": "code", "client_id": clientID, "scope": "openid profile email", "code_challenge_method": "S256",
		} {
			if got := i.asked.Get(name); got != want {
				t.Errorf("the issuer was asked with %s=%q, want %q", name, got, want)
			}
		}
		if len(i.asked.Get("state")) < 26 || len(i.asked.Get("nonce")) < 26 || i.asked.Get("state") == i.asked.Get("nonce") {
			t.Errorf("state %q and nonce %q", i.asked.Get("state"), i.asked.Get("nonce"))
		}
		if p := b.get(back); p.kind() != "See Other /settings?from=issuer" {
			t.Fatalf("back from the issuer: %s %s", p.kind(), p.main())
		}
		if p := b.get("/settings"); p.status != 200 || !strings.Contains(p.body, "ada@example.com") {
			t.Errorf("signed in: %d %s", p.status, p.main())
		}
		for name, value := range b.cookies {
			if strings.Contains(name, "sign-in") && strings.Contains(decode64(value), `"nonce":"`+i.asked.Get("nonce")) {
				t.Errorf("the cookie %s still has the nonce", name)
			}
		}
		var u models.User
		must(t, f.db.NewSelect().Model(&u).Where("email = 'ada@example.com'").Scan(t.Context()))
		if u.Name != "Ada Lovelace" || u.SlackUserID == nil || *u.SlackUserID != "U1" {
			t.Errorf("the user is %+v", u)
		}
		// From now on, the Slack identity determines the person. An email that is not in use becomes
		// their label.
		i.set(func() { i.says["email"] = "other@example.com" })
		again := f.browser()
		if p := again.get(again.through(i, "")); p.kind() != "See Other /usage" {
			t.Errorf("again: %s", p.kind())
		}
		for _, browser := range []*browser{again, b} {
			if p := browser.get("/settings"); !strings.Contains(p.main(), "Email other@example.com") {
				t.Errorf("with another email: %s", p.main())
			}
		}
	})
}

// Other issuers have no Slack identity: there, the verified email determines the person. Some of
// them have no PKCE, or accept the secret in the form.
func TestSignInThroughAnotherIssuer(t *testing.T) {
	withIssuer(t, func(t *testing.T, f *fixture, i *testIssuer) {
		i.pkce, i.post = false, true
		i.says = map[string]any{"sub": "7", "email": "Grace@example.com", "email_verified": true, "name": "Grace\u202e Hopper\n"}
		b := f.browser()
		back := b.through(i, "")
		if i.asked.Has("code_challenge") {
			t.Error("an issuer without PKCE was sent a challenge")
		}
		if p := b.get(back); p.kind() != "See Other /usage" {
			t.Fatalf("back from the issuer: %s %s", p.kind(), p.main())
		}
		var u models.User
		must(t, f.db.NewSelect().Model(&u).Where("email = 'grace@example.com'").Scan(t.Context()))
		if u.Name != "Grace Hopper" || u.WorkspaceID != nil {
			t.Errorf("the user is %+v", u)
		}
		if p := b.get("/settings"); !strings.Contains(p.body, "grace@example.com") {
			t.Errorf("signed in: %s", p.main())
		}
	})
}

// None of these creates a session: nothing is stored, and no cookie is set.
func TestAttacksOnTheCallback(t *testing.T) {
	lie := func(name string, value any) func(*testIssuer, *browser) string {
		return func(i *testIssuer, b *browser) string {
			i.lie = func(claims map[string]any) {
				if claims[name] = value; value == nil {
					delete(claims, name)
				}
			}
			return b.through(i, "")
		}
	}
	token := func(forge func(claims string) string) func(*testIssuer, *browser) string {
		return func(i *testIssuer, b *browser) string {
			i.token = forge
			return b.through(i, "")
		}
	}
	with := func(name, value string) func(*testIssuer, *browser) string {
		return func(i *testIssuer, b *browser) string {
			back, query, _ := strings.Cut(b.through(i, ""), "?")
			values, _ := url.ParseQuery(query)
			values.Set(name, value)
			return back + "?" + values.Encode()
		}
	}
	expired := time.Date(2026, 11, 23, 11, 59, 59, 0, time.UTC)
	attacks := map[string]func(*testIssuer, *browser) string{
		"another state":        with("state", "AAAAAAAAAAAAAAAAAAAAAAAAAA"),
		"an empty state":       with("state", ""),
		"an unknown code":      with("code", "AAAAAAAAAAAAAAAAAAAAAAAAAA"),
		"an empty code":        with("code", ""),
		"a refusal":            with("error", "access_denied"),
		"another nonce":        lie("nonce", "AAAAAAAAAAAAAAAAAAAAAAAAAA"),
		"an empty nonce":       lie("nonce", ""),
		"no nonce":             lie("nonce", nil),
		"another audience":     lie("aud", "another"),
		"audiences":            lie("aud", []string{clientID, "another"}),
		"another party":        lie("azp", "another"),
		"another issuer":       lie("iss", "https://slack.com"),
		"an expired token":     lie("exp", expired.Unix()),
		"no expiry":            lie("exp", nil),
		"unverified":           lie("email_verified", false),
		"unknown verification": lie("email_verified", nil),
		"false as text":        lie("email_verified", "false"),
		"another word":         lie("email_verified", "yes"),
		"a number":             lie("email_verified", 1),
		"no email":             lie("email", nil),
		"no address":           lie("email", "ada"),
		"no team":              lie("https://slack.com/team_id", nil),
		"no user":              lie("https://slack.com/user_id", ""),
		"an invalid team":      lie("https://slack.com/team_id", "T1' OR 1=1"),
		"another's key":        token(func(claims string) string { return oidctest.SignIDToken(otherKey(), "1", "RS256", claims) }),
		"an unknown key":       token(func(claims string) string { return oidctest.SignIDToken(otherKey(), "2", "RS256", claims) }),
		"no signature": token(func(claims string) string {
			return unsigned(`{"alg":"none"}`, claims, func(string) []byte { return nil })
		}),
		"the secret as key": token(func(claims string) string {
			return unsigned(`{"alg":"HS256"}`, claims, func(text string) []byte {
				mac := hmac.New(sha256.New, []byte(clientSecret))
				mac.Write([]byte(text))
				return mac.Sum(nil)
			})
		}),
		"changed claims": token(func(claims string) string {
			parts := strings.Split(oidctest.SignIDToken(issuerKey(), "1", "RS256", strings.Replace(claims, "ada", "eve", 1)), ".")
			forged := strings.Split(oidctest.SignIDToken(otherKey(), "1", "RS256", claims), ".")
			return parts[0] + "." + forged[1] + "." + parts[2]
		}),
		"no token": token(func(string) string { return "" }),
		"another browser": func(i *testIssuer, b *browser) string {
			return b.f.browser().through(i, "") // b has no attempt
		},
		"another browser's state": func(i *testIssuer, b *browser) string {
			b.through(i, "") // b has its own attempt
			return b.f.browser().through(i, "")
		},
		"an attempt without anything": func(i *testIssuer, b *browser) string {
			b.through(i, "")
			b.cookies["__Host-tollgate-sign-in-"] = "e30" // {}
			return "/auth/callback?code=1&state="
		},
		"an attempt without a nonce": func(i *testIssuer, b *browser) string {
			i.lie = func(claims map[string]any) { claims["nonce"] = "" }
			back, _ := url.Parse(b.through(i, ""))
			state := back.Query().Get("state")
			b.cookies["__Host-"+attemptName(state)] = encodeAttempt(`{"state":"` + state + `","verifier":"x"}`)
			i.pkce = false
			return back.RequestURI()
		},
		"another verifier": func(i *testIssuer, b *browser) string {
			back := b.through(i, "")
			state, nonce := i.asked.Get("state"), i.asked.Get("nonce")
			b.cookies["__Host-"+attemptName(state)] = encodeAttempt(`{"state":"` + state + `","nonce":"` + nonce + `","verifier":"x"}`)
			return back
		},
		"a used code": func(i *testIssuer, b *browser) string {
			other := b.f.browser()
			first, _ := url.Parse(other.through(i, ""))
			if p := other.get(first.RequestURI()); p.kind() != "See Other /usage" {
				b.f.t.Fatalf("the first use: %s", p.kind())
			}
			other.post("/sign-out", nil)
			return with("code", first.Query().Get("code"))(i, b)
		},
		"an expired code": func(i *testIssuer, b *browser) string {
			back := b.through(i, "")
			i.codes = map[string]url.Values{}
			return back
		},
	}
	unverified := map[string]bool{
		"unverified": true, "unknown verification": true, "false as text": true, "another word": true, "a number": true, "no email": true,
	}
	withIssuer(t, func(t *testing.T, f *fixture, i *testIssuer) {
		n := 0
		for name, attack := range attacks {
			t.Run(name, func(t *testing.T) {
				i.lie, i.token, i.pkce = nil, nil, true
				n++ // a new person each time, because a known person needs less
				i.says = slackSays("T1", fmt.Sprintf("U%d", n), fmt.Sprintf("ada%d@example.com", n))
				b := f.browser()
				p := b.get(attack(i, b))
				says := startAgain
				if unverified[name] {
					says = "has not verified your email address"
				}
				if p.status != http.StatusBadRequest || !strings.Contains(p.body, says) {
					t.Errorf("the answer is %s: %s", p.kind(), p.main())
				}
				if b.session() != "" || f.sessions() > 0 {
					t.Errorf("it created a session: %q, %d stored", b.session(), f.sessions())
				}
				if p := b.get("/settings"); p.kind() != "See Other /sign-in?next=%2Fsettings" {
					t.Errorf("then /settings: %s", p.kind())
				}
			})
		}
	})
}

// encodeAttempt encodes an attempt for a cookie.
func encodeAttempt(text string) string { return encode64([]byte(text)) }

func decode64(s string) string {
	text, _ := base64.RawURLEncoding.DecodeString(s)
	return string(text)
}

func TestAReplayedCallbackSignsInOnce(t *testing.T) {
	withIssuer(t, func(t *testing.T, f *fixture, i *testIssuer) {
		b := f.browser()
		back := b.through(i, "")
		name := "__Host-" + attemptName(i.asked.Get("state"))
		kept := b.cookies[name]
		if p := b.get(back); p.kind() != "See Other /usage" {
			t.Fatalf("the callback: %s", p.kind())
		}
		thief := f.browser()
		thief.cookies[name] = kept
		if p := thief.get(back); p.status != http.StatusBadRequest || thief.session() != "" {
			t.Errorf("with the attempt's cookie: %s, session %q", p.kind(), thief.session())
		}
		if n := f.sessions(); n != 1 {
			t.Errorf("%d sessions", n)
		}
	})
}

// TestACallbackOpenedAgain opens callbacks twice, and finishes two tabs in either order. A
// signed-in person is redirected to the destination of that tab; other people get an error.
func TestACallbackOpenedAgain(t *testing.T) {
	withIssuer(t, func(t *testing.T, f *fixture, i *testIssuer) {
		b := f.browser()
		first, second := b.through(i, "/settings"), b.through(i, "/plans")
		for _, step := range []struct{ tab, want string }{
			{second, "See Other /plans"}, {first, "See Other /settings"}, {second, "See Other /plans"}, {first, "See Other /settings"},
			{"/auth/callback?code=1&state=unknown", "See Other /usage"}, {"/auth/callback", "See Other /usage"},
			{"/auth/callback?error=access_denied&state=unknown", "See Other /usage"},
		} {
			if p := b.get(step.tab); p.kind() != step.want {
				t.Errorf("%s: %s, want %s", step.tab, p.kind(), step.want)
			}
		}
		if n := f.sessions(); n != 1 {
			t.Errorf("%d sessions", n)
		}
		// A canceled tab, and one whose code has expired.
		canceled := b.through(i, "/plans")
		if p := b.get(strings.Replace(canceled, "code=", "error=access_denied&code=", 1)); p.kind() != "See Other /plans" {
			t.Errorf("canceled: %s", p.kind())
		}
		expired := b.through(i, "/settings")
		i.set(func() { i.codes = map[string]url.Values{} })
		if p := b.get(expired); p.kind() != "See Other /settings" {
			t.Errorf("with an expired code: %s", p.kind())
		}
		// The issuer's claims are still checked: a forged answer is an error, even for a signed-in
		// person.
		forged := b.through(i, "")
		i.set(func() { i.lie = func(claims map[string]any) { claims["nonce"] = "AAAAAAAAAAAAAAAAAAAAAAAAAA" } })
		if p := b.get(forged); p.status != http.StatusBadRequest {
			t.Errorf("forged: %s", p.kind())
		}
		b.post("/sign-out", nil)
		for _, tab := range []string{first, second, canceled, expired, "/auth/callback?code=1&state=unknown"} {
			if p := b.get(tab); p.status != http.StatusBadRequest || b.session() != "" {
				t.Errorf("signed out, %s: %s", tab, p.kind())
			}
		}
	})
}

// TestManyUnfinishedSignIns starts sign-ins without finishing any. The browser's cookies stay few,
// and the last sign-in works.
func TestManyUnfinishedSignIns(t *testing.T) {
	i := newTestIssuer(t)
	f := newFixture(t, modelstest.SQLite(t), i.signsIn)
	b := f.browser()
	back := ""
	for range 30 {
		back = b.through(i, "/plans")
	}
	if n := len(b.cookies); n > 10 {
		t.Errorf("%d cookies", n)
	}
	if p := b.get(back); p.kind() != "See Other /plans" {
		t.Errorf("the last one: %s", p.kind())
	}
}

// roundTripper is a transport made of one function.
type roundTripper func(*http.Request) (*http.Response, error)

func (r roundTripper) RoundTrip(request *http.Request) (*http.Response, error) { return r(request) }

// TestACodeIsRedeemedOnce redeems one code twice at the same time, as a double click on a callback
// does. The issuer gets one request, even if the first client is gone before it answers.
func TestACodeIsRedeemedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked, answer := 0, make(chan struct{})
		i := &issuer{client: &http.Client{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
			asked++
			select {
			case <-answer:
				return nil, errors.New("the answer")
			case <-r.Context().Done():
				return nil, r.Context().Err()
			}
		})}}
		known := &knownIssuer{config: oauth2.Config{Endpoint: oauth2.Endpoint{AuthStyle: oauth2.AuthStyleInHeader}}}
		first, leave := context.WithCancel(t.Context())
		for _, ctx := range []context.Context{first, t.Context()} {
			go func() {
				if _, err := i.redeem(ctx, known, &attempt{State: "s", Nonce: "n"}, "code"); err == nil ||
					!strings.Contains(err.Error(), "the answer") {
					t.Errorf("redeem returned %v", err)
				}
			}()
			synctest.Wait()
		}
		leave()
		synctest.Wait()
		close(answer)
		synctest.Wait()
		if asked != 1 {
			t.Errorf("the issuer got %d requests", asked)
		}
	})
}

// TestAKnownIdentityNeedsNoEmail signs people in again after their issuer has no verified email for
// them.
func TestAKnownIdentityNeedsNoEmail(t *testing.T) {
	for name, identity := range map[string]map[string]any{
		"Slack": {"sub": "U1", "https://slack.com/team_id": "T1", "https://slack.com/user_id": "U1"}, "another issuer": {"sub": "7"},
	} {
		t.Run(name, func(t *testing.T) {
			withIssuer(t, func(t *testing.T, f *fixture, i *testIssuer) {
				say := func(more map[string]any) {
					i.set(func() {
						i.says = maps.Clone(identity)
						maps.Copy(i.says, more)
					})
				}
				say(map[string]any{})
				b := f.browser()
				if p := b.get(b.through(i, "")); p.status != http.StatusBadRequest || f.sessions() != 0 {
					t.Fatalf("unknown, without an email: %s", p.kind())
				}
				say(map[string]any{"email": "ada@example.com", "email_verified": true})
				if p := b.get(b.through(i, "")); p.kind() != "See Other /usage" {
					t.Fatalf("the first time: %s %s", p.kind(), p.main())
				}
				for what, more := range map[string]map[string]any{
					"no email":                   {},
					"an unverified email":        {"email": "ada@example.com", "email_verified": false},
					"no verification":            {"email": "ada@example.com"},
					"another's unverified email": {"email": "eve@example.com", "email_verified": "false"},
					"an invalid email":           {"email": "ada", "email_verified": true},
					"another email":              {"email": "lovelace@example.com", "email_verified": true},
				} {
					say(more)
					again := f.browser()
					if p := again.get(again.through(i, "")); p.kind() != "See Other /usage" {
						t.Errorf("%s: %s %s", what, p.kind(), p.main())
					} else if p := again.get("/settings"); !strings.Contains(p.main(), "Email ada@example.com") &&
						(name != "Slack" || !strings.Contains(p.main(), "Email lovelace@example.com")) { // a new verified Slack address becomes the person's
						t.Errorf("%s: signed in as another person: %s", what, p.main())
					}
				}
				if n, err := f.db.NewSelect().Model((*models.User)(nil)).Count(t.Context()); err != nil || n != 1 {
					t.Errorf("%d users, %v", n, err)
				}
			})
		})
	}
}

// Slack's tokens always have a team and a user, so a token without them is not from Slack.
func TestSlackNamesTeamAndUser(t *testing.T) {
	i := newTestIssuer(t)
	f := newFixture(t, modelstest.SQLite(t), i.signsIn)
	i.says = map[string]any{"sub": "7", "email": "grace@example.com", "email_verified": true}
	b := f.browser()
	back := b.through(i, "")
	f.web.issuer.Issuer = SlackIssuer
	if p := b.get(back); p.status != http.StatusBadRequest || f.sessions() != 0 {
		t.Errorf("without a team: %s, %d sessions", p.kind(), f.sessions())
	}
}

// TestAClaimedAddressGivesNothingAway makes attackers claim addresses of other people, by API calls
// and as Slack's verified address. They see none of their usage, and get no role.
func TestAClaimedAddressGivesNothingAway(t *testing.T) {
	withIssuer(t, func(t *testing.T, f *fixture, i *testIssuer) {
		acme := f.organization("Acme", "T1")
		admin, yes := models.Admin, true
		for email, change := range map[string]models.UserChange{
			"boss@example.com": {OrganizationID: &acme, Role: &admin}, "root@example.com": {Operator: &yes},
		} {
			_, err := models.SetUser(t.Context(), f.db, f.clock(), email, change)
			must(t, err)
		}
		call := func(team, user, email string) {
			t.Helper()
			f.post("/v1/check", fmt.Sprintf(`{"slack_team_id": %q, "slack_user_id": %q, "email": %q}`, team, user, email)).want(t, 200, nil)
		}
		call("T1", "U1", "ada@example.com")
		f.post("/v1/consume", `{"slack_team_id": "T1", "slack_user_id": "U1", "idempotency_key": "a", "quantity": 3}`).
			want(t, 200, map[string]any{"used": 3})
		victim := f.browser()
		victim.get(victim.through(i, ""))
		signIn := func(team, user, email string) *browser {
			t.Helper()
			i.set(func() { i.says = slackSays(team, user, email) })
			b := f.browser()
			if p := b.get(b.through(i, "")); p.kind() != "See Other /usage" {
				t.Errorf("%s of %s with %s: %s %s", user, team, email, p.kind(), p.main())
			}
			return b
		}
		for _, attack := range []struct{ team, user, claimed, verified, label string }{
			{"T2", "U9", "ada@example.com", "ada@example.com", "u9@t2.slack.invalid"},
			{"T1", "U8", "ada@example.com", "ada@example.com", "u8@t1.slack.invalid"},
			{"T2", "U7", "root@example.com", "evil7@example.com", "evil7@example.com"},
			{"T1", "U6", "boss@example.com", "evil6@example.com", "evil6@example.com"},
			{"T2", "U5", "boss@example.com", "boss@example.com", "u5@t2.slack.invalid"},
		} {
			call(attack.team, attack.user, attack.claimed)
			b := signIn(attack.team, attack.user, attack.verified)
			if p := b.get("/settings"); !strings.Contains(p.main(), "Email "+attack.label) {
				t.Errorf("%+v: signed in as %s", attack, p.main())
			}
			f.get("/v1/usage/"+attack.label).want(t, 200, map[string]any{"used": 0})
			if org, ops := b.get("/org").status, b.get("/ops").status; org == http.StatusOK || ops != http.StatusNotFound {
				t.Errorf("%+v: /org is %d and /ops %d", attack, org, ops)
			}
		}
		// Another team spends its own units, even with a key that the victim has used.
		f.post("/v1/consume",
			`{"slack_team_id": "T2", "slack_user_id": "U9", "email": "ada@example.com", "idempotency_key": "a", "quantity": 3}`).
			want(t, 200, map[string]any{"email": "u9@t2.slack.invalid", "used": 3, "replayed": false})
		f.get("/v1/usage/ada@example.com").want(t, 200, map[string]any{"used": 3})
		// No team can make its people operators.
		call("T2", "U4", "root@example.com")
		i.set(func() { i.says = slackSays("T2", "U4", "root@example.com") })
		b := f.browser()
		if p := b.get(b.through(i, "")); p.status != http.StatusForbidden || !strings.Contains(p.body, "has an operator account") ||
			b.session() != "" {
			t.Errorf("with the address of an operator: %s %s", p.kind(), p.main())
		}
		// The person whom the operator made an admin gets the role, through the verified address of the
		// organization's team.
		if p := signIn("T1", "U3", "boss@example.com").get("/org"); p.status != http.StatusOK {
			t.Errorf("the admin: %s %s", p.kind(), p.main())
		}
		if p := victim.get("/settings"); !strings.Contains(p.main(), "Email ada@example.com") {
			t.Errorf("the victim's session: %s", p.main())
		}
	})
}

// TestASessionFollowsItsPerson gives the address that ada gave up to another person.
func TestASessionFollowsItsPerson(t *testing.T) {
	withIssuer(t, func(t *testing.T, f *fixture, i *testIssuer) {
		ada := f.browser()
		ada.get(ada.through(i, ""))
		link := f.link("ada@example.com")
		f.post("/v1/check", `{"slack_team_id": "T1", "slack_user_id": "U1", "email": "ada.new@example.com"}`).
			want(t, 200, map[string]any{"email": "ada.new@example.com"})
		i.set(func() { i.says = slackSays("T1", "U2", "ada@example.com") })
		next := f.browser()
		next.get(next.through(i, ""))
		late := f.browser()
		late.follow(link)
		for name, b := range map[string]struct {
			browser *browser
			email   string
		}{"ada": {ada, "ada.new@example.com"}, "the next person": {next, "ada@example.com"}, "ada's link": {late, "ada.new@example.com"}} {
			if p := b.browser.get("/settings"); !strings.Contains(p.main(), "Email "+b.email) {
				t.Errorf("%s: %s, want %s", name, p.main(), b.email)
			}
		}
	})
}

// Visitors cannot change the settings, so the page does not name them.
func TestSignInPageNamesNoSettings(t *testing.T) {
	f := newFixture(t, modelstest.SQLite(t), func(o *Options) { o.SignIn.ClientID = clientID })
	b := f.browser()
	if p := b.get("/sign-in"); p.status != 200 || !strings.Contains(p.body, "is not available here") || strings.Contains(p.body, "SLACK_") ||
		strings.Contains(p.body, "tollgate sign-in") || strings.Contains(p.body, "<form") {
		t.Errorf("the page: %d %s", p.status, p.main())
	}
	if p := b.post("/sign-in/slack", nil); p.kind() != "See Other /sign-in" {
		t.Errorf("starting anyway: %s", p.kind())
	}
	if p := b.get("/auth/callback?code=1&state="); p.status != 400 || f.sessions() != 0 {
		t.Errorf("the callback: %s", p.kind())
	}
}

// A server starts without its issuer, says so, and uses it once it is reachable.
func TestAnUnreachableIssuer(t *testing.T) {
	i := newTestIssuer(t)
	address := freeAddress(t)
	f := newFixture(t, modelstest.SQLite(t), i.signsIn, func(o *Options) { o.SignIn.Issuer = "http://" + address })
	b := f.browser()
	p := b.get("/sign-in")
	if p.status != 503 || !strings.Contains(p.body, "cannot be reached") || p.header.Get("Retry-After") != "5" {
		t.Errorf("the page: %s %s", p.kind(), p.main())
	}
	if p := b.post("/sign-in/slack", nil); p.status != 503 || p.header.Get("Retry-After") != "5" ||
		!strings.Contains(p.main(), "cannot be reached") || strings.Contains(p.main(), "database") {
		t.Errorf("the start: %s %s", p.kind(), p.main())
	}
	i.start(address)
	if p := b.get("/sign-in"); p.status != 503 {
		t.Errorf("asked again at once: %s", p.kind())
	}
	f.advance(issuerRetry)
	if p := b.get("/sign-in"); p.status != 200 {
		t.Errorf("a while later: %s %s", p.kind(), p.main())
	}
	back := b.through(i, "")
	// Its configuration stays cached, but now it does not answer.
	i.server.Close()
	f.advance(issuerFresh)
	if p := b.get(back); p.status != 503 || b.session() != "" || p.header.Get("Retry-After") != "5" || strings.Contains(p.main(), "database") {
		t.Errorf("unreachable during a sign-in: %s %s", p.kind(), p.main())
	}
}

func TestInvalidIssuers(t *testing.T) {
	for issuer, good := range map[string]bool{
		"https://slack.com": true, "https://id.example.com/realms/a": true, "http://127.0.0.1:5556/dex": true, "http://[::1]:5556": true,
		"http://localhost":      true,
		"http://id.example.com": false, "http://10.0.0.1": false, "slack.com": false, "": false, "https://": false,
		"https://a@example.com":   false,
		"https://example.com?x=1": false, "ftp://example.com": false, "http://localhost.example.com": false,
		"http://127.0.0.1.example.com": false,
	} {
		if err := (&SignIn{Issuer: issuer}).check(); (err == nil) != good {
			t.Errorf("%q: %v", issuer, err)
		}
	}
}

func TestNextIsALocalPath(t *testing.T) {
	for next, want := range map[string]string{
		"/usage": "/usage", "/": "/", "/org/members?sort=-used&q=a%20b": "/org/members?sort=-used&q=a%20b", "/usage#months": "/usage",
		"/é": "/%C3%A9", "/a:b": "/a:b",
		"/a?next=https:%2F%2Fevil.example": "/a?next=https:%2F%2Fevil.example",
	} {
		if got := ownPath(next); got != want {
			t.Errorf("%q is %q, want %q", next, got, want)
		}
	}
	for _, next := range []string{
		"", "usage", "//evil.example", "///evil.example", "/\\evil.example", "\\/evil.example", "\\\\evil.example", "https://evil.example",
		"https:evil.example", "javascript:alert(1)", "data:text/html,x", "//evil.example/%2f..", "/a//evil.example", "/.//evil.example",
		"/..//evil.example", "/\t/evil.example", "/\n/evil.example",
		"/a\r\nSet-Cookie: x=1", "\t//evil.example", " //evil.example", " /usage", "/a\x00", "/a\x7f", "/%zz", "?x=1", "#x", "@evil.example",
		"evil.example/usage", "/" + strings.Repeat("a", 1000),
	} {
		if got := ownPath(next); got != "" {
			t.Errorf("%q is accepted as %q", next, got)
		}
	}
	f := newFixture(t, modelstest.SQLite(t))
	b := f.signedIn("ada@example.com")
	for _, next := range []string{"//evil.example", `/\evil.example`, "https://evil.example", "/a\r\nX: 1"} {
		if p := b.post(f.link("ada@example.com"), url.Values{"next": {next}}); p.kind() != "See Other /usage" {
			t.Errorf("the link led from %q to %s", next, p.kind())
		}
		if p := b.get("/sign-in?next=" + url.QueryEscape(next)); p.kind() != "See Other /usage" {
			t.Errorf("the page led from %q to %s", next, p.kind())
		}
	}
}
