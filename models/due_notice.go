package models

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/uptrace/bun"
)

// DueNotice is a notice for a person or for the admins of an organization, such as that a limit or a
// threshold was reached. The transaction that decides writes it, and models/notify delivers it.
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
	// Raises makes it possible to reach a raised limit again: it is how often the person's limits were
	// raised before, or the organization's spend limit in cents.
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

// Limit returns the reason for which one more unit is refused; empty if the kind is not about a limit.
func (k NoticeKind) Limit() Reason {
	switch k {
	case NoticeSpendLimit:
		return SpendLimitReached
	case NoticeMemberLimit:
		return MemberLimitReached
	case NoticeOrganizationSpendLimit:
		return OrganizationSpendLimitReached
	}
	return ""
}

// NoticeState is the state of a notice.
type NoticeState string

// The states of a notice.
const (
	NoticePending NoticeState = "pending"
	// NoticeDelivering means that its deliveries exist.
	NoticeDelivering NoticeState = "delivering"
	NoticeDone       NoticeState = "done"
	// NoticeSuperseded means that a more important notice of the same decision is delivered instead.
	NoticeSuperseded NoticeState = "superseded"
	// NoticeSkipped means that no one is to get it: it expired, or no channel is chosen.
	NoticeSkipped NoticeState = "skipped"
)

// NoticeFacts are the figures in a notice's text, as they were when the notice became due. Used,
// Overage and Included are in units, and prices are in cents. Facts that a kind does not need are
// zero.
type NoticeFacts struct {
	Plan             PlanID    `json:"plan,omitempty"`
	PeriodEnd        time.Time `json:"period_end,omitzero"`
	Used             int64     `json:"used,omitempty"`
	Overage          int64     `json:"overage,omitempty"`
	OverageCents     int64     `json:"overage_cents,omitempty"`
	Included         int64     `json:"included,omitempty"`
	OverageRateCents int64     `json:"overage_rate_cents,omitempty"`
	SpendLimitCents  *int64    `json:"spend_limit_cents,omitempty"`
	MemberLimit      *int64    `json:"member_limit,omitempty"`
	// NextRefusal is PaymentPastDue or OrganizationSpendLimitReached if one more unit would be refused
	// for that reason. The other facts show all other reasons.
	NextRefusal            Reason    `json:"next_refusal,omitempty"`
	OrganizationSpendCents int64     `json:"organization_spend_cents,omitempty"`
	OrganizationLimitCents *int64    `json:"organization_limit_cents,omitempty"`
	TrialEnd               time.Time `json:"trial_end,omitzero"`
	// Members are those of a digest, the highest level first.
	Members []DigestMember `json:"members,omitempty"`
}

// DigestMember is a member of an organization who is near or over a limit.
type DigestMember struct {
	ID uuid.UUID `json:"id"`
	// Name is the member's name, or else their email.
	Name  string       `json:"name"`
	Level WarningLevel `json:"level"`
	// Used contains Overage, the units beyond the included ones.
	Used     int64 `json:"used"`
	Overage  int64 `json:"overage,omitempty"`
	Included int64 `json:"included"`
	// PeriodEnd is the end of the member's billing period.
	PeriodEnd time.Time `json:"period_end"`
}

// Crossed returns the notices of a decision that changed a person's standing, the most important one
// first: only that one is pending, and the others are superseded. It leaves out holds, because a hold
// may be released. raises is the record's LimitRaises.
func Crossed(before, after *Standing, raises int64, now time.Time) []DueNotice {
	if before.crossesNothing(after) {
		return nil
	}
	return crossed(before.WithoutHolds(), after.WithoutHolds(), raises, now)
}

// crossesNothing reports that a change from s to after has no notices. That is true of most
// decisions, and takes less time than crossed. It says nothing about people with limits or holds.
func (s *Standing) crossesNothing(after *Standing) bool {
	plain := func(s *Standing) bool { return s.SpendLimitCents == nil && s.MemberLimit == nil && s.Held == 0 }
	return plain(s) && plain(after) && s.Overage == after.Overage && s.Level() == after.Level()
}

func crossed(before, after Standing, raises int64, now time.Time) []DueNotice {
	var crossed []DueNotice
	add := func(kind NoticeKind, threshold int64) {
		n := DueNotice{
			ID: uuid.Must(uuid.NewV7()), Subject: after.UserID, SubjectKind: SubjectUser, Kind: kind, PeriodStart: after.Period.Start,
			Threshold: threshold, Raises: raises, State: NoticeSuperseded, CreatedAt: now, DueAt: now, ExpiresAt: after.Period.End,
			Facts: factsOf(&after),
		}
		if len(crossed) == 0 {
			n.State = NoticePending
		}
		crossed = append(crossed, n)
	}
	if reason := after.nextRefusal(); reason != before.nextRefusal() {
		switch reason {
		case SpendLimitReached:
			add(NoticeSpendLimit, 0)
		case MemberLimitReached:
			add(NoticeMemberLimit, 0)
		}
	}
	if before.Overage == 0 && after.Overage > 0 {
		add(NoticeFirstOverage, 0)
	}
	for rank := after.Level().rank(); rank > before.Level().rank(); rank-- {
		add(NoticeIncluded, [...]int64{0, warningPercent, criticalPercent, exceededPercent}[rank])
	}
	return crossed
}

// WithoutHolds returns the standing as it would be if the person's holds were released.
func (s Standing) WithoutHolds() Standing {
	s.Organization.Cents = max(0, s.Organization.Cents-s.OverageCentsHeld)
	s.Held, s.OverageHeld, s.OverageCentsHeld = 0, 0, 0
	return s
}

