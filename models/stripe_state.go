package models

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/uptrace/bun"
)

// StripeStream is the sequence of a customer's reports to a meter, which are sent one after
// another.
type StripeStream struct {
	bun.BaseModel `bun:"table:stripe_streams"`

	StripeCustomerID string `bun:",pk"`
	MeterEventName   string `bun:",pk"`
	// NextAttemptAt is nil while there is nothing to send.
	NextAttemptAt *time.Time
	// Failures is the number of failed attempts in a row.
	Failures    int
	LeaseToken  *uuid.UUID `bun:",type:uuid"`
	LeasedUntil *time.Time
	// Blocked is the reason, as text for people, why nothing is sent until an operator unblocks the
	// stream; nil if it is not blocked.
	Blocked     *string
	BlockedKind BlockedKind `bun:",nullzero"`
}

// StripeTotal is Stripe's total of a customer's billing period when it was last read, compared with
// ours. All amounts are in units.
type StripeTotal struct {
	bun.BaseModel `bun:"table:stripe_totals"`

	StripeCustomerID string    `bun:",pk"`
	MeterEventName   string    `bun:",pk"`
	PeriodStart      time.Time `bun:",pk"`
	PeriodEnd        time.Time
	// Used is the overage that occurred in the period, and Waiting the part of it that was not sent
	// yet. Sent is what was sent for minutes of the period. Confirmed is Stripe's total.
	Used, Waiting, Sent, Confirmed int64
	// Misplaced is the part of Sent that occurred in another period, minus what occurred in this
	// period and was sent for another one. Reason is its reason; empty if it is 0.
	Misplaced int64
	Reason    MisplacedReason
	// Difference is Confirmed minus the expected total; 0 if they agree. Units that had to be sent
	// in the following period do not count as a difference.
	Difference int64
	CheckedAt  time.Time
}

// Explain returns why units of the period were sent in another one, or the reverse; empty if none
// were.
func (t *StripeTotal) Explain() string {
	units := func(n int64) string { // "1 unit"
		if n == 1 {
			return "1 unit"
		}
		return FormatCount(n) + " units"
	}
	what := fmt.Sprintf("Tollgate sent %s of another period in this one", units(t.Misplaced))
	if t.Misplaced < 0 {
		what = fmt.Sprintf("Tollgate sent %s of this period in another one", units(-t.Misplaced))
	}
	switch t.Reason {
	case LearnedLate:
		return what + ", because it learned only later that the period had changed"
	case NoMinute:
		return what + ", because each report needs a minute of its own, and the period in which these units were used had none left"
	}
	return ""
}

// MisplacedReason is the reason why units were sent in another billing period than their own.
type MisplacedReason string

const (
	// LearnedLate means that Tollgate learned about a period after it had sent units of that
	// period.
	LearnedLate MisplacedReason = "learned_late"
	// NoMinute means that a period has no free whole minute. Its units are billed in the first free
	// minute of the following period.
	NoMinute MisplacedReason = "no_minute"
)

// StripeState is the single row with the Stripe account of this database and the state of sending.
type StripeState struct {
	bun.BaseModel `bun:"table:stripe_state"`

	ID        int `bun:",pk"`
	AccountID string
	Livemode  *bool
	// Stopped is the reason why sending stopped by itself, and Paused the reason why it is paused,
	// as texts for people; nil if it is not.
	Stopped    *string
	StoppedAt  *time.Time
	Paused     *string
	PausedKind PausedKind `bun:",nullzero"`
	PausedAt   *time.Time
	TotalsAt   *time.Time
	ResyncedAt *time.Time
}

// PausedKind is the kind of a pause; empty without one.
type PausedKind string

const (
	// PausedByOperator means that an operator paused sending, and must resume it.
	PausedByOperator PausedKind = "operator"
	// PausedRestored means that the database was restored. `tollgate stripe reconcile --restored`
	// ends the pause when Stripe's totals are complete.
	PausedRestored PausedKind = "restored"
)

// BlockedKind says why a stream is blocked; empty if it is not.
type BlockedKind string

const (
	// BlockedByMeter means that the meter does not exist at Stripe or is inactive, so all streams
	// of the meter wait.
	BlockedByMeter BlockedKind = "meter"
	// BlockedByCustomer means that the customer does not exist at Stripe.
	BlockedByCustomer BlockedKind = "customer"
)

// StripeObject is an object at Stripe that setup created, with our name for it: "meter:pro",
// "price:pro", "overage:pro", "webhook".
type StripeObject struct {
	bun.BaseModel `bun:"table:stripe_objects"`

	Name      string `bun:",pk"`
	StripeID  string
	UpdatedAt time.Time
}

// ReadMeters sets the StripeMeterID of each plan to the one that `tollgate stripe setup` stored.
// The catalog must not be in use meanwhile.
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

// StripeWebhookEvent is an event from a Stripe webhook, stored before it is applied.
type StripeWebhookEvent struct {
	bun.BaseModel `bun:"table:stripe_webhook_events"`

	ID      string `bun:",pk"`
	Type    string
	Payload string
	// StripeCustomerID is the customer that the event is about; nil without one.
	StripeCustomerID *string
	// OccurredAt is Stripe's time of the event.
	OccurredAt *time.Time
	ReceivedAt time.Time
	AppliedAt  *time.Time
	LastError  *string
}

// StripeMeterObject is the prefix of the names of meters in stripe_objects: "meter:pro".
const StripeMeterObject = "meter:"
