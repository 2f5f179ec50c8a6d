package web

import (
	"net/http"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"tollgate/models"
	"tollgate/views"
)

// settingsPage lists where a person is signed in.
func (s *Server) settingsPage(c echo.Context, who *models.Viewer) error {
	sessions, err := models.ListSessions(c.Request().Context(), s.db, models.Now(s.now), who.User.Email)
	if err != nil {
		return err
	}
	page := views.Settings{Email: who.User.Email, Name: who.User.Name}
	for i := range sessions {
		page.Sessions = append(page.Sessions, views.Session{
			ID: sessions[i].ID.String(), UserAgent: sessions[i].UserAgent, SignedInAt: sessions[i].CreatedAt, LastSeenAt: sessions[i].LastSeenAt,
			ExpiresAt: sessions[i].ExpiresAt, Current: sessions[i].ID == who.Session.ID,
		})
	}
	return show(c, http.StatusOK, views.SettingsPage(page))
}

// endSession ends one of a person's sessions, which may be this one.
func (s *Server) endSession(c echo.Context, who *models.Viewer) error {
	id, err := uuid.Parse(c.Param("id"))
	if err != nil {
		return echo.ErrNotFound
	}
	ended, err := models.EndSession(c.Request().Context(), s.db, who.User.Email, id)
	if err != nil {
		return err
	}
	if !ended {
		return echo.ErrNotFound
	}
	return c.Redirect(http.StatusSeeOther, "/settings")
}

// endOtherSessions signs a person out everywhere else.
func (s *Server) endOtherSessions(c echo.Context, who *models.Viewer) error {
	if _, err := models.EndOtherSessions(c.Request().Context(), s.db, who.User.Email, who.Session.ID); err != nil {
		return err
	}
	return c.Redirect(http.StatusSeeOther, "/settings")
}
