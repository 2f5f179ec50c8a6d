package web

import (
	"context"
	"errors"
	"net/http"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"tollgate/models"
	"tollgate/models/billing"
	"tollgate/views"
)

// stripeDone is what the page says after what its address says was done.
var stripeDone = map[string]string{
	"paused":  "Sending is paused.",
	"resumed": "Sending goes on.",
	"unblock": "The customer’s reports are tried again.",
	"retry":   "It is seen to; look again in a minute.",
	"given":   "The report is given up, and the audit log says why.",
}

// opsStripe is what the operator is told of Stripe.
func (s *Server) opsStripe(ctx context.Context) (views.OpsStripe, error) {
	status, err := billing.ReadStatus(ctx, s.db)
	if err != nil {
		return views.OpsStripe{}, err
	}
	page := views.OpsStripe{
		Connected: s.reporter != nil, Account: status.State.AccountID, Live: status.State.Livemode != nil && *status.State.Livemode,
		Waiting: status.UnsealedUnits, OldestUnsent: status.OldestUnsent, Totals: status.Differences, Compared: status.Compared, ComparedAt: status.ComparedAt, Blocked: status.Blocked,
	}
	if status.State.Paused != nil {
		page.Paused = *status.State.Paused
	}
	if status.State.Stopped != nil {
		page.Stopped = *status.State.Stopped
	}
	for _, c := range status.Counts {
		if c.Reports > 0 {
			page.Counts = append(page.Counts, views.ReportCount(c))
		}
	}
	if page.Failures, err = billing.Failures(ctx, s.db); err != nil {
		return page, err
	}
	page.Faults, page.MeterErrors, err = billing.WebhookFaults(ctx, s.db)
	return page, err
}

func (s *Server) pauseStripe(c echo.Context, who *models.Viewer) error {
	return opsDone(c, "paused", billing.Pause(c.Request().Context(), s.db, models.Now(s.now), who.User.Email))
}

func (s *Server) resumeStripe(c echo.Context, who *models.Viewer) error {
	return opsDone(c, "resumed", billing.Resume(c.Request().Context(), s.db, models.Now(s.now), who.User.Email))
}

func (s *Server) unblockStripe(c echo.Context, who *models.Viewer) error {
	return opsDone(c, "unblock", billing.Unblock(c.Request().Context(), s.db, models.Now(s.now), who.User.Email, c.FormValue(views.FieldID)))
}

func (s *Server) retryReport(c echo.Context, who *models.Viewer) error {
	return s.onReport(c, "retry", func(ctx context.Context, id uuid.UUID) error { return s.reporter.Retry(ctx, who.User.Email, id) })
}

func (s *Server) giveUpReport(c echo.Context, who *models.Viewer) error {
	return s.onReport(c, "given", func(ctx context.Context, id uuid.UUID) error {
		return s.reporter.GiveUp(ctx, who.User.Email, id, c.FormValue(views.FieldReason))
	})
}

// onReport does something to the report that the form names.
func (s *Server) onReport(c echo.Context, done string, do func(context.Context, uuid.UUID) error) error {
	id, err := uuid.Parse(c.FormValue(views.FieldID))
	if err != nil || s.reporter == nil {
		return echo.ErrNotFound
	}
	err = do(c.Request().Context(), id)
	switch {
	case errors.Is(err, billing.ErrReason):
		return s.showOps(c, http.StatusUnprocessableEntity, views.KeyForm{}, "", "Giving up wants a reason of 1 to 500 characters.")
	case errors.Is(err, billing.ErrNotFailed):
		return s.showOps(c, http.StatusConflict, views.KeyForm{}, "", "Nothing was done: meanwhile the report is no longer one that failed.")
	case errors.Is(err, billing.ErrStreamBusy):
		return s.showOps(c, http.StatusConflict, views.KeyForm{}, "", "Nothing was done: the customer's reports are at work in this moment. Try again.")
	}
	return opsDone(c, done, err)
}

// opsDone leads back to the page, which says what was done.
func opsDone(c echo.Context, done string, err error) error {
	switch {
	case errors.Is(err, billing.ErrNoSuchReport):
		return echo.ErrNotFound
	case err != nil:
		return err
	}
	return c.Redirect(http.StatusSeeOther, "/ops?saved="+done+"#stripe")
}
