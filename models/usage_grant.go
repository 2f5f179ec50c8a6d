package models

import (
	"context"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/uptrace/bun"
)

// UsageGrant is extra included units for a person in one billing period. It ends with its usage
// record, or earlier. UsageRecord.Granted is the sum of the grants of a record, without what was
// taken back. Its key is (UserID, ID).
type UsageGrant struct {
	bun.BaseModel `bun:"table:usage_grants"`

	ID       uuid.UUID `bun:",pk,type:uuid"`
	UserID   uuid.UUID `bun:",type:uuid"`
	RecordID int64
	Quantity int64
	Reason   string
	// GrantedBy is an email, an API key's name or ActorShell.
	GrantedBy string
	// ExpiresAt is nil if the grant ends with its record.
	ExpiresAt *time.Time
	CreatedAt time.Time
	// IdempotencyKey is nil if the caller gave none.
	IdempotencyKey *string
	// EndedAt is when the grant expired before the end of its record; nil before. TakenBack is the
	// part of Quantity that was unused when the first call after that came.
	EndedAt   *time.Time
	TakenBack int64
}

// NewGrant is a request for a grant.
type NewGrant struct {
	// Actor is who grants it, for the audit log.
	Actor string
	// UserID is the person. If it is zero, the person is the one with the email, who may be new.
	UserID   uuid.UUID
	Email    string
	Quantity int64
	Reason   string
	// ExpiresAt is nil, or a time up to the end of the current billing period.
	ExpiresAt *time.Time
	// IdempotencyKey is nil, or identifies the grant among the person's grants.
	IdempotencyKey *string
}

// Granted is a grant and the person's standing with it.
type Granted struct {
	Grant    UsageGrant
	Standing Standing
	// Ends is when the grant expires, or when its record ends.
	Ends time.Time
	// Replayed means that an earlier call with the same key made the grant.
	Replayed bool
}

// The limits of a grant.
const (
	MaxGrant       = 1_000_000
	maxReasonChars = 255
)

// Grant adds included units to a person's current record. A second call with the same key and
// quantity changes nothing and returns the grant of the first one. It returns an Error with
// CodeInvalidRequest or CodeIdempotencyKeyReused.
func Grant(ctx context.Context, db *DB, c *Catalogue, now time.Time, g NewGrant) (granted Granted, err error) {
	if err := checkReason(g.Reason); err != nil {
		return Granted{}, err
	}
	if g.Quantity < 1 || g.Quantity > MaxGrant {
		return Granted{}, &Error{Code: CodeInvalidRequest, Path: "quantity", Detail: fmt.Sprintf("must be 1 to %d", MaxGrant)}
	}
	err = db.InTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		granted, err = grant(ctx, db, tx, c, now, g)
		return err
	})
	if err != nil {
		return Granted{}, fmt.Errorf("grant %d units: %w", g.Quantity, err)
	}
	return granted, nil
}

