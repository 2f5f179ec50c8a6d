package models

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/uptrace/bun"
	"github.com/uptrace/bun/schema"
)

// deliveryPoll is how often an erasure checks whether deliveries have ended.
const deliveryPoll = 250 * time.Millisecond

// notices deletes the deliveries of notices to or about the person, and their name from the daily
// summaries of organizations. If wait is true, it waits for deliveries that another process attempts,
// because that process stores what the other server answered.
func (p *erasing) notices(ctx context.Context, wait bool) error {
	deliveries := bun.SafeQuery("(recipient = ? OR notice_id IN (SELECT n.id FROM notices n WHERE n.subject = ?))",
		p.mark.UserID, p.mark.UserID)
	for {
		if err := p.deleteDeliveries(ctx, deliveries); err != nil {
			return fmt.Errorf("delete the deliveries of notices: %w", err)
		}
		attempted, err := p.DB.NewSelect().Model((*NoticeDelivery)(nil)).Where("?", deliveries).
			Where("state = ? AND leased_until > ?", DeliverySending, Now(p.Now)).Exists(ctx)
		if err != nil {
			return fmt.Errorf("find deliveries that are being attempted: %w", err)
		}
		if !wait || !attempted {
			break
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(deliveryPoll):
		}
	}
	if err := p.summaries(ctx); err != nil {
		return fmt.Errorf("change the daily summaries: %w", err)
	}
	return nil
}

// deleteDeliveries deletes deliveries with their attempts, except those that a process attempts. The
// notices stay, so that none is made again.
func (p *erasing) deleteDeliveries(ctx context.Context, which schema.QueryWithArgs) error {
	for {
		var rows []NoticeDelivery
		ended := "(state <> ? OR leased_until IS NULL OR leased_until <= ?)"
		if err := p.DB.NewSelect().Model(&rows).Column("id", "notice_id").Where("?", which).Where(ended, DeliverySending, Now(p.Now)).
			Limit(int64(p.stepRows)).Scan(ctx); err != nil {
			return err
		}
		ids, notices := make([]uuid.UUID, len(rows)), make([]uuid.UUID, len(rows))
		for i, r := range rows {
			ids[i], notices[i] = r.ID, r.NoticeID
		}
		if len(ids) > 0 {
			if err := p.step(ctx, func(ctx context.Context, tx bun.Tx) error {
				if _, err := tx.NewDelete().Model((*NoticeAttempt)(nil)).Where("delivery_id IN (?)", bun.List(ids)).Exec(ctx); err != nil {
					return err
				}
				if _, err := tx.NewDelete().Model((*NoticeDelivery)(nil)).Where("id IN (?)", bun.List(ids)).Exec(ctx); err != nil {
					return err
				}
				_, err := tx.NewUpdate().Model((*DueNotice)(nil)).Set("state = ?", NoticeDone).
					Where("id IN (?) AND state = ?", bun.List(notices), NoticeDelivering).
					Where("NOT EXISTS (SELECT 1 FROM notice_deliveries d WHERE d.notice_id = due_notice.id AND d.state IN (?, ?))",
						DeliveryPending, DeliverySending).Exec(ctx)
				return err
			}); err != nil {
				return err
			}
			continue
		}
		_, err := p.DB.NewUpdate().Model((*DueNotice)(nil)).Set("state = ?", NoticeSkipped).
			Where("subject = ? AND state = ?", p.mark.UserID, NoticePending).Exec(ctx)
		return err
	}
}

// summaries replaces the person's name in the daily summaries of organizations. A webhook with such a
// summary that is to be sent again is built again.
func (p *erasing) summaries(ctx context.Context) error {
	position := positionFunction(p.DB.Postgres)
	var all []DueNotice
	if err := p.DB.NewSelect().Model(&all).Where("kind = ? AND "+position+"(facts, ?) > 0", NoticeDigest, p.mark.UserID.String()).
		Scan(ctx); err != nil {
		return err
	}
	for _, n := range all {
		changed := false
		for i := range n.Facts.Members {
			if m := &n.Facts.Members[i]; m.ID == p.mark.UserID && m.Name != p.label {
				m.Name, changed = p.label, true
			}
		}
		if !changed {
			continue
		}
		if err := p.step(ctx, func(ctx context.Context, tx bun.Tx) error {
			if _, err := tx.NewUpdate().Model(&n).Column("facts").WherePK().Exec(ctx); err != nil {
				return err
			}
			_, err := tx.NewUpdate().Model((*NoticeDelivery)(nil)).Set("payload = NULL").Where("notice_id = ?", n.ID).Exec(ctx)
			return err
		}); err != nil {
			return err
		}
	}
	return nil
}
