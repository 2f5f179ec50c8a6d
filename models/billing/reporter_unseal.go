package billing

import (
	"context"
	"slices"

	"github.com/google/uuid"
	"github.com/uptrace/bun"

	"tollgate/models"
)

// unattempted selects the reports that may be taken back: they were never sent, or Stripe's answer
// to each attempt was that it did not accept it (judge deletes the time of those).
const unattempted = "state = 'sealed' AND first_attempt_at IS NULL AND counts = 'overage'"

// unsealChanged takes back the reports that were never attempted and whose customer's billing
// periods changed since they were created. Webhooks do this too when they apply a change. This also
// finds a report that another process created at the same time, even if the clocks of the two
// differ.
func (r *Reporter) unsealChanged(ctx context.Context) error {
	var rows []struct {
		Customer        string
		Oldest, Learned bun.NullTime
	}
	if err := r.db.NewRaw(`SELECT s.stripe_customer_id AS customer, MIN(s.created_at) AS oldest,
			(SELECT MAX(p.learned_at) FROM subscription_periods p WHERE p.stripe_customer_id = s.stripe_customer_id) AS learned
		FROM stripe_reports s WHERE `+unattempted+` GROUP BY s.stripe_customer_id ORDER BY 1`).Scan(ctx, &rows); err != nil {
		return err
	}
	var customers []string
	for _, row := range rows {
		if !row.Learned.IsZero() && !row.Learned.Add(clockMargin).Before(row.Oldest.Time) {
			customers = append(customers, row.Customer)
		}
	}
	for some := range slices.Chunk(customers, customersAtOnce) {
		if err := r.db.InTx(ctx, func(ctx context.Context, tx bun.Tx) error {
			return unseal(ctx, tx, some, true)
		}); err != nil {
			return err
		}
	}
	return nil
}

// unseal takes back the customers' reports that were never attempted and whose billing period has
// changed. Their events are sealed again. It locks their streams; with skip, it leaves out streams
// that another process has locked.
func unseal(ctx context.Context, tx bun.Tx, customers []string, skip bool) error {
	var streams []models.StripeStream
	q := tx.NewSelect().Model(&streams).Where("stripe_customer_id IN (?)", bun.List(customers)).Order("stripe_customer_id", "meter_event_name")
	if skip {
		q = models.ForUpdateSkipLocked(q)
	} else {
		q = models.ForUpdate(q)
	}
	if err := q.Scan(ctx); err != nil || len(streams) == 0 {
		return err
	}
	known, err := timelinesOf(ctx, tx, customers)
	if err != nil {
		return err
	}
	for _, s := range streams {
		var reports []models.StripeReport
		// A report that replaces a missing one has the units of that one.
		if err := tx.NewSelect().Model(&reports).Where("stripe_customer_id = ? AND meter_event_name = ? AND "+unattempted,
			s.StripeCustomerID, s.MeterEventName).
			Where("NOT EXISTS (SELECT 1 FROM stripe_reports m WHERE m.stripe_customer_id = stripe_report.stripe_customer_id " +
				"AND m.meter_event_name = stripe_report.meter_event_name AND m.replaced_by = stripe_report.id)").Scan(ctx); err != nil {
			return err
		}
		var stale []uuid.UUID
		for _, r := range reports {
			if period := (models.Period{Start: r.PeriodStart.UTC(), End: r.PeriodEnd.UTC()}); known[s.StripeCustomerID].at(period.Start) != period {
				stale = append(stale, r.ID)
			}
		}
		for some := range slices.Chunk(stale, 500) {
			if _, err := tx.NewUpdate().Model((*models.UsageEvent)(nil)).Set("stripe_report_id = NULL").
				Where("stripe_report_id IN (?)", bun.List(some)).Exec(ctx); err != nil {
				return err
			}
			if _, err := tx.NewDelete().Model((*models.StripeReport)(nil)).Where("id IN (?)", bun.List(some)).Exec(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}