func grant(ctx context.Context, db *DB, tx bun.Tx, c *Catalogue, now time.Time, g NewGrant) (Granted, error) {
	wants := []RecordKey{{UserID: g.UserID, Email: g.Email, At: now}}
	people, err := lockPeople(ctx, tx, now, wants)
	if err != nil {
		return Granted{}, err
	}
	if err := prepareAll(ctx, db, inTx{tx}, c, now, wants, people); err != nil {
		return Granted{}, err
	}
	if len(people) == 0 {
		return Granted{}, &Error{Code: CodeUnknownUser, Detail: "There is no person with this ID."}
	}
	user := people.ids()[0]
	var r UsageRecord
	if err := tx.NewSelect().Model(&r).Where("user_id = ? AND billing_period_start <= ? AND billing_period_end > ?", user, now, now).
		Scan(ctx); err != nil {
		return Granted{}, err
	}
	if g.IdempotencyKey != nil {
		var earlier []UsageGrant
		if err := tx.NewSelect().Model(&earlier).Where("user_id = ? AND idempotency_key = ?", user, *g.IdempotencyKey).Scan(ctx); err != nil {
			return Granted{}, err
		}
		if len(earlier) > 0 {
			if earlier[0].Quantity != g.Quantity {
				return Granted{}, &Error{
					Code:   CodeIdempotencyKeyReused,
					Detail: "This idempotency key was already used for this person with another quantity. Use a new key.",
				}
			}
			var of UsageRecord // of an earlier period, perhaps
			if err := tx.NewSelect().Model(&of).Column("billing_period_end").Where("user_id = ? AND id = ?", user, earlier[0].RecordID).
				Scan(ctx); err != nil {
				return Granted{}, err
			}
			s, _ := c.Standing(&r, now)
			return Granted{Grant: earlier[0], Standing: s, Ends: earlier[0].ends(&of), Replayed: true}, nil
		}
	}
	if g.ExpiresAt != nil && !g.ExpiresAt.After(now) {
		return Granted{}, &Error{Code: CodeInvalidRequest, Path: "expires_at", Detail: "must be in the future"}
	}
	if g.ExpiresAt != nil && g.ExpiresAt.Equal(r.BillingPeriodEnd) {
		g.ExpiresAt = nil
	}
	if g.ExpiresAt != nil && g.ExpiresAt.After(r.BillingPeriodEnd) {
		return Granted{}, &Error{
			Code: CodeInvalidRequest, Path: "expires_at",
			Detail: "must be at most the end of the billing period, " + r.BillingPeriodEnd.UTC().Format(time.RFC3339),
		}
	}
	made := UsageGrant{
		ID: uuid.Must(uuid.NewV7()), UserID: user, RecordID: r.ID, Quantity: g.Quantity, Reason: g.Reason, GrantedBy: g.Actor,
		CreatedAt: now, IdempotencyKey: g.IdempotencyKey,
	}
	detail := FormatCount(g.Quantity) + " units until the period ends: " + g.Reason
	if g.ExpiresAt != nil {
		made.ExpiresAt = new(g.ExpiresAt.UTC().Truncate(time.Microsecond))
		r.GrantsExpireAt = earliestOf(r.GrantsExpireAt, *made.ExpiresAt)
		detail = FormatCount(g.Quantity) + " units until " + made.ExpiresAt.Format(time.RFC3339) + ": " + g.Reason
	}
	r.Granted += g.Quantity
	r.raised()
	if _, err := tx.NewInsert().Model(&made).Exec(ctx); err != nil {
		return Granted{}, err
	}
	if _, err := tx.NewUpdate().Model(&r).Column("granted", "grants_expire_at", "message_level", "limit_raises").
		WherePK().Where("user_id = ?", user).Exec(ctx); err != nil {
		return Granted{}, err
	}
	if err := Audit(ctx, tx, now, g.Actor, auditGrant, user.String(), detail); err != nil {
		return Granted{}, err
	}
	s, _ := c.Standing(&r, now)
	return Granted{Grant: made, Standing: s, Ends: made.ends(&r)}, nil
}

// CurrentGrants returns a person's grants in the billing period at a time, oldest first.
func CurrentGrants(ctx context.Context, db bun.IDB, now time.Time, user uuid.UUID) (grants []UsageGrant, err error) {
	if err := db.NewSelect().Model(&grants).Where("user_id = ?", user).
		Where("record_id IN (SELECT r.id FROM usage_records r WHERE r.user_id = ? AND r.billing_period_start <= ? AND r.billing_period_end > ?)",
			user, now, now).Order("created_at", "id").Scan(ctx); err != nil {
		return nil, fmt.Errorf("list the grants of the user %s: %w", user, err)
	}
	return grants, nil
}

// GrantWithKey returns the grant of a person that has an idempotency key; nil if there is none.
func GrantWithKey(ctx context.Context, db bun.IDB, user uuid.UUID, key string) (*UsageGrant, error) {
	var found []UsageGrant
	if err := db.NewSelect().Model(&found).Where("user_id = ? AND idempotency_key = ?", user, key).Scan(ctx); err != nil {
		return nil, fmt.Errorf("find a grant of the user %s: %w", user, err)
	}
	if len(found) == 0 {
		return nil, nil
	}
	return &found[0], nil
}

// ends returns when a grant of a record ends.
func (g *UsageGrant) ends(r *UsageRecord) time.Time {
	if g.ExpiresAt != nil {
		return g.ExpiresAt.UTC()
	}
	return r.BillingPeriodEnd.UTC()
}

// IsReason reports whether a text can be the reason of a grant or a void: 1 to 255 printable
// characters.
func IsReason(text string) bool {
	n := utf8.RuneCountInString(text)
	return n > 0 && n <= maxReasonChars && utf8.ValidString(text) && !strings.ContainsFunc(text, isNotPrint)
}

func checkReason(reason string) error {
	if !IsReason(reason) {
		return &Error{Code: CodeInvalidRequest, Path: "reason", Detail: "must be 1 to 255 printable characters"}
	}
	return nil
}

func earliestOf(a *time.Time, b time.Time) *time.Time {
	if a != nil && a.Before(b) {
		return a
	}
	return &b
}

