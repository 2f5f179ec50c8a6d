package billing

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/uptrace/bun"

	"tollgate/models"
)

// customersAtOnce is the number of customers whose events are sealed in one transaction. On SQLite,
// the gate waits meanwhile.
const customersAtOnce = 20

// Conditions on usage_events e. toSeal selects the events to report that are in no report yet and
// not voided; the index usage_events_unsealed has both. reported is the part of them that Stripe
// bills.
const (
	toSeal   = "e.stripe_report_id IS NULL AND e.stripe_customer_id IS NOT NULL AND e.overage_quantity > 0 AND e.voided_at IS NULL"
	reported = "e.overage_quantity"
)

// stream is the sequence of a customer's reports to a meter.
type stream struct {
	customer, meter string // the meter by its event name
}

func (s stream) compare(t stream) int {
	return cmp.Or(strings.Compare(s.customer, t.customer), strings.Compare(s.meter, t.meter))
}

// slice is a customer's unsealed events for one report: of one plan, within one UTC hour and one
// billing period of Stripe's.
type slice struct {
	stream
	plan models.PlanID
	// period is the billing period of the events. [from, until) is the part of it to seal.
	period      models.Period
	from, until time.Time
	// last is at or after the last event. A minute up to it is in the same period as the events.
	last time.Time
	// certain means that Stripe's state was read after the slice ended, so no unknown period can
	// begin in it.
	certain bool
	// noMinute means that the period has no free minute, so the report gets a minute of the
	// following period.
	noMinute bool
}

// Seal seals due events into reports, and returns the number of reports. The events of an hour are
// due some time after the hour, and those before the end of a billing period when it has ended.
// Later events go into another report with another minute.
func (r *Reporter) Seal(ctx context.Context) (int, error) {
	sealed, after := 0, ""
	if err := r.unsealChanged(ctx); err != nil {
		return 0, fmt.Errorf("take back the reports of changed billing periods: %w", err)
	}
	for {
		customers, err := r.unsealed(ctx, after, customersAtOnce)
		if err != nil {
			return sealed, fmt.Errorf("find customers with unreported events: %w", err)
		}
		if len(customers) == 0 {
			return sealed, nil
		}
		after = customers[len(customers)-1]
		n, err := r.sealCustomers(ctx, customers)
		sealed += n
		if err != nil {
			return sealed, fmt.Errorf("seal the events of %d customers: %w", len(customers), err)
		}
	}
}

// unsealed returns the next customers, in order, with events in no report. It skips through the
// index from one customer to the next, so it reads one entry per customer.
func (r *Reporter) unsealed(ctx context.Context, after string, limit int) ([]string, error) {
	var found []string
	err := r.db.NewRaw(`WITH RECURSIVE c (id) AS (
			SELECT MIN(e.stripe_customer_id) FROM usage_events e WHERE `+toSeal+` AND e.stripe_customer_id > ?
			UNION ALL
			SELECT (SELECT MIN(e.stripe_customer_id) FROM usage_events e WHERE `+toSeal+` AND e.stripe_customer_id > c.id)
			FROM c WHERE c.id IS NOT NULL)
		SELECT id FROM c WHERE id IS NOT NULL LIMIT ?`, after, limit).Scan(ctx, &found)
	return found, err
}

// sealCustomers seals the due events of some customers in one transaction.
func (r *Reporter) sealCustomers(ctx context.Context, customers []string) (int, error) {
	sealed := 0
	err := r.db.InTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		sealed = 0
		now := r.now()
		known, err := timelinesOf(ctx, tx, customers)
		if err != nil {
			return err
		}
		due, err := r.dueSlices(ctx, tx, known, customers, now)
		if err != nil || len(due) == 0 {
			return err
		}
		if due, err = lockSlices(ctx, tx, due); err != nil || len(due) == 0 {
			return err
		}
		// If a period becomes known after this, these reports are taken back, under the lock of
		// their streams.
		again, err := timelinesOf(ctx, tx, customers)
		if err != nil {
			return err
		}
		due = slices.DeleteFunc(due, func(s slice) bool { return !slices.Equal(known[s.customer].periods, again[s.customer].periods) })
		if len(due) == 0 {
			return nil
		}
		minutes, err := takenMinutes(ctx, tx, due)
		if err != nil {
			return err
		}
		reports := make([]*models.StripeReport, 0, len(due))
		sealable := due[:0]
		for _, s := range due {
			minute, ok, err := minutes.take(ctx, tx, &s, now)
			if err != nil {
				return err
			}
			if !ok {
				// All its minutes so far are taken. The events stay unsealed and count as waiting.
				r.log.Error("a customer has a report in every minute of a billing period", "customer", s.customer, "meter", s.meter, "from", s.from)
				continue
			}
			reports, sealable = append(reports, r.newReport(&s, minute, now)), append(sealable, s)
		}
		reports, err = markEvents(ctx, r.db, tx, reports, sealable)
		if err != nil || len(reports) == 0 {
			return err
		}
		sealed = len(reports)
		return insertReports(ctx, tx, reports, now)
	})
	return sealed, err
}

