package billing

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/google/uuid"
	"github.com/stripe/stripe-go/v76"
	"github.com/uptrace/bun"

	"tollgate/models"
)

// readAtOnce is the number of reports that a process reads before it selects again.
const readAtOnce = 50

// readAgain is the delay before a report is read again if its total could not be read or is not
// there yet.
const readAgain = 6 * time.Hour

// errNoMeter means that Stripe has no active meter with an event name, so there is no total.
var errNoMeter = errors.New("Stripe has no active meter of this name; " + //nolint:staticcheck // Stripe is a name
	"`tollgate stripe setup` creates it, or says what happened to it")

// ErrStreamBusy means that another process is sealing or sending the customer's events. Try again.
var ErrStreamBusy = errors.New("the customer's stream is busy at this moment; try again")

// Reconcile reads the minutes of due reports, and determines from Stripe's totals what happened to
// each report. It returns the number of reports it read. It reads unknown reports when they can no
// longer be sent again, and accepted ones after some hours.
func (r *Reporter) Reconcile(ctx context.Context) (int, error) {
	read := 0
	for {
		reports, err := r.claimReads(ctx)
		if err != nil {
			return read, fmt.Errorf("claim reports to read: %w", err)
		}
		if len(reports) == 0 {
			return read, nil
		}
		var failed []error // one report's error does not keep the others waiting
		for i := range reports {
			if err := r.limit.wait(ctx); err != nil {
				return read, nil
			}
			if err := r.readBack(ctx, &reports[i]); err != nil {
				failed = append(failed, err)
				continue
			}
			read++
		}
		if failed != nil {
			return read, errors.Join(failed...)
		}
	}
}

// claimReads claims some of the reports that are due to be read. Another process reads them only if
// this one fails to.
func (r *Reporter) claimReads(ctx context.Context) ([]models.StripeReport, error) {
	var due []models.StripeReport
	err := r.db.InTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		due = nil
		now := r.now()
		// Reports that Stripe has not counted yet come first, however many others are due again.
		for _, again := range []bool{false, true} {
			q := tx.NewSelect().Model(&due).Where("state <> 'sealed' AND next_attempt_at <= ? AND (state = ?) = ?", now,
				models.ReportVerified, again).
				Where("state <> ? OR (first_attempt_at <= ? AND last_attempt_at <= ?)", models.ReportUnknown, now.Add(-r.guard),
					now.Add(-requestSettles)).
				Order("next_attempt_at").Limit(readAtOnce)
			if err := models.ForUpdateSkipLocked(q).Scan(ctx); err != nil {
				return err
			}
			if len(due) > 0 {
				break
			}
		}
		if len(due) == 0 {
			return nil
		}
		ids := make([]uuid.UUID, len(due))
		for i := range due {
			ids[i] = due[i].ID
		}
		_, err := tx.NewUpdate().Model((*models.StripeReport)(nil)).Set("next_attempt_at = ?", now.Add(maxDelay)).
			Where("id IN (?)", bun.List(ids)).Exec(ctx)
		return err
	})
	return due, err
}

// metersLife is how long the cached IDs of a meter are used. A meter may be archived and created
// again; the old one's totals would then suggest that nothing arrives, but a report counts as lost
// only after a day of that. missingLife is how long a missing meter is cached.
const (
	metersLife  = time.Hour
	missingLife = time.Minute
)

// meters returns the IDs of the meters with an event name: the active one and archived ones,
// because a report was sent to one of them. A report keeps the event name that it was sealed for,
// even if the catalog changes.
func (r *Reporter) meters(ctx context.Context, eventName string) ([]string, error) {
	r.metersMu.Lock()
	known := r.knownMeters[eventName]
	r.metersMu.Unlock()
	if !r.now().Before(known.until) {
		all, err := r.client.meters(ctx)
		if err != nil {
			return nil, err
		}
		now := r.now()
		fresh := map[string]knownMeters{eventName: {until: now.Add(missingLife)}}
		for name, found := range all {
			if found[0].Status != stripe.BillingMeterStatusActive {
				continue
			}
			k := knownMeters{until: now.Add(metersLife)}
			for _, m := range found {
				k.ids = append(k.ids, m.ID)
			}
			fresh[name] = k
		}
		known = fresh[eventName]
		r.metersMu.Lock()
		maps.Copy(r.knownMeters, fresh)
		r.metersMu.Unlock()
	}
	if len(known.ids) == 0 {
		return nil, fmt.Errorf("%q: %w", eventName, errNoMeter)
	}
	return known.ids, nil
}

