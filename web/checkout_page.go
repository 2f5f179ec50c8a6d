package web

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/labstack/echo/v4"

	"tollgate/models"
	"tollgate/models/billing"
	"tollgate/views"
	"tollgate/views/ui"
)

const (
	// shopPatience is the timeout of a request that starts something at Stripe.
	shopPatience = 20 * time.Second
	// returnTries is how often the return page checks for the webhook, and returnEvery is the time
	// between two checks, in seconds. At the tries in returnHurries it also asks Stripe, because the
	// webhook may be lost.
	returnTries = 15
	returnEvery = 2
)

var returnHurries = map[int]bool{3: true, 8: true, returnTries: true}

// checkout redirects to Stripe Checkout for a plan: a person's own plan, or, for an admin, the
// organization's.
func (s *Server) checkout(c echo.Context, viewer *models.Viewer) error {
	plan, ok := s.catalogue.Plan(models.PlanID(c.FormValue(views.FieldPlan)))
	if !ok || plan.ID == models.FreePlan {
		return newProblem(codeBadForm, "This plan does not exist or cannot be bought.")
	}
	if s.shop == nil {
		return s.showPurchase(c, http.StatusConflict, notConnected)
	}
	who, may, err := s.buyer(c.Request().Context(), viewer, plan)
	if err != nil {
		return err
	}
	if !may {
		if viewer.Organization == nil {
			return s.showPurchase(c, http.StatusForbidden, views.Purchase{Title: "Nothing was bought", Lines: []string{
				"Team plans are for organizations, and you belong to none.",
			}})
		}
		return s.askAnAdmin(c, viewer, "Nothing was bought", "Only admins can buy a team plan for "+viewer.Organization.Name)
	}
	if plan.Type == models.Individual {
		held, err := models.SubscriptionOf(c.Request().Context(), s.db, viewer.User.Email)
		if err != nil {
			return err
		}
		if held != nil && held.Active() && held.OrganizationID != nil {
			return s.showPurchase(c, http.StatusConflict, views.Purchase{Title: "Your plan comes from " + held.Organization, Lines: []string{
				"You would pay for a second plan and never use it, so nothing was bought.",
			}})
		}
	}
	address, err := s.shop.Checkout(c.Request().Context(), who, plan)
	switch {
	case errors.Is(err, billing.ErrHasPlan) && who.BecomesAdmin:
		return s.showPurchase(c, http.StatusConflict, views.Purchase{
			Title: viewer.Organization.Name + " already has a subscription",
			Lines: []string{"Nothing was bought.", "No admin manages the subscription. Ask the operator of this service to make someone an admin."},
		})
	case errors.Is(err, billing.ErrHasPlan):
		return s.showPurchase(c, http.StatusConflict, views.Purchase{
			Title: "You already have a subscription", Portal: true, Shared: plan.Type == models.Team,
			Lines: []string{
				"You would pay for two plans, so nothing was bought.",
				"In Stripe's portal, you can cancel your subscription or pay an open invoice. " +
					ui.Sentence("After the subscription has ended, you can buy "+plan.Name),
			},
		})
	case errors.Is(err, billing.ErrNotSetUp):
		s.log.ErrorContext(c.Request().Context(), "a plan cannot be bought: run tollgate stripe setup", "plan", plan.ID)
		return s.showPurchase(c, http.StatusServiceUnavailable, views.Purchase{Title: plan.Name + " cannot be bought yet", Lines: []string{
			"The operator of this service must set up its price first. Nothing was bought.",
		}})
	case err != nil:
		return s.stripeAway(c, err)
	}
	return c.Redirect(http.StatusSeeOther, address)
}

// buyer returns the buyer of a plan: the viewer or their organization. may is false if only an admin
// of the organization can buy the plan. Without an admin, any member can, and becomes its admin.
func (s *Server) buyer(ctx context.Context, viewer *models.Viewer, plan models.Plan) (who billing.Buyer, may bool, err error) {
	who = billing.Buyer{UserID: viewer.User.ID, Email: viewer.User.Email}
	if plan.Type != models.Team {
		return who, true, nil
	}
	if viewer.Organization == nil {
		return who, false, nil
	}
	who.OrganizationID = &viewer.Organization.ID
	if viewer.IsAdmin() {
		return who, true, nil
	}
	admins, err := models.AdminsOf(ctx, s.db, viewer.Organization.ID)
	who.BecomesAdmin = len(admins) == 0
	return who, who.BecomesAdmin, err
}

