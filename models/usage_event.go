package models

import (
	"time"

	"github.com/google/uuid"
	"github.com/uptrace/bun"
)

// UsageEvent is one recorded use of units, an entry in the ledger. The fields from PlanID to
// MemberLimit are those of the answer, so that a retry gets the same answer. They never change.
type UsageEvent struct {
	bun.BaseModel `bun:"table:usage_events"`

	ID     uuid.UUID `bun:",pk,type:uuid"`
	UserID uuid.UUID `bun:",type:uuid"`
	// RecordID is the record that counts the event. It changes when Tollgate learns about a billing
	// period late.
	RecordID int64
	// Email is the person's address when the event was recorded.
	Email       string
	WorkspaceID *uuid.UUID `bun:",type:uuid"`
	Quantity    int64
	// OverageQuantity is the part of Quantity that is billed, and OverageCents is its price. Both
	// are decided once.
	OverageQuantity int64
	OverageCents    int64
	IdempotencyKey  *string
	HoldID          *uuid.UUID `bun:",type:uuid"`
	OccurredAt      time.Time
	RecordedAt      time.Time
	Figures         `bun:"embed:"`
	// Message means that the event's answer was the first of its record at the warning level.
	Message          bool
	StripeCustomerID *string
	StripeReportedAt *time.Time
	StripeReportID   *uuid.UUID `bun:",type:uuid"`
	VoidedAt         *time.Time
	VoidReason       *string
}
