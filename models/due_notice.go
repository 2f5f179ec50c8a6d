package models

import (
	"time"

	"github.com/google/uuid"
	"github.com/uptrace/bun"
)

// DueNotice is what a person or the admins of an organization are to be notified of, because a limit
// or a threshold was reached. The transaction that decides writes it, and models/notify delivers it.
type DueNotice struct {
	bun.BaseModel `bun:"table:notices"`

	ID uuid.UUID `bun:",pk,type:uuid"`
	// Subject is the ID of the person or the organization.
	Subject     uuid.UUID `bun:",type:uuid"`
	SubjectKind SubjectKind
	Kind        NoticeKind
	// PeriodStart is the start of the billing period; of a digest, its day.
	PeriodStart time.Time
	// Threshold is a percentage of the included units for NoticeIncluded; otherwise 0.
	Threshold int64
	// Raises is how often the limit was raised before, so that a raised limit can be reached again.
	Raises int64
	Facts  NoticeFacts `bun:"type:text"`
	State  NoticeState
	// It is delivered from DueAt on, but not after ExpiresAt.
	CreatedAt, DueAt, ExpiresAt time.Time
}

// SubjectKind says whom a notice is about.
type SubjectKind string

// The kinds of subjects.
const (
	SubjectUser         SubjectKind = "user"
	SubjectOrganization SubjectKind = "organization"
)

// NoticeKind says what was reached.
type NoticeKind string

// The kinds of notices.
const (
	// NoticeIncluded means that a share of the included units is used: Threshold percent.
	NoticeIncluded     NoticeKind = "included"
	NoticeFirstOverage NoticeKind = "first_overage"
	// The following three mean that a limit refuses one more unit.
	NoticeSpendLimit             NoticeKind = "spend_limit"
	NoticeMemberLimit            NoticeKind = "member_limit"
	NoticeOrganizationSpendLimit NoticeKind = "organization_spend_limit"
	// NoticeTrialEnding is due three days before a trial ends.
	NoticeTrialEnding    NoticeKind = "trial_ending"
	NoticePaymentPastDue NoticeKind = "payment_past_due"
	// NoticeDigest lists the members of an organization that are near or over a limit.
	NoticeDigest NoticeKind = "digest"
)

// NoticeState is the state of a notice.
type NoticeState string

// The states of a notice.
const (
	NoticePending NoticeState = "pending"
	// NoticeDelivering means that its deliveries exist.
	NoticeDelivering NoticeState = "delivering"
	NoticeDone       NoticeState = "done"
	// NoticeSuperseded means that a higher one of the same decision is delivered instead.
	NoticeSuperseded NoticeState = "superseded"
	// NoticeSkipped means that no one is to get it: it expired, or no channel is chosen.
	NoticeSkipped NoticeState = "skipped"
)

// NoticeFacts are the figures of a notice's text, when it became due. Units are in Used, Overage and
// Included, and prices in cents. Facts that a kind does not need are zero.
type NoticeFacts struct {
	Plan                   PlanID    `json:"plan,omitempty"`
	PeriodEnd              time.Time `json:"period_end,omitzero"`
	Used                   int64     `json:"used,omitempty"`
	Overage                int64     `json:"overage,omitempty"`
	OverageCents           int64     `json:"overage_cents,omitempty"`
	Included               int64     `json:"included,omitempty"`
	OverageRateCents       int64     `json:"overage_rate_cents,omitempty"`
	SpendLimitCents        *int64    `json:"spend_limit_cents,omitempty"`
	MemberLimit            *int64    `json:"member_limit,omitempty"`
	OrganizationSpendCents int64     `json:"organization_spend_cents,omitempty"`
	OrganizationLimitCents *int64    `json:"organization_limit_cents,omitempty"`
	TrialEnd               time.Time `json:"trial_end,omitzero"`
}
