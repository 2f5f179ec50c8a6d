package web

import (
	"context"
	"net/http"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"tollgate/models"
	"tollgate/views"
)

// activityCSVPatience is how long a CSV file of events may take: it is sent in parts.
const activityCSVPatience = 25 * time.Second

// activityCSVRows is the number of events that are read at once for a CSV file.
const activityCSVRows = 1000

// activityPage lists the viewer's own events.
func (s *Server) activityPage(c echo.Context, viewer *models.Viewer) error {
	return s.showActivity(c, &viewer.User, views.Activity{Path: "/usage/activity", Back: homePath})
}

// activityCSV has all events of a period of the viewer's.
func (s *Server) activityCSV(c echo.Context, viewer *models.Viewer) error {
	return s.sendActivity(c, &viewer.User)
}

// orgActivityPage shows an admin the events of a member.
func (s *Server) orgActivityPage(c echo.Context, viewer *models.Viewer) error {
	user, err := s.member(c, viewer)
	if err != nil {
		return err
	}
	about := "/org/members/" + user.ID.String()
	return s.showActivity(c, user, views.Activity{Path: about + "/activity", Back: about, Name: user.Name, Email: user.Email})
}

func (s *Server) orgActivityCSV(c echo.Context, viewer *models.Viewer) error {
	user, err := s.member(c, viewer)
	if err != nil {
		return err
	}
	return s.sendActivity(c, user)
}

// member returns the member of the viewer's organization in the path.
func (s *Server) member(c echo.Context, viewer *models.Viewer) (*models.User, error) {
	id, err := uuid.Parse(c.Param("id"))
	if err != nil {
		return nil, echo.ErrNotFound
	}
	user, err := models.MemberOf(c.Request().Context(), s.db, viewer.Organization.ID, id)
	if err == nil && user == nil {
		err = echo.ErrNotFound
	}
	return user, err
}

// selectedActivity returns the billing periods and the cursor of the request. An invalid parameter
// is a page that does not exist.
func (s *Server) selectedActivity(c echo.Context, user *models.User) (models.PeriodQuery, *models.ActivityCursor, error) {
	selected, after, err := s.activityQuery(c.QueryParams(), func() (models.Period, error) {
		standing, err := s.standing(c.Request().Context(), user.Email)
		return standing.Period, err
	})
	if isProblem(err) {
		err = echo.ErrNotFound
	}
	return selected, after, err
}

func (s *Server) showActivity(c echo.Context, user *models.User, page views.Activity) error {
	selected, after, err := s.selectedActivity(c, user)
	if err != nil {
		return err
	}
	page.Frame, page.Catalogue, page.Selected, page.Continued = s.frame(c), s.catalogue, c.QueryParam("period"), after != nil
	page.Page = load(s, c, "activity", func(ctx context.Context) (models.ActivityPage, error) {
		return models.Activity(ctx, s.db, user.ID, selected, after, activityPerPage)
	})
	return show(c, http.StatusOK, views.ActivityPage(page))
}

// sendActivity sends all events of a period as a CSV file, part by part. If a later part fails, it
// breaks the connection, so that the file does not look complete.
func (s *Server) sendActivity(c echo.Context, user *models.User) error {
	selected, after, err := s.selectedActivity(c, user)
	if err != nil {
		return err
	}
	ctx := c.Request().Context()
	part, err := models.Activity(ctx, s.db, user.ID, selected, after, activityCSVRows)
	if err != nil {
		return err
	}
	name := "activity-" + models.FormatPeriod(part.Period) + ".csv"
	return writeCSV(c, name, func(row func(...any)) {
		row("occurred_at", "recorded_at", "units", "used_after", "overage", "overage_cents", "workspace", "voided_at", "void_reason", "event_id")
		for {
			for _, e := range part.Events {
				voided, reason := any(""), ""
				if e.VoidedAt != nil {
					voided = *e.VoidedAt
				}
				if e.VoidReason != nil {
					reason = *e.VoidReason
				}
				row(e.OccurredAt, e.RecordedAt, e.Quantity, e.UsedAfter, e.OverageQuantity, e.OverageCents, e.Workspace, voided, reason, e.ID)
			}
			if part.Next == nil {
				return
			}
			if part, err = models.Activity(ctx, s.db, user.ID, selected, part.Next, activityCSVRows); err != nil {
				s.log.Warn("a file of events ended early", "request_id", requestID(c), "error", err)
				panic(http.ErrAbortHandler)
			}
		}
	})
}
