package models

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/uptrace/bun"
)

// PrepareRecords makes sure that each record exists and that units can be added to it: it creates
// missing people and records, applies changes of the plan (an upgrade at once; a downgrade does not
// reduce the included units before the period ends) and expires holds. It is one transaction.
// Calling it again changes nothing.
func PrepareRecords(ctx context.Context, db *DB, c *Catalogue, now time.Time, wants []RecordKey) error {
	_, err := LinkAndPrepare(ctx, db, c, now, nil, func([]LinkedPerson) []RecordKey { return wants })
	return err
}

// RefitRecords updates the newest record of each person, and moves units to the record of the time
// when they were used. Unlike PrepareRecords, it creates no record for a period without usage.
func RefitRecords(ctx context.Context, db *DB, c *Catalogue, now time.Time, users []uuid.UUID) error {
	var newest []struct {
		UserID uuid.UUID `bun:",type:uuid"`
		Start  bun.NullTime
	}
	if err := db.NewSelect().TableExpr("usage_records").Column("user_id").ColumnExpr("MAX(billing_period_start) AS start").
		Where("user_id IN (?) AND billing_period_start <= ?", bun.List(users), now).Group("user_id").Scan(ctx, &newest); err != nil {
		return fmt.Errorf("find the newest records of %d people: %w", len(users), err)
	}
	if len(newest) == 0 {
		return nil
	}
	wants := make([]RecordKey, len(newest))
	for i, n := range newest {
		wants[i] = RecordKey{UserID: n.UserID, At: n.Start.UTC()}
	}
	return PrepareRecords(ctx, db, c, now, wants)
}

// PreparedRecord is a current record after its preparation.
type PreparedRecord struct {
	bun.BaseModel `bun:"table:usage_records"`
	UsageRecord

	// Version is the row's xmin, the transaction that wrote it.
	Version uint32 `db:"xmin" bun:"xmin"`
}

// LinkAndPrepare does LinkPeople and PrepareRecords in one transaction; people returns the records
// to prepare, given the linked people. On PostgreSQL, where a round trip may take long, it returns
// the current records of these people.
func LinkAndPrepare(ctx context.Context, db *DB, c *Catalogue, now time.Time, links []Link,
	people func([]LinkedPerson) []RecordKey) (prepared []PreparedRecord, err error) {
	if db.Postgres {
		err = db.inBatchTx(ctx, func(ctx context.Context, t *batchTx) error {
			var linked []LinkedPerson
			if len(links) > 0 {
				if linked, err = t.linkPeople(ctx, now, links); err != nil {
					return err
				}
			}
			wants := people(linked)
			persons, err := t.lockPeople(ctx, now, wants)
			if err != nil {
				return err
			}
			if err := prepareAll(ctx, db, t, c, now, wants, persons); err != nil {
				return err
			}
			prepared = nil // of an earlier try
			ids := make([]uuid.UUID, 0, len(persons))
			for _, p := range persons {
				ids = append(ids, p.user)
			}
			readInto(t, db.NewSelect().Model((*PreparedRecord)(nil)).
				Where("user_id IN (?) AND billing_period_start <= ? AND billing_period_end > ?", bun.List(ids), now, now), &prepared)
			return nil
		})
	} else {
		err = db.InTx(ctx, func(ctx context.Context, tx bun.Tx) error {
			var linked []LinkedPerson
			if len(links) > 0 {
				if linked, err = linkPeople(ctx, db, tx, now, links); err != nil {
					return err
				}
			}
			wants := people(linked)
			persons, err := lockPeople(ctx, tx, now, wants)
			if err != nil {
				return err
			}
			return prepareAll(ctx, db, inTx{tx}, c, now, wants, persons)
		})
	}
	if err != nil {
		return nil, fmt.Errorf("link %d people and prepare records: %w", len(links), err)
	}
	return prepared, nil
}

func prepareAll(ctx context.Context, db *DB, conn ledgerConn, c *Catalogue, now time.Time, wants []RecordKey, people persons) error {
	byEmail := make(map[string]*person, len(people))
	for _, p := range people {
		byEmail[p.email] = p
	}
	spending, err := startSpending(ctx, db, conn, now, people)
	if err != nil {
		return err
	}
	for _, w := range wants {
		p := people[w.UserID]
		if w.UserID == uuid.Nil {
			p = byEmail[w.Email]
		}
		if p != nil { // a person who was named by ID may have been deleted
			if err := p.prepare(ctx, db, conn, c, now, w.At); err != nil {
				return err
			}
		}
	}
	return spending.finish(ctx, db, conn, now, people)
}

