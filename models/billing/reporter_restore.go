package billing

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/uptrace/bun"

	"tollgate/models"
)

// hourOf is one hour of a customer's usage.
type hourOf struct {
	customer, meter string // the meter by its event name
	start           time.Time
}

// restoredPause is the reason for the pause while Stripe's totals may still lack what the lost
// database sent last.
const restoredPause = "the database was restored, and Stripe's totals may not yet include what was sent last. " +
	"Run `tollgate stripe reconcile --restored` again, at least 25 hours after its first run. The second run ends this pause"

// Restored makes it safe to send again after the database was restored from a backup. Only Stripe
// knows what was sent after the backup, so each hour with unsent units is compared with Stripe's
// total: what Stripe has is verified, and what it may have in part becomes a conflict, which is
// never sent. Totals may lag, so the first run pauses all sending. The first run after that lag
// resumes it. Restored returns the number of reports that it resolved, and when to run it again;
// zero if sending continues.
func (r *Reporter) Restored(ctx context.Context) (resolved int, again time.Time, err error) {
	if again, err = r.holdRestored(ctx); err != nil {
		return 0, again, err
	}
	resolved, err = r.resolveAll(ctx)
	if err != nil || again.After(r.now()) {
		return resolved, again, err
	}
	if err := r.findLost(ctx); err != nil {
		return resolved, again, err
	}
	_, err = r.db.NewUpdate().Model((*models.StripeState)(nil)).Set("paused = NULL, paused_kind = NULL, paused_at = NULL").
		Where("id = 1 AND paused_kind = ?", models.PausedRestored).Exec(ctx)
	return resolved, time.Time{}, err
}

// holdRestored pauses sending, unless it is already paused for this reason. It returns when
// Stripe's totals contain everything that was sent until now.
func (r *Reporter) holdRestored(ctx context.Context) (time.Time, error) {
	if _, err := r.db.NewUpdate().Model((*models.StripeState)(nil)).
		Set("paused = ?, paused_kind = ?, paused_at = ?", restoredPause, models.PausedRestored, r.now()).
		Where("id = 1 AND COALESCE(paused_kind, '') <> ?", models.PausedRestored).Exec(ctx); err != nil {
		return time.Time{}, fmt.Errorf("pause sending: %w", err)
	}
	s, err := State(ctx, r.db)
	if err != nil {
		return time.Time{}, err
	}
	return s.PausedAt.UTC().Add(models.StripeRequestSettles + models.StripeTotalsSettle), nil
}

// findLost finds the units at Stripe from reports that were lost with the database, even if this
// database has nothing for a plan's meter or a billing period. They are compared with the other
// totals from then on.
func (r *Reporter) findLost(ctx context.Context) error {
	now := r.now()
	since := now.Add(-totalsReach)
	var customers []string
	if err := r.db.NewSelect().Model((*models.SubscriptionPeriod)(nil)).ColumnExpr("DISTINCT stripe_customer_id").
		Where("period_end > ?", since).Order("stripe_customer_id").Scan(ctx, &customers); err != nil {
		return fmt.Errorf("list the customers with billing periods: %w", err)
	}
	for some := range slices.Chunk(customers, customersAtOnce) {
		all, err := timelinesOf(ctx, r.db, some)
		if err != nil {
			return fmt.Errorf("read the billing periods of %d customers: %w", len(some), err)
		}
		for _, customer := range some {
			for _, plan := range r.catalogue.Plans {
				if plan.ID == models.FreePlan {
					continue
				}
				for at := since; !at.After(now); {
					p := all[customer].at(at)
					if err := r.findLostIn(ctx, stream{customer, r.catalogue.MeterOf(plan.ID)}, p); err != nil {
						return fmt.Errorf("ask Stripe for the total of %s: %w", customer, err)
					}
					at = p.End
				}
			}
		}
	}
	return nil
}

func (r *Reporter) findLostIn(ctx context.Context, of stream, p models.Period) error {
	meters, err := r.meters(ctx, of.meter)
	if errors.Is(err, errNoMeter) {
		return nil
	}
	from, to := ceilMinute(p.Start), ceilMinute(earlier(p.End, r.now()))
	if err != nil || !to.After(from) {
		return err
	}
	if err := r.limit.wait(ctx); err != nil {
		return err
	}
	total, err := r.totalOf(ctx, meters, of.customer, from, to)
	if err == nil && total != 0 {
		_, err = r.compare(ctx, of, p, false)
	}
	return err
}

// resolveAll resolves the unsent reports. It repeats this as long as it resolves some, because a
// voided event can have a negative report only after its own report is verified.
func (r *Reporter) resolveAll(ctx context.Context) (resolved int, err error) {
	if _, err := r.Seal(ctx); err != nil {
		return 0, err
	}
	for {
		if err := r.takeBackVoids(ctx); err != nil {
			return resolved, err
		}
		n, err := r.resolveHours(ctx)
		resolved += n
		if err != nil || n == 0 {
			return resolved, err
		}
	}
}

