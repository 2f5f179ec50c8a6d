package web

import (
	"context"
	"errors"
	"net/http"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"tollgate/models"
	"tollgate/views"
)

// maxSearch is the maximum length of a search, in bytes. No email or name is longer.
const maxSearch = 1000

// opsPeoplePage lets the operator search for people.
func (s *Server) opsPeoplePage(c echo.Context, _ *models.Viewer) error {
	page := views.OpsPeople{Frame: s.frame(c), Search: asText(c.QueryParam("q"))}
	if len(page.Search) > maxSearch {
		page.Search = ""
	}
	page.People = load(s, c, "people", func(ctx context.Context) ([]models.UserEntry, error) {
		return models.ListUsers(ctx, s.db, models.UserQuery{Search: c.QueryParam("q"), Limit: views.OpsPeopleShown + 1})
	})
	if people := page.People.Value; len(people) > views.OpsPeopleShown {
		page.People.Value, page.More = people[:views.OpsPeopleShown], true
	}
	return show(c, http.StatusOK, views.OpsPeoplePage(page))
}

// opsPersonPage shows the operator a person's page as that person sees it.
func (s *Server) opsPersonPage(c echo.Context, _ *models.Viewer) error {
	id, err := uuid.Parse(c.Param("id"))
	if err != nil {
		return echo.ErrNotFound
	}
	ctx := c.Request().Context()
	user, err := models.UserByID(ctx, s.db, id)
	if refused := (*models.Error)(nil); errors.As(err, &refused) && refused.Code == models.CodeUnknownUser {
		return echo.ErrNotFound
	}
	if err != nil {
		return err
	}
	known, err := models.IdentitiesOf(ctx, s.db, user.Email)
	if err != nil {
		return err
	}
	of := &models.Viewer{User: user.User}
	if user.OrganizationID != nil {
		of.Organization = &models.Organization{ID: *user.OrganizationID, Name: user.Organization}
	}
	page := views.OpsPerson{Person: user, Identities: known.List(), Usage: s.loadUsage(c, of)}
	page.Usage.ReadOnly, page.Usage.Subscription.Manageable = true, false
	return show(c, http.StatusOK, views.OpsPersonPage(page))
}
