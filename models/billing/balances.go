package billing

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/uptrace/bun"

	"tollgate/models"
)

// The prefixes of payers that are not Stripe customers.
const (
	payerOrganization = "organization:"
	payerUser         = "user:"
)

// longestPeriod is the longest that a billing period may be.
const longestPeriod = models.MaxPeriodDays * 24 * time.Hour

// balance stores where the overage of a customer and a meter is, for each billing period of the
// last 35 days. It asks Stripe only for invoices that should be final by now. If Stripe does not
// show them, it computes the balances from the stored ones and returns errInvoices.
func (r *Reporter) balance(ctx context.Context, of stream) error {
	now := r.now()
	var unread error
	known, err := r.readCustomer(ctx, of.customer, now)
	if err != nil {
		return fmt.Errorf("read the invoices of %s: %w", of.customer, err)
	}
	periods, err := r.billedPeriods(ctx, of, known, now)
	if err != nil {
		return fmt.Errorf("find the billed periods of %s: %w", of.customer, err)
	}
	if slices.ContainsFunc(periods, func(p models.Period) bool { return known.awaits(p, now) }) {
		if err := r.limit.wait(ctx); err != nil {
			return err
		}
		unread = r.readInvoices(ctx, of.customer)
		if known, err = r.readCustomer(ctx, of.customer, now); err != nil {
			return fmt.Errorf("read the invoices of %s: %w", of.customer, err)
		}
	}
	balances := make([]models.OverageBalance, len(periods))
	for i, p := range periods {
		sheet, err := r.sheet(ctx, of, p, known, now)
		if err != nil {
			return fmt.Errorf("read the overage of %s from %s: %w", of.customer, p.Start.Format(time.RFC3339), err)
		}
		balances[i] = sheet.balance()
		if o := balances[i].NotInvoiced(models.OverageUnexplained); o != (models.OverageSum{}) {
			r.log.Error("an invoice differs from what was decided, for no known reason",
				"customer", of.customer, "meter", of.meter, "period", p.Start, "units", o.Units, "cents", o.Cents)
		}
	}
	if err := r.writeBalances(ctx, balances, nil); err != nil {
		return fmt.Errorf("store the overage of %s: %w", of.customer, err)
	}
	return unread
}

