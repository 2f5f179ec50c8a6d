package models

import (
	"encoding/json"

	"github.com/google/uuid"
	"github.com/uptrace/bun"
)

// The rows of an export. A column that is not here is a secret, or of no use outside this database,
// such as a lease.

type exportHead struct {
	ExportedAt   exportTime          `json:"exported_at"`
	Currency     string              `json:"currency"`
	Person       exportPerson        `json:"person"`
	Organization *exportOrganization `json:"organization"`
}

type exportPerson struct {
	ID              uuid.UUID  `json:"id"`
	Email           string     `json:"email"`
	Name            string     `json:"name"`
	Role            Role       `json:"role"`
	Operator        bool       `json:"operator"`
	SpendLimitCents *int64     `json:"spend_limit_cents"`
	MemberLimit     *int64     `json:"member_limit"`
	WorkspaceID     *uuid.UUID `json:"workspace_id"`
	SlackUserID     *string    `json:"slack_user_id"`
	CreatedAt       exportTime `json:"created_at"`
	ErasedAt        exportTime `json:"erased_at"`
}

type exportOrganization struct {
	ID   uuid.UUID `json:"id"`
	Name string    `json:"name"`
}

type exportWorkspace struct {
	bun.BaseModel `bun:"table:workspaces" json:"-"`
	ID            uuid.UUID `bun:",pk,type:uuid" json:"id"`
	SlackTeamID   string    `json:"slack_team_id"`
	Name          string    `json:"name"`
}

type exportMembership struct {
	bun.BaseModel  `bun:"table:memberships" json:"-"`
	OrganizationID uuid.UUID  `bun:",type:uuid" json:"organization_id"`
	Since          exportTime `json:"since"`
}

type exportIdentity struct {
	bun.BaseModel `bun:"table:issuer_identities" json:"-"`
	Issuer        string     `json:"issuer"`
	Subject       string     `json:"subject"`
	CreatedAt     exportTime `json:"created_at"`
}

type exportCustomer struct {
	bun.BaseModel `bun:"table:stripe_customers" json:"-"`
	ID            string     `json:"id"`
	Deleted       bool       `json:"deleted"`
	CreatedAt     exportTime `json:"created_at"`
}

type exportSubscription struct {
	bun.BaseModel        `bun:"table:subscriptions" json:"-"`
	ID                   uuid.UUID  `bun:",type:uuid" json:"id"`
	Plan                 PlanID     `bun:"plan_id" json:"plan"`
	Status               string     `json:"status"`
	StripeSubscriptionID *string    `json:"stripe_subscription_id"`
	StripeCustomerID     *string    `json:"stripe_customer_id"`
	CurrentPeriodStart   exportTime `json:"current_period_start"`
	CurrentPeriodEnd     exportTime `json:"current_period_end"`
	TrialEnd             exportTime `json:"trial_end"`
	CancelAt             exportTime `json:"cancel_at"`
	OverageRateCents     *int64     `json:"overage_rate_cents"`
	CreatedAt            exportTime `json:"created_at"`
	UpdatedAt            exportTime `json:"updated_at"`
	InactiveSince        exportTime `json:"inactive_since"`
}

type exportPeriod struct {
	Start exportTime `json:"start"`
	End   exportTime `json:"end"`
}

type exportRecord struct {
	bun.BaseModel    `bun:"table:usage_records" json:"-"`
	ID               int64        `json:"id"`
	Email            string       `json:"email"`
	Period           exportPeriod `bun:"embed:billing_period_" json:"period"`
	Plan             PlanID       `bun:"plan_id" json:"plan"`
	Used             int64        `bun:"suggestions_used" json:"used"`
	Held             int64        `bun:"units_held" json:"held"`
	Included         int64        `bun:"suggestions_included" json:"included"`
	Granted          int64        `json:"granted"`
	Overage          int64        `bun:"overage_used" json:"overage"`
	OverageCents     int64        `json:"overage_cents"`
	OverageRateCents int64        `json:"overage_rate_cents"`
	SpendLimitCents  *int64       `json:"spend_limit_cents"`
	MemberLimit      *int64       `json:"member_limit"`
	Daily            string       `json:"daily"`
	WorkspaceID      *uuid.UUID   `bun:",type:uuid" json:"workspace_id"`
	SlackTeamID      *string      `json:"slack_team_id"`
	SlackUserID      *string      `json:"slack_user_id"`
	StripeCustomerID *string      `json:"stripe_customer_id"`
	CreatedAt        exportTime   `json:"created_at"`
}

