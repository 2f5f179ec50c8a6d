package views

import (
	"strings"

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

// OpsPerson is a person's page as the operator sees it.
type OpsPerson struct {
	Person models.UserEntry
	// Identities are the person's identities, in words; empty if they can sign in only with their email.
	Identities []string
	// Usage is the person's own page. It is read-only.
	Usage Usage
}

// PathOpsPerson returns the path of a person's page for the operator.
func PathOpsPerson(u models.UserEntry) string { return "/ops/people/" + u.ID.String() }

// standingOf says what a person is in their organization: "Admin of Acme".
func standingOf(u models.UserEntry) string {
	if u.OrganizationID == nil {
		return "In no organization"
	}
	return roleWord(u.Role) + " of " + u.Organization
}

func (d OpsPerson) identitiesText() string {
	if len(d.Identities) == 0 {
		return "None: known only by email"
	}
	return strings.Join(d.Identities, ", ")
}