// sheet reads the data for the balance of a period.
func (r *Reporter) sheet(ctx context.Context, of stream, p models.Period, known *billedCustomer, now time.Time) (*balanceSheet, error) {
	plan := r.planOf(of.meter)
	s := &balanceSheet{
		payer: of.customer, meter: of.meter, period: p, now: now, held: known.held,
		blocked: slices.Contains(known.blocked, of.meter), canceled: known.canceled(p),
		noPrice: p.Contains(now) && slices.ContainsFunc(known.subscriptions, func(s models.Subscription) bool {
			return s.PlanID == plan && s.Active() && s.OverageProblem != nil && !hasProblem(&s, models.OverageTiered)
		}),
		noItem: plan != "" && known.lacksItem(plan, p),
	}
	for i := range known.lines {
		line := &known.lines[i]
		if !bills(line, p) {
			continue
		}
		if line.MeterEventName == of.meter {
			s.noItem = false // the subscription had the item when the invoice was made
		}
		invoice := known.invoices[line.StripeInvoiceID]
		if invoice.Status == models.InvoiceDraft || invoice.FinalizedAt == nil {
			s.drafted = true
			continue
		}
		if s.final.IsZero() || invoice.FinalizedAt.After(s.final) {
			s.final = invoice.FinalizedAt.UTC()
		}
		if line.MeterEventName != of.meter {
			continue
		}
		o := models.OverageSum{Units: line.Quantity, Cents: line.AmountCents}
		if !strings.EqualFold(line.Currency, r.catalogue.Currency) {
			o.Cents, s.otherCurrency = 0, true
		}
		switch invoice.Status {
		case models.InvoiceVoid:
			s.voided = s.voided.Plus(o)
		case models.InvoiceUncollectible:
			s.uncollectible = s.uncollectible.Plus(o)
		default:
			s.invoiced = s.invoiced.Plus(o)
		}
	}
	if err := r.db.NewRaw(`SELECT COALESCE(CAST(SUM(e.overage_quantity) AS bigint), 0) AS units,
		COALESCE(CAST(SUM(e.overage_cents) AS bigint), 0) AS cents
		FROM usage_events e WHERE `+toSeal+` AND e.stripe_customer_id = ? AND e.plan_id = ? AND e.occurred_at >= ? AND e.occurred_at < ?`,
		of.customer, plan, p.Start, p.End).Scan(ctx, &s.unsealed); err != nil {
		return nil, err
	}
	var reports []struct {
		ID                                       uuid.UUID `bun:",type:uuid"`
		State                                    models.ReportState
		Counts                                   models.ReportCounts
		Minute                                   time.Time
		Value, Confirmed                         int64
		AcceptedAt, FirstAttemptAt               bun.NullTime
		HereUnits, HereCents, AllUnits, AllCents int64
	}
	voided, err := r.voidedIn(ctx, of, p)
	if err != nil {
		return nil, err
	}
	if err := r.db.NewRaw(`SELECT r.id, r.state, r.counts, r.minute, r.value, COALESCE(r.confirmed, 0) AS confirmed, r.accepted_at,
		r.first_attempt_at,
			COALESCE(CAST(SUM(CASE WHEN e.occurred_at >= ? AND e.occurred_at < ? THEN e.overage_quantity END) AS bigint), 0) AS here_units,
			COALESCE(CAST(SUM(CASE WHEN e.occurred_at >= ? AND e.occurred_at < ? THEN e.overage_cents END) AS bigint), 0) AS here_cents,
			COALESCE(CAST(SUM(e.overage_quantity) AS bigint), 0) AS all_units, COALESCE(CAST(SUM(e.overage_cents) AS bigint), 0) AS all_cents
		FROM stripe_reports r LEFT JOIN usage_events e ON e.stripe_report_id = r.id
		WHERE r.stripe_customer_id = ? AND r.meter_event_name = ? AND r.minute >= ? AND r.minute < ? AND r.state <> ?
			AND (r.minute >= ? AND r.minute < ? OR r.period_start < ? AND r.period_end > ?)
		GROUP BY r.id`, p.Start, p.End, p.Start, p.End, of.customer, of.meter, p.Start.Add(-longestPeriod),
		p.End.Add(longestPeriod), models.ReportMissing,
		p.Start, p.End, p.End, p.Start).Scan(ctx, &reports); err != nil {
		return nil, err
	}
	takenBack, err := r.takenBackIn(ctx, of, p)
	if err != nil {
		return nil, err
	}
	for _, row := range reports {
		back := takenBack[row.ID]
		share := reportShare{
			State: row.State, Counts: row.Counts, Minute: row.Minute.UTC(), Value: row.Value, Confirmed: row.Confirmed,
			Here:     models.OverageSum{Units: row.HereUnits, Cents: row.HereCents}.Minus(back.here),
			All:      models.OverageSum{Units: row.AllUnits, Cents: row.AllCents}.Minus(back.all),
			ToCredit: voided[row.ID][models.VoidWaiting], Credited: voided[row.ID][models.VoidCredited],
			NotBilled: voided[row.ID][models.VoidNotBilled],
		}
		if share.SentAt = row.AcceptedAt.Time; share.SentAt.IsZero() {
			share.SentAt = row.FirstAttemptAt.Time
		}
		s.reports = append(s.reports, share)
	}
	// If totals overlap, because a period was known with other bounds before, the newest one
	// counts.
	var totals []models.StripeTotal
	if err := r.db.NewSelect().Model(&totals).Where("stripe_customer_id = ? AND meter_event_name = ? AND period_start >= ? AND "+
		"period_start < ?",
		of.customer, of.meter, p.Start, p.End).Order("checked_at DESC", "period_start").Scan(ctx); err != nil {
		return nil, err
	}
	for i, t := range totals {
		if !slices.ContainsFunc(totals[:i], func(newer models.StripeTotal) bool {
			return newer.PeriodStart.Before(t.PeriodEnd) && t.PeriodStart.Before(newer.PeriodEnd)
		}) {
			s.counted += t.Confirmed
		}
	}
	return s, nil
}

// balanceByHand stores the overage of people whose plan has no Stripe subscription.
func (r *Reporter) balanceByHand(ctx context.Context) error {
	now := r.now()
	var rows []struct {
		Payer        string
		PlanID       models.PlanID
		Start, Stop  time.Time
		Units, Cents int64
	}
	if err := r.db.NewRaw(`SELECT CASE WHEN r.payer LIKE ? THEN r.payer ELSE ? || CAST(r.user_id AS text) END AS payer,
		r.plan_id, r.billing_period_start AS start,
			MAX(r.billing_period_end) AS stop, CAST(SUM(r.overage_used) AS bigint) AS units, CAST(SUM(r.overage_cents) AS bigint) AS cents
		FROM usage_records r WHERE r.overage_used > 0 AND r.stripe_customer_id IS NULL AND r.billing_period_end > ?
		GROUP BY 1, 2, 3 ORDER BY 1, 2, 3`, payerOrganization+"%", payerUser, now.Add(-totalsReach)).Scan(ctx, &rows); err != nil {
		return fmt.Errorf("read overage without a Stripe subscription: %w", err)
	}
	balances := make([]models.OverageBalance, len(rows))
	for i, row := range rows {
		o := models.OverageSum{Units: row.Units, Cents: row.Cents}
		balances[i] = models.OverageBalance{
			Payer: row.Payer, MeterEventName: r.catalogue.MeterOf(row.PlanID), Decided: o, CheckedAt: now,
			Period:  models.Period{Start: row.Start.UTC(), End: row.Stop.UTC()},
			Reasons: []models.OverageShare{{Part: models.OverageByHand, OverageSum: o}},
		}
	}
	if err := r.writeBalances(ctx, balances, func(ctx context.Context, tx bun.Tx) error {
		_, err := tx.NewDelete().Model((*balanceRow)(nil)).Where("period_end > ? AND (payer LIKE ? OR payer LIKE ?)",
			now.Add(-totalsReach), payerOrganization+"%", payerUser+"%").Exec(ctx)
		return err
	}); err != nil {
		return fmt.Errorf("store the overage without a Stripe subscription: %w", err)
	}
	return nil
}

