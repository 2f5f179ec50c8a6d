package billing

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/stripe/stripe-go/v76"
	"github.com/uptrace/bun"

	"tollgate/models"
)

// creditAgain is how long a void waits before it is looked at again. The requests for one void take
// less time, so two processes never work on the same void at the same time.
const creditAgain = 10 * time.Minute

// resolveVoids takes back the overage of events that were voided after they went into a report: with
// a negative report while there is no final invoice, and otherwise with a credit note on the invoice
// that bills it.
func (r *Reporter) resolveVoids(ctx context.Context) error {
	var failed []error
	read := reportsRead{}
	for begin := r.now(); ; { // a void that becomes due during this pass waits for the next one
		v, err := r.claimVoid(ctx, begin)
		if err != nil {
			return fmt.Errorf("claim a void to take back: %w", err)
		}
		if v == nil {
			return errors.Join(failed...)
		}
		if err := r.resolveVoid(ctx, v, read); err != nil {
			failed = append(failed, fmt.Errorf("take back the voided event %s: %w", v.EventID, err))
		}
	}
}

// claimVoid claims one of the voids that were due at a time; nil if there is none, or if sending is
// stopped.
func (r *Reporter) claimVoid(ctx context.Context, at time.Time) (v *models.UsageVoid, err error) {
	err = r.db.InTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		v = nil
		var due []models.UsageVoid
		q := tx.NewSelect().Model(&due).Where("next_attempt_at <= ?", at).
			Where("NOT EXISTS (SELECT 1 FROM stripe_state WHERE stopped IS NOT NULL OR paused IS NOT NULL)").
			Order("next_attempt_at").Limit(1)
		if err := models.ForUpdateSkipLocked(q).Scan(ctx); err != nil || len(due) == 0 {
			return err
		}
		v = &due[0]
		_, err := tx.NewUpdate().Model((*models.UsageVoid)(nil)).Set("next_attempt_at = ?", r.now().Add(creditAgain)).
			Where("user_id = ? AND event_id = ?", v.UserID, v.EventID).Exec(ctx)
		return err
	})
	return v, err
}

// resolveVoid takes back a voided event, or ends the void if it is known what the invoice has.
// Otherwise, the void keeps waiting.
func (r *Reporter) resolveVoid(ctx context.Context, v *models.UsageVoid, read reportsRead) error {
	report, err := r.reportOf(ctx, v)
	if err != nil {
		return err
	}
	if report == nil { // it was taken back before it was sent, and will not be sealed again
		return endVoid(ctx, r.db, v, models.VoidNotReported, nil)
	}
	var negative *models.StripeReport
	if v.State == models.VoidReported {
		if negative, err = r.negativeReport(ctx, v); err != nil {
			return err
		}
		if negative != nil && negative.State != models.ReportAccepted && negative.State != models.ReportVerified {
			return nil
		}
	}
	counted, err := r.isCounted(ctx, report, read)
	if err != nil {
		return err
	}
	switch report.State {
	case models.ReportRejected, models.ReportExpired, models.ReportDead, models.ReportGivenUp:
		if negative != nil {
			return endVoid(ctx, r.db, v, models.VoidReported, nil)
		}
		return r.endUnbilled(ctx, v, report)
	}
	switch {
	case !counted && r.isUnread(report):
		return r.setLastError(ctx, v, errUnread(report))
	case !counted:
		return nil
	}
	bill, err := r.billOf(ctx, report)
	if err != nil {
		return err
	}
	old := r.now().Sub(report.Minute) > totalsReach+longestPeriod
	switch {
	case bill == nil && negative != nil && old:
		return endVoid(ctx, r.db, v, models.VoidReported, nil)
	case bill == nil && old:
		return endVoid(ctx, r.db, v, models.VoidNotBilled, nil)
	case bill == nil && v.StripeReportID == nil:
		if err := r.takeBack(ctx, v, report); !errors.Is(err, ErrStreamBusy) {
			return err
		}
		return nil // the void is tried again
	case bill == nil:
		return nil
	}
	billed, known, err := r.isBilled(ctx, report, bill)
	if isByHand(err) {
		return r.setLastError(ctx, v, err)
	}
	if err != nil || !known {
		return err
	}
	if negative != nil {
		back, err := r.isTakenBack(ctx, negative)
		switch {
		case err != nil || back == nil:
			return err
		case *back:
			return endVoid(ctx, r.db, v, models.VoidReported, nil)
		}
	}
	if !billed {
		return endVoid(ctx, r.db, v, models.VoidNotBilled, nil)
	}
	return r.credit(ctx, v, bill)
}