var notConnected = views.Purchase{
	Title: "Billing is not available here",
	Lines: []string{
		"Usage is counted and limits apply, but plans cannot be bought or managed.",
		"To get another plan, ask the operator of this service.",
	},
}

func (s *Server) showPurchase(c echo.Context, status int, page views.Purchase) error {
	page.Frame = s.frame(c)
	return show(c, status, views.PurchasePage(page))
}

// stripeAway answers when a request to Stripe failed. It returns an error of our own database
// unchanged, because that is not Stripe's problem.
func (s *Server) stripeAway(c echo.Context, err error) error {
	if models.IsUnavailable(err) && !billing.IsStripe(err) || hasLeft(c) && models.IsCanceled(err) {
		return err
	}
	s.log.ErrorContext(c.Request().Context(), "a request to Stripe failed",
		"request_id", requestID(c), "error", err.Error())
	if errors.Is(err, billing.ErrOtherAccount) {
		return s.showPurchase(c, http.StatusServiceUnavailable, views.Purchase{Title: "Billing is set up incorrectly", Lines: []string{
			"The plans and the Stripe key of this service belong to two different Stripe accounts. Nothing was bought or changed.",
			"The operator of this service can fix this.",
		}})
	}
	if billing.IsRefused(err) {
		return s.showPurchase(c, http.StatusBadGateway, views.Purchase{Title: "Stripe refused the request", Reference: requestID(c),
			Lines: []string{"Nothing was bought or changed. Contact the operator of this service and give the reference below."}})
	}
	c.Response().Header().Set("Retry-After", "30")
	return s.showPurchase(c, http.StatusServiceUnavailable, views.Purchase{Title: "Stripe is not responding", Lines: []string{
		"Nothing was bought or changed. Try again in a minute.",
	}})
}

// portal redirects to Stripe's Billing Portal.
func (s *Server) portal(c echo.Context, viewer *models.Viewer) error {
	if s.shop == nil {
		return s.showPurchase(c, http.StatusConflict, notConnected)
	}
	customer, err := s.managed(c.Request().Context(), viewer, c.FormValue(views.FieldOrganization))
	if err != nil {
		return err
	}
	var address string
	if customer != "" {
		address, err = s.shop.Portal(c.Request().Context(), customer)
	}
	if customer == "" || errors.Is(err, billing.ErrNoCustomer) {
		return s.showPurchase(c, http.StatusNotFound, views.Purchase{Title: "Nothing to manage", Lines: []string{
			"You have no subscription or invoices to manage here. The admins of an organization manage its plan.",
		}})
	}
	if err != nil {
		return s.stripeAway(c, err)
	}
	return c.Redirect(http.StatusSeeOther, address)
}

// managed returns the Stripe customer that the viewer may manage: the one whose subscription gives
// them their plan, otherwise one that they bought a plan with before. It is empty if there is none.
// of is the value of FieldOrganization. For an admin, "true" selects the organization's customer, if
// there is one. For everyone, "false" selects only their own customer.
func (s *Server) managed(ctx context.Context, viewer *models.Viewer, of string) (string, error) {
	own, organization := billing.Buyer{UserID: viewer.User.ID}, billing.Buyer{}
	if viewer.IsAdmin() {
		organization.OrganizationID = &viewer.Organization.ID
	}
	switch {
	case of == "false":
		return s.customerOf(ctx, own)
	case of == "true" && viewer.IsAdmin():
		if customer, err := s.customerOf(ctx, organization); customer != "" || err != nil {
			return customer, err
		}
	}
	held, err := models.SubscriptionOf(ctx, s.db, viewer.User.Email)
	if err != nil {
		return "", err
	}
	if held != nil && (held.Active() || held.Suspended()) && s.mayManage(&held.Subscription, viewer) {
		return *held.StripeCustomerID, nil
	}
	if customer, err := s.customerOf(ctx, own); customer != "" || err != nil || !viewer.IsAdmin() {
		return customer, err
	}
	return s.customerOf(ctx, organization)
}

