package billing

import (
	"context"
	"fmt"

	"github.com/google/uuid"
	"github.com/uptrace/bun"

	"tollgate/models"
)

// reportOf returns the report of a voided event; nil if the event is in none.
func (r *Reporter) reportOf(ctx context.Context, v *models.UsageVoid) (*models.StripeReport, error) {
	var found []models.StripeReport
	if err := r.db.NewSelect().Model(&found).Where("id IN (SELECT e.stripe_report_id FROM usage_events e WHERE e.user_id = ? AND e.id = ?)",
		v.UserID, v.EventID).Scan(ctx); err != nil || len(found) == 0 {
		return nil, err
	}
	return &found[0], nil
}

// reportsRead are the reports that a pass over voids has read back. It reads each of them once, even
// if many of its events are voided.
type reportsRead map[uuid.UUID]bool

// isCounted reports whether Stripe counts a report, so that its units can be taken back. Stripe may
// accept a report and never count it, and then taking back its units would reduce the bill for
// others. An accepted report is read at once instead of at its usual time.
func (r *Reporter) isCounted(ctx context.Context, report *models.StripeReport, read reportsRead) (bool, error) {
	if report.State == models.ReportAccepted && !read[report.ID] {
		read[report.ID] = true
		if err := r.limit.wait(ctx); err != nil {
			return false, err
		}
		if err := r.readBack(ctx, report); err != nil {
			return false, err
		}
	}
	return report.State == models.ReportVerified, nil
}

// isUnread reports whether Stripe's total for an accepted report could not be read, although it is
// final by now. A reading of a final total always changes the report's state.
func (r *Reporter) isUnread(report *models.StripeReport) bool {
	return report.State == models.ReportAccepted && r.now().Sub(*report.AcceptedAt) >= summarySettles
}

func errUnread(report *models.StripeReport) error {
	return fmt.Errorf("Stripe's total for report %s could not be read", report.Identifier) //nolint:staticcheck // Stripe is a name
}

// takeBackVoids makes negative reports for all voids that can have one, even if sending is paused or
// the invoice is final: Stripe may have such a report from the lost database. It returns an error if
// Stripe's total for a report cannot be read.
func (r *Reporter) takeBackVoids(ctx context.Context) error {
	var voids []models.UsageVoid
	if err := r.db.NewSelect().Model(&voids).
		Where("next_attempt_at IS NOT NULL AND state = ? AND stripe_report_id IS NULL", models.VoidWaiting).Scan(ctx); err != nil {
		return err
	}
	read := reportsRead{}
	for i := range voids {
		report, err := r.reportOf(ctx, &voids[i])
		if err != nil {
			return err
		}
		if report == nil {
			continue
		}
		counted, err := r.isCounted(ctx, report, read)
		switch {
		case err != nil:
			return err
		case counted:
			err = r.takeBack(ctx, &voids[i], report)
		case r.isUnread(report):
			err = errUnread(report)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// takeBack makes a negative report for a void: the overage of its event, in a minute of its own near
// the report that has the event, so that both are on the same invoice. If it cannot make one, the
// void keeps waiting for the invoice. It returns ErrStreamBusy if it can try again.
func (r *Reporter) takeBack(ctx context.Context, v *models.UsageVoid, of *models.StripeReport) error {
	// An earlier release reported all units, and its tiers decided how many of them are billed.
	if of.Counts != models.CountsOverage || r.now().Sub(of.Minute) > models.StripeReportMaxAge {
		return nil
	}
	made := false
	err := r.db.InTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		made = false
		reports := stream{of.StripeCustomerID, of.MeterEventName}
		locked, err := lockStreams(ctx, tx, []stream{reports})
		if err == nil && len(locked) == 0 {
			err = ErrStreamBusy
		}
		if err != nil {
			return err
		}
		now := r.now()
		s, minute, ok, err := freeMinute(ctx, tx, reports, of.Minute.UTC(), now)
		if err != nil || !ok || s.noMinute {
			return err
		}
		fresh := r.newReport(s, minute, now)
		fresh.Value, fresh.Counts, fresh.PeriodStart, fresh.PeriodEnd = -v.OverageQuantity, models.CountsVoid, of.PeriodStart, of.PeriodEnd
		changed, err := tx.NewUpdate().Model(v).Set("state = ?, stripe_report_id = ?, last_error = NULL", models.VoidReported, fresh.ID).
			Set("occurred_at = (SELECT e.occurred_at FROM usage_events e WHERE e.user_id = ? AND e.id = ?)", v.UserID, v.EventID).
			WherePK().Where("state = ? AND stripe_report_id IS NULL", models.VoidWaiting).Exec(ctx)
		if err != nil {
			return err
		}
		if n, err := changed.RowsAffected(); err != nil || n == 0 {
			return err
		}
		made = true
		return insertReports(ctx, tx, []*models.StripeReport{fresh}, now)
	})
	if made && err == nil {
		nudge(r.wake)
	}
	return err
}

// negativeReport returns the negative report of a void; nil if it failed. Then a credit note takes
// the event back, and no one can send the report again.
func (r *Reporter) negativeReport(ctx context.Context, v *models.UsageVoid) (*models.StripeReport, error) {
	var report models.StripeReport
	if err := r.db.NewSelect().Model(&report).Where("id = ?", v.StripeReportID).Scan(ctx); err != nil {
		return nil, err
	}
	ended := report.State == models.ReportGivenUp
	if !ended && (!report.State.Failed() || report.ReadFirst(r.now())) {
		return &report, nil
	}
	changed := false
	err := r.db.InTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		changed = false
		if !ended {
			held, err := r.lockReport(ctx, tx, &report)
			if err != nil || !held {
				changed = !held
				return err
			}
			text := "a credit note takes its units back instead"
			report.State, report.NextAttemptAt, report.LastError = models.ReportGivenUp, nil, &text
			if _, err := tx.NewUpdate().Model(&report).Column("state", "next_attempt_at", "last_error").WherePK().Exec(ctx); err != nil {
				return err
			}
		}
		_, err := tx.NewUpdate().Model(v).Set("state = ?", models.VoidWaiting).WherePK().Where("state = ?", models.VoidReported).Exec(ctx)
		return err
	})
	if changed {
		return &report, err
	}
	return nil, err
}

// isTakenBack reports whether a final invoice has a negative report; nil if that is not known yet.
func (r *Reporter) isTakenBack(ctx context.Context, negative *models.StripeReport) (*bool, error) {
	bill, err := r.billOf(ctx, negative)
	if err != nil || bill == nil {
		return nil, err
	}
	back, known, err := r.isBilled(ctx, negative, bill)
	if isByHand(err) {
		return nil, nil
	}
	if err != nil || !known {
		return nil, err
	}
	return &back, nil
}