// person is a person whose row in users is locked. The lock serializes everything that creates or
// changes their periods.
type person struct {
	user        uuid.UUID
	email       string
	entitlement Entitlement
	// records are ordered by period and never overlap.
	records []*UsageRecord
	// pruned has the IDs of records with deleted events, which are fixed.
	pruned  map[int64]bool
	changes changes
	// at reads the person's entitlement at an instant.
	at func(at time.Time) (Entitlement, error)
	// past are the periods of those instants that organizations paid for.
	past []paidPeriod
}

// persons maps IDs to people.
type persons map[uuid.UUID]*person

// namedBy returns the emails of the people who are named by email, and the IDs of the others.
func namedBy(wants []RecordKey) (emails []string, ids []uuid.UUID) {
	for _, w := range wants {
		if w.UserID == uuid.Nil {
			emails = append(emails, w.Email)
		} else {
			ids = append(ids, w.UserID)
		}
	}
	slices.Sort(emails)
	return slices.Compact(emails), ids
}

// usersQuery selects the named people in the order in which they are locked.
func usersQuery(db bun.IDB, emails []string, ids []uuid.UUID) *bun.SelectQuery {
	return namedUsers(db, emails, ids).Column("email").Order("email")
}

// namedUsers selects the IDs of the named people.
func namedUsers(db bun.IDB, emails []string, ids []uuid.UUID) *bun.SelectQuery {
	q := db.NewSelect().Model((*User)(nil)).Column("id")
	if len(emails) > 0 || len(ids) == 0 {
		q = q.WhereOr("email IN (?)", bun.List(emails))
	}
	if len(ids) > 0 {
		q = q.WhereOr("id IN (?)", bun.List(ids))
	}
	return q
}

func (p persons) add(row scanner) error {
	var found person
	err := row.Scan(&found.user, &found.email)
	p[found.user] = &found
	return err
}

func (p persons) ids() []uuid.UUID {
	return slices.SortedFunc(maps.Keys(p), func(a, b uuid.UUID) int { return slices.Compare(a[:], b[:]) })
}

func recordsQuery(db bun.IDB, ids []uuid.UUID) *bun.SelectQuery {
	return db.NewSelect().Model((*UsageRecord)(nil)).Where("user_id IN (?)", bun.List(ids)).Order("email", "billing_period_start")
}

func lockPeople(ctx context.Context, tx bun.Tx, now time.Time, wants []RecordKey) (persons, error) {
	emails, ids := namedBy(wants)
	if err := ensureUsers(ctx, tx, emails, now); err != nil {
		return nil, err
	}
	people := persons{}
	if err := eachRow(ctx, tx, ForUpdate(usersQuery(tx, emails, ids)), people.add); err != nil {
		return nil, err
	}
	var records []*UsageRecord
	if err := ForUpdate(recordsQuery(tx, people.ids())).Scan(ctx, &records); err != nil {
		return nil, err
	}
	// Retention holds a record's lock while it deletes events.
	if err := eachRow(ctx, tx, prunedQuery(tx, bun.List(people.ids())), people.addPruned); err != nil {
		return nil, err
	}
	// Read this only under the locks: later changes then find the records that this transaction
	// leaves.
	entitlements, err := EntitlementsOf(ctx, tx, people.ids())
	if err != nil {
		return nil, err
	}
	all := map[uuid.UUID]*changes{}
	if err := eachRow(ctx, tx, changesQuery(tx, bun.List(people.ids())), func(row scanner) error { return addChange(row, all) }); err != nil {
		return nil, err
	}
	people.gather(now, records, entitlements, all, func(user uuid.UUID, at time.Time) (Entitlement, error) {
		return entitlementAt(ctx, tx, user, at)
	})
	return people, nil
}

// gather adds what was read to the people.
func (p persons) gather(now time.Time, records []*UsageRecord, entitlements map[uuid.UUID]Entitlement, all map[uuid.UUID]*changes,
	entitlementAt func(uuid.UUID, time.Time) (Entitlement, error),
) {
	for id, found := range p {
		found.entitlement = entitlements[id]
		if all[id] != nil {
			found.changes = *all[id]
			found.changes.order()
		}
		found.changes.note(&found.entitlement, now, now)
		found.at = func(at time.Time) (Entitlement, error) {
			e, err := entitlementAt(id, at)
			found.changes.note(&e, at, now)
			if e.OrganizationID != nil { // a limit that was removed since still applies to ended periods
				found.past = append(found.past, paidPeriod{*e.OrganizationID, e.payer(), e.PeriodAt(at)})
			}
			return e, err
		}
	}
	for _, r := range records {
		if found := p[r.UserID]; found != nil { // another person may have got the email between two statements
			found.records = append(found.records, r)
		}
	}
}

