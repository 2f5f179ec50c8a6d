package models

import (
	"context"
	"database/sql"

	"github.com/google/uuid"
	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect"
	"github.com/uptrace/bun/schema"
)

// findPastMembers is FindMembers for a past period: the current members who had signed up by its end
// or have usage in it, with the limits that they had then. A member without a record has no plan and
// no limit.
func findPastMembers(
	ctx context.Context, db bun.IDB, id uuid.UUID, period Period, q MemberQuery, only []uuid.UUID,
) (MemberList, error) {
	list := MemberList{Page: 1}
	p := &roster{postgres: db.Dialect().Name() == dialect.PG, only: only}
	var err error
	if p.workspaces, _, err = workspacesOf(ctx, db, id); err != nil || len(p.workspaces) == 0 {
		return list, err
	}
	read := func(limit, offset int) ([]MemberUsage, error) {
		return p.readPastMembers(ctx, db, period, &q, limit, offset)
	}
	if only != nil {
		list.Rows, err = read(len(only), 0)
		return list, err
	}
	err = q.readPage(&list, func() error { return p.countPast(ctx, db, period, &q, &list) }, read)
	return list, err
}

// countPast counts all members of a past period and those that the query finds.
func (p *roster) countPast(ctx context.Context, db bun.IDB, period Period, q *MemberQuery, list *MemberList) error {
	var counted struct{ Total, Found, Rate int64 }
	err := db.NewRaw(`SELECT COUNT(*) AS total, COUNT(CASE WHEN ? THEN 1 END) AS found,
			COALESCE(MAX(CASE WHEN ? THEN m.rate END), 0) AS rate FROM (?) m`,
		p.found(q), p.found(q), p.membersDuring(period)).Scan(ctx, &counted)
	list.Total, list.Found, list.Billed = counted.Total, counted.Found, counted.Rate > 0
	return err
}

// readPastMembers is readMembers for a past period.
func (p *roster) readPastMembers(
	ctx context.Context, db bun.IDB, period Period, q *MemberQuery, limit, offset int,
) (found []MemberUsage, err error) {
	direction := bun.SafeQuery("ASC")
	if q.Descending {
		direction = bun.SafeQuery("DESC")
	}
	before := period.Previous()
	key, join := p.sortKey(q.Sort)
	if q.Sort == SortLastPeriod {
		key = bun.SafeQuery("COALESCE(b.used, CASE WHEN m.created_at < ? THEN 0 ELSE -1 END)", before.End)
		join = bun.SafeQuery("LEFT JOIN (?) b ON b.user_id = m.id", p.sumsDuring(before))
	}
	rows, err := db.QueryContext(ctx, `SELECT u.id, u.email, u.name, u.role, u.member_limit, u.created_at, page.used, page.included,
			page.overage, page.cents,
			COALESCE((SELECT r.plan_id FROM usage_records r WHERE r.user_id = u.id AND r.billing_period_start >= ? AND r.billing_period_start < ?
				ORDER BY r.billing_period_start DESC LIMIT 1), ''),
			(SELECT CAST(SUM(r.suggestions_used) AS bigint) FROM usage_records r
				WHERE r.user_id = u.id AND r.billing_period_start >= ? AND r.billing_period_start < ?)
		FROM (SELECT m.*, ? AS sort_key FROM (?) m ? WHERE ? ORDER BY sort_key ?, m.email LIMIT ? OFFSET ?) page
		JOIN users u ON u.id = page.id AND ? ORDER BY page.sort_key ?, page.email`,
		period.Start, period.End, before.Start, before.End, key, p.membersDuring(period), join, p.found(q), direction, limit, offset,
		p.isOne(), direction)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		m := MemberUsage{Standing: Standing{Period: period}}
		s := &m.Standing
		var last sql.NullInt64
		if err := rows.Scan(&m.ID, &s.Email, &m.Name, &m.Role, &m.MemberLimit, &m.SignedUp, &s.Used, &s.Included, &s.Overage,
			&s.OverageCents, &s.Plan, &last); err != nil {
			return nil, err
		}
		s.UserID, m.SignedUp = m.ID, m.SignedUp.UTC()
		if last.Valid || m.SignedUp.Before(before.End) {
			m.LastPeriod = &last.Int64
		}
		found = append(found, m)
	}
	return found, rows.Err()
}

// sumsDuring returns a query of the members' sums over their records that began in a period.
func (p *roster) sumsDuring(period Period) schema.QueryAppender {
	ofMembers := bun.SafeQuery("r.present_workspace_id IN (?)", bun.List(p.workspaces))
	if p.only != nil { // the record's workspace is the member's
		ofMembers = bun.SafeQuery("r.user_id IN (?)", bun.List(p.only))
	}
	return bun.SafeQuery(`SELECT r.user_id, CAST(SUM(r.suggestions_used) AS bigint) AS used, CAST(SUM(r.overage_used) AS bigint) AS overage,
			CAST(SUM(r.overage_cents) AS bigint) AS cents, MAX(r.suggestions_included + r.granted) AS included, MAX(r.overage_rate_cents) AS rate
		FROM usage_records r WHERE ? AND r.billing_period_start >= ? AND r.billing_period_start < ?
		GROUP BY r.user_id`, ofMembers, period.Start, period.End)
}

// membersDuring returns a query of the members of a period with the columns of standings.
func (p *roster) membersDuring(period Period) schema.QueryAppender {
	return bun.SafeQuery(`SELECT g.*, CASE WHEN g.included - (g.used - g.overage) > 0 THEN g.used - g.overage ELSE g.used END AS counted
		FROM (SELECT u.id, u.email, ? AS folded, u.created_at, COALESCE(r.used, 0) AS used, COALESCE(r.overage, 0) AS overage,
				COALESCE(r.cents, 0) AS cents, COALESCE(r.included, 0) AS included, COALESCE(r.rate, 0) AS rate
			FROM users u LEFT JOIN (?) r ON r.user_id = u.id WHERE ? AND (u.created_at < ? OR r.used > 0)) g`,
		p.folded(), p.sumsDuring(period), p.isMember(), period.End)
}
