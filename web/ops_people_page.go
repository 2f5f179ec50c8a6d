package web

import (
	"context"
	"net/http"

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