// lockPeople does the same in two round trips. It reads the entitlements at the requested instants
// in advance.
func (t *batchTx) lockPeople(ctx context.Context, now time.Time, wants []RecordKey) (persons, error) {
	db := t.db
	emails, ids := namedBy(wants)
	if err := t.ensureUsers(ctx, emails, now); err != nil {
		return nil, err
	}
	people := persons{}
	t.read(ForUpdate(usersQuery(db, emails, ids)).String(), people.add)
	among := namedUsers(db, emails, ids)
	var rows []UsageRecord
	readInto(t, ForUpdate(db.NewSelect().Model((*UsageRecord)(nil)).Where("user_id IN (?)", among).
		Order("email", "billing_period_start")), &rows)
	t.read(prunedQuery(db, among).String(), people.addPruned)
	entitlements := map[uuid.UUID]Entitlement{}
	t.read(entitlementsQuery(db, bun.SafeQuery("k.id IN (?)", among)).String(),
		func(row scanner) error { return scanPresent(row, entitlements) })
	all := map[uuid.UUID]*changes{}
	t.read(changesQuery(db, among).String(), func(row scanner) error { return addChange(row, all) })
	type instant struct {
		want RecordKey
		at   time.Time
	}
	then := map[instant]Entitlement{}
	for _, w := range wants {
		if !w.At.Equal(now) {
			t.read(entitlementAtQuery(db, true, w, w.At).String(), func(row scanner) error {
				var e Entitlement
				var user uuid.UUID
				err := scanEntitlement(row, &user, &e)
				then[instant{RecordKey{UserID: user}, w.At.UTC()}] = e
				return err
			})
		}
	}
	if err := t.send(ctx); err != nil {
		return nil, err
	}
	records := make([]*UsageRecord, len(rows))
	for i := range rows {
		records[i] = &rows[i]
	}
	people.gather(now, records, entitlements, all, func(user uuid.UUID, at time.Time) (Entitlement, error) {
		e, read := then[instant{RecordKey{UserID: user}, at.UTC()}]
		if read {
			return e, nil
		}
		err := t.rows(ctx, entitlementAtQuery(db, true, RecordKey{UserID: user}, at).String(),
			func(row scanner) error { return scanEntitlement(row, &user, &e) })
		return e, err
	})
	return people, nil
}

// prepare updates the person's record at an instant, as described at PrepareRecords.
func (p *person) prepare(ctx context.Context, db *DB, conn ledgerConn, c *Catalogue, now, at time.Time) error {
	// After units have moved, two records may belong together.
	for range maxFits {
		all := p.fit(now)
		if len(all) == 0 {
			break
		}
		for _, changed := range all {
			if err := p.move(ctx, db, conn, c, now, changed); err != nil {
				return err
			}
		}
	}
	record, _, _ := p.find(at)
	if record == nil {
		e, err := p.entitlementAt(now, at)
		if err != nil {
			return err
		}
		return p.insert(ctx, db, conn, p.place(c, e, now, at))
	}
	if record.Period().Contains(now) {
		before, _ := c.Standing(record, now)
		c.entitle(record, &p.entitlement)
		// A limit that was lowered may refuse the next unit.
		after, _ := c.Standing(record, now)
		if reached := Crossed(&before, &after, record.LimitRaises, now); len(reached) > 0 {
			if _, err := conn.ExecContext(ctx, db.NewInsert().Model(&reached).On("CONFLICT DO NOTHING").String()); err != nil {
				return err
			}
		}
		if _, err := db.NewUpdate().Conn(conn).Model(record).WherePK().Where("user_id = ?", p.user).
			Column("plan_id", "suggestions_included", "overage_rate_cents", "past_due", "spend_limit_cents", "member_limit", "workspace_id",
				"slack_team_id",
				"slack_user_id",
				"stripe_customer_id", "stripe_meter_id", "payer", "entitled", "message_level", "limit_raises").
			Exec(ctx); err != nil {
			return err
		}
	}
	if record.holdsLapsed(now) {
		if err := expireHolds(ctx, db, conn, record, record.OrganizationRecordID != nil || p.limited(), now); err != nil {
			return err
		}
	}
	if record.grantsLapsed(now) {
		return takeBackGrants(ctx, db, conn, record, now)
	}
	return nil
}

