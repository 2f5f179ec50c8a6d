package billing

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/uptrace/bun"

	"tollgate/models"
)

// errUntold says that Stripe answered for some customers only.
var errUntold = errors.New("Stripe does not tell the totals of some customers") //nolint:staticcheck // Stripe is a name

// totalsRetry is how soon the totals are compared again when Stripe or the database did not answer.
const totalsRetry = time.Hour

// dailyTotals compares the totals of all customers once a day.
func (r *Reporter) dailyTotals(ctx context.Context) error {
	return onceADay(ctx, r.DB, r.now(), "totals_at", totalsRetry, func() error {
		_, err := r.Totals(ctx, false)
		if errors.Is(err, errUntold) {
			r.report(ctx, "compare some totals", err) // Stripe says so tomorrow as well, and is asked no sooner
			return nil
		}
		return err
	})
}

// totalsSoon has the totals compared again in an hour. Whoever asked strictly left differences behind that may only have lagged.
func (r *Reporter) totalsSoon(ctx context.Context) error {
	soon := r.now().Add(totalsRetry - 24*time.Hour)
	_, err := r.DB.NewUpdate().Model((*models.StripeState)(nil)).Set("totals_at = ?", soon).Where("id = 1 AND totals_at > ?", soon).Exec(ctx)
	return err
}

// Totals compares, for each customer, meter and billing period that Stripe still takes events of, Stripe's total with what was sent, and
// returns what it found, by customer, meter and period. If Stripe's total is higher, only a person can tell why, and nothing is lowered.
// With errUntold, it found all but what that names.
//
// Units from another source can hide a lost report in a total, but not in the report's own minute. So each comparison also makes the
// period's verified reports due to be read again: all of them if the total differs or if strict is set, and otherwise those that were
// last seen more than readAgain ago.
//
// Stripe's totals may lack for a while what Stripe accepted, and each accepted report is read by itself later. So it is no difference
// yet, unless strict says that it is.
func (r *Reporter) Totals(ctx context.Context, strict bool) ([]models.StripeTotal, error) {
	streams, err := r.streams(ctx)
	if err != nil {
		return nil, fmt.Errorf("list the customers with usage: %w", err)
	}
	var all []models.StripeTotal
	var untold []error
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
				// A missing meter is one error, and hides nothing of the others.
				if !missing[of.meter] {
					missing[of.meter], untold = true, append(untold, err)
				}
			case classify(err, 1).verdict == refused:
				// What Stripe does not tell of one customer hides nothing of the others.
				untold = append(untold, fmt.Errorf("compare the total of %s: %w", of.customer, err))
			default:
				return all, err
			}
		}
		if err := r.balance(ctx, of); errors.Is(err, errInvoices) && !passes(err) {
			untold = append(untold, err)
		} else if err != nil {
			return all, err
		}
	}
	if err := r.balanceByHand(ctx); err != nil {
		return all, err
	}
	if untold != nil {
		return all, fmt.Errorf("%w: %w", errUntold, errors.Join(untold...))
	}
	return all, nil
}

// totalsReach is how far back Stripe takes events, and so for how long its totals change.
const totalsReach = 35 * 24 * time.Hour

// planOf returns the plan whose meter it is; empty for a meter of earlier releases and for one that the catalog no longer names.
func (r *Reporter) planOf(meter string) models.PlanID {
	plan, _ := strings.CutPrefix(meter, r.Catalogue.MeterOf(""))
	if r.Catalogue.MeterOf(models.PlanID(plan)) != meter {
		return ""
	}
	return models.PlanID(plan)
}

