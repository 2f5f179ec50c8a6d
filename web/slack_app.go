package web

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/slack-go/slack"
	"golang.org/x/sync/errgroup"

	"tollgate/models"
)

const (
	// slackCommandsPath and slackEventsPath are where Slack sends its requests. They are neither pages
	// nor part of the API: the signature identifies the sender.
	slackCommandsPath = "/slack/commands"
	slackEventsPath   = "/slack/events"
	// slackBody is the maximum size of a request from Slack, in bytes.
	slackBody = 64 << 10
	// slackPatience is the maximum time to answer a request. Slack waits for three seconds.
	slackPatience = 2500 * time.Millisecond
	// slackWork is how long work may take that continues after the answer. If it ended with the answer,
	// its database connections would be closed, and each next request would have to wait for new ones.
	slackWork = 10 * time.Second
	// maxSlackWork is the maximum number of App Homes that are drawn, and people who are linked, at the
	// same time.
	maxSlackWork = 8
	// maxSlackAnswers is the maximum number of commands that are answered at the same time. If the
	// database hangs, each of them lasts for slackWork.
	maxSlackAnswers = 64
)

// SlackApp configures the slash command and the App Home.
type SlackApp struct {
	// SigningSecret is empty if Slack sends no requests to this server.
	SigningSecret string
	// BotToken is empty if the server does not call Slack: it has no App Home then.
	BotToken string
	// API is the address of Slack's API, ending with a slash; empty means Slack's own.
	API string
}

var (
	signingSecretFormat = regexp.MustCompile(`^[!-~]{8,200}$`)
	botTokenFormat      = regexp.MustCompile(`^xoxb-[!-~]{1,250}$`)
)

// CheckSigningSecret returns an error if a text cannot be a Slack app's signing secret.
func CheckSigningSecret(secret string) error {
	if !signingSecretFormat.MatchString(secret) || strings.HasPrefix(secret, "xox") { // a token
		return errors.New("this is not a signing secret: copy it from \"Basic Information\" of your Slack app")
	}
	return nil
}

// CheckBotToken returns an error if a text cannot be a Slack app's bot token.
func CheckBotToken(token string) error {
	switch {
	case strings.HasPrefix(token, "xoxe."):
		return errors.New("this token expires: turn off token rotation in your Slack app")
	case strings.HasPrefix(token, "xoxp-"), strings.HasPrefix(token, "xapp-"):
		return errors.New("this is not a bot token: copy the one that begins with xoxb- from \"OAuth & Permissions\" of your Slack app")
	case !botTokenFormat.MatchString(token):
		return errors.New("this is not a bot token (xoxb-…): copy it from \"OAuth & Permissions\" of your Slack app")
	}
	return nil
}

// Mode returns what the app does in Slack, for the log.
func (o *SlackApp) Mode() string {
	switch {
	case o.SigningSecret == "":
		return "off"
	case o.BotToken == "":
		return "slash command"
	}
	return "slash command and App Home"
}

// slackApp receives requests from Slack and calls Slack's API.
type slackApp struct {
	secret string
	client *slack.Client // nil without a bot token
	log    *slog.Logger

	// working ends when the server has stopped.
	working context.Context
	stop    context.CancelFunc
	// work is what continues after an answer: App Homes, and people who are linked. answers is the
	// same for the answers to commands.
	work, answers errgroup.Group

	mu   sync.Mutex
	team string // the bot token's team; empty until it was asked for
}

func newSlackApp(o *Options) *slackApp {
	a := &slackApp{secret: o.Slack.SigningSecret, log: o.Log}
	a.working, a.stop = context.WithCancel(context.Background())
	a.work.SetLimit(maxSlackWork)
	a.answers.SetLimit(maxSlackAnswers)
	if o.Slack.BotToken != "" {
		options := []slack.Option{slack.OptionHTTPClient(&http.Client{Timeout: slackWork})}
		if o.Slack.API != "" {
			options = append(options, slack.OptionAPIURL(o.Slack.API))
		}
		options = append(options, slack.OptionRetry(2)) // after the time that Slack gives in a 429
		a.client = slack.New(o.Slack.BotToken, options...)
	}
	return a
}

// run waits until ctx ends, and ends the work that continues after an answer.
func (a *slackApp) run(ctx context.Context) {
	<-ctx.Done()
	a.stop()
	_ = a.work.Wait()
	_ = a.answers.Wait()
}

// recovered returns work that logs a panic. Otherwise, a panic would end the process.
func (s *Server) recovered(work func()) func() error {
	return func() error {
		if err := models.Recovered(func() error { work(); return nil })(); err != nil {
			s.log.Error("a Slack request was not answered", "error", err)
		}
		return nil
	}
}

// ownTeam reports whether the bot token belongs to the team. The token cannot read or message the
// people of another team.
func (a *slackApp) ownTeam(ctx context.Context, team string) (bool, error) {
	if a.client == nil {
		return false, nil
	}
	a.mu.Lock()
	own := a.team
	a.mu.Unlock()
	if own == "" {
		said, err := a.client.AuthTestContext(ctx)
		if err != nil {
			return false, fmt.Errorf("ask Slack for the bot token's team: %w", err)
		}
		own = said.TeamID
		a.mu.Lock()
		a.team = own
		a.mu.Unlock()
	}
	return own == team, nil
}

