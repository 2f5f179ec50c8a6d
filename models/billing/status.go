package billing

import (
	"context"
	"fmt"
	"time"

	"github.com/uptrace/bun"

	"tollgate/models"
)

// StateCount is how many reports are in a state, and their units.
type StateCount struct {
	State          models.ReportState
	Reports, Units int64
}

// Status is all that /ops and the metrics tell of what Stripe was told.
type Status struct {
	State models.StripeState
	// Counts has each state, in the order of models.ReportStates.
	Counts []StateCount
	// Unsealed is what is in no report yet: events, and their units.
	UnsealedEvents, UnsealedUnits int64
	// OldestUnsent is when the oldest event or report that Stripe has not accepted is of; nil when there is none.
	OldestUnsent *time.Time
	// Blocked are the streams that wait for an operator, at most a hundred of BlockedStreams.
	Blocked        []models.StripeStream
	BlockedStreams int64
	// Held are the customers whose reports are held back, at most a hundred of HeldCustomers.
	Held          []models.HeldCustomer
	HeldCustomers int64
	// Differences are the customers' billing periods of which Stripe had another total when they were last compared, and takes events still,
	// and those with units that were sent in another period; at most a hundred of those whose differences, without their signs, sum to Drift
	// units.
	Differences []models.StripeTotal
	Drift       int64
	// Compared is the number of customers' billing periods that were compared, the last one at ComparedAt; nil when none was.
	Compared   int64
	ComparedAt *time.Time
	// Overage says where the overage is, from the decision to the invoice.
	Overage *OverageStatus
}

// listed is the most of blocked streams, differences and failures that are read at once.
const listed = 100

// ReadStatus reads the status. Its cost grows with the number of reports, not with that of events.
func ReadStatus(ctx context.Context, db bun.IDB) (*Status, error) {
	s := &Status{}
	state, err := State(ctx, db)
	if err != nil {
		return nil, err
	}
	s.State = state
	var counts []StateCount
	if err := db.NewRaw(`SELECT state, COUNT(*) AS reports, CAST(SUM(value) AS bigint) AS units FROM stripe_reports GROUP BY state`).Scan(ctx, &counts); err != nil {
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
	// Nobody can do anything here about a period that Stripe takes nothing for any more.
	var since time.Time
	if state.TotalsAt != nil {
		since = state.TotalsAt.Add(-totalsReach)
	}
	if err := db.NewSelect().Model(&s.Differences).Where("(difference <> 0 OR misplaced <> 0) AND period_end > ?", since).Order("stripe_customer_id", "period_start").Limit(listed).Scan(ctx); err != nil {
		return nil, fmt.Errorf("read differences: %w", err)
	}
	if err := db.NewRaw(`SELECT COALESCE(CAST(SUM(ABS(difference)) AS bigint), 0) FROM stripe_totals WHERE difference <> 0 AND period_end > ?`, since).Scan(ctx, &s.Drift); err != nil {
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

// WebhookFaults returns the customers whose plan could not be followed, and the latest errors that Stripe told of in counting, newest
// first.
func WebhookFaults(ctx context.Context, db bun.IDB) ([]models.StripeCustomer, []models.StripeWebhookEvent, error) {
	var customers []models.StripeCustomer
	if err := db.NewSelect().Model(&customers).Where("fault IS NOT NULL").Order("id").Limit(listed).Scan(ctx); err != nil {
		return nil, nil, fmt.Errorf("read customers with a fault: %w", err)
	}
	var events []models.StripeWebhookEvent
	if err := db.NewSelect().Model(&events).Where("type IN (?)", bun.List(ThinWebhookTypes)).Order("received_at DESC").Limit(10).Scan(ctx); err != nil {
		return nil, nil, fmt.Errorf("read the errors of meters: %w", err)
	}
	return customers, events, nil
}

// Failures returns the failed reports, those of most units first, at most a hundred.
func Failures(ctx context.Context, db bun.IDB) ([]models.StripeReport, error) {
	var failed []models.StripeReport
	err := db.NewSelect().Model(&failed).Where("state IN (?)", bun.List(models.FailedStates)).Order("value DESC", "minute").Limit(listed).Scan(ctx)
	if err != nil {
		return nil, fmt.Errorf("read failed reports: %w", err)
	}
	return failed, nil
}
