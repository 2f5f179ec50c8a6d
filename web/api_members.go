package web

import (
	"github.com/labstack/echo/v4"

	"tollgate/models"
)

// membersAnswer lists an organization's members in one billing period, sorted by email.
type membersAnswer struct {
	ID         string               `json:"id" format:"uuid" doc:"The organization."`
	Period     period               `json:"period"`
	Members    []organizationMember `json:"members" nullable:"false"`
	NextCursor *string              `json:"next_cursor" doc:"Continues the list; null at its end."`
}

type organizationMember struct {
	ID           string `json:"id" format:"uuid"`
	Email        string `json:"email"`
	Name         string `json:"name"`
	Role         string `json:"role" enum:"member,admin" doc:"The current role."`
	Used         int64  `json:"used"`
	Included     int64  `json:"included" doc:"0 in a past period without usage."`
	PercentUsed  int64  `json:"percent_used"`
	WarningLevel string `json:"warning_level" enum:"safe,warning,critical,exceeded"`
	Overage      int64  `json:"overage" doc:"Billed units beyond the included ones, whoever pays for them."`
	OverageCents int64  `json:"overage_cents" doc:"Estimate in cents, before tax."`
	MemberLimit  *int64 `json:"member_limit" doc:"The member's own limit now; null means the organization's default."`
}

// membersPerPage is the number of members that one answer reads.
const membersPerPage = 100

func (s *Server) organizationMembers(c echo.Context) error {
	id, err := organizationID(c)
	if err != nil {
		return err
	}
	now := models.Now(s.now)
	query, err := organizationQuery(c)
	if err != nil {
		return err
	}
	var errs []FieldError
	after := parameter(query, "cursor", func(text string) (*models.MemberCursor, error) {
		return models.ParseMemberCursor(text, id)
	}, &errs)
	selected := parameter(query, "period", begunPeriod(now), &errs)
	if errs != nil {
		return invalid(errs...)
	}
	ctx := c.Request().Context()
	if _, err := models.OrganizationByID(ctx, s.db, id); err != nil {
		return err
	}
	if selected.Start.IsZero() {
		selected.Start, selected.End = now, now.Add(1)
	}
	shown, past, err := s.periodsOf(ctx, id, selected, now)
	if err != nil {
		return err
	}
	if past != nil {
		shown = *past
	}
	page, err := models.MembersAfter(ctx, s.db, s.catalogue, now, id, past, after, membersPerPage)
	if err != nil {
		return err
	}
	answer := membersAnswer{ID: id.String(), Period: period(shown), Members: make([]organizationMember, len(page.Rows))}
	for i := range page.Rows {
		m := &page.Rows[i]
		u := &m.Standing
		answer.Members[i] = organizationMember{
			ID: m.ID.String(), Email: u.Email, Name: m.Name, Role: string(m.Role), Used: u.Used, Included: u.Included,
			PercentUsed: u.PercentUsed(), WarningLevel: string(u.Level()), Overage: u.Overage, OverageCents: u.OverageCents,
			MemberLimit: m.MemberLimit,
		}
	}
	if page.Next != nil {
		answer.NextCursor = new(page.Next.String())
	}
	return writeJSON(c, answer)
}
