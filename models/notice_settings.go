package models

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/uptrace/bun"
)

// NoticeSettings are the channels and levels that a person chose.
type NoticeSettings struct {
	bun.BaseModel `bun:"table:notice_settings"`

	UserID uuid.UUID `bun:",pk,type:uuid"`
	Slack  bool
	Mail   bool
	Levels NoticeLevels
}

// NoticeLevels is a set of levels.
type NoticeLevels int64

// The levels that a person can choose. Notices about a trial or a payment have no level: each person
// with a channel gets them.
const (
	// NoticesWarning and NoticesCritical mean the thresholds of the included units.
	NoticesWarning  NoticeLevels = 1 << 0
	NoticesCritical NoticeLevels = 1 << 1
	// NoticesLimit means all included units, the first overage, and limits.
	NoticesLimit NoticeLevels = 1 << 2
	// NoticesDigest means the admins' daily summary.
	NoticesDigest NoticeLevels = 1 << 3

	AllNotices = NoticesWarning | NoticesCritical | NoticesLimit | NoticesDigest
)

// Has reports whether the set has all of the levels.
func (l NoticeLevels) Has(levels NoticeLevels) bool { return l&levels == levels }

// NoticeSettingsOf returns a person's settings. The default is all channels and levels.
func NoticeSettingsOf(ctx context.Context, db bun.IDB, user uuid.UUID) (NoticeSettings, error) {
	var found []NoticeSettings
	if err := db.NewSelect().Model(&found).Where("user_id = ?", user).Scan(ctx); err != nil {
		return NoticeSettings{}, fmt.Errorf("read the notice settings of %s: %w", user, err)
	}
	if len(found) > 0 {
		return found[0], nil
	}
	return NoticeSettings{UserID: user, Slack: true, Mail: true, Levels: AllNotices}, nil
}

// SaveNoticeSettings stores a person's settings.
func SaveNoticeSettings(ctx context.Context, db bun.IDB, s NoticeSettings) error {
	s.Levels &= AllNotices
	_, err := db.NewInsert().Model(&s).On("CONFLICT (user_id) DO UPDATE").
		Set("slack = EXCLUDED.slack, mail = EXCLUDED.mail, levels = EXCLUDED.levels").Exec(ctx)
	if err != nil {
		return fmt.Errorf("save the notice settings of %s: %w", s.UserID, err)
	}
	return nil
}

// StopMail turns mail off for a person. Their other settings do not change.
func StopMail(ctx context.Context, db bun.IDB, user uuid.UUID) error {
	s := NoticeSettings{UserID: user, Slack: true, Mail: false, Levels: AllNotices}
	if _, err := db.NewInsert().Model(&s).On("CONFLICT (user_id) DO UPDATE").Set("mail = EXCLUDED.mail").Exec(ctx); err != nil {
		return fmt.Errorf("turn off mail for %s: %w", user, err)
	}
	return nil
}

// NoticeRecipient is a person who may get notices, with everything that decides it.
type NoticeRecipient struct {
	ID              uuid.UUID
	Email, Name     string
	EmailVerifiedAt *time.Time
	Role            Role
	SlackUserID     *string
	SlackTeamID     *string
	OrganizationID  *uuid.UUID
	Organization    string
	// Slack, Mail and Levels are nil if the person has the default settings.
	Slack, Mail *bool
	Levels      *NoticeLevels
}

// NoticeRecipients returns the people that a notice about a subject is for: the person, or all admins
// of the organization, sorted by email.
func NoticeRecipients(ctx context.Context, db bun.IDB, kind SubjectKind, subject uuid.UUID) ([]NoticeRecipient, error) {
	q := noticeRecipients(db)
	if kind == SubjectOrganization {
		q = q.Where("w.organization_id = ? AND u.role = ?", subject, Admin)
	} else {
		q = q.Where("u.id = ?", subject)
	}
	var found []NoticeRecipient
	if err := q.Scan(ctx, &found); err != nil {
		return nil, fmt.Errorf("find who gets a notice about the %s %s: %w", kind, subject, err)
	}
	return found, nil
}

// NoticeRecipientByID returns one person; nil without one.
func NoticeRecipientByID(ctx context.Context, db bun.IDB, id uuid.UUID) (*NoticeRecipient, error) {
	found, err := NoticeRecipients(ctx, db, SubjectUser, id)
	if err != nil || len(found) == 0 {
		return nil, err
	}
	return &found[0], nil
}

