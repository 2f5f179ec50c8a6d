package models

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/uptrace/bun"
)

// UsageVoid is the void of one event: its units, its overage and their price no longer count. The
// event itself stays. Its key is (UserID, EventID), so an event is voided at most once. The figures
// are those of the answer, so that a retry gets the same answer.
type UsageVoid struct {
	bun.BaseModel `bun:"table:usage_voids"`

	UserID  uuid.UUID `bun:",pk,type:uuid"`
	EventID uuid.UUID `bun:",pk,type:uuid"`
	// Email is the person's address when the event was voided.
	Email string
	// Quantity, OverageQuantity and OverageCents are the event's.
	Quantity        int64
	OverageQuantity int64
	OverageCents    int64
	Reason          string
	// VoidedBy is an email, an API key's name or ActorShell.
	VoidedBy string
	VoidedAt time.Time
	Figures  `bun:"embed:"`

	State VoidState
	// NextAttemptAt is when a void of a reported event is looked at next; nil once it is known what
	// the final invoice has.
	NextAttemptAt *time.Time
	// StripeReportID is the negative report that takes the event back; nil without one. It stays if
	// the report fails or is late, and a credit note replaces it.
	StripeReportID *uuid.UUID `bun:",type:uuid"`
	// OccurredAt is when the event occurred; nil if StripeReportID is nil.
	OccurredAt *time.Time
	// CreditNoteID is Stripe's ID of the credit note; nil unless State is VoidCredited.
	CreditNoteID *string
	// LastError is why the credit note was not made at the last attempt: Stripe's answer, or a reason of
	// Tollgate's own.
	LastError *string
}

// VoidState says what happens at Stripe after a void.
type VoidState string

const (
	// VoidNotReported means that the event is in no report, so Stripe does not know it.
	VoidNotReported VoidState = "not_reported"
	// VoidWaiting means that the event is in a report, and neither a negative report nor a credit
	// note takes it back yet.
	VoidWaiting VoidState = "waiting"
	// VoidReported means that a negative report takes the event back.
	VoidReported VoidState = "reported"
	// VoidCredited means that a final invoice bills the event, and a credit note takes it back.
	VoidCredited VoidState = "credited"
	// VoidNotBilled means that no invoice bills the event, although it is in a report.
	VoidNotBilled VoidState = "not_billed"
)

// NewVoid is a request to void an event.
type NewVoid struct {
	// Actor is who voids it, for the audit log.
	Actor string
	// HoldID names the event of a settled hold. If it is zero, IdempotencyKey names an event of the
	// person with the email or the Slack identity.
	HoldID uuid.UUID
	// UserID, unless it is zero, is the person. Email and Slack are then ignored.
	UserID         uuid.UUID
	Email          string
	Slack          SlackIdentity
	IdempotencyKey string
	Reason         string
	// Reported allows the void of an event that is in a report to Stripe.
	Reported bool
}

// Voided is a void and the person's standing after it in the event's period.
type Voided struct {
	Void     UsageVoid
	Standing Standing
	// Replayed means that an earlier call voided the event.
	Replayed bool
}

// ErrEventReported means that an event is in a report to Stripe, and NewVoid.Reported was false.
var ErrEventReported = errors.New("the event is already in a report to Stripe")

// Void reverses an event: what it counts is subtracted in the event's own period. Decisions that
// were made in the meantime do not change. A second call for the event returns the first answer. It
// returns ErrEventReported, or an Error with CodeUnknownUser, CodeUnknownHold, CodeUnknownEvent or
// CodeInvalidRequest.
//
// It locks the event, as sealing does. If both happen at once, either the void comes first and the
// event goes into no report, or the event is in a report.
func Void(ctx context.Context, db *DB, c *Catalogue, now time.Time, v NewVoid) (voided Voided, err error) {
	if err := checkReason(v.Reason); err != nil {
		return Voided{}, err
	}
	user, err := v.findUser(ctx, db)
	if err != nil {
		return Voided{}, fmt.Errorf("find the person of an event: %w", explainDeleted(ctx, db, err))
	}
	err = db.InTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		voided, err = v.void(ctx, db, tx, c, now, user)
		return err
	})
	if err != nil {
		return Voided{}, fmt.Errorf("void an event: %w", explainDeleted(ctx, db, err))
	}
	return voided, nil
}

// explainDeleted adds to the error for an unknown event or hold that retention may have deleted it.
func explainDeleted(ctx context.Context, db bun.IDB, err error) error {
	var unknown *Error
	if !errors.As(err, &unknown) || unknown.Code != CodeUnknownEvent && unknown.Code != CodeUnknownHold {
		return err
	}
	before, failed := PrunedBefore(ctx, db)
	if failed != nil || before.IsZero() {
		return err
	}
	explained := *unknown
	explained.Detail += " Events from before " + FormatReset(before) + " may already have been deleted. A deleted event cannot be voided."
	return &explained
}

var errUnknownEvent = &Error{
	Code: CodeUnknownEvent, Detail: "No person with this email or Slack identity has an event with this idempotency key.",
}