type exportEvent struct {
	bun.BaseModel    `bun:"table:usage_events" json:"-"`
	ID               uuid.UUID    `bun:",type:uuid" json:"id"`
	RecordID         int64        `json:"record_id"`
	Email            string       `json:"email"`
	WorkspaceID      *uuid.UUID   `bun:",type:uuid" json:"workspace_id"`
	OccurredAt       exportTime   `json:"occurred_at"`
	RecordedAt       exportTime   `json:"recorded_at"`
	Quantity         int64        `json:"quantity"`
	Overage          int64        `bun:"overage_quantity" json:"overage"`
	OverageCents     int64        `json:"overage_cents"`
	OverageRateCents int64        `json:"overage_rate_cents"`
	IdempotencyKey   *string      `json:"idempotency_key"`
	HoldID           *uuid.UUID   `bun:",type:uuid" json:"hold_id"`
	Plan             PlanID       `bun:"plan_id" json:"plan"`
	Period           exportPeriod `bun:"embed:billing_period_" json:"period"`
	UsedAfter        int64        `json:"used_after"`
	Included         int64        `json:"included"`
	SpendLimitCents  *int64       `json:"spend_limit_cents"`
	MemberLimit      *int64       `json:"member_limit"`
	StripeCustomerID *string      `json:"stripe_customer_id"`
	StripeReportID   *uuid.UUID   `bun:",type:uuid" json:"stripe_report_id"`
	StripeReportedAt exportTime   `json:"stripe_reported_at"`
	VoidedAt         exportTime   `json:"voided_at"`
	VoidReason       *string      `json:"void_reason"`
}

type exportPruned struct {
	bun.BaseModel `bun:"table:usage_pruned" json:"-"`
	RecordID      int64 `json:"record_id"`
	Events        int64 `json:"events"`
	Units         int64 `json:"units"`
	Overage       int64 `json:"overage"`
	OverageCents  int64 `bun:"cents" json:"overage_cents"`
}

type exportHold struct {
	bun.BaseModel  `bun:"table:usage_holds" json:"-"`
	ID             uuid.UUID    `bun:",type:uuid" json:"id"`
	RecordID       int64        `json:"record_id"`
	Email          string       `json:"email"`
	Quantity       int64        `json:"quantity"`
	Overage        int64        `bun:"overage_quantity" json:"overage"`
	OverageCents   int64        `json:"overage_cents"`
	IdempotencyKey string       `json:"idempotency_key"`
	State          string       `json:"state"`
	Plan           PlanID       `bun:"plan_id" json:"plan"`
	Period         exportPeriod `bun:"embed:billing_period_" json:"period"`
	CreatedAt      exportTime   `json:"created_at"`
	ExpiresAt      exportTime   `json:"expires_at"`
}

type exportGrant struct {
	bun.BaseModel  `bun:"table:usage_grants" json:"-"`
	ID             uuid.UUID  `bun:",type:uuid" json:"id"`
	RecordID       int64      `json:"record_id"`
	Quantity       int64      `json:"quantity"`
	Reason         string     `json:"reason"`
	GrantedBy      string     `json:"granted_by"`
	IdempotencyKey *string    `json:"idempotency_key"`
	CreatedAt      exportTime `json:"created_at"`
	ExpiresAt      exportTime `json:"expires_at"`
	EndedAt        exportTime `json:"ended_at"`
	TakenBack      int64      `json:"taken_back"`
}

