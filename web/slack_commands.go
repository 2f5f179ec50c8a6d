package web

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/labstack/echo/v4"

	"tollgate/models"
	"tollgate/models/enforcement"
)

// slackCommand answers the slash command: /usage, or /usage org for an admin.
func (s *Server) slackCommand(c echo.Context) error {
	arrived := time.Now()
	return s.signedBySlack(c, func(body []byte, signature string) error {
		form, err := url.ParseQuery(string(body))
		if form.Get("ssl_check") == "1" { // Slack only checks the certificate
			return c.NoContent(http.StatusOK)
		}
		identity := models.SlackIdentity{TeamID: form.Get("team_id"), UserID: form.Get("user_id")}
		if err != nil || !models.IsSlackID(identity.TeamID) || !models.IsSlackID(identity.UserID) {
			return newProblem(codeBadForm, "The request has no Slack team or user.")
		}
		words := strings.Fields(form.Get("text"))
		answers, repeated, id := make(chan slackMessage, 1), make(chan struct{}), requestID(c)
		started := s.slack.answers.TryGo(s.recovered(func() {
			ctx, cancel := context.WithTimeout(s.slack.working, slackWork)
			defer cancel()
			m, isNew := s.answerCommand(ctx, signature, identity, words, id)
			if !isNew {
				close(repeated)
				return
			}
			answers <- m
		}))
		if !started {
			s.log.Warn("a slash command was not answered: too many at the same time", "request_id", id)
			return writeJSON(c, slackTryAgain())
		}
		patience := time.NewTimer(time.Until(arrived.Add(slackPatience)))
		defer patience.Stop()
		select {
		case m := <-answers:
			return writeJSON(c, m)
		case <-repeated:
			return newProblem(codeSlackRepeated, "This request was already answered.")
		case <-patience.C:
			s.log.Warn("a slash command was not answered in time", "request_id", id)
			return writeJSON(c, slackTryAgain())
		}
	})
}

// slackTryAgain is the answer if the database or Slack does not answer in time.
func slackTryAgain() slackMessage {
	return slackReply(plainText("Tollgate could not read your usage in time. Try again in a minute."))
}

// slackReply returns a message of one block. Its text is the block's.
func slackReply(t slackText) slackMessage {
	return slackMessage{ResponseType: "ephemeral", Text: t.Text, Blocks: []slackBlock{section(t)}}
}

// answerCommand returns the answer to a command. isNew is false if the request was already answered.
// Reads that do not depend on each other run at the same time. So /usage takes one round trip to the
// database, or more if the gate has to read or create the person's usage record; /usage org takes
// three.
func (s *Server) answerCommand(ctx context.Context, signature string, identity models.SlackIdentity, words []string, id string) (
	m slackMessage, isNew bool,
) {
	fail := func(err error) slackMessage {
		s.log.Warn("a slash command was not answered", "request_id", id, "error", err)
		return slackTryAgain()
	}
	var in *models.Situation
	var standing enforcement.Answer
	var taken, found, checked error
	var reads sync.WaitGroup
	read := func(to *error, ask func() error) { reads.Go(func() { *to = models.Recovered(ask)() }) }
	read(&taken, func() (err error) {
		isNew, err = models.TakeSlackRequest(ctx, s.db, models.Now(s.now), "command:"+signature)
		return err
	})
	read(&found, func() (err error) { in, err = s.slackPerson(ctx, identity); return err })
	if len(words) == 0 {
		read(&checked, func() (err error) {
			standing, err = s.gate.Check(ctx, enforcement.Person{Slack: identity}, 1)
			return err
		})
	}
	reads.Wait()
	err := errors.Join(taken, found)
	switch {
	case err != nil:
		return fail(err), true
	case !isNew:
		return slackMessage{}, false
	case in == nil:
		return s.messages.unknownPerson(), true
	case len(words) == 0 && checked == nil:
		return s.messages.usage(&standing.Standing, standing.Verdict, in), true
	case len(words) == 0: // such as unknown_user, if the identity was linked meanwhile
		m, err = s.usageMessage(ctx, in)
	case len(words) == 1 && strings.EqualFold(words[0], "org"):
		m, err = s.orgMessage(ctx, in)
	default:
		return slackReply(mrkdwn("Send `/usage` for your usage, or `/usage org` for that of your organization.")), true
	}
	if err != nil {
		return fail(err), true
	}
	return m, true
}

// unknownPerson is the answer to a person without an account.
func (m *slackMessages) unknownPerson() slackMessage {
	const retry = ". Then try again."
	unknown := slackEscape.Replace(fmt.Sprintf("Tollgate, which counts your %s, does not know your Slack account yet. Use one %s in Slack",
		m.catalogue.UnitPlural, m.catalogue.UnitSingular))
	if !m.signIn { // no call links an admin or operator
		return slackReply(mrkdwn(unknown + retry + " If that does not help, ask the operator of this service."))
	}
	const privileged = " If you are an admin or operator, only signing in helps."
	reply := slackReply(mrkdwn(unknown + ", or " + m.link("/sign-in", "sign in") + " with Slack" + retry + privileged))
	reply.Text = unknown + ", or sign in with Slack at " + m.baseURL + "/sign-in" + retry + privileged
	return reply
}

// usageMessage is the answer to /usage, and the content of the App Home.
func (s *Server) usageMessage(ctx context.Context, in *models.Situation) (slackMessage, error) {
	a, err := s.gate.Check(ctx, enforcement.Person{Email: in.Email}, 1)
	if err != nil {
		return slackMessage{}, err
	}
	return s.messages.usage(&a.Standing, a.Verdict, in), nil
}

// orgMessage is the answer to /usage org. It shows a person nothing about any organization but their
// own, and nothing about that one but its admins unless they are one.
func (s *Server) orgMessage(ctx context.Context, in *models.Situation) (slackMessage, error) {
	switch {
	case in.OrganizationID == nil:
		return slackReply(mrkdwn("You belong to no organization. Send `/usage` for your own usage.")), nil
	case !in.Admin && len(in.Admins) == 0:
		return slackReply(plainText("Only admins can see the usage of " + models.OneLine(in.Organization, maxOrganizationName) +
			". This organization has no admin. The operator of this service can add one.")), nil
	case !in.Admin:
		return slackReply(plainText("Only admins can see the usage of " + models.OneLine(in.Organization, maxOrganizationName) +
			". Ask " + in.AdminNames() + ".")), nil
	}
	o, err := models.OrganizationUsage(ctx, s.db, s.catalogue, models.Now(s.now), *in.OrganizationID)
	if err != nil {
		return slackMessage{}, err
	}
	return s.messages.organization(&o), nil
}

// slackRoutes adds the routes for Slack. Without a signing secret, they do not exist.
func (s *Server) slackRoutes() {
	if s.slack.secret == "" {
		return
	}
	s.echo.Add(http.MethodPost, slackCommandsPath, s.slackCommand)
	s.echo.Add(http.MethodPost, slackEventsPath, s.slackEvent)
}
