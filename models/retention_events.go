package models

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/uptrace/bun"
)

// prunableEvent is what retention needs to know of an event.
type prunableEvent struct {
	bun.BaseModel `bun:"table:usage_events"`

	// Rowid is SQLite's number of the row; 0 on PostgreSQL.
	Rowid    int64     `bun:",scanonly"`
	ID       uuid.UUID `bun:",pk,type:uuid"`
	UserID   uuid.UUID `bun:",type:uuid"`
	RecordID int64

	Quantity, OverageQuantity, OverageCents int64

	HoldID           *uuid.UUID `bun:",type:uuid"`
	OccurredAt       time.Time
	RecordedAt       time.Time
	VoidedAt         *time.Time
	StripeCustomerID *string
	StripeReportID   *uuid.UUID `bun:",type:uuid"`
}

// isOld reports whether an event and its void are old enough. Their keys must stay known as long as
// --keep-events says, so the time that counts is when they were recorded, and not when the event
// occurred.
func (p *retentionPass) isOld(e *prunableEvent) bool {
	if !e.RecordedAt.Before(p.horizon) || e.VoidedAt != nil && !e.VoidedAt.Before(p.horizon) {
		return false
	}
	return e.StripeReportID == nil || e.RecordedAt.Before(p.now.Add(-keepReported))
}

// events deletes old events that nothing waits for, with their voids and settled holds, and adds
// them to the sums of deleted events. It walks through them in the order in which they were
// recorded, and ends when all that a query finds are young: a single one may have the time of a clock
// that was ahead. Both databases have that order at no cost: SQLite in
// the table itself, and PostgreSQL in the records' IDs, which usage_events_record begins with.
func (p *retentionPass) events(ctx context.Context) error {
	if p.DB.Postgres {
		return p.eventsByRecord(ctx)
	}
	for after := int64(0); ; {
		var events []prunableEvent
		if err := p.DB.NewSelect().Model(&events).ColumnExpr("?TableColumns, rowid").Where("rowid > ?", after).Order("rowid").
			Limit(rowsAtOnce).Scan(ctx); err != nil {
			return fmt.Errorf("find old events: %w", err)
		}
		old := make([]prunableEvent, 0, len(events))
		young := true
		for i := range events {
			after = events[i].Rowid
			young = young && !events[i].RecordedAt.Before(p.horizon)
			if p.isOld(&events[i]) {
				old = append(old, events[i])
			}
		}
		for some := range slices.Chunk(old, p.stepRows) {
			if err := p.prune(ctx, some); err != nil {
				return fmt.Errorf("delete %d old events: %w", len(some), err)
			}
		}
		if young {
			return nil
		}
	}
}

// rowsAtOnce is the number of rows of SQLite's table that one query looks at.
const rowsAtOnce = 2000

// recordWithEvents is a record that has events.
type recordWithEvents struct {
	ID                   int64
	UserID               *uuid.UUID `bun:",type:uuid"`
	CreatedAt, PeriodEnd bun.NullTime
}

// eventsByRecord does what events does, on PostgreSQL.
func (p *retentionPass) eventsByRecord(ctx context.Context) error {
	for after := int64(0); ; {
		// The query skips from one record to the next. A record's ID is unique, but its key begins
		// with the user.
		var records []recordWithEvents
		if err := p.DB.NewRaw(`WITH RECURSIVE k (id) AS (
				SELECT MIN(record_id) FROM usage_events WHERE record_id > ?
				UNION ALL
				SELECT (SELECT MIN(e.record_id) FROM usage_events e WHERE e.record_id > k.id) FROM k WHERE k.id IS NOT NULL)
			SELECT k.id, r.user_id, r.created_at, r.billing_period_end AS period_end
			FROM (SELECT id FROM k WHERE id IS NOT NULL LIMIT ?) k
				CROSS JOIN LATERAL (SELECT e.user_id FROM usage_events e WHERE e.record_id = k.id ORDER BY e.occurred_at LIMIT 1) e
				LEFT JOIN LATERAL (SELECT * FROM usage_records r WHERE r.user_id = e.user_id AND r.id = k.id) r ON TRUE
			ORDER BY k.id`, after, peopleAtOnce).Scan(ctx, &records); err != nil {
			return fmt.Errorf("find records with old events: %w", err)
		}
		young := true
		for _, r := range records {
			after = r.ID
			young = young && r.UserID != nil && !r.CreatedAt.Before(p.horizon)
			if r.UserID == nil || r.PeriodEnd.After(p.horizon) { // verify reports events without a record
				continue
			}
			if err := p.eventsOfRecord(ctx, *r.UserID, r.ID); err != nil {
				return fmt.Errorf("delete the old events of the usage record %d: %w", r.ID, err)
			}
		}
		if young {
			return nil
		}
	}
}

