package models

import (
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/uptrace/bun"
)

// ReportState is where a report has come to.
type ReportState string

// The states of a report. Those from ReportConflict on want a person's eye; their units are shown until somebody sees to them.
const (
	// ReportSealed is frozen and not sent yet.
	ReportSealed ReportState = "sealed"
	// ReportUnknown was sent at least once, and no answer says what became of it.
	ReportUnknown ReportState = "unknown"
	// ReportAccepted was received by Stripe, which does not mean counted.
	ReportAccepted ReportState = "accepted"
	// ReportVerified was counted: Stripe's total of its minute is its value.
	ReportVerified ReportState = "verified"
	// ReportMissing never arrived; another report took its events.
	ReportMissing ReportState = "missing"
	// ReportConflict has another total at Stripe than its value, or was there before it was ever sent.
	ReportConflict ReportState = "conflict"
	// ReportRejected was received, and a day later still not counted.
	ReportRejected ReportState = "rejected"
	// ReportExpired is of usage that is too old for Stripe to take.
	ReportExpired ReportState = "expired"
	// ReportDead was refused for good.
	ReportDead ReportState = "dead"
	// ReportGivenUp was ended by an operator, with a reason.
	ReportGivenUp ReportState = "given_up"
)

// ReportStates are all of them, in the order in which pages and metrics list them.
var ReportStates = []ReportState{
	ReportSealed, ReportUnknown, ReportAccepted, ReportVerified, ReportMissing,
	ReportConflict, ReportRejected, ReportExpired, ReportDead, ReportGivenUp,
}

// FailedStates are those of reports that want a person's eye.
var FailedStates = []ReportState{ReportConflict, ReportRejected, ReportExpired, ReportDead}

// Failed says that the report wants a person's eye.
func (s ReportState) Failed() bool { return slices.Contains(FailedStates, s) }

// ReportCounts says which units of its events a report has.
type ReportCounts string

const (
	// CountsOverage is the overage of the events.
	CountsOverage ReportCounts = "overage"
	// CountsQuantity is all units of the events. Earlier releases reported them, and the tiers of the price left the included ones free.
	CountsQuantity ReportCounts = "quantity"
)

// StripeReport is one meter event to be. Its identifier, customer, minute and value never change once it is committed.
type StripeReport struct {
	bun.BaseModel `bun:"table:stripe_reports"`

	ID uuid.UUID `bun:",pk,type:uuid"`
	// Identifier is by which Stripe knows a second one; at most 100 characters.
	Identifier       string
	StripeCustomerID string
	MeterEventName   string
	// Minute is the report's timestamp. No other report of the customer and meter has it, so Stripe's total of this minute
	// says whether this report was counted.
	Minute time.Time
	// PeriodStart and PeriodEnd are the billing period that its events occurred in, as far as it was known when the report was made.
	PeriodStart, PeriodEnd time.Time
	// NoMinute means that this period has no free minute, and Minute is one of the following period, which bills the report.
	NoMinute bool
	// Value is in units: those of its events that are billed.
	Value int64
	// Counts says which units of its events the value is.
	Counts   ReportCounts
	State    ReportState
	Attempts int
	// Refusals counts the attempts that Stripe answered with a refusal of this report.
	Refusals int
	// FirstAttemptAt is when the first attempt began that Stripe may have taken, LastAttemptAt when the last one began; nil before.
	FirstAttemptAt, LastAttemptAt *time.Time
	// NextAttemptAt is when it is next sent or, once sending has ended, next read.
	NextAttemptAt *time.Time
	AcceptedAt    *time.Time
	VerifiedAt    *time.Time
	// ZeroSince is when Stripe was first seen to have nothing for the minute.
	ZeroSince *time.Time
	// Confirmed is Stripe's total of the minute when it was last read, in units; nil before.
	Confirmed *int64
	// VerifiedByHour means that a restore verified the report by Stripe's total of its hour: lost reports have its units in other minutes.
	VerifiedByHour bool
	// ReplacedBy is the report that took over the events of a missing one.
	ReplacedBy *uuid.UUID `bun:",type:uuid"`
	LastError  *string
	CreatedAt  time.Time
}

// What Stripe is taken to keep to.
const (
	// StripeRequestSettles is how long a request may take to have its effect, or else never has it.
	StripeRequestSettles = time.Hour
	// StripeTotalsSettle is how long Stripe's totals may lack what it counted.
	StripeTotalsSettle = 24 * time.Hour
)

// ReadFirst says that a failed report is to be read at Stripe before its units are sent anew: when Stripe has another total for it, and when it
// may have been taken and was not seen to be absent for as long as a total may lag, up to the last reading that was due.
func (r *StripeReport) ReadFirst(now time.Time) bool {
	switch {
	case r.State == ReportConflict:
		return true
	case r.State == ReportRejected || r.FirstAttemptAt == nil:
		return false
	}
	return r.ZeroSince == nil || now.Sub(*r.ZeroSince) < StripeTotalsSettle || now.Sub(*r.LastAttemptAt) < StripeRequestSettles+StripeTotalsSettle ||
		r.NextAttemptAt != nil && !r.NextAttemptAt.After(now)
}
