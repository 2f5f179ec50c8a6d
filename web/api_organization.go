package web

import (
	"errors"
	"net/url"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"tollgate/models"
)

// organizationAnswer is an organization's usage in a billing period.
type organizationAnswer struct {
	ID               string         `json:"id" format:"uuid"`
	Name             string         `json:"name"`
	Plan             string         `json:"plan"`
	Period           period         `json:"period"`
	TotalUsers       int64          `json:"total_users"`
	ActiveUsers      int64          `json:"active_users" doc:"Users who used at least one unit in the period."`
	TotalSuggestions int64          `json:"total_suggestions" doc:"Units used by all users."`
	AveragePerUser   jsonHundredths `json:"average_per_user" doc:"Average over all users, with two decimals."`
	Overage          int64          `json:"overage" doc:"Overage of the current members: billed units beyond the included ones, whoever pays."`
	OverageCents     int64          `json:"overage_cents" doc:"Estimate in cents, before tax."`
	SpendLimitCents  *int64         `json:"spend_limit_cents"`
	MemberLimit      *int64         `json:"member_limit"`
	TopUsers         []topUser      `json:"top_users" nullable:"false" doc:"The ten users with the most usage; ties sorted by email."`
}

// TransformSchema adds a description that is too long for the struct tag.
func (organizationAnswer) TransformSchema(_ huma.Registry, s *huma.Schema) *huma.Schema {
	s.Properties["plan"].Description = "The plan's ID; free if the organization has no plan. Members may have plans of their own. In a " +
		"past period, the plan of most members; empty if there was no usage."
	s.Properties["spend_limit_cents"].Description = "The maximum price, in cents, of the overage that the organization's subscription " +
		"pays for in a billing period; null means no limit. In a past period, the limit at its end."
	s.Properties["member_limit"].Description = "The default maximum of units per member and period; null means no limit. " +
		"Always null in a past period."
	return s
}

type topUser struct {
	Rank         int    `json:"rank"`
	Email        string `json:"email"`
	Name         string `json:"name"`
	Used         int64  `json:"used"`
	Included     int64  `json:"included"`
	PercentUsed  int64  `json:"percent_used"`
	WarningLevel string `json:"warning_level" enum:"safe,warning,critical,exceeded"`
}

// jsonHundredths is a number with two decimals, exact.
type jsonHundredths float64

// MarshalJSON writes 42.95, and 3.00 as 3.00.
func (h jsonHundredths) MarshalJSON() ([]byte, error) {
	return strconv.AppendFloat(nil, float64(h), 'f', 2, 64), nil
}

func (s *Server) organizationUsage(c echo.Context) error {
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
	selected := parameter(query, "period", begunPeriod(now), &errs)
	switch {
	case errs != nil:
		return invalid(errs...)
	case selected.Start.IsZero():
		return s.answerOrganization(c, id)
	}
	ctx := c.Request().Context()
	o, err := models.OrganizationByID(ctx, s.db, id)
	if err != nil {
		return err
	}
	_, past, err := s.periodsOf(ctx, id, selected, now)
	if err != nil {
		return err
	}
	if past == nil {
		return s.answerOrganization(c, id)
	}
	summary, err := s.pastUsage.PastSummary(ctx, s.db, now, &o, *past)
	if err != nil {
		return err
	}
	return writeOrganization(c, &summary)
}

// organizationQuery returns the query parameters of a call about an organization.
func organizationQuery(c echo.Context) (url.Values, error) {
	query, err := url.ParseQuery(c.Request().URL.RawQuery)
	if err != nil {
		return nil, invalid(FieldError{Path: "period", Message: "is part of an invalid query string"})
	}
	return query, nil
}

// begunPeriod returns a function that parses a period that has begun.
func begunPeriod(now time.Time) func(string) (models.PeriodQuery, error) {
	return func(text string) (models.PeriodQuery, error) {
		q, err := models.ParsePeriod(text)
		if err == nil && q.Start.After(now) {
			return models.PeriodQuery{}, errors.New("must not be in the future")
		}
		return q, err
	}
}

// organizationID returns the organization of the path.
func organizationID(c echo.Context) (uuid.UUID, error) {
	id, err := uuid.Parse(c.Param("id"))
	if err != nil || len(c.Param("id")) != 36 {
		return uuid.Nil, &models.Error{Code: models.CodeUnknownOrganization, Detail: "There is no organization with this ID."}
	}
	return id, nil
}

func (s *Server) answerOrganization(c echo.Context, id uuid.UUID) error {
	o, err := models.OrganizationUsage(c.Request().Context(), s.db, s.catalogue, models.Now(s.now), id)
	if err != nil {
		return err
	}
	return writeOrganization(c, &o)
}

func writeOrganization(c echo.Context, o *models.OrganizationSummary) error {
	answer := organizationAnswer{
		ID: o.ID.String(), Name: o.Name, Plan: string(o.Plan), Period: period(o.Period),
		TotalUsers: o.TotalUsers, ActiveUsers: o.ActiveUsers, TotalSuggestions: o.TotalSuggestions,
		AveragePerUser: jsonHundredths(o.AveragePerUser()), Overage: o.OverageUnits, OverageCents: o.OverageCents,
		SpendLimitCents: o.SpendLimitCents, MemberLimit: o.MemberLimit,
		TopUsers: make([]topUser, len(o.TopUsers)),
	}
	for i, u := range o.TopUsers {
		answer.TopUsers[i] = topUser{
			Rank: u.Rank, Email: u.Email, Name: u.Name, Used: u.Used, Included: u.Included,
			PercentUsed: u.PercentUsed, WarningLevel: string(u.WarningLevel),
		}
	}
	return writeJSON(c, answer)
}
