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

// OpsStripe is what the operator is told of Stripe: what it was sent, what it has, and what wants a person's eye.
type OpsStripe struct {
	// Connected says that this server has a key of Stripe's; without one, only what was sent before is shown.
	Connected bool
	// Account is whose it is; empty while nobody asked. Live says that money moves.
	Account string
	Live    bool
	// Paused and Stopped say why nothing is sent; empty when it is.
	Paused, Stopped string
	// Counts has each state that has reports.
	Counts []ReportCount
	// Waiting is the units that are in no report yet; OldestUnsent is when the oldest usage is of that Stripe has not accepted.
	Waiting      int64
	OldestUnsent *time.Time
	// Totals are the customers' billing periods of which Stripe has another total, and Compared how many were compared, at ComparedAt.
	Totals     []models.StripeTotal
	Compared   int64
	ComparedAt *time.Time
	// Failures are the reports that want a person's eye, those of most units first.
	Failures []models.StripeReport
	// Blocked are the customers whose reports wait for an operator; Faults, those whose subscriptions need attention.
	Blocked []models.StripeStream
	Faults  []models.StripeCustomer
	// Held are the customers whose reports are held back.
	Held []models.HeldCustomer
	// Overage says where overage is, from the decision to the invoice.
	Overage OpsOverage
	// MeterErrors is what Stripe told of events that it received and could not count, newest first.
	MeterErrors []models.StripeWebhookEvent
	// GiveUp is the ID of a report for which the form to give it up was sent and is shown again, with the entered Reason.
	GiveUp, Reason string
}

// ReportCount is how many reports are in a state, and their units.
type ReportCount struct {
	State          models.ReportState
	Reports, Units int64
}

// stateMeaning says what a state of a report means.
func stateMeaning(s models.ReportState) string {
	switch s {
	case models.ReportSealed:
		return "not sent yet; will not change"
	case models.ReportUnknown:
		return "sent, no response; checked or sent again"
	case models.ReportAccepted:
		return "received by Stripe; not checked yet"
	case models.ReportVerified:
		return "counted in Stripe’s total"
	case models.ReportMissing:
		return "never arrived; its units are in another report"
	case models.ReportConflict:
		return "Stripe has a different total for its minute"
	case models.ReportRejected:
		return "received, but not counted after a day"
	case models.ReportExpired:
		return "too old for Stripe to accept"
	case models.ReportDead:
		return "permanently refused"
	case models.ReportGivenUp:
		return "given up by an operator, with a reason"
	}
	return ""
}

func stateWord(s models.ReportState) string {
	if s == models.ReportGivenUp {
		return "given up"
	}
	return string(s)
}

// signed is a difference with its sign.
func signed(n int64) string {
	if n > 0 {
		return "+" + models.FormatCount(n)
	}
	return models.FormatCount(n)
}

// FieldsShown returns the frame's errors without links to fields that are not on the page: those of reports that are gone.
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

// sentUnits returns what was sent of a period's units. If Tollgate learned of the period late, the reports in its minutes are not that.
func sentUnits(t models.StripeTotal) int64 {
	if t.Reason == models.LearnedLate {
		return t.Sent - t.Misplaced
	}
	return t.Sent
}

// retryLabel says what the retry of a report does.
func retryLabel(r models.StripeReport, now time.Time) string {
	if r.ReadFirst(now) {
		return "Read again"
	}
	return "Send again"
}

func reportCalled(r models.StripeReport) string {
	return fmt.Sprintf("the report of %d units of %s", r.Value, r.StripeCustomerID)
}

// capital begins a text with a capital letter.
func capital(text string) string {
	r, n := utf8.DecodeRuneInString(text)
	return string(unicode.ToUpper(r)) + text[n:]
}
