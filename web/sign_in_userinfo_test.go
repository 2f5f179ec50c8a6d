package web

import (
	"crypto/rsa"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/coreos/go-oidc/v3/oidc/oidctest"

	"tollgate/models/modelstest"
)

// TestClaimsFromUserInfo returns some claims only in UserInfo, and email_verified as text.
func TestClaimsFromUserInfo(t *testing.T) {
	type claimSet = map[string]any
	const team, user = "https://slack.com/team_id", "https://slack.com/user_id"
	for name, test := range map[string]struct {
		token, info claimSet
		signsIn     string // empty: refused
	}{
		"all in UserInfo": {
			claimSet{"sub": "1"}, claimSet{"sub": "1", "email": "a@example.com", "email_verified": true, "name": "A"}, "a@example.com",
		},
		"verified as text in UserInfo": {
			claimSet{"sub": "1"}, claimSet{"sub": "1", "email": "a@example.com", "email_verified": "true"}, "a@example.com",
		},
		"verified as text in the token": {
			claimSet{"sub": "1", "email": "a@example.com", "email_verified": "true", "name": "A"}, nil, "a@example.com",
		},
		"verified as capitalized text": {
			claimSet{"sub": "1", "email": "a@example.com", "email_verified": "True", "name": "A"}, nil, "a@example.com",
		},
		"verified as capitalized text there": {
			claimSet{"sub": "1"}, claimSet{"sub": "1", "email": "a@example.com", "email_verified": "True"}, "a@example.com",
		},
		"null in UserInfo":     {claimSet{"sub": "1"}, claimSet{"sub": "1", "email": "a@example.com", "email_verified": nil}, ""},
		"a number in UserInfo": {claimSet{"sub": "1"}, claimSet{"sub": "1", "email": "a@example.com", "email_verified": 1}, ""},
		"only the verification": {
			claimSet{"sub": "1", "email": "a@example.com"}, claimSet{"sub": "1", "email_verified": true}, "a@example.com",
		},
		"the same email": {
			claimSet{"sub": "1", "email": "a@example.com"}, claimSet{"sub": "1", "email": "A@example.com", "email_verified": true}, "a@example.com",
		},
		"Slack's identity": {
			claimSet{"sub": "1"}, claimSet{"sub": "1", "email": "a@example.com", "email_verified": true, team: "T1", user: "U1"}, "a@example.com",
		},
		"nothing in UserInfo": {
			claimSet{"sub": "1", "email": "a@example.com", "email_verified": true}, claimSet{"sub": "1"}, "a@example.com",
		},
		"another verified email": {
			claimSet{"sub": "1", "email": "a@example.com"}, claimSet{"sub": "1", "email": "b@example.com", "email_verified": true}, "",
		},
		"unverified in the token": {
			claimSet{"sub": "1", "email": "a@example.com", "email_verified": false},
			claimSet{"sub": "1", "email": "a@example.com", "email_verified": true}, "",
		},
		"unverified in UserInfo": {
			claimSet{"sub": "1"}, claimSet{"sub": "1", "email": "a@example.com", "email_verified": "false"}, "",
		},
		"another subject":                 {claimSet{"sub": "1"}, claimSet{"sub": "2", "email": "a@example.com", "email_verified": true}, ""},
		"no subject in UserInfo":          {claimSet{"sub": "1"}, claimSet{"email": "a@example.com", "email_verified": true}, ""},
		"a verification without an email": {claimSet{"sub": "1"}, claimSet{"sub": "1", "email_verified": true}, ""},
		"an invalid subject":              {claimSet{"sub": "1\x00", "email": "a@example.com", "email_verified": true, "name": "A"}, nil, ""},
		"a subject that is too long": {
			claimSet{"sub": strings.Repeat("1", 256), "email": "a@example.com", "email_verified": true, "name": "A"}, nil, "",
		},
		// Each of these would fold into the address of another person.
		"a Kelvin sign": {
			claimSet{"sub": "1", "email": "quac\u212a@example.com", "email_verified": true, "name": "A"}, nil, "",
		},
		"a dotted capital I": {
			claimSet{"sub": "1", "email": "m\u0130ke@example.com", "email_verified": true, "name": "A"}, nil, "",
		},
		"an international domain": {
			claimSet{"sub": "1", "email": "A@Ex\u00e4mple.com", "email_verified": true, "name": "A"}, nil, "a@xn--exmple-cua.com",
		},
		"a team without a user, in UserInfo": {
			claimSet{"sub": "1"}, claimSet{"sub": "1", "email": "a@example.com", "email_verified": true, team: "T1"}, "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			withIssuer(t, func(t *testing.T, f *fixture, i *testIssuer) {
				i.says, i.info = test.token, test.info
				b := f.browser()
				p := b.get(b.through(i, ""))
				if test.signsIn == "" {
					if p.status != http.StatusBadRequest || f.sessions() != 0 {
						t.Errorf("%s, %d sessions", p.kind(), f.sessions())
					}
					return
				}
				if p.kind() != "See Other /usage" {
					t.Fatalf("%s %s", p.kind(), p.main())
				}
				if p := b.get("/settings"); !strings.Contains(p.main(), "Email "+test.signsIn) {
					t.Errorf("signed in: %s", p.main())
				}
			})
		})
	}
}

