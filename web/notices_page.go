package web

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"tollgate/models"
	"tollgate/views"
	"tollgate/views/ui"
)

// noticesForm returns the form for the person's channels and levels. sent is a form that is shown again;
// nil for the stored settings.
func (s *Server) noticesForm(ctx context.Context, viewer *models.Viewer, sent *models.NoticeSettings) (views.NoticesForm, error) {
	form := views.NoticesForm{Admin: viewer.IsAdmin()}
	if len(s.channels) == 0 {
		return form, nil
	}
	person, err := models.NoticeRecipientByID(ctx, s.db, viewer.User.ID)
	if err != nil || person == nil {
		return form, err
	}
	settings := sent
	if settings == nil {
		stored, err := models.NoticeSettingsOf(ctx, s.db, viewer.User.ID)
		if err != nil {
			return form, err
		}
		settings = &stored
	}
	form.On = settings.Levels
	for _, channel := range s.channels {
		choice := views.ChannelChoice{Channel: channel, On: settings.Slack}
		switch {
		case channel == models.ChannelMail && !person.HasAddress():
			choice.On, choice.Hint = settings.Mail, "Your account has no email address of its own, so you get no email. When your account was "+
				"created, your address belonged to another account here. Ask the operator of this service to free the address."
		case channel == models.ChannelMail && person.EmailVerifiedAt == nil:
			choice.On, choice.Hint = settings.Mail, s.verifyHint()
		case channel == models.ChannelMail:
			choice.On, choice.Hint = settings.Mail, "To "+person.Email
		case person.SlackUserID == nil:
			choice.Hint = s.linkHint(viewer.IsAdmin() || viewer.User.Operator)
		case person.SlackTeamID != nil && s.isOtherTeam(ctx, *person.SlackTeamID):
			choice.Hint = "Your Slack account is in another workspace than this service's Slack app, so you get no messages in Slack."
		}
		form.Channels = append(form.Channels, choice)
	}
	return form, nil
}

// isOtherTeam reports whether a Slack team is known not to be the one of the bot token, which cannot
// message its people.
func (s *Server) isOtherTeam(ctx context.Context, team string) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	own, err := s.slack.ownTeam(ctx, team)
	return s.slack.client != nil && err == nil && !own
}

// verifyHint says how a person's address is verified. Without an issuer, only Slack can verify it, when
// it links the person.
func (s *Server) verifyHint() string {
	const unverified = "Your address is not verified yet"
	if !s.issuer.Configured() {
		return unverified + ", so you get no email. Ask the operator of this service to set up sign-in with Slack or another provider. " +
			"Your address is verified when you sign in there."
	}
	return unverified + ". To verify it, sign out, then sign in with " + s.issuer.name() + "."
}

// linkHint says how a person links their Slack account. No call links that of an admin or operator.
func (s *Server) linkHint(privileged bool) string {
	const unlinked = "Your account is not linked to Slack yet. "
	if s.issuer.withSlack() {
		return unlinked + "To link it, sign out, then sign in with Slack."
	}
	if privileged {
		return unlinked + "Admins and operators can link it only by signing in with Slack, which is not set up here. " +
			"Ask the operator of this service to set it up."
	}
	return unlinked + "To link it, use the Slack app once."
}

// saveNotices saves a person's channels and levels. A channel that the server does not have keeps its
// setting.
func (s *Server) saveNotices(c echo.Context, viewer *models.Viewer) error {
	ctx := c.Request().Context()
	settings, err := models.NoticeSettingsOf(ctx, s.db, viewer.User.ID)
	if err != nil {
		return err
	}
	var refused []ui.FormError
	chosen := c.Request().PostForm[views.FieldChannel]
	for _, value := range chosen {
		if !slices.Contains(s.channels, models.NoticeChannel(value)) {
			refused = []ui.FormError{{Field: views.FieldIDChannel, Message: "This form is out of date. Check your entries and send it again."}}
		}
	}
	for _, channel := range s.channels {
		on := slices.Contains(chosen, string(channel))
		if channel == models.ChannelSlack {
			settings.Slack = on
		} else {
			settings.Mail = on
		}
	}
	// Only an admin's form has the daily summary. For another person, its setting does not change.
	levels := settings.Levels & models.NoticesDigest
	if viewer.IsAdmin() {
		levels = 0
	}
	selected := false
	for _, value := range c.Request().PostForm[views.FieldLevel] {
		level := views.ParseNoticeLevel(value)
		selected = selected || level != 0
		levels |= level
	}
	settings.Levels = levels
	if len(chosen) > 0 && !selected {
		refused = append(refused, ui.FormError{
			Field: views.FieldIDLevel, Message: "Select at least one level, or clear all channels to get no notices.",
		})
	}
	if refused != nil {
		return s.showSettings(c, viewer, http.StatusUnprocessableEntity, ui.Frame{Errors: refused}, &settings)
	}
	if err := models.SaveNoticeSettings(ctx, s.db, settings); err != nil {
		return err
	}
	return s.done(c, "/settings", noticesSaved)
}

