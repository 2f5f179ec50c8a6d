package billing

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/stripe/stripe-go/v76"
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
			r.Log.Error("an invoice differs from what was decided, for no known reason",
				"customer", of.customer, "meter", of.meter, "period", p.Start, "units", o.Units, "cents", o.Cents)
		}
	}
	if err := r.writeBalances(ctx, balances, nil); err != nil {
		return fmt.Errorf("store the overage of %s: %w", of.customer, err)
	}
	return unread
}

// billedCustomer is the data that all balances of a customer share.
type billedCustomer struct {
	subscriptions []models.Subscription
	invoices      map[string]models.StripeInvoice
	lines         []models.StripeInvoiceLine
	held          models.OveragePart
	blocked       []string // meters
}

func (r *Reporter) readCustomer(ctx context.Context, customer string, now time.Time) (*billedCustomer, error) {
	known := &billedCustomer{invoices: map[string]models.StripeInvoice{}}
	if err := r.DB.NewSelect().Model(&known.subscriptions).Where("stripe_customer_id = ? AND stripe_subscription_id IS NOT NULL",
		customer).Scan(ctx); err != nil {
		return nil, err
	}
	if err := r.DB.NewSelect().Model(&known.lines).Where("stripe_customer_id = ? AND period_end > ?", customer,
		now.Add(-totalsReach-longestPeriod)).
		Order("period_start", "stripe_invoice_id", "id").Scan(ctx); err != nil {
		return nil, err
	}
	var invoices []models.StripeInvoice
	if err := r.DB.NewSelect().Model(&invoices).Where("stripe_customer_id = ?", customer).Scan(ctx); err != nil {
		return nil, err
	}
	for _, i := range invoices {
		known.invoices[i.ID] = i
	}
	if err := r.DB.NewSelect().Model((*models.StripeStream)(nil)).Column("meter_event_name").
		Where("stripe_customer_id = ? AND blocked IS NOT NULL", customer).Scan(ctx, &known.blocked); err != nil {
		return nil, err
	}
	two, err := r.DB.NewSelect().Model((*models.StripeCustomer)(nil)).Where("id = ? AND held_subscriptions IS NOT NULL",
		customer).Exists(ctx)
	switch {
	case err != nil:
		return nil, err
	case two:
		known.held = models.OverageTwoSubscriptions
	case slices.ContainsFunc(known.subscriptions, func(s models.Subscription) bool { return hasProblem(&s, models.OverageTiered) }):
		known.held = models.OverageByTiers
	}
	return known, nil
}

func hasProblem(s *models.Subscription, problem models.OverageProblem) bool {
	return s.OverageProblem != nil && *s.OverageProblem == string(problem)
}

// bills reports whether a line bills the usage of a period.
func bills(line *models.StripeInvoiceLine, p models.Period) bool {
	return p.Contains(line.PeriodStart.UTC()) || p.Contains(line.PeriodEnd.UTC().Add(-time.Microsecond)) && line.PeriodStart.Before(p.Start)
}

// awaits reports whether Stripe may have an invoice of a period that is missing or outdated here:
// none is final, or one is open and may be voided.
func (c *billedCustomer) awaits(p models.Period, now time.Time) bool {
	stored := false
	for i := range c.lines {
		if !bills(&c.lines[i], p) {
			continue
		}
		stored = true
		invoice := c.invoices[c.lines[i].StripeInvoiceID]
		if open := invoice.Status == models.InvoiceOpen || invoice.Status == models.InvoiceDraft; open && now.Sub(invoice.ReadAt) >= time.Hour {
			return true
		}
	}
	return !stored && (!p.End.After(now) || !c.canceled(p).IsZero())
}

// canceled returns when the customer's subscription was canceled within a period, if no other
// subscription pays for the rest; otherwise the zero time.
func (c *billedCustomer) canceled(p models.Period) (canceled time.Time) {
	for _, s := range c.subscriptions {
		if s.CurrentPeriodStart == nil || s.CurrentPeriodEnd == nil || !s.CurrentPeriodStart.Before(p.End) ||
			!s.CurrentPeriodEnd.After(p.Start) {
			continue
		}
		ended := s.InactiveSince
		if ended == nil {
			ended = s.CancelAt
		}
		switch {
		case s.Status != models.StatusCanceled, ended != nil && !ended.Before(*s.CurrentPeriodEnd):
			return time.Time{}
		case ended != nil && ended.After(p.Start) && ended.After(canceled):
			canceled = ended.UTC()
		}
	}
	return canceled
}

