package models

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/uptrace/bun"
)

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

// StripeMeterObject begins the names of the plans' meters in stripe_objects: "meter:pro".
const StripeMeterObject = "meter:"
