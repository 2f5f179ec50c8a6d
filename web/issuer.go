package web

import (
	"cmp"
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
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
	// issuerPatience is the timeout of one request to the issuer.
	issuerPatience = 5 * time.Second
	// An unreachable issuer is asked again after issuerRetry. An issuer's configuration is read again
	// after issuerFresh.
	issuerRetry = 5 * time.Second
	issuerFresh = 12 * time.Hour
	// maxUserInfo is the maximum number of bytes read from a UserInfo answer.
	maxUserInfo = 1 << 20
)

// SignIn configures sign-in: an OpenID issuer, and this server's credentials there.
type SignIn struct {
	// Issuer is https://slack.com, or the address of another issuer.
	Issuer string
	// ClientID and ClientSecret come from the issuer. Without them, people can only sign in with
	// one-time links.
	ClientID, ClientSecret string
}

// Configured reports whether people can sign in through the issuer.
func (o *SignIn) Configured() bool { return o.ClientID != "" && o.ClientSecret != "" }

// withSlack reports whether people can sign in with Slack, which links their Slack identity.
func (o *SignIn) withSlack() bool { return o.Configured() && o.Issuer == SlackIssuer }

// Mode returns how people sign in: the issuer's address, or "one-time links only".
func (o *SignIn) Mode() string {
	if o.Configured() {
		return o.Issuer
	}
	return "one-time links only"
}

// check returns an error if the issuer's address is not acceptable. Anyone who can change the
// issuer's answers can sign in as any person, so the address must be HTTPS, unless it is on this
// machine.
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

// issuer signs people in by OpenID Connect. Its configuration is read when a person first wants to
// sign in, so a server starts without it.
type issuer struct {
	SignIn
	redirect string // where the issuer redirects people back to
	now      func() time.Time
	log      *slog.Logger
	client   *http.Client

	asking    singleflight.Group
	redeeming singleflight.Group
	mu        sync.Mutex
	known     *knownIssuer
	failed    time.Time // when the last try failed, if lastErr is set
	lastErr   error
}

// knownIssuer is the configuration of an issuer.
type knownIssuer struct {
	asked    time.Time
	provider *oidc.Provider
	verifier *oidc.IDTokenVerifier
	config   oauth2.Config
	pkce     bool
}

func newIssuer(o *Options) *issuer {
	return &issuer{
		SignIn: o.SignIn, redirect: o.BaseURL + callbackPath, now: o.Now, log: o.Log,
		client: &http.Client{Timeout: issuerPatience},
	}
}

// name returns the issuer's name for a button.
func (i *issuer) name() string {
	if i.Issuer == SlackIssuer {
		return "Slack"
	}
	u, err := url.Parse(i.Issuer)
	if err != nil { // cannot happen: check accepted it
		return i.Issuer
	}
	return u.Host
}

// discover returns the issuer's configuration, or an Error with models.CodeUnavailable.
func (i *issuer) discover(ctx context.Context) (*knownIssuer, error) {
	i.mu.Lock()
	known, failed, lastErr := i.known, i.failed, i.lastErr
	i.mu.Unlock()
	switch {
	case known != nil && i.now().Sub(known.asked) < issuerFresh:
		return known, nil
	case lastErr != nil && i.now().Sub(failed) < issuerRetry:
		return known, i.unavailable(known, lastErr)
	}
	v, err, _ := i.asking.Do("", func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), issuerPatience)
		defer cancel()
		fresh, err := i.ask(ctx)
		i.mu.Lock()
		defer i.mu.Unlock()
		if err != nil {
			i.failed, i.lastErr = i.now(), err
			return i.known, i.unavailable(i.known, err)
		}
		i.known, i.lastErr = fresh, nil
		return fresh, nil
	})
	return v.(*knownIssuer), err
}

// unavailable returns an error unless an earlier configuration can be used instead.
func (i *issuer) unavailable(known *knownIssuer, cause error) error {
	if known != nil {
		return nil
	}
	return &models.Error{
		Code: models.CodeUnavailable, Detail: i.name() + " cannot be reached at the moment; try again.",
		RetryAfter: issuerRetry, Cause: cause,
	}
}

