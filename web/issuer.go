package web

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
	"golang.org/x/sync/singleflight"

	"tollgate/models"
)

// SlackIssuer is the OpenID issuer of all Slack workspaces.
// Source: https://slack.com/.well-known/openid-configuration
const SlackIssuer = "https://slack.com"

const (
	// issuerPatience is how long one request to the issuer may take.
	issuerPatience = 5 * time.Second
	// An issuer that could not be reached is asked again after issuerRetry, and what one said of itself is asked for
	// again after issuerFresh.
	issuerRetry = 5 * time.Second
	issuerFresh = 12 * time.Hour
)

// SignIn is who signs people in: an OpenID issuer, and what it knows this server by.
type SignIn struct {
	// Issuer is https://slack.com, or another one's address.
	Issuer string
	// ClientID and ClientSecret are the issuer's; without them only one-time links sign in.
	ClientID, ClientSecret string
}

// missing are the variables that have to be set before the issuer can be asked.
func (o *SignIn) missing() []string {
	var names []string
	if o.ClientID == "" {
		names = append(names, "SLACK_CLIENT_ID")
	}
	if o.ClientSecret == "" {
		names = append(names, "SLACK_CLIENT_SECRET")
	}
	return names
}

// check says whether the issuer can be one. Who can change what it answers can sign in as anybody, so it has to be asked
// by HTTPS, unless it is on this machine.
func (o *SignIn) check() error {
	u, err := url.Parse(o.Issuer)
	if err == nil && u.Host != "" && u.RawQuery == "" && u.Fragment == "" && u.User == nil {
		ip := net.ParseIP(u.Hostname())
		if u.Scheme == "https" || u.Scheme == "http" && (u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()) {
			return nil
		}
	}
	return fmt.Errorf("the OpenID issuer %q is not an address such as https://accounts.example.com", o.Issuer)
}

// issuer signs people in by OpenID Connect. It is asked about itself when somebody first wants to sign in, so that a
// server starts without it.
type issuer struct {
	SignIn
	redirect string // where it sends people back to
	now      func() time.Time
	client   *http.Client

	asking singleflight.Group
	mu     sync.Mutex
	known  *knownIssuer
	failed time.Time // when the last try did, if fault is set
	fault  error
}

// knownIssuer is what an issuer said of itself.
type knownIssuer struct {
	asked    time.Time
	verifier *oidc.IDTokenVerifier
	config   oauth2.Config
	pkce     bool
}

func newIssuer(o *Options) *issuer {
	return &issuer{SignIn: o.SignIn, redirect: o.BaseURL + callbackPath, now: o.Now, client: &http.Client{Timeout: issuerPatience}}
}

// name is the issuer's, as a button says it.
func (i *issuer) name() string {
	if i.Issuer == SlackIssuer {
		return "Slack"
	}
	u, err := url.Parse(i.Issuer)
	if err != nil { // check has seen to it
		return i.Issuer
	}
	return u.Host
}

// discover returns what the issuer says of itself, or an Error with models.CodeUnavailable.
func (i *issuer) discover(ctx context.Context) (*knownIssuer, error) {
	i.mu.Lock()
	known, failed, fault := i.known, i.failed, i.fault
	i.mu.Unlock()
	switch {
	case known != nil && i.now().Sub(known.asked) < issuerFresh:
		return known, nil
	case fault != nil && i.now().Sub(failed) < issuerRetry:
		return known, i.unavailable(known, fault)
	}
	v, err, _ := i.asking.Do("", func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), issuerPatience)
		defer cancel()
		fresh, err := i.ask(ctx)
		i.mu.Lock()
		defer i.mu.Unlock()
		if err != nil {
			i.failed, i.fault = i.now(), err
			return i.known, i.unavailable(i.known, err)
		}
		i.known, i.fault = fresh, nil
		return fresh, nil
	})
	return v.(*knownIssuer), err
}

// unavailable is nil as long as what the issuer once said can stand in.
func (i *issuer) unavailable(known *knownIssuer, cause error) error {
	if known != nil {
		return nil
	}
	return &models.Error{Code: models.CodeUnavailable, Detail: i.name() + " cannot be reached at the moment; try again.", RetryAfter: issuerRetry, Cause: cause}
}

