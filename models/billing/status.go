package billing

import (
	"context"
	"fmt"
	"time"

	"github.com/uptrace/bun"

	"tollgate/models"
)

// StateCount is the number of reports in a state, and their units.
type StateCount struct {
	State          models.ReportState
	Reports, Units int64
}

// Status is the data about reports for /ops and the metrics.
type Status struct {
	State models.StripeState
	// Counts has each state in the order of models.ReportStates.
	Counts []StateCount
	// UnsealedEvents and UnsealedUnits are the events in no report yet.
	UnsealedEvents, UnsealedUnits int64
	// OldestUnsent is the time of the oldest event or report that Stripe has not accepted; nil
	// without one.
	OldestUnsent *time.Time
	// Blocked are up to a hundred of the BlockedStreams that wait for an operator.
	Blocked        []models.StripeStream
	BlockedStreams int64
	// Held are up to a hundred of the HeldCustomers whose reports are held back.
	Held          []models.HeldCustomer
	HeldCustomers int64
	// Differences are up to a hundred billing periods for which Stripe still accepts events and had
	// another total when they were last compared, or with units that were sent in another period.
	// Drift is the sum of all differences in units, ignoring their signs.
	Differences []models.StripeTotal
	Drift       int64
	// Compared is the number of billing periods that were compared, and ComparedAt the time of the
	// last comparison; nil without one.
	Compared   int64
	ComparedAt *time.Time
	// Overage says where the overage is on its way from the decision to the invoice.
	Overage *OverageStatus
}

// listed is the maximum number of blocked streams, differences and failures in a result.
const listed = 100

// ReadStatus reads the status. Its cost grows with the number of reports, not of events.
func ReadStatus(ctx context.Context, db bun.IDB) (*Status, error) {
	s := &Status{}
	state, err := State(ctx, db)
	if err != nil {
		return nil, err
	}
	s.State = state
	var counts []StateCount
	if err := db.NewRaw(`SELECT state, COUNT(*) AS reports, CAST(SUM(value) AS bigint) AS units FROM stripe_reports GROUP BY state`).
		Scan(ctx, &counts); err != nil {
		return nil, fmt.Errorf("count reports: %w", err)
	}
	for _, state := range models.ReportStates {
		count := StateCount{State: state}
		for _, c := range counts {
			if c.State == state {
				count = c
			}
		}
		s.Counts = append(s.Counts, count)
	}
	var waiting struct {
		Events, Units   int64
		Oldest, Oldest2 bun.NullTime
	}
	if err := db.NewRaw(`SELECT COUNT(*) AS events, COALESCE(CAST(SUM(`+reported+`) AS bigint), 0) AS units, MIN(e.occurred_at) AS oldest,
			(SELECT MIN(minute) FROM stripe_reports WHERE state IN ('sealed', 'unknown')) AS oldest2
		FROM usage_events e WHERE `+toSeal).Scan(ctx, &waiting); err != nil {
		return nil, fmt.Errorf("count unreported events: %w", err)
	}
	s.UnsealedEvents, s.UnsealedUnits = waiting.Events, waiting.Units
	for _, t := range []bun.NullTime{waiting.Oldest, waiting.Oldest2} {
		if at := t.UTC(); !t.IsZero() && (s.OldestUnsent == nil || at.Before(*s.OldestUnsent)) {
			s.OldestUnsent = &at
		}
	}
	blocked, err := db.NewSelect().Model(&s.Blocked).Where("blocked IS NOT NULL").Order("stripe_customer_id").Limit(listed).ScanAndCount(ctx)
	if err != nil {
		return nil, fmt.Errorf("read blocked streams: %w", err)
	}
	s.BlockedStreams = blocked
	if s.Held, s.HeldCustomers, err = heldCustomers(ctx, db); err != nil {
		return nil, err
	}
	// Leave out periods for which Stripe no longer accepts events, because nothing can be done
	// about them.
	var since time.Time
	if state.TotalsAt != nil {
		since = state.TotalsAt.Add(-totalsReach)
	}
	if err := db.NewSelect().Model(&s.Differences).Where("(difference <> 0 OR misplaced <> 0) AND period_end > ?", since).
		Order("stripe_customer_id", "period_start").Limit(listed).Scan(ctx); err != nil {
		return nil, fmt.Errorf("read differences: %w", err)
	}
	if err := db.NewRaw(`SELECT COALESCE(CAST(SUM(ABS(difference)) AS bigint), 0) FROM stripe_totals WHERE difference <> 0
		AND period_end > ?`, since).Scan(ctx, &s.Drift); err != nil {
		return nil, fmt.Errorf("sum differences: %w", err)
	}
	var compared struct {
		Periods int64
		Last    bun.NullTime
	}
	if err := db.NewRaw(`SELECT COUNT(*) AS periods, MAX(checked_at) AS last FROM stripe_totals`).Scan(ctx, &compared); err != nil {
		return nil, fmt.Errorf("count what was compared: %w", err)
	}
	if s.Compared = compared.Periods; !compared.Last.IsZero() {
		at := compared.Last.UTC()
		s.ComparedAt = &at
	}
	s.Overage, err = readOverage(ctx, db, since)
	return s, err
}

// WebhookProblems returns the customers whose plan could not be updated, and the latest errors that
// Stripe reported about counting, newest first.
func WebhookProblems(ctx context.Context, db bun.IDB) ([]models.StripeCustomer, []models.StripeWebhookEvent, error) {
	var customers []models.StripeCustomer
	if err := db.NewSelect().Model(&customers).Where("fault IS NOT NULL").Order("id").Limit(listed).Scan(ctx); err != nil {
		return nil, nil, fmt.Errorf("read customers with a problem: %w", err)
	}
	var events []models.StripeWebhookEvent
	if err := db.NewSelect().Model(&events).Where("type IN (?)", bun.List(ThinWebhookTypes)).Order("received_at DESC").Limit(10).
		Scan(ctx); err != nil {
		return nil, nil, fmt.Errorf("read the errors of meters: %w", err)
	}
	return customers, events, nil
}

// Failures returns up to a hundred failed reports, those with the most units first.
func Failures(ctx context.Context, db bun.IDB) ([]models.StripeReport, error) {
	var failed []models.StripeReport
	err := db.NewSelect().Model(&failed).Where("state IN (?)", bun.List(models.FailedStates)).OrderExpr("ABS(value) DESC, minute").
		Limit(listed).Scan(ctx)
	if err != nil {
		return nil, fmt.Errorf("read failed reports: %w", err)
	}
	return failed, nil
}
