package notify

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptrace"
	"slices"
	"sync/atomic"

	"github.com/slack-go/slack"
)

// slackChannel sends direct messages with a bot token.
type slackChannel struct {
	client *slack.Client
	// team is the bot token's team, which auth.test returns; empty until it is known.
	team atomic.Pointer[string]
}

func newSlackChannel(o Options) *slackChannel {
	// A redirect would send the message a second time.
	options := []slack.Option{slack.OptionHTTPClient(&http.Client{
		Timeout: callPatience, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	})}
	if o.SlackAPI != "" {
		options = append(options, slack.OptionAPIURL(o.SlackAPI))
	}
	return &slackChannel{client: slack.New(o.SlackToken, options...)}
}

// team returns the Slack team of the bot token; empty if it is not known yet.
func (w *Worker) team() string {
	if w.slack == nil {
		return ""
	}
	if team := w.slack.team.Load(); team != nil {
		return *team
	}
	return ""
}

// findTeam asks Slack once for the bot token's team.
func (s *slackChannel) findTeam(ctx context.Context) error {
	if s.team.Load() != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, callPatience)
	defer cancel()
	answer, err := s.client.AuthTestContext(ctx)
	if err != nil {
		return fmt.Errorf("ask Slack for the team of SLACK_BOT_TOKEN: %s", errorText(err))
	}
	s.team.Store(&answer.TeamID)
	return nil
}

// send sends a direct message.
func (s *slackChannel) send(ctx context.Context, j *job) outcome {
	connected := false
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { connected = true }})
	text := j.message.slack()
	section := slack.NewSectionBlock(slack.NewTextBlockObject(slack.MarkdownType, text, false, false), nil, nil)
	_, _, err := s.client.PostMessageContext(ctx, *j.to.SlackUserID, slack.MsgOptionText(j.message.plain(), true),
		slack.MsgOptionBlocks(section), slack.MsgOptionDisableLinkUnfurl(), slack.MsgOptionDisableMediaUnfurl())
	if err == nil {
		return sent()
	}
	if !connected {
		return notSent("could not connect to Slack: " + errorText(err))
	}
	return slackOutcome(err)
}

// Slack's errors that do not say whether the message was posted.
// Source: https://docs.slack.dev/reference/methods/chat.postMessage
var slackUnknown = []string{"fatal_error", "internal_error", "service_unavailable"}

// Slack's errors after which the same message can succeed later: the operator corrects the token or its
// scopes, or Slack is busy.
var slackLater = []string{
	"ratelimited", "rate_limited", "message_limit_exceeded", "request_timeout", "team_added_to_org", "not_authed", "invalid_auth",
	"account_inactive", "token_revoked", "token_expired", "missing_scope", "no_permission", "org_login_required", "access_denied",
}

// slackOutcome returns the outcome of an attempt for which Slack's server was reached.
func slackOutcome(err error) outcome {
	limited, status, refused := (*slack.RateLimitedError)(nil), slack.StatusCodeError{}, slack.SlackErrorResponse{}
	switch {
	case errors.As(err, &limited):
		out := notSent("Slack's rate limit")
		out.after = limited.RetryAfter
		return out
	case errors.As(err, &status) && status.Code >= 400 && status.Code < 500 && status.Code != http.StatusRequestTimeout:
		return failed("Slack answered " + status.Status)
	case errors.As(err, &refused) && slices.Contains(slackLater, refused.Err):
		return notSent("Slack answered " + refused.Err)
	case errors.As(err, &refused) && refused.Err != "" && !slices.Contains(slackUnknown, refused.Err):
		return failed("Slack answered " + refused.Err)
	}
	return unknown(errorText(err))
}
