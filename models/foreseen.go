package models

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"
)

// Foreseen is what was read of people to foresee their records.
type Foreseen struct {
	catalogue *Catalogue
	now       time.Time
	people    persons
	byEmail   map[string]*person
}

// ReadAhead reads what PrepareRecords would depend on, and locks nothing. (Catalogue.Foresee is for callers who have read that.) It takes
// three connections, so that all is read in the time of one query.
func ReadAhead(ctx context.Context, db *DB, c *Catalogue, now time.Time, wants []Want) (*Foreseen, error) {
	emails, ids := namedBy(wants)
	f := &Foreseen{catalogue: c, now: now, people: persons{}, byEmail: map[string]*person{}}
	among := namedUsers(db, emails, ids)
	var group errgroup.Group
	group.Go(func() error {
		query := db.NewRaw("SELECT k.email, k.id, "+entitlementColumns+" FROM users k "+EntitlementJoins+" WHERE k.id IN (?)", among)
		return eachRow(ctx, db, query, func(row scanner) error {
			p := &person{}
			err := scanEntitlement(row, &p.user, &p.entitlement, &p.email)
			f.people[p.user], f.byEmail[p.email] = p, p
			return err
		})
	})
	var records []*UsageRecord
	group.Go(func() error {
		return db.NewSelect().Model(&records).Where("user_id IN (?) AND billing_period_end > ?", among, now.Add(-2*maxPeriod)).Order("billing_period_start").Scan(ctx)
	})
	all := map[uuid.UUID]*changes{}
	group.Go(func() error {
		return eachRow(ctx, db, changesQuery(db, among), func(row scanner) error { return addChange(row, all) })
	})
	if err := group.Wait(); err != nil {
		return nil, fmt.Errorf("read ahead for %d people: %w", len(wants), err)
	}
	for id, p := range f.people {
		if found := all[id]; found != nil {
			p.changes = *found
			p.changes.settle()
		}
		p.changes.note(&p.entitlement, now, now)
	}
	for _, r := range records {
		if p := f.people[r.UserID]; p != nil { // the person may have been created between two queries
			p.records = append(p.records, r)
		}
	}
	return f, nil
}

// Standing is the one that the person will have once PrepareRecords has run, and the person's Slack identity. current is the current
// record with its live holds; nil when there is none. moves means that this depends on events that must move to another record first.
func (f *Foreseen) Standing(w Want, current *UsageRecord) (s Standing, slack SlackIdentity, moves bool) {
	p := f.people[w.UserID]
	if w.UserID == uuid.Nil {
		p = f.byEmail[w.Email]
	}
	if p == nil {
		p = &person{email: w.Email}
	}
	records := p.records
	if current != nil {
		latest := *current
		records = slices.DeleteFunc(slices.Clone(records), func(r *UsageRecord) bool {
			if r.ID != current.ID {
				return false
			}
			latest.Payer = r.Payer // which is not among what the gate reads
			return true
		})
		records = append(records, &latest)
		slices.SortFunc(records, func(a, b *UsageRecord) int { return a.BillingPeriodStart.Compare(b.BillingPeriodStart) })
	}
	s, moves = f.catalogue.foresee(p.email, &p.entitlement, records, f.now)
	s.UserID = p.user // also before the first record
	return s, p.entitlement.Slack, moves
}
