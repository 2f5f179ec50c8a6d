package models

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect"
)

// expireHolds marks the record's expired holds and sums up its open holds again. If read is true,
// it reads them into r, because an organization's record counts them.
func expireHolds(ctx context.Context, db *DB, conn ledgerConn, r *UsageRecord, read bool, now time.Time) error {
	if _, err := db.NewUpdate().Conn(conn).Model((*UsageHold)(nil)).Set("state = ?", HoldExpired).
		Where("user_id = ? AND record_id = ? AND state = ? AND expires_at <= ?", r.UserID, r.ID, HoldOpen, now).Exec(ctx); err != nil {
		return err
	}
	q := db.NewUpdate().Conn(conn).Model((*UsageRecord)(nil)).Where("user_id = ? AND id = ?", r.UserID, r.ID)
	for _, column := range [][2]string{
		{"units_held", "COALESCE(SUM(h.quantity), 0)"}, {"overage_held", "COALESCE(SUM(h.overage_quantity), 0)"},
		{"overage_cents_held", "COALESCE(SUM(h.overage_cents), 0)"}, {"holds_expire_at", "MIN(h.expires_at)"},
	} {
		q = q.Set(column[0]+" = (SELECT "+column[1]+" FROM usage_holds h WHERE h.user_id = ? AND h.record_id = ? AND h.state = ?)",
			r.UserID, r.ID, HoldOpen)
	}
	if _, err := q.Exec(ctx); err != nil || !read {
		return err
	}
	left := db.NewSelect().Model((*UsageRecord)(nil)).Column("units_held", "overage_held", "overage_cents_held", "holds_expire_at").
		Where("user_id = ? AND id = ?", r.UserID, r.ID)
	return conn.rows(ctx, left.String(), func(row scanner) error {
		return row.Scan(&r.UnitsHeld, &r.OverageHeld, &r.OverageCentsHeld, &r.HoldsExpireAt)
	})
}

// RecordsOfHolds returns the usage record of each hold. The result has no entry for a hold that
// does not exist.
func RecordsOfHolds(ctx context.Context, db bun.IDB, ids []uuid.UUID) (map[uuid.UUID]RecordKey, error) {
	wants := make(map[uuid.UUID]RecordKey, len(ids))
	add := func(row scanner) error {
		var id uuid.UUID
		var w RecordKey
		err := row.Scan(&id, &w.UserID, &w.Email, &w.At)
		w.At = w.At.UTC()
		wants[id] = w
		return err
	}
	// The bounds of the record may have changed since the hold was made.
	const columns = `SELECT h.id, h.user_id, u.email, r.billing_period_start FROM users u JOIN usage_holds h ON h.user_id = u.id
		JOIN usage_records r ON r.user_id = h.user_id AND r.id = h.record_id WHERE `
	tail, version7 := "substr(u.id, 20)", "substr(h.id, 15, 1) = '7'"
	if db.Dialect().Name() == dialect.PG {
		tail, version7 = `substr(u.id::text, 20) COLLATE "C"`, "substr(h.id::text, 15, 1) = '7'"
	}
	var tails []string
	var old []uuid.UUID
	for _, id := range ids {
		if id.Version() == 7 {
			old = append(old, id)
		} else {
			tails = append(tails, id.String()[19:])
		}
	}
	if len(tails) > 0 {
		query := db.NewRaw(columns+tail+" IN (?) AND h.id IN (?)", bun.List(tails), bun.List(ids))
		if err := eachRow(ctx, db, query, add); err != nil {
			return nil, fmt.Errorf("find the records of %d holds: %w", len(ids), err)
		}
	}
	if len(old) > 0 { // of earlier releases: their IDs do not name their users
		query := db.NewRaw(columns+version7+" AND h.id IN (?)", bun.List(old))
		if err := eachRow(ctx, db, query, add); err != nil {
			return nil, fmt.Errorf("find the records of %d holds: %w", len(ids), err)
		}
	}
	return wants, nil
}

// HoldState is the state of a hold.
type HoldState string

// The states of a hold. A hold past its expiry counts as expired even if its row does not say so
// yet.
const (
	HoldOpen     HoldState = "open"
	HoldSettled  HoldState = "settled"
	HoldReleased HoldState = "released"
	HoldExpired  HoldState = "expired"
)

// UsageHold is units set aside while work runs, with the figures of the answer to the call that
// made it. Its key is (UserID, ID). The end of its ID is the end of UserID (see NewHoldID).
type UsageHold struct {
	bun.BaseModel `bun:"table:usage_holds"`

	ID       uuid.UUID `bun:",pk,type:uuid"`
	UserID   uuid.UUID `bun:",type:uuid"`
	RecordID int64
	// Email is the person's address when the hold was made.
	Email    string
	Quantity int64
	// OverageQuantity is the part of Quantity beyond the included units, and OverageCents is its
	// price.
	OverageQuantity int64
	OverageCents    int64
	IdempotencyKey  string
	State           HoldState
	ExpiresAt       time.Time
	CreatedAt       time.Time
	Figures         `bun:"embed:"`
	// Message means that the hold's answer was the first of its record at the warning level.
	Message bool
}

// NewHoldID returns the ID of a new hold of a user: a UUID of version 8 with the time and a counter
// like version 7, followed by the last 62 bits of the user's ID. A call that gives only the hold's
// ID thereby names the user too. Source: RFC 9562, 5.8.
func NewHoldID(user uuid.UUID) uuid.UUID {
	id := uuid.Must(uuid.NewV7())
	id[6] = id[6]&0x0f | 0x80
	copy(id[8:], user[8:])
	return id
}

// HoldsOutlivePeriod is how long after the end of its billing period a hold can still be settled.
const HoldsOutlivePeriod = 30 * time.Minute
