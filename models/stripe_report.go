package models

import (
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/uptrace/bun"
)

// ReportState is the state of a report. docs/architecture.md has a diagram.
type ReportState string

// The states of a report. From ReportConflict on, a report needs the attention of an operator, and
// its units are shown until then.
const (
	// ReportSealed means that the value is final and the report was not sent yet.
	ReportSealed ReportState = "sealed"
	// ReportUnknown means that the report was sent at least once, and no answer says whether Stripe
	// has it.
	ReportUnknown ReportState = "unknown"
	// ReportAccepted means that Stripe received the report. It may still not count it.
	ReportAccepted ReportState = "accepted"
	// ReportVerified means that Stripe counted the report: its total of the report's minute equals
	// the value.
	ReportVerified ReportState = "verified"
	// ReportMissing means that the report never arrived. Another report took over its events.
	ReportMissing ReportState = "missing"
	// ReportConflict means that Stripe's total of the minute differs from the value, or that Stripe
	// had the report before it was ever sent.
	ReportConflict ReportState = "conflict"
	// ReportRejected means that Stripe received the report and had not counted it a day later.
	ReportRejected ReportState = "rejected"
	// ReportExpired means that the usage is too old for Stripe to accept.
	ReportExpired ReportState = "expired"
	// ReportDead means that Stripe refused the report too often.
	ReportDead ReportState = "dead"
	// ReportGivenUp means that an operator ended the report, with a reason.
	ReportGivenUp ReportState = "given_up"
)

// ReportStates lists all states in the order of pages and metrics.
var ReportStates = []ReportState{
	ReportSealed, ReportUnknown, ReportAccepted, ReportVerified, ReportMissing,
	ReportConflict, ReportRejected, ReportExpired, ReportDead, ReportGivenUp,
}

// FailedStates are the states that need the attention of an operator.
var FailedStates = []ReportState{ReportConflict, ReportRejected, ReportExpired, ReportDead}

// Failed reports whether the state needs the attention of an operator.
func (s ReportState) Failed() bool { return slices.Contains(FailedStates, s) }

// ReportCounts says which units of its events a report counts.
type ReportCounts string

const (
	// CountsOverage means the overage of the events.
	CountsOverage ReportCounts = "overage"
	// CountsQuantity means all units of the events. Earlier releases reported these, because tiers
	// of the price left the included units free.
	CountsQuantity ReportCounts = "quantity"
	// CountsVoid means the overage of one voided event. The value is negative.
	CountsVoid ReportCounts = "void"
)

// StripeReport is a meter event for Stripe. Its identifier, customer, minute and value never change
// after they are committed.
type StripeReport struct {
	bun.BaseModel `bun:"table:stripe_reports"`

	ID uuid.UUID `bun:",pk,type:uuid"`
	// Identifier lets Stripe detect duplicates. It has at most 100 characters.
	Identifier       string
	StripeCustomerID string
	MeterEventName   string
	// Minute is the report's timestamp. No other report of the customer and meter has the same one,
	// so Stripe's total of the minute shows whether this report was counted.
	Minute time.Time
	// PeriodStart and PeriodEnd are the billing period of its events, as known when the report was
	// made.
	PeriodStart, PeriodEnd time.Time
	// NoMinute means that this period has no free minute. Minute is then in the following period,
	// which bills the report.
	NoMinute bool
	// Value is the number of units that its events bill; negative if it takes back a voided event.
	Value int64
	// Counts says which units of its events are in the value.
	Counts   ReportCounts
	State    ReportState
	Attempts int
	// Refusals is the number of attempts that Stripe answered with a refusal of this report.
	Refusals int
	// FirstAttemptAt is the start of the first attempt that Stripe may have accepted. LastAttemptAt
	// is the start of the last attempt. They are nil before.
	FirstAttemptAt, LastAttemptAt *time.Time
	// NextAttemptAt is when it is next sent or, after sending has ended, next read.
	NextAttemptAt *time.Time
	AcceptedAt    *time.Time
	VerifiedAt    *time.Time
	// ZeroSince is when Stripe first had nothing for the minute.
	ZeroSince *time.Time
	// Confirmed is Stripe's total of the minute when it was last read, in units; nil before.
	Confirmed *int64
	// VerifiedByHour means that a restore verified the report by Stripe's total of its hour,
	// because lost reports have its units in other minutes.
	VerifiedByHour bool
	// ReplacedBy is the report that took over the events of a missing one.
	ReplacedBy *uuid.UUID `bun:",type:uuid"`
	LastError  *string
	CreatedAt  time.Time
}

// What Tollgate assumes about Stripe.
const (
	// StripeRequestSettles is how long after a request it may still take effect.
	StripeRequestSettles = time.Hour
	// StripeTotalsSettle is how long a counted report may be missing from Stripe's totals.
	StripeTotalsSettle = 24 * time.Hour
	// StripeReportMaxAge is how old a report's minute may be when it is sent. Stripe accepts events of
	// the past 35 days.
	// Source: https://docs.stripe.com/billing/subscriptions/usage-based/recording-usage-api
	StripeReportMaxAge = 34 * 24 * time.Hour
)

// MayRetry reports whether an operator can do more about a failed report than give it up: read it
// again, or send its units again.
func (r *StripeReport) MayRetry(now time.Time) bool {
	return r.State != ReportExpired || r.ReadFirst(now) || now.Sub(r.Minute) < StripeReportMaxAge
}

// ReadFirst reports whether a failed report must be read at Stripe before its units are sent again.
// That is the case if Stripe has another total for it, or if Stripe may have accepted it and its
// absence was not confirmed for as long as totals may lag, up to the last reading that was due.
func (r *StripeReport) ReadFirst(now time.Time) bool {
	switch {
	case r.State == ReportConflict:
		return true
	case r.State == ReportRejected || r.FirstAttemptAt == nil:
		return false
	}
	return r.ZeroSince == nil || now.Sub(*r.ZeroSince) < StripeTotalsSettle ||
		now.Sub(*r.LastAttemptAt) < StripeRequestSettles+StripeTotalsSettle ||
		r.NextAttemptAt != nil && !r.NextAttemptAt.After(now)
}
