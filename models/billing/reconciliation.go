package billing

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/uptrace/bun"

	"tollgate/models"
)

// PrintReconciliation compares everything with Stripe now, and prints a line for each payer, meter
// and billing period. It returns an error if anything differs, a report has failed, or an invoice
// has an unexplained amount. With restored, it first makes it safe to send again; see Restored.
func (r *Reporter) PrintReconciliation(ctx context.Context, w, notes io.Writer, restored bool) error {
	if err := r.contact(ctx); err != nil {
		return err
	}
	if restored {
		n, again, err := r.Restored(ctx)
		if err != nil {
			return err
		}
		_, _ = fmt.Fprintf(notes, "%d unsent reports were resolved by comparing them with what Stripe has\n", n)
		if again.IsZero() {
			_, _ = fmt.Fprintln(notes, "sending continues")
		} else {
			_, _ = fmt.Fprintf(notes, "sending is paused: for 25 hours, Stripe's totals may lack what was sent last. Run this command "+
				"again at %s or later\n", again.Format(time.RFC3339))
		}
	}
	if _, err := r.Reconcile(ctx); err != nil {
		return err
	}
	totals, unread := r.Totals(ctx, true)
	// The comparison made the reports due to be read: each report's own minute shows whether Stripe
	// still has it.
	if _, err := r.Reconcile(ctx); err != nil {
		return err
	}
	differences, unexplained, err := r.printBalances(ctx, w, totals)
	if err != nil {
		return err
	}
	for _, t := range totals {
		if text := t.Explain(); text != "" {
			_, _ = fmt.Fprintf(notes, "customer %s, period from %s: %s\n", t.StripeCustomerID, t.PeriodStart.UTC().Format(time.RFC3339), text)
		}
	}
	if differences > 0 {
		if err := r.totalsSoon(ctx); err != nil {
			return err
		}
	}
	failed, err := Failures(ctx, r.DB)
	if err != nil {
		return err
	}
	failures, err := r.DB.NewSelect().Model((*models.StripeReport)(nil)).Where("state IN (?)", bun.List(models.FailedStates)).Count(ctx)
	if err != nil {
		return fmt.Errorf("count failed reports: %w", err)
	}
	for _, f := range failed {
		text := ""
		if f.LastError != nil {
			text = *f.LastError
		}
		_, _ = fmt.Fprintf(notes, "report %s of customer %s, %d units at %s, is %s: %s\n", f.Identifier, f.StripeCustomerID, f.Value,
			f.Minute.UTC().Format(time.RFC3339), f.State, text)
	}
	if more := int(failures) - len(failed); more > 0 {
		_, _ = fmt.Fprintf(notes, "and %d more failed reports\n", more)
	}
	lost, err := r.noteLost(ctx, notes)
	if err != nil {
		return err
	}
	if err := r.noteWaiting(ctx, notes); err != nil {
		return err
	}
	if differences > 0 || failures > 0 || lost > 0 || unexplained > 0 {
		return errors.Join(fmt.Errorf("stripe reconcile: %d differences, %d failed reports, %d verified reports that Stripe no "+
			"longer has, %d unexplained balances",
			differences, failures, lost, unexplained), unread)
	}
	if unread != nil {
		return unread
	}
	_, _ = fmt.Fprintln(notes, "Stripe has everything that was sent")
	return nil
}

// noteLost prints the verified reports for which Stripe had nothing when their minutes were last
// read. It returns their number.
func (r *Reporter) noteLost(ctx context.Context, notes io.Writer) (int, error) {
	var lost []models.StripeReport
	n, err := r.DB.NewSelect().Model(&lost).Where("state = ? AND zero_since IS NOT NULL", models.ReportVerified).
		Order("value DESC", "minute").Limit(listed).ScanAndCount(ctx)
	if err != nil {
		return 0, fmt.Errorf("read lost reports: %w", err)
	}
	for _, l := range lost {
		_, _ = fmt.Fprintf(notes, "report %s of customer %s, %d units at %s: counted before, but missing from Stripe's total now; it is read "+
			"again for 24 hours\n",
			l.Identifier, l.StripeCustomerID, l.Value, l.Minute.UTC().Format(time.RFC3339))
	}
	if more := int(n) - len(lost); more > 0 {
		_, _ = fmt.Fprintf(notes, "and %d more reports that are missing from Stripe's totals now\n", more)
	}
	return int(n), nil
}

// noteWaiting prints what is waiting to be sent, and why if sending is stopped.
func (r *Reporter) noteWaiting(ctx context.Context, notes io.Writer) error {
	s, err := ReadStatus(ctx, r.DB)
	if err != nil {
		return err
	}
	var units int64
	for _, c := range s.Counts {
		if c.State == models.ReportSealed || c.State == models.ReportUnknown {
			units += c.Units
		}
	}
	if units > 0 {
		_, _ = fmt.Fprintf(notes, "%s wait to be sent\n", r.Catalogue.Units(units))
	}
	for _, h := range s.Held {
		_, _ = fmt.Fprintf(notes, "the reports of customer %s are held back (%s): %s\n", h.StripeCustomerID, r.Catalogue.Units(h.Units),
			h.Reason())
	}
	if more := s.HeldCustomers - int64(len(s.Held)); more > 0 {
		_, _ = fmt.Fprintf(notes, "and the reports of %d more customers are held back\n", more)
	}
	if s.State.Stopped != nil {
		_, _ = fmt.Fprintf(notes, "all sending is stopped: %s\n", *s.State.Stopped)
	}
	if s.State.Paused != nil {
		_, _ = fmt.Fprintf(notes, "sending is paused: %s\n", *s.State.Paused)
	}
	return nil
}
