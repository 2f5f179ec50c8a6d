package views

import (
	"tollgate/models"
	"tollgate/views/ui"
)

// OpsPeople is the operator's search for people.
type OpsPeople struct {
	Frame  ui.Frame
	Search string
	// People are those that were found, at most OpsPeopleShown. More means that there are others.
	People Widget[[]models.UserEntry]
	More   bool
}

// OpsPeopleShown is the maximum number of people in the search.
const OpsPeopleShown = 50

// standingOf says what a person is in their organization: "Admin of Acme".
func standingOf(u models.UserEntry) string {
	if u.OrganizationID == nil {
		return "In no organization"
	}
	return roleWord(u.Role) + " of " + u.Organization
}
