package models

import (
	"database/sql"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/uptrace/bun"
)

// changes are the times of events that can change a person's payer, and the subscriptions that gave
// the person a plan.
type changes struct {
	joined, created, ended []time.Time
	paid                   map[uuid.UUID]*paidFor
	byHand                 []givenByHand
}

// givenByHand is a plan that was assigned by hand to an organization, or to the person if
// organization is nil. ended is zero while it is active.
type givenByHand struct {
	organization *uuid.UUID
	began, ended time.Time
}

// changesOf reads the changes of people: when they joined an organization or left the last one, and
// when their own or their organizations' subscriptions began and ended, with each period at Stripe.
// Each of its three arguments selects the people's IDs.
var changesOf = `SELECT m.user_id, m.since, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL FROM memberships m WHERE m.user_id IN (?)
	UNION ALL SELECT o.user_id, NULL, ` + subscriptionChanges + ` FROM subscriptions o
		LEFT JOIN subscription_periods p ON p.subscription_id = o.id WHERE o.user_id IN (?)
	UNION ALL SELECT m.user_id, NULL, ` + subscriptionChanges +
	` FROM memberships m JOIN subscriptions o ON o.organization_id = m.organization_id
		LEFT JOIN subscription_periods p ON p.subscription_id = o.id WHERE m.user_id IN (?)`

var subscriptionChanges = `o.created_at, ` + endedAt +
	`, o.id, o.organization_id, o.stripe_subscription_id IS NULL, o.stripe_customer_id, o.billing_cycle_anchor,
	p.period_start, p.period_end`

// change is a row of changesOf.
type change struct {
	joined, created, ended     bun.NullTime
	subscription, organization *uuid.UUID
	byHand                     sql.NullBool
	customer                   *string
	anchor, start, end         bun.NullTime
}

func (c *changes) add(row *change) {
	if !row.joined.IsZero() {
		c.joined = append(c.joined, row.joined.UTC())
	}
	if row.subscription == nil {
		return
	}
	if row.byHand.Bool {
		g := givenByHand{organization: row.organization, began: row.created.UTC()}
		if !row.ended.IsZero() {
			g.ended = row.ended.UTC()
		}
		c.byHand = append(c.byHand, g)
		return
	}
	s := c.paid[*row.subscription]
	if s == nil {
		if c.paid == nil {
			c.paid = map[uuid.UUID]*paidFor{}
		}
		s = &paidFor{began: row.created.UTC()}
		if !row.ended.IsZero() {
			s.ended = row.ended.UTC()
		}
		if !row.anchor.IsZero() {
			s.anchor = new(row.anchor.UTC())
		}
		if row.customer != nil {
			s.customer = *row.customer
		}
		c.paid[*row.subscription] = s
	}
	if period := (Period{Start: row.start.UTC(), End: row.end.UTC()}); !row.start.IsZero() && !slices.Contains(s.all, period) {
		s.all = append(s.all, period)
	}
}

// order computes the sorted periods of each subscription, and the times when subscriptions began
// and ended.
func (c *changes) order() {
	c.created, c.ended = nil, nil
	for _, s := range c.paid {
		s.periods = NewPeriods(s.all)
		if len(s.periods) > 0 && s.periods[0].Start.Before(s.began) {
			s.began = s.periods[0].Start // it is backdated
		}
		c.created = append(c.created, s.began)
		if !s.ended.IsZero() {
			c.ended = append(c.ended, s.ended)
		}
	}
}

// note adds the changes up to an instant to an entitlement. Until matters only for an instant in
// the past.
func (c *changes) note(e *Entitlement, at, now time.Time) {
	e.known = c
	e.Joined, e.Ended, e.Until = lastBefore(c.joined, at), lastBefore(c.ended, at), time.Time{}
	c.noteByHand(e, at)
	if e.SubscriptionID != nil {
		if s := c.paid[*e.SubscriptionID]; s != nil && s.began.Before(e.Created) {
			e.Created = s.began
		}
	}
	for _, all := range [][]time.Time{c.joined, c.created, c.ended} {
		for _, t := range all {
			if t.After(at) && !t.After(now) && (e.Until.IsZero() || t.Before(e.Until)) {
				e.Until = t
			}
		}
	}
}

// noteByHand adds the plans that were assigned by hand.
func (c *changes) noteByHand(e *Entitlement, at time.Time) {
	slices.SortFunc(c.byHand, func(a, b givenByHand) int { return b.began.Compare(a.began) }) // the newest first
	e.EndedByHand = time.Time{}
	for _, g := range c.byHand {
		switch mine := g.organization == nil && e.OrganizationID == nil || g.organization != nil && e.OrganizationID != nil &&
			*g.organization == *e.OrganizationID; {
		case g.ended.IsZero() || g.ended.After(at):
		case e.AtStripe:
			first := g.organization != nil && e.OrganizationID == nil && e.MemberOf != nil && *g.organization == *e.MemberOf
			if (first || mine && g.began.After(e.Created)) && g.ended.After(e.EndedByHand) {
				e.EndedByHand = g.ended
			}
		case mine && e.SubscriptionID != nil && g.began.Before(e.Created) && e.Created.Sub(g.ended) < time.Millisecond:
			e.Created = g.began
		}
	}
}

// lastBefore returns the latest of times that is not after an instant; zero without one.
func lastBefore(times []time.Time, at time.Time) (last time.Time) {
	for _, t := range times {
		if !t.After(at) && t.After(last) {
			last = t
		}
	}
	return last
}

// changesQuery reads the changes of the people whose IDs are selected.
func changesQuery(db bun.IDB, ids any) *bun.RawQuery { return db.NewRaw(changesOf, ids, ids, ids) }

// addChange adds a row of changesQuery to the person's changes.
func addChange(row scanner, all map[uuid.UUID]*changes) error {
	var user uuid.UUID
	var c change
	if err := row.Scan(&user, &c.joined, &c.created, &c.ended, &c.subscription, &c.organization, &c.byHand, &c.customer, &c.anchor,
		&c.start, &c.end); err != nil {
		return err
	}
	found := all[user]
	if found == nil {
		found = &changes{}
		all[user] = found
	}
	found.add(&c)
	return nil
}
