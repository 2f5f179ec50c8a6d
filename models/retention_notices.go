package models

import (
	"context"
	"fmt"

	"github.com/google/uuid"
	"github.com/uptrace/bun"
)

// notices deletes notices that expired long ago, with their deliveries and attempts. A notice that
// is still current must stay, because its row is what prevents a second one. So must the newest
// summary of each organization, because the next one is compared with it.
func (p *retentionPass) notices(ctx context.Context) error {
	old := p.now.Add(-keepNotices)
	for after := uuid.Nil; ; {
		// IDs have the order of creation, so the walk ends at the first young notice.
		var notices []DueNotice
		if err := p.DB.NewSelect().Model(&notices).Column("id", "subject", "kind", "period_start", "state", "created_at", "expires_at").
			Where("id > ?", after).Order("id").Limit(int64(p.stepRows)).Scan(ctx); err != nil {
			return fmt.Errorf("find old notices: %w", err)
		}
		var ids []uuid.UUID
		young := len(notices) == 0
		for _, n := range notices {
			if after = n.ID; !n.CreatedAt.Before(old) {
				young = true
				break
			}
			if !n.ExpiresAt.Before(old) || n.State == NoticePending || n.State == NoticeDelivering {
				continue
			}
			if n.Kind == NoticeDigest {
				newer, err := p.DB.NewSelect().Model((*DueNotice)(nil)).
					Where("subject = ? AND kind = ? AND period_start > ?", n.Subject, n.Kind, n.PeriodStart).Exists(ctx)
				if err != nil {
					return fmt.Errorf("find a newer summary: %w", err)
				}
				if !newer {
					continue
				}
			}
			ids = append(ids, n.ID)
		}
		if len(ids) > 0 {
			if err := p.deleteNotices(ctx, ids); err != nil {
				return fmt.Errorf("delete %d old notices: %w", len(ids), err)
			}
		}
		if young {
			return nil
		}
	}
}

func (p *retentionPass) deleteNotices(ctx context.Context, ids []uuid.UUID) error {
	return p.step(ctx, func(ctx context.Context, tx bun.Tx) (_ Deletions, err error) {
		all := Deletions{}
		deliveries := tx.NewSelect().Model((*NoticeDelivery)(nil)).Column("id").Where("notice_id IN (?)", bun.List(ids))
		for _, q := range []struct {
			table  string
			delete *bun.DeleteQuery
		}{
			{"notice_attempts", tx.NewDelete().Model((*NoticeAttempt)(nil)).Where("delivery_id IN (?)", deliveries)},
			{"notice_deliveries", tx.NewDelete().Model((*NoticeDelivery)(nil)).Where("notice_id IN (?)", bun.List(ids))},
			{"notices", tx.NewDelete().Model((*DueNotice)(nil)).Where("id IN (?)", bun.List(ids))},
		} {
			if all[q.table], err = rowsOf(q.delete.Exec(ctx)); err != nil {
				return nil, err
			}
		}
		return all, nil
	})
}