// signedBySlack checks a request's signature on the raw body, and calls handle with the body and the
// signature.
func (s *Server) signedBySlack(c echo.Context, handle func(body []byte, signature string) error) error {
	request := c.Request()
	verifier, err := slack.NewSecretsVerifier(request.Header, s.slack.secret)
	if err != nil {
		return s.refuseSlack(c, err) // before reading its body, because anyone can send one
	}
	if request.ContentLength > slackBody {
		return newProblem(codePayloadTooLarge, "The body is larger than 64 KiB.")
	}
	lease := s.strangerBodies.lease(c, 3) // the body, its fields, and the values read from them
	defer lease.close()
	body, err := lease.read(request, nil, slackBody)
	switch {
	case isProblem(err):
		return err
	case err != nil:
		return newProblem(codeBadSlackSignature, "The body is incomplete.")
	case len(body) > slackBody:
		return newProblem(codePayloadTooLarge, "The body is larger than 64 KiB.")
	}
	_, _ = verifier.Write(body) // a hash never fails
	if err := verifier.Ensure(); err != nil {
		return s.refuseSlack(c, err)
	}
	// The same signature can be written in upper or lower case.
	return handle(body, strings.ToLower(request.Header.Get("X-Slack-Signature")))
}

// refuseSlack refuses a request that Slack did not sign. Only these count against the client's limit.
func (s *Server) refuseSlack(c echo.Context, reason error) error {
	if err := s.strangers.take(c); err != nil {
		return err
	}
	s.log.WarnContext(c.Request().Context(), "a request was refused because Slack did not sign it", "request_id", requestID(c),
		"reason", reason.Error())
	return newProblem(codeBadSlackSignature, "The request is not signed by Slack with this app's signing secret, "+
		"or its timestamp is more than five minutes from the server's time.")
}

// slackPerson returns the situation of the person with a Slack identity; nil if Tollgate does not
// know the person. An identity that is not linked yet is linked by the rules of models.LinkPeople, if
// the bot token can read the person's confirmed address.
func (s *Server) slackPerson(ctx context.Context, identity models.SlackIdentity) (*models.Situation, error) {
	known, err := models.SituationBySlack(ctx, s.db, identity)
	if known != nil || err != nil || s.slack.client == nil {
		return known, err
	}
	// If this takes too long for an answer, it continues, so that the next try finds the person.
	type result struct {
		situation *models.Situation
		err       error
	}
	done := make(chan result, 1)
	started := s.slack.work.TryGo(s.recovered(func() {
		ctx, cancel := context.WithTimeout(s.slack.working, slackWork)
		defer cancel()
		situation, err := s.linkSlackPerson(ctx, identity)
		done <- result{situation, err}
	}))
	if !started {
		return nil, errSlackBusy
	}
	select {
	case r := <-done:
		return r.situation, r.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

var errSlackBusy = errors.New("too much work for Slack at the same time")

// user returns what Slack knows about a person; nil if they are not in the bot token's team.
func (a *slackApp) user(ctx context.Context, identity models.SlackIdentity) (*slack.User, error) {
	if own, err := a.ownTeam(ctx, identity.TeamID); !own || err != nil {
		return nil, err
	}
	user, err := a.client.GetUserInfoContext(ctx, identity.UserID)
	if err != nil {
		return nil, fmt.Errorf("ask Slack for a person's address: %w", err)
	}
	return user, nil
}

func (s *Server) linkSlackPerson(ctx context.Context, identity models.SlackIdentity) (*models.Situation, error) {
	user, err := s.slack.user(ctx, identity)
	if refused := (slack.SlackErrorResponse{}); errors.As(err, &refused) {
		s.log.Warn("Slack does not show a person's address; check the scopes of the bot token", "error", err)
		return nil, nil
	}
	if user == nil || err != nil {
		return nil, err
	}
	if user.TeamID != identity.TeamID || user.ID != identity.UserID || user.Deleted || user.IsBot || user.IsStranger ||
		!user.IsEmailConfirmed {
		return nil, nil
	}
	email, err := models.ParseEmail(user.Profile.Email)
	if err != nil { // such as none, if the app may not read addresses
		return nil, nil //nolint:nilerr // the person stays unknown
	}
	links := []models.Link{{Email: email, Slack: identity}}
	people, err := models.LinkPeople(ctx, s.db, models.Now(s.now), links)
	if err != nil {
		return nil, err
	}
	models.LogLinked(ctx, s.log, links, people)
	if people[0].NotLinked {
		return nil, nil // an address alone identifies no admin or operator
	}
	if err := models.NoteVerifiedEmail(ctx, s.db, models.Now(s.now), people[0].UserID, email); err != nil {
		return nil, err
	}
	return models.SituationBySlack(ctx, s.db, identity)
}
