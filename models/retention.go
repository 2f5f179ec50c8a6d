package models

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/uptrace/bun"
)

// How long rows are stored, other than events and what belongs to them. docs/deploy.md has a table.
const (
	// keepReported is the minimum for an event that is in a report, because balances read the events
	// of the last 463 days: a yearly period of 366 days that ended 35 days ago, and 62 days before it.
	keepReported = 500 * 24 * time.Hour
	// keepWebhooks is for applied webhooks, and keepNotices for notices after they expired.
	keepWebhooks = 90 * 24 * time.Hour
	keepNotices  = 90 * 24 * time.Hour
	// keepAuditYears is for the audit log.
	keepAuditYears = 3
)

// RetentionTables are the tables whose old rows are deleted.
var RetentionTables = []string{
	"audit_log", "notice_attempts", "notice_deliveries", "notices", "sessions", "sign_in_links", "slack_requests", "stripe_webhook_events",
	"usage_events", "usage_holds", "usage_refusals", "usage_voids",
}

// Retention deletes rows that are no longer needed. Any number of processes may run it at the same
// time, beside servers. Each step is a short transaction, and each step that succeeds is final.
type Retention struct {
	DB        *DB
	Catalogue *Catalogue
	Keep      KeepEvents
	// Clock returns the current time, such as that of EarlierClock.
	Clock func(ctx context.Context) (time.Time, error)
	// Rest is called after each step that wrote, with the time that it took, so that the database
	// serves its callers most of the time. It may be nil.
	Rest func(ctx context.Context, took time.Duration) error
}

// Deletions is a number of deleted rows by table.
type Deletions map[string]int64

// retentionPass is one pass through all tables.
type retentionPass struct {
	*Retention
	now time.Time
	// horizon is the time before which events are deleted.
	horizon time.Time
	// stepRows is the maximum number of events that one transaction deletes.
	stepRows int
	deleted  Deletions
}

// Pass deletes all rows that are no longer needed now, and returns their number, also if it fails.
// A table that cannot be read does not keep the others from being worked on.
func (r *Retention) Pass(ctx context.Context) (Deletions, error) {
	p := &retentionPass{Retention: r, deleted: Deletions{}, stepRows: r.DB.stepRows()}
	var err error
	if p.now, err = p.time(ctx); err != nil {
		return nil, fmt.Errorf("delete old rows: %w", err)
	}
	var failed []error
	rules := p.simpleRules()
	run := []func(context.Context) error{p.notices}
	if !r.Keep.Forever() {
		p.horizon = r.Keep.Horizon(p.now)
		if err := raisePrunedBefore(ctx, r.DB, p.horizon); err != nil {
			failed = append(failed, err) // then no event may be deleted
		} else {
			rules = append(rules, p.refusalsRule())
			run = append(run, p.events, p.holds) // last, because the first pass may take hours
		}
	}
	for _, rule := range rules {
		run = slices.Insert(run, 0, func(ctx context.Context) error { return p.rows(ctx, rule) })
	}
	for _, do := range run {
		if err := do(ctx); err != nil {
			failed = append(failed, err)
		}
	}
	if failed != nil {
		return p.deleted, fmt.Errorf("delete old rows: %w", errors.Join(failed...))
	}
	return p.deleted, nil
}

// maxIdle is how far the time of a pass may be ahead of the newest event.
const maxIdle = maxPeriod

// time returns the time of a pass. If the clock is far ahead, for example because a machine starts with
// a wrong date, it is not believed: what is deleted is gone.
func (p *retentionPass) time(ctx context.Context) (time.Time, error) {
	now, err := p.Clock(ctx)
	if err != nil {
		return time.Time{}, err
	}
	query := "SELECT recorded_at FROM usage_events WHERE rowid = (SELECT MAX(rowid) FROM usage_events)"
	if p.DB.Postgres { // the newest event of the newest record
		query = "SELECT recorded_at FROM usage_events ORDER BY record_id DESC, occurred_at DESC LIMIT 1"
	}
	var newest []time.Time
	if err := p.DB.NewRaw(query).Scan(ctx, &newest); err != nil {
		return time.Time{}, fmt.Errorf("find the newest event: %w", err)
	}
	for _, at := range newest {
		now = earliest(now, at.UTC().Add(maxIdle))
	}
	return now, nil
}