func (i *issuer) ask(ctx context.Context) (*knownIssuer, error) {
	known := &knownIssuer{asked: i.now()}
	provider, err := oidc.NewProvider(oidc.ClientContext(ctx, i.client), i.Issuer)
	if err != nil {
		return nil, fmt.Errorf("ask the issuer %s about itself: %w", i.Issuer, err)
	}
	var says struct {
		PKCE  []string `json:"code_challenge_methods_supported"`
		Auths []string `json:"token_endpoint_auth_methods_supported"`
	}
	if err := provider.Claims(&says); err != nil {
		return nil, fmt.Errorf("ask the issuer %s about itself: %w", i.Issuer, err)
	}
	endpoint := provider.Endpoint()
	// Chosen here, as the library would find out by sending a code twice. Basic is what holds when an issuer does not say.
	endpoint.AuthStyle = oauth2.AuthStyleInHeader
	if len(says.Auths) > 0 && !slices.Contains(says.Auths, "client_secret_basic") {
		endpoint.AuthStyle = oauth2.AuthStyleInParams
	}
	known.verifier = provider.Verifier(&oidc.Config{ClientID: i.ClientID, Now: i.now})
	known.config = oauth2.Config{
		ClientID: i.ClientID, ClientSecret: i.ClientSecret, Endpoint: endpoint, RedirectURL: i.redirect,
		Scopes: []string{oidc.ScopeOpenID, oidc.ScopeProfile, oidc.ScopeEmail},
	}
	known.pkce = slices.Contains(says.PKCE, "S256")
	return known, nil
}

// attempt is a sign-in that somebody has begun, as their browser keeps it until they come back.
type attempt struct {
	State    string `json:"state"`
	Nonce    string `json:"nonce"`
	Verifier string `json:"verifier"`
	Next     string `json:"next"`
}

// address is where the person goes from here.
func (k *knownIssuer) address(a *attempt) string {
	options := []oauth2.AuthCodeOption{oidc.Nonce(a.Nonce)}
	if k.pkce {
		options = append(options, oauth2.S256ChallengeOption(a.Verifier))
	}
	return k.config.AuthCodeURL(a.State, options...)
}

// claims are what an issuer says of a person.
type claims struct {
	Email         string `json:"email"`
	EmailVerified bool   `json:"email_verified"`
	Name          string `json:"name"`
	AuthorizedFor string `json:"azp"`
	SlackTeam     string `json:"https://slack.com/team_id"`
	SlackUser     string `json:"https://slack.com/user_id"`
}

// errIssuerAway is that the issuer did not answer, for which the person can do nothing.
var errIssuerAway = errors.New("the issuer does not answer")

// redeem turns the code that a person came back with into what the issuer says of them. It returns errIssuerAway, or why
// what was said cannot be believed.
func (i *issuer) redeem(ctx context.Context, k *knownIssuer, a *attempt, code string) (*claims, error) {
	var options []oauth2.AuthCodeOption
	if k.pkce {
		options = append(options, oauth2.VerifierOption(a.Verifier))
	}
	token, err := k.config.Exchange(oidc.ClientContext(ctx, i.client), code, options...)
	if away := (*url.Error)(nil); errors.As(err, &away) {
		return nil, fmt.Errorf("%w: %w", errIssuerAway, err)
	} else if err != nil {
		return nil, fmt.Errorf("redeem the code: %w", err)
	}
	raw, ok := token.Extra("id_token").(string)
	if !ok {
		return nil, errors.New("the issuer sent no ID token")
	}
	verified, err := k.verifier.Verify(ctx, raw)
	if err != nil {
		return nil, fmt.Errorf("verify the ID token: %w", err)
	}
	// Slack sends an empty nonce when it was asked for none, so two empty ones are not the same.
	if a.Nonce == "" || subtle.ConstantTimeCompare([]byte(a.Nonce), []byte(verified.Nonce)) != 1 {
		return nil, errors.New("the ID token was made for another sign-in: its nonce differs")
	}
	var said claims
	if err := verified.Claims(&said); err != nil {
		return nil, fmt.Errorf("read the ID token: %w", err)
	}
	switch {
	case said.AuthorizedFor != i.ClientID && (said.AuthorizedFor != "" || len(verified.Audience) > 1):
		return nil, fmt.Errorf("the ID token was made for %q", said.AuthorizedFor)
	case !said.EmailVerified:
		return nil, errors.New("the issuer has not verified the email")
	case (said.SlackTeam == "") != (said.SlackUser == ""), i.Issuer == SlackIssuer && said.SlackTeam == "":
		return nil, errors.New("the ID token names no Slack team or no Slack user")
	}
	return &said, nil
}

// person links what the issuer said to somebody's usage and returns their email.
func (c *claims) person(ctx context.Context, db *models.DB, now time.Time) (string, error) {
	if c.SlackTeam == "" {
		return models.SignInByEmail(ctx, db, now, c.Email, c.Name)
	}
	return models.SignInBySlack(ctx, db, now, models.SlackIdentity{TeamID: c.SlackTeam, UserID: c.SlackUser}, c.Email, c.Name)
}
