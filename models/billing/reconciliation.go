package billing

import (
	"context"
	"fmt"
	"time"

	"github.com/uptrace/bun"

	"tollgate/models"
)

// Reconciliation is the result of comparing everything with Stripe.
type Reconciliation struct {
	// Restored is the result of the Restored method; nil if it was not requested.
	Restored *RestoredReports
	// Periods are the balances of each payer, meter and billing period of the last 35 days; nil if
	// they could not be read.
	Periods []ReconciledPeriod
	// Totals are the totals that were compared. Unread is the reason why some are missing; nil if
	// none is.
	Totals []models.StripeTotal
	Unread error
	// Failed are up to a hundred of the FailedReports, which an operator has to decide about.
	Failed        []models.StripeReport
	FailedReports int
	// Lost are up to a hundred of the LostReports. These are verified reports for which Stripe had
	// nothing when their minutes were last read.
	Lost        []models.StripeReport
	LostReports int
	// Status says what is waiting to be sent, and why if sending is stopped; nil if it could not be
	// read.
	Status *Status
}

// RestoredReports is the result of making it safe to send again after a restore.
type RestoredReports struct {
	// Resolved is the number of reports that were resolved by what Stripe has.
	Resolved int
	// Again is when to run it again; zero if sending continues.
	Again time.Time
}

// ReconciledPeriod is the overage of a payer, a meter and a billing period. Difference is the
// number of units that Stripe's totals of the period have more than was sent.
type ReconciledPeriod struct {
	models.OverageBalance
	Difference int64
}

// Differences returns the number of periods with a difference.
func (c *Reconciliation) Differences() (n int) {
	for i := range c.Periods {
		if c.Periods[i].Difference != 0 {
			n++
		}
	}
	return n
}

// Unexplained returns the number of periods with an unexplained amount.
func (c *Reconciliation) Unexplained() (n int) {
	for i := range c.Periods {
		if c.Periods[i].NotInvoiced(models.OverageUnexplained) != (models.OverageSum{}) {
			n++
		}
	}
	return n
}

// Clean reports whether Stripe has exactly what it was sent, and all of it was read.
func (c *Reconciliation) Clean() bool {
	return c.Differences() == 0 && c.Unexplained() == 0 && c.FailedReports == 0 && c.LostReports == 0 && c.Unread == nil
}

// ReconcileAll compares everything with Stripe now. With restored, it first makes it safe to send
// again; see Restored. If it returns an error, the result has what was compared before.
func (r *Reporter) ReconcileAll(ctx context.Context, restored bool) (*Reconciliation, error) {
	c := &Reconciliation{}
	if err := r.account.check(ctx); err != nil {
		return c, err
	}
	if restored {
		resolved, again, err := r.Restored(ctx)
		if err != nil {
			return c, err
		}
		c.Restored = &RestoredReports{Resolved: resolved, Again: again}
	}
	if _, err := r.Reconcile(ctx); err != nil {
		return c, err
	}
	c.Totals, c.Unread = r.Totals(ctx, true)
	// The comparison made the reports due to be read: each report's own minute shows whether Stripe
	// still has it.
	if _, err := r.Reconcile(ctx); err != nil {
		return c, err
	}
	balances, err := Balances(ctx, r.db, r.now().Add(-totalsReach))
	if err != nil {
		return c, err
	}
	c.Periods = reconciledPeriods(balances, c.Totals)
	if c.Differences() > 0 {
		if err := r.totalsSoon(ctx); err != nil {
			return c, err
		}
	}
	if err := r.readFailed(ctx, c); err != nil {
		return c, err
	}
	if err := r.readLost(ctx, c); err != nil {
		return c, err
	}
	status, err := ReadStatus(ctx, r.db)
	if err != nil {
		return c, err
	}
	c.Status = status
	return c, nil
}

// reconciledPeriods adds the differences of totals to the balances of the same periods.
func reconciledPeriods(balances []models.OverageBalance, totals []models.StripeTotal) []ReconciledPeriod {
	periods := make([]ReconciledPeriod, len(balances))
	for i, b := range balances {
		periods[i].OverageBalance = b
		for _, t := range totals {
			if t.StripeCustomerID == b.Payer && t.MeterEventName == b.MeterEventName && b.Period.Contains(t.PeriodStart.UTC()) {
				periods[i].Difference += t.Difference
			}
		}
	}
	return periods
}

func (r *Reporter) readFailed(ctx context.Context, c *Reconciliation) error {
	failed, err := Failures(ctx, r.db)
	if err != nil {
		return err
	}
	n, err := r.db.NewSelect().Model((*models.StripeReport)(nil)).Where("state IN (?)", bun.List(models.FailedStates)).Count(ctx)
	if err != nil {
		return fmt.Errorf("count failed reports: %w", err)
	}
	c.Failed, c.FailedReports = failed, int(n)
	return nil
}

func (r *Reporter) readLost(ctx context.Context, c *Reconciliation) error {
	var lost []models.StripeReport
	n, err := r.db.NewSelect().Model(&lost).Where("state = ? AND zero_since IS NOT NULL", models.ReportVerified).
		Order("value DESC", "minute").Limit(listed).ScanAndCount(ctx)
	if err != nil {
		return fmt.Errorf("read lost reports: %w", err)
	}
	c.Lost, c.LostReports = lost, int(n)
	return nil
}