// EarlierClock returns a clock for Retention: the earlier of the process's time and, on PostgreSQL,
// the database's. Rows that are deleted too early because a clock is wrong are gone.
func (db *DB) EarlierClock(process func() time.Time) func(context.Context) (time.Time, error) {
	return func(ctx context.Context) (time.Time, error) {
		now := Now(process)
		if !db.Postgres {
			return now, nil
		}
		var there time.Time
		if err := db.QueryRowContext(ctx, "SELECT CURRENT_TIMESTAMP").Scan(&there); err != nil {
			return time.Time{}, fmt.Errorf("read the database's clock: %w", err)
		}
		return earliest(now, there.UTC()), nil
	}
}

// step runs one transaction, which returns the number of rows that it deleted, and rests.
func (p *retentionPass) step(ctx context.Context, do func(ctx context.Context, tx bun.Tx) (Deletions, error)) error {
	var deleted Deletions
	rest := func(ctx context.Context, took time.Duration) error {
		for table, n := range deleted { // they are committed, even if the rest is interrupted
			if n > 0 {
				p.deleted[table] += n
			}
		}
		if p.Rest == nil {
			return ctx.Err()
		}
		return p.Rest(ctx, took)
	}
	return p.DB.step(ctx, rest, func(ctx context.Context, tx bun.Tx) (err error) {
		deleted, err = do(ctx, tx)
		return err
	})
}

// oldRows is a rule for a table whose rows are deleted once a condition holds.
type oldRows struct {
	table string
	// key is the primary key.
	key []string
	// where is the condition, and order a column with an index that serves it.
	where string
	args  []any
	order string
}

func (p *retentionPass) simpleRules() []oldRows {
	// A Checkout says who owns a customer, and is read again as long as that is unknown.
	const webhooks = `received_at < ? AND applied_at < ? AND (type <> 'checkout.session.completed' OR stripe_customer_id IS NULL
		OR EXISTS (SELECT 1 FROM stripe_customers c WHERE c.id = stripe_webhook_events.stripe_customer_id
			AND (c.user_id IS NOT NULL OR c.organization_id IS NOT NULL)))`
	applied := p.now.Add(-keepWebhooks)
	return []oldRows{
		{"sessions", []string{"token_hash"}, "expires_at <= ?", []any{p.now}, "expires_at"},
		{"sign_in_links", []string{"token_hash"}, "expires_at <= ?", []any{p.now}, "expires_at"},
		{"slack_requests", []string{"id"}, "expires_at <= ?", []any{p.now}, "expires_at"},
		{"stripe_webhook_events", []string{"id"}, webhooks, []any{applied, applied}, "received_at"},
		{"audit_log", []string{"id"}, "at < ?", []any{p.now.AddDate(-keepAuditYears, 0, 0)}, "at"},
	}
}

// refusalsRule deletes the refusals of billing periods whose events are deleted.
func (p *retentionPass) refusalsRule() oldRows {
	return oldRows{
		"usage_refusals", []string{"user_id", "billing_period_start", "reason"}, "last_at < ?", []any{p.horizon}, "last_at",
	}
}

// rows deletes the rows of a rule. It writes nothing if there are none, so that no one waits.
func (p *retentionPass) rows(ctx context.Context, rule oldRows) error {
	for {
		some, err := p.DB.NewSelect().Table(rule.table).ColumnExpr("1").Where(rule.where, rule.args...).Exists(ctx)
		var n int64
		if err == nil && some {
			err = p.step(ctx, func(ctx context.Context, tx bun.Tx) (_ Deletions, err error) {
				oldest := tx.NewSelect().Table(rule.table).Column(rule.key...).Where(rule.where, rule.args...).Order(rule.order).
					Limit(int64(p.stepRows))
				// The row may have changed since the inner query read it.
				n, err = rowsOf(tx.NewDelete().Table(rule.table).Where("(?) IN (?)", bun.Safe(strings.Join(rule.key, ", ")), oldest).
					Where(rule.where, rule.args...).Exec(ctx))
				return Deletions{rule.table: n}, err
			})
		}
		if err != nil {
			return fmt.Errorf("delete old rows of %s: %w", rule.table, err)
		}
		if n == 0 {
			return nil
		}
	}
}

// String lists the tables: "usage_events 12, usage_voids 1".
func (d Deletions) String() string {
	text := ""
	for _, table := range slices.Sorted(maps.Keys(d)) {
		if text != "" {
			text += ", "
		}
		text += fmt.Sprintf("%s %d", table, d[table])
	}
	return text
}

// rowsOf returns the number of rows that a statement changed.
func rowsOf(done sql.Result, err error) (int64, error) {
	if err != nil {
		return 0, err
	}
	return done.RowsAffected()
}
