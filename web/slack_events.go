package web

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/slack-go/slack"

	"tollgate/models"
)

// slackEventBody is a request of Slack's Events API, as far as it is used.
// Source: https://docs.slack.dev/apis/events-api/#events-JSON
type slackEventBody struct {
	Type      string `json:"type"`
	Challenge string `json:"challenge"`
	TeamID    string `json:"team_id"`
	EventID   string `json:"event_id"`
	Event     struct {
		Type string `json:"type"`
		User string `json:"user"`
		Tab  string `json:"tab"`
	} `json:"event"`
}

// slackEvent receives an event from Slack. It answers 200 as soon as the event is stored, and draws
// the App Home after that. Slack repeats an event that it got no answer to: then the event has the
// same ID, whatever its headers say.
func (s *Server) slackEvent(c echo.Context) error {
	arrived := time.Now()
	return s.signedBySlack(c, func(body []byte, _ string) error {
		var e slackEventBody
		if err := json.Unmarshal(body, &e); err != nil {
			return newProblem(codeInvalidJSON, "The body is not an event.")
		}
		if e.Type == "url_verification" {
			return c.JSON(http.StatusOK, map[string]string{"challenge": e.Challenge})
		}
		who := models.SlackIdentity{TeamID: e.TeamID, UserID: e.Event.User}
		if e.Type != "event_callback" || e.Event.Type != "app_home_opened" || e.Event.Tab != "home" || s.slack.client == nil ||
			!models.IsSlackID(e.EventID) || !models.IsSlackID(who.TeamID) || !models.IsSlackID(who.UserID) {
			return c.NoContent(http.StatusOK) // nothing to do
		}
		ctx, cancel := context.WithDeadline(context.WithoutCancel(c.Request().Context()), arrived.Add(slackPatience))
		defer cancel()
		isNew, err := models.TakeSlackRequest(ctx, s.db, models.Now(s.now), "event:"+e.EventID)
		if err != nil {
			return models.Unavailable(err) // Slack sends it again
		}
		if isNew {
			s.drawHome(who, requestID(c))
		}
		return c.NoContent(http.StatusOK)
	})
}

// drawHome publishes a person's App Home in the background. If too many are being drawn, this one
// keeps its earlier content until the person opens it again.
func (s *Server) drawHome(who models.SlackIdentity, id string) {
	started := s.slack.work.TryGo(s.recovered(func() {
		ctx, cancel := context.WithTimeout(s.slack.working, slackWork)
		defer cancel()
		if err := s.publishHome(ctx, who); err != nil && ctx.Err() == nil {
			s.log.Warn("an App Home was not drawn", "request_id", id, "error", err)
		}
	}))
	if !started {
		s.log.Warn("an App Home was not drawn", "request_id", id, "error", errSlackBusy)
	}
}

func (s *Server) publishHome(ctx context.Context, who models.SlackIdentity) error {
	if own, err := s.slack.ownTeam(ctx, who.TeamID); err != nil {
		return err
	} else if !own {
		return errors.New("the event is from a team other than the bot token's")
	}
	blocks, err := s.homeBlocks(ctx, who)
	if err != nil {
		return err
	}
	raw, err := json.Marshal(blocks)
	if err != nil {
		return err
	}
	view := slack.HomeTabViewRequest{Type: slack.VTHomeTab}
	if err := json.Unmarshal(raw, &view.Blocks); err != nil {
		return err
	}
	if _, err := s.slack.client.PublishViewContext(ctx, slack.PublishViewContextRequest{UserID: who.UserID, View: view}); err != nil {
		return fmt.Errorf("publish it: %w", err)
	}
	return nil
}

// homeBlocks returns the content of a person's App Home: their usage, and for an admin also the
// organization's.
func (s *Server) homeBlocks(ctx context.Context, who models.SlackIdentity) ([]slackBlock, error) {
	in, err := models.SituationBySlack(ctx, s.db, who)
	if err == nil && in == nil {
		in, err = s.linkSlackPerson(ctx, who)
	}
	switch {
	case err != nil:
		return nil, err
	case in == nil:
		return s.messages.unknownPerson().Blocks, nil
	}
	usage, err := s.usageMessage(ctx, in)
	if err != nil {
		return nil, err
	}
	blocks := append([]slackBlock{header("Your usage")}, usage.Blocks...)
	if in.Admin {
		organization, err := s.orgMessage(ctx, in)
		if err != nil {
			return nil, err
		}
		blocks = append(append(blocks, header("Your organization")), organization.Blocks...)
	}
	return append(blocks, contextBlock(mrkdwn("Updated "+slackDate(models.Now(s.now))+"."))), nil
}

func header(text string) slackBlock {
	t := plainText(text)
	return slackBlock{Type: "header", Text: &t}
}
