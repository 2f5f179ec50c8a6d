package views

import (
	"time"

	"tollgate/models"
	"tollgate/views/ui"
)

// Landing is what somebody sees who is not signed in.
type Landing struct {
	Frame     ui.Frame
	Catalogue *models.Catalogue
	// SignIn says whether and how one can.
	SignIn SignIn
}

// example is a made-up standing for the picture: four fifths of the plan that includes most to one person.
func example(c *models.Catalogue, now time.Time) models.Standing {
	var largest models.Plan
	for _, p := range plansOf(c, models.Individual) {
		if p.Included >= largest.Included {
			largest = p
		}
	}
	return models.Standing{
		Plan: largest.ID, Used: largest.Included * 83 / 100, Included: largest.Included, OverageRateCents: largest.OverageRateCents, Period: models.CalendarMonth(now),
	}
}