func (i *issuer) ask(ctx context.Context) (*knownIssuer, error) {
	known := &knownIssuer{asked: i.now()}
	provider, err := oidc.NewProvider(oidc.ClientContext(ctx, i.client), i.Issuer)
	if err != nil {
		return nil, fmt.Errorf("read the configuration of the issuer %q: %w", i.Issuer, err)
	}
	var says struct {
		PKCE  []string `json:"code_challenge_methods_supported"`
		Auths []string `json:"token_endpoint_auth_methods_supported"`
	}
	if err := provider.Claims(&says); err != nil {
		return nil, fmt.Errorf("read the configuration of the issuer %q: %w", i.Issuer, err)
	}
	known.provider = provider
	endpoint := provider.Endpoint()
	// The style is chosen here, because the library would find it out by sending a code twice. Basic
	// is the default if an issuer does not say.
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

// attempt is a sign-in that a person has begun. Their browser stores it until they come back.
type attempt struct {
	State    string `json:"state"`
	Nonce    string `json:"nonce"`
	Verifier string `json:"verifier"`
	Next     string `json:"next"`
}

// address returns where the person is redirected to sign in.
func (k *knownIssuer) address(a *attempt) string {
	options := []oauth2.AuthCodeOption{oidc.Nonce(a.Nonce)}
	if k.pkce {
		options = append(options, oauth2.S256ChallengeOption(a.Verifier))
	}
	return k.config.AuthCodeURL(a.State, options...)
}

// claims are what an issuer says about a person, in the ID token and in the answer of its UserInfo
// endpoint.
type claims struct {
	Subject       string   `json:"sub"`
	Email         string   `json:"email"`
	EmailVerified *boolean `json:"email_verified"`
	Name          string   `json:"name"`
	AuthorizedFor string   `json:"azp"`
	SlackTeam     string   `json:"https://slack.com/team_id"`
	SlackUser     string   `json:"https://slack.com/user_id"`

	noUserInfo error // why UserInfo did not answer; nil if it did or was not asked
}

// boolean is a JSON boolean. Some issuers, such as AWS Cognito, send it as a string.
type boolean bool

// UnmarshalJSON parses true, false, "true" and "false". Anything else is false.
func (b *boolean) UnmarshalJSON(text []byte) error {
	*b = boolean(strings.EqualFold(strings.Trim(string(text), `"`), "true"))
	return nil
}

// verifiedEmail returns the email if the issuer has verified it, otherwise an empty string.
func (c *claims) verifiedEmail() string {
	if c.EmailVerified == nil || !*c.EmailVerified {
		return ""
	}
	return c.Email
}

// complete reports whether no claim is missing that UserInfo may contain.
func (c *claims) complete(slack bool) bool {
	return c.Email != "" && c.EmailVerified != nil && c.Name != "" && (!slack || c.SlackTeam != "" && c.SlackUser != "")
}

// add fills in missing claims. A verification counts only for the email that it came with. A Slack
// identity counts only if slack is true: elsewhere, it could come from a profile that people edit.
// Source: https://openid.net/specs/openid-connect-core-1_0.html#ClaimSources
func (c *claims) add(more *claims, slack bool) {
	if c.Email == "" || c.EmailVerified == nil && (more.Email == "" || strings.EqualFold(more.Email, c.Email)) {
		c.Email, c.EmailVerified = cmp.Or(c.Email, more.Email), more.EmailVerified
	}
	c.Name = cmp.Or(c.Name, more.Name)
	if slack && c.SlackTeam == "" && c.SlackUser == "" {
		c.SlackTeam, c.SlackUser = more.SlackTeam, more.SlackUser
	}
}

var (
	// errIssuerAway means that the issuer does not answer. The person cannot do anything about it.
	errIssuerAway = errors.New("the issuer does not answer")
	// errCodeRefused means that the issuer does not accept the code: it was used, has expired or is
	// not the issuer's.
	errCodeRefused = errors.New("the issuer refused the code")
)

// redeem exchanges the code that a person came back with for the issuer's claims. It returns
// errIssuerAway, errCodeRefused, or an error that says why the claims cannot be trusted. An issuer
// accepts a code once, so two simultaneous requests of one browser, as after a double click or a
// quick reload, share the answer.
func (i *issuer) redeem(ctx context.Context, k *knownIssuer, a *attempt, code string) (*claims, error) {
	v, err, _ := i.redeeming.Do(strings.Join([]string{a.State, a.Nonce, a.Verifier, code}, " "), func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*issuerPatience)
		defer cancel()
		return i.exchange(ctx, k, a, code)
	})
	said, _ := v.(*claims)
	return said, err
}

