package models

import (
	"context"
	"fmt"
	"slices"
	"strings"
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

// StripeStream is all that Stripe takes one after another: the reports of one customer to one meter.
type StripeStream struct {
	bun.BaseModel `bun:"table:stripe_streams"`

	StripeCustomerID string `bun:",pk"`
	MeterEventName   string `bun:",pk"`
	// NextAttemptAt is nil while there is nothing to send.
	NextAttemptAt *time.Time
	// Failures is how often in a row sending did not succeed.
	Failures    int
	LeaseToken  *uuid.UUID `bun:",type:uuid"`
	LeasedUntil *time.Time
	// Blocked says why nothing is sent until an operator unblocks the stream; nil if nothing blocks it. It is for people to read.
	Blocked     *string
	BlockedKind BlockedKind `bun:",nullzero"`
}

// StripeTotal is what Stripe had of a customer's billing period when it was last asked; all but times are units.
type StripeTotal struct {
	bun.BaseModel `bun:"table:stripe_totals"`

	StripeCustomerID string    `bun:",pk"`
	MeterEventName   string    `bun:",pk"`
	PeriodStart      time.Time `bun:",pk"`
	PeriodEnd        time.Time
	// Used is the overage that occurred in the period, Waiting what of it was not sent yet, Sent what was sent in the period's minutes,
	// Confirmed Stripe's total.
	Used, Waiting, Sent, Confirmed int64
	// Misplaced is how much of Sent occurred in another period, less what occurred in this period and was sent in another one. Reason
	// says why; it is empty without any.
	Misplaced int64
	Reason    MisplacedReason
	// Difference is Confirmed less what should be there; 0 when all is well. Units that had to be sent in the following period are none.
	Difference int64
	CheckedAt  time.Time
}

// Explain says why units of the period were sent in another one, or the other way around; empty if none were.
func (t *StripeTotal) Explain() string {
	what := fmt.Sprintf("%s units of another period were sent in this one", FormatCount(t.Misplaced))
	if t.Misplaced < 0 {
		what = fmt.Sprintf("%s units of this period were sent in another one", FormatCount(-t.Misplaced))
	}
	switch t.Reason {
	case LearnedLate:
		return what + ", since the change of the period became known after they were sent"
	case NoMinute:
		return what + ", since a period without a free whole minute is billed in the first free minute after it"
	}
	return ""
}

// MisplacedReason says why units were sent in another billing period than the one that they occurred in.
type MisplacedReason string

const (
	// LearnedLate means that Tollgate learned of a period after it had sent units that belong there.
	LearnedLate MisplacedReason = "learned_late"
	// NoMinute means that a period has no free whole minute, so that its units are billed in the first free one of the following period.
	NoMinute MisplacedReason = "no_minute"
)

// StripeState is the one row that says whose account this is and whether anything is sent to it.
type StripeState struct {
	bun.BaseModel `bun:"table:stripe_state"`

	ID        int `bun:",pk"`
	AccountID string
	Livemode  *bool
	// Stopped says why sending stopped by itself; Paused, why it is paused. Nil when it goes on. Both are for people to read.
	Stopped    *string
	StoppedAt  *time.Time
	Paused     *string
	PausedKind PausedKind `bun:",nullzero"`
	PausedAt   *time.Time
	TotalsAt   *time.Time
	ResyncedAt *time.Time
}

// PausedKind says what ends a pause; empty without one.
type PausedKind string

const (
	// PausedByOperator means that an operator paused sending, until an operator resumes it.
	PausedByOperator PausedKind = "operator"
	// PausedRestored means that the database was restored. `tollgate stripe reconcile --restored` ends the pause when Stripe's totals
	// are complete.
	PausedRestored PausedKind = "restored"
)

// BlockedKind says what blocks a stream; empty if nothing does.
type BlockedKind string

const (
	// BlockedByMeter means that Stripe has no such meter, or an inactive one, so all streams of the meter wait.
	BlockedByMeter BlockedKind = "meter"
	// BlockedByCustomer means that Stripe has no such customer.
	BlockedByCustomer BlockedKind = "customer"
)

// StripeObject is something set up at Stripe, by a name of ours: "meter:pro", "price:pro", "overage:pro", "webhook".
type StripeObject struct {
	bun.BaseModel `bun:"table:stripe_objects"`

	Name      string `bun:",pk"`
	StripeID  string
	UpdatedAt time.Time
}

// OverageProblem says why a subscription's overage cannot be billed. Units beyond the included ones are refused then.
type OverageProblem string

// The problems of an overage price.
const (
	// OverageMissing means that the subscription has no overage price of its plan.
	OverageMissing OverageProblem = "missing"
	// OverageTiered means that the overage price has tiers, whose free units would count twice.
	OverageTiered OverageProblem = "tiered"
	// OverageCurrency means that the overage price is in another currency than the catalog.
	OverageCurrency OverageProblem = "currency"
	// OverageAmount means that the overage price is not a whole number of cents for each unit.
	OverageAmount OverageProblem = "amount"
)

// StripeMeterObject begins the names of the plans' meters in stripe_objects: "meter:pro".
const StripeMeterObject = "meter:"

// ReadMeters sets the StripeMeterID of each plan to what `tollgate stripe setup` stored. Nothing else may use the catalog meanwhile.
func (c *Catalogue) ReadMeters(ctx context.Context, db bun.IDB) error {
	var rows []StripeObject
	if err := db.NewSelect().Model(&rows).Where("name LIKE ?", StripeMeterObject+"%").Scan(ctx); err != nil {
		return fmt.Errorf("read the meters of the plans: %w", err)
	}
	for _, row := range rows {
		if plan := c.byID[PlanID(strings.TrimPrefix(row.Name, StripeMeterObject))]; plan != nil {
			plan.StripeMeterID = row.StripeID
		}
	}
	return nil
}

// StripeCustomer is whose a customer of Stripe's is: a person, an organization, or nobody known.
type StripeCustomer struct {
	bun.BaseModel `bun:"table:stripe_customers"`

	ID             string     `bun:",pk"`
	UserID         *uuid.UUID `bun:",type:uuid"`
	OrganizationID *uuid.UUID `bun:",type:uuid"`
	Deleted        bool
	LeaseToken     *uuid.UUID `bun:",type:uuid"`
	LeasedUntil    *time.Time
	// NextAttemptAt is when what happened to the customer is applied (again); nil when all is.
	NextAttemptAt *time.Time
	Failures      int
	// Fault is what an operator should know: a price that no plan has, an owner who is not named. Nil when all is well.
	Fault     *string
	CreatedAt time.Time
	// HeldSubscriptions lists, separated by spaces, the active subscriptions that all bill our meter. While there are two or more,
	// the customer's reports are held back, as each would be billed more than once; nil otherwise.
	HeldSubscriptions *string
}

// HeldCustomer is a customer whose reports are held back.
type HeldCustomer struct {
	StripeCustomerID string
	// Subscriptions are active ones that all bill the same meter, Tiered those whose overage price has tiers.
	Subscriptions, Tiered []string
	// Units is the customer's overage that waits to be sent.
	Units int64
}

// Reason says why the reports are held back and what to do.
func (h HeldCustomer) Reason() string {
	var reasons []string
	if n := len(h.Subscriptions); n > 0 {
		reasons = append(reasons, fmt.Sprintf("%d active subscriptions bill the same meter: %s. End all but one in Stripe; the reports are then sent.",
			n, listOr(h.Subscriptions, "none")))
	}
	if len(h.Tiered) > 0 {
		reasons = append(reasons, fmt.Sprintf("The overage price of %s has tiers, whose free units would count twice. "+
			"Exchange the item for the plan's flat price in Stripe when the next period begins. Until then, units beyond the included ones are refused.",
			listOr(h.Tiered, "none")))
	}
	return strings.Join(reasons, " ")
}

// StripeWebhookEvent is a webhook of Stripe's, kept before it is applied.
type StripeWebhookEvent struct {
	bun.BaseModel `bun:"table:stripe_webhook_events"`

	ID      string `bun:",pk"`
	Type    string
	Payload string
	// StripeCustomerID is whom it is about; nil when nobody.
	StripeCustomerID *string
	// OccurredAt is Stripe's time of it.
	OccurredAt *time.Time
	ReceivedAt time.Time
	AppliedAt  *time.Time
	LastError  *string
}
