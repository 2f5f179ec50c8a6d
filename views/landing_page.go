package views

import (
	"time"

	"tollgate/models"
	"tollgate/views/ui"
)

// Landing is the start page for people who are not signed in.
type Landing struct {
	Frame     ui.Frame
	Catalogue *models.Catalogue
	// SignIn says whether and how people can sign in.
	SignIn SignIn
}

// example returns a made-up standing for the picture: 83% of the largest individual plan is used.
func example(c *models.Catalogue, now time.Time) models.Standing {
	var largest models.Plan
	for _, p := range plansOf(c, models.Individual) {
		if p.Included >= largest.Included {
			largest = p
		}
	}
	return models.Standing{
		Plan: largest.ID, Used: largest.Included * 83 / 100, Included: largest.Included,
		OverageRateCents: largest.OverageRateCents, Period: models.CalendarMonth(now),
	}
}
