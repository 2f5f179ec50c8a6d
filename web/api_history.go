package web

import (
	"fmt"
	"net/url"
	"strconv"

	"github.com/labstack/echo/v4"

	"tollgate/models"
)

// historyAnswer lists a person's billing periods, newest first, including the current one.
type historyAnswer struct {
	Email   string       `json:"email"`
	Periods []pastPeriod `json:"periods" nullable:"false" doc:"Newest first. Periods without a record are left out."`
}

type pastPeriod struct {
	Period       period `json:"period"`
	Plan         string `json:"plan"`
	Used         int64  `json:"used"`
	Included     int64  `json:"included"`
	Overage      int64  `json:"overage"`
	OverageCents int64  `json:"overage_cents" doc:"Estimate in cents, before tax."`
}

// maxMonths is the maximum length of the history.
const maxMonths = 36

func (s *Server) history(c echo.Context) error {
	email, err := emailParam(c)
	if err != nil {
		return err
	}
	months := models.DefaultHistoryMonths
	query, err := url.ParseQuery(c.Request().URL.RawQuery)
	if err != nil {
		return invalid(FieldError{Path: "months", Message: "is part of an invalid query string"})
	}
	if given := query["months"]; given != nil {
		// Only the canonical form of a number is accepted, not "+1" or "01".
		months, err = strconv.Atoi(given[0])
		if err != nil || strconv.Itoa(months) != given[0] || months < 1 || months > maxMonths || len(given) > 1 {
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
