package models

import (
	"context"
	"slices"
	"time"

	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect"
	"github.com/uptrace/bun/schema"
)

// maxFits limits how often a person's records are refitted; two passes are enough for a single
// change.
const maxFits = 4

// eventsAhead is how far in the future an event may be: the API accepts 5 minutes, and the clocks
// of processes may differ.
const eventsAhead = 10 * time.Minute

// refit is a record whose bounds changed.
type refit struct {
	record *UsageRecord
	// start is the previous start of the record.
	start time.Time
	// moves means that the record may have units outside its new bounds.
	moves bool
	// into is the record that receives all its units; nil if it stays.
	into *UsageRecord
}

// fit ends each record where the person's entitlement and the known billing periods require it, but
// not after the start of the next record. A record of the same payer that begins within the period
// of the previous one, because that period was lengthened, joins it. A record with deleted events
// stays as it is, because the events that would have to move are gone. fit returns the changed records.
func (p *person) fit(now time.Time) (changed []refit) {
	for i := 0; i < len(p.records); i++ {
		r := p.records[i]
		end, ok := p.endOf(i, now)
		if !ok || p.pruned[r.ID] {
			continue
		}
		before := r.BillingPeriodEnd.UTC()
		for last := before; i+1 < len(p.records) && p.records[i+1].BillingPeriodStart.Before(end); {
			next := p.records[i+1]
			if p.pruned[next.ID] || end.Sub(r.BillingPeriodStart) > maxPeriod || !next.BillingPeriodStart.Equal(last) || !samePayer(r, next) {
				end = next.BillingPeriodStart.UTC()
				break
			}
			if last = next.BillingPeriodEnd; last.After(end) && !end.After(now) {
				changed = append(changed, refit{record: next, start: next.BillingPeriodStart, moves: true})
				next.BillingPeriodStart, next.IncludedBefore = end, 0
				break
			}
			changed = append(changed, refit{record: next, start: next.BillingPeriodStart, moves: true, into: r})
			if next.SuggestionsIncluded > r.SuggestionsIncluded {
				r.SuggestionsIncluded = next.SuggestionsIncluded
				r.raised()
			}
			p.records = slices.Delete(p.records, i+1, i+2)
		}
		if !end.Equal(before) && end.Sub(r.BillingPeriodStart) <= maxPeriod {
			r.BillingPeriodEnd = end
			changed = append(changed, refit{record: r, start: r.BillingPeriodStart, moves: end.Before(before) && !end.After(now.Add(eventsAhead))})
		}
	}
	return changed
}

// endOf returns where a record ends; ok is false if the end is unknown.
func (p *person) endOf(i int, now time.Time) (end time.Time, ok bool) {
	r, e := p.records[i], &p.entitlement
	paying := r.Payer != nil && *r.Payer == e.payer()
	switch {
	case r.Period().Contains(now):
		end, ok = e.end(r, now)
	case r.BillingPeriodStart.Before(now) && r.Payer != nil && !paying:
		end = e.changed(*r.Payer)
		ok = end.After(r.BillingPeriodStart) && end.Before(r.BillingPeriodEnd)
	}
	if r.Payer == nil || byHand(*r.Payer) {
		return end, ok
	}
	own, known := e.known.period(*r.Payer, r.BillingPeriodStart)
	if !known {
		return end, ok
	}
	if !ok {
		// The record grows only if no other payer can lie in between: no record follows and nothing
		// changed since, or the next record has the same payer.
		if end = r.BillingPeriodEnd.UTC(); i+1 < len(p.records) && r.BillingPeriodEnd.Equal(p.records[i+1].BillingPeriodStart) &&
			samePayer(r, p.records[i+1]) ||
			i+1 == len(p.records) && paying && !e.begins().After(r.BillingPeriodStart) && !e.newest().After(end) {
			end = own.End
		}
	}
	return earliest(end, own.End), true
}

func samePayer(a, b *UsageRecord) bool {
	return a.Payer != nil && b.Payer != nil && *a.Payer == *b.Payer
}

