package models

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/uptrace/bun"
	"golang.org/x/sync/errgroup"
)

// topUsers is the number of members that an organization's summary ranks.
const topUsers = 10

// OrganizationSummary is an organization's usage in its current billing period.
type OrganizationSummary struct {
	ID     uuid.UUID
	Name   string
	Plan   PlanID
	Period Period
	// OverageRateCents is the price of a unit of overage; 0 if overage is not billed. HasPlan means
	// that the organization has an active subscription, Trial that it is in its trial, and PastDue that its
	// last payment failed, so that overage is refused.
	OverageRateCents int64
	HasPlan          bool
	Trial, PastDue   bool
	// TotalUsers is the number of members. ActiveUsers is the number of members with usage.
	TotalUsers  int64
	ActiveUsers int64
	// Included is the sum of the members' included units.
	Included int64
	// TotalSuggestions is in units, without units on hold.
	TotalSuggestions int64
	// AverageHundredths is the average usage of TotalUsers, in hundredths of a unit, rounded half
	// up; 0 without members.
	AverageHundredths int64
	// OverageUnits is the overage of OveragePeople members. OverageCents is its price, before tax.
	OverageUnits, OverageCents, OveragePeople int64
	// SpendLimitCents is the limit of what the organization's subscription pays for, and Spent is
	// what counts toward it; nil without a limit. MemberLimit is the default for members, in units.
	SpendLimitCents, MemberLimit *int64
	Spent                        *OrganizationRecord
	// Forecast is the overage at the end of the period if each member continues at their pace, up
	// to their spend limit and the organization's; nil if Standing.Forecast gives none.
	Forecast *Overage
	// TopUsers are up to ten members with usage, sorted by units used, then by email.
	TopUsers []RankedUser
}

// average sets AverageHundredths.
func (s *OrganizationSummary) average() {
	if s.TotalUsers > 0 {
		s.AverageHundredths = (s.TotalSuggestions*200 + s.TotalUsers) / (2 * s.TotalUsers)
	}
}

// AveragePerUser returns AverageHundredths as a number with two decimals.
func (s *OrganizationSummary) AveragePerUser() float64 { return float64(s.AverageHundredths) / 100 }

// SpentCents returns what counts toward the organization's spend limit in the period, with holds.
// Without a limit in force, it is the members' overage.
func (s *OrganizationSummary) SpentCents() int64 {
	if s.Spent != nil && s.Spent.Counted {
		return s.Spent.Spend().Cents
	}
	return s.OverageCents
}

// Exceeds reports whether one more extra unit would exceed a spend limit of this many cents.
func (s *OrganizationSummary) Exceeds(limit int64) bool {
	return s.SpentCents()+s.OverageRateCents > limit
}

// Overage is units beyond the included ones, and their price in cents, before tax.
type Overage struct{ Units, Cents int64 }

// RankedUser is a member in the ranking by units used.
type RankedUser struct {
	// Rank is 1 for the member with the highest usage.
	Rank  int
	Email string
	Name  string
	// Used and Included are units. Overage is the part of Used that is billed. Held is the units on
	// hold, and OverageHeld the part of them that would be billed.
	Used, Overage, Held, OverageHeld int64

	Included     int64
	PercentUsed  int64
	WarningLevel WarningLevel
}

// OrganizationUsage sums up the organization's current billing period: its subscription's period at
// Stripe, or else the calendar month. Each member counts with the record that contains now, with
// the same standing as in the gate. It returns an Error with CodeUnknownOrganization if the
// organization does not exist.
func OrganizationUsage(ctx context.Context, db *DB, c *Catalogue, now time.Time, id uuid.UUID) (OrganizationSummary, error) {
	return organizationUsage(ctx, db, c, now, id, true)
}

// OrganizationTotals returns OrganizationUsage without the top users.
func OrganizationTotals(ctx context.Context, db *DB, c *Catalogue, now time.Time, id uuid.UUID) (OrganizationSummary, error) {
	return organizationUsage(ctx, db, c, now, id, false)
}

func organizationUsage(
	ctx context.Context, db *DB, c *Catalogue, now time.Time, id uuid.UUID, ranked bool,
) (OrganizationSummary, error) {
	summary, err := sumUpOrganization(ctx, db, c, now, id, ranked)
	if err != nil {
		return OrganizationSummary{}, fmt.Errorf("sum up the usage of the organization %s: %w", id, err)
	}
	return summary, nil
}

// sumUpOrganization reads what does not depend on each other at the same time, so that it takes two
// round trips for an organization with a plan, and three without one.
func sumUpOrganization(
	ctx context.Context, db *DB, c *Catalogue, now time.Time, id uuid.UUID, ranked bool,
) (OrganizationSummary, error) {
	var o *Organization
	var e *Entitlement
	members := roster{postgres: db.Postgres, now: now, organization: id}
	var first, second errgroup.Group
	first.Go(Recovered(func() (err error) { o, err = organizationByID(ctx, db, id); return err }))
	first.Go(Recovered(func() (err error) { e, err = organizationEntitlement(ctx, db, id); return err }))
	first.Go(Recovered(func() (err error) { members.workspaces, members.version, err = workspacesOf(ctx, db, id); return err }))
	if err := first.Wait(); err != nil {
		return OrganizationSummary{}, err
	}
	if err := members.readTerms(ctx, db, c, e); err != nil {
		return OrganizationSummary{}, err
	}
	usual := &members.defaultTerms.entitlement
	s := OrganizationSummary{ID: o.ID, Name: o.Name, Plan: c.PlanOf(usual.PlanID).ID, Period: usual.PeriodAt(now),
		OverageRateCents: members.defaultTerms.rate, HasPlan: e != nil,
		Trial: e != nil && e.Status == StatusTrialing, PastDue: e != nil && e.Status == StatusPastDue,
		SpendLimitCents: o.SpendLimitCents, MemberLimit: o.MemberLimit}
	if o.SpendLimitCents != nil && e != nil {
		second.Go(Recovered(func() (err error) { s.Spent, err = organizationRecord(ctx, db, e.payer(), now); return err }))
	}
	if len(members.workspaces) > 0 {
		second.Go(Recovered(func() error { return members.sumUp(ctx, db, &s) }))
		if ranked {
			second.Go(Recovered(func() (err error) { s.TopUsers, err = members.top(ctx, db); return err }))
		}
	}
	if err := second.Wait(); err != nil {
		return OrganizationSummary{}, err
	}
	s.capForecast()
	s.average()
	return s, nil
}

