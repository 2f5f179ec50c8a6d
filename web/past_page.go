package web

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/labstack/echo/v4"

	"tollgate/models"
	"tollgate/views"
)

// noSuchPeriod is the error of a page for an invalid period, or for one that has not begun.
func noSuchPeriod() *Problem {
	p := newProblem(codeNotFound, "There is no such billing period. Use a past month or the current one, such as ?period=2026-10.")
	p.detailed = true
	return p
}

// selectedPeriod returns the parameter period; nil without one. It returns noSuchPeriod if it is
// invalid or has not begun.
func selectedPeriod(query url.Values, now time.Time) (*models.PeriodQuery, error) {
	texts := query["period"]
	if texts == nil {
		return nil, nil
	}
	selected, err := models.ParsePeriod(texts[0])
	if err != nil || len(texts) > 1 || selected.Start.After(now) {
		return nil, noSuchPeriod()
	}
	return &selected, nil
}

// pastPerson reads a person's usage in the period of the request; nil if this is the current one.
func (s *Server) pastPerson(c echo.Context, user *models.User, now time.Time) (*views.Past, error) {
	selected, err := selectedPeriod(c.QueryParams(), now)
	if selected == nil || err != nil {
		return nil, err
	}
	page := &views.Past{Frame: s.frame(c), Catalogue: s.catalogue, Selected: models.FormatPeriod(selected.Whole)}
	standing := load(s, c, "standing", func(ctx context.Context) (models.Standing, error) {
		return s.standing(ctx, user.Email)
	})
	if standing.Failed != "" {
		page.Usage.Failed = standing.Failed
		return page, nil
	}
	if selected.IsCurrent(standing.Value.Period, now) {
		return nil, nil
	}
	page.Usage = load(s, c, "past period", func(ctx context.Context) (models.PastUsage, error) {
		records, err := models.RecordsSince(ctx, s.db, selected.SinceForPast(now), []string{user.Email})
		if err != nil {
			return models.PastUsage{}, err
		}
		past := models.NewPastUsage(standing.Value, records[user.Email], user.CreatedAt, *selected)
		page.Trial, err = models.WasTrial(ctx, s.db, past.Payer, past.Standing.Period)
		return past, err
	})
	if page.Usage.Failed == "" {
		page.Refusals = load(s, c, "refusals", func(ctx context.Context) ([]models.RefusalCount, error) {
			return models.RefusalsOf(ctx, s.db, user.ID, page.Usage.Value.Standing.Period)
		})
	}
	return page, nil
}

// pastUsagePage shows a past period of the viewer's. ok is false if the request is for the current
// one.
func (s *Server) pastUsagePage(c echo.Context, viewer *models.Viewer) (ok bool, err error) {
	page, err := s.pastPerson(c, &viewer.User, models.Now(s.now))
	if page == nil || err != nil {
		return false, err
	}
	page.Title, page.Path, page.Section = "Usage", homePath, homePath
	page.Activity, page.File = "/usage/activity", "/usage.csv"
	return true, show(c, http.StatusOK, views.PastPage(*page))
}

// pastMemberPage shows a past period of a member. ok is false if the request is for the current one.
func (s *Server) pastMemberPage(c echo.Context, user *models.User) (ok bool, err error) {
	page, err := s.pastPerson(c, user, models.Now(s.now))
	if page == nil || err != nil {
		return false, err
	}
	page.Title, page.Path = user.Name, "/org/members/"+user.ID.String()
	if page.About = user.Email; page.Title == "" {
		page.Title, page.About = user.Email, ""
	}
	page.Activity, page.File = page.Path+"/activity", page.Path+"/activity.csv"
	return true, show(c, http.StatusOK, views.PastPage(*page))
}

// sendPastUsage sends the row and the days of a past period. Cells without a value are empty: a
// period without a record has no plan and no limit.
func sendPastUsage(c echo.Context, past *views.Past) error {
	if past.Usage.Failed != "" {
		if err := c.Request().Context().Err(); err != nil {
			return err // the client left
		}
		return models.Unavailable(fmt.Errorf("the figures for the CSV file could not be loaded: request %s", requestID(c)))
	}
	u := &past.Usage.Value
	return writeCSV(c, "usage-"+past.Selected+".csv", func(row func(...any)) {
		row(usageColumns...)
		if !u.Recorded {
			if !u.BeforeSignUp {
				row("period", u.Standing.Period.Start, u.Standing.Period.End, "", 0, "", 0, "", "", "", 0, 0)
			}
			return
		}
		row(usageRow(u.Standing)...)
		for _, d := range past.Days().Until() {
			row(dayRow(d, u.Standing.Plan)...)
		}
	})
}
