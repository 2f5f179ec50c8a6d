package web

import (
	"fmt"
	"net/url"
	"strconv"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"tollgate/models"
)

// historyAnswer is a person's past periods, newest first, the current one included.
type historyAnswer struct {
	Email   string       `json:"email"`
	Periods []pastPeriod `json:"periods" nullable:"false" doc:"Newest first. A period in which nothing was asked for is not among them, so the current one may be missing."`
}

type pastPeriod struct {
	Period       period `json:"period"`
	Plan         string `json:"plan"`
	Used         int64  `json:"used"`
	Included     int64  `json:"included"`
	Overage      int64  `json:"overage"`
	OverageCents int64  `json:"overage_cents" doc:"In cents, before tax; an estimate."`
}

// maxMonths is the longest history.
const maxMonths = 36

func (s *Server) history(c echo.Context) error {
	email, err := emailParam(c)
	if err != nil {
		return err
	}
	months := models.DefaultHistoryMonths
	query, err := url.ParseQuery(c.Request().URL.RawQuery)
	if err != nil {
		return invalid(FieldError{Path: "months", Message: "is part of a query that cannot be read"})
	}
	if given := query["months"]; given != nil {
		// A number is written in one way only, so that nothing is read into "+1" or "01".
		if months, err = strconv.Atoi(given[0]); err != nil || strconv.Itoa(months) != given[0] || months < 1 || months > maxMonths || len(given) > 1 {
			return invalid(FieldError{Path: "months", Message: fmt.Sprintf("must be a whole number from 1 to %d", maxMonths)})
		}
	}
	standings, err := models.StandingHistory(c.Request().Context(), s.db, s.catalogue, models.Now(s.now), email, months)
	if err != nil {
		return err
	}
	answer := historyAnswer{Email: email, Periods: make([]pastPeriod, len(standings))}
	for i := range standings {
		standing := &standings[i]
		answer.Periods[i] = pastPeriod{
			Period: period(standing.Period), Plan: string(standing.Plan), Used: standing.Used, Included: standing.Included,
			Overage: standing.Overage, OverageCents: standing.OverageCents,
		}
	}
	return writeJSON(c, answer)
}

// organizationAnswer is an organization's use in its current period.
type organizationAnswer struct {
	ID               string         `json:"id" format:"uuid"`
	Name             string         `json:"name"`
	Plan             string         `json:"plan"`
	Period           period         `json:"period"`
	TotalUsers       int64          `json:"total_users"`
	ActiveUsers      int64          `json:"active_users" doc:"Those who used at least one unit in the period."`
	TotalSuggestions int64          `json:"total_suggestions" doc:"Units used by all of them."`
	AveragePerUser   jsonHundredths `json:"average_per_user" doc:"Over all users, with two decimals."`
	Overage          int64          `json:"overage" doc:"Units beyond the included ones of each member, which are billed."`
	OverageCents     int64          `json:"overage_cents" doc:"In cents, before tax; an estimate."`
	TopUsers         []topUser      `json:"top_users" nullable:"false" doc:"At most ten of those who used something, most first; ties by email."`
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
	unknown := &models.Error{Code: models.CodeUnknownOrganization, Detail: "There is no organization with this id."}
	id, err := uuid.Parse(c.Param("id"))
	if err != nil || len(c.Param("id")) != 36 {
		return unknown
	}
	o, err := models.OrganizationUsage(c.Request().Context(), s.db, s.catalogue, models.Now(s.now), id)
	if err != nil {
		return err
	}
	answer := organizationAnswer{
		ID: o.ID.String(), Name: o.Name, Plan: string(o.Plan), Period: period(o.Period), TotalUsers: o.TotalUsers, ActiveUsers: o.ActiveUsers,
		TotalSuggestions: o.TotalSuggestions, AveragePerUser: jsonHundredths(o.AveragePerUser()),
		Overage: o.OverageUnits, OverageCents: o.OverageCents, TopUsers: make([]topUser, len(o.TopUsers)),
	}
	for i, u := range o.TopUsers {
		answer.TopUsers[i] = topUser{
			Rank: u.Rank, Email: u.Email, Name: u.Name, Used: u.Used, Included: u.Included,
			PercentUsed: u.PercentUsed, WarningLevel: string(u.WarningLevel),
		}
	}
	return writeJSON(c, answer)
}
