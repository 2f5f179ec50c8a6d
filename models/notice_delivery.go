package models

import (
	"context"
	"crypto/sha256"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/uptrace/bun"
)

// NoticeDelivery is one notice for one recipient through one channel.
type NoticeDelivery struct {
	bun.BaseModel `bun:"table:notice_deliveries"`

	// ID is also the webhook-id of a webhook's requests.
	ID       uuid.UUID `bun:",pk,type:uuid"`
	NoticeID uuid.UUID `bun:",type:uuid"`
	Channel  NoticeChannel
	// Recipient is the ID of a person or, for a webhook, of an endpoint.
	Recipient uuid.UUID `bun:",type:uuid"`
	State     DeliveryState
	// Attempts counts the attempts, including a current one.
	Attempts      int64
	NextAttemptAt *time.Time
	// While a process attempts the delivery, LeaseToken identifies that attempt until LeasedUntil.
	LeaseToken  *uuid.UUID `bun:",type:uuid"`
	LeasedUntil *time.Time
	// UnsubscribeHash is the SHA-256 of the token in the mail's unsubscribe link.
	UnsubscribeHash []byte
	// Payload is the body of a webhook's requests. All attempts send the same one.
	Payload *string
	// LastError says why the delivery is not sent. It is for operators.
	LastError string
	SentAt    *time.Time
	CreatedAt time.Time
}

// NoticeChannel is a way to deliver notices.
type NoticeChannel string

// The channels.
const (
	ChannelSlack   NoticeChannel = "slack"
	ChannelMail    NoticeChannel = "mail"
	ChannelWebhook NoticeChannel = "webhook"
)

// DeliveryState is the state of a delivery.
type DeliveryState string

// The states of a delivery.
const (
	// DeliveryPending means that an attempt is due at NextAttemptAt.
	DeliveryPending DeliveryState = "pending"
	// DeliverySending means that a process attempts it. A Slack message or a mail whose process ended
	// becomes DeliveryUnknown, and a webhook DeliveryPending.
	DeliverySending DeliveryState = "sending"
	DeliverySent    DeliveryState = "sent"
	// DeliveryFailed means that it was refused permanently, or too often.
	DeliveryFailed DeliveryState = "failed"
	// DeliveryUnknown means that the recipient may have it or not. It is not attempted again.
	DeliveryUnknown DeliveryState = "unknown"
	// DeliverySkipped means that the recipient is not to get it anymore.
	DeliverySkipped DeliveryState = "skipped"
)

// NoticeChannels are all channels.
var NoticeChannels = []NoticeChannel{ChannelSlack, ChannelMail, ChannelWebhook}

// NoticeAttempt is one attempt of a delivery.
type NoticeAttempt struct {
	bun.BaseModel `bun:"table:notice_attempts"`

	DeliveryID uuid.UUID `bun:",pk,type:uuid"`
	// Number counts from 1.
	Number  int64 `bun:",pk"`
	At      time.Time
	Outcome AttemptOutcome
	Detail  string
}

// AttemptOutcome is the outcome of an attempt.
type AttemptOutcome string

// The outcomes of an attempt.
const (
	AttemptSending AttemptOutcome = "sending"
	AttemptSent    AttemptOutcome = "sent"
	// AttemptNotSent means that it is certain that nothing was sent. The delivery is attempted again.
	AttemptNotSent AttemptOutcome = "not_sent"
	AttemptFailed  AttemptOutcome = "failed"
	AttemptUnknown AttemptOutcome = "unknown"
)

// NoticeProblem is a delivery that failed or whose outcome is unknown, with what an operator needs to
// know about it.
type NoticeProblem struct {
	NoticeDelivery
	Kind NoticeKind
	// To is the person's email or the endpoint's URL; empty if there is none anymore.
	To string
	// UserID is the person; the zero ID for a webhook.
	UserID uuid.UUID
	// Tries are its attempts, oldest first.
	Tries []NoticeAttempt
}

// NoticeProblems returns the newest deliveries that failed or whose outcome is unknown, newest first.
func NoticeProblems(ctx context.Context, db bun.IDB, limit int) ([]NoticeProblem, error) {
	var rows []struct {
		NoticeDelivery
		Kind  NoticeKind
		Email string
		URL   string
	}
	err := db.NewSelect().TableExpr("notice_deliveries AS d").
		Join("LEFT JOIN notices AS n ON n.id = d.notice_id").
		Join("LEFT JOIN users AS u ON d.channel <> 'webhook' AND u.id = d.recipient").
		Join("LEFT JOIN webhook_endpoints AS e ON d.channel = 'webhook' AND e.id = d.recipient").
		ColumnExpr("d.id, d.channel, d.recipient, d.state, d.attempts, d.last_error, d.created_at").
		ColumnExpr("COALESCE(n.kind, '') AS kind, COALESCE(u.email, '') AS email, COALESCE(e.url, '') AS url").
		Where("d.state IN ('failed', 'unknown')").OrderExpr("d.created_at DESC, d.id DESC").Limit(int64(limit)).Scan(ctx, &rows)
	if err != nil {
		return nil, fmt.Errorf("list the notices that were not delivered: %w", err)
	}
	if len(rows) == 0 {
		return nil, nil
	}
	problems, ids := make([]NoticeProblem, len(rows)), make([]uuid.UUID, len(rows))
	at := make(map[uuid.UUID]int, len(rows))
	for i, r := range rows {
		problems[i] = NoticeProblem{NoticeDelivery: r.NoticeDelivery, Kind: r.Kind, To: r.Email}
		problems[i].CreatedAt = r.CreatedAt.UTC()
		if r.Channel == ChannelWebhook {
			problems[i].To = r.URL
		} else {
			problems[i].UserID = r.Recipient
		}
		ids[i], at[r.ID] = r.ID, i
	}
	var tries []NoticeAttempt
	if err := db.NewSelect().Model(&tries).Where("delivery_id IN (?)", bun.List(ids)).Order("delivery_id", "number").Scan(ctx); err != nil {
		return nil, fmt.Errorf("list the attempts of notices: %w", err)
	}
	for _, try := range tries {
		try.At = try.At.UTC()
		p := &problems[at[try.DeliveryID]]
		p.Tries = append(p.Tries, try)
	}
	return problems, nil
}

// HashUnsubscribe returns what is stored of an unsubscribe link's token.
func HashUnsubscribe(token string) []byte {
	hash := sha256.Sum256([]byte(token))
	return hash[:]
}

// Unsubscribed returns the person whose mail has an unsubscribe link with the token. It returns an
// Error with CodeUnknownLink if there is none.
func Unsubscribed(ctx context.Context, db bun.IDB, token string) (uuid.UUID, error) {
	var people []uuid.UUID
	err := db.NewSelect().Model((*NoticeDelivery)(nil)).Column("recipient").
		Where("unsubscribe_hash = ? AND channel = ?", HashUnsubscribe(token), ChannelMail).Scan(ctx, &people)
	if err != nil {
		return uuid.Nil, fmt.Errorf("find the person of an unsubscribe link: %w", err)
	}
	if len(people) == 0 {
		return uuid.Nil, &Error{Code: CodeUnknownLink, Detail: "This unsubscribe link is not complete, or is from an old message. " +
			"Sign in and change your notices in Settings."}
	}
	return people[0], nil
}
