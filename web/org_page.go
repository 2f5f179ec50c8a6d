package web

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"tollgate/models"
	"tollgate/views"
	"tollgate/views/charts"
)

// orgPage shows an admin the organization's usage.
func (s *Server) orgPage(c echo.Context, viewer *models.Viewer) error {
	if ok, err := s.pastOrgPage(c, viewer); ok || err != nil {
		return err
	}
	return s.showOrg(c, viewer, http.StatusOK, views.Org{})
}

// changesShown is the number of changes on the organization's page.
const changesShown = 10

// showOrg renders the page. The caller sets the errors, the title's prefix and the states of the
// forms.
func (s *Server) showOrg(c echo.Context, viewer *models.Viewer, status int, page views.Org) error {
	o, errs, prefix := viewer.Organization, page.Frame.Errors, page.Frame.Prefix
	page.Frame, page.Catalogue, page.ID, page.Name = s.frame(c), s.catalogue, o.ID, o.Name
	page.Frame.Errors, page.Frame.Prefix = errs, prefix
	page.Plan, page.Subscription.StripeConnected = s.catalogue.Free(), s.shop != nil
	now := page.Frame.Now
	var held views.Widget[*models.Subscription]
	var parts sync.WaitGroup
	parts.Go(func() {
		page.Summary = load(s, c, "summary", func(ctx context.Context) (models.OrganizationSummary, error) {
			return models.OrganizationUsage(ctx, s.db, s.catalogue, now, o.ID)
		})
	})
	parts.Go(func() {
		page.Changes = load(s, c, "changes", func(ctx context.Context) ([]models.AuditEntry, error) {
			return models.OrganizationAudit(ctx, s.db, o.ID, changesShown)
		})
		held = load(s, c, "subscription", func(ctx context.Context) (*models.Subscription, error) {
			return models.SubscriptionOfOrganization(ctx, s.db, o.ID)
		})
	})
	parts.Wait()
	if failed := page.Summary.Failed; failed != "" {
		page.Cost.Failed, page.Days.Failed, page.Months.Failed = failed, failed, failed
		for i := range page.Frame.Errors {
			page.Frame.Errors[i].Field = "" // the forms are not on the page
		}
		return show(c, status, views.OrgPage(page))
	}
	summary := page.Summary.Value
	if len(errs) == 0 && prefix == "" {
		page.Frame.Notices = s.orgNotices(c, page.Summary)
	}
	page.Plan = s.catalogue.PlanOf(summary.Plan)
	page.Subscription = views.Subscription{Plan: page.Plan, ForMembers: true, StripeConnected: s.shop != nil}
	if held.Value != nil {
		s.addState(&page.Subscription, held.Value, viewer)
	}
	page.Cost = views.Widget[views.OrgCost]{Value: orgCost(&summary, held.Value), Failed: held.Failed}
	parts.Go(func() { page.Refused = s.refusedMembers(c, o.ID, summary.Period) })
	parts.Go(func() {
		page.Months = load(s, c, "months", func(ctx context.Context) ([]models.PastPeriod, error) {
			return s.pastUsage.OrganizationMonths(ctx, s.db, now, &summary, o.CreatedAt, models.HistoryMonths)
		})
	})
	parts.Go(func() { page.Days = s.organizationDays(c, o.ID, now, summary.Period) })
	parts.Wait()
	page.Days.Value.Included = summary.Included
	return show(c, status, views.OrgPage(page))
}

// refusedMembers reads the members whose calls were refused in a period.
func (s *Server) refusedMembers(c echo.Context, organization uuid.UUID, period models.Period) views.Widget[views.RefusedMembers] {
	return load(s, c, "refusals", func(ctx context.Context) (r views.RefusedMembers, err error) {
		r.Top, r.Total, err = models.RefusedMembers(ctx, s.db, organization, period)
		return r, err
	})
}

// organizationDays reads an organization's usage by day in a period and the one before it. The
// caller sets Included.
func (s *Server) organizationDays(c echo.Context, organization uuid.UUID, now time.Time, period models.Period) views.Widget[charts.Daily] {
	return load(s, c, "days", func(ctx context.Context) (charts.Daily, error) {
		d := charts.Daily{Period: period, Now: now}
		var err error
		d.Used, d.Previous, err = s.pastUsage.OrganizationDays(ctx, s.db, now, period, organization)
		return d, err
	})
}

// orgCost returns what the current period costs. It counts the seats that the subscription pays
// for. A plan without a Stripe subscription has no number of seats, so each member with usage
// counts as one.
func orgCost(s *models.OrganizationSummary, held *models.Subscription) views.OrgCost {
	cost := views.OrgCost{
		Seats: s.ActiveUsers, People: s.OveragePeople, Forecast: s.Forecast,
		Overage: models.Overage{Units: s.OverageUnits, Cents: s.OverageCents},
	}
	if held != nil && held.Active() && held.Seats != nil {
		cost.Seats, cost.Subscribed = *held.Seats, true
	}
	return cost
}