func (p *retentionPass) eventsOfRecord(ctx context.Context, user uuid.UUID, record int64) error {
	var last prunableEvent
	for {
		var events []prunableEvent
		q := p.DB.NewSelect().Model(&events).Where("user_id = ? AND record_id = ?", user, record).Order("occurred_at", "id").
			Limit(int64(p.stepRows))
		if last.ID != uuid.Nil {
			q = q.Where("(occurred_at, id) > (?, ?)", last.OccurredAt, last.ID)
		}
		if err := q.Scan(ctx); err != nil {
			return err
		}
		if len(events) == 0 {
			return nil
		}
		last = events[len(events)-1]
		if events = slices.DeleteFunc(events, func(e prunableEvent) bool { return !p.isOld(&e) }); len(events) > 0 {
			if err := p.prune(ctx, events); err != nil {
				return err
			}
		}
	}
}

// prune deletes those of the events that are final: on PostgreSQL, events of one record. It takes
// locks in the order of the gate and of Void, first the record and then the events, and leaves out
// what another transaction has locked. Everything is read again under these locks, because a void,
// a report or a moved period may have changed it.
func (p *retentionPass) prune(ctx context.Context, found []prunableEvent) error {
	ready, err := p.read(ctx, p.DB, found, func(q *bun.SelectQuery, _ string) *bun.SelectQuery { return q })
	if err != nil || len(ready.events) == 0 { // take no lock for events that wait, which each pass finds
		return err
	}
	return p.step(ctx, func(ctx context.Context, tx bun.Tx) (Deletions, error) {
		locked, err := p.read(ctx, tx, ready.events, lockRows)
		if err != nil || len(locked.events) == 0 {
			return nil, err
		}
		return locked.delete(ctx, tx)
	})
}

// finalEvents are events that nothing waits for, with their voids, by event, and the reports that
// have the events or take them back.
type finalEvents struct {
	events  []prunableEvent
	voids   map[uuid.UUID]*UsageVoid
	reports map[uuid.UUID]*StripeReport
}

// read reads events again, and returns the old and final ones. lock locks the rows of a query, and
// leaves out the rows that another transaction has locked.
func (p *retentionPass) read(
	ctx context.Context, db bun.IDB, found []prunableEvent, lock func(*bun.SelectQuery, string) *bun.SelectQuery,
) (*finalEvents, error) {
	ids := map[int64]bool{}
	for i := range found {
		ids[found[i].RecordID] = true
	}
	var records []UsageRecord
	q := db.NewSelect().Model(&records).Column("id", "billing_period_end").Where("id IN (?)", bun.List(slices.Sorted(maps.Keys(ids))))
	if p.DB.Postgres {
		q = q.Where("user_id = ?", found[0].UserID)
	}
	if err := lock(q, "UPDATE SKIP LOCKED").Scan(ctx); err != nil {
		return nil, err
	}
	ended := map[int64]bool{}
	for i := range records {
		ended[records[i].ID] = !records[i].BillingPeriodEnd.After(p.horizon)
	}
	f := &finalEvents{voids: map[uuid.UUID]*UsageVoid{}, reports: map[uuid.UUID]*StripeReport{}}
	where, args := sameEvents(found)
	q = db.NewSelect().Model(&f.events).Where(where, args...)
	if !p.DB.Postgres {
		q = q.ColumnExpr("?TableColumns, rowid")
	}
	if err := lock(q.Order("occurred_at", "id"), "UPDATE SKIP LOCKED").Scan(ctx); err != nil {
		return nil, err
	}
	f.events = slices.DeleteFunc(f.events, func(e prunableEvent) bool { return !ended[e.RecordID] || !p.isOld(&e) })
	if err := f.readOutcomes(ctx, db, lock); err != nil {
		return nil, err
	}
	f.events = slices.DeleteFunc(f.events, func(e prunableEvent) bool { return !f.isFinal(&e) })
	return f, nil
}

// sameEvents returns the condition for events that were read before, in order: on SQLite by row, and
// on PostgreSQL by the index of their record.
func sameEvents(events []prunableEvent) (where string, args []any) {
	ids := make([]uuid.UUID, len(events))
	rows := make([]int64, len(events))
	for i := range events {
		ids[i], rows[i] = events[i].ID, events[i].Rowid
	}
	first, last := &events[0], &events[len(events)-1]
	if first.Rowid != 0 {
		return "rowid IN (?)", []any{bun.List(rows)}
	}
	return "user_id = ? AND record_id = ? AND occurred_at >= ? AND occurred_at <= ? AND id IN (?)",
		[]any{first.UserID, first.RecordID, first.OccurredAt, last.OccurredAt, bun.List(ids)}
}