func factsOf(s *Standing) NoticeFacts {
	f := NoticeFacts{
		Plan: s.Plan, PeriodEnd: s.Period.End, Used: s.Used, Overage: s.Overage, OverageCents: s.OverageCents, Included: s.Included,
		OverageRateCents: s.OverageRateCents, SpendLimitCents: s.SpendLimitCents, MemberLimit: s.MemberLimit,
	}
	if next := s.nextRefusal(); next == PaymentPastDue || next == OrganizationSpendLimitReached {
		f.NextRefusal = next
	}
	return f
}

// AddNotices stores notices. A notice that is already stored stays as it is.
func AddNotices(ctx context.Context, db bun.IDB, notices []DueNotice) error {
	if len(notices) == 0 {
		return nil
	}
	if _, err := db.NewInsert().Model(&notices).On("CONFLICT DO NOTHING").Exec(ctx); err != nil {
		return fmt.Errorf("store %d notices: %w", len(notices), err)
	}
	return nil
}

// trialNotice is how long before the end of a trial its notice is due.
const trialNotice = 3 * 24 * time.Hour

// SubscriptionNotices returns the notices about the state of a subscription: its trial ends, or its
// payment is past due.
func SubscriptionNotices(s *Subscription, now time.Time) []DueNotice {
	n := DueNotice{ID: uuid.Must(uuid.NewV7()), SubjectKind: SubjectUser, State: NoticePending, CreatedAt: now, DueAt: now}
	switch {
	case s.UserID != nil:
		n.Subject = *s.UserID
	case s.OrganizationID != nil:
		n.Subject, n.SubjectKind = *s.OrganizationID, SubjectOrganization
	default:
		return nil
	}
	switch {
	case s.Status == StatusTrialing && s.TrialEnd != nil && s.TrialEnd.After(now) && (s.CancelAt == nil || s.CancelAt.After(*s.TrialEnd)):
		n.Kind, n.PeriodStart, n.ExpiresAt = NoticeTrialEnding, s.TrialEnd.UTC(), s.TrialEnd.UTC()
		n.DueAt = latest(now, s.TrialEnd.Add(-trialNotice).UTC())
		n.Facts = NoticeFacts{Plan: s.PlanID, TrialEnd: s.TrialEnd.UTC()}
	case s.Status == StatusPastDue && s.CurrentPeriodStart != nil && s.CurrentPeriodEnd != nil && s.CurrentPeriodEnd.After(now):
		n.Kind, n.PeriodStart, n.ExpiresAt = NoticePaymentPastDue, s.CurrentPeriodStart.UTC(), s.CurrentPeriodEnd.UTC()
		n.Facts = NoticeFacts{Plan: s.PlanID, PeriodEnd: s.CurrentPeriodEnd.UTC()}
		if s.OverageRateCents != nil {
			n.Facts.OverageRateCents = *s.OverageRateCents
		}
	default:
		return nil
	}
	return []DueNotice{n}
}

// NoteOrganizationLimits stores a notice for each organization whose spend limit refuses one more
// unit. A decision cannot do this: it writes its organization's row without reading it, so it does not
// know that it reached the limit.
func NoteOrganizationLimits(ctx context.Context, db *DB, c *Catalogue, now time.Time) error {
	var rows []struct {
		Subscription
		RecordStart, RecordEnd time.Time
		Payer                  string
		OverageCents           int64
		SpendLimitCents        int64
	}
	if err := db.NewRaw(`SELECT s.organization_id, s.plan_id, s.status, s.stripe_subscription_id, s.stripe_customer_id,
			s.overage_rate_cents, o.billing_period_start AS record_start, o.billing_period_end AS record_end, o.payer, o.overage_cents,
			o.spend_limit_cents
		FROM organization_records o JOIN subscriptions s ON s.organization_id = o.organization_id AND s.status IN (?)
		WHERE o.counted AND o.spend_limit_cents IS NOT NULL AND o.billing_period_start <= ? AND o.billing_period_end > ?
			AND NOT EXISTS (SELECT 1 FROM notices n WHERE n.subject = o.organization_id AND n.kind = ?
				AND n.period_start = o.billing_period_start AND n.threshold = 0 AND n.raises = o.spend_limit_cents)`,
		bun.List(activeStatuses), now, now, NoticeOrganizationSpendLimit).Scan(ctx, &rows); err != nil {
		return fmt.Errorf("read what organizations spend: %w", err)
	}
	var reached []DueNotice
	for _, row := range rows {
		customer := ""
		if row.StripeCustomerID != nil {
			customer = *row.StripeCustomerID
		}
		rate := c.PlanOf(row.PlanID).OverageRateCents
		if row.StripeSubscriptionID != nil && row.OverageRateCents != nil {
			rate = *row.OverageRateCents
		}
		if PayerOf(customer, row.OrganizationID) != row.Payer || rate == 0 || row.OverageCents+rate <= row.SpendLimitCents {
			continue
		}
		reached = append(reached, DueNotice{
			ID: uuid.Must(uuid.NewV7()), Subject: *row.OrganizationID, SubjectKind: SubjectOrganization, Kind: NoticeOrganizationSpendLimit,
			PeriodStart: row.RecordStart.UTC(), Raises: row.SpendLimitCents, State: NoticePending, CreatedAt: now, DueAt: now,
			ExpiresAt: row.RecordEnd.UTC(),
			Facts: NoticeFacts{
				Plan: row.PlanID, PeriodEnd: row.RecordEnd.UTC(), OverageRateCents: rate, OrganizationSpendCents: row.OverageCents,
				OrganizationLimitCents: &row.SpendLimitCents,
			},
		})
	}
	return AddNotices(ctx, db, reached)
}
