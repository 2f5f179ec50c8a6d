package models

import (
	"context"
	"database/sql"
	"fmt"
	"strings"

	"github.com/google/uuid"
	"github.com/uptrace/bun"
	"github.com/uptrace/bun/schema"
)

// personalRows are the rows of a person in a table of the ledger, which stay without what identifies
// the person. An idempotency key becomes the row's ID, which is as unique.
type personalRows struct {
	table string
	// walk is the column that an index has after user_id, and first a value before all of its values.
	walk, first string
	// email and key say whether the table has an email and an idempotency key. reason is a column
	// with a text that someone wrote; empty without one.
	email, key bool
	reason     string
}

var ledgerRows = []personalRows{
	{"usage_events", "idempotency_key", "", true, true, "void_reason"},
	{"usage_events", "hold_id", uuid.Nil.String(), true, false, "void_reason"}, // these have no key
	{"usage_holds", "idempotency_key", "", true, true, ""},
	{"usage_grants", "id", uuid.Nil.String(), false, true, "reason"},
	{"usage_voids", "event_id", uuid.Nil.String(), true, false, "reason"},
}

// usage changes the person's rows in the ledger.
func (p *erasing) usage(ctx context.Context) error {
	for _, rows := range ledgerRows {
		for {
			some, err := p.walk(ctx, &rows)
			if err != nil {
				return fmt.Errorf("change the rows in %s: %w", rows.table, err)
			}
			if !some { // a row may have got a key behind the walk
				break
			}
		}
	}
	return nil
}

// walk changes each row that still identifies the person, in the order of an index. It reports
// whether there was one.
func (p *erasing) walk(ctx context.Context, r *personalRows) (some bool, err error) {
	for after := r.first; ; {
		var rows []struct{ ID, Walked string }
		if err := p.DB.RunInTx(ctx, &sql.TxOptions{ReadOnly: true}, func(ctx context.Context, tx bun.Tx) error {
			if err := p.useIndexes(ctx, tx); err != nil {
				return err
			}
			q := tx.NewSelect().Table(r.table).ColumnExpr("CAST(? AS text) AS walked", bun.Ident(r.walk)).
				Where("?", r.after(p, after)).Order(r.walk).Limit(int64(p.stepRows))
			if r.key {
				q = q.ColumnExpr("CAST(id AS text) AS id")
			}
			return q.Scan(ctx, &rows)
		}); err != nil || len(rows) == 0 {
			return some, err
		}
		some = true
		ids, last := make([]string, len(rows)), rows[len(rows)-1].Walked
		for i, row := range rows {
			ids[i] = row.ID
		}
		change := func(ctx context.Context, tx bun.Tx) error { return p.change(ctx, tx, r, after, last) }
		err := p.step(ctx, change)
		if r.key && IsDuplicate(err) {
			if err = p.step(ctx, func(ctx context.Context, tx bun.Tx) error { return p.freeKeys(ctx, tx, r.table, ids) }); err == nil {
				err = p.step(ctx, change)
			}
		}
		if err != nil {
			return some, err
		}
		after = last
	}
}

// after is the condition for the person's rows after a value that still identify the person.
func (r *personalRows) after(p *erasing, value string) schema.QueryWithArgs {
	var remaining []string
	args := []any{p.mark.UserID, bun.Ident(r.walk), value}
	if r.email {
		remaining, args = append(remaining, "email <> ?"), append(args, p.label)
	}
	if r.key {
		remaining = append(remaining, "idempotency_key <> CAST(id AS text)")
	}
	if r.reason != "" {
		remaining, args = append(remaining, r.reason+" <> ?"), append(args, erasedText)
	}
	return bun.SafeQuery("user_id = ? AND ? > ? AND ("+strings.Join(remaining, " OR ")+")", args...)
}

// useIndexes makes PostgreSQL's planner walk along an index in this transaction. To the planner, a table
// that grew since it was last analyzed looks small, and it would sort all rows of the person each time.
func (p *erasing) useIndexes(ctx context.Context, tx bun.Tx) error {
	if !p.DB.Postgres {
		return nil
	}
	_, err := tx.ExecContext(ctx, "SELECT set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true), "+
		"set_config('enable_sort', 'off', true), set_config('jit', 'off', true)")
	return err
}

// freeKeys gives another key to rows that have the ID of another row as their key: a caller may have
// used it.
func (p *erasing) freeKeys(ctx context.Context, tx bun.Tx, table string, ids []string) error {
	for _, id := range ids {
		if _, err := tx.NewUpdate().Table(table).Set("idempotency_key = ?", uuid.NewString()).
			Where("user_id = ? AND idempotency_key = ? AND idempotency_key <> CAST(id AS text)", p.mark.UserID, id).Exec(ctx); err != nil {
			return err
		}
	}
	return nil
}

// change changes the rows after one value, up to and including another.
func (p *erasing) change(ctx context.Context, tx bun.Tx, r *personalRows, after, last string) error {
	if err := p.useIndexes(ctx, tx); err != nil {
		return err
	}
	q := tx.NewUpdate().Table(r.table).Where("? AND ? <= ?", r.after(p, after), bun.Ident(r.walk), last)
	if r.email {
		q = q.Set("email = ?", p.label)
	}
	if r.key {
		q = q.Set("idempotency_key = CASE WHEN idempotency_key IS NULL THEN NULL ELSE CAST(id AS text) END")
	}
	if r.reason != "" {
		q = q.Set("? = CASE WHEN ? IS NULL THEN NULL ELSE ? END", bun.Ident(r.reason), bun.Ident(r.reason), erasedText)
	}
	_, err := q.Exec(ctx)
	return err
}
