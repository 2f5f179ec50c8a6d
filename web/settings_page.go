package web

import (
	"context"
	"net/http"
	"strings"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"tollgate/models"
	"tollgate/views"
	"tollgate/views/ui"
)

// settingsPage shows a person's profile, notices and sessions.
func (s *Server) settingsPage(c echo.Context, viewer *models.Viewer) error {
	notices := map[flash]string{
		sessionEnded: "Session ended", sessionsEnded: "All other sessions ended", noticesSaved: "Notice settings saved",
	}
	var frame ui.Frame
	if title, ok := notices[s.flashed(c, sessionEnded, sessionsEnded, noticesSaved)]; ok {
		frame.Notices = []ui.Notice{{Kind: ui.Done, Title: title}}
	}
	return s.showSettings(c, viewer, http.StatusOK, frame, nil)
}

// showSettings draws the page. frame has the notices and errors. sent is a form that is shown again; nil
// for the stored settings.
func (s *Server) showSettings(c echo.Context, viewer *models.Viewer, status int, frame ui.Frame, sent *models.NoticeSettings) error {
	page := views.Settings{Frame: s.frame(c), Catalogue: s.catalogue, Role: viewer.User.Role, Plan: s.catalogue.Free()}
	page.Frame.Notices, page.Frame.Errors = frame.Notices, frame.Errors
	page.Notices = load(s, c, "notices", func(ctx context.Context) (views.NoticesForm, error) {
		return s.noticesForm(ctx, viewer, sent)
	})
	page.Notice = load(s, c, "notice", func(ctx context.Context) (string, error) {
		a, err := s.standing(ctx, viewer.User.Email)
		if err != nil {
			return "", err
		}
		page.Plan = s.catalogue.PlanOf(a.Plan)
		return s.catalogue.Notice(a, models.Decide(a, 1)), nil
	})
	page.Sessions = load(s, c, "sessions", func(ctx context.Context) ([]views.Session, error) {
		sessions, err := models.ListSessions(ctx, s.db, page.Frame.Now, viewer.User.ID)
		if err != nil {
			return nil, err
		}
		var shown []views.Session
		for i := range sessions {
			shown = append(shown, views.Session{
				ID: sessions[i].ID.String(), Browser: browserName(sessions[i].UserAgent),
				SignedInAt: sessions[i].CreatedAt, SeenAt: sessions[i].LastSeenAt,
				Current: sessions[i].ID == viewer.Session.ID,
			})
		}
		return shown, nil
	})
	return show(c, status, views.SettingsPage(page))
}

// browserName returns the common name of a user agent's browser and system. For an unknown agent,
// it returns the agent's first word.
// Source:
// https://developer.mozilla.org/en-US/docs/Web/HTTP/Guides/Browser_detection_using_the_user_agent
func browserName(agent string) string {
	named := func(names [][2]string) string {
		for _, n := range names {
			if strings.Contains(agent, n[0]) {
				return n[1]
			}
		}
		return ""
	}
	// Order matters: each agent also contains the names of those after it.
	browser := named([][2]string{
		{"Edg/", "Edge"}, {"OPR/", "Opera"}, {"Firefox/", "Firefox"}, {"Chrome/", "Chrome"}, {"Safari/", "Safari"},
	})
	system := named([][2]string{
		{"iPhone", "iPhone"}, {"iPad", "iPad"}, {"Android", "Android"}, {"Windows", "Windows"}, {"Mac OS X", "macOS"}, {"Linux", "Linux"},
	})
	switch {
	case browser == "":
		browser, _, _ = strings.Cut(agent, "/")
		if browser = strings.TrimSpace(browser); browser == "" {
			return "An unknown browser"
		}
		return browser
	case system == "":
		return browser
	}
	return browser + " on " + system
}

// endSession ends one of the viewer's sessions, which may be the current one.
func (s *Server) endSession(c echo.Context, viewer *models.Viewer) error {
	id, err := uuid.Parse(c.Param("id"))
	if err != nil {
		return echo.ErrNotFound
	}
	ended, err := models.EndSession(c.Request().Context(), s.db, viewer.User.ID, id)
	if err != nil {
		return err
	}
	if !ended {
		// The form was sent twice, or the session is another person's. Both get the same answer, so it
		// reveals nothing about other people.
		return show(c, http.StatusNotFound, views.ErrorPage(views.Error{
			Frame: s.frame(c), Status: http.StatusNotFound, Title: "Session not found", RequestID: requestID(c),
			Detail: "It may have been ended already. Nothing was changed. The Settings page shows where you are signed in.",
		}))
	}
	return s.done(c, "/settings", sessionEnded)
}

// endOtherSessions signs a person out everywhere else.
func (s *Server) endOtherSessions(c echo.Context, viewer *models.Viewer) error {
	if _, err := models.EndOtherSessions(c.Request().Context(), s.db, viewer.User.ID, viewer.Session.ID); err != nil {
		return err
	}
	return s.done(c, "/settings", sessionsEnded)
}