// capForecast reduces the forecast to what the organization's spend limit allows.
func (s *OrganizationSummary) capForecast() {
	if s.Forecast == nil || s.SpendLimitCents == nil || s.Spent == nil || !s.Spent.Counted || s.OverageRateCents <= 0 {
		return
	}
	allowed := max(0, *s.SpendLimitCents-s.Spent.OverageCents) / s.OverageRateCents // holds may become overage
	if allowed < s.Forecast.Units-s.OverageUnits {
		s.Forecast = &Overage{Units: s.OverageUnits + allowed, Cents: s.OverageCents + allowed*s.OverageRateCents}
	}
}

// sumUp adds the members' figures to the summary. A member without a current record has no usage
// and the units that their plan includes.
func (p *roster) sumUp(ctx context.Context, db bun.IDB, s *OrganizationSummary) error {
	var sums struct{ Members, Active, Used, More, People, Units, Cents, ForecastUnits, ForecastCents int64 }
	length, elapsed := int64(s.Period.End.Sub(s.Period.Start)/time.Second), max(1, int64(p.now.Sub(s.Period.Start)/time.Second))
	err := db.NewRaw(`SELECT (SELECT COUNT(*) FROM users WHERE workspace_id IN (?)) AS members,
			COUNT(CASE WHEN m.used > 0 THEN 1 END) AS active,
			CAST(COALESCE(SUM(m.used), 0) AS bigint) AS used,
			CAST(COALESCE(SUM(m.included - m.of_plan), 0) AS bigint) AS more, COUNT(CASE WHEN m.overage > 0 THEN 1 END) AS people,
			CAST(COALESCE(SUM(m.overage), 0) AS bigint) AS units, CAST(COALESCE(SUM(m.cents), 0) AS bigint) AS cents,
			CAST(COALESCE(SUM(m.overage + m.further), 0) AS bigint) AS forecast_units,
			CAST(COALESCE(SUM(m.cents + m.further * m.further_rate), 0) AS bigint) AS forecast_cents
		FROM (SELECT l.*, CASE WHEN l.further_rate = 0 THEN 0 WHEN l.spend_limit IS NULL
		OR l.cents + l.straight * l.further_rate <= l.spend_limit THEN l.straight
				WHEN l.cents > l.spend_limit THEN 0 ELSE (l.spend_limit - l.cents) / l.further_rate END AS further
			FROM (SELECT c.*, CASE WHEN c.reached > c.base THEN c.reached - c.base ELSE 0 END AS straight
				FROM (SELECT r.*, CASE WHEN r.member_limit < r.used * ? / ? THEN r.member_limit ELSE r.used * ? / ? END AS reached,
					CASE WHEN r.used > r.overage + r.included THEN r.used ELSE r.overage + r.included END AS base
					FROM (?) r) c) l) m`,
		bun.List(p.workspaces), length, elapsed, length, elapsed, p.currentRecords()).Scan(ctx, &sums)
	if err != nil {
		return err
	}
	s.TotalUsers = sums.Members
	s.Included = (s.TotalUsers-int64(len(p.ownTerms)))*p.defaultTerms.included + sums.More
	for i := range p.ownTerms {
		s.Included += p.ownTerms[i].included
	}
	s.ActiveUsers, s.TotalSuggestions = sums.Active, sums.Used
	s.OveragePeople, s.OverageUnits, s.OverageCents = sums.People, sums.Units, sums.Cents
	if _, ok := (Standing{Used: s.TotalSuggestions, Period: s.Period}).Forecast(p.now); ok {
		s.Forecast = &Overage{Units: sums.ForecastUnits, Cents: sums.ForecastCents}
	}
	return nil
}

// top returns the members with the highest usage.
func (p *roster) top(ctx context.Context, db bun.IDB) ([]RankedUser, error) {
	var ranked []RankedUser
	err := db.NewRaw(`SELECT t.email, u.name, t.used, t.overage, t.held, t.overage_held, t.included FROM (SELECT * FROM (?) m
		WHERE m.used > 0 ORDER BY m.used DESC, m.email LIMIT ?) t
		JOIN users u ON u.email = t.email ORDER BY t.used DESC, t.email`, p.currentRecords(), topUsers).Scan(ctx, &ranked)
	for i := range ranked {
		u := &ranked[i]
		s := Standing{Used: u.Used, Overage: u.Overage, Held: u.Held, OverageHeld: u.OverageHeld, Included: u.Included}
		u.Rank, u.PercentUsed, u.WarningLevel = i+1, s.PercentUsed(), s.Level()
	}
	return ranked, err
}