// setLastError stores why a void waits, for the operator.
func (r *Reporter) setLastError(ctx context.Context, v *models.UsageVoid, reason error) error {
	_, err := r.db.NewUpdate().Model(v).Set("last_error = ?", reason.Error()).WherePK().Where("state = ?", models.VoidWaiting).Exec(ctx)
	return err
}

// credit takes back a void with a credit note.
func (r *Reporter) credit(ctx context.Context, v *models.UsageVoid, on *bill) error {
	if err := r.limit.wait(ctx); err != nil {
		return err
	}
	id, err := r.client.creditNote(ctx, on, v)
	if err != nil {
		// This never stops the reports: a restricted key may lack only the permission for credit notes.
		_, stored := r.db.NewUpdate().Model(v).Set("last_error = ?", short(err.Error())).WherePK().Exec(ctx)
		return errors.Join(err, stored)
	}
	return endVoid(ctx, r.db, v, models.VoidCredited, &id)
}

// endUnbilled ends the void of an event in a failed report, unless the report has changed since it
// was read. If Stripe counts its units after all, the void waits again.
func (r *Reporter) endUnbilled(ctx context.Context, v *models.UsageVoid, report *models.StripeReport) error {
	return r.db.InTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		current := *report
		if held, err := r.lockReport(ctx, tx, &current); err != nil || !held {
			return err
		}
		return endVoid(ctx, tx, v, models.VoidNotBilled, nil)
	})
}

// endVoid stores the final state of a void, and computes the balances of its customer again.
func endVoid(ctx context.Context, db bun.IDB, v *models.UsageVoid, state models.VoidState, note *string) error {
	if _, err := db.NewUpdate().Model(v).Set("state = ?, credit_note_id = ?, next_attempt_at = NULL, last_error = NULL", state, note).
		WherePK().Where("next_attempt_at IS NOT NULL").Exec(ctx); err != nil {
		return err
	}
	_, err := db.NewUpdate().Model((*models.StripeInvoice)(nil)).Set("balanced = ?", false).
		Where("stripe_customer_id = (SELECT e.stripe_customer_id FROM usage_events e WHERE e.user_id = ? AND e.id = ?)", v.UserID, v.EventID).
		Exec(ctx)
	return err
}

// bill is a line of a final invoice that bills a report.
type bill struct {
	models.StripeInvoice
	line models.StripeInvoiceLine
	// missing means that the invoice has no line for the report's meter.
	missing bool
}

// billOf returns what the final invoice of a report's minute has; nil without such an invoice.
func (r *Reporter) billOf(ctx context.Context, report *models.StripeReport) (*bill, error) {
	var lines []models.StripeInvoiceLine
	if err := r.db.NewSelect().Model(&lines).Where("stripe_customer_id = ? AND period_start <= ? AND period_end > ?",
		report.StripeCustomerID, report.Minute, report.Minute).Order("period_start DESC", "stripe_invoice_id", "id").Scan(ctx); err != nil {
		return nil, err
	}
	var found *bill
	for _, line := range lines {
		b := &bill{line: line, missing: line.MeterEventName != report.MeterEventName}
		if err := r.db.NewSelect().Model(&b.StripeInvoice).Where("id = ?", line.StripeInvoiceID).Scan(ctx); err != nil {
			return nil, err
		}
		switch {
		case b.FinalizedAt == nil || b.Status == models.InvoiceDraft:
			return nil, nil
		case found == nil || found.missing && !b.missing:
			found = b
		}
	}
	return found, nil
}

