package web

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"tollgate/models"
	"tollgate/views"
	"tollgate/views/ui"
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
	return s.sendActivity(c, &viewer.User, false)
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
	return s.sendActivity(c, user, false)
}

// selectedActivity returns the billing periods and the cursor of the request. An invalid parameter
// is a page that does not exist.
func (s *Server) selectedActivity(c echo.Context, user *models.User) (models.PeriodQuery, *models.ActivityCursor, error) {
	selected, after, err := s.activityQuery(c.QueryParams(), func() (models.Period, error) {
		standing, err := s.standing(c.Request().Context(), user.Email)
		return standing.Period, err
	})
	if p := (*Problem)(nil); errors.As(err, &p) {
		err = echo.ErrNotFound
		if slices.ContainsFunc(p.Errors, func(e FieldError) bool { return e.Path == "period" }) {
			err = noSuchPeriod()
		}
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
	if o := page.Operator; o != nil {
		voids := load(s, c, "voids", func(ctx context.Context) (map[uuid.UUID]models.UsageVoid, error) {
			return s.voidsOf(ctx, user.ID, page.Page.Value.Events)
		})
		if o.Voids = voids.Value; voids.Failed != "" {
			page.Page.Failed = voids.Failed
		}
		if n, ok := voidNotices[s.flashed(c, eventVoided, eventVoidedBefore)]; ok {
			page.Frame.Notices = []ui.Notice{n}
		}
	}
	return show(c, http.StatusOK, views.ActivityPage(page))
}

// sendActivity sends all events of a period as a CSV file, part by part. If a later part fails, it
// breaks the connection, so that the file does not look complete. The operator's file also has who
// voided an event, and what happened at Stripe.
func (s *Server) sendActivity(c echo.Context, user *models.User, operator bool) error {
	selected, after, err := s.selectedActivity(c, user)
	if err != nil {
		return err
	}
	ctx := c.Request().Context()
	var voids map[uuid.UUID]models.UsageVoid
	read := func(after *models.ActivityCursor) (models.ActivityPage, error) {
		part, err := models.Activity(ctx, s.db, user.ID, selected, after, activityCSVRows)
		if err == nil && operator {
			voids, err = s.voidsOf(ctx, user.ID, part.Events)
		}
		return part, err
	}
	part, err := read(after)
	if err != nil {
		return err
	}
	columns := []any{
		"occurred_at", "recorded_at", "units", "used_after", "overage", "overage_cents", "workspace", "voided_at", "void_reason", "event_id",
	}
	if operator {
		columns = append(columns, "voided_by", "void_state", "credit_note", "void_error")
	}
	name := "activity-" + models.FormatPeriod(part.Period) + ".csv"
	if part.DeletedBefore != nil { // a row that says so would not be an event
		name = "activity-" + models.FormatPeriod(part.Period) + "-without-deleted-events.csv"
	}
	return writeCSV(c, name, func(row func(...any)) {
		row(columns...)
		for {
			for _, e := range part.Events {
				voided, reason := any(""), ""
				if e.VoidedAt != nil {
					voided = *e.VoidedAt
				}
				if e.VoidReason != nil {
					reason = *e.VoidReason
				}
				cells := []any{
					e.OccurredAt, e.RecordedAt, e.Quantity, e.UsedAfter, e.OverageQuantity, e.OverageCents, e.Workspace, voided, reason, e.ID,
				}
				if operator {
					v := voids[e.ID]
					cells = append(cells, v.VoidedBy, string(v.State), textOr(v.CreditNoteID), textOr(v.LastError))
				}
				row(cells...)
			}
			if part.Next == nil {
				return
			}
			if part, err = read(part.Next); err != nil {
				s.log.Warn("a file of events ended early", "request_id", requestID(c), "error", err)
				panic(http.ErrAbortHandler)
			}
		}
	})
}

// textOr returns a text, or an empty one for nil.
func textOr(text *string) string {
	if text == nil {
		return ""
	}
	return *text
}