// resolveHours resolves the unsent reports, hour by hour.
func (r *Reporter) resolveHours(ctx context.Context) (int, error) {
	var reports []*models.StripeReport
	if err := r.db.NewSelect().Model(&reports).Where("state IN ('sealed', 'unknown')").Order("stripe_customer_id", "minute").
		Scan(ctx); err != nil {
		return 0, fmt.Errorf("read what was not sent: %w", err)
	}
	open := map[hourOf][]*models.StripeReport{}
	var hours []hourOf
	for _, report := range reports {
		h := hourOf{report.StripeCustomerID, report.MeterEventName, report.Minute.UTC().Truncate(time.Hour)}
		if open[h] == nil {
			hours = append(hours, h)
		}
		open[h] = append(open[h], report)
	}
	resolved := 0
	for _, h := range hours {
		n, err := r.restoreHour(ctx, h, open[h])
		if err != nil {
			return resolved, fmt.Errorf("compare an hour of %s with Stripe: %w", h.customer, err)
		}
		resolved += n
	}
	return resolved, nil
}

// restoreHour resolves the unsent reports of an hour with Stripe's total of it.
func (r *Reporter) restoreHour(ctx context.Context, h hourOf, reports []*models.StripeReport) (int, error) {
	meters, err := r.meters(ctx, h.meter)
	if err != nil {
		return 0, err
	}
	if err := r.limit.wait(ctx); err != nil {
		return 0, err
	}
	there, err := r.totalOf(ctx, meters, h.customer, h.start, h.start.Add(time.Hour))
	if err != nil {
		return 0, err
	}
	var known int64
	if err := r.db.NewSelect().Model((*models.StripeReport)(nil)).ColumnExpr("COALESCE(CAST(SUM(value) AS bigint), 0)").
		Where("stripe_customer_id = ? AND meter_event_name = ? AND minute >= ? AND minute < ? AND state IN ('accepted', 'verified')",
			h.customer, h.meter, h.start, h.start.Add(time.Hour)).Scan(ctx, &known); err != nil {
		return 0, err
	}
	more := there - known
	// A negative report, which this database may have lost, can cancel out others of the hour.
	voids := slices.ContainsFunc(reports, func(r *models.StripeReport) bool { return r.Value < 0 })
	if more <= 0 && !voids {
		ids := make([]uuid.UUID, len(reports))
		for i := range reports {
			ids[i] = reports[i].ID
		}
		voided, err := r.db.NewSelect().Model((*models.UsageEvent)(nil)).
			Where("stripe_report_id IN (?) AND voided_at IS NOT NULL", bun.List(ids)).Exists(ctx)
		if err != nil || !voided {
			return 0, err
		}
	}
	resolved := 0
	var rest []*models.StripeReport
	var units int64
	for _, report := range reports {
		if err := r.limit.wait(ctx); err != nil {
			return resolved, err
		}
		has, err := r.totalOf(ctx, meters, h.customer, report.Minute.UTC(), report.Minute.UTC().Add(time.Minute))
		if err != nil {
			return resolved, err
		}
		if has != report.Value {
			rest, units = append(rest, report), units+report.Value
			continue
		}
		more -= has
		if err := r.resolveRestored(ctx, report, reading{state: models.ReportVerified, total: has}); err != nil {
			return resolved, err
		}
		resolved++
	}
	voids = slices.ContainsFunc(rest, func(r *models.StripeReport) bool { return r.Value < 0 })
	if more == 0 || more < 0 && !voids {
		return resolved, nil
	}
	v := reading{state: models.ReportVerified}
	if more != units {
		v.state = models.ReportConflict
		v.text = fmt.Sprintf("Stripe has %d units for this hour from reports that this database does not know, and %d units were "+
			"not sent: sending them could bill units twice", more, units)
	}
	for _, report := range rest {
		v.total = 0
		if v.state == models.ReportVerified {
			v.total, v.byHour = report.Value, true
			v.text = "Stripe has its units in other minutes of the hour, from reports that were lost when the database was restored"
		}
		if err := r.resolveRestored(ctx, report, v); err != nil {
			return resolved, err
		}
		resolved++
	}
	return resolved, nil
}

func (r *Reporter) resolveRestored(ctx context.Context, report *models.StripeReport, v reading) error {
	return r.db.InTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		current := *report // also if the transaction is retried
		held, err := r.lockReport(ctx, tx, &current)
		if err != nil || !held {
			return err
		}
		return r.write(ctx, tx, &current, v)
	})
}
