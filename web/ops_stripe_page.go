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
	"tollgate/views/ui"
)

// failedVoidsShown is the maximum number of voids on the operator's page.
const failedVoidsShown = 50

// opsStripe returns what the operator's page shows about Stripe.
func (s *Server) opsStripe(ctx context.Context) (views.OpsStripe, error) {
	status, err := billing.ReadStatus(ctx, s.db)
	if err != nil {
		return views.OpsStripe{}, err
	}
	page := views.OpsStripe{
		Connected: s.reporter != nil, Sends: s.reporter != nil && s.reporter.Sends(), Account: status.State.AccountID,
		Live:    status.State.Livemode != nil && *status.State.Livemode,
		Waiting: status.UnsealedUnits, OldestUnsent: status.OldestUnsent, Totals: status.Differences,
		Compared: status.Compared, ComparedAt: status.ComparedAt, Blocked: status.Blocked, Held: status.Held,
	}
	page.Overage = views.OpsOverage{
		Steps: status.Overage.Steps, Reasons: status.Overage.Reasons, Balances: status.Overage.Balances,
		CheckedAt: status.Overage.CheckedAt, Currency: s.catalogue.Currency,
	}
	if status.State.Paused != nil {
		page.Paused, page.Restored = *status.State.Paused, status.State.PausedKind == models.PausedRestored
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
	if page.Voids, err = models.FailedVoids(ctx, s.db, failedVoidsShown); err != nil {
		return page, err
	}
	page.Problems, page.MeterErrors, err = billing.WebhookProblems(ctx, s.db)
	return page, err
}

func (s *Server) pauseStripe(c echo.Context, viewer *models.Viewer) error {
	err := billing.Pause(c.Request().Context(), s.db, models.Now(s.now), viewer.User.Email)
	return s.opsDone(c, sendingPaused, sendingUnchanged, err)
}

func (s *Server) resumeStripe(c echo.Context, viewer *models.Viewer) error {
	ctx := c.Request().Context()
	if err := billing.Resume(ctx, s.db, models.Now(s.now), viewer.User.Email); err != nil {
		return s.opsDone(c, sendingResumed, sendingUnchanged, err)
	}
	done := sendingResumed
	paused, err := billing.SendingPaused(ctx, s.db)
	if paused {
		done = stopEnded
	}
	return s.opsDone(c, done, sendingUnchanged, err)
}

func (s *Server) unblockStripe(c echo.Context, viewer *models.Viewer) error {
	customer := c.FormValue(views.FieldID)
	if !isText(customer) {
		return echo.ErrNotFound
	}
	err := billing.Unblock(c.Request().Context(), s.db, models.Now(s.now), viewer.User.Email, customer)
	return s.opsDone(c, customerRetried, customerFree, err)
}

func (s *Server) retryReport(c echo.Context, viewer *models.Viewer) error {
	return s.onReport(c, reportRetried, func(ctx context.Context, id uuid.UUID) error {
		return s.reporter.Retry(ctx, viewer.User.Email, id)
	})
}

func (s *Server) giveUpReport(c echo.Context, viewer *models.Viewer) error {
	return s.onReport(c, reportGivenUp, func(ctx context.Context, id uuid.UUID) error {
		return s.reporter.GiveUp(ctx, viewer.User.Email, id, c.FormValue(views.FieldReason))
	})
}

// onReport changes the report whose ID is in the form.
func (s *Server) onReport(c echo.Context, message flash, do func(context.Context, uuid.UUID) error) error {
	id, err := uuid.Parse(c.FormValue(views.FieldID))
	if err != nil || s.reporter == nil {
		return echo.ErrNotFound
	}
	err = do(c.Request().Context(), id)
	page := views.Ops{}
	page.Stripe.Value.GiveUp, page.Stripe.Value.Reason = id.String(), c.FormValue(views.FieldReason)
	refuse := func(status int, e ui.FormError) error {
		page.Frame.Errors = []ui.FormError{e}
		return s.showOps(c, status, page)
	}
	switch {
	case errors.Is(err, billing.ErrReason):
		return refuse(http.StatusUnprocessableEntity, ui.FormError{
			Field: views.FieldIDReason(id.String()), Message: "Enter a reason of 1 to 500 characters to give up the report.",
		})
	case errors.Is(err, billing.ErrNotFailed):
		return refuse(http.StatusConflict, ui.FormError{
			Message: "This report no longer needs attention. It may have been retried or given up already, or Stripe has counted it. " +
				"Nothing was changed.",
		})
	case errors.Is(err, billing.ErrStreamBusy):
		return refuse(http.StatusConflict, ui.FormError{
			Message: "The customer’s reports are being sent right now. Try again in a few seconds.",
		})
	}
	return s.opsDone(c, message, message, err)
}

// opsDone redirects to the page, which shows the message once. unchanged is the message if nothing
// had to be changed.
func (s *Server) opsDone(c echo.Context, message, unchanged flash, err error) error {
	switch {
	case errors.Is(err, billing.ErrNoSuchReport):
		return echo.ErrNotFound
	case errors.Is(err, billing.ErrUnchanged):
		message = unchanged
	case err != nil:
		return err
	}
	return s.done(c, "/ops", message)
}
