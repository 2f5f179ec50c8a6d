package enforcement

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/google/uuid"

	"tollgate/models"
)

// The same statements as PostgreSQL's, for one row each: there is no network to save trips on.
const (
	liteRecord = `r.id, r.email, r.billing_period_start, r.billing_period_end, r.plan_id, r.suggestions_included, r.suggestions_used, r.overage_rate_cents,
		r.spend_limit_cents, r.workspace_id, r.slack_team_id, r.slack_user_id, r.stripe_customer_id, r.entitled`

	liteWhere = ` FROM usage_records r WHERE r.email = ?1 AND r.billing_period_start <= ?2 AND r.billing_period_end > ?2
		ORDER BY r.billing_period_start DESC LIMIT 1`

	liteLock = `SELECT ` + liteRecord + `, r.suggestions_held, r.holds_expire_at` + liteWhere

	litePeek = `SELECT ` + liteRecord + `, CASE WHEN r.holds_expire_at <= ?2 THEN (SELECT COALESCE(SUM(h.quantity), 0) FROM usage_holds h
			WHERE h.record_id = r.id AND h.state = 'open' AND h.expires_at > ?2) ELSE r.suggestions_held END, NULL` + liteWhere

	liteEvent   = `SELECT id, email, quantity, hold_id, ` + pgFigures + ` FROM usage_events WHERE idempotency_key = ?`
	liteSettled = `SELECT id, email, quantity, hold_id, ` + pgFigures + ` FROM usage_events WHERE hold_id = ?`

	liteHold      = `SELECT id, email, quantity, idempotency_key, state, expires_at, created_at, record_id, ` + pgFigures + ` FROM usage_holds `
	liteHoldByID  = liteHold + `WHERE id = ?`
	liteHoldByKey = liteHold + `WHERE idempotency_key = ?`

	liteInsertEvent = `INSERT INTO usage_events (recorded_at, id, record_id, email, workspace_id, quantity, idempotency_key, hold_id, occurred_at,
			stripe_customer_id, ` + pgFigures + `) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`
	liteInsertHold = `INSERT INTO usage_holds (created_at, state, id, record_id, email, quantity, idempotency_key, expires_at, ` + pgFigures + `)
		VALUES (?, 'open', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`
	liteCloseHold = `UPDATE usage_holds SET state = ? WHERE id = ?`
	liteUpdate    = `UPDATE usage_records SET suggestions_used = ?, suggestions_held = ?, holds_expire_at = ? WHERE id = ?`
)

// lite is a ledger on a connection of its own to the SQLite file.
type lite struct {
	db   *sql.DB
	conn *sql.Conn

	lock, look, event, settled, holdByID, holdByKey, insertEvent, insertHold, closeHold, update *sql.Stmt
}

func openSQLite(ctx context.Context, address string) (*lite, error) {
	dsn, err := models.SQLiteDSN(address)
	if err != nil {
		return nil, err
	}
	l := &lite{}
	if l.db, err = sql.Open("sqlite", dsn); err != nil {
		return nil, err
	}
	if l.conn, err = l.db.Conn(ctx); err != nil {
		return nil, errors.Join(err, l.db.Close())
	}
	for _, s := range []struct {
		into **sql.Stmt
		text string
	}{
		{&l.lock, liteLock}, {&l.look, litePeek}, {&l.event, liteEvent}, {&l.settled, liteSettled}, {&l.holdByID, liteHoldByID}, {&l.holdByKey, liteHoldByKey},
		{&l.insertEvent, liteInsertEvent}, {&l.insertHold, liteInsertHold}, {&l.closeHold, liteCloseHold}, {&l.update, liteUpdate},
	} {
		if *s.into, err = l.conn.PrepareContext(ctx, s.text); err != nil {
			return nil, errors.Join(err, l.db.Close())
		}
	}
	return l, nil
}

func (l *lite) close() {
	_ = l.conn.Close() // what was not committed is not answered
	_ = l.db.Close()
}

func (l *lite) transact(ctx context.Context, look lookups, decide func(*found) *changes) (err error) {
	// The statements run to their end once begun: a context that ended in the middle would leave the connection unclear.
	if err := ctx.Err(); err != nil {
		return err
	}
	ctx = context.WithoutCancel(ctx)
	if _, err := l.conn.ExecContext(ctx, "BEGIN IMMEDIATE"); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			// SQLite has rolled back by itself after some faults, such as a full disk; then there is nothing left to undo.
			_, _ = l.conn.ExecContext(ctx, "ROLLBACK")
		}
	}()
	f, err := l.find(ctx, look)
	if err != nil {
		return err
	}
	c := decide(f)
	if c.empty() {
		_, err = l.conn.ExecContext(ctx, "ROLLBACK")
		return err
	}
	if err := l.save(ctx, c); err != nil {
		return err
	}
	_, err = l.conn.ExecContext(ctx, "COMMIT")
	return err
}

