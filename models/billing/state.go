package billing

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/uptrace/bun"

	"tollgate/models"
)

// State returns the state of sending.
func State(ctx context.Context, db bun.IDB) (models.StripeState, error) {
	var s models.StripeState
	if err := db.NewSelect().Model(&s).Where("id = 1").Scan(ctx); err != nil {
		return s, fmt.Errorf("read the state of sending: %w", err)
	}
	return s, nil
}

// onceADay calls do if a day has passed since the time in a column of the state, in one process
// only. If do fails, the next process to check after retry calls it again.
func onceADay(ctx context.Context, db *models.DB, now time.Time, column string, retry time.Duration, do func() error) error {
	const day = 24 * time.Hour
	note := func(ctx context.Context, at time.Time, where string, args ...any) (int64, error) {
		res, err := db.NewUpdate().Model((*models.StripeState)(nil)).Set("? = ?", bun.Ident(column), at).Where("id = 1").
			Where(where, args...).Exec(ctx)
		if err != nil {
			return 0, fmt.Errorf("store the time of %s: %w", column, err)
		}
		return res.RowsAffected()
	}
	if n, err := note(ctx, now, "? IS NULL OR ? <= ?", bun.Ident(column), bun.Ident(column), now.Add(-day)); err != nil || n == 0 {
		return err
	}
	if err := do(); err != nil {
		_, failed := note(context.WithoutCancel(ctx), now.Add(retry-day), "? = ?", bun.Ident(column), now)
		return errors.Join(err, failed)
	}
	return nil
}
