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

// readAtOnce is how many reports one process reads before it looks which are due.
const readAtOnce = 50

// readAgain is when a report is read again whose total could not be read, or is not there yet.
const readAgain = 6 * time.Hour

// errNoMeter says that Stripe has no active meter of an event name, so there is no total to read.
var errNoMeter = errors.New("Stripe has no active meter of this name; `tollgate stripe setup` makes it, or says what became of it") //nolint:staticcheck // Stripe is a name

// ErrStreamBusy says that another process seals or sends the customer's events at this moment; it passes.
var ErrStreamBusy = errors.New("the customer's stream is busy at this moment; try again")

// Reconcile reads the minutes of the reports that are due, and decides by Stripe's total what became of each. It returns how many it
// read. Reports of which nothing is known are read when they can no longer be sent again, accepted ones hours later.
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

// claimReads takes some of the reports that are due to be read. Another process takes them only when this one did not come to it.
func (r *Reporter) claimReads(ctx context.Context) ([]models.StripeReport, error) {
	var due []models.StripeReport
	err := r.DB.InTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		due = nil
		now := r.now()
		// Reports that Stripe has not been seen to count come first, however many others are read again.
		for _, again := range []bool{false, true} {
			q := tx.NewSelect().Model(&due).Where("state <> 'sealed' AND next_attempt_at <= ? AND (state = ?) = ?", now, models.ReportVerified, again).
				Where("state <> ? OR (first_attempt_at <= ? AND last_attempt_at <= ?)", models.ReportUnknown, now.Add(-r.guard), now.Add(-requestSettles)).
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
		_, err := tx.NewUpdate().Model((*models.StripeReport)(nil)).Set("next_attempt_at = ?", now.Add(maxDelay)).Where("id IN (?)", bun.List(ids)).Exec(ctx)
		return err
	})
	return due, err
}

// metersLife is how long the ids of an event name's meters are taken for true. A meter that is archived may be made anew, and the sums of the old
// one would say that nothing arrives any more; a report is taken for lost only after a day of that. missingLife is how long a meter is taken
// to be missing.
const (
	metersLife  = time.Hour
	missingLife = time.Minute
)

// meters are the ids at Stripe of the meters of an event name: the active one, and those that were archived before it was made. What was sent is
// at one of them. A report stays with the event name it was sealed for, whatever the catalogue names later.
func (r *Reporter) meters(ctx context.Context, eventName string) ([]string, error) {
	r.metersMu.Lock()
	known := r.knownMeters[eventName]
	r.metersMu.Unlock()
	if !r.now().Before(known.until) {
		all, err := r.Client.meters(ctx)
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

// readBack reads a report's minute and writes down what it says. A total that cannot be read is read again later; only the database's
// errors are returned.
func (r *Reporter) readBack(ctx context.Context, report *models.StripeReport) error {
	meters, err := r.meters(ctx, report.MeterEventName)
	var total int64
	if err == nil {
		total, err = r.totalOf(ctx, meters, report.StripeCustomerID, report.Minute.UTC(), report.Minute.UTC().Add(time.Minute))
	}
	if err != nil {
		r.Log.Warn("a report could not be read back", "report", report.Identifier, "error", err)
		if o := classify(err, 1); o.verdict == misconfigured {
			return r.stop(ctx, o.text)
		}
		return nil
	}
	now := r.now()
	v := verify(report, total, now)
	err = r.DB.InTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		// One who read it twice changes it once.
		held, err := r.lockReport(ctx, tx, report)
		if err != nil || !held {
			return err
		}
		if v.state == models.ReportMissing {
			return r.replace(ctx, tx, report, v, now)
		}
		return r.write(ctx, tx, report, v)
	})
	if err != nil && !errors.Is(err, ErrStreamBusy) {
		return fmt.Errorf("write down what Stripe has of report %s: %w", report.Identifier, err)
	}
	return nil
}

