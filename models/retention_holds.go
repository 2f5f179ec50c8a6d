package models

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/uptrace/bun"
)

// holdsOf is a person with holds.
type holdsOf struct {
	UserID uuid.UUID `bun:",type:uuid"`
	// Oldest is when the oldest of them was made.
	Oldest time.Time
}

// peopleAtOnce is the number of people that one query looks for.
const peopleAtOnce = 200

// holds deletes old holds that ended without an event. Settled holds go with their events.
func (p *retentionPass) holds(ctx context.Context) error {
	for after := uuid.Nil; ; {
		// The primary key has the holds of a person in the order in which they were made. The query
		// skips from one person to the next.
		var people []holdsOf
		if err := p.DB.NewRaw(`WITH RECURSIVE u (user_id) AS (
				SELECT (SELECT h.user_id FROM usage_holds h WHERE h.user_id > ? ORDER BY h.user_id LIMIT 1)
				UNION ALL
				SELECT (SELECT h.user_id FROM usage_holds h WHERE h.user_id > u.user_id ORDER BY h.user_id LIMIT 1)
				FROM u WHERE u.user_id IS NOT NULL)
			SELECT u.user_id, (SELECT h.created_at FROM usage_holds h WHERE h.user_id = u.user_id ORDER BY h.user_id, h.id LIMIT 1) AS oldest
			FROM u WHERE u.user_id IS NOT NULL LIMIT ?`, after, peopleAtOnce).Scan(ctx, &people); err != nil {
			return fmt.Errorf("find people with old holds: %w", err)
		}
		if len(people) == 0 {
			return nil
		}
		for _, of := range people {
			if after = of.UserID; !of.Oldest.Before(p.horizon) {
				continue
			}
			if err := p.holdsOfPerson(ctx, of.UserID); err != nil {
				return fmt.Errorf("delete the old holds of the user %s: %w", of.UserID, err)
			}
		}
	}
}

func (p *retentionPass) holdsOfPerson(ctx context.Context, user uuid.UUID) error {
	if err := p.expireLapsed(ctx, user); err != nil {
		return err
	}
	for after := uuid.Nil; ; {
		var holds []UsageHold
		if err := p.DB.NewSelect().Model(&holds).Column("id", "state", "created_at").Where("user_id = ? AND id > ?", user, after).
			Order("user_id", "id").Limit(int64(p.stepRows)).Scan(ctx); err != nil {
			return err
		}
		var ids []uuid.UUID
		young := len(holds) == 0
		for _, h := range holds {
			if after = h.ID; !h.CreatedAt.Before(p.horizon) {
				young = true
				break
			}
			if h.State == HoldReleased || h.State == HoldExpired { // final states
				ids = append(ids, h.ID)
			}
		}
		if len(ids) > 0 {
			if err := p.step(ctx, func(ctx context.Context, tx bun.Tx) (Deletions, error) {
				n, err := deleteHolds(ctx, tx, user, ids)
				return Deletions{"usage_holds": n}, err
			}); err != nil {
				return err
			}
		}
		if young {
			return nil
		}
	}
}

// expireLapsed marks holds that expired long ago, if their record was not used since. Otherwise they
// would stay open, and in their record's units on hold, for good.
func (p *retentionPass) expireLapsed(ctx context.Context, user uuid.UUID) error {
	var starts []time.Time
	if err := p.DB.NewSelect().TableExpr("usage_records AS r").ColumnExpr("r.billing_period_start").
		Where("r.user_id = ? AND r.billing_period_end <= ? AND r.holds_expire_at <= ?", user, p.horizon, p.horizon).
		Scan(ctx, &starts); err != nil {
		return err
	}
	wants := make([]RecordKey, len(starts))
	for i, start := range starts {
		wants[i] = RecordKey{UserID: user, At: start.UTC()}
	}
	if len(wants) == 0 {
		return nil
	}
	return PrepareRecords(ctx, p.DB, p.Catalogue, p.now, wants)
}

// deleteHolds deletes a person's holds.
func deleteHolds(ctx context.Context, tx bun.Tx, user uuid.UUID, ids []uuid.UUID) (int64, error) {
	return rowsOf(tx.NewDelete().Model((*UsageHold)(nil)).Where("user_id = ? AND id IN (?)", user, bun.List(ids)).Exec(ctx))
}