// balanceInvoiced updates the balances of customers with a newly read invoice.
func (r *Reporter) balanceInvoiced(ctx context.Context) error {
	var customers []string
	if err := r.db.NewSelect().Model((*models.StripeInvoice)(nil)).ColumnExpr("DISTINCT stripe_customer_id").Where("NOT balanced").
		Order("stripe_customer_id").Limit(readAtOnce).Scan(ctx, &customers); err != nil {
		return fmt.Errorf("find new invoices: %w", err)
	}
	for _, customer := range customers {
		begin := r.now()
		var meters []string
		if err := r.db.NewRaw(`SELECT meter_event_name FROM stripe_streams WHERE stripe_customer_id = ?
			UNION SELECT meter_event_name FROM stripe_invoice_lines WHERE stripe_customer_id = ?`, customer, customer).Scan(ctx,
			&meters); err != nil {
			return fmt.Errorf("read the meters of %s: %w", customer, err)
		}
		for _, meter := range meters {
			if err := r.balance(ctx, stream{customer, meter}); err != nil && !errors.Is(err, errInvoices) {
				return err
			}
		}
		if _, err := r.db.NewUpdate().Model((*models.StripeInvoice)(nil)).Set("balanced = ?", true).
			Where("stripe_customer_id = ? AND read_at <= ?", customer, begin).Exec(ctx); err != nil {
			return fmt.Errorf("mark the invoices of %s: %w", customer, err)
		}
	}
	return nil
}

// takenBack is the overage that a negative report takes back: the part that was used in a period,
// and all of it.
type takenBack struct{ here, all models.OverageSum }

// takenBackIn returns what the negative reports around a period take back. It leaves out voids that
// a credit note takes back instead.
func (r *Reporter) takenBackIn(ctx context.Context, of stream, p models.Period) (map[uuid.UUID]takenBack, error) {
	var rows []struct {
		Report     uuid.UUID `bun:",type:uuid"`
		OccurredAt time.Time
		models.OverageSum
	}
	if err := r.db.NewRaw(`SELECT r.id AS report, v.occurred_at, v.overage_quantity AS units, v.overage_cents AS cents
		FROM stripe_reports r JOIN usage_voids v ON v.stripe_report_id = r.id
		WHERE r.stripe_customer_id = ? AND r.meter_event_name = ? AND r.minute >= ? AND r.minute < ? AND r.counts = ? AND v.state = ?`,
		of.customer, of.meter, p.Start.Add(-longestPeriod), p.End.Add(longestPeriod), models.CountsVoid, models.VoidReported).
		Scan(ctx, &rows); err != nil {
		return nil, err
	}
	found := map[uuid.UUID]takenBack{}
	for _, row := range rows {
		back := takenBack{all: row.OverageSum}
		if p.Contains(row.OccurredAt.UTC()) {
			back.here = row.OverageSum
		}
		found[row.Report] = back
	}
	return found, nil
}

// voidedIn returns the overage that was used in a period and voided after it went into a report, by
// report and state of the void.
func (r *Reporter) voidedIn(ctx context.Context, of stream, p models.Period) (map[uuid.UUID]map[models.VoidState]models.OverageSum, error) {
	var rows []struct {
		Report uuid.UUID `bun:",type:uuid"`
		State  models.VoidState
		models.OverageSum
	}
	if err := r.db.NewRaw(`SELECT r.id AS report, v.state, CAST(SUM(v.overage_quantity) AS bigint) AS units,
			CAST(SUM(v.overage_cents) AS bigint) AS cents
		FROM stripe_reports r JOIN usage_events e ON e.stripe_report_id = r.id JOIN usage_voids v ON v.user_id = e.user_id AND v.event_id = e.id
		WHERE r.stripe_customer_id = ? AND r.meter_event_name = ? AND r.minute >= ? AND r.minute < ? AND e.voided_at IS NOT NULL
			AND e.occurred_at >= ? AND e.occurred_at < ?
		GROUP BY r.id, v.state`, of.customer, of.meter, p.Start.Add(-longestPeriod), p.End.Add(longestPeriod), p.Start, p.End).
		Scan(ctx, &rows); err != nil {
		return nil, err
	}
	voided := map[uuid.UUID]map[models.VoidState]models.OverageSum{}
	for _, row := range rows {
		if voided[row.Report] == nil {
			voided[row.Report] = map[models.VoidState]models.OverageSum{}
		}
		voided[row.Report][row.State] = row.OverageSum
	}
	return voided, nil
}
