package models

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/uptrace/bun"
)

// UsageRefusal is how often a person was refused for a reason in a billing period. The number is
// approximate: refusals are counted in memory, and a process that is killed loses those of the last
// seconds.
type UsageRefusal struct {
	bun.BaseModel `bun:"table:usage_refusals"`

	UserID             uuid.UUID `bun:",pk,type:uuid"`
	BillingPeriodStart time.Time `bun:",pk"`
	Reason             Reason    `bun:",pk"`
	Count              int64
	LastAt             time.Time
}

// maxRefusals is the maximum number of rows that wait in memory. Refusals of further people are not
// counted until the others are stored.
const maxRefusals = 65_536

// Refusals counts refusals in memory. The zero value is empty. It is safe for concurrent use.
type Refusals struct {
	mu     sync.Mutex
	counts map[refusalKey]refusals
}

type refusalKey struct {
	user   uuid.UUID
	period time.Time
	reason Reason
}

type refusals struct {
	count int64
	last  time.Time
}

// Add counts a refusal of the person with this standing. A person who is not stored yet is not
// counted.
func (r *Refusals) Add(s *Standing, reason Reason, at time.Time) {
	if reason == "" || s.UserID == uuid.Nil {
		return
	}
	r.add(refusalKey{s.UserID, s.Period.Start.UTC(), reason}, refusals{1, at})
}

func (r *Refusals) add(key refusalKey, more refusals) {
	r.mu.Lock()
	defer r.mu.Unlock()
	known, ok := r.counts[key]
	if !ok && len(r.counts) >= maxRefusals {
		return
	}
	if r.counts == nil {
		r.counts = map[refusalKey]refusals{}
	}
	known.count += more.count
	if more.last.After(known.last) {
		known.last = more.last
	}
	r.counts[key] = known
}

// refusalsAtOnce is the number of rows in one statement.
const refusalsAtOnce = 500

// Store writes what was counted since the last call. What it cannot write stays in memory.
func (r *Refusals) Store(ctx context.Context, db *DB) error {
	r.mu.Lock()
	counts := r.counts
	r.counts = nil
	r.mu.Unlock()
	rows := make([]UsageRefusal, 0, len(counts))
	for key, c := range counts {
		rows = append(rows, UsageRefusal{UserID: key.user, BillingPeriodStart: key.period, Reason: key.reason, Count: c.count, LastAt: c.last})
	}
	slices.SortFunc(rows, func(a, b UsageRefusal) int { // so that two processes never wait for each other
		return cmp.Or(bytes.Compare(a.UserID[:], b.UserID[:]), a.BillingPeriodStart.Compare(b.BillingPeriodStart),
			strings.Compare(string(a.Reason), string(b.Reason)))
	})
	for len(rows) > 0 {
		part := rows[:min(len(rows), refusalsAtOnce)]
		_, err := db.NewInsert().Model(&part).On("CONFLICT (user_id, billing_period_start, reason) DO UPDATE").
			Set("count = usage_refusal.count + EXCLUDED.count").
			Set("last_at = CASE WHEN usage_refusal.last_at < EXCLUDED.last_at THEN EXCLUDED.last_at ELSE usage_refusal.last_at END").Exec(ctx)
		if err != nil {
			for _, row := range rows {
				r.add(refusalKey{row.UserID, row.BillingPeriodStart, row.Reason}, refusals{row.Count, row.LastAt})
			}
			return fmt.Errorf("store the refusals of %d people: %w", len(rows), err)
		}
		rows = rows[len(part):]
	}
	return nil
}

// RefusalCount is a number of refusals.
type RefusalCount struct {
	Reason Reason
	Count  int64
	LastAt time.Time
}