// readBack reads a report's minute and stores the result. If the total cannot be read, it is read
// again later. It returns only errors of the database.
func (r *Reporter) readBack(ctx context.Context, report *models.StripeReport) error {
	meters, err := r.meters(ctx, report.MeterEventName)
	var total int64
	if err == nil {
		total, err = r.totalOf(ctx, meters, report.StripeCustomerID, report.Minute.UTC(), report.Minute.UTC().Add(time.Minute))
	}
	if err != nil {
		r.log.Warn("a report could not be read back", "report", report.Identifier, "error", err)
		if o := classify(err, 1); o.verdict == misconfigured {
			return r.stop(ctx, o.text)
		}
		return nil
	}
	now := r.now()
	v := verify(report, total, now)
	var current models.StripeReport
	err = r.db.InTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		current = *report // also if the transaction is retried
		// If two processes read it, only the first one changes it.
		held, err := r.lockReport(ctx, tx, &current)
		if err != nil || !held {
			return err
		}
		if v.state == models.ReportMissing {
			return r.replace(ctx, tx, &current, v, now)
		}
		return r.write(ctx, tx, &current, v)
	})
	switch {
	case errors.Is(err, ErrStreamBusy):
		return nil
	case err != nil:
		return fmt.Errorf("store the result of report %s: %w", report.Identifier, err)
	}
	*report = current
	return nil
}

// totalOf returns Stripe's total of a customer's minutes. Stripe bills nothing to a customer that
// it does not have, so their total is 0.
func (r *Reporter) totalOf(ctx context.Context, meters []string, customer string, from, to time.Time) (sum int64, err error) {
	for _, meter := range meters {
		total, err := r.client.total(ctx, meter, customer, from, to)
		if err != nil && classify(err, 1).verdict == noCustomer {
			return 0, nil
		}
		if err != nil {
			return 0, err
		}
		sum += total
	}
	return sum, nil
}

// lockReport locks the report and reports whether its state is the one that was read.
func (r *Reporter) lockReport(ctx context.Context, tx bun.Tx, report *models.StripeReport) (bool, error) {
	var found []models.StripeReport
	q := tx.NewSelect().Model(&found).Where("id = ? AND state = ?", report.ID, report.State)
	if err := models.ForUpdate(q).Scan(ctx); err != nil || len(found) == 0 {
		return false, err
	}
	*report = found[0]
	return true, nil
}

// reading is what a total says about a report.
type reading struct {
	state     models.ReportState
	total     int64
	zeroSince *time.Time
	// next is when the report is read again; nil means never.
	next *time.Time
	text string
	// byHour means that the units are in Stripe's total of the hour, but not in that of the minute.
	byHour bool
}

// verify determines what happened to a report from Stripe's total of its minute, which belongs to
// no other report.
func verify(report *models.StripeReport, total int64, now time.Time) reading {
	v := reading{state: report.State, total: total}
	later := func(d time.Duration) {
		t := now.Add(d)
		v.next = &t
	}
	switch {
	case total == report.Value:
		v.state = models.ReportVerified
		return v
	case total != 0:
		v.state = models.ReportConflict
		v.text = fmt.Sprintf("Stripe has %d units for this minute, but this report has %d", total, report.Value)
		if now.Sub(report.CreatedAt) < watched {
			later(24 * time.Hour)
		}
		return v
	}
	// Nothing is there. That is final after it stayed so for as long as totals may lag.
	v.zeroSince = report.ZeroSince
	if v.zeroSince == nil {
		v.zeroSince = &now
	}
	settled := now.Sub(*v.zeroSince) >= summarySettles
	switch report.State {
	case models.ReportUnknown:
		if settled {
			v.state = models.ReportMissing
			v.text = "Stripe never received it; its units went into another report"
			return v
		}
		later(min(readAgain, summarySettles-now.Sub(*v.zeroSince)))
	case models.ReportAccepted:
		if age := now.Sub(*report.AcceptedAt); age >= summarySettles {
			v.state = models.ReportRejected
			v.text = "Stripe received it, but did not count it"
			later(24 * time.Hour)
		} else {
			later(summarySettles - age)
		}
	case models.ReportVerified:
		// Verified reports are read again when totals are compared. Stripe had counted this one
		// before.
		if settled {
			v.state = models.ReportRejected
			v.text = "Stripe counted it, but no longer has it"
			return v
		}
		later(summarySettles - now.Sub(*v.zeroSince))
	default:
		if now.Sub(report.CreatedAt) < watched {
			later(24 * time.Hour)
		}
	}
	return v
}