// limited reports whether a record of the person may point to an organization's record when the
// transaction ends.
func (p *person) limited() bool {
	return p.entitlement.OrganizationSpendLimitCents != nil || len(p.past) > 0
}

// recordAt returns the record that contains an instant, or a new one that is not stored.
func (p *person) recordAt(c *Catalogue, now, at time.Time) (*UsageRecord, error) {
	r, _, _ := p.find(at)
	if r == nil {
		e, err := p.entitlementAt(now, at)
		if err != nil {
			return nil, err
		}
		r = p.place(c, e, now, at)
		p.keep(r)
	}
	return r, nil
}

// entitlementAt returns the person's entitlement at an instant. It reads the past one for an
// instant before the current period or before the last change of the plan.
func (p *person) entitlementAt(now, at time.Time) (*Entitlement, error) {
	e := &p.entitlement
	current := e.PeriodAt(now)
	if current.Contains(at) && (!at.Before(e.newest()) || !at.Before(now)) {
		return e, nil
	}
	then, err := p.at(at)
	if err != nil {
		return nil, err
	}
	if begins := latest(current.Start, e.begins()); at.Before(begins) && (then.Until.IsZero() || begins.Before(then.Until)) {
		then.Until = begins
	}
	changed := e.begins()
	if before := then.payer(); before != e.payer() {
		changed = e.changed(before)
	}
	if !current.Contains(at) || at.Before(changed) {
		return &then, nil
	}
	return e, nil
}

// place returns a new record for an instant without one. In the rest of a payer's period, the
// person continues with the included units that were left.
func (p *person) place(c *Catalogue, e *Entitlement, now, at time.Time) *UsageRecord {
	_, previousEnd, nextStart := p.find(at)
	whole := e.PeriodAt(at)
	begins := e.begins()
	if begins.After(at) {
		begins = time.Time{}
	}
	period := whole.clip(previousEnd, nextStart).clip(begins, e.Until)
	r := &UsageRecord{UserID: p.user, Email: p.email, BillingPeriodStart: period.Start, BillingPeriodEnd: period.End, CreatedAt: now}
	for _, earlier := range p.records {
		if earlier.Payer != nil && *earlier.Payer == e.payer() && !earlier.BillingPeriodStart.Before(whole.Start) &&
			earlier.BillingPeriodStart.Before(period.Start) {
			r.SuggestionsIncluded = max(r.SuggestionsIncluded, earlier.SuggestionsIncluded+earlier.IncludedBefore)
			used := earlier.SuggestionsUsed - earlier.OverageUsed
			if !earlier.holdsLapsed(now) { // expired holds give their units back, even before that is stored
				used += earlier.UnitsHeld - earlier.OverageHeld
			}
			// Units of grants are not the plan's. They end with their record.
			r.IncludedBefore += used - min(earlier.Granted, max(0, used-earlier.SuggestionsIncluded))
		}
	}
	r.SuggestionsIncluded = max(0, r.SuggestionsIncluded-r.IncludedBefore)
	c.entitle(r, e)
	r.Entitled = period.Contains(now) // what it repeats is current only in the current period
	return r
}

// insert inserts a new record.
func (p *person) insert(ctx context.Context, db *DB, conn bun.IConn, r *UsageRecord) error {
	// Do not use bun's Exec, which would read the record's ID.
	if _, err := conn.ExecContext(ctx, db.NewInsert().Model(r).String()); err != nil {
		return err
	}
	p.keep(r)
	return nil
}

func (p *person) keep(r *UsageRecord) {
	p.records = append(p.records, r)
	slices.SortFunc(p.records, func(a, b *UsageRecord) int { return a.BillingPeriodStart.Compare(b.BillingPeriodStart) })
}

// find returns the record that contains t, or else the end of the previous record and the start of
// the next one.
func (p *person) find(t time.Time) (record *UsageRecord, previousEnd, nextStart time.Time) {
	for _, r := range p.records {
		switch period := r.Period(); {
		case period.Contains(t):
			return r, time.Time{}, time.Time{}
		case !period.End.After(t):
			if period.End.After(previousEnd) {
				previousEnd = period.End
			}
		case nextStart.IsZero() || period.Start.Before(nextStart):
			nextStart = period.Start
		}
	}
	return nil, previousEnd, nextStart
}