func noticeRecipients(db bun.IDB) *bun.SelectQuery {
	return db.NewSelect().TableExpr("users AS u").
		Join("LEFT JOIN workspaces AS w ON w.id = u.workspace_id").
		Join("LEFT JOIN organizations AS o ON o.id = w.organization_id").
		Join("LEFT JOIN notice_settings AS s ON s.user_id = u.id").
		ColumnExpr("u.id, u.email, u.name, u.email_verified_at, u.role, u.slack_user_id, w.slack_team_id, w.organization_id").
		ColumnExpr("COALESCE(o.name, '') AS organization, s.slack, s.mail, s.levels").OrderExpr("u.email")
}

// Why a person does not get a notice, for operators.
const (
	notInSlack       = "the person has no Slack account in the team of the bot token"
	slackTurnedOff   = "the person turned off Slack messages"
	mailTurnedOff    = "the person turned off mail"
	noAddress        = "the person has no address of their own"
	mailUnverified   = "the person's address is not verified"
	levelNotSelected = "the person did not select this level"
	notAnAdmin       = "the person is not an admin of the organization anymore"
	inNoOrganization = "the person is in no organization anymore"
)

// HasAddress reports whether the person's label is an address. If their address belongs to another
// person, it is a placeholder.
func (r *NoticeRecipient) HasAddress() bool { return !isPlaceholder(r.Email) }

// Refuses says why the person does not get a notice through a channel; empty if they do. team is the
// Slack team of the bot token; empty if it is not known yet.
func (r *NoticeRecipient) Refuses(n *DueNotice, channel NoticeChannel, team string) string {
	levels := AllNotices
	if r.Levels != nil {
		levels = *r.Levels
	}
	switch {
	case n.SubjectKind == SubjectOrganization && (r.Role != Admin || r.OrganizationID == nil || *r.OrganizationID != n.Subject):
		return notAnAdmin
	case n.SubjectKind == SubjectUser && n.Kind == NoticeMemberLimit && r.OrganizationID == nil:
		return inNoOrganization
	case !levels.Has(n.level()):
		return levelNotSelected
	case channel == ChannelSlack && (r.SlackUserID == nil || r.SlackTeamID == nil || team != "" && *r.SlackTeamID != team):
		return notInSlack
	case channel == ChannelSlack && r.Slack != nil && !*r.Slack:
		return slackTurnedOff
	case channel == ChannelMail && !r.HasAddress():
		return noAddress
	case channel == ChannelMail && r.EmailVerifiedAt == nil:
		return mailUnverified
	case channel == ChannelMail && r.Mail != nil && !*r.Mail:
		return mailTurnedOff
	}
	return ""
}

// level returns the level of a notice; 0 if it has none.
func (n *DueNotice) level() NoticeLevels {
	switch n.Kind {
	case NoticeIncluded:
		switch {
		case n.Threshold < 95:
			return NoticesWarning
		case n.Threshold < 100:
			return NoticesCritical
		}
		return NoticesLimit
	case NoticeFirstOverage, NoticeSpendLimit, NoticeMemberLimit, NoticeOrganizationSpendLimit:
		return NoticesLimit
	case NoticeDigest:
		return NoticesDigest
	}
	return 0
}

// StillTrue reports whether what a notice says about a subscription is still true. Notices about usage
// stay true.
func (n *DueNotice) StillTrue(ctx context.Context, db bun.IDB) (bool, error) {
	q := db.NewSelect().Model((*Subscription)(nil))
	if n.SubjectKind == SubjectOrganization {
		q = q.Where("organization_id = ?", n.Subject)
	} else {
		q = q.Where("user_id = ?", n.Subject)
	}
	switch n.Kind {
	case NoticeTrialEnding:
		q = q.Where("status = ? AND trial_end = ? AND cancel_at IS NULL", StatusTrialing, n.Facts.TrialEnd)
	case NoticePaymentPastDue:
		q = q.Where("status = ?", StatusPastDue)
	default:
		return true, nil
	}
	found, err := q.Exists(ctx)
	if err != nil {
		return false, fmt.Errorf("check a notice about a subscription: %w", err)
	}
	return found, nil
}
