package models

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/uptrace/bun"
)

// Want names a usage record by somebody's email and an instant of its billing period.
type Want struct {
	Email string
	At    time.Time
}

// PrepareRecords makes sure that each wanted record exists and is fit to be added to: the person is known, a period that
// began has its record, a plan that changed is applied (an upgrade at once; a downgrade never lowers what is included
// before the period ends) and lapsed holds are given back. It is one transaction, and does nothing the second time.
func PrepareRecords(ctx context.Context, db *DB, c *Catalogue, now time.Time, wants []Want) error {
	_, err := LinkAndPrepare(ctx, db, c, now, nil, wants)
	return err
}

// PreparedRecord is a current record as its preparation left it.
type PreparedRecord struct {
	bun.BaseModel `bun:"table:usage_records"`
	UsageRecord

	// Version is the row's xmin: the transaction that wrote it.
	Version uint32 `db:"xmin" bun:"xmin"`
}

// LinkAndPrepare is LinkPeople and PrepareRecords in one transaction. On PostgreSQL, where a round trip may take long, it returns the
// current records of these people.
func LinkAndPrepare(ctx context.Context, db *DB, c *Catalogue, now time.Time, links []Link, wants []Want) (prepared []PreparedRecord, err error) {
	emails := make([]string, 0, len(wants))
	for _, w := range wants {
		emails = append(emails, w.Email)
	}
	slices.Sort(emails)
	emails = slices.Compact(emails)
	if db.Postgres {
		err = db.inTrips(ctx, func(ctx context.Context, t *trips) error {
			if len(links) > 0 {
				if _, err := t.linkPeople(ctx, now, links); err != nil {
					return err
				}
			}
			people, err := t.lockPeople(ctx, emails, now, wants)
			if err != nil {
				return err
			}
			if err := prepareAll(ctx, db, t, c, now, wants, people); err != nil {
				return err
			}
			prepared = nil // of an earlier try
			readInto(t, db.NewSelect().Model((*PreparedRecord)(nil)).
				Where("email IN (?) AND billing_period_start <= ? AND billing_period_end > ?", bun.List(emails), now, now), &prepared)
			return nil
		})
	} else {
		err = db.InTx(ctx, func(ctx context.Context, tx bun.Tx) error {
			if len(links) > 0 {
				if _, err := linkPeople(ctx, db, tx, now, links); err != nil {
					return err
				}
			}
			people, err := lockPeople(ctx, db, tx, emails, now)
			if err != nil {
				return err
			}
			return prepareAll(ctx, db, tx, c, now, wants, people)
		})
	}
	if err != nil {
		return nil, fmt.Errorf("link %d people and prepare %d records: %w", len(links), len(wants), err)
	}
	return prepared, nil
}

func prepareAll(ctx context.Context, db *DB, conn bun.IConn, c *Catalogue, now time.Time, wants []Want, people map[string]*person) error {
	for _, w := range wants {
		if err := people[w.Email].prepare(ctx, db, conn, c, now, w.At); err != nil {
			return err
		}
	}
	return nil
}

// person is somebody under the lock of their row in users, which serializes all that makes or changes their periods.
type person struct {
	email       string
	entitlement Entitlement
	// records stand in order of their periods, and never overlap.
	records []*UsageRecord
	// at reads what the person might use at an instant.
	at func(at time.Time) (Entitlement, error)
}

func lockPeople(ctx context.Context, db *DB, tx bun.Tx, emails []string, now time.Time) (map[string]*person, error) {
	if err := ensureUsers(ctx, tx, emails, now); err != nil {
		return nil, err
	}
	if err := db.ForUpdate(tx.NewSelect().Model((*User)(nil)).Column("email").Where("email IN (?)", bun.List(emails)).Order("email")).Scan(ctx, new([]string)); err != nil {
		return nil, err
	}
	var records []*UsageRecord
	if err := db.ForUpdate(tx.NewSelect().Model(&records).Where("email IN (?)", bun.List(emails)).Order("email", "billing_period_start")).Scan(ctx); err != nil {
		return nil, err
	}
	// Only now, under the locks: what changes from here on finds the records as they will be.
	entitlements, err := EntitlementsOf(ctx, tx, now, emails)
	if err != nil {
		return nil, err
	}
	return gather(emails, records, entitlements, func(email string, at time.Time) (Entitlement, error) { return entitlementAt(ctx, tx, email, at) }), nil
}