// findUser returns the person whose event it is. It links no identity to a person.
func (v *NewVoid) findUser(ctx context.Context, db *DB) (uuid.UUID, error) {
	if v.UserID != uuid.Nil {
		return v.UserID, nil
	}
	if v.HoldID != uuid.Nil {
		holds, err := RecordsOfHolds(ctx, db, []uuid.UUID{v.HoldID})
		if err != nil {
			return uuid.Nil, err
		}
		if known, ok := holds[v.HoldID]; ok {
			return known.UserID, nil
		}
		return uuid.Nil, &Error{Code: CodeUnknownHold, Detail: "There is no hold with this ID."}
	}
	if v.Slack != (SlackIdentity{}) {
		known, err := PeopleByIdentity(ctx, db, []SlackIdentity{v.Slack})
		if err != nil {
			return uuid.Nil, err
		}
		if p, ok := known[v.Slack]; ok {
			return p.UserID, nil
		}
		if v.Email == "" {
			return uuid.Nil, &Error{Code: CodeUnknownUser, Detail: "No person has this Slack team and user ID. Send an email as well."}
		}
	}
	var owner []User
	if err := db.NewSelect().Model(&owner).Column("id", "slack_user_id").Where("email = ?", v.Email).Scan(ctx); err != nil {
		return uuid.Nil, err
	}
	// Whoever has another identity than the call's is another person with the same address.
	if len(owner) == 0 || v.Slack != (SlackIdentity{}) && owner[0].SlackUserID != nil {
		return uuid.Nil, errUnknownEvent
	}
	return owner[0].ID, nil
}

func (v *NewVoid) void(ctx context.Context, db *DB, tx bun.Tx, c *Catalogue, now time.Time, user uuid.UUID) (Voided, error) {
	people, err := lockPeople(ctx, tx, now, []RecordKey{{UserID: user, At: now}})
	if err != nil {
		return Voided{}, err
	}
	e, err := v.lockEvent(ctx, tx, user)
	if err != nil {
		return Voided{}, err
	}
	if e.VoidedAt != nil {
		var first UsageVoid
		if err := tx.NewSelect().Model(&first).Where("user_id = ? AND event_id = ?", user, e.ID).Scan(ctx); err != nil {
			return Voided{}, err
		}
		first.VoidedAt = first.VoidedAt.UTC()
		first.BillingPeriodStart, first.BillingPeriodEnd = first.BillingPeriodStart.UTC(), first.BillingPeriodEnd.UTC()
		return Voided{Void: first, Standing: first.Standing(user, first.Email), Replayed: true}, nil
	}
	if e.StripeReportID != nil && !v.Reported {
		return Voided{}, ErrEventReported
	}
	spending, err := startSpending(ctx, db, inTx{tx}, now, people)
	if err != nil {
		return Voided{}, err
	}
	p := people[user]
	r, err := p.subtract(ctx, db, inTx{tx}, now, e)
	if err != nil {
		return Voided{}, err
	}
	if err := spending.finish(ctx, db, inTx{tx}, now, people); err != nil {
		return Voided{}, err
	}
	s, _ := c.Standing(r, now)
	made := UsageVoid{
		UserID: user, EventID: e.ID, Email: p.email, Quantity: e.Quantity, OverageQuantity: e.OverageQuantity, OverageCents: e.OverageCents,
		Reason: v.Reason, VoidedBy: v.Actor, VoidedAt: now, Figures: s.Figures(),
		State: VoidNotReported,
	}
	if e.StripeReportID != nil && e.OverageQuantity > 0 {
		made.State, made.NextAttemptAt = VoidWaiting, &now
	}
	if _, err := tx.NewInsert().Model(&made).Exec(ctx); err != nil {
		return Voided{}, err
	}
	update := tx.NewUpdate().Model(e).Set("voided_at = ?, void_reason = ?", now, v.Reason).Where("user_id = ? AND id = ?", user, e.ID)
	if e.HoldID != nil {
		update = update.Where("hold_id = ?", *e.HoldID)
	} else {
		update = update.Where("idempotency_key = ?", *e.IdempotencyKey)
	}
	if _, err := update.Exec(ctx); err != nil {
		return Voided{}, err
	}
	detail := fmt.Sprintf("%s of %s, with %s of overage: %s", c.Units(e.Quantity), p.email, c.FormatMoney(e.OverageCents), v.Reason)
	if err := Audit(ctx, tx, now, v.Actor, auditVoid, e.ID.String(), detail); err != nil {
		return Voided{}, err
	}
	return Voided{Void: made, Standing: made.Standing(user, p.email)}, nil // the same as a retry gets
}

// lockEvent returns the event, locked.
func (v *NewVoid) lockEvent(ctx context.Context, tx bun.Tx, user uuid.UUID) (*UsageEvent, error) {
	return v.readEvent(ctx, tx, user, ForUpdate)
}

