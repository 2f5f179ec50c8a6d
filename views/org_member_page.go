package views

import (
	"time"

	"github.com/google/uuid"

	"tollgate/models"
	"tollgate/views/charts"
	"tollgate/views/ui"
)

// OrgMember is one member of the organization, as an admin sees them.
type OrgMember struct {
	Frame        ui.Frame
	Catalogue    *models.Catalogue
	Organization string
	ID           uuid.UUID
	// Name may be empty. Email is also in the Standing, which may fail to load.
	Name, Email string
	Role        models.Role
	SignedUp    time.Time
	Plan        models.Plan
	// Standing, Days, Months, Moved and Comparison are the same as on the member's own page.
	Standing   Widget[models.Standing]
	Days       Widget[charts.Daily]
	Months     Widget[[]models.PastPeriod]
	Moved      []models.MovedOverage
	Comparison Widget[models.Comparison]
}