// TestSignedUserInfo reads UserInfo as a signed token, and refuses one that another key signed.
func TestSignedUserInfo(t *testing.T) {
	for status, key := range map[int]*rsa.PrivateKey{http.StatusSeeOther: issuerKey(), http.StatusServiceUnavailable: otherKey()} {
		i := newTestIssuer(t)
		f := newFixture(t, modelstest.SQLite(t), i.signsIn)
		i.says, i.info = map[string]any{"sub": "1"}, map[string]any{}
		info := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/jwt; charset=utf-8")
			_, _ = io.WriteString(w, oidctest.SignIDToken(key, "1", "RS256", `{"sub": "1", "email": "a@example.com", "email_verified": true}`))
		}))
		t.Cleanup(info.Close)
		b := f.browser()
		b.through(i, "") // the issuer's configuration is cached now
		f.web.issuer.known.provider = (&oidc.ProviderConfig{
			IssuerURL: i.server.URL, UserInfoURL: info.URL, JWKSURL: i.server.URL + "/keys",
		}).NewProvider(t.Context())
		if p := b.get(b.through(i, "")); p.status != status {
			t.Errorf("%s, want status %d: %s", p.kind(), status, p.main())
		}
	}
}

// TestUserInfoNamesNoSlackIdentity tries to take over a Slack user's account with claims from
// another issuer's UserInfo, which may come from a profile that people edit.
func TestUserInfoNamesNoSlackIdentity(t *testing.T) {
	for issuer, named := range map[string]bool{SlackIssuer: true, "http://127.0.0.1:5556/dex": true, "https://id.example.com": false} {
		said := claims{Subject: "1"}
		said.add(&claims{Subject: "1", SlackTeam: "T1", SlackUser: "U1"}, (&SignIn{Issuer: issuer}).namesSlack())
		if (said.SlackTeam == "T1" && said.SlackUser == "U1") != named {
			t.Errorf("%s: %+v", issuer, said)
		}
	}
}

// TestUnreachableUserInfo signs in a person whose ID token is enough, and asks others to try again.
func TestUnreachableUserInfo(t *testing.T) {
	i := newTestIssuer(t)
	f := newFixture(t, modelstest.SQLite(t), i.signsIn)
	away := httptest.NewServer(http.NotFoundHandler())
	away.Close()
	i.info = map[string]any{}
	b := f.browser()
	b.through(i, "") // the issuer's configuration is cached now
	f.web.issuer.known.provider = (&oidc.ProviderConfig{IssuerURL: i.server.URL, UserInfoURL: away.URL}).NewProvider(t.Context())
	i.says = map[string]any{"sub": "1", "email": "a@example.com", "email_verified": true}
	if p := b.get(b.through(i, "")); p.kind() != "See Other /usage" {
		t.Errorf("only the name is missing: %s %s", p.kind(), p.main())
	}
	i.set(func() { i.says = map[string]any{"sub": "2"} })
	b = f.browser()
	if p := b.get(b.through(i, "")); p.status != http.StatusServiceUnavailable || p.header.Get("Retry-After") == "" {
		t.Errorf("the email is missing: %s", p.kind())
	}
	failing := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusInternalServerError)
	}))
	t.Cleanup(failing.Close)
	f.web.issuer.known.provider = (&oidc.ProviderConfig{IssuerURL: i.server.URL, UserInfoURL: failing.URL}).NewProvider(t.Context())
	if p := b.get(b.through(i, "")); p.status != http.StatusServiceUnavailable {
		t.Errorf("UserInfo fails: %s %s", p.kind(), p.main())
	}
}