func (v *NewVoid) readEvent(
	ctx context.Context, db bun.IDB, user uuid.UUID, lock func(*bun.SelectQuery) *bun.SelectQuery,
) (*UsageEvent, error) {
	var found []UsageEvent
	q := db.NewSelect().Model(&found).Where("user_id = ?", user)
	unknown := errUnknownEvent
	if v.HoldID != uuid.Nil {
		q = q.Where("hold_id = ?", v.HoldID)
		unknown = &Error{Code: CodeUnknownEvent, Detail: "This hold has no event, because it was not settled."}
	} else {
		q = q.Where("idempotency_key = ?", v.IdempotencyKey)
	}
	if err := lock(q).Scan(ctx); err != nil {
		return nil, err
	}
	if len(found) == 0 {
		return nil, unknown
	}
	return &found[0], nil
}

// EventToVoid returns the event that a request names by UserID, and by HoldID or IdempotencyKey. It
// returns an Error with CodeUnknownEvent.
func EventToVoid(ctx context.Context, db bun.IDB, v NewVoid) (*UsageEvent, error) {
	e, err := v.readEvent(ctx, db, v.UserID, func(q *bun.SelectQuery) *bun.SelectQuery { return q })
	if err != nil {
		return nil, fmt.Errorf("find an event of the user %s: %w", v.UserID, explainDeleted(ctx, db, err))
	}
	return e, nil
}

// VoidsOf returns the voids of a person's events, by the event's ID.
func VoidsOf(ctx context.Context, db bun.IDB, user uuid.UUID, events []uuid.UUID) (map[uuid.UUID]UsageVoid, error) {
	voids := map[uuid.UUID]UsageVoid{}
	if len(events) == 0 {
		return voids, nil
	}
	var found []UsageVoid
	if err := db.NewSelect().Model(&found).Where("user_id = ? AND event_id IN (?)", user, bun.List(events)).Scan(ctx); err != nil {
		return nil, fmt.Errorf("read the voids of the user %s: %w", user, err)
	}
	for _, v := range found {
		voids[v.EventID] = v
	}
	return voids, nil
}

// FailedVoid is a void that waits for its credit note because of an error, with the person's current
// email.
type FailedVoid struct {
	UsageVoid `bun:",extend"`

	CurrentEmail string
}

// FailedVoids returns the voids whose last attempt has an error, oldest first, and at most limit of
// them.
func FailedVoids(ctx context.Context, db bun.IDB, limit int) (failed []FailedVoid, err error) {
	if err := db.NewSelect().TableExpr("usage_voids AS v").ColumnExpr("v.*, COALESCE(u.email, v.email) AS current_email").
		Join("LEFT JOIN users AS u ON u.id = v.user_id").
		Where("v.state = ? AND v.next_attempt_at IS NOT NULL AND v.last_error IS NOT NULL", VoidWaiting).
		Order("v.voided_at").Limit(int64(limit)).Scan(ctx, &failed); err != nil {
		return nil, fmt.Errorf("list the voids without a credit note: %w", err)
	}
	return failed, nil
}

// subtract subtracts an event from the record that counts it, and returns the record.
func (p *person) subtract(ctx context.Context, db *DB, conn inTx, now time.Time, e *UsageEvent) (*UsageRecord, error) {
	i := slices.IndexFunc(p.records, func(r *UsageRecord) bool { return r.ID == e.RecordID })
	if i < 0 {
		return nil, fmt.Errorf("the event %s counts in the record %d, which its person does not have", e.ID, e.RecordID)
	}
	r := p.records[i]
	// What has expired was unused before the event was voided.
	if r.holdsLapsed(now) {
		if err := expireHolds(ctx, db, conn, r, true, now); err != nil {
			return nil, err
		}
	}
	if r.grantsLapsed(now) {
		if err := takeBackGrants(ctx, db, conn, r, now); err != nil {
			return nil, err
		}
	}
	r.SuggestionsUsed -= e.Quantity
	r.OverageUsed -= e.OverageQuantity
	r.OverageCents -= e.OverageCents
	r.Daily = r.Daily.Add(DayOf(r.BillingPeriodStart, e.OccurredAt), -e.Quantity)
	changed := []*UsageRecord{r}
	if moved := min(e.OverageQuantity, r.OverageMovedIn); moved > 0 && !e.BillingPeriodStart.Equal(r.BillingPeriodStart) {
		r.OverageMovedIn -= moved
		for _, from := range p.records {
			if from.BillingPeriodStart.Equal(e.BillingPeriodStart) {
				from.OverageMovedOut = max(0, from.OverageMovedOut-moved)
				changed = append(changed, from)
			}
		}
	}
	for _, r := range changed {
		if _, err := db.NewUpdate().Conn(conn).Model(r).
			Column("suggestions_used", "overage_used", "overage_cents", "daily", "overage_moved_in", "overage_moved_out").
			WherePK().Where("user_id = ?", p.user).Exec(ctx); err != nil {
			return nil, err
		}
	}
	if err := r.raiseVersion(ctx, db, conn, now); err != nil {
		return nil, err
	}
	// Expired holds were subtracted in the database.
	var stored UsageRecord
	if err := db.NewSelect().Conn(conn).Model(&stored).Where("user_id = ? AND id = ?", p.user, r.ID).Scan(ctx); err != nil {
		return nil, err
	}
	return &stored, nil
}
