package web

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"tollgate/models"
	"tollgate/views"
)

// orgMembersPage lists the organization's people.
func (s *Server) orgMembersPage(c echo.Context, who *models.Viewer) error {
	page := views.Members{
		Frame: s.frame(c), Catalogue: s.catalogue, Organization: who.Organization.Name, Query: views.ParseMembersQuery(c.QueryParams()),
	}
	page.List = load(s, c, "members", func(ctx context.Context) (views.MembersList, error) {
		found, total, err := s.findMembers(ctx, who.Organization.ID, page.Query, page.Frame.Now)
		if err != nil {
			return views.MembersList{}, err
		}
		list := views.MembersList{Found: int64(len(found)), Total: total}
		last := max(1, (len(found)+views.MembersPerPage-1)/views.MembersPerPage)
		page.Query.Page = min(page.Query.Page, last)
		first := (page.Query.Page - 1) * views.MembersPerPage
		list.Rows = found[first:min(len(found), first+views.MembersPerPage)]
		page.Billed = slices.ContainsFunc(found, func(m views.MemberRow) bool { return m.Standing.OverageRateCents > 0 })
		return list, s.addMonths(ctx, list.Rows, page.Frame.Now)
	})
	return show(c, http.StatusOK, views.OrgMembersPage(page))
}

// orgMembersCSV is the same people in the same order, on one page.
func (s *Server) orgMembersCSV(c echo.Context, who *models.Viewer) error {
	now := models.Now(s.now)
	found, _, err := s.findMembers(c.Request().Context(), who.Organization.ID, views.ParseMembersQuery(c.QueryParams()), now)
	if err != nil {
		return err
	}
	return writeCSV(c, "members-"+now.Format(time.DateOnly)+".csv", func(row func(...any)) {
		row("name", "email", "role", "plan", "period_start", "period_end", "used", "included", "percent_used", "warning_level", "overage", "overage_cents", "last_period_used")
		for i := range found {
			m := &found[i]
			last := any("")
			if m.LastPeriod != nil {
				last = *m.LastPeriod
			}
			st := &m.Standing
			row(m.Name, st.Email, m.Role, st.Plan, st.Period.Start, st.Period.End, st.Used, st.Included, st.PercentUsed(), st.Level(), st.Overage(), st.OverageCents(), last)
		}
	})
}

// findMembers returns whom a query finds, in its order, and how many there are in all.
func (s *Server) findMembers(ctx context.Context, organization uuid.UUID, q views.MembersQuery, now time.Time) ([]views.MemberRow, int64, error) {
	all, err := models.OrganizationMembers(ctx, s.db, s.catalogue, now, organization)
	if err != nil {
		return nil, 0, err
	}
	search := strings.ToLower(q.Search)
	found := make([]views.MemberRow, 0, len(all))
	for i := range all {
		m := &all[i]
		if q.Level != "" && m.Standing.Level() != q.Level {
			continue
		}
		if search != "" && !strings.Contains(m.Standing.Email, search) && !strings.Contains(strings.ToLower(m.Name), search) {
			continue
		}
		found = append(found, views.MemberRow{ID: m.ID, Name: m.Name, Role: m.Role, SignedUp: m.SignedUp, Standing: m.Standing, LastPeriod: m.LastPeriod})
	}
	order := memberOrder(q.Sort)
	slices.SortFunc(found, func(a, b views.MemberRow) int {
		by := order(&a, &b)
		if q.Descending {
			by = -by
		}
		return cmp.Or(by, strings.Compare(a.Standing.Email, b.Standing.Email))
	})
	return found, int64(len(all)), nil
}

// levelRanks are the levels from none to all of the plan used.
var levelRanks = []models.WarningLevel{models.Safe, models.Warning, models.Critical, models.Exceeded}

// memberOrder compares two people by a column. Who has no name or no last period comes before all who have.
func memberOrder(by views.MemberSort) func(a, b *views.MemberRow) int {
	number := func(of func(*views.MemberRow) int64) func(a, b *views.MemberRow) int {
		return func(a, b *views.MemberRow) int { return cmp.Compare(of(a), of(b)) }
	}
	switch by {
	case views.SortName:
		return func(a, b *views.MemberRow) int {
			return strings.Compare(strings.ToLower(a.Name), strings.ToLower(b.Name))
		}
	case views.SortEmail:
		return func(a, b *views.MemberRow) int { return strings.Compare(a.Standing.Email, b.Standing.Email) }
	case views.SortIncluded:
		return number(func(m *views.MemberRow) int64 { return m.Standing.Included })
	case views.SortPercent:
		return number(func(m *views.MemberRow) int64 { return m.Standing.PercentUsed() })
	case views.SortLevel:
		return number(func(m *views.MemberRow) int64 { return int64(slices.Index(levelRanks, m.Standing.Level())) })
	case views.SortOverage:
		return number(func(m *views.MemberRow) int64 { return m.Standing.OverageCents() })
	case views.SortLastPeriod:
		return number(func(m *views.MemberRow) int64 {
			if m.LastPeriod == nil {
				return -1
			}
			return *m.LastPeriod
		})
	}
	return number(func(m *views.MemberRow) int64 { return m.Standing.Used })
}

// addMonths gives the people of one page their last months.
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
		m.Months = chartMonths(models.Months(m.Standing, records[m.Standing.Email], m.SignedUp, models.HistoryMonths))
	}
	return nil
}

// orgMemberPage shows an admin one person of the organization. Somebody of another one is not there.
func (s *Server) orgMemberPage(c echo.Context, who *models.Viewer) error {
	id, err := uuid.Parse(c.Param("id"))
	if err != nil {
		return echo.ErrNotFound
	}
	user, err := models.MemberOf(c.Request().Context(), s.db, who.Organization.ID, id)
	if err != nil {
		return err
	}
	if user == nil {
		return echo.ErrNotFound
	}
	page := views.OrgMember{
		Frame: s.frame(c), Catalogue: s.catalogue, Organization: who.Organization.Name, Name: user.Name, Email: user.Email, Role: user.Role,
		SignedUp: user.CreatedAt, Plan: s.catalogue.Free(),
	}
	p := s.loadPerson(c, user.Email, user.CreatedAt, page.Frame.Now)
	page.Standing, page.Days, page.Months, page.Comparison = p.standing, p.days, p.months, p.comparison
	if plan, ok := s.catalogue.Plan(p.standing.Value.Plan); ok {
		page.Plan = plan
	}
	return show(c, http.StatusOK, views.OrgMemberPage(page))
}
