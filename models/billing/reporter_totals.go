package billing

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/uptrace/bun"

	"tollgate/models"
)

// errTotalsUnread means that Stripe did not return the totals of some customers.
var errTotalsUnread = errors.New("Stripe did not return the totals of some customers") //nolint:staticcheck // Stripe is a name

// totalsRetry is the delay before totals are compared again if Stripe or the database did not
// answer.
const totalsRetry = time.Hour

// dailyTotals compares the totals of all customers once a day.
func (r *Reporter) dailyTotals(ctx context.Context) error {
	return onceADay(ctx, r.db, r.now(), "totals_at", totalsRetry, func() error {
		_, err := r.Totals(ctx, false)
		if errors.Is(err, errTotalsUnread) {
			r.logError(ctx, "compare some totals", err) // Stripe says so tomorrow as well, and is asked no sooner
			return nil
		}
		return err
	})
}

// totalsSoon schedules the next comparison of totals in an hour. A strict comparison may have left
// differences that are only due to lag.
func (r *Reporter) totalsSoon(ctx context.Context) error {
	soon := r.now().Add(totalsRetry - 24*time.Hour)
	_, err := r.db.NewUpdate().Model((*models.StripeState)(nil)).Set("totals_at = ?", soon).Where("id = 1 AND totals_at > ?", soon).Exec(ctx)
	return err
}

// Totals compares Stripe's total with what was sent, for each customer, meter and billing period
// for which Stripe still accepts events. It returns the results by customer, meter and period. If
// Stripe's total is higher, only a person can find the reason, and nothing is reduced. If it
// returns errTotalsUnread, the results lack only the customers that the error names.
//
// Units from another source can hide a lost report in a total, but not in the report's own minute.
// So each comparison also makes the period's verified reports due to be read again: all of them if
// the total differs or strict is set, and otherwise those that were last read more than readAgain
// ago.
//
// Stripe's totals may lag, and each accepted report is read later anyway. So missing accepted
// reports are not a difference yet, unless strict is set.
func (r *Reporter) Totals(ctx context.Context, strict bool) ([]models.StripeTotal, error) {
	streams, err := r.streams(ctx)
	if err != nil {
		return nil, fmt.Errorf("list the customers with usage: %w", err)
	}
	var all []models.StripeTotal
	var unread []error
	missing := map[string]bool{}
	for _, of := range streams {
		periods, err := r.periods(ctx, of)
		if err != nil {
			return all, fmt.Errorf("find the billing periods of %s: %w", of.customer, err)
		}
		for _, p := range periods {
			if err := r.limit.wait(ctx); err != nil {
				return all, err
			}
			t, err := r.compare(ctx, of, p, strict)
			switch {
			case err == nil:
				all = append(all, *t)
			case errors.Is(err, errNoMeter):
				// A missing meter is one error, and does not stop the comparison of others.
				if !missing[of.meter] {
					missing[of.meter], unread = true, append(unread, err)
				}
			case classify(err, 1).verdict == refused:
				// An error for one customer does not stop the comparison of others.
				unread = append(unread, fmt.Errorf("compare the total of %s: %w", of.customer, err))
			default:
				return all, err
			}
		}
		if err := r.balance(ctx, of); errors.Is(err, errInvoices) && !isTemporary(err) {
			unread = append(unread, err)
		} else if err != nil {
			return all, err
		}
	}
	if err := r.balanceByHand(ctx); err != nil {
		return all, err
	}
	if unread != nil {
		return all, fmt.Errorf("%w: %w", errTotalsUnread, errors.Join(unread...))
	}
	return all, nil
}

// totalsReach is how far back Stripe accepts events, so that its totals may change.
const totalsReach = 35 * 24 * time.Hour

// planOf returns the plan with the meter; empty for a meter of an earlier release, or one that is
// no longer in the catalog.
func (r *Reporter) planOf(meter string) models.PlanID {
	plan, _ := strings.CutPrefix(meter, r.catalogue.MeterOf(""))
	if r.catalogue.MeterOf(models.PlanID(plan)) != meter {
		return ""
	}
	return models.PlanID(plan)
}