// newReport returns a report of a slice, without its value.
func (r *Reporter) newReport(s *slice, minute, now time.Time) *models.StripeReport {
	id := r.newID()
	report := &models.StripeReport{
		ID: id, Identifier: r.identifier(s.meter, id.String()), StripeCustomerID: s.customer, MeterEventName: s.meter,
		Minute: minute, PeriodStart: s.period.Start, PeriodEnd: s.period.End, NoMinute: s.noMinute, Counts: models.CountsOverage,
		State: models.ReportSealed, NextAttemptAt: &now, CreatedAt: now,
	}
	if now.Sub(minute) > models.StripeReportMaxAge {
		text := "too old to be sent: Stripe accepts usage that is up to 35 days old"
		report.State, report.NextAttemptAt, report.LastError = models.ReportExpired, nil, &text
	}
	return report
}

// identifier returns an identifier of at most 100 characters, Stripe's limit.
func (r *Reporter) identifier(meter, id string) string {
	return r.environment + ":" + meter[:min(len(meter), 50)] + ":" + id
}

// lockSlices locks the streams of the slices, and returns the slices whose streams it locked.
// Another process may have sealed their events in the meantime.
func lockSlices(ctx context.Context, tx bun.Tx, due []slice) ([]slice, error) {
	var all []stream
	for _, s := range due {
		all = append(all, s.stream)
	}
	slices.SortFunc(all, stream.compare)
	got, err := lockStreams(ctx, tx, slices.Compact(all))
	return slices.DeleteFunc(due, func(s slice) bool { return !got[s.stream] }), err
}

// lockStreams creates missing streams, and locks the streams for this transaction. It returns those
// that it locked, without the ones that another process has locked.
func lockStreams(ctx context.Context, tx bun.Tx, streams []stream) (map[stream]bool, error) {
	rows := make([]models.StripeStream, len(streams))
	var customers, meters []string
	for i, s := range streams {
		rows[i] = models.StripeStream{StripeCustomerID: s.customer, MeterEventName: s.meter}
		customers, meters = append(customers, s.customer), append(meters, s.meter)
	}
	if _, err := tx.NewInsert().Model(&rows).On("CONFLICT DO NOTHING").Exec(ctx); err != nil {
		return nil, err
	}
	slices.Sort(meters)
	rows = nil
	q := tx.NewSelect().Model(&rows).Column("stripe_customer_id", "meter_event_name").
		Where("stripe_customer_id IN (?) AND meter_event_name IN (?)", bun.List(slices.Compact(customers)), bun.List(slices.Compact(meters))).
		Order("stripe_customer_id", "meter_event_name")
	err := models.ForUpdateSkipLocked(q).Scan(ctx)
	got := map[stream]bool{}
	for _, row := range rows {
		got[stream{row.StripeCustomerID, row.MeterEventName}] = true
	}
	return got, err
}

// dueSlices returns the due slices of the customers.
func (r *Reporter) dueSlices(ctx context.Context, tx bun.Tx, known map[string]timeline, customers []string, now time.Time,
) ([]slice, error) {
	hour := "date_trunc('hour', e.occurred_at)"
	if !r.db.Postgres {
		hour = "substr(e.occurred_at, 1, 13)"
	}
	cutoff := now.Add(-sealGrace).Truncate(time.Hour)
	var groups []struct {
		Customer    string
		Plan        models.PlanID
		First, Last time.Time
	}
	// Include the current hour if a period ended in it.
	err := tx.NewRaw(`SELECT e.stripe_customer_id AS customer, e.plan_id AS plan, MIN(e.occurred_at) AS first, MAX(e.occurred_at) AS last
		FROM usage_events e WHERE `+toSeal+` AND e.stripe_customer_id IN (?)
			AND (e.occurred_at < ? OR e.occurred_at < (SELECT MAX(CASE WHEN p.period_end <= ? THEN p.period_end ELSE p.period_start END)
				FROM subscription_periods p WHERE p.stripe_customer_id = e.stripe_customer_id AND p.period_start <= ?))
		GROUP BY e.stripe_customer_id, e.plan_id, `+hour+` ORDER BY customer, first`,
		bun.List(customers), cutoff, now, now).Scan(ctx, &groups)
	if err != nil {
		return nil, err
	}
	var due []slice
	for _, g := range groups {
		of := slice{stream: stream{g.Customer, r.catalogue.MeterOf(g.Plan)}, plan: g.Plan}
		due = append(due, of.split(g.First.UTC(), g.Last.UTC(), known[g.Customer], now)...)
	}
	return due, nil
}