// lacksItem reports whether none of the customer's subscriptions that may pay for a period has an
// overage item of a plan. It returns false if the items of one of them are unknown.
func (c *billedCustomer) lacksItem(plan models.PlanID, p models.Period) bool {
	lacks := false
	for _, s := range c.subscriptions {
		switch {
		case s.CurrentPeriodEnd != nil && !s.CurrentPeriodEnd.After(p.Start),
			s.Status == models.StatusCanceled && s.InactiveSince != nil && !s.InactiveSince.After(p.Start),
			s.Status == models.SubscriptionStatus(stripe.SubscriptionStatusIncomplete),
			s.Status == models.SubscriptionStatus(stripe.SubscriptionStatusIncompleteExpired):
			// This subscription does not bill the period.
		case s.OverageItems == nil || slices.Contains(strings.Fields(*s.OverageItems), string(plan)):
			return false
		default:
			lacks = true
		}
	}
	return lacks
}

// span is a time that may be a billing period.
type span struct {
	models.Period
	// known means that a subscription or an invoice at Stripe has this period. Otherwise it comes
	// from events and reports, whose records may begin or end within a billing period when a member
	// joins or leaves.
	known bool
}

// billedPeriods returns the billing periods of the last 35 days in which a customer has overage or
// an invoice for it.
func (r *Reporter) billedPeriods(ctx context.Context, of stream, known *billedCustomer, now time.Time) ([]models.Period, error) {
	since := now.Add(-totalsReach)
	labels, err := r.periods(ctx, of)
	if err != nil {
		return nil, err
	}
	var spans []span
	for _, s := range known.subscriptions {
		if s.CurrentPeriodStart != nil && s.CurrentPeriodEnd != nil && s.CurrentPeriodEnd.After(since) &&
			s.CurrentPeriodStart.Before(*s.CurrentPeriodEnd) {
			spans = append(spans, span{models.Period{Start: s.CurrentPeriodStart.UTC(), End: s.CurrentPeriodEnd.UTC()}, true})
		}
	}
	mine := slices.Clone(labels)
	for _, l := range known.lines {
		if l.PeriodEnd.After(since) {
			p := models.Period{Start: l.PeriodStart.UTC(), End: l.PeriodEnd.UTC()}
			spans = append(spans, span{p, true})
			if l.MeterEventName == of.meter {
				mine = append(mine, p)
			}
		}
	}
	for _, p := range labels {
		spans = append(spans, span{p, false})
	}
	return slices.DeleteFunc(mergeSpans(spans), func(p models.Period) bool {
		return !slices.ContainsFunc(mine, func(m models.Period) bool { return m.Start.Before(p.End) && p.Start.Before(m.End) })
	}), nil
}