// write stores the result of a reading.
func (r *Reporter) write(ctx context.Context, tx bun.Tx, report *models.StripeReport, v reading) error {
	now := r.now()
	accepted, failed := report.State == models.ReportAccepted, report.State.Failed()
	report.State, report.Confirmed, report.ZeroSince, report.NextAttemptAt = v.state, &v.total, v.zeroSince, v.next
	report.VerifiedByHour = v.byHour && v.state == models.ReportVerified
	if v.state == models.ReportVerified {
		report.VerifiedAt, report.LastError = &now, nil
		if !accepted {
			if _, err := tx.NewUpdate().Model((*models.UsageEvent)(nil)).Set("stripe_reported_at = ?", now).
				Where("stripe_report_id = ? AND stripe_reported_at IS NULL", report.ID).Exec(ctx); err != nil {
				return err
			}
		}
	}
	if v.text != "" {
		report.LastError = &v.text
	}
	if v.state.Failed() {
		r.log.Warn("a report to Stripe needs an operator's attention", "report", report.Identifier, "customer", report.StripeCustomerID,
			"units", report.Value, "state", v.state, "answer", v.text)
	}
	if failed && v.state == models.ReportVerified {
		if err := reopenVoids(ctx, tx, report, now); err != nil {
			return err
		}
	}
	if v.state == models.ReportRejected && report.Counts == models.CountsVoid {
		// The invoice may have become final in the meantime. Then a credit note takes the units back.
		if _, err := tx.NewUpdate().Model((*models.UsageVoid)(nil)).Set("next_attempt_at = ?", now).
			Where("stripe_report_id = ? AND state = ? AND next_attempt_at IS NULL", report.ID, models.VoidReported).Exec(ctx); err != nil {
			return err
		}
	}
	_, err := tx.NewUpdate().Model(report).
		Column("state", "confirmed", "zero_since", "next_attempt_at", "last_error", "verified_at", "verified_by_hour", "replaced_by").
		WherePK().Exec(ctx)
	return err
}

// reopenVoids handles the voids of a report's events again, if they ended because the units were not
// billed: now the units may be.
func reopenVoids(ctx context.Context, tx bun.Tx, report *models.StripeReport, now time.Time) error {
	_, err := tx.NewUpdate().Model((*models.UsageVoid)(nil)).Set("state = ?, next_attempt_at = ?", models.VoidWaiting, now).
		Where("state = ? AND EXISTS (SELECT 1 FROM usage_events e WHERE e.stripe_report_id = ? AND e.voided_at IS NOT NULL "+
			"AND e.user_id = usage_void.user_id AND e.id = usage_void.event_id)", models.VoidNotBilled, report.ID).Exec(ctx)
	return err
}

// replace seals the events of a report that never arrived into a new one with another identifier
// and minute.
func (r *Reporter) replace(ctx context.Context, tx bun.Tx, report *models.StripeReport, v reading, now time.Time) error {
	of := stream{report.StripeCustomerID, report.MeterEventName}
	streams, err := lockStreams(ctx, tx, []stream{of})
	if err == nil && len(streams) == 0 {
		err = ErrStreamBusy
	}
	if err != nil {
		return err
	}
	if now.Sub(report.Minute.UTC()) > models.StripeReportMaxAge {
		v.state, v.text = models.ReportExpired, "Stripe never received it, and it is too old to be sent again"
		return r.write(ctx, tx, report, v)
	}
	var occurred struct{ First, Last bun.NullTime }
	if err := tx.NewSelect().Model((*models.UsageEvent)(nil)).ColumnExpr("MIN(occurred_at) AS first, MAX(occurred_at) AS last").
		Where("stripe_report_id = ?", report.ID).Scan(ctx, &occurred); err != nil {
		return err
	}
	last := occurred.Last.UTC() // the report's minute may be in another hour
	if occurred.Last.IsZero() {
		last = report.Minute.UTC()
	}
	s, minute, ok, err := freeMinute(ctx, tx, of, last, now)
	if err != nil {
		return err
	}
	if !ok {
		v.state, v.text = models.ReportDead, "Stripe never received it, and each minute of its billing period already has a report"
		return r.write(ctx, tx, report, v)
	}
	fresh := r.newReport(s, minute, now)
	fresh.Value, fresh.Counts = report.Value, report.Counts
	if !occurred.First.IsZero() && !s.period.Contains(occurred.First.UTC()) {
		// Some of its events belong to another period, because a period became known since. The
		// totals check each of them.
		fresh.PeriodStart, fresh.PeriodEnd = report.PeriodStart, report.PeriodEnd
	}
	if err := insertReports(ctx, tx, []*models.StripeReport{fresh}, now); err != nil {
		return err
	}
	if _, err := tx.NewUpdate().Model((*models.UsageEvent)(nil)).Set("stripe_report_id = ?, stripe_reported_at = NULL", fresh.ID).
		Where("stripe_report_id = ?", report.ID).Exec(ctx); err != nil {
		return err
	}
	if _, err := tx.NewUpdate().Model((*models.UsageVoid)(nil)).Set("stripe_report_id = ?", fresh.ID).
		Where("stripe_report_id = ?", report.ID).Exec(ctx); err != nil {
		return err
	}
	if err := reopenVoids(ctx, tx, fresh, now); err != nil {
		return err
	}
	report.ReplacedBy = &fresh.ID
	return r.write(ctx, tx, report, v)
}