// readOutcomes reads the voids and the reports.
func (f *finalEvents) readOutcomes(ctx context.Context, db bun.IDB, lock func(*bun.SelectQuery, string) *bun.SelectQuery) error {
	voided, reported := map[uuid.UUID][]uuid.UUID{}, map[uuid.UUID]bool{} // by user; by report
	for i := range f.events {
		e := &f.events[i]
		if e.VoidedAt != nil {
			voided[e.UserID] = append(voided[e.UserID], e.ID)
		}
		if e.StripeReportID != nil {
			reported[*e.StripeReportID] = true
		}
	}
	for _, user := range sortedIDs(voided) {
		var found []*UsageVoid
		q := db.NewSelect().Model(&found).Where("user_id = ? AND event_id IN (?)", user, bun.List(voided[user]))
		if err := lock(q, "UPDATE SKIP LOCKED").Scan(ctx); err != nil {
			return err
		}
		for _, v := range found {
			f.voids[v.EventID] = v
			if v.StripeReportID != nil {
				reported[*v.StripeReportID] = true
			}
		}
	}
	if len(reported) == 0 {
		return nil
	}
	var found []*StripeReport
	q := db.NewSelect().Model(&found).Column("id", "state", "counts").Where("id IN (?)", bun.List(sortedIDs(reported)))
	if err := lock(q, "SHARE SKIP LOCKED").Scan(ctx); err != nil {
		return err
	}
	for _, r := range found {
		f.reports[r.ID] = r
	}
	return nil
}

// isFinal reports whether nothing waits for an event. An operator may still retry a report that
// failed, so only a verified or given up one is final.
func (f *finalEvents) isFinal(e *prunableEvent) bool {
	ended := func(id *uuid.UUID) bool {
		r := f.reports[*id]
		return r != nil && (r.State == ReportVerified || r.State == ReportGivenUp)
	}
	if e.VoidedAt != nil {
		v := f.voids[e.ID]
		if v == nil || v.NextAttemptAt != nil || v.StripeReportID != nil && !ended(v.StripeReportID) {
			return false
		}
		if e.StripeReportID == nil {
			return v.State == VoidNotReported
		}
	}
	if e.StripeReportID != nil {
		return ended(e.StripeReportID)
	}
	return e.OverageQuantity == 0 || e.StripeCustomerID == nil
}

// delete deletes the events with their voids and settled holds, and stores their sums.
func (f *finalEvents) delete(ctx context.Context, tx bun.Tx) (Deletions, error) {
	where, args := sameEvents(f.events)
	n, err := rowsOf(tx.NewDelete().Model((*prunableEvent)(nil)).Where(where, args...).Exec(ctx))
	if err != nil {
		return nil, err
	}
	if n != int64(len(f.events)) {
		return nil, fmt.Errorf("%d of %d events were deleted", n, len(f.events))
	}
	all := Deletions{"usage_events": n}
	holds, voided := map[uuid.UUID][]uuid.UUID{}, map[uuid.UUID][]uuid.UUID{} // by user
	for i := range f.events {
		e := &f.events[i]
		if e.HoldID != nil {
			holds[e.UserID] = append(holds[e.UserID], *e.HoldID)
		}
		if e.VoidedAt != nil {
			voided[e.UserID] = append(voided[e.UserID], e.ID)
		}
	}
	for _, user := range sortedIDs(voided) {
		n, err := rowsOf(tx.NewDelete().Model((*UsageVoid)(nil)).Where("user_id = ? AND event_id IN (?)", user, bun.List(voided[user])).Exec(ctx))
		if err != nil {
			return nil, err
		}
		all["usage_voids"] += n
	}
	for _, user := range sortedIDs(holds) {
		n, err := deleteHolds(ctx, tx, user, holds[user])
		if err != nil {
			return nil, err
		}
		all["usage_holds"] += n
	}
	records, reports := f.sums()
	return all, addSums(ctx, tx, records, reports)
}

// sums returns the sums of the events for their records and for their reports, in a fixed order: two
// processes may add to the same report.
func (f *finalEvents) sums() (records []UsagePruned, reports []ReportPruned) {
	byRecord, byReport := map[int64]*UsagePruned{}, map[uuid.UUID]int64{}
	for i := range f.events {
		e := &f.events[i]
		sum := byRecord[e.RecordID]
		if sum == nil {
			sum = &UsagePruned{UserID: e.UserID, RecordID: e.RecordID}
			byRecord[e.RecordID] = sum
		}
		sum.Events++
		if e.VoidedAt == nil {
			sum.Units, sum.Overage, sum.Cents = sum.Units+e.Quantity, sum.Overage+e.OverageQuantity, sum.Cents+e.OverageCents
		} else if v := f.voids[e.ID]; v.StripeReportID != nil {
			byReport[*v.StripeReportID] -= v.OverageQuantity
		}
		if e.StripeReportID == nil {
			continue
		}
		if f.reports[*e.StripeReportID].Counts == CountsQuantity {
			byReport[*e.StripeReportID] += e.Quantity
		} else {
			byReport[*e.StripeReportID] += e.OverageQuantity
		}
	}
	for _, id := range slices.Sorted(maps.Keys(byRecord)) {
		records = append(records, *byRecord[id])
	}
	for _, id := range sortedIDs(byReport) {
		reports = append(reports, ReportPruned{ReportID: id, Units: byReport[id]})
	}
	return records, reports
}

func sortedIDs[V any](of map[uuid.UUID]V) []uuid.UUID {
	return slices.SortedFunc(maps.Keys(of), func(a, b uuid.UUID) int { return bytes.Compare(a[:], b[:]) })
}
