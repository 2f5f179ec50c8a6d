package web

import (
	"context"
	"net/http"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"tollgate/models"
	"tollgate/views"
	"tollgate/views/ui"
)

// orgMembersPage lists the organization's members.
func (s *Server) orgMembersPage(c echo.Context, viewer *models.Viewer) error {
	past, err := s.pastOfOrganization(c, viewer)
	if err != nil {
		return err
	}
	page := views.Members{
		Frame: s.frame(c), Catalogue: s.catalogue, Organization: viewer.Organization.Name,
		Query: views.ParseMembersQuery(c.QueryParams()),
	}
	if s.flashed(c, memberRemoved) != "" {
		page.Frame.Notices = []ui.Notice{{Kind: ui.Done, Title: "Member removed", Text: "They are no longer in the organization."}}
	}
	page.Query.Past = past
	page.List = load(s, c, "members", func(ctx context.Context) (views.MembersList, error) {
		found, err := s.findMembers(ctx, viewer.Organization.ID, page.Query, views.MembersPerPage, page.Frame.Now)
		if err != nil {
			return views.MembersList{}, err
		}
		page.Query.Page, page.Billed = found.Page, found.Billed
		list := views.MembersList{Found: found.Found, Total: found.Total, Rows: make([]views.MemberRow, len(found.Rows))}
		for i := range found.Rows {
			list.Rows[i].MemberUsage = found.Rows[i]
		}
		if past != nil {
			return list, nil
		}
		return list, s.addMonths(ctx, list.Rows, page.Frame.Now)
	})
	return show(c, http.StatusOK, views.OrgMembersPage(page))
}

// orgMembersCSV sends the same members in the same order, all in one file.
func (s *Server) orgMembersCSV(c echo.Context, viewer *models.Viewer) error {
	now := models.Now(s.now)
	past, err := s.pastOfOrganization(c, viewer)
	if err != nil {
		return err
	}
	query := views.ParseMembersQuery(c.QueryParams())
	query.Past = past
	name := "members-" + now.Format(time.DateOnly) + ".csv"
	if past != nil {
		name = "members-" + models.FormatPeriod(*past) + ".csv"
	}
	found, err := s.findMembers(c.Request().Context(), viewer.Organization.ID, query, 0, now)
	if err != nil {
		return err
	}
	return writeCSV(c, name, func(row func(...any)) {
		row("name", "email", "role", "plan", "period_start", "period_end", "used", "included",
			"percent_used", "warning_level", "overage", "overage_cents", "last_period_used")
		for i := range found.Rows {
			m := &found.Rows[i]
			last := any("")
			if m.LastPeriod != nil {
				last = *m.LastPeriod
			}
			st := &m.Standing
			if st.Plan == "" { // a past period without a record
				row(m.Name, st.Email, m.Role, "", st.Period.Start, st.Period.End, 0, "", "", "", 0, 0, last)
				continue
			}
			row(m.Name, st.Email, m.Role, st.Plan, st.Period.Start, st.Period.End, st.Used, st.Included,
				st.PercentUsed(), st.Level(), st.Overage, st.OverageCents, last)
		}
	})
}

// findMembers returns the members that match a query. If perPage is 0, it returns all of them.
func (s *Server) findMembers(
	ctx context.Context, organization uuid.UUID, q views.MembersQuery, perPage int, now time.Time,
) (models.MemberList, error) {
	query := models.MemberQuery(q)
	query.PerPage = perPage
	return models.FindMembers(ctx, s.db, s.catalogue, now, organization, query)
}

// addMonths adds the previous months of the members on one page.
func (s *Server) addMonths(ctx context.Context, rows []views.MemberRow, now time.Time) error {
	emails := make([]string, len(rows))
	for i := range rows {
		emails[i] = rows[i].Standing.Email
	}
	records, err := models.RecordsSince(ctx, s.db, now.Add(-historySpan), emails)
	if err != nil {
		return err
	}
	for i := range rows {
		m := &rows[i]
		m.Months = models.Months(m.Standing, records[m.Standing.Email], m.SignedUp, models.HistoryMonths)
	}
	return nil
}
