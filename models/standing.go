package models

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/uptrace/bun"
	"golang.org/x/sync/errgroup"
)

// Figures are the standing in an answer. Events and holds store them, so that a retry gets the same
// answer.
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
	// NextRefusal is why one more unit would have been refused; nextAllowed if it would not. It is
	// empty in events and holds of earlier releases.
	NextRefusal Reason
}

// Figures returns the figures of the standing that an event or a hold stores.
func (s *Standing) Figures() Figures {
	return Figures{
		PlanID: s.Plan, BillingPeriodStart: s.Period.Start, BillingPeriodEnd: s.Period.End,
		UsedAfter: s.Used, OverageAfter: s.Overage, OverageCentsAfter: s.OverageCents, HeldAfter: s.Held, OverageHeldAfter: s.OverageHeld,
		Included: s.Included, OverageRateCents: s.OverageRateCents, SpendLimitCents: s.SpendLimitCents, MemberLimit: s.MemberLimit,
		NextRefusal: s.nextRefusal(),
	}
}

// nextAllowed is the NextRefusal of an answer after which one more unit would have been allowed.
const nextAllowed Reason = "none"

// Standing returns the standing that the figures were taken from.
func (f *Figures) Standing(user uuid.UUID, email string) Standing {
	return Standing{
		UserID: user, Email: email, Plan: f.PlanID, Period: Period{Start: f.BillingPeriodStart.UTC(), End: f.BillingPeriodEnd.UTC()},
		Used: f.UsedAfter, Overage: f.OverageAfter, OverageCents: f.OverageCentsAfter, Held: f.HeldAfter, OverageHeld: f.OverageHeldAfter,
		Included: f.Included, OverageRateCents: f.OverageRateCents, SpendLimitCents: f.SpendLimitCents, MemberLimit: f.MemberLimit,
		storedRefusal: f.NextRefusal,
	}
}

// Standing returns the standing of a record. ready is false if PrepareRecords must update the
// record before anything is added to it: it is the current record and its copy of the person's or
// plan's data is outdated, or some of its holds or grants have expired.
func (c *Catalogue) Standing(r *UsageRecord, now time.Time) (s Standing, ready bool) {
	s = Standing{
		UserID: r.UserID, Email: r.Email, Plan: r.PlanID, Period: r.Period(),
		Used: r.SuggestionsUsed, Overage: r.OverageUsed, OverageCents: r.OverageCents,
		Held: r.UnitsHeld, OverageHeld: r.OverageHeld, OverageCentsHeld: r.OverageCentsHeld, Included: r.SuggestionsIncluded + r.Granted,
		OverageRateCents: r.OverageRateCents, PastDue: r.PastDue, SpendLimitCents: r.SpendLimitCents, MemberLimit: r.MemberLimit,
	}
	if r.holdsLapsed(now) || r.grantsLapsed(now) {
		return s, false
	}
	if !s.Period.Contains(now) {
		return s, true
	}
	plan := c.PlanOf(r.PlanID)
	return s, r.Entitled && r.SuggestionsIncluded+r.IncludedBefore >= plan.Included &&
		(r.StripeCustomerID != nil || r.OverageRateCents == plan.OverageRateCents)
}

// Foresee returns the standing that the person will have after PrepareRecords. records are the
// person's, ordered by period. The current record's UnitsHeld and similar fields must count only
// the holds that have not expired.
func (c *Catalogue) Foresee(email string, e *Entitlement, records []*UsageRecord, now time.Time) Standing {
	s, _ := c.foresee(email, e, records, now)
	return s
}

// foresee also reports whether the standing depends on events that must move to another record
// first, or on units that must be taken back first.
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
	return s, moves || record.grantsLapsed(now)
}

// Foreseen is the data of people that ReadAhead read.
type Foreseen struct {
	catalogue *Catalogue
	now       time.Time
	people    persons
	byEmail   map[string]*person
	// organizations are the records of organizations with a spend limit, by payer.
	organizations map[string][]*OrganizationRecord
}

// ReadAhead reads the data that PrepareRecords would depend on, without locks. It uses three
// connections, so that it takes only as long as one query. Callers that already have the data use
// Catalogue.Foresee.
func ReadAhead(ctx context.Context, db *DB, c *Catalogue, now time.Time, wants []RecordKey) (*Foreseen, error) {
	emails, ids := namedBy(wants)
	f := &Foreseen{catalogue: c, now: now, people: persons{}, byEmail: map[string]*person{},
		organizations: map[string][]*OrganizationRecord{}}
	among := namedUsers(db, emails, ids)
	var group errgroup.Group
	group.Go(Recovered(func() error {
		query := db.NewRaw("SELECT k.email, k.id, "+entitlementColumns+" FROM users k "+EntitlementJoins+" WHERE k.id IN (?)", among)
		return eachRow(ctx, db, query, func(row scanner) error {
			p := &person{}
			err := scanEntitlement(row, &p.user, &p.entitlement, &p.email)
			f.people[p.user], f.byEmail[p.email] = p, p
			return err
		})
	}))
	var records []*UsageRecord
	group.Go(Recovered(func() error {
		return db.NewSelect().Model(&records).Where("user_id IN (?) AND billing_period_end > ?", among, now.Add(-2*maxPeriod)).
			Order("billing_period_start").Scan(ctx)
	}))
	all := map[uuid.UUID]*changes{}
	group.Go(Recovered(func() error {
		return eachRow(ctx, db, changesQuery(db, among), func(row scanner) error { return addChange(row, all) })
	}))
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
	return f, f.readOrganizations(ctx, db)
}

