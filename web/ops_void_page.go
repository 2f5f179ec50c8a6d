package web

import (
	"context"
	"net/http"
	"strings"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"tollgate/models"
	"tollgate/views"
	"tollgate/views/ui"
)

// opsActivityPage shows the operator a person's events, each with a link to void it.
func (s *Server) opsActivityPage(c echo.Context, _ *models.Viewer) error {
	user, err := s.anyPerson(c)
	if err != nil {
		return err
	}
	return s.showActivity(c, &user.User, views.Activity{
		Path: views.PathOpsActivity(user.ID), Back: views.PathOpsPerson(user.ID), Name: user.Name, Email: user.Email,
		Operator: &views.OpsActivity{Person: user.ID, Cursor: c.QueryParam(views.FieldCursor)},
	})
}

func (s *Server) opsActivityCSV(c echo.Context, _ *models.Viewer) error {
	user, err := s.anyPerson(c)
	if err != nil {
		return err
	}
	return s.sendActivity(c, &user.User, true)
}

// voidsOf returns the voids of a person's events.
func (s *Server) voidsOf(ctx context.Context, user uuid.UUID, events []models.ActivityEvent) (map[uuid.UUID]models.UsageVoid, error) {
	var ids []uuid.UUID
	for _, e := range events {
		if e.VoidedAt != nil {
			ids = append(ids, e.ID)
		}
	}
	return models.VoidsOf(ctx, s.db, user, ids)
}

// voidNotices are the messages that the list shows once after the form of a void.
var voidNotices = map[flash]ui.Notice{
	eventVoided:       {Kind: ui.Done, Title: "Event voided"},
	eventVoidedBefore: {Kind: ui.Info, Title: "This event was already voided", Text: "Nothing was changed."},
}

// eventToVoid returns the page of the event that a form or its confirmation names.
func (s *Server) eventToVoid(c echo.Context, value func(name string) string) (page views.OpsVoid, v models.NewVoid, err error) {
	user, err := s.anyPerson(c)
	if err != nil {
		return page, v, err
	}
	v = models.NewVoid{UserID: user.ID, IdempotencyKey: value(views.FieldKey), Reported: true}
	if hold := value(views.FieldHold); hold != "" {
		if v.HoldID, err = uuid.Parse(hold); err != nil {
			return page, v, echo.ErrNotFound
		}
	}
	if !isText(v.IdempotencyKey) {
		return page, v, echo.ErrNotFound
	}
	event, err := models.EventToVoid(c.Request().Context(), s.db, v)
	if hasCode(err, models.CodeUnknownEvent) {
		return page, v, echo.ErrNotFound
	}
	if err != nil {
		return page, v, err
	}
	return views.OpsVoid{
		Frame: s.frame(c), Catalogue: s.catalogue, Person: user, Event: *event,
		Period: value(views.FieldPeriod), Cursor: value(views.FieldCursor),
	}, v, nil
}

// opsVoidPage asks for confirmation and a reason.
func (s *Server) opsVoidPage(c echo.Context, _ *models.Viewer) error {
	page, _, err := s.eventToVoid(c, c.QueryParam)
	if err != nil {
		return err
	}
	if page.Event.VoidedAt != nil {
		return s.done(c, page.Back(), eventVoidedBefore)
	}
	page.Frame.Prefix = "Confirm: "
	return show(c, http.StatusOK, views.OpsVoidPage(page))
}

// opsVoid voids an event.
func (s *Server) opsVoid(c echo.Context, viewer *models.Viewer) error {
	page, v, err := s.eventToVoid(c, c.FormValue)
	if err != nil {
		return err
	}
	if page.Event.VoidedAt != nil {
		return s.done(c, page.Back(), eventVoidedBefore)
	}
	v.Actor, v.Reason = viewer.User.Email, strings.TrimSpace(c.FormValue(views.FieldReason))
	if !models.IsReason(v.Reason) {
		page.Reason = v.Reason
		page.Frame.Errors = []ui.FormError{{Field: views.FieldIDVoidReason, Message: noReason}}
		return show(c, http.StatusUnprocessableEntity, views.OpsVoidPage(page))
	}
	voided, err := models.Void(c.Request().Context(), s.db, s.catalogue, models.Now(s.now), v)
	if err != nil {
		return err
	}
	if voided.Replayed {
		return s.done(c, page.Back(), eventVoidedBefore)
	}
	return s.done(c, page.Back(), eventVoided)
}
