package billing

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/uptrace/bun"

	"tollgate/models"
)

// The errors of an operator's actions.
var (
	ErrNoSuchReport = errors.New("there is no such report")
	ErrNotFailed    = errors.New("the report has not failed, so there is nothing to retry or to give up")
	ErrReason       = errors.New("giving up needs a reason of 1 to 500 characters")
)

// Retry sends the units of a failed report again, in a new report with another identifier and
// minute, if Stripe refused, rejected or never received the report. If Stripe has another total for
// the report, Retry reads it again instead, because sending it could bill it twice. It adds an
// entry to the audit log.
func (r *Reporter) Retry(ctx context.Context, actor string, id uuid.UUID) error {
	return r.act(ctx, id, func(ctx context.Context, tx bun.Tx, report *models.StripeReport) error {
		now := r.now()
		if report.ReadFirst(now) {
			report.NextAttemptAt = &now
			if _, err := tx.NewUpdate().Model(report).Column("next_attempt_at").WherePK().Exec(ctx); err != nil {
				return err
			}
			return models.Audit(ctx, tx, now, actor, "report.read", report.Identifier, fmt.Sprintf("%d units of customer %s", report.Value,
				report.StripeCustomerID))
		}
		state := report.State
		text := "sent again by " + actor
		total := int64(0)
		if report.Confirmed != nil {
			total = *report.Confirmed
		}
		if err := r.replace(ctx, tx, report, reading{state: models.ReportMissing, total: total, zeroSince: report.ZeroSince, text: text},
			now); err != nil {
			return err
		}
		return models.Audit(ctx, tx, now, actor, "report.retry", report.Identifier,
			fmt.Sprintf("report of %d units of customer %s; its state was %s", report.Value, report.StripeCustomerID, state))
	})
}

// GiveUp ends a failed report with a reason. Its units are not billed. It adds an entry to the
// audit log.
func (r *Reporter) GiveUp(ctx context.Context, actor string, id uuid.UUID, reason string) error {
	reason = strings.TrimSpace(reason)
	if reason == "" || len([]rune(reason)) > 500 {
		return ErrReason
	}
	return r.act(ctx, id, func(ctx context.Context, tx bun.Tx, report *models.StripeReport) error {
		text := fmt.Sprintf("given up by %s: %s", actor, reason)
		state := report.State
		report.State, report.NextAttemptAt, report.LastError = models.ReportGivenUp, nil, &text
		if _, err := tx.NewUpdate().Model(report).Column("state", "next_attempt_at", "last_error").WherePK().Exec(ctx); err != nil {
			return err
		}
		return models.Audit(ctx, tx, r.now(), actor, "report.give-up", report.Identifier,
			fmt.Sprintf("report of %d units of customer %s; its state was %s; reason: %s", report.Value, report.StripeCustomerID, state, reason))
	})
}

// act changes a failed report under its lock.
func (r *Reporter) act(ctx context.Context, id uuid.UUID, change func(context.Context, bun.Tx, *models.StripeReport) error) error {
	return r.db.InTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		var found []models.StripeReport
		q := tx.NewSelect().Model(&found).Where("id = ?", id)
		if err := models.ForUpdate(q).Scan(ctx); err != nil {
			return err
		}
		if len(found) == 0 {
			return ErrNoSuchReport
		}
		if !found[0].State.Failed() {
			return ErrNotFailed
		}
		return change(ctx, tx, &found[0])
	})
}

// Unblock allows a customer's blocked reports to be sent again. If the meter was missing, it
// unblocks the reports of all customers to that meter. It adds an entry to the audit log.
func Unblock(ctx context.Context, db *models.DB, now time.Time, actor, customer string) error {
	return db.InTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		done, err := unblock(tx, now).Where("blocked IS NOT NULL").
			Where(`stripe_customer_id = ? OR blocked_kind = ? AND meter_event_name IN (SELECT s.meter_event_name FROM stripe_streams s
				WHERE s.stripe_customer_id = ? AND s.blocked_kind = ?)`, customer, models.BlockedByMeter, customer, models.BlockedByMeter).Exec(ctx)
		if err := changed(done, err); err != nil {
			return err
		}
		return models.Audit(ctx, tx, now, actor, "stripe.unblock", customer, "")
	})
}

// unblock returns an update that unblocks the streams that its conditions select.
func unblock(db bun.IDB, now time.Time) *bun.UpdateQuery {
	return db.NewUpdate().Model((*models.StripeStream)(nil)).Set("blocked = NULL, blocked_kind = NULL, failures = 0, next_attempt_at = ?", now)
}

// Pause stops sending in all processes until Resume is called. Usage is still counted and sealed.
// Both add an entry to the audit log.
func Pause(ctx context.Context, db *models.DB, now time.Time, actor string) error {
	return switchSending(ctx, db, now, actor, "stripe.pause", db.NewUpdate().Model((*models.StripeState)(nil)).
		Set("paused = ?, paused_kind = ?, paused_at = ?", "paused by "+actor, models.PausedByOperator, now).Where("id = 1 AND paused IS NULL"))
}

// Resume continues sending after a pause or an automatic stop. If the cause of the stop persists,
// the next call to Stripe stops it again. A pause after a restore stays, because sending could bill
// units twice until Restored ends it.
func Resume(ctx context.Context, db *models.DB, now time.Time, actor string) error {
	const lasting = "COALESCE(paused_kind, '') = ?"
	q := db.NewUpdate().Model((*models.StripeState)(nil)).Set("stopped = NULL, stopped_at = NULL")
	for _, column := range []string{"paused", "paused_kind", "paused_at"} {
		q = q.Set("? = CASE WHEN "+lasting+" THEN ? END", bun.Ident(column), models.PausedRestored, bun.Ident(column))
	}
	return switchSending(ctx, db, now, actor, "stripe.resume",
		q.Where("id = 1 AND (stopped IS NOT NULL OR paused IS NOT NULL AND NOT "+lasting+")", models.PausedRestored))
}

func switchSending(ctx context.Context, db *models.DB, now time.Time, actor, action string, change *bun.UpdateQuery) error {
	return db.InTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		done, err := change.Conn(tx).Exec(ctx)
		if err := changed(done, err); err != nil {
			return err
		}
		return models.Audit(ctx, tx, now, actor, action, "sending", "")
	})
}

// SendingPaused reports whether sending is paused, as it can still be after Resume.
func SendingPaused(ctx context.Context, db bun.IDB) (bool, error) {
	return db.NewSelect().Model((*models.StripeState)(nil)).Where("paused IS NOT NULL").Exists(ctx)
}

// ErrUnchanged means that an operator's action changes nothing, so the audit log has no entry.
var ErrUnchanged = errors.New("already done; nothing was changed")

// changed returns ErrUnchanged if an update changed no row.
func changed(done sql.Result, err error) error {
	if err != nil {
		return err
	}
	if n, err := done.RowsAffected(); err != nil || n == 0 {
		return errors.Join(ErrUnchanged, err)
	}
	return nil
}