// streams returns all streams that ever had something to report, those of plans with subscribers,
// and those for which Stripe had something before, because units from another source are also
// invoiced.
func (r *Reporter) streams(ctx context.Context) ([]stream, error) {
	type row struct {
		Customer, Meter string
		Plan            models.PlanID
	}
	var rows []row
	plans := []models.PlanID{""} // an empty list is no SQL
	for _, p := range r.catalogue.Plans {
		if p.ID != models.FreePlan {
			plans = append(plans, p.ID)
		}
	}
	err := r.db.NewRaw(`SELECT stripe_customer_id AS customer, meter_event_name AS meter, '' AS plan FROM stripe_streams
		UNION SELECT stripe_customer_id, '', plan_id FROM subscriptions
			WHERE stripe_customer_id IS NOT NULL AND plan_id IN (?) AND current_period_end > ?
		UNION SELECT stripe_customer_id, meter_event_name, '' FROM stripe_totals WHERE confirmed <> 0 AND period_end > ?`,
		bun.List(plans), r.now().Add(-totalsReach), r.now().Add(-totalsReach)).Scan(ctx, &rows)
	if err != nil {
		return nil, err
	}
	for after := ""; ; {
		customers, err := r.unsealed(ctx, after, customersAtOnce)
		if err != nil {
			return nil, err
		}
		if len(customers) == 0 {
			break
		}
		after = customers[len(customers)-1]
		var more []row
		if err := r.db.NewRaw(`SELECT DISTINCT e.stripe_customer_id AS customer, e.plan_id AS plan FROM usage_events e
			WHERE `+toSeal+` AND e.stripe_customer_id IN (?)`, bun.List(customers)).Scan(ctx, &more); err != nil {
			return nil, err
		}
		rows = append(rows, more...)
	}
	streams := make([]stream, len(rows))
	for i, row := range rows {
		streams[i] = stream{row.Customer, row.Meter}
		if row.Meter == "" {
			streams[i].meter = r.catalogue.MeterOf(row.Plan)
		}
	}
	slices.SortFunc(streams, stream.compare)
	return slices.Compact(streams), nil
}

// periods returns the billing periods of the last 35 days, as known now, in which a customer has
// something on a meter here or at Stripe.
func (r *Reporter) periods(ctx context.Context, of stream) ([]models.Period, error) {
	now, plan := r.now(), r.planOf(of.meter)
	since := now.Add(-totalsReach)
	all, err := timelinesOf(ctx, r.db, []string{of.customer})
	if err != nil {
		return nil, err
	}
	known, found := all[of.customer], map[time.Time]models.Period{}
	add := func(from, to time.Time) {
		for at := from.UTC(); !at.After(now); {
			p := known.at(at)
			found[p.Start] = p
			if at = p.End; !at.Before(to) {
				return
			}
		}
	}
	var reports []models.StripeReport
	if err := r.db.NewSelect().Model(&reports).Column("minute", "period_start", "period_end").
		Where("stripe_customer_id = ? AND meter_event_name = ? AND minute >= ?", of.customer, of.meter, since).Scan(ctx); err != nil {
		return nil, err
	}
	for _, p := range reports {
		add(p.Minute, p.Minute)
		if label := (models.Period{Start: p.PeriodStart.UTC(), End: p.PeriodEnd.UTC()}); found[label.Start] != label && label.End.After(since) {
			add(later(label.Start, since), label.End)
		}
	}
	hour := "date_trunc('hour', e.occurred_at)"
	if !r.db.Postgres {
		hour = "substr(e.occurred_at, 1, 13)"
	}
	var unsealed []struct{ First, Last time.Time }
	if err := r.db.NewRaw(`SELECT MIN(e.occurred_at) AS first, MAX(e.occurred_at) AS last FROM usage_events e
			WHERE `+toSeal+` AND e.stripe_customer_id = ? AND e.plan_id = ? AND e.occurred_at >= ? GROUP BY `+hour,
		of.customer, plan, since).Scan(ctx, &unsealed); err != nil {
		return nil, err
	}
	for _, hour := range unsealed {
		add(hour.First, hour.Last)
	}
	var before []models.StripeTotal
	if err := r.db.NewSelect().Model(&before).Column("period_start", "period_end").
		Where("stripe_customer_id = ? AND meter_event_name = ? AND confirmed <> 0 AND period_end > ?", of.customer, of.meter, since).
		Scan(ctx); err != nil {
		return nil, err
	}
	for _, t := range before {
		add(later(t.PeriodStart, since), t.PeriodEnd)
	}
	var current []models.Subscription
	if err := r.db.NewSelect().Model(&current).Column("current_period_start").
		Where("stripe_customer_id = ? AND plan_id = ? AND current_period_end > current_period_start AND current_period_end > ?",
			of.customer, plan, since).Scan(ctx); err != nil {
		return nil, err
	}
	for _, s := range current {
		add(*s.CurrentPeriodStart, *s.CurrentPeriodStart)
	}
	return slices.SortedFunc(maps.Values(found), func(a, b models.Period) int { return a.Start.Compare(b.Start) }), nil
}