// readOrganizations reads the records of the organizations that pay for the people.
func (f *Foreseen) readOrganizations(ctx context.Context, db *DB) error {
	payers := map[string]bool{}
	for _, p := range f.people {
		if p.entitlement.OrganizationSpendLimitCents != nil {
			payers[p.entitlement.payer()] = true
		}
	}
	if len(payers) == 0 {
		return nil
	}
	var rows []*OrganizationRecord
	err := db.NewSelect().Model(&rows).Where("payer IN (?)", bun.List(slices.Sorted(maps.Keys(payers)))).
		Where("billing_period_start <= ? AND billing_period_end > ?", f.now, f.now).
		Order("billing_period_start").Scan(ctx)
	if err != nil {
		return fmt.Errorf("read the spend of %d organizations: %w", len(payers), err)
	}
	for _, o := range rows {
		f.organizations[o.Payer] = append(f.organizations[o.Payer], o)
	}
	return nil
}

// OrganizationRecord returns the record of the organization that will pay for the person's overage
// at the time of ReadAhead, as it will be; nil without a spend limit of the organization.
func (f *Foreseen) OrganizationRecord(w RecordKey) *OrganizationRecord {
	p := f.person(w)
	if p == nil {
		return nil
	}
	current, limited := p.entitlement.paidPeriod(f.now)
	if !limited {
		return nil
	}
	for _, o := range f.organizations[current.payer] {
		if current.period.Contains(o.BillingPeriodStart) && !o.removed() {
			return o
		}
	}
	return &OrganizationRecord{SpendLimitCents: p.entitlement.OrganizationSpendLimitCents}
}

func (f *Foreseen) person(w RecordKey) *person {
	if w.UserID == uuid.Nil {
		return f.byEmail[w.Email]
	}
	return f.people[w.UserID]
}

// Standing returns the standing that the person will have after PrepareRecords, and the person's
// Slack identity. current is the current record, counting only the holds that have not expired; nil
// without one. moves means that the standing depends on events that must move to another record
// first.
func (f *Foreseen) Standing(w RecordKey, current *UsageRecord) (s Standing, slack SlackIdentity, moves bool) {
	p := f.person(w)
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

// Standing is a person's state in one billing period: everything that a decision depends on.
type Standing struct {
	// UserID is the zero value for a person who is not stored yet.
	UserID uuid.UUID
	Email  string
	Plan   PlanID
	Period Period
	// Used is in units. Overage is the part of them that is billed, and OverageCents is its price.
	Used, Overage, OverageCents int64
	// Held is the units of open holds. OverageHeld is the part of them that would be billed, and
	// OverageCentsHeld is its price.
	Held, OverageHeld, OverageCentsHeld int64
	// Included is the units of the plan and of grants.
	Included int64
	// OverageRateCents is the price in cents of a unit beyond the included ones; 0 is a hard cap.
	OverageRateCents int64
	// PastDue means that overage is refused until the subscription's payment succeeds.
	PastDue bool
	// SpendLimitCents is the maximum price of the period's overage, in cents; nil means no limit.
	SpendLimitCents *int64
	// MemberLimit is the maximum number of units, set by an admin; nil means no limit.
	MemberLimit *int64
	// Organization is what the organization's subscription pays for.
	Organization OrganizationSpend
	// storedRefusal is the NextRefusal of the Figures that the standing is from; otherwise empty.
	storedRefusal Reason
}

// nextRefusal returns why one more unit would be refused; nextAllowed if it would not.
func (s *Standing) nextRefusal() Reason {
	if s.storedRefusal != "" {
		return s.storedRefusal
	}
	return cmp.Or(Decide(*s, 1).Reason, nextAllowed)
}

// OrganizationSpend is the overage of an organization in the billing period of its subscription.
type OrganizationSpend struct {
	// Cents is the price of the overage that the subscription pays for, with open holds.
	Cents int64
	// LimitCents is the organization's spend limit; nil means no limit.
	LimitCents *int64
}

// WithoutOrganization returns the standing without the organization's spend limit.
func (s Standing) WithoutOrganization() Standing {
	s.Organization = OrganizationSpend{}
	return s
}

// Remaining returns the number of included units that are neither used nor held.
func (s Standing) Remaining() int64 {
	return max(0, s.Included-(s.Used-s.Overage)-(s.Held-s.OverageHeld))
}

// LeftUnderMemberLimit returns how many units the member limit still allows. limited is false if
// that is not less than Remaining, so that the member limit is not what ends the included units.
func (s Standing) LeftUnderMemberLimit() (left int64, limited bool) {
	if s.MemberLimit == nil {
		return 0, false
	}
	left = max(0, *s.MemberLimit-s.Used-s.Held)
	return left, left < s.Remaining()
}
