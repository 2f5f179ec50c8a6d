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
	var current models.Period
	period := load(s, c, "billing period", func(ctx context.Context) (past *models.Period, err error) {
		current, past, err = s.periodsOf(ctx, o.ID, *selected, now)
		return past, err
	})
	if page.Usage.Failed = period.Failed; period.Failed != "" {
		return true, show(c, http.StatusOK, views.PastOrgPage(page))
	}
	past := period.Value
	if past == nil {
		return false, nil
	}
	var parts sync.WaitGroup
	parts.Go(func() {
		page.Usage = load(s, c, "past period", func(ctx context.Context) (models.OrganizationPeriod, error) {
			return s.pastUsage.OrganizationPast(ctx, s.db, s.catalogue, now, o, current, *selected)
		})
	})
	parts.Go(func() { page.Refused = s.refusedMembers(c, o.ID, *past) })
	parts.Go(func() { page.Days = s.organizationDays(c, o.ID, now, *past) })
	parts.Wait()
	page.Days.Value.Included = page.Usage.Value.Included
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
