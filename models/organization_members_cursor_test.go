package models_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/uptrace/bun"

	"tollgate/models"
)

// A part of the list reads a bounded number of rows, however many members there are, with and
// without a plan, now and in the past.
func TestAPartOfTheMembersReadsFewRows(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		const n, limit = 3000, 50
		acme := f.organization(t, noon, "Acme", "T1", "T2")
		f.exec(t, `INSERT INTO users (id, email, role, workspace_id, created_at) WITH RECURSIVE n (i) AS (SELECT 10000 UNION ALL
			SELECT i + 1 FROM n WHERE i < ?) SELECT `+castID(f, "'00000000-0000-7000-8000-0000000' || CAST(i AS text)")+`,
			'm' || CAST(i AS text) || '@example.com', 'member',
			(SELECT w.id FROM workspaces w WHERE w.slack_team_id = 'T' || CAST(1 + i % 2 AS text)), ? FROM n`, 10000+n-1, november.Previous().Start)
		for _, p := range []models.Period{november, november.Previous()} {
			f.exec(t, `INSERT INTO usage_records (user_id, email, billing_period_start, billing_period_end, plan_id, suggestions_included,
				suggestions_used, entitled, overage_rate_cents, created_at) SELECT id, email, ?, ?, 'free', 5, 3, TRUE, 0, ? FROM users`,
				p.Start, p.End, p.Start)
		}
		f.exec(t, `INSERT INTO subscriptions (id, user_id, plan_id, status, created_at, updated_at) SELECT id, id, 'pro', 'active', ?, ?
			FROM users WHERE email LIKE 'm1000%'`, noon, noon)
		if f.db.Postgres {
			f.exec(t, "ANALYZE")
		}
		past := november.Previous()
		for _, period := range []*models.Period{nil, &past} {
			var seen int
			var after *models.MemberCursor
			for parts := 1; ; parts++ {
				var page models.MemberPage
				err := f.db.RunInTx(f.ctx, nil, func(ctx context.Context, tx bun.Tx) (err error) {
					before := f.rowsRead(t, tx)
					page, err = models.MembersAfter(ctx, tx, f.catalogue, noon, acme, period, after, limit)
					if read := f.rowsRead(t, tx) - before; read > 12*limit {
						t.Errorf("part %d read %d rows", parts, read)
					}
					return err
				})
				if err != nil {
					t.Fatal(err)
				}
				for i := range page.Rows {
					m := &page.Rows[i]
					if want := fmt.Sprintf("m%d@example.com", 10000+seen); m.Standing.Email != want || m.Standing.Used != 3 {
						t.Fatalf("member %d is %s with %d units", seen, m.Standing.Email, m.Standing.Used)
					}
					seen++
				}
				if after = page.Next; after == nil || t.Failed() {
					if seen != n || parts != n/limit {
						t.Errorf("%d members in %d parts", seen, parts)
					}
					break
				}
			}
		}
	})
}

// rowsRead returns the number of rows that the connection of a transaction has read; 0 on SQLite.
// From then on, the transaction reads a whole table only if no index serves, as if it were large.
func (f *fixture) rowsRead(t *testing.T, tx bun.Tx) (rows int) {
	t.Helper()
	if !f.db.Postgres {
		return 0
	}
	if _, err := tx.ExecContext(f.ctx, "SET LOCAL enable_seqscan = off"); err != nil {
		t.Fatal(err)
	}
	if err := tx.QueryRowContext(f.ctx, `SELECT SUM(seq_tup_read + COALESCE(idx_tup_fetch, 0)) FROM pg_stat_xact_user_tables
		WHERE relname IN ('users', 'usage_records', 'subscriptions', 'memberships')`).Scan(&rows); err != nil {
		t.Fatal(err)
	}
	return rows
}

// castID returns an ID from a text in SQL.
func castID(f *fixture, text string) string {
	if f.db.Postgres {
		return "CAST(" + text + " AS uuid)"
	}
	return text
}
