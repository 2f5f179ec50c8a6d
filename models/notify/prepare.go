package notify

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/uptrace/bun"

	"tollgate/models"
)

// prepareAtOnce is the maximum number of rows that one transaction prepares.
const prepareAtOnce = 20

// prepare makes the deliveries of due notices, and ends attempts whose process ended. It reports
// whether there may be more to do. Without anything to do, it only reads: on SQLite, a transaction
// would block all other writers.
func (w *Worker) prepare(ctx context.Context) (bool, error) {
	if w.slack == nil && w.mail == nil {
		endpoints, err := models.WebhookEndpoints(ctx, w.DB)
		if err != nil || len(endpoints) == 0 {
			return false, err // there is no channel
		}
	}
	digested, err := w.digest(ctx)
	if err != nil {
		return false, err
	}
	expanded, err := w.expand(ctx)
	if err != nil {
		return false, err
	}
	recovered, err := w.recover(ctx)
	return digested || expanded || recovered, err
}

// expand makes the deliveries of due notices.
func (w *Worker) expand(ctx context.Context) (found bool, err error) {
	now := w.now()
	due := func(db bun.IDB) *bun.SelectQuery {
		return db.NewSelect().Model((*models.DueNotice)(nil)).Where("state = ? AND due_at <= ?", models.NoticePending, now).
			Order("due_at").Limit(prepareAtOnce)
	}
	if some, err := due(w.DB).Exists(ctx); err != nil || !some {
		return false, err
	}
	err = w.DB.InTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		var notices []models.DueNotice
		if err := models.ForUpdateSkipLocked(due(tx).Model(&notices)).Scan(ctx); err != nil {
			return err
		}
		found = len(notices) == prepareAtOnce
		for i := range notices {
			if err := w.expandOne(ctx, tx, now, &notices[i]); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return false, fmt.Errorf("prepare deliveries: %w", err)
	}
	return found, nil
}

func (w *Worker) expandOne(ctx context.Context, tx bun.Tx, now time.Time, n *models.DueNotice) error {
	var rows []models.NoticeDelivery
	add := func(channel models.NoticeChannel, to uuid.UUID) {
		rows = append(rows, models.NoticeDelivery{ID: uuid.Must(uuid.NewV7()), NoticeID: n.ID, Channel: channel, Recipient: to,
			State: models.DeliveryPending, NextAttemptAt: &now, CreatedAt: now})
	}
	if n.ExpiresAt.After(now) {
		people, err := models.NoticeRecipients(ctx, tx, n.SubjectKind, n.Subject)
		if err != nil {
			return err
		}
		for i := range people {
			for _, channel := range []models.NoticeChannel{models.ChannelSlack, models.ChannelMail} {
				if w.has(channel) && people[i].Refuses(n, channel, w.team()) == "" {
					add(channel, people[i].ID)
				}
			}
		}
		endpoints, err := models.WebhookEndpoints(ctx, tx)
		if err != nil {
			return err
		}
		for i := range endpoints {
			if endpoints[i].DisabledAt == nil {
				add(models.ChannelWebhook, endpoints[i].ID)
			}
		}
	}
	state := models.NoticeSkipped
	if len(rows) > 0 {
		state = models.NoticeDelivering
		if _, err := tx.NewInsert().Model(&rows).On("CONFLICT (notice_id, channel, recipient) DO NOTHING").Exec(ctx); err != nil {
			return err
		}
	}
	_, err := tx.NewUpdate().Model((*models.DueNotice)(nil)).Set("state = ?", state).Where("id = ?", n.ID).Exec(ctx)
	return err
}

// recover ends the attempts whose lease is over. A Slack message or a mail may have been sent, so it is
// never attempted again. A webhook is.
func (w *Worker) recover(ctx context.Context) (found bool, err error) {
	now := w.now()
	over := func(db bun.IDB) *bun.SelectQuery {
		return db.NewSelect().Model((*models.NoticeDelivery)(nil)).Where("state = ? AND leased_until <= ?", models.DeliverySending, now).
			Order("leased_until").Limit(prepareAtOnce)
	}
	if some, err := over(w.DB).Exists(ctx); err != nil || !some {
		return false, err
	}
	err = w.DB.InTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		var rows []models.NoticeDelivery
		if err := models.ForUpdateSkipLocked(over(tx).Model(&rows)).Scan(ctx); err != nil {
			return err
		}
		found = len(rows) == prepareAtOnce
		for i := range rows {
			out := unknown("the process ended before it stored the outcome")
			if err := w.store(ctx, tx, now, &rows[i], out); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return false, fmt.Errorf("end attempts: %w", err)
	}
	return found, nil
}
