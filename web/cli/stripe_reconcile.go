package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"tollgate/models"
	"tollgate/models/billing"
)

type stripeReconcile struct {
	Restored bool `help:"${help_restored}"`
}

// Run prints the comparison, and returns an error on any difference.
func (c *stripeReconcile) Run(ctx context.Context, o *Output, s *Settings, db *models.DB, catalogue *models.Catalogue) error {
	client, err := s.stripeClient()
	if err != nil {
		return err
	}
	result, failed := s.reporter(db, client, catalogue, slog.New(slog.DiscardHandler), nil).ReconcileAll(ctx, c.Restored)
	if err := o.reconciliation(catalogue, result); err != nil {
		return err
	}
	if failed != nil {
		return failed
	}
	if err := reconciliationError(result); err != nil {
		return err
	}
	o.Note("Stripe has everything that was sent")
	return nil
}

// reconciliationError returns an error if anything differs, a report has failed, an invoice has an
// unexplained amount, or not everything was read.
func reconciliationError(r *billing.Reconciliation) error {
	if differences, unexplained := r.Differences(), r.Unexplained(); differences > 0 || r.FailedReports > 0 || r.LostReports > 0 ||
		unexplained > 0 {
		return errors.Join(fmt.Errorf("stripe reconcile: differences: %d; failed reports: %d; verified reports that Stripe no "+
			"longer has: %d; billing periods with unexplained overage: %d",
			differences, r.FailedReports, r.LostReports, unexplained), r.Unread)
	}
	return r.Unread
}

// reconciliation prints a line for each payer, meter and billing period, and notes about what needs
// attention. It leaves out what was not read because of an error.
func (o *Output) reconciliation(catalogue *models.Catalogue, r *billing.Reconciliation) error {
	if r.Restored != nil {
		o.Note("unsent reports that will not be sent, because Stripe has or may have their units: %d; "+
			"resolve those in the state conflict on /ops", r.Restored.Resolved)
		if r.Restored.Again.IsZero() {
			o.Note("the pause after the restore has ended; sending continues, unless it is stopped for another reason")
		} else {
			o.Note("sending is paused until you run this command again, at %s or later: "+
				"Stripe's totals may not include the latest reports yet",
				r.Restored.Again.Format(time.RFC3339))
		}
	}
	if r.Periods == nil {
		return nil
	}
	if err := o.reconciledPeriods(catalogue, r.Periods); err != nil {
		return err
	}
	for _, t := range r.Totals {
		if text := t.Explain(); text != "" {
			o.Note("customer %s, period from %s: %s", t.StripeCustomerID, t.PeriodStart.UTC().Format(time.RFC3339), text)
		}
	}
	for _, f := range r.Failed {
		text := ""
		if f.LastError != nil {
			text = *f.LastError
		}
		o.Note("report %s of customer %s, %d units at %s, has the state %s: %s", f.Identifier, f.StripeCustomerID, f.Value,
			f.Minute.UTC().Format(time.RFC3339), f.State, text)
	}
	if more := r.FailedReports - len(r.Failed); more > 0 {
		o.Note("further failed reports: %d", more)
	}
	if r.FailedReports > 0 {
		o.Note("open /ops to resolve the failed reports")
	}
	for _, l := range r.Lost {
		o.Note("report %s of customer %s, %d units at %s: Stripe counted this report before, but Stripe's total no longer includes it; "+
			"if it is still missing after 24 hours of checks, the report becomes rejected, and you can send it again on /ops",
			l.Identifier, l.StripeCustomerID, l.Value, l.Minute.UTC().Format(time.RFC3339))
	}
	if more := r.LostReports - len(r.Lost); more > 0 {
		o.Note("further reports that are missing from Stripe's totals now: %d", more)
	}
	if r.Status != nil {
		o.waitingReports(catalogue, r.Status)
	}
	return nil
}

// reconciledPeriods prints the table of periods. DECIDED and SENT count units by the time when they
// were used. COUNTED is Stripe's total of the period, and DIFFERENCE is the difference between the
// totals.
func (o *Output) reconciledPeriods(catalogue *models.Catalogue, periods []billing.ReconciledPeriod) error {
	const head = "PAYER\tFROM\tTO\tDECIDED\tSENT\tCOUNTED\tDIFFERENCE\tINVOICED\tMETER\tREASONS"
	return o.table(head, len(periods), func(i int) string {
		p := &periods[i]
		payer := p.Payer
		if p.Name != "" {
			payer += " (" + p.Name + ")"
		}
		return fmt.Sprintf("%s\t%s\t%s\t%d\t%d\t%d\t%+d\t%d\t%s\t%s", payer, p.Period.Start.Format(time.RFC3339),
			p.Period.End.Format(time.RFC3339), p.Decided.Units, p.Sent.Units, p.Counted.Units, p.Difference, p.Invoiced.Units,
			p.MeterEventName, reasonsText(catalogue, &p.OverageBalance))
	})
}

// reasonsText returns a period's reasons with their amounts, such as "late 3 ($0.90), waiting 5
// ($1.50)"; "-" without any.
func reasonsText(catalogue *models.Catalogue, b *models.OverageBalance) string {
	texts := make([]string, len(b.Reasons))
	for i, reason := range b.Reasons {
		texts[i] = string(reason.Part)
		if reason.OverageSum == (models.OverageSum{}) {
			continue
		}
		texts[i] += fmt.Sprintf(" %d", reason.Units)
		if b.HasAmount(reason) {
			texts[i] += fmt.Sprintf(" (%s)", catalogue.FormatMoney(reason.Cents))
		}
	}
	if len(texts) == 0 {
		return "-"
	}
	return strings.Join(texts, ", ")
}

// waitingReports notes what Stripe has not accepted yet, and why if sending is stopped.
func (o *Output) waitingReports(catalogue *models.Catalogue, s *billing.Status) {
	var units int64
	for _, c := range s.Counts {
		if c.State == models.ReportSealed || c.State == models.ReportUnknown {
			units += c.Units
		}
	}
	if units > 0 {
		o.Note("in reports that Stripe has not accepted yet: %s", catalogue.Units(units))
	}
	if s.UnsealedUnits > 0 {
		o.Note("in no report yet: %s", catalogue.Units(s.UnsealedUnits))
	}
	for _, h := range s.Held {
		o.Note("the reports of customer %s are held back (%s): %s", h.StripeCustomerID, catalogue.Units(h.Units), h.Reason())
	}
	if more := s.HeldCustomers - int64(len(s.Held)); more > 0 {
		o.Note("further customers whose reports are held back: %d", more)
	}
	if s.State.Stopped != nil {
		o.Note("all sending is stopped: %s", *s.State.Stopped)
	}
	if s.State.Paused != nil {
		o.Note("sending is paused: %s", *s.State.Paused)
	}
}