func (l *lite) find(ctx context.Context, look lookups) (*found, error) {
	f := &found{
		accounts: make([]*account, len(look.wants)), events: make(map[string]*models.UsageEvent, len(look.keys)),
		settled: map[uuid.UUID]*models.UsageEvent{}, holds: map[uuid.UUID]*models.UsageHold{}, holdKeys: map[string]*models.UsageHold{},
	}
	for i, w := range look.wants {
		r, err := scanRecord(l.lock.QueryRowContext(ctx, w.Email, liteTime(w.At)))
		if err != nil {
			return nil, err
		}
		if r != nil {
			f.accounts[i] = &account{record: *r}
		}
	}
	for _, key := range look.keys {
		e, err := scanEvent(l.event.QueryRowContext(ctx, key))
		if err != nil {
			return nil, err
		}
		if e != nil {
			f.events[key] = e
		}
	}
	for _, key := range look.holdKeys {
		h, err := scanHold(l.holdByKey.QueryRowContext(ctx, key))
		if err != nil {
			return nil, err
		}
		if h != nil {
			f.holdKeys[key], f.holds[h.ID] = h, h
		}
	}
	for _, id := range look.holdIDs {
		if _, ok := f.holds[id]; !ok {
			h, err := scanHold(l.holdByID.QueryRowContext(ctx, id))
			if err != nil {
				return nil, err
			}
			if h == nil {
				continue
			}
			f.holds[id], f.holdKeys[h.IdempotencyKey] = h, h
		}
		e, err := scanEvent(l.settled.QueryRowContext(ctx, id))
		if err != nil {
			return nil, err
		}
		if e != nil {
			f.settled[id] = e
		}
	}
	return f, nil
}

func (l *lite) save(ctx context.Context, c *changes) error {
	now := liteTime(c.now)
	for i := range c.events {
		e := &c.events[i]
		if _, err := l.insertEvent.ExecContext(ctx, now, e.ID, e.RecordID, e.Email, e.WorkspaceID, e.Quantity, e.IdempotencyKey, e.HoldID, liteTime(e.OccurredAt),
			e.StripeCustomerID, string(e.PlanID), liteTime(e.BillingPeriodStart), liteTime(e.BillingPeriodEnd), e.UsedAfter, e.HeldAfter, e.Included,
			e.OverageRateCents, e.SpendLimitCents); err != nil {
			return err
		}
	}
	for _, h := range c.holds {
		if _, err := l.insertHold.ExecContext(ctx, now, h.ID, h.RecordID, h.Email, h.Quantity, h.IdempotencyKey, liteTime(h.ExpiresAt), string(h.PlanID),
			liteTime(h.BillingPeriodStart), liteTime(h.BillingPeriodEnd), h.UsedAfter, h.HeldAfter, h.Included, h.OverageRateCents, h.SpendLimitCents); err != nil {
			return err
		}
	}
	for _, h := range c.closed {
		if _, err := l.closeHold.ExecContext(ctx, string(h.State), h.ID); err != nil {
			return err
		}
	}
	for _, a := range c.accounts {
		var expire any
		if a.record.HoldsExpireAt != nil {
			expire = liteTime(*a.record.HoldsExpireAt)
		}
		if _, err := l.update.ExecContext(ctx, a.standing.Used, a.standing.Held, expire, a.record.ID); err != nil {
			return err
		}
	}
	return nil
}

func (l *lite) peek(ctx context.Context, emails []string, now time.Time) ([]*models.UsageRecord, error) {
	records := make([]*models.UsageRecord, len(emails))
	at := liteTime(now)
	for i, email := range emails {
		r, err := scanRecord(l.look.QueryRowContext(context.WithoutCancel(ctx), email, at))
		if err != nil {
			return nil, err
		}
		records[i] = r
	}
	return records, nil
}

// liteTime writes a time as bun does on SQLite, so that times compare as text.
func liteTime(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05.999999-07:00") }

func scanRecord(row *sql.Row) (*models.UsageRecord, error) {
	r := &models.UsageRecord{}
	err := row.Scan(&r.ID, &r.Email, &r.BillingPeriodStart, &r.BillingPeriodEnd, &r.PlanID, &r.SuggestionsIncluded, &r.SuggestionsUsed, &r.OverageRateCents,
		&r.SpendLimitCents, &r.WorkspaceID, &r.SlackTeamID, &r.SlackUserID, &r.StripeCustomerID, &r.Entitled, &r.SuggestionsHeld, &r.HoldsExpireAt)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	return r, err
}

func scanEvent(row *sql.Row) (*models.UsageEvent, error) {
	e := &models.UsageEvent{}
	err := row.Scan(&e.ID, &e.Email, &e.Quantity, &e.HoldID, &e.PlanID, &e.BillingPeriodStart, &e.BillingPeriodEnd, &e.UsedAfter, &e.HeldAfter, &e.Included,
		&e.OverageRateCents, &e.SpendLimitCents)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	e.BillingPeriodStart, e.BillingPeriodEnd = e.BillingPeriodStart.UTC(), e.BillingPeriodEnd.UTC()
	return e, err
}

func scanHold(row *sql.Row) (*models.UsageHold, error) {
	h := &models.UsageHold{}
	err := row.Scan(&h.ID, &h.Email, &h.Quantity, &h.IdempotencyKey, &h.State, &h.ExpiresAt, &h.CreatedAt, &h.RecordID, &h.PlanID,
		&h.BillingPeriodStart, &h.BillingPeriodEnd, &h.UsedAfter, &h.HeldAfter, &h.Included, &h.OverageRateCents, &h.SpendLimitCents)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	h.BillingPeriodStart, h.BillingPeriodEnd, h.ExpiresAt, h.CreatedAt = h.BillingPeriodStart.UTC(), h.BillingPeriodEnd.UTC(), h.ExpiresAt.UTC(), h.CreatedAt.UTC()
	return h, err
}