func gather(emails []string, records []*UsageRecord, entitlements map[string]Entitlement, entitlementAt func(string, time.Time) (Entitlement, error)) map[string]*person {
	people := make(map[string]*person, len(emails))
	for _, email := range emails {
		people[email] = &person{
			email: email, entitlement: entitlements[email],
			at: func(at time.Time) (Entitlement, error) { return entitlementAt(email, at) },
		}
	}
	for _, r := range records {
		people[r.Email].records = append(people[r.Email].records, r)
	}
	return people
}

// lockPeople is the same in one round trip. What the people might use at the instants that are wanted is read in advance.
func (t *trips) lockPeople(ctx context.Context, emails []string, now time.Time, wants []Want) (map[string]*person, error) {
	db := t.db
	if err := t.ensureUsers(ctx, emails, now); err != nil {
		return nil, err
	}
	t.read(db.ForUpdate(db.NewSelect().Model((*User)(nil)).Column("email").Where("email IN (?)", bun.List(emails)).Order("email")).String(), nil)
	var rows []UsageRecord
	readInto(t, db.ForUpdate(db.NewSelect().Model((*UsageRecord)(nil)).Where("email IN (?)", bun.List(emails)).Order("email", "billing_period_start")), &rows)
	entitlements := make(map[string]Entitlement, len(emails))
	t.read(entitlementsQuery(db, now, emails).String(), func(row scanner) error { return scanPresent(row, entitlements) })
	type instant struct {
		email string
		at    time.Time
	}
	then := map[instant]Entitlement{}
	for _, w := range wants {
		if !w.At.Equal(now) {
			t.read(entitlementAtQuery(db, true, w.Email, w.At).String(), func(row scanner) error {
				var e Entitlement
				err := scanEntitlement(row, new(string), &e)
				then[instant{w.Email, w.At.UTC()}] = e
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
	return gather(emails, records, entitlements, func(email string, at time.Time) (Entitlement, error) { return then[instant{email, at.UTC()}], nil }), nil
}

// ensureUsers adds the users that are missing.
func (t *trips) ensureUsers(ctx context.Context, emails []string, now time.Time) error {
	if len(emails) == 0 {
		return nil
	}
	users := make([]User, len(emails))
	for i, email := range emails {
		users[i] = User{ID: uuid.Must(uuid.NewV7()), Email: email, Role: Member, CreatedAt: now}
	}
	_, err := t.ExecContext(ctx, t.db.NewInsert().Model(&users).On("CONFLICT (email) DO NOTHING").String())
	return err
}

// EntitlementsOf reads what the people with these emails may use now. Somebody unknown is missing from the answer.
func EntitlementsOf(ctx context.Context, db bun.IDB, now time.Time, emails []string) (map[string]Entitlement, error) {
	found := make(map[string]Entitlement, len(emails))
	err := eachRow(ctx, db, entitlementsQuery(db, now, emails), func(row scanner) error { return scanPresent(row, found) })
	return found, err
}

func entitlementsQuery(db bun.IDB, now time.Time, emails []string) *bun.RawQuery {
	return db.NewRaw(`SELECT k.email, `+EntitlementColumns+`,
			(SELECT MAX(r.billing_period_end) FROM usage_records r WHERE r.email = k.email AND r.billing_period_end <= ?),
			(SELECT MIN(r.billing_period_start) FROM usage_records r WHERE r.email = k.email AND r.billing_period_start > ?)
		FROM users k `+EntitlementJoins+` WHERE k.email IN (?)`, now, now, bun.List(emails))
}

func scanPresent(row scanner, found map[string]Entitlement) error {
	var email string
	var e Entitlement
	var end, start bun.NullTime
	err := scanEntitlement(row, &email, &e, &end, &start)
	e.PreviousEnd, e.NextStart = end.Time, start.Time
	found[email] = e
	return err
}

// eachRow sends a query and gives each of its rows to row.
func eachRow(ctx context.Context, db bun.IDB, query fmt.Stringer, row func(scanner) error) error {
	rows, err := db.QueryContext(ctx, query.String())
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := row(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// entitlementAt reads what somebody might use at an instant; the zero value when they are unknown.
func entitlementAt(ctx context.Context, tx bun.IDB, email string, at time.Time) (e Entitlement, err error) {
	err = eachRow(ctx, tx, entitlementAtQuery(tx, false, email, at), func(row scanner) error { return scanEntitlement(row, &email, &e) })
	return e, err
}

func entitlementAtQuery(db bun.IDB, postgres bool, email string, at time.Time) *bun.RawQuery {
	k := "(SELECT ? AS email, ? AS at) k "
	if postgres {
		k = "(SELECT CAST(? AS text) AS email, CAST(? AS timestamptz) AS at) k "
	}
	return db.NewRaw(`SELECT k.email, `+EntitlementColumns+` FROM `+k+EntitlementJoinsAt, email, at)
}

// EnsureUser returns the id of the person with an email that ParseEmail gave; somebody unknown is made.
func EnsureUser(ctx context.Context, tx bun.IDB, email string, now time.Time) (id uuid.UUID, err error) {
	if err := ensureUsers(ctx, tx, []string{email}, now); err != nil {
		return id, err
	}
	err = tx.NewSelect().Model((*User)(nil)).Column("id").Where("email = ?", email).Scan(ctx, &id)
	return id, err
}

// ensureUsers makes the users that are missing, all at once.
func ensureUsers(ctx context.Context, tx bun.IDB, emails []string, now time.Time) error {
	var known []string
	if err := tx.NewSelect().Model((*User)(nil)).Column("email").Where("email IN (?)", bun.List(emails)).Scan(ctx, &known); err != nil {
		return err
	}
	slices.Sort(known)
	var missing []User
	for _, email := range emails {
		if _, ok := slices.BinarySearch(known, email); !ok {
			missing = append(missing, User{ID: uuid.Must(uuid.NewV7()), Email: email, Role: Member, CreatedAt: now})
		}
	}
	if len(missing) == 0 {
		return nil
	}
	_, err := tx.NewInsert().Model(&missing).On("CONFLICT (email) DO NOTHING").Exec(ctx)
	return err
}

func scanEntitlement(rows scanner, email *string, e *Entitlement, more ...any) error {
	var team, slackUser, plan, customer sql.NullString
	err := rows.Scan(append([]any{email, &e.WorkspaceID, &team, &slackUser, &e.SpendLimitCents, &plan, &customer, &e.Anchor, &e.PeriodStart, &e.PeriodEnd}, more...)...)
	if slackUser.Valid {
		e.Slack = SlackIdentity{TeamID: team.String, UserID: slackUser.String}
	}
	e.PlanID, e.StripeCustomerID = PlanID(plan.String), customer.String
	return err
}

// prepare makes the person's record at an instant fit, as PrepareRecords says.
func (p *person) prepare(ctx context.Context, db *DB, conn bun.IConn, c *Catalogue, now, at time.Time) error {
	if current, _, _ := p.find(now); current != nil {
		if end, cut := p.entitlement.cut(current.Period(), now); cut {
			current.BillingPeriodEnd = end
			if _, err := db.NewUpdate().Conn(conn).Model(current).Column("billing_period_end").WherePK().Exec(ctx); err != nil {
				return err
			}
		}
	}
	record, previousEnd, nextStart := p.find(at)
	if record == nil {
		entitlement := p.entitlement
		if current := entitlement.PeriodAt(now); !current.Contains(at) {
			var err error
			if entitlement, err = p.at(at); err != nil {
				return err
			}
			if at.Before(current.Start) && (nextStart.IsZero() || current.Start.Before(nextStart)) {
				nextStart = current.Start // where the person's current record begins or will begin
			}
		}
		period := entitlement.PeriodAt(at).clip(previousEnd, nextStart)
		record = &UsageRecord{Email: p.email, BillingPeriodStart: period.Start, BillingPeriodEnd: period.End, CreatedAt: now}
		c.entitle(record, &entitlement)
		record.Entitled = period.Contains(now) // what it repeats may no longer be so; nobody asks of a period that is over
		// Not bun's Exec, which would read the record's id.
		if _, err := conn.ExecContext(ctx, db.NewInsert().Model(record).String()); err != nil {
			return err
		}
		p.records = append(p.records, record)
		slices.SortFunc(p.records, func(a, b *UsageRecord) int { return a.BillingPeriodStart.Compare(b.BillingPeriodStart) })
		return nil
	}
	if record.Period().Contains(now) {
		c.entitle(record, &p.entitlement)
		if _, err := db.NewUpdate().Conn(conn).Model(record).WherePK().
			Column("plan_id", "suggestions_included", "overage_rate_cents", "spend_limit_cents", "workspace_id", "slack_team_id", "slack_user_id", "stripe_customer_id", "entitled").
			Exec(ctx); err != nil {
			return err
		}
	}
	if record.holdsLapsed(now) {
		return giveLapsedBack(ctx, db, conn, record.ID, now)
	}
	return nil
}

// find returns the record that contains t, or the end of the last one before and the start of the first one after it.
func (p *person) find(t time.Time) (record *UsageRecord, previousEnd, nextStart time.Time) {
	for _, r := range p.records {
		switch period := r.Period(); {
		case period.Contains(t):
			return r, time.Time{}, time.Time{}
		case !period.End.After(t):
			previousEnd = period.End
		case nextStart.IsZero():
			nextStart = period.Start
		}
	}
	return nil, previousEnd, nextStart
}

// giveLapsedBack marks the record's lapsed holds as expired and counts its live ones again.
func giveLapsedBack(ctx context.Context, db *DB, conn bun.IConn, record int64, now time.Time) error {
	if _, err := db.NewUpdate().Conn(conn).Model((*UsageHold)(nil)).Set("state = ?", HoldExpired).
		Where("record_id = ? AND state = ? AND expires_at <= ?", record, HoldOpen, now).Exec(ctx); err != nil {
		return err
	}
	live := "FROM usage_holds h WHERE h.record_id = ? AND h.state = ?)"
	_, err := db.NewUpdate().Conn(conn).Model((*UsageRecord)(nil)).
		Set("suggestions_held = (SELECT COALESCE(SUM(h.quantity), 0) "+live, record, HoldOpen).
		Set("holds_expire_at = (SELECT MIN(h.expires_at) "+live, record, HoldOpen).Where("id = ?", record).Exec(ctx)
	return err
}

// RecordsOfHolds names the usage record that each hold belongs to; a hold that does not exist is missing from the answer.
func RecordsOfHolds(ctx context.Context, db bun.IDB, ids []uuid.UUID) (map[uuid.UUID]Want, error) {
	var holds []UsageHold
	if err := db.NewSelect().Model(&holds).Column("id", "email", "billing_period_start").Where("id IN (?)", bun.List(ids)).Scan(ctx); err != nil {
		return nil, fmt.Errorf("find the records of %d holds: %w", len(ids), err)
	}
	wants := make(map[uuid.UUID]Want, len(holds))
	for _, h := range holds {
		wants[h.ID] = Want{Email: h.Email, At: h.BillingPeriodStart.UTC()}
	}
	return wants, nil
}