// mergeSpans returns billing periods without overlap. A span within a known period is a part of it.
// A known period that begins within another one ends that one.
func mergeSpans(spans []span) []models.Period {
	slices.SortFunc(spans, func(a, b span) int {
		known := func(s span) int {
			if s.known {
				return 0
			}
			return 1
		}
		return cmp.Or(a.Start.Compare(b.Start), cmp.Compare(known(a), known(b)), b.End.Compare(a.End))
	})
	var merged []span
	for _, s := range spans {
		n := len(merged)
		if n == 0 || !s.Start.Before(merged[n-1].End) {
			merged = append(merged, s)
			continue
		}
		last := &merged[n-1]
		switch {
		case s.known == last.known && (s.End.Equal(last.End) || s.Start.Equal(last.Start)), last.known && !s.known && !s.End.After(last.End):
			// a part of it
		case last.known && !s.known:
			merged = append(merged, span{models.Period{Start: last.End, End: s.End}, false})
		case s.Start.Equal(last.Start):
			last.End, last.known = s.End, s.known
		default:
			last.End = s.Start
			merged = append(merged, s)
		}
	}
	periods := make([]models.Period, len(merged))
	for i, s := range merged {
		periods[i] = s.Period
	}
	return periods
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
		if !strings.EqualFold(line.Currency, r.Catalogue.Currency) {
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
	if err := r.DB.NewRaw(`SELECT COALESCE(CAST(SUM(e.overage_quantity) AS bigint), 0) AS units,
		COALESCE(CAST(SUM(e.overage_cents) AS bigint), 0) AS cents
		FROM usage_events e WHERE `+toSeal+` AND e.stripe_customer_id = ? AND e.plan_id = ? AND e.occurred_at >= ? AND e.occurred_at < ?`,
		of.customer, plan, p.Start, p.End).Scan(ctx, &s.unsealed); err != nil {
		return nil, err
	}
	var reports []struct {
		State                                    models.ReportState
		Counts                                   models.ReportCounts
		Minute                                   time.Time
		Value, Confirmed                         int64
		AcceptedAt, FirstAttemptAt               bun.NullTime
		HereUnits, HereCents, AllUnits, AllCents int64
	}
	if err := r.DB.NewRaw(`SELECT r.state, r.counts, r.minute, r.value, COALESCE(r.confirmed, 0) AS confirmed, r.accepted_at,
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
	for _, row := range reports {
		share := reportShare{
			State: row.State, Counts: row.Counts, Minute: row.Minute.UTC(), Value: row.Value, Confirmed: row.Confirmed,
			Here: models.OverageSum{Units: row.HereUnits, Cents: row.HereCents}, All: models.OverageSum{Units: row.AllUnits, Cents: row.AllCents},
		}
		if share.SentAt = row.AcceptedAt.Time; share.SentAt.IsZero() {
			share.SentAt = row.FirstAttemptAt.Time
		}
		s.reports = append(s.reports, share)
	}
	// If totals overlap, because a period was known with other bounds before, the newest one
	// counts.
	var totals []models.StripeTotal
	if err := r.DB.NewSelect().Model(&totals).Where("stripe_customer_id = ? AND meter_event_name = ? AND period_start >= ? AND "+
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

// balanceRow is a row of stripe_balances.
type balanceRow struct {
	bun.BaseModel `bun:"table:stripe_balances"`

	Payer                  string
	MeterEventName         string
	PeriodStart, PeriodEnd time.Time
	Part                   models.OveragePart
	Units, Cents           int64
	CheckedAt              time.Time
}

// writeBalances replaces the balances of the same payers, meters and periods. before, if not nil,
// runs first in the transaction. A lock serializes this among processes; otherwise two of them
// could each leave parts of the same balance.
func (r *Reporter) writeBalances(
	ctx context.Context, balances []models.OverageBalance, before func(context.Context, bun.Tx) error,
) error {
	return r.DB.InTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		lock := models.ForUpdate(tx.NewSelect().Model((*models.StripeState)(nil)).Column("id").Where("id = 1"))
		if err := lock.Scan(ctx, new(int)); err != nil {
			return err
		}
		if before != nil {
			if err := before(ctx, tx); err != nil {
				return err
			}
		}
		return replaceBalances(ctx, tx, balances)
	})
}

func replaceBalances(ctx context.Context, tx bun.Tx, balances []models.OverageBalance) error {
	var rows []balanceRow
	for _, b := range balances {
		if _, err := tx.NewDelete().Model((*balanceRow)(nil)).Where("payer = ? AND meter_event_name = ? AND period_start < ? AND period_end > ?",
			b.Payer, b.MeterEventName, b.Period.End, b.Period.Start).Exec(ctx); err != nil {
			return err
		}
		add := func(part models.OveragePart, o models.OverageSum) {
			rows = append(rows, balanceRow{
				Payer: b.Payer, MeterEventName: b.MeterEventName, PeriodStart: b.Period.Start, PeriodEnd: b.Period.End, Part: part,
				Units: o.Units, Cents: o.Cents,
				CheckedAt: b.CheckedAt,
			})
		}
		add(models.OverageDecided, b.Decided)
		add(models.OverageSent, b.Sent)
		add(models.OverageCounted, b.Counted)
		add(models.OverageInvoiced, b.Invoiced)
		for _, r := range b.Reasons {
			add(r.Part, r.OverageSum)
		}
	}
	for some := range slices.Chunk(rows, 500) {
		if _, err := tx.NewInsert().Model(&some).Exec(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Balances returns the balances of billing periods that ended after since, by payer, meter and period.
func Balances(ctx context.Context, db bun.IDB, since time.Time) ([]models.OverageBalance, error) {
	return readBalances(ctx, db, db.NewSelect().Model((*balanceRow)(nil)).Where("period_end > ?", since))
}

func readBalances(ctx context.Context, db bun.IDB, q *bun.SelectQuery) ([]models.OverageBalance, error) {
	var rows []balanceRow
	if err := q.Order("payer", "meter_event_name", "period_start").Scan(ctx, &rows); err != nil {
		return nil, fmt.Errorf("read balances: %w", err)
	}
	var balances []models.OverageBalance
	for _, row := range rows {
		n := len(balances)
		if n == 0 || balances[n-1].Payer != row.Payer || balances[n-1].MeterEventName != row.MeterEventName ||
			!balances[n-1].Period.Start.Equal(row.PeriodStart) {
			balances = append(balances, models.OverageBalance{
				Payer: row.Payer, MeterEventName: row.MeterEventName, CheckedAt: row.CheckedAt.UTC(),
				Period: models.Period{Start: row.PeriodStart.UTC(), End: row.PeriodEnd.UTC()},
			})
			n++
		}
		balances[n-1].Set(row.Part, models.OverageSum{Units: row.Units, Cents: row.Cents})
	}
	return balances, namePayers(ctx, db, balances)
}

// namePayers sets the names of organizations and people.
func namePayers(ctx context.Context, db bun.IDB, balances []models.OverageBalance) error {
	names := map[string]string{}
	queries := map[string]string{
		payerOrganization: "SELECT id, name FROM organizations WHERE id IN (?)",
		payerUser:         "SELECT id, email AS name FROM users WHERE id IN (?)",
	}
	for prefix, from := range queries {
		var ids []uuid.UUID
		for _, b := range balances {
			if text, ok := strings.CutPrefix(b.Payer, prefix); ok {
				if id, err := uuid.Parse(text); err == nil && !slices.Contains(ids, id) {
					ids = append(ids, id)
				}
			}
		}
		for some := range slices.Chunk(ids, 500) {
			var rows []struct {
				ID   uuid.UUID `bun:",type:uuid"`
				Name string
			}
			if err := db.NewRaw(from, bun.List(some)).Scan(ctx, &rows); err != nil {
				return fmt.Errorf("read the names of payers: %w", err)
			}
			for _, row := range rows {
				names[prefix+row.ID.String()] = row.Name
			}
		}
	}
	for i := range balances {
		balances[i].Name = names[balances[i].Payer]
	}
	return nil
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
	if err := r.DB.NewRaw(`SELECT CASE WHEN r.payer LIKE ? THEN r.payer ELSE ? || CAST(r.user_id AS text) END AS payer,
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
			Payer: row.Payer, MeterEventName: r.Catalogue.MeterOf(row.PlanID), Decided: o, CheckedAt: now,
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
	if err := r.DB.NewSelect().Model((*models.StripeInvoice)(nil)).ColumnExpr("DISTINCT stripe_customer_id").Where("NOT balanced").
		Order("stripe_customer_id").Limit(readAtOnce).Scan(ctx, &customers); err != nil {
		return fmt.Errorf("find new invoices: %w", err)
	}
	for _, customer := range customers {
		begin := r.now()
		var meters []string
		if err := r.DB.NewRaw(`SELECT meter_event_name FROM stripe_streams WHERE stripe_customer_id = ?
			UNION SELECT meter_event_name FROM stripe_invoice_lines WHERE stripe_customer_id = ?`, customer, customer).Scan(ctx,
			&meters); err != nil {
			return fmt.Errorf("read the meters of %s: %w", customer, err)
		}
		for _, meter := range meters {
			if err := r.balance(ctx, stream{customer, meter}); err != nil && !errors.Is(err, errInvoices) {
				return err
			}
		}
		if _, err := r.DB.NewUpdate().Model((*models.StripeInvoice)(nil)).Set("balanced = ?", true).
			Where("stripe_customer_id = ? AND read_at <= ?", customer, begin).Exec(ctx); err != nil {
			return fmt.Errorf("mark the invoices of %s: %w", customer, err)
		}
	}
	return nil
}