// unsubscribePage asks for confirmation. The token stays in the query, which is not logged.
func (s *Server) unsubscribePage(c echo.Context, _ *models.Viewer) error {
	token := c.QueryParam(views.FieldToken)
	if _, err := models.Unsubscribed(c.Request().Context(), s.db, token); err != nil {
		return err
	}
	action := views.PathUnsubscribe + "?" + views.FieldToken + "=" + url.QueryEscape(token)
	return show(c, http.StatusOK, views.UnsubscribePage(views.Unsubscribe{Frame: s.frame(c), Action: action}))
}

// unsubscribe turns mail off for the person of the token. A second time changes nothing.
func (s *Server) unsubscribe(c echo.Context, _ *models.Viewer) error {
	leaveBody(c) // "List-Unsubscribe=One-Click"; the token is in the query
	ctx := c.Request().Context()
	person, err := models.Unsubscribed(ctx, s.db, c.QueryParam(views.FieldToken))
	if err != nil {
		return err
	}
	if err := models.StopMail(ctx, s.db, person); err != nil {
		return err
	}
	return show(c, http.StatusOK, views.UnsubscribePage(views.Unsubscribe{Frame: s.frame(c), Done: true}))
}

// opsProblems is the number of undelivered notices on the operator's page.
const opsProblems = 50

// opsNotices reads the notices that were not delivered, and the webhook endpoints.
func (s *Server) opsNotices(ctx context.Context) (n views.OpsNotices, err error) {
	if n.Problems, err = models.NoticeProblems(ctx, s.db, opsProblems); err != nil {
		return n, err
	}
	n.Endpoints, err = models.WebhookEndpoints(ctx, s.db)
	return n, err
}

// addWebhook adds a webhook endpoint. It answers with the page itself, because the secret is shown only
// once. The form's token becomes the endpoint's ID, so sending the form again adds no second one.
func (s *Server) addWebhook(c echo.Context, viewer *models.Viewer) error {
	form := views.WebhookForm{Token: c.FormValue(views.FieldToken), URL: strings.TrimSpace(c.FormValue(views.FieldURL))}
	refuse := func(status int, message string) error {
		return s.showOps(c, status, views.Ops{WebhookForm: form, Frame: ui.Frame{Errors: []ui.FormError{
			{Field: views.FieldIDWebhookURL, Message: message},
		}}})
	}
	id, err := uuid.Parse(form.Token)
	if err != nil {
		form.Token = ""
		return refuse(http.StatusUnprocessableEntity, "This form is out of date. Check your entries and send it again.")
	}
	added, err := models.AddWebhookEndpoint(c.Request().Context(), s.db, models.Now(s.now), viewer.User.Email, id, form.URL)
	switch {
	case errors.Is(err, models.ErrWebhookURL):
		return refuse(http.StatusUnprocessableEntity, "Enter an https URL of at most 1,000 characters, without a user name or a #.")
	case errors.Is(err, models.ErrEndpointExists):
		return s.showOps(c, http.StatusConflict, views.Ops{Frame: ui.Frame{Notices: []ui.Notice{{Kind: ui.Caution, Focus: true,
			Title: "No second endpoint was added",
			Text:  "This form already added an endpoint. If you did not copy its secret, remove the endpoint and add it again."}}}})
	case err != nil:
		return err
	}
	return s.showOps(c, http.StatusOK, views.Ops{Frame: ui.Frame{Prefix: "Webhook endpoint added: "}, NewSecret: added.Secret})
}

// endpointOf returns the endpoint whose ID the request has.
func (s *Server) endpointOf(ctx context.Context, given string) (*models.WebhookEndpoint, error) {
	id, err := uuid.Parse(given)
	if err != nil {
		return nil, echo.ErrNotFound
	}
	all, err := models.WebhookEndpoints(ctx, s.db)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(all, func(e models.WebhookEndpoint) bool { return e.ID == id })
	if i < 0 {
		return nil, echo.ErrNotFound
	}
	return &all[i], nil
}

// removeWebhookPage asks for confirmation.
func (s *Server) removeWebhookPage(c echo.Context, _ *models.Viewer) error {
	endpoint, err := s.endpointOf(c.Request().Context(), c.QueryParam(views.FieldID))
	if err != nil {
		return err
	}
	return show(c, http.StatusOK, views.WebhookRemovePage(views.WebhookRemove{Frame: s.frame(c), Endpoint: *endpoint}))
}

// removeWebhook removes an endpoint. A second time changes nothing.
func (s *Server) removeWebhook(c echo.Context, viewer *models.Viewer) error {
	id, err := uuid.Parse(c.FormValue(views.FieldID))
	if err != nil {
		return echo.ErrNotFound
	}
	if _, err := models.RemoveWebhookEndpoint(c.Request().Context(), s.db, models.Now(s.now), viewer.User.Email, id); err != nil {
		return err
	}
	return s.done(c, "/ops", webhookRemoved)
}