func (i *issuer) exchange(ctx context.Context, k *knownIssuer, a *attempt, code string) (*claims, error) {
	ctx = oidc.ClientContext(ctx, i.client)
	var options []oauth2.AuthCodeOption
	if k.pkce {
		options = append(options, oauth2.VerifierOption(a.Verifier))
	}
	token, err := k.config.Exchange(ctx, code, options...)
	if isAway(err) {
		return nil, fmt.Errorf("%w: %w", errIssuerAway, withoutResponse(err))
	} else if err != nil {
		return nil, fmt.Errorf("%w: %w", errCodeRefused, withoutResponse(err))
	}
	raw, ok := token.Extra("id_token").(string)
	if !ok {
		return nil, fmt.Errorf("%w: it sent no ID token", errCodeRefused)
	}
	verified, err := k.verifier.Verify(ctx, raw)
	if err != nil {
		return nil, fmt.Errorf("verify the ID token: %w", err)
	}
	// Slack sends an empty nonce if the request had none, so an empty nonce never matches.
	if a.Nonce == "" || subtle.ConstantTimeCompare([]byte(a.Nonce), []byte(verified.Nonce)) != 1 {
		return nil, errors.New("the ID token was made for another sign-in: its nonce differs")
	}
	var said claims
	if err := verified.Claims(&said); err != nil {
		return nil, fmt.Errorf("read the ID token: %w", err)
	}
	if said.AuthorizedFor != i.ClientID && (said.AuthorizedFor != "" || len(verified.Audience) > 1) {
		return nil, fmt.Errorf("the ID token was made for %q", said.AuthorizedFor)
	}
	slack := i.Issuer == SlackIssuer
	if !said.complete(slack) && k.provider.UserInfoEndpoint() != "" {
		said.noUserInfo, err = i.askUserInfo(ctx, k, token, &said)
		if err != nil {
			return nil, err
		}
	}
	if (said.SlackTeam == "") != (said.SlackUser == "") || slack && said.SlackTeam == "" {
		return nil, errors.New("the issuer named no Slack team or no Slack user")
	}
	return &said, nil
}

// askUserInfo adds the claims of the UserInfo endpoint. They are about the same person only if the
// subject is the same. Without an answer, the ID token may still be enough; missing says why there
// was none.
func (i *issuer) askUserInfo(ctx context.Context, k *knownIssuer, token *oauth2.Token, said *claims) (missing, err error) {
	more, err := i.userInfo(ctx, k, token)
	switch {
	case err != nil:
		return fmt.Errorf("ask UserInfo: %w", err), nil
	case more.Subject != said.Subject:
		return nil, errors.New("UserInfo is about another subject than the ID token")
	}
	said.add(more, i.namesSlack())
	return nil, nil
}

// userInfo reads the claims of the UserInfo endpoint. The OpenID library would refuse an answer
// whose email_verified is null or "True".
func (i *issuer) userInfo(ctx context.Context, k *knownIssuer, token *oauth2.Token) (*claims, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, k.provider.UserInfoEndpoint(), nil)
	if err != nil {
		return nil, err
	}
	token.SetAuthHeader(request)
	response, err := i.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the status is %q", response.Status)
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, maxUserInfo))
	if err != nil {
		return nil, err
	}
	said := &claims{}
	if kind, _, _ := mime.ParseMediaType(response.Header.Get("Content-Type")); kind != "application/jwt" {
		return said, json.Unmarshal(body, said)
	}
	// A signed answer has no expiry, and often no audience.
	lenient := &oidc.Config{SkipClientIDCheck: true, SkipExpiryCheck: true, SkipIssuerCheck: true}
	signed, err := k.provider.Verifier(lenient).Verify(ctx, string(body))
	if err != nil {
		return nil, err
	}
	return said, signed.Claims(said)
}

// namesSlack reports whether the issuer's UserInfo may contain a Slack identity: Slack's may, and
// so may that of a test issuer on this machine, the only kind for which check allows http.
func (o *SignIn) namesSlack() bool {
	return o.Issuer == SlackIssuer || strings.HasPrefix(o.Issuer, "http://")
}

// isAway reports whether an error means that the issuer was not reached or has an internal error.
func isAway(err error) bool {
	var unreached *url.Error
	var answered *oauth2.RetrieveError
	return errors.As(err, &unreached) || errors.As(err, &answered) && answered.Response.StatusCode >= http.StatusInternalServerError
}

// withoutResponse returns the error of a token request without the body of the response, which may
// repeat the code or the client's secret.
func withoutResponse(err error) error {
	if answered := (*oauth2.RetrieveError)(nil); errors.As(err, &answered) {
		return fmt.Errorf("it answered %q with the error %s", answered.Response.Status, errorCode(answered.ErrorCode))
	}
	return err
}

var errorCodeFormat = regexp.MustCompile(`^[a-z_]{1,40}$`)

// errorCode returns an OAuth error code for the log. Anything else, such as a text that someone put
// into a link, is not logged.
func errorCode(code string) string {
	if errorCodeFormat.MatchString(code) {
		return strconv.Quote(code)
	}
	return "(not logged)"
}

// person returns the person whom the issuer's claims identify.
func (i *issuer) person(ctx context.Context, db *models.DB, now time.Time, c *claims) (models.LinkedPerson, error) {
	if c.SlackTeam == "" {
		return models.SignInByIssuer(ctx, db, now, models.IssuerIdentity{Issuer: i.Issuer, Subject: c.Subject}, c.verifiedEmail(), c.Name)
	}
	slack := models.SlackIdentity{TeamID: c.SlackTeam, UserID: c.SlackUser}
	person, err := models.SignInBySlack(ctx, db, now, slack, c.verifiedEmail(), c.Name)
	if err == nil {
		models.LogLinked(ctx, i.log, []models.Link{{Slack: slack}}, []models.LinkedPerson{person})
	}
	return person, err
}
