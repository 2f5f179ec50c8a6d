package web

import (
	"errors"
	"net/url"
	"time"

	"github.com/labstack/echo/v4"

	"tollgate/models"
)

// activityAnswer lists a person's events in one billing period, newest first.
type activityAnswer struct {
	Email         string          `json:"email"`
	Period        period          `json:"period"`
	Events        []activityEvent `json:"events" nullable:"false" doc:"Newest first; at most 100."`
	NextCursor    *string         `json:"next_cursor" doc:"Continues the list; null at its end."`
	DeletedBefore *time.Time      `json:"deleted_before" doc:"Events recorded before this time may have been deleted; null if none have."`
}

type activityEvent struct {
	ID             string     `json:"id" format:"uuid"`
	OccurredAt     time.Time  `json:"occurred_at"`
	RecordedAt     time.Time  `json:"recorded_at"`
	Quantity       int64      `json:"quantity"`
	Overage        int64      `json:"overage" doc:"The part of the quantity that is billed."`
	OverageCents   int64      `json:"overage_cents"`
	UsedAfter      int64      `json:"used_after" doc:"Units used in the period, with this event, when it was recorded."`
	Workspace      *string    `json:"workspace" doc:"The Slack team."`
	IdempotencyKey *string    `json:"idempotency_key" doc:"Null if the event is from a hold."`
	HoldID         *string    `json:"hold_id" format:"uuid"`
	VoidedAt       *time.Time `json:"voided_at" doc:"When the event was reversed; null otherwise."`
	VoidReason     *string    `json:"void_reason"`
}

// activityPerPage is the number of events in one answer or on one page.
const activityPerPage = 100

func (s *Server) activity(c echo.Context) error {
	email, err := emailParam(c)
	if err != nil {
		return err
	}
	query, err := url.ParseQuery(c.Request().URL.RawQuery)
	if err != nil {
		return invalid(FieldError{Path: "period", Message: "is part of an invalid query string"})
	}
	ctx := c.Request().Context()
	selected, after, err := s.activityQuery(query, func() (models.Period, error) {
		standing, err := s.standing(ctx, email)
		return standing.Period, err
	})
	if err != nil {
		return err
	}
	page := models.ActivityPage{Period: selected.Whole}
	user, err := models.UserByEmail(ctx, s.db, email)
	if unknown := (*models.Error)(nil); errors.As(err, &unknown) && unknown.Code == models.CodeUnknownUser {
		err = nil // a new person has no events
	} else if err == nil {
		page, err = models.Activity(ctx, s.db, user.ID, selected, after, activityPerPage)
	}
	if err != nil {
		return err
	}
	answer := activityAnswer{Email: email, Period: period(page.Period), Events: make([]activityEvent, len(page.Events))}
	for i := range page.Events {
		answer.Events[i] = newActivityEvent(&page.Events[i])
	}
	answer.DeletedBefore = page.DeletedBefore
	if page.Next != nil {
		answer.NextCursor = new(page.Next.String())
	}
	return writeJSON(c, answer)
}

func newActivityEvent(e *models.ActivityEvent) activityEvent {
	a := activityEvent{
		ID: e.ID.String(), OccurredAt: e.OccurredAt.UTC(), RecordedAt: e.RecordedAt.UTC(), Quantity: e.Quantity,
		Overage: e.OverageQuantity, OverageCents: e.OverageCents, UsedAfter: e.UsedAfter, IdempotencyKey: e.IdempotencyKey,
		VoidReason: e.VoidReason,
	}
	if e.Workspace != "" {
		a.Workspace = &e.Workspace
	}
	if e.HoldID != nil {
		a.HoldID = new(e.HoldID.String())
	}
	if e.VoidedAt != nil {
		a.VoidedAt = new(e.VoidedAt.UTC())
	}
	return a
}

// activityQuery reads the parameters period and cursor. Without a period, it selects the current one.
func (s *Server) activityQuery(query url.Values, current func() (models.Period, error)) (models.PeriodQuery, *models.ActivityCursor,
	error) {
	var errs []FieldError
	after := parameter(query, "cursor", models.ParseCursor, &errs)
	selected := parameter(query, "period", begunPeriod(models.Now(s.now)), &errs)
	if errs != nil {
		return selected, nil, invalid(errs...)
	}
	if selected.Start.IsZero() {
		p, err := current()
		if err != nil {
			return selected, nil, err
		}
		selected = models.PeriodQueryOf(p)
	}
	return selected, after, nil
}
