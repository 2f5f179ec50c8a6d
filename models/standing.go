package models

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"
)

// Figures are a standing as it was answered, which events and holds store so that a retry gets the first answer.
type Figures struct {
	PlanID             PlanID
	BillingPeriodStart time.Time
	BillingPeriodEnd   time.Time
	// The figures after the decision, in units and cents.
	UsedAfter, OverageAfter, OverageCentsAfter, HeldAfter, OverageHeldAfter int64

	Included         int64
	OverageRateCents int64
	SpendLimitCents  *int64
	MemberLimit      *int64
}

// Figures returns what an event or a hold stores of the standing.
func (s *Standing) Figures() Figures {
	return Figures{
		PlanID: s.Plan, BillingPeriodStart: s.Period.Start, BillingPeriodEnd: s.Period.End,
		UsedAfter: s.Used, OverageAfter: s.Overage, OverageCentsAfter: s.OverageCents, HeldAfter: s.Held, OverageHeldAfter: s.OverageHeld,
		Included: s.Included, OverageRateCents: s.OverageRateCents, SpendLimitCents: s.SpendLimitCents, MemberLimit: s.MemberLimit,
	}
}

// Standing returns the standing that the figures were taken from.
func (f *Figures) Standing(user uuid.UUID, email string) Standing {
	return Standing{
		UserID: user, Email: email, Plan: f.PlanID, Period: Period{Start: f.BillingPeriodStart.UTC(), End: f.BillingPeriodEnd.UTC()},
		Used: f.UsedAfter, Overage: f.OverageAfter, OverageCents: f.OverageCentsAfter, Held: f.HeldAfter, OverageHeld: f.OverageHeldAfter,
		Included: f.Included, OverageRateCents: f.OverageRateCents, SpendLimitCents: f.SpendLimitCents, MemberLimit: f.MemberLimit,
	}
}

// Standing is that of a record. ready is false when nothing may be added to it before PrepareRecords has brought it up to date: it
// is the current one and what it repeats of the person or the plan has changed, or some of its holds have expired.
func (c *Catalogue) Standing(r *UsageRecord, now time.Time) (s Standing, ready bool) {
	s = Standing{
		UserID: r.UserID, Email: r.Email, Plan: r.PlanID, Period: r.Period(),
		Used: r.SuggestionsUsed, Overage: r.OverageUsed, OverageCents: r.OverageCents,
		Held: r.UnitsHeld, OverageHeld: r.OverageHeld, OverageCentsHeld: r.OverageCentsHeld, Included: r.SuggestionsIncluded + r.Granted,
		OverageRateCents: r.OverageRateCents, PastDue: r.PastDue, SpendLimitCents: r.SpendLimitCents, MemberLimit: r.MemberLimit,
	}
	if r.holdsLapsed(now) {
		return s, false
	}
	if !s.Period.Contains(now) {
		return s, true
	}
	plan := c.PlanOf(r.PlanID)
	return s, r.Entitled && r.SuggestionsIncluded+r.IncludedBefore >= plan.Included &&
		(r.StripeCustomerID != nil || r.OverageRateCents == plan.OverageRateCents)
}

// Foresee is the standing that the person will have once PrepareRecords has run; records are theirs, in order of their periods, and
// UnitsHeld and the rest of the current one's holds must be those of the live ones.
func (c *Catalogue) Foresee(email string, e *Entitlement, records []*UsageRecord, now time.Time) Standing {
	s, _ := c.foresee(email, e, records, now)
	return s
}

// foresee also returns whether this depends on events that must move to another record first.
func (c *Catalogue) foresee(email string, e *Entitlement, records []*UsageRecord, now time.Time) (s Standing, moves bool) {
	p := person{email: email, entitlement: *e}
	for _, r := range records {
		if r != nil {
			copied := *r
			p.records = append(p.records, &copied)
		}
	}
	for _, changed := range p.fit(now) {
		moves = moves || changed.moves
	}
	record, _, _ := p.find(now)
	if record == nil {
		record = p.place(c, e, now, now)
	}
	c.entitle(record, e)
	s, _ = c.Standing(record, now)
	return s, moves
}

// Foreseen is what was read of people to foresee their records.
type Foreseen struct {
	catalogue *Catalogue
	now       time.Time
	people    persons
	byEmail   map[string]*person
}

// ReadAhead reads what PrepareRecords would depend on, and locks nothing. (Catalogue.Foresee is for callers who have read that.) It takes
// three connections, so that all is read in the time of one query.
func ReadAhead(ctx context.Context, db *DB, c *Catalogue, now time.Time, wants []RecordKey) (*Foreseen, error) {
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
			p.changes.order()
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
func (f *Foreseen) Standing(w RecordKey, current *UsageRecord) (s Standing, slack SlackIdentity, moves bool) {
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

// WarningLevel says how near a person is to the included units.
type WarningLevel string

// The warning levels, from none to all of the included units used.
const (
	Safe     WarningLevel = "safe"
	Warning  WarningLevel = "warning"
	Critical WarningLevel = "critical"
	Exceeded WarningLevel = "exceeded"
)

// WarningLevels are all of them, in that order.
var WarningLevels = []WarningLevel{Safe, Warning, Critical, Exceeded}

// The percentages of the included units at which the levels begin.
const (
	warningPercent  = 80
	criticalPercent = 95
	exceededPercent = 100
)

// Standing is where a person stands in one billing period: all that a decision depends on.
type Standing struct {
	// UserID is the zero value for somebody who is not stored yet.
	UserID uuid.UUID
	Email  string
	Plan   PlanID
	Period Period
	// Used is units, Overage those of them that are billed, and OverageCents their price.
	Used, Overage, OverageCents int64
	// Held is the units of open holds, OverageHeld those of them that would be billed, and OverageCentsHeld their price.
	Held, OverageHeld, OverageCentsHeld int64
	// Included is the units of the plan and of grants.
	Included int64
	// OverageRateCents is the price in cents of a unit beyond the included ones; 0 is a hard cap.
	OverageRateCents int64
	// PastDue means that overage is refused until the subscription's payment succeeds.
	PastDue bool
	// SpendLimitCents is the most that the overage of the period may cost, in cents; nil is no limit.
	SpendLimitCents *int64
	// MemberLimit is the most units that an admin allows; nil is no limit.
	MemberLimit *int64
}

// Remaining is the number of included units that are neither used nor held.
func (s Standing) Remaining() int64 {
	return max(0, s.Included-(s.Used-s.Overage)-(s.Held-s.OverageHeld))
}

// counted is the units that PercentUsed and Level compare with the included ones: all used units once none of the included ones are
// left, the included ones among them until then.
func (s Standing) counted() int64 {
	if s.Remaining() > 0 {
		return s.Used - s.Overage
	}
	return s.Used
}

// Level is the warning level of the units used, in whole-number arithmetic.
func (s Standing) Level() WarningLevel {
	switch hundred := s.counted() * 100; {
	case s.Included <= 0:
		if s.Used > 0 {
			return Exceeded
		}
		return Safe
	case hundred >= s.Included*exceededPercent:
		return Exceeded
	case hundred >= s.Included*criticalPercent:
		return Critical
	case hundred >= s.Included*warningPercent:
		return Warning
	}
	return Safe
}

// PercentUsed is used over included, rounded down: 499 of 500 is 99. With nothing included it is 0 before the first
// unit and 100 from then on.
func (s Standing) PercentUsed() int64 {
	if s.Included <= 0 {
		if s.Used > 0 {
			return 100
		}
		return 0
	}
	return s.counted() * 100 / s.Included
}