type exportVoid struct {
	bun.BaseModel `bun:"table:usage_voids" json:"-"`
	EventID       uuid.UUID    `bun:",type:uuid" json:"event_id"`
	Email         string       `json:"email"`
	Quantity      int64        `json:"quantity"`
	Overage       int64        `bun:"overage_quantity" json:"overage"`
	OverageCents  int64        `json:"overage_cents"`
	Reason        string       `json:"reason"`
	VoidedBy      string       `json:"voided_by"`
	VoidedAt      exportTime   `json:"voided_at"`
	Plan          PlanID       `bun:"plan_id" json:"plan"`
	Period        exportPeriod `bun:"embed:billing_period_" json:"period"`
	State         string       `json:"state"`
	CreditNoteID  *string      `json:"credit_note_id"`
}

type exportRefusal struct {
	bun.BaseModel `bun:"table:usage_refusals" json:"-"`
	PeriodStart   exportTime `bun:"billing_period_start" json:"period_start"`
	Reason        string     `json:"reason"`
	Count         int64      `json:"count"`
	LastAt        exportTime `json:"last_at"`
}

type exportNotice struct {
	bun.BaseModel `bun:"table:notices" json:"-"`
	ID            uuid.UUID       `bun:",type:uuid" json:"id"`
	Kind          string          `json:"kind"`
	PeriodStart   exportTime      `json:"period_start"`
	Threshold     int64           `json:"threshold"`
	Facts         json.RawMessage `bun:"type:text" json:"facts"`
	State         string          `json:"state"`
	CreatedAt     exportTime      `json:"created_at"`
	DueAt         exportTime      `json:"due_at"`
	ExpiresAt     exportTime      `json:"expires_at"`
}

type exportDelivery struct {
	bun.BaseModel `bun:"table:notice_deliveries" json:"-"`
	ID            uuid.UUID  `bun:",type:uuid" json:"id"`
	NoticeID      uuid.UUID  `bun:",type:uuid" json:"notice_id"`
	Channel       string     `json:"channel"`
	State         string     `json:"state"`
	Attempts      int64      `json:"attempts"`
	LastError     string     `json:"last_error"`
	Payload       *string    `json:"payload"`
	CreatedAt     exportTime `json:"created_at"`
	SentAt        exportTime `json:"sent_at"`
}

type exportAttempt struct {
	bun.BaseModel `bun:"table:notice_attempts" json:"-"`
	DeliveryID    uuid.UUID  `bun:",type:uuid" json:"delivery_id"`
	Number        int64      `json:"number"`
	At            exportTime `json:"at"`
	Outcome       string     `json:"outcome"`
	Detail        string     `json:"detail"`
}

type exportSettings struct {
	bun.BaseModel `bun:"table:notice_settings" json:"-"`
	Slack         bool  `json:"slack"`
	Mail          bool  `json:"mail"`
	Levels        int64 `json:"levels"`
}

type exportSession struct {
	bun.BaseModel `bun:"table:sessions" json:"-"`
	CreatedAt     exportTime `json:"created_at"`
	LastSeenAt    exportTime `json:"last_seen_at"`
	ExpiresAt     exportTime `json:"expires_at"`
}

type exportLink struct {
	bun.BaseModel `bun:"table:sign_in_links" json:"-"`
	CreatedAt     exportTime `json:"created_at"`
	ExpiresAt     exportTime `json:"expires_at"`
}

type exportAudit struct {
	bun.BaseModel `bun:"table:audit_log" json:"-"`
	ID            uuid.UUID  `bun:",type:uuid" json:"id"`
	At            exportTime `json:"at"`
	Actor         string     `json:"actor"`
	Action        string     `json:"action"`
	Subject       string     `json:"subject"`
	Detail        string     `json:"detail"`
}