func earliest(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// move stores the new bounds of a record. Units outside them move to the record of their time:
// events with the overage that was decided, open holds, and grants. A record that joined another one
// is deleted.
func (p *person) move(ctx context.Context, db *DB, conn ledgerConn, c *Catalogue, now time.Time, changed refit) error {
	from := changed.record
	var moved []movedUnits
	if changed.moves {
		if err := conn.rows(ctx, movedQuery(db, changed).String(), func(row scanner) error {
			var m movedUnits
			err := row.Scan(&m.at, &m.held, &m.quantity, &m.overage, &m.cents, &m.expires)
			moved = append(moved, m)
			return err
		}); err != nil {
			return err
		}
	}
	for i := range moved {
		moved[i].count(from, changed.start, -1)
		if !moved[i].held {
			from.OverageMovedOut += moved[i].overage
		}
	}
	joined, err := p.moveGrants(ctx, db, conn, c, now, changed)
	if err != nil {
		return err
	}
	from.Daily = from.Daily.From(DayOf(changed.start, from.BillingPeriodStart))
	if from.UnitsHeld == 0 {
		from.HoldsExpireAt = nil
	}
	if changed.into == nil {
		if from.HoldsExpireAt != nil {
			from.HoldsExpireAt = new(from.holdsExpireBy(*from.HoldsExpireAt))
		}
		if _, err := db.NewUpdate().Conn(conn).Model(from).Column("billing_period_start", "billing_period_end", "suggestions_included",
			"included_before").
			Column(countedColumns...).WherePK().Where("user_id = ?", p.user).Exec(ctx); err != nil {
			return err
		}
	}
	for i := range moved {
		r, err := p.recordAt(c, now, moved[i].at.UTC())
		if err != nil {
			return err
		}
		moved[i].join(r)
		joined = append(joined, r)
	}
	for i, r := range joined {
		if slices.Contains(joined[:i], r) {
			continue
		}
		r.joinMessages(from.MessageLevel)
		if err := p.moveTo(ctx, db, conn, from, r); err != nil {
			return err
		}
	}
	if changed.into == nil {
		return p.endHolds(ctx, db, conn, from)
	}
	// Only holds that ended without an event are left.
	if _, err := db.NewUpdate().Conn(conn).Model((*UsageHold)(nil)).Set("record_id = ?", changed.into.ID).
		Where("user_id = ? AND record_id = ?", p.user, from.ID).Exec(ctx); err != nil {
		return err
	}
	_, err = db.NewDelete().Conn(conn).Model(from).WherePK().Where("user_id = ?", p.user).Exec(ctx)
	return err
}

// moveTo stores a record with the units that joined it, and moves their events, holds and grants to
// it.
func (p *person) moveTo(ctx context.Context, db *DB, conn ledgerConn, from, r *UsageRecord) error {
	write := db.NewInsert().Model(r).String()
	if r.ID != 0 {
		write = db.NewUpdate().Model(r).Column(countedColumns...).WherePK().Where("user_id = ?", p.user).String()
	}
	if _, err := conn.ExecContext(ctx, write); err != nil {
		return err
	}
	if r.ID == 0 {
		stored := db.NewSelect().Model((*UsageRecord)(nil)).Column("id").Where("user_id = ? AND billing_period_start = ?", p.user,
			r.BillingPeriodStart)
		if err := conn.rows(ctx, stored.String(), func(row scanner) error { return row.Scan(&r.ID) }); err != nil {
			return err
		}
	}
	for _, q := range []*bun.UpdateQuery{
		db.NewUpdate().Conn(conn).Model((*UsageHold)(nil)).Set("record_id = ?", r.ID).Where("user_id = ? AND record_id = ?", p.user, from.ID).
			Where("state = ? AND created_at >= ? AND created_at < ? OR id IN (SELECT e.hold_id FROM usage_events e WHERE e.user_id = ? "+
				"AND e.record_id = ? "+
				"AND e.occurred_at >= ? AND e.occurred_at < ?)", HoldOpen, r.BillingPeriodStart, r.BillingPeriodEnd, p.user, from.ID,
				r.BillingPeriodStart, r.BillingPeriodEnd),
		db.NewUpdate().Conn(conn).Model((*UsageEvent)(nil)).Set("record_id = ?", r.ID).Where("user_id = ? AND record_id = ?", p.user, from.ID).
			Where("occurred_at >= ? AND occurred_at < ?", r.BillingPeriodStart, r.BillingPeriodEnd),
		db.NewUpdate().Conn(conn).Model((*UsageGrant)(nil)).Set("record_id = ?", r.ID).Where("user_id = ? AND record_id = ?", p.user, from.ID).
			Where("created_at >= ? AND created_at < ?", r.BillingPeriodStart, r.BillingPeriodEnd),
	} {
		if _, err := q.Exec(ctx); err != nil {
			return err
		}
	}
	return p.endHolds(ctx, db, conn, r)
}

// endHolds limits the expiry of a record's open holds to HoldsOutlivePeriod after its period.
func (p *person) endHolds(ctx context.Context, db *DB, conn ledgerConn, r *UsageRecord) error {
	if r.HoldsExpireAt == nil {
		return nil
	}
	last := r.BillingPeriodEnd.Add(HoldsOutlivePeriod)
	_, err := db.NewUpdate().Conn(conn).Model((*UsageHold)(nil)).Set("expires_at = ?", last).
		Where("user_id = ? AND record_id = ? AND state = ? AND expires_at > ?", p.user, r.ID, HoldOpen, last).Exec(ctx)
	return err
}

// holdsExpireBy limits the expiry of a hold to what the record's period allows.
func (r *UsageRecord) holdsExpireBy(expires time.Time) time.Time {
	return earliest(expires.UTC(), r.BillingPeriodEnd.Add(HoldsOutlivePeriod).UTC())
}

// countedColumns are the counters of a record.
var countedColumns = []string{"suggestions_used", "overage_used", "overage_cents", "units_held", "overage_held",
	"overage_cents_held", "holds_expire_at", "daily", "granted", "grants_expire_at",
	"overage_moved_in", "overage_moved_out", "message_level", "limit_raises"}

// movedUnits is an event or an open hold outside the new bounds of its record.
type movedUnits struct {
	at                       bun.NullTime
	held                     bool
	quantity, overage, cents int64
	expires                  bun.NullTime
}

// movedQuery selects the events and open holds outside a record's new bounds; voided events count
// as zero units.
func movedQuery(db bun.IDB, changed refit) *bun.RawQuery {
	r := changed.record
	outside := func(column string) schema.QueryAppender {
		if changed.into != nil {
			return bun.SafeQuery("1 = 1")
		}
		return bun.SafeQuery("(? >= ? OR ? < ?)", bun.Ident(column), r.BillingPeriodEnd, bun.Ident(column), r.BillingPeriodStart)
	}
	return db.NewRaw(`SELECT occurred_at, FALSE, CASE WHEN voided_at IS NULL THEN quantity ELSE 0 END, CASE
		WHEN voided_at IS NULL THEN overage_quantity ELSE 0 END,
				CASE WHEN voided_at IS NULL THEN overage_cents ELSE 0 END, CAST(NULL AS ?) FROM usage_events
			WHERE user_id = ? AND record_id = ? AND ?
		UNION ALL SELECT created_at, TRUE, quantity, overage_quantity, overage_cents, expires_at FROM usage_holds
			WHERE user_id = ? AND record_id = ? AND state = ? AND ?`,
		bun.Safe(timeType(db)), r.UserID, r.ID, outside("occurred_at"), r.UserID, r.ID, HoldOpen, outside("created_at"))
}

func timeType(db bun.IDB) string {
	if db.Dialect().Name() == dialect.PG {
		return "timestamptz"
	}
	return "timestamp"
}

// join adds the units to a record.
func (m *movedUnits) join(r *UsageRecord) {
	m.count(r, r.BillingPeriodStart, 1)
	if !m.held {
		r.OverageMovedIn += m.overage
	}
	if expires := r.holdsExpireBy(m.expires.Time); m.held && (r.HoldsExpireAt == nil || expires.Before(*r.HoldsExpireAt)) {
		r.HoldsExpireAt = &expires
	}
}

// count adds the units to a record, or subtracts them; the record's days begin at start.
func (m *movedUnits) count(r *UsageRecord, start time.Time, sign int64) {
	if m.held {
		r.UnitsHeld += sign * m.quantity
		r.OverageHeld += sign * m.overage
		r.OverageCentsHeld += sign * m.cents
		return
	}
	r.SuggestionsUsed += sign * m.quantity
	r.OverageUsed += sign * m.overage
	r.OverageCents += sign * m.cents
	r.Daily = r.Daily.Add(DayOf(start, m.at.Time), sign*m.quantity)
}