// takeBackGrants ends the record's expired grants. Of each, it takes back the units that are still
// unused, but never used ones.
func takeBackGrants(ctx context.Context, db *DB, conn ledgerConn, r *UsageRecord, now time.Time) error {
	var s Standing
	stored := db.NewSelect().Model((*UsageRecord)(nil)).Column("suggestions_used", "overage_used", "units_held", "overage_held").
		Where("user_id = ? AND id = ?", r.UserID, r.ID)
	if err := conn.rows(ctx, stored.String(), func(row scanner) error {
		return row.Scan(&s.Used, &s.Overage, &s.Held, &s.OverageHeld)
	}); err != nil {
		return err
	}
	var grants []UsageGrant
	open := db.NewSelect().Model((*UsageGrant)(nil)).Column("id", "quantity", "expires_at").
		Where("user_id = ? AND record_id = ? AND ended_at IS NULL AND expires_at IS NOT NULL", r.UserID, r.ID).Order("expires_at", "id")
	if err := conn.rows(ctx, open.String(), func(row scanner) error {
		var g UsageGrant
		err := row.Scan(&g.ID, &g.Quantity, &g.ExpiresAt)
		grants = append(grants, g)
		return err
	}); err != nil {
		return err
	}
	r.GrantsExpireAt = nil
	for _, g := range grants {
		if g.ExpiresAt.After(now) {
			r.GrantsExpireAt = new(g.ExpiresAt.UTC())
			break
		}
		s.Included = r.SuggestionsIncluded + r.Granted
		unused := min(g.Quantity, s.Remaining())
		r.Granted -= unused
		if _, err := db.NewUpdate().Conn(conn).Model((*UsageGrant)(nil)).Set("ended_at = ?, taken_back = ?", g.ExpiresAt, unused).
			Where("user_id = ? AND id = ?", r.UserID, g.ID).Exec(ctx); err != nil {
			return err
		}
	}
	if _, err := db.NewUpdate().Conn(conn).Model(r).Column("granted", "grants_expire_at").WherePK().Where("user_id = ?", r.UserID).
		Exec(ctx); err != nil {
		return err
	}
	return r.raiseVersion(ctx, db, conn, now)
}

// EndGrants takes back the units of expired grants that no call took back yet, so that pages show
// the right figures.
func EndGrants(ctx context.Context, db *DB, c *Catalogue, now time.Time) error {
	for after := int64(0); ; {
		var lapsed []UsageRecord
		if err := db.NewSelect().Model(&lapsed).Column("id", "user_id", "billing_period_start").
			Where("grants_expire_at <= ? AND id > ?", now, after).Order("id").Limit(limitStep).Scan(ctx); err != nil {
			return fmt.Errorf("find expired grants: %w", err)
		}
		if len(lapsed) == 0 {
			return nil
		}
		after = lapsed[len(lapsed)-1].ID
		wants := make([]RecordKey, len(lapsed))
		for i, r := range lapsed {
			wants[i] = RecordKey{UserID: r.UserID, At: r.BillingPeriodStart.UTC()}
		}
		if err := PrepareRecords(ctx, db, c, now, wants); err != nil {
			return fmt.Errorf("end %d expired grants: %w", len(lapsed), err)
		}
	}
}

// moveGrants moves the grants that were made outside a record's new bounds.
func (p *person) moveGrants(ctx context.Context, db *DB, conn ledgerConn, c *Catalogue, now time.Time, changed refit,
) (joined []*UsageRecord, err error) {
	from := changed.record
	if !changed.moves || changed.into == nil && from.Granted == 0 && from.GrantsExpireAt == nil {
		return nil, nil
	}
	moved := db.NewSelect().Model((*UsageGrant)(nil)).Column("created_at", "ended_at", "expires_at").ColumnExpr("quantity - taken_back").
		Where("user_id = ? AND record_id = ?", p.user, from.ID)
	if changed.into == nil {
		moved = moved.Where("(created_at >= ? OR created_at < ?)", from.BillingPeriodEnd, from.BillingPeriodStart)
	}
	var grants []movedGrant
	if err := conn.rows(ctx, moved.String(), func(row scanner) error {
		var g movedGrant
		err := row.Scan(&g.made, &g.ended, &g.expires, &g.units)
		grants = append(grants, g)
		return err
	}); err != nil {
		return nil, err
	}
	for _, g := range grants {
		r, err := p.recordAt(c, now, g.made.UTC())
		if err != nil {
			return nil, err
		}
		from.Granted -= g.units
		r.Granted += g.units
		if g.expires != nil && g.ended == nil {
			r.GrantsExpireAt = earliestOf(r.GrantsExpireAt, g.expires.UTC())
		}
		joined = append(joined, r)
	}
	return joined, nil
}

// movedGrant is a grant outside the new bounds of its record.
type movedGrant struct {
	made           time.Time
	ended, expires *time.Time
	units          int64
}