// streams are all that ever had something to report, and all that subscribers have a plan of: what somebody else told Stripe is on their
// invoice as well.
func (r *Reporter) streams(ctx context.Context) ([]stream, error) {
	type row struct {
		Customer, Meter string
		Plan            models.PlanID
	}
	var rows []row
	plans := []models.PlanID{""} // an empty list is no SQL
	for _, p := range r.Catalogue.Plans {
		if p.ID != models.FreePlan {
			plans = append(plans, p.ID)
		}
	}
	err := r.DB.NewRaw(`SELECT stripe_customer_id AS customer, meter_event_name AS meter, '' AS plan FROM stripe_streams
		UNION SELECT stripe_customer_id, '', plan_id FROM subscriptions WHERE stripe_customer_id IS NOT NULL AND plan_id IN (?) AND current_period_end > ?`,
		bun.List(plans), r.now().Add(-totalsReach)).Scan(ctx, &rows)
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
		if err := r.DB.NewRaw(`SELECT DISTINCT e.stripe_customer_id AS customer, e.plan_id AS plan FROM usage_events e
			WHERE `+toSeal+` AND e.stripe_customer_id IN (?)`, bun.List(customers)).Scan(ctx, &more); err != nil {
			return nil, err
		}
		rows = append(rows, more...)
	}
	streams := make([]stream, len(rows))
	for i, row := range rows {
		streams[i] = stream{row.Customer, row.Meter}
		if row.Meter == "" {
			streams[i].meter = r.Catalogue.MeterOf(row.Plan)
		}
	}
	slices.SortFunc(streams, stream.compare)
	return slices.Compact(streams), nil
}

// periods are the billing periods of the last 35 days in which a customer has something on a meter, cut where a next one begins.
func (r *Reporter) periods(ctx context.Context, of stream) ([]models.Period, error) {
	var labels []struct{ Start, Stop time.Time }
	since, plan := r.now().Add(-totalsReach), r.planOf(of.meter)
	err := r.DB.NewRaw(`SELECT period_start AS start, period_end AS stop FROM stripe_reports WHERE stripe_customer_id = ? AND meter_event_name = ? AND minute >= ? GROUP BY 1, 2
		UNION SELECT e.billing_period_start, e.billing_period_end FROM usage_events e
			WHERE `+toSeal+` AND e.stripe_customer_id = ? AND e.plan_id = ? AND e.occurred_at >= ? GROUP BY 1, 2
		UNION SELECT current_period_start, current_period_end FROM subscriptions
			WHERE stripe_customer_id = ? AND plan_id = ? AND current_period_end > current_period_start AND current_period_end > ?`,
		of.customer, of.meter, since, of.customer, plan, since, of.customer, plan, since).Scan(ctx, &labels)
	if err != nil {
		return nil, err
	}
	var periods []models.Period
	for _, l := range labels {
		periods = append(periods, models.Period{Start: l.Start.UTC(), End: l.Stop.UTC()})
	}
	slices.SortFunc(periods, func(a, b models.Period) int { return a.Start.Compare(b.Start) })
	var cut []models.Period
	for _, p := range periods {
		if n := len(cut); n > 0 {
			if cut[n-1].Start.Equal(p.Start) {
				if p.End.After(cut[n-1].End) {
					cut[n-1].End = p.End
				}
				continue
			}
			cut[n-1].End = earlier(cut[n-1].End, p.Start)
		}
		cut = append(cut, p)
	}
	return cut, nil
}