// isBilled reports whether an invoice bills a report. known is false while the report's first answer
// was lost and Stripe may still count other reports of the invoice. isByHand is true for the error if
// the operator must decide.
func (r *Reporter) isBilled(ctx context.Context, report *models.StripeReport, b *bill) (billed, known bool, err error) {
	if b.missing || b.Status == models.InvoiceVoid || b.Status == models.InvoiceUncollectible {
		return false, true, nil
	}
	final := b.FinalizedAt.UTC()
	if !isNear(report, final) && !sentAt(report).Before(final) {
		return false, true, nil
	}
	if !strings.EqualFold(b.line.Currency, r.catalogue.Currency) {
		r.log.Error("a voided event is on an invoice in another currency: credit it in Stripe", "invoice", b.ID, "report", report.Identifier)
		return false, false, byHand(errOtherCurrency, b)
	}
	var all []models.StripeReport
	if err := r.db.NewSelect().Model(&all).Where("stripe_customer_id = ? AND meter_event_name = ? AND minute >= ? AND minute < ?",
		report.StripeCustomerID, report.MeterEventName, b.line.PeriodStart, b.line.PeriodEnd).
		Where("state IN (?, ?)", models.ReportAccepted, models.ReportVerified).Scan(ctx, &all); err != nil {
		return false, false, err
	}
	having, lacking := fits(all, report, b, time.Time{})
	if !having && !lacking { // perhaps because the price was added later
		since, err := r.itemAdded(ctx, &b.line)
		switch {
		case err != nil:
			return false, false, err
		case report.Minute.Before(since):
			return false, true, nil
		}
		having, lacking = fits(all, report, b, since)
	}
	if isNear(report, final) && report.AcceptedAt != nil && report.AcceptedAt.After(final.Add(requestSettles)) {
		// Its first answer was lost, so only the quantity shows it. Wait until it is known what Stripe
		// counted of the other reports.
		open, err := r.db.NewSelect().Model((*models.StripeReport)(nil)).Where("stripe_customer_id = ? AND meter_event_name = ?",
			report.StripeCustomerID, report.MeterEventName).Where("minute >= ? AND minute < ?", b.line.PeriodStart, b.line.PeriodEnd).
			Where("state IN (?, ?) AND first_attempt_at < ?", models.ReportUnknown, models.ReportAccepted, final.Add(requestSettles)).Exists(ctx)
		if err != nil || open {
			return false, false, err
		}
	}
	switch {
	case having != lacking:
		return having, true, nil
	case !isNear(report, final):
		return true, true, nil
	case having:
		// The quantity fits both, because a negative report makes up for a report. A report without a
		// time is from a restore: Stripe counted it before this database was restored.
		return report.AcceptedAt == nil && report.FirstAttemptAt == nil || sentAt(report).Before(final), true, nil
	}
	r.log.Error("a voided event may be on an invoice: credit it in Stripe if the invoice has it", "invoice", b.ID, "report", report.Identifier)
	return false, false, byHand(errUnclear, b)
}

var (
	// errUnclear means that the quantity on an invoice does not show whether it has a report.
	errUnclear = errors.New("its quantity does not show whether it bills the voided units; if it does, credit them in Stripe")
	// errOtherCurrency means that an invoice is in another currency than the plans.
	errOtherCurrency = errors.New("it is in another currency than the plans; if it bills the voided units, credit them in Stripe")
)

// byHand names the invoice that the operator must look at.
func byHand(reason error, b *bill) error { return fmt.Errorf("invoice %s: %w", b.ID, reason) }

func isByHand(err error) bool { return errors.Is(err, errUnclear) || errors.Is(err, errOtherCurrency) }

// sentAt returns when a report was sent.
func sentAt(r *models.StripeReport) time.Time {
	switch {
	case r.AcceptedAt != nil:
		return *r.AcceptedAt
	case r.FirstAttemptAt != nil:
		return *r.FirstAttemptAt
	}
	return r.CreatedAt // a restored database does not have the attempt
}

// itemAdded returns when the item of an invoice line was added to its subscription: Stripe bills usage
// only from then on. It is zero if the subscription does not have the item anymore. An item that was
// added after the line's period is another one.
func (r *Reporter) itemAdded(ctx context.Context, line *models.StripeInvoiceLine) (added time.Time, err error) {
	if line.StripeSubscriptionID == nil {
		return added, nil
	}
	if err := r.limit.wait(ctx); err != nil {
		return added, err
	}
	s, err := r.client.subscription(ctx, *line.StripeSubscriptionID)
	if err != nil || s.Items == nil {
		if isMissing(err) {
			err = nil
		}
		return added, err
	}
	for _, i := range s.Items.Data {
		if at := time.Unix(i.Created, 0).UTC(); i.Price != nil && i.Price.ID == line.StripePriceID && at.Before(line.PeriodEnd) {
			return at, nil
		}
	}
	return added, nil
}

