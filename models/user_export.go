package models

import (
	"bufio"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/uptrace/bun"
)

// ExportUser writes everything that is stored about the person with this label as one JSON document,
// without secrets. It reads one consistent snapshot, row by row, so servers may run at the same time,
// and the events may be more than fit in memory. Money is in cents, and times are in UTC.
func ExportUser(ctx context.Context, db *DB, c *Catalogue, now time.Time, label string, w io.Writer) error {
	opts := &sql.TxOptions{ReadOnly: true} // so that a transaction on SQLite does not take the write lock
	if db.Postgres {
		opts.Isolation = sql.LevelRepeatableRead
	}
	x := &export{db: db, out: bufio.NewWriterSize(w, 64<<10)}
	err := db.RunInTx(ctx, opts, func(ctx context.Context, tx bun.Tx) error {
		x.tx = tx
		user, err := UserByLabel(ctx, tx, label)
		if err != nil {
			return err
		}
		return x.write(ctx, c, now, &user)
	})
	if err == nil {
		err = x.out.Flush()
	}
	if err != nil {
		return fmt.Errorf("export a person: %w", err)
	}
	return nil
}

// export is a document that is being written. The first error of out stays.
type export struct {
	db  *DB
	tx  bun.Tx
	out *bufio.Writer
}

func (x *export) write(ctx context.Context, c *Catalogue, now time.Time, user *UserEntry) error {
	id := user.ID
	head := exportHead{ExportedAt: exportTime{now}, Currency: c.Currency, Person: exportPerson{
		ID: id, Email: user.Email, Name: user.Name, Role: user.Role, Operator: user.Operator, SpendLimitCents: user.SpendLimitCents,
		MemberLimit: user.MemberLimit, CreatedAt: exportTime{user.CreatedAt}, SlackUserID: user.SlackUserID, WorkspaceID: user.WorkspaceID,
	}}
	if user.ErasedAt != nil {
		head.Person.ErasedAt.Time = *user.ErasedAt
	}
	if user.OrganizationID != nil {
		head.Organization = &exportOrganization{*user.OrganizationID, user.Organization}
	}
	text, err := json.Marshal(head)
	if err != nil {
		return err
	}
	if _, err := x.out.Write(text[:len(text)-1]); err != nil { // the lists follow
		return err
	}
	texts, err := textsOf(ctx, x.tx, id)
	if err != nil {
		return err
	}
	mine := func(order ...string) func(*bun.SelectQuery) *bun.SelectQuery {
		return func(q *bun.SelectQuery) *bun.SelectQuery { return q.Where("user_id = ?", id).Order(order...) }
	}
	customers := x.tx.NewSelect().Model((*StripeCustomer)(nil)).Column("id").Where("user_id = ?", id)
	notices := x.tx.NewSelect().Model((*DueNotice)(nil)).Column("id").Where("subject = ?", id)
	deliveries := x.tx.NewSelect().Model((*NoticeDelivery)(nil)).Column("id").Where("recipient = ? OR notice_id IN (?)", id, notices)
	for _, list := range []func() error{
		func() error {
			return exportList[exportWorkspace](ctx, x, "workspaces", func(q *bun.SelectQuery) *bun.SelectQuery {
				return q.Where("id IN (SELECT u.workspace_id FROM users u WHERE u.id = ?)", id)
			})
		},
		func() error { return exportList[exportMembership](ctx, x, "memberships", mine("since")) },
		func() error { return exportList[exportIdentity](ctx, x, "identities", mine("created_at")) },
		func() error { return exportList[exportCustomer](ctx, x, "stripe_customers", mine("id")) },
		func() error {
			return exportList[exportSubscription](ctx, x, "subscriptions", func(q *bun.SelectQuery) *bun.SelectQuery {
				return q.Where("user_id = ? OR stripe_customer_id IN (?)", id, customers).Order("created_at")
			})
		},
		func() error { return exportList[exportRecord](ctx, x, "periods", mine("billing_period_start")) },
		func() error { return exportList[exportEvent](ctx, x, "events", mine()) }, // sorting would need memory
		func() error { return exportList[exportPruned](ctx, x, "deleted_events", mine("record_id")) },
		func() error { return exportList[exportHold](ctx, x, "holds", mine()) },
		func() error { return exportList[exportGrant](ctx, x, "grants", mine("created_at", "id")) },
		func() error { return exportList[exportVoid](ctx, x, "voids", mine()) },
		func() error { return exportList[exportRefusal](ctx, x, "refusals", mine("last_at")) },
		func() error {
			return exportList[exportNotice](ctx, x, "notices", func(q *bun.SelectQuery) *bun.SelectQuery {
				return q.Where("subject = ?", id).Order("id")
			})
		},
		func() error {
			return exportList[exportDelivery](ctx, x, "notice_deliveries", func(q *bun.SelectQuery) *bun.SelectQuery {
				return q.Where("id IN (?)", deliveries).Order("id")
			})
		},
		func() error {
			return exportList[exportAttempt](ctx, x, "notice_attempts", func(q *bun.SelectQuery) *bun.SelectQuery {
				return q.Where("delivery_id IN (?)", deliveries).Order("delivery_id", "number")
			})
		},
		func() error { return exportList[exportSettings](ctx, x, "notice_settings", mine()) },
		func() error { return exportList[exportSession](ctx, x, "sessions", mine("created_at")) },
		func() error { return exportList[exportLink](ctx, x, "sign_in_links", mine("created_at")) },
		func() error {
			return exportList[exportAudit](ctx, x, "audit_log", func(q *bun.SelectQuery) *bun.SelectQuery {
				return q.Where("actor IN (?)", bun.List(texts.Emails)).WhereOr("subject IN (?)", bun.List(texts.Emails)).
					WhereOr(auditAbout, id.String(), id).Order("at", "id")
			})
		},
	} {
		if err := list(); err != nil {
			return err
		}
	}
	_, err = x.out.WriteString("\n}\n")
	return err
}

// exportList writes the rows of a query as a member of the document.
func exportList[T any](ctx context.Context, x *export, name string, which func(*bun.SelectQuery) *bun.SelectQuery) error {
	fail := func(err error) error { return fmt.Errorf("%s: %w", name, err) }
	rows, err := which(x.tx.NewSelect().Model((*T)(nil))).Rows(ctx)
	if err != nil {
		return fail(err)
	}
	defer func() { _ = rows.Close() }()
	if _, err := fmt.Fprintf(x.out, ",\n%q: [", name); err != nil {
		return fail(err)
	}
	separator := "\n"
	for rows.Next() {
		var row T
		if err := x.db.ScanRow(ctx, rows, &row); err != nil {
			return fail(err)
		}
		text, err := json.Marshal(row)
		if err != nil {
			return fail(err)
		}
		if _, err := x.out.WriteString(separator + string(text)); err != nil {
			return fail(err)
		}
		separator = ",\n"
	}
	if err := rows.Err(); err != nil {
		return fail(err)
	}
	_, err = x.out.WriteString("]")
	return err
}

// exportTime is a time in UTC; null if it is zero.
type exportTime struct{ time.Time }

// Scan reads a value of either database.
func (t *exportTime) Scan(value any) error {
	var read bun.NullTime
	err := read.Scan(value)
	t.Time = read.Time
	return err
}

// MarshalJSON returns the time as RFC 3339.
func (t exportTime) MarshalJSON() ([]byte, error) {
	if t.IsZero() {
		return []byte("null"), nil
	}
	return t.UTC().MarshalJSON()
}
