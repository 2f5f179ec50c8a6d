package views

import (
	"time"

	"tollgate/models"
	"tollgate/views/charts"
	"tollgate/views/ui"
)

// OrgMember is one of the organization's people, as an admin sees them.
type OrgMember struct {
	Frame        ui.Frame
	Catalogue    *models.Catalogue
	Organization string
	// Name may be empty; the email is in the Standing, and here, as that may fail.
	Name, Email string
	Role        models.Role
	SignedUp    time.Time
	Plan        models.Plan
	// Standing, Days, Months, Moved and Comparison are as on the person's own page.
	Standing   Widget[models.Standing]
	Days       Widget[charts.Daily]
	Months     Widget[[]charts.Month]
	Moved      []models.MovedOverage
	Comparison Widget[Comparison]
}