// isNear reports whether Stripe may have counted a report close to the time when an invoice became
// final, so that the invoice may have it or not. A report whose first answer was lost may have been
// counted at any time until it was accepted.
func isNear(r *models.StripeReport, final time.Time) bool {
	return r.AcceptedAt == nil || r.AcceptedAt.After(final.Add(-requestSettles)) && firstSentAt(r).Before(final.Add(requestSettles))
}

func firstSentAt(r *models.StripeReport) time.Time {
	if r.FirstAttemptAt != nil {
		return *r.FirstAttemptAt
	}
	return sentAt(r)
}

// fits compares the quantity of an invoice line with the reports in its period whose minute is since
// or later. The line certainly has the reports that were sent well before the invoice became final.
// Of those that were sent near that time, it has the first ones: assume that Stripe counted them in
// the order in which they were accepted or, if the quantity does not fit, in which they were first
// sent. having and lacking are true if the quantity fits with or without the report.
func fits(all []models.StripeReport, report *models.StripeReport, b *bill, since time.Time) (having, lacking bool) {
	final := b.FinalizedAt.UTC()
	var units int64
	var near []*models.StripeReport
	for i := range all {
		switch other := &all[i]; {
		case other.Minute.Before(since):
		case isNear(other, final):
			near = append(near, other)
		case sentAt(other).Before(final):
			units += other.Value
		}
	}
	certain := !isNear(report, final) && sentAt(report).Before(final) && !report.Minute.Before(since)
	for _, sent := range []func(*models.StripeReport) time.Time{sentAt, firstSentAt} {
		slices.SortFunc(near, func(a, b *models.StripeReport) int {
			return cmp.Or(sent(a).Compare(sent(b)), strings.Compare(a.Identifier, b.Identifier))
		})
		counted, has := units, certain
		for i := range len(near) + 1 {
			if i > 0 {
				counted, has = counted+near[i-1].Value, has || near[i-1].ID == report.ID
			}
			if max(0, counted) == b.line.Quantity {
				having, lacking = having || has, lacking || !has
			}
		}
		if having || lacking {
			break // two explanations may exclude each other
		}
	}
	return having, lacking
}

// creditNote returns the ID of the credit note for a void. It makes one unless an earlier attempt
// did. A paid invoice's amount goes to the customer's balance, which pays the next invoice.
func (c *Client) creditNote(ctx context.Context, b *bill, v *models.UsageVoid) (id string, err error) {
	name := v.EventID.String()
	earlier := &stripe.CreditNoteListParams{Invoice: &b.ID}
	earlier.Context = ctx
	for list := c.api.CreditNotes.List(earlier); ; {
		if !list.Next() {
			if err := list.Err(); err != nil {
				return "", err
			}
			break
		}
		if note := list.CreditNote(); note.Metadata[metadataVoid] == name {
			return note.ID, nil
		}
	}
	kind := "invoice_line_item"
	p := &stripe.CreditNoteParams{
		Params: params(ctx), Invoice: &b.ID, Metadata: map[string]string{metadataVoid: name},
		Lines: []*stripe.CreditNoteLineParams{{Type: &kind, InvoiceLineItem: &b.line.ID, Amount: &v.OverageCents}},
	}
	if b.Status == models.InvoicePaid {
		// The total has the tax, which only Stripe knows.
		preview, err := c.api.CreditNotes.Preview(&stripe.CreditNotePreviewParams{
			Params: params(ctx), Invoice: &b.ID,
			Lines: []*stripe.CreditNotePreviewLineParams{{Type: &kind, InvoiceLineItem: &b.line.ID, Amount: &v.OverageCents}},
		})
		if err != nil {
			return "", err
		}
		p.CreditAmount = &preview.Total
	}
	p.SetIdempotencyKey("void:" + name)
	note, err := c.api.CreditNotes.New(p)
	if err != nil {
		return "", err
	}
	return note.ID, nil
}

// metadataVoid is the metadata key by which a void's credit note is found again: its value is the
// event's ID.
const metadataVoid = "void_id"
