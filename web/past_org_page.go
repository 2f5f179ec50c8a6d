package web

import (
	"context"
	"net/http"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"tollgate/models"
	"tollgate/views"
	"tollgate/views/charts"
)

// pastOrgPage shows an admin a past period of the organization. ok is false if the request is for
// the current one.
func (s *Server) pastOrgPage(c echo.Context, viewer *models.Viewer) (ok bool, err error) {
	o, now := viewer.Organization, models.Now(s.now)
	selected, err := selectedPeriod(c.QueryParams(), now)
	if selected == nil || err != nil {
		return false, err
	}
	page := views.PastOrg{Frame: s.frame(c), Catalogue: s.catalogue, Name: o.Name}
	current := load(s, c, "summary", func(ctx context.Context) (models.OrganizationSummary, error) {
		return models.OrganizationTotals(ctx, s.db, s.catalogue, now, o.ID)
	})
	switch {
	case current.Failed != "":
		page.Usage.Failed = current.Failed
		return true, show(c, http.StatusOK, views.PastOrgPage(page))
	case selected.IsCurrent(current.Value.Period, now):
		return false, nil
	}
	page.Usage = load(s, c, "past period", func(ctx context.Context) (models.OrganizationPeriod, error) {
		return s.pastUsage.OrganizationPast(ctx, s.db, now, &current.Value, o.CreatedAt, *selected)
	})
	if page.Usage.Failed != "" {
		return true, show(c, http.StatusOK, views.PastOrgPage(page))
	}
	past := &page.Usage.Value
	page.Refused = load(s, c, "refusals", func(ctx context.Context) (r views.RefusedMembers, err error) {
		r.Top, r.Total, err = models.RefusedMembers(ctx, s.db, o.ID, past.Period)
		return r, err
	})
	page.Days = load(s, c, "days", func(ctx context.Context) (charts.Daily, error) {
		d := charts.Daily{Period: past.Period, Now: now, Included: past.Included}
		var err error
		d.Used, d.Previous, err = s.pastUsage.OrganizationDays(ctx, s.db, now, past.Period, o.ID)
		return d, err
	})
	return true, show(c, http.StatusOK, views.PastOrgPage(page))
}

// pastOfOrganization returns the past period of the request; nil for the current one.
func (s *Server) pastOfOrganization(c echo.Context, viewer *models.Viewer) (*models.Period, error) {
	now := models.Now(s.now)
	selected, err := selectedPeriod(c.QueryParams(), now)
	if selected == nil || err != nil {
		return nil, err
	}
	_, past, err := s.periodsOf(c.Request().Context(), viewer.Organization.ID, *selected, now)
	return past, err
}

// periodsOf returns the current billing period of an organization, and the past one that a query
// selects; nil if it selects the current one.
func (s *Server) periodsOf(
	ctx context.Context, organization uuid.UUID, selected models.PeriodQuery, now time.Time,
) (current models.Period, past *models.Period, err error) {
	current, err = models.CurrentPeriodOf(ctx, s.db, now, organization)
	if err != nil || selected.IsCurrent(current, now) {
		return current, nil, err
	}
	return current, new(selected.In(current)), nil
}