// RefusalsOf returns how often a person was refused in a billing period, the most frequent reason
// first.
func RefusalsOf(ctx context.Context, db bun.IDB, user uuid.UUID, period Period) ([]RefusalCount, error) {
	var counts []RefusalCount
	err := db.NewSelect().Model((*UsageRefusal)(nil)).ColumnExpr("reason, CAST(SUM(count) AS bigint) AS count, MAX(last_at) AS last_at").
		Where("user_id = ? AND billing_period_start >= ? AND billing_period_start < ?", user, period.Start, period.End).
		Group("reason").OrderExpr("2 DESC, 1").Scan(ctx, &counts)
	if err != nil {
		return nil, fmt.Errorf("read the refusals of a person: %w", err)
	}
	return counts, nil
}

// RefusedMember is a member who was refused.
type RefusedMember struct {
	ID          uuid.UUID `bun:",type:uuid"`
	Email, Name string
	// Count is the number of refusals, and Reason the most frequent reason.
	Count  int64
	Reason Reason
	LastAt time.Time
}

// refusedMembers is the number of members that an organization's page lists.
const refusedMembers = 10

// RefusedMembers returns the members of an organization who were refused most often in a billing
// period, and the number of all refused members.
func RefusedMembers(ctx context.Context, db bun.IDB, organization uuid.UUID, period Period) (top []RefusedMember, total int64, err error) {
	var rows []struct {
		RefusedMember `bun:",extend"`

		Total int64
	}
	during := func(q *bun.SelectQuery) *bun.SelectQuery {
		return q.Where("f.billing_period_start >= ? AND f.billing_period_start < ?", period.Start, period.End)
	}
	err = db.NewSelect().TableExpr("usage_refusals AS f").Join("JOIN users AS u ON u.id = f.user_id").
		Join("JOIN workspaces AS w ON w.id = u.workspace_id").Column("u.id", "u.email", "u.name").
		ColumnExpr("CAST(SUM(f.count) AS bigint) AS count, MAX(f.last_at) AS last_at, COUNT(*) OVER () AS total").
		Where("w.organization_id = ? AND f.last_at >= ?", organization, period.Start).Apply(during).
		Group("u.id", "u.email", "u.name").OrderExpr("4 DESC, u.email").Limit(refusedMembers).Scan(ctx, &rows)
	if err != nil {
		return nil, 0, fmt.Errorf("read the refusals of an organization: %w", err)
	}
	if len(rows) == 0 {
		return nil, 0, nil
	}
	ids := make([]uuid.UUID, len(rows))
	for i := range rows {
		ids[i] = rows[i].ID
	}
	var reasons []UsageRefusal
	err = db.NewSelect().TableExpr("usage_refusals AS f").Column("f.user_id", "f.reason").ColumnExpr("CAST(SUM(f.count) AS bigint) AS count").
		Where("f.user_id IN (?)", bun.List(ids)).Apply(during).Group("f.user_id", "f.reason").OrderExpr("3, f.reason DESC").Scan(ctx, &reasons)
	if err != nil {
		return nil, 0, fmt.Errorf("read the reasons of an organization's refusals: %w", err)
	}
	most := make(map[uuid.UUID]Reason, len(rows))
	for _, r := range reasons {
		most[r.UserID] = r.Reason // the most frequent one is the last
	}
	for _, r := range rows {
		r.Reason = most[r.ID]
		top, total = append(top, r.RefusedMember), r.Total
	}
	return top, total, nil
}

// RefusalsSince returns the refusals of all people who were refused since an instant, in their
// billing periods, by reason.
func RefusalsSince(ctx context.Context, db bun.IDB, since time.Time) ([]RefusalCount, error) {
	var counts []RefusalCount
	err := db.NewSelect().Model((*UsageRefusal)(nil)).ColumnExpr("reason, CAST(SUM(count) AS bigint) AS count, MAX(last_at) AS last_at").
		Where("last_at >= ?", since).Group("reason").OrderExpr("2 DESC, 1").Scan(ctx, &counts)
	if err != nil {
		return nil, fmt.Errorf("read the refusals: %w", err)
	}
	return counts, nil
}