// compare asks Stripe for a total and writes down what comes of it.
func (r *Reporter) compare(ctx context.Context, of stream, p models.Period, strict bool) (*models.StripeTotal, error) {
	now, customer := r.now(), of.customer
	meters, err := r.meters(ctx, of.meter)
	if err != nil {
		return nil, err
	}
	t := &models.StripeTotal{StripeCustomerID: customer, MeterEventName: of.meter, PeriodStart: p.Start, PeriodEnd: p.End, CheckedAt: now}
	// Reports stand at whole minutes, so a period has those of the minutes that begin in it.
	from, to := ceilMinute(p.Start), ceilMinute(earlier(p.End, now))
	if to.After(from) {
		confirmed, err := r.totalOf(ctx, meters, customer, from, to)
		if err != nil {
			if o := classify(err, 1); o.verdict == ours {
				return nil, errors.Join(err, r.stop(ctx, o.text))
			}
			return nil, err
		}
		t.Confirmed = confirmed
	}
	// Read after Stripe was asked: what was sent meanwhile counts as sent, and what Stripe has of it is seen the next time.
	var sums struct{ Used, Waiting, Unknown, Accepted, GivenUp, Unsealed int64 }
	err = r.DB.NewRaw(`SELECT COALESCE(CAST(SUM(value) AS bigint), 0) AS used,
			COALESCE(CAST(SUM(CASE WHEN state = 'sealed' THEN value ELSE 0 END) AS bigint), 0) AS waiting,
			COALESCE(CAST(SUM(CASE WHEN state = 'unknown' THEN value ELSE 0 END) AS bigint), 0) AS unknown,
			COALESCE(CAST(SUM(CASE WHEN state = 'accepted' THEN value ELSE 0 END) AS bigint), 0) AS accepted,
			COALESCE(CAST(SUM(CASE WHEN state = 'given_up' AND COALESCE(confirmed, 0) < value THEN value - COALESCE(confirmed, 0) ELSE 0 END) AS bigint), 0) AS given_up,
			COALESCE((SELECT CAST(SUM(`+reported+`) AS bigint) FROM usage_events e WHERE `+toSeal+`
				AND e.stripe_customer_id = ? AND e.plan_id = ? AND e.occurred_at >= ? AND e.occurred_at < ?), 0) AS unsealed
		FROM stripe_reports WHERE stripe_customer_id = ? AND meter_event_name = ? AND minute >= ? AND minute < ? AND state <> 'missing'`,
		customer, r.planOf(of.meter), p.Start, p.End, customer, of.meter, p.Start, p.End).Scan(ctx, &sums)
	if err != nil {
		return nil, err
	}
	t.Used, t.Waiting = sums.Used+sums.Unsealed, sums.Waiting+sums.Unsealed
	t.Sent = t.Used - t.Waiting - sums.GivenUp
	open := sums.Unknown
	if !strict {
		open += sums.Accepted
	}
	t.Difference = t.Confirmed - t.Sent
	if t.Difference < 0 && -t.Difference <= open {
		t.Difference = 0 // it may be there yet
	}
	err = r.DB.InTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		seen := now.Add(-readAgain)
		if strict || t.Difference != 0 {
			seen = now
		}
		due := []models.ReportState{models.ReportVerified}
		if t.Difference < 0 {
			due = append(due, models.ReportAccepted)
		}
		if _, err := tx.NewUpdate().Model((*models.StripeReport)(nil)).Set("next_attempt_at = ?", now).
			Where("stripe_customer_id = ? AND meter_event_name = ? AND minute >= ? AND minute < ?", customer, t.MeterEventName, p.Start, p.End).
			Where("state IN (?) AND (verified_at IS NULL OR verified_at <= ?)", bun.List(due), seen).Exec(ctx); err != nil {
			return err
		}
		_, err := tx.NewInsert().Model(t).On("CONFLICT (stripe_customer_id, meter_event_name, period_start) DO UPDATE").
			Set("period_end = EXCLUDED.period_end, used = EXCLUDED.used, waiting = EXCLUDED.waiting, sent = EXCLUDED.sent").
			Set("confirmed = EXCLUDED.confirmed, difference = EXCLUDED.difference, checked_at = EXCLUDED.checked_at").Exec(ctx)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("write down the total of %s: %w", customer, err)
	}
	if t.Difference != 0 {
		r.Log.Warn("Stripe's total differs from what was sent", "customer", customer, "period", p.Start, "sent", t.Sent, "confirmed", t.Confirmed)
	}
	return t, nil
}

func ceilMinute(t time.Time) time.Time {
	if whole := t.Truncate(time.Minute); !whole.Equal(t) {
		return whole.Add(time.Minute)
	}
	return t
}