// totalOf is Stripe's total of a customer's minutes. Stripe bills nothing to a customer that it does not know, and has nothing of theirs.
func (r *Reporter) totalOf(ctx context.Context, meters []string, customer string, from, to time.Time) (sum int64, err error) {
	for _, meter := range meters {
		total, err := r.Client.total(ctx, meter, customer, from, to)
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

// lockReport locks the report and says whether it is still in the state in which it was read.
func (r *Reporter) lockReport(ctx context.Context, tx bun.Tx, report *models.StripeReport) (bool, error) {
	var found []models.StripeReport
	q := tx.NewSelect().Model(&found).Where("id = ? AND state = ?", report.ID, report.State)
	if err := models.ForUpdate(q).Scan(ctx); err != nil || len(found) == 0 {
		return false, err
	}
	*report = found[0]
	return true, nil
}

// reading is what a total says of a report.
type reading struct {
	state     models.ReportState
	total     int64
	zeroSince *time.Time
	// next is when the report is read again; nil when never.
	next *time.Time
	text string
	// byHour means that Stripe's total of the hour has the units, and not that of the minute.
	byHour bool
}

// verify decides by Stripe's total of a report's minute, which is no other report's, what became of it.
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
		v.text = fmt.Sprintf("Stripe has %d units for this minute, and this report has %d", total, report.Value)
		if now.Sub(report.CreatedAt) < watched {
			later(24 * time.Hour)
		}
		return v
	}
	// Nothing is there. That is believed when it stayed so for as long as a total may lag behind.
	v.zeroSince = report.ZeroSince
	if v.zeroSince == nil {
		v.zeroSince = &now
	}
	settled := now.Sub(*v.zeroSince) >= summarySettles
	switch report.State {
	case models.ReportUnknown:
		if settled {
			v.state = models.ReportMissing
			v.text = "Stripe never had it; its units went into another report"
			return v
		}
		later(min(readAgain, summarySettles-now.Sub(*v.zeroSince)))
	case models.ReportAccepted:
		if age := now.Sub(*report.AcceptedAt); age >= summarySettles {
			v.state = models.ReportRejected
			v.text = "Stripe received it and did not count it"
			later(24 * time.Hour)
		} else {
			later(summarySettles - age)
		}
	case models.ReportVerified:
		// Verified reports are read again when totals are compared. Stripe had counted this one before.
		if settled {
			v.state = models.ReportRejected
			v.text = "Stripe counted it and no longer has it"
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

// write changes the report as it was read.
func (r *Reporter) write(ctx context.Context, tx bun.Tx, report *models.StripeReport, v reading) error {
	now := r.now()
	accepted := report.State == models.ReportAccepted
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
		r.Log.Warn("a report to Stripe wants an operator's eye", "report", report.Identifier, "customer", report.StripeCustomerID,
			"units", report.Value, "state", v.state, "answer", v.text)
	}
	_, err := tx.NewUpdate().Model(report).
		Column("state", "confirmed", "zero_since", "next_attempt_at", "last_error", "verified_at", "verified_by_hour", "replaced_by").WherePK().Exec(ctx)
	return err
}

// replace freezes the events of a report that never arrived into a new one, of another identifier and minute.
func (r *Reporter) replace(ctx context.Context, tx bun.Tx, report *models.StripeReport, v reading, now time.Time) error {
	of := stream{report.StripeCustomerID, report.MeterEventName}
	streams, err := lockStreams(ctx, tx, []stream{of})
	if err == nil && len(streams) == 0 {
		err = ErrStreamBusy
	}
	if err != nil {
		return err
	}
	if now.Sub(report.Minute.UTC()) > maxAge {
		v.state, v.text = models.ReportExpired, "Stripe never had it, and it is too old to be sent again"
		return r.write(ctx, tx, report, v)
	}
	var occurred struct{ First, Last bun.NullTime }
	if err := tx.NewSelect().Model((*models.UsageEvent)(nil)).ColumnExpr("MIN(occurred_at) AS first, MAX(occurred_at) AS last").
		Where("stripe_report_id = ?", report.ID).Scan(ctx, &occurred); err != nil {
		return err
	}
	all, err := timelinesOf(ctx, tx, []string{report.StripeCustomerID})
	if err != nil {
		return err
	}
	known, last := all[report.StripeCustomerID], occurred.Last.UTC()
	if occurred.Last.IsZero() {
		last = report.Minute.UTC()
	}
	hour := last.Truncate(time.Hour) // of the events: the report's minute may be another hour's
	s := slice{stream: of, period: known.at(last), last: last, from: hour, until: hour.Add(time.Hour)}
	s.from, s.until = later(s.from, s.period.Start), earlier(s.until, s.period.End)
	s.certain = known.readAt.IsZero() || !known.readAt.Before(s.until)
	taken, err := takenMinutes(ctx, tx, []slice{s})
	if err != nil {
		return err
	}
	minute, ok, err := taken.take(ctx, tx, &s, now)
	if err != nil {
		return err
	}
	if !ok {
		v.state, v.text = models.ReportDead, "Stripe never had it, and each minute of its billing period has a report"
		return r.write(ctx, tx, report, v)
	}
	fresh := r.newReport(&s, minute, now)
	fresh.Value, fresh.Counts = report.Value, report.Counts
	if !occurred.First.IsZero() && !s.period.Contains(occurred.First.UTC()) {
		// Some of its events are another period's, as a boundary became known since. The totals look at each of them.
		fresh.PeriodStart, fresh.PeriodEnd = report.PeriodStart, report.PeriodEnd
	}
	if err := insertReports(ctx, tx, []*models.StripeReport{fresh}, now); err != nil {
		return err
	}
	if _, err := tx.NewUpdate().Model((*models.UsageEvent)(nil)).Set("stripe_report_id = ?, stripe_reported_at = NULL", fresh.ID).Where("stripe_report_id = ?", report.ID).Exec(ctx); err != nil {
		return err
	}
	report.ReplacedBy = &fresh.ID
	return r.write(ctx, tx, report, v)
}