// split splits the events of an hour, whose first and last event are given, at the bounds of
// billing periods. It returns the parts that are due.
func (s slice) split(first, last time.Time, known timeline, now time.Time) []slice {
	hour := first.Truncate(time.Hour)
	end := hour.Add(time.Hour)
	var due []slice
	for at := first; !at.After(last); {
		part := s
		part.period = known.at(at)
		part.from, part.until = later(hour, part.period.Start), earlier(end, part.period.End)
		part.last = earlier(last, part.until.Add(-time.Microsecond))
		part.certain = known.readAt.IsZero() || !known.readAt.Before(part.until)
		over := part.until
		if over.Equal(end) {
			over = end.Add(sealGrace)
		}
		if !over.After(now) {
			due = append(due, part)
		}
		at = part.until
	}
	return due
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// markEvents assigns the events to their reports, and returns the reports with events. Their value
// is the sum of exactly the assigned events, even if others are recorded meanwhile.
func markEvents(ctx context.Context, db *models.DB, tx bun.Tx, reports []*models.StripeReport, due []slice,
) ([]*models.StripeReport, error) {
	if len(reports) == 0 {
		return nil, nil
	}
	const of = toSeal + ` AND e.stripe_customer_id = `
	var rows []string
	var args []any
	for i, r := range reports {
		s := &due[i]
		if db.Postgres {
			rows = append(rows, "(?::uuid, ?::text, ?::text, ?::timestamptz, ?::timestamptz)")
			args = append(args, r.ID, s.customer, s.plan, s.from, s.until)
			continue
		}
		if _, err := tx.ExecContext(ctx, `UPDATE usage_events AS e SET stripe_report_id = ? WHERE `+of+`? AND plan_id = ?
			AND occurred_at >= ? AND occurred_at < ?`,
			r.ID, s.customer, s.plan, s.from, s.until); err != nil {
			return nil, err
		}
	}
	var sums []struct {
		Report uuid.UUID `bun:",type:uuid"`
		Units  int64
	}
	var err error
	if db.Postgres {
		err = tx.NewRaw(`WITH g (report, customer, plan, from_time, until_time) AS (VALUES `+strings.Join(rows, ", ")+`),
			m AS (UPDATE usage_events e SET stripe_report_id = g.report FROM g WHERE `+of+`g.customer AND e.plan_id = g.plan
			AND e.occurred_at >= g.from_time AND e.occurred_at < g.until_time
				RETURNING g.report, `+reported+` AS units)
			SELECT report, CAST(SUM(units) AS bigint) AS units FROM m GROUP BY report`, args...).Scan(ctx, &sums)
	} else {
		ids := make([]uuid.UUID, len(reports))
		for i, r := range reports {
			ids[i] = r.ID
		}
		err = tx.NewRaw(`SELECT e.stripe_report_id AS report, SUM(`+reported+`) AS units FROM usage_events e
			WHERE e.stripe_report_id IN (?) GROUP BY 1`, bun.List(ids)).Scan(ctx, &sums)
	}
	units := make(map[uuid.UUID]int64, len(sums))
	for _, s := range sums {
		units[s.Report] = s.Units
	}
	return slices.DeleteFunc(reports, func(r *models.StripeReport) bool {
		r.Value = units[r.ID]
		return r.Value == 0
	}), err
}

// insertReports inserts the reports and makes their streams due. A stream that waits after a
// failure keeps waiting, but only briefly, because it may be waiting for another report's next
// attempt.
func insertReports(ctx context.Context, tx bun.Tx, reports []*models.StripeReport, now time.Time) error {
	if _, err := tx.NewInsert().Model(&reports).Exec(ctx); err != nil {
		return err
	}
	customers := map[string][]string{} // by meter
	for _, r := range reports {
		customers[r.MeterEventName] = append(customers[r.MeterEventName], r.StripeCustomerID)
	}
	for _, meter := range slices.Sorted(maps.Keys(customers)) {
		_, err := tx.NewUpdate().Model((*models.StripeStream)(nil)).
			Set(`next_attempt_at = CASE WHEN next_attempt_at < ? THEN next_attempt_at WHEN failures = 0 OR next_attempt_at IS NULL THEN ?
			WHEN next_attempt_at < ? THEN next_attempt_at ELSE ? END`, now, now, now.Add(failurePatience), now.Add(failurePatience)).
			Where("meter_event_name = ? AND stripe_customer_id IN (?)", meter, bun.List(slices.Compact(customers[meter]))).Exec(ctx)
		if err != nil {
			return err
		}
	}
	return nil
}
