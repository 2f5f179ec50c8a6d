package viewstest

import (
	"testing"

	"github.com/a-h/templ"

	"tollgate/models"
	"tollgate/views"
	"tollgate/views/ui"
)

// peoplePages returns the operator's pages about people.
func peoplePages(t testing.TB) map[string]templ.Component {
	t.Helper()
	operator := frame(ui.Viewer{Operator: true})
	var people []models.UserEntry
	for i, row := range memberRows(t) {
		u := models.UserEntry{User: models.User{ID: row.ID, Email: row.Standing.Email, Name: row.Name, Role: row.Role}}
		if i%3 > 0 {
			u.OrganizationID, u.Organization = &row.ID, "Lantern and Kettle"
		}
		people = append(people, u)
	}
	own := Member(t, "business", 118, 100)
	own.Frame, own.ReadOnly = operator, true
	return map[string]templ.Component{
		"people":      views.OpsPeoplePage(views.OpsPeople{Frame: operator, Search: "example", People: views.Loaded(people), More: true}),
		"people-none": views.OpsPeoplePage(views.OpsPeople{Frame: operator, Search: "<b>missing"}),
		"people-failed": views.OpsPeoplePage(views.OpsPeople{
			Frame: operator, People: views.Widget[[]models.UserEntry]{Failed: requestID},
		}),
		"person": views.OpsPersonPage(views.OpsPerson{
			Person: people[1], Usage: own, Identities: []string{"Slack user U0BRUNO in team T0LANTERN"},
		}),
	}
}
