package web

import (
	"context"
	"net/http"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"tollgate/models"
	"tollgate/models/billing"
	"tollgate/views"
	"tollgate/views/ui"
)

// landingPage introduces the service to people who are not signed in.
func (s *Server) landingPage(c echo.Context, viewer *models.Viewer) error {
	if viewer != nil {
		return c.Redirect(http.StatusSeeOther, homePath)
	}
	page := views.Landing{Frame: s.frame(c), Catalogue: s.catalogue}
	if s.flashed(c, signedOut) == signedOut {
		page.Frame.Notices = []ui.Notice{{Kind: ui.Done, Title: "You are signed out."}}
	}
	page.SignIn = views.SignIn{Frame: page.Frame, Issuer: s.issuer.name(), Unavailable: !s.issuer.Configured()}
	return show(c, http.StatusOK, views.LandingPage(page))
}

// plansPage is the pricing page. People who are signed in see what each plan would have cost them.
func (s *Server) plansPage(c echo.Context, viewer *models.Viewer) error {
	page := views.Plans{Frame: s.frame(c), Catalogue: s.catalogue, StripeConnected: s.shop != nil}
	if viewer == nil {
		return show(c, http.StatusOK, views.PlansPage(page))
	}
	buying := load(s, c, "admins", func(ctx context.Context) (billing.Buyer, error) {
		who, may, err := s.buyer(ctx, viewer, models.Plan{Type: models.Team})
		page.MayBuyTeam = may
		return who, err
	})
	page.BecomesAdmin = buying.Value.BecomesAdmin
	if viewer.Organization != nil {
		page.Organization = viewer.Organization.Name
	}
	if page.MayBuyTeam && page.StripeConnected {
		page.Seats = load(s, c, "seats", func(ctx context.Context) (int64, error) {
			return billing.SeatsFor(ctx, s.db, viewer.Organization.ID)
		}).Value
	}
	if page.StripeConnected {
		page.Own = s.blocksPurchase(c, viewer, nil)
	}
	if page.MayBuyTeam && page.StripeConnected {
		page.Team = s.blocksPurchase(c, viewer, &viewer.Organization.ID)
	}
	p := s.loadPerson(c, viewer.User.Email, viewer.User.CreatedAt, page.Frame.Now)
	page.Current = s.subscription(c, viewer, p.standing)
	if s.flashed(c, planBought) == planBought {
		title := ui.Sentence("Your plan is now " + page.Current.Plan.Name)
		page.Frame.Notices = []ui.Notice{{Kind: ui.Done, Title: title, Text: "It applies immediately."}}
	}
	page.Invoices, page.Manages = s.invoices(c, viewer)
	page.Costs = load(s, c, "costs", func(context.Context) (*views.PlanCosts, error) {
		var used []int64
		for _, m := range p.months.Value {
			if !m.BeforeSignUp {
				used = append(used, m.Used)
			}
		}
		if len(used) == 0 {
			return nil, nil
		}
		costs := &views.PlanCosts{Months: len(used), Plans: map[models.PlanID]views.PlanCost{}}
		for _, plan := range s.catalogue.Plans {
			if plan.Type == models.Individual {
				cents, refused := plan.CostOf(used)
				costs.Plans[plan.ID] = views.PlanCost{Cents: cents, Refused: refused}
			}
		}
		return costs, nil
	})
	if p.months.Failed != "" {
		page.Costs = views.Widget[*views.PlanCosts]{Failed: p.months.Failed}
	}
	return show(c, http.StatusOK, views.PlansPage(page))
}

// blocksPurchase returns the subscription because of which the viewer, or the organization, cannot buy
// another one; nil without one.
func (s *Server) blocksPurchase(c echo.Context, viewer *models.Viewer, organization *uuid.UUID) *views.Subscription {
	held := load(s, c, "subscriptions at Stripe", func(ctx context.Context) (*models.Subscription, error) {
		return models.BlocksPurchase(ctx, s.db, viewer.User.ID, organization)
	}).Value
	if held == nil {
		return nil
	}
	shown := &views.Subscription{Plan: s.catalogue.PlanOf(held.PlanID), StripeConnected: s.shop != nil}
	s.addState(shown, held, viewer)
	return shown
}