// compare reads a total from Stripe and stores the result.
func (r *Reporter) compare(ctx context.Context, of stream, p models.Period, strict bool) (*models.StripeTotal, error) {
	now, customer := r.now(), of.customer
	meters, err := r.meters(ctx, of.meter)
	if err != nil {
		return nil, err
	}
	t := &models.StripeTotal{StripeCustomerID: customer, MeterEventName: of.meter, PeriodStart: p.Start, PeriodEnd: p.End, CheckedAt: now}
	// Reports have whole minutes, so a period has the reports of the minutes that begin in it.
	from, to := ceilMinute(p.Start), ceilMinute(earlier(p.End, now))
	if to.After(from) {
		confirmed, err := r.totalOf(ctx, meters, customer, from, to)
		if err != nil {
			if o := classify(err, 1); o.verdict == misconfigured {
				return nil, errors.Join(err, r.stop(ctx, o.text))
			}
			return nil, err
		}
		t.Confirmed = confirmed
	}
	// Read this after asking Stripe: units sent in the meantime count as sent, and Stripe's total
	// will contain them next time. Sent units count by the minutes of reports, as at Stripe, and
	// used units by when they occurred. For a report that was made for exactly this period, that is
	// its value; otherwise each event counts.
	var sums struct{ Reported, Waiting, Open, OpenVoids, GivenUp, Unsealed, Own, Others, Voids, MovedIn, MovedOut int64 }
	open := []models.ReportState{models.ReportUnknown}
	if !strict {
		open = append(open, models.ReportAccepted)
	}
	// A negative report that was given up counts only with what Stripe has of it: a credit note takes
	// the rest back.
	const has = "CASE WHEN r.confirmed >= 0 THEN 0 WHEN r.confirmed < r.value THEN r.value ELSE COALESCE(r.confirmed, 0) END"
	const value = "(CASE WHEN r.counts = 'void' AND r.state = 'given_up' THEN " + has + " ELSE r.value END)"
	err = r.db.NewRaw(`SELECT COALESCE(CAST(SUM(`+value+`) AS bigint), 0) AS reported,
			COALESCE(CAST(SUM(CASE WHEN r.state = 'sealed' THEN r.value ELSE 0 END) AS bigint), 0) AS waiting,
			COALESCE(CAST(SUM(CASE WHEN r.state IN (?7) AND r.value > 0 THEN r.value ELSE 0 END) AS bigint), 0) AS open,
			COALESCE(CAST(SUM(CASE WHEN r.state IN (?7) AND r.value < 0 THEN -r.value ELSE 0 END) AS bigint), 0) AS open_voids,
			COALESCE(CAST(SUM(CASE WHEN r.state = 'given_up' AND r.counts <> 'void' AND ABS(COALESCE(r.confirmed, 0)) < r.value
			THEN r.value - COALESCE(r.confirmed, 0) ELSE 0 END) AS bigint), 0) AS given_up,
			COALESCE(CAST(SUM(CASE WHEN r.no_minute AND r.period_end <= ?0 THEN `+value+` ELSE 0 END) AS bigint), 0) AS moved_in,
			COALESCE((SELECT CAST(SUM(`+reported+`) AS bigint) FROM usage_events e WHERE `+toSeal+`
				AND e.stripe_customer_id = ?2 AND e.plan_id = ?4 AND e.occurred_at >= ?0 AND e.occurred_at < ?1), 0) AS unsealed,
			COALESCE((SELECT CAST(SUM(`+value+`) AS bigint) FROM stripe_reports r WHERE r.stripe_customer_id = ?2 AND r.meter_event_name = ?3
				AND r.minute >= ?5 AND r.state <> 'missing' AND r.period_start = ?0 AND r.period_end = ?1), 0) AS own,
			COALESCE((SELECT CAST(SUM(CASE WHEN r.no_minute AND r.minute >= ?1 THEN `+value+` ELSE 0 END) AS bigint) FROM stripe_reports r
				WHERE r.stripe_customer_id = ?2 AND r.meter_event_name = ?3
				AND r.minute >= ?5 AND r.state <> 'missing' AND r.period_start = ?0 AND r.period_end = ?1), 0) AS moved_out,
			COALESCE((SELECT CAST(SUM(CASE r.counts WHEN 'overage' THEN e.overage_quantity ELSE e.quantity END) AS bigint)
				FROM stripe_reports r JOIN usage_events e ON e.stripe_report_id = r.id
				WHERE r.stripe_customer_id = ?2 AND r.meter_event_name = ?3 AND r.minute >= ?6 AND r.state <> 'missing'
				AND (r.period_start IS DISTINCT FROM ?0 OR r.period_end IS DISTINCT FROM ?1)
				AND (r.period_start IS NULL OR r.period_start < ?1) AND (r.period_end IS NULL OR r.period_end > ?0)
				AND e.occurred_at >= ?0 AND e.occurred_at < ?1), 0) AS others,
			COALESCE((SELECT CAST(SUM(-`+value+`) AS bigint)
				FROM stripe_reports r JOIN usage_voids v ON v.stripe_report_id = r.id
				WHERE r.stripe_customer_id = ?2 AND r.meter_event_name = ?3 AND r.minute >= ?6 AND r.state <> 'missing'
				AND (r.period_start <> ?0 OR r.period_end <> ?1) AND r.period_start < ?1 AND r.period_end > ?0
				AND v.occurred_at >= ?0 AND v.occurred_at < ?1), 0) AS voids
		FROM stripe_reports r
		WHERE r.stripe_customer_id = ?2 AND r.meter_event_name = ?3 AND r.minute >= ?0 AND r.minute < ?1 AND r.state <> 'missing'`,
		p.Start, p.End, customer, of.meter, r.planOf(of.meter), p.Start.Truncate(time.Minute), p.Start.Add(-totalsReach),
		bun.List(open)).Scan(ctx, &sums)
	if err != nil {
		return nil, err
	}
	used := sums.Own + sums.Others - sums.Voids
	t.Used, t.Waiting = used+sums.Unsealed, sums.Waiting+sums.Unsealed
	t.Sent = sums.Reported - sums.Waiting - sums.GivenUp
	t.Misplaced = sums.Reported - used
	unexplained := t.Misplaced - (sums.MovedIn - sums.MovedOut)
	switch {
	case unexplained != 0:
		t.Reason = models.LearnedLate
	case t.Misplaced != 0:
		t.Reason = models.NoMinute
	}
	lacks := t.Confirmed - t.Sent
	if lacks < 0 && -lacks <= sums.Open || lacks > 0 && lacks <= sums.OpenVoids {
		lacks = 0 // it may be there yet
	}
	t.Difference = lacks + unexplained
	err = r.db.InTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		seen := now.Add(-readAgain)
		if strict || lacks != 0 {
			seen = now
		}
		due := []models.ReportState{models.ReportVerified}
		if lacks != 0 {
			due = append(due, models.ReportAccepted)
		}
		if _, err := tx.NewUpdate().Model((*models.StripeReport)(nil)).Set("next_attempt_at = ?", now).
			Where("stripe_customer_id = ? AND meter_event_name = ? AND minute >= ? AND minute < ?", customer, t.MeterEventName, p.Start, p.End).
			Where("state IN (?) AND (verified_at IS NULL OR verified_at <= ?)", bun.List(due), seen).
			Where("NOT verified_by_hour"). // Stripe has nothing in the minutes of these
			Exec(ctx); err != nil {
			return err
		}
		// Delete the totals of periods that turned out to be parts of this one.
		if _, err := tx.NewDelete().Model((*models.StripeTotal)(nil)).
			Where("stripe_customer_id = ? AND meter_event_name = ? AND period_start > ? AND period_start < ?", customer, of.meter, p.Start,
				p.End).Exec(ctx); err != nil {
			return err
		}
		_, err := tx.NewInsert().Model(t).On("CONFLICT (stripe_customer_id, meter_event_name, period_start) DO UPDATE").
			Set("period_end = EXCLUDED.period_end, used = EXCLUDED.used, waiting = EXCLUDED.waiting, sent = EXCLUDED.sent").
			Set("confirmed = EXCLUDED.confirmed, difference = EXCLUDED.difference, misplaced = EXCLUDED.misplaced, reason = " +
				"EXCLUDED.reason, checked_at = EXCLUDED.checked_at").Exec(ctx)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("store the total of %s: %w", customer, err)
	}
	if t.Difference != 0 {
		r.log.Warn("Stripe's total differs from what was sent", "customer", customer, "period", p.Start, "sent", t.Sent, "confirmed", t.Confirmed)
	}
	return t, nil
}

func ceilMinute(t time.Time) time.Time {
	if whole := t.Truncate(time.Minute); !whole.Equal(t) {
		return whole.Add(time.Minute)
	}
	return t
}
