package views

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"tollgate/models"
	"tollgate/views/ui"
)

// OpsStripe is the Stripe part of the operator's page: what was sent, what Stripe has, and what
// needs attention.
type OpsStripe struct {
	// Connected means that this server has a Stripe key. Without one, the page only shows what was
	// sent earlier.
	Connected bool
	// Sends means that this process sends reports, unless sending is paused or stopped.
	Sends bool
	// Account is the ID of the Stripe account; empty before the first contact with Stripe. Live means
	// live mode, with real payments.
	Account string
	Live    bool
	// Paused and Stopped say why nothing is sent; empty while reports are sent.
	Paused, Stopped string
	// Restored means that sending is paused after a restore, which only `tollgate stripe reconcile` ends.
	Restored bool
	// Counts has an entry for each state that has reports.
	Counts []ReportCount
	// Waiting is the units that are in no report yet. OldestUnsent is the time of the oldest usage
	// that Stripe has not accepted.
	Waiting      int64
	OldestUnsent *time.Time
	// Totals are the customers' billing periods for which Stripe has a different total. Compared is
	// the number of periods that were compared, at ComparedAt.
	Totals     []models.StripeTotal
	Compared   int64
	ComparedAt *time.Time
	// Failures are the reports that need attention, most units first.
	Failures []models.StripeReport
	// Voids are those that wait for a credit note because of an error, oldest first.
	Voids []models.FailedVoid
	// Blocked are the customers whose reports wait for an operator. Problems are the customers whose
	// subscriptions need attention.
	Blocked  []models.StripeStream
	Problems []models.StripeCustomer
	// Held are the customers whose reports are held back.
	Held []models.HeldCustomer
	// Overage shows how much overage reached each step from the decision to the invoice.
	Overage OpsOverage
	// MeterErrors are Stripe's messages about events that it received and could not count, newest
	// first.
	MeterErrors []models.StripeWebhookEvent
	// GiveUp is the ID of a report whose form to give it up was sent and is shown again, with the
	// entered Reason.
	GiveUp, Reason string
}

// ReportCount is the number of reports in a state, and their units.
type ReportCount struct {
	State          models.ReportState
	Reports, Units int64
}

// stateMeaning explains a report's state.
func stateMeaning(s models.ReportState) string {
	switch s {
	case models.ReportSealed:
		return "not sent yet, or sent and not accepted; its units no longer change"
	case models.ReportUnknown:
		return "sent, but no clear response from Stripe; will be checked or sent again"
	case models.ReportAccepted:
		return "received by Stripe; not seen in its total yet"
	case models.ReportVerified:
		return "counted in Stripe’s total"
	case models.ReportMissing:
		return "never arrived, or was sent again by an operator; its units are in another report"
	case models.ReportConflict:
		return "Stripe’s total differs from the report, or Stripe had this report’s identifier before Tollgate sent it"
	case models.ReportRejected:
		return "received by Stripe, but still not counted after a day; or counted before, and no longer counted"
	case models.ReportExpired:
		return "too old for Stripe to accept"
	case models.ReportDead:
		return "refused by Stripe three times; or it never arrived and cannot be replaced, because each minute of the billing period " +
			"has a report already"
	case models.ReportGivenUp:
		return "given up by an operator, or because a credit note takes its units back"
	}
	return ""
}

// advice says what to do about the failed reports of each state. Source: docs/billing.md.
func (d OpsStripe) advice() (advice []string) {
	for _, a := range []struct {
		state models.ReportState
		text  string
	}{
		{models.ReportRejected, "Rejected: send the report again, or give it up."},
		{models.ReportConflict, "Conflict: find out what else reports to this meter. Then check Stripe again, or give the report up."},
		{models.ReportDead, "Dead: read Stripe’s last response. Then check Stripe again or send the report again, " +
			"whichever is offered, or give it up."},
		{models.ReportExpired, "Expired: if you can check Stripe again, do so first. Otherwise, bill the units by hand, and give the report up."},
	} {
		if slices.ContainsFunc(d.Failures, func(r models.StripeReport) bool { return r.State == a.state }) {
			advice = append(advice, a.text)
		}
	}
	return advice
}

func stateWord(s models.ReportState) string {
	if s == models.ReportGivenUp {
		return "given up"
	}
	return string(s)
}

// signed formats a difference with its sign.
func signed(n int64) string {
	if n > 0 {
		return "+" + models.FormatCount(n)
	}
	return models.FormatCount(n)
}

// FieldsShown returns the frame's errors. It removes links to fields that are no longer on the
// page, because their report is gone.
func (d *Ops) FieldsShown() []ui.FormError {
	shown := slices.Clone(d.Frame.Errors)
	for i, e := range shown {
		report, ok := strings.CutPrefix(e.Field, fieldIDReason)
		if ok && !(d.Stripe.Failed == "" && d.Stripe.Value.Connected &&
			slices.ContainsFunc(d.Stripe.Value.Failures, func(r models.StripeReport) bool { return r.ID.String() == report })) {
			shown[i].Field = ""
		}
	}
	return shown
}

func textOr(text *string, none string) string {
	if text == nil || *text == "" {
		return none
	}
	return *text
}

func totalPeriod(t models.StripeTotal) models.Period {
	return models.Period{Start: t.PeriodStart.UTC(), End: t.PeriodEnd.UTC()}
}

// sentUnits returns how many of the period's units were sent. t.Sent is the sum of the reports in
// the period's minutes. If Tollgate learned of the period late, Misplaced corrects it for units
// that are in another period's reports.
func sentUnits(t models.StripeTotal) int64 {
	if t.Reason == models.LearnedLate {
		return t.Sent - t.Misplaced
	}
	return t.Sent
}

// retryLabel returns the label of the button that retries a report.
func retryLabel(r models.StripeReport, now time.Time) string {
	if r.ReadFirst(now) {
		return "Check Stripe again"
	}
	return "Send again"
}

func reportName(r models.StripeReport) string {
	return fmt.Sprintf("the report of %d units of %s", r.Value, r.StripeCustomerID)
}

// capital returns the text with its first letter in uppercase.
func capital(text string) string {
	r, n := utf8.DecodeRuneInString(text)
	return string(unicode.ToUpper(r)) + text[n:]
}