// customerOf returns the Stripe customer of a person or an organization: that of the subscription
// because of which they cannot buy another one, or else the newest one. It is empty if there is none.
func (s *Server) customerOf(ctx context.Context, b billing.Buyer) (string, error) {
	held, err := models.BlocksPurchase(ctx, s.db, b.UserID, b.OrganizationID)
	if err != nil {
		return "", err
	}
	if held != nil && held.StripeCustomerID != nil {
		return *held.StripeCustomerID, nil
	}
	customer, err := s.shop.CustomerOf(ctx, b)
	if errors.Is(err, billing.ErrNoCustomer) {
		return "", nil
	}
	return customer, err
}

// invoices returns the latest invoices of the customer that the viewer may manage. manages is false
// if there is no such customer.
func (s *Server) invoices(c echo.Context, viewer *models.Viewer) (invoices []views.Invoice, manages bool) {
	if s.shop == nil {
		return nil, false
	}
	shown := load(s, c, "invoices", func(ctx context.Context) (invoices []views.Invoice, err error) {
		customer, err := s.managed(ctx, viewer, "")
		if err != nil || customer == "" {
			return nil, err
		}
		manages = true
		for _, i := range s.shop.Invoices(ctx, customer) {
			invoices = append(invoices, views.Invoice(i))
		}
		return invoices, nil
	})
	return shown.Value, manages
}

// plansReturn is the page that Stripe Checkout redirects back to. It waits for the webhook by
// reloading, without a script. After the last try, it explains what to do.
func (s *Server) plansReturn(c echo.Context, viewer *models.Viewer) error {
	plan, ok := s.catalogue.Plan(models.PlanID(c.QueryParam("plan")))
	if !ok || plan.ID == models.FreePlan || s.shop == nil {
		return c.Redirect(http.StatusSeeOther, "/plans")
	}
	ctx := c.Request().Context()
	who, may, err := s.buyer(ctx, viewer, plan)
	if err != nil {
		return err
	}
	if !may {
		return c.Redirect(http.StatusSeeOther, "/plans")
	}
	arrived, err := s.shop.Arrived(ctx, who, plan.ID)
	if err != nil {
		return err
	}
	if arrived {
		return s.done(c, "/plans", planBought)
	}
	session := c.QueryParam("session_id")
	if !billing.IsSession(session) {
		session = ""
	}
	try, err := strconv.Atoi(c.QueryParam("try"))
	if err != nil || try < 1 || try > returnTries {
		try = 1
	}
	if session != "" && returnHurries[try] {
		patience, cancel := context.WithTimeout(ctx, queryTimeout/2)
		defer cancel()
		if err := s.shop.Hurry(patience, session); err != nil {
			s.log.WarnContext(ctx, "Stripe could not be asked about a purchase",
				"request_id", requestID(c), "error", err.Error())
		}
	}
	if try == returnTries {
		return s.showPurchase(c, http.StatusOK, views.Purchase{
			Title: "This is taking longer than usual", Reference: session,
			Lines: []string{
				"Stripe has not confirmed your order yet. Nothing is lost: as soon as Stripe confirms it, " + plan.Name + " starts automatically.",
				"Check the Plans page again in a few minutes. If nothing has changed in an hour, contact the operator of this " +
					"service and give the reference, if one is shown below. Do not buy the plan again.",
			},
		})
	}
	query := url.Values{"plan": {string(plan.ID)}, "session_id": {session}, "try": {strconv.Itoa(try + 1)}}
	next := views.PathReturn + "?" + query.Encode()
	c.Response().Header().Set("Refresh", fmt.Sprintf("%d; url=%s", returnEvery, next))
	return s.showPurchase(c, http.StatusOK, views.Purchase{Title: "One moment", Waiting: true, Next: next, Lines: []string{
		"Stripe has your order. " + plan.Name + " starts as soon as Stripe confirms it, usually within seconds. " +
			"This page updates automatically.",
	}})
}
