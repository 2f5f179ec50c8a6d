package models

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/uptrace/bun"
)

// DefaultHistoryMonths is how many billing periods UsageHistory returns unless it is asked for others.
const DefaultHistoryMonths = 6

// topUsers is how many people an organization's summary ranks.
const topUsers = 10

// CurrentUsage returns a person's usage record of the billing period that contains now; nil when there is none.
func CurrentUsage(ctx context.Context, db bun.IDB, now time.Time, email string) (*UsageRecord, error) {
	var records []UsageRecord
	// The lower bound lets an index on the start find the record without reading the ones before it.
	err := db.NewSelect().Model(&records).Where("user_id = (?)", idOf(db, email)).
		Where("billing_period_start <= ? AND billing_period_start > ?", now, now.Add(-maxPeriod)).Where("billing_period_end > ?", now).Scan(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the current usage of %s: %w", email, err)
	}
	if len(records) == 0 {
		return nil, nil
	}
	return &records[0], nil
}

// idOf selects the ID of the person with an email.
func idOf(db bun.IDB, email string) *bun.SelectQuery {
	return db.NewSelect().Model((*User)(nil)).Column("id").Where("email = ?", email)
}

// UsageHistory returns a person's newest usage records, the current one included, newest first; months at most, and
// none for a period in which nothing was asked for.
func UsageHistory(ctx context.Context, db bun.IDB, now time.Time, email string, months int) ([]UsageRecord, error) {
	var records []UsageRecord
	err := db.NewSelect().Model(&records).Where("user_id = (?)", idOf(db, email)).Where("billing_period_start <= ?", now).
		Order("billing_period_start DESC").Limit(int64(months)).Scan(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the usage history of %s: %w", email, err)
	}
	return records, nil
}

// StandingHistory is UsageHistory as it is once PrepareRecords has run: the current record of a person whose plan changed has what the
// new plan gives, and one that the plan's own period began in, or whose payer changed, ends there. Only if units must move to another
// record for that, RefitRecords runs.
func StandingHistory(ctx context.Context, db *DB, c *Catalogue, now time.Time, email string, months int) ([]Standing, error) {
	standings, moves, err := standingHistory(ctx, db, c, now, email, months)
	if err == nil && moves {
		if err = RefitRecords(ctx, db, c, now, []uuid.UUID{standings[0].UserID}); err == nil {
			standings, _, err = standingHistory(ctx, db, c, now, email, months)
		}
	}
	return standings, err
}

func standingHistory(ctx context.Context, db *DB, c *Catalogue, now time.Time, email string, months int) (standings []Standing, moves bool, err error) {
	records, err := UsageHistory(ctx, db, now, email, months)
	if err != nil || len(records) == 0 {
		return nil, false, err
	}
	if _, ready := c.Standing(&records[0], now); !ready && records[0].Period().Contains(now) {
		ahead, err := ReadAhead(ctx, db, c, now, []Want{{UserID: records[0].UserID}})
		if err != nil {
			return nil, false, err
		}
		if p := ahead.people[records[0].UserID]; p != nil {
			p.records = nil
			for i := range records {
				p.keep(&records[i])
			}
			for _, changed := range p.fit(now) {
				moves = moves || changed.moves
			}
			if records[0].Period().Contains(now) {
				c.entitle(&records[0], &p.entitlement)
			}
		}
	}
	standings = make([]Standing, len(records))
	for i := range records {
		standings[i], _ = c.Standing(&records[i], now)
	}
	return standings, moves, nil
}

// OrganizationSummary is what an organization used in its current billing period.
type OrganizationSummary struct {
	ID     uuid.UUID
	Name   string
	Plan   PlanID
	Period Period
	// TotalUsers is the number of people in its workspaces, ActiveUsers that of those who used any unit.
	TotalUsers  int64
	ActiveUsers int64
	// Included is the units that all their plans cover.
	Included int64
	// TotalSuggestions is in units; units on hold are not used yet.
	TotalSuggestions int64
	// AverageHundredths is the average over TotalUsers in hundredths of a unit, rounded half up; 0 without users.
	AverageHundredths int64
	// OverageUnits are beyond the plans of OveragePeople, OverageCents is their price in cents, before tax.
	OverageUnits, OverageCents, OveragePeople int64
	// Forecast is the overage at the period's end if each person continues at their pace up to their spend limit; nil where
	// Standing.Forecast gives none.
	Forecast *Overage
	// TopUsers are at most ten of the active ones, by units used, then by email.
	TopUsers []RankedUser
}

// Overage is units beyond plans, and their price in cents, before tax.
type Overage struct{ Units, Cents int64 }

// AveragePerUser is AverageHundredths as the number of two decimals that is nearest to it.
func (s *OrganizationSummary) AveragePerUser() float64 { return float64(s.AverageHundredths) / 100 }

// RankedUser is one of an organization's people in the order of their use.
type RankedUser struct {
	// Rank is 1 for who used most.
	Rank  int
	Email string
	Name  string
	// Used and Included are units. Overage is those of the used ones that are billed; Held, OverageHeld are on hold.
	Used, Overage, Held, OverageHeld int64

	Included     int64
	PercentUsed  int64
	WarningLevel WarningLevel
}

// OrganizationUsage sums up the organization's current billing period: its subscription's at Stripe, else the calendar
// month. Each person counts with their own record that contains now, and stands where the gate says that they stand.
// It returns an Error with CodeUnknownOrganization.
func OrganizationUsage(ctx context.Context, db bun.IDB, c *Catalogue, now time.Time, id uuid.UUID) (OrganizationSummary, error) {
	summary, err := organizationUsage(ctx, db, c, now, id)
	if err != nil {
		return OrganizationSummary{}, fmt.Errorf("sum up the usage of the organization %s: %w", id, err)
	}
	return summary, nil
}

func organizationUsage(ctx context.Context, db bun.IDB, c *Catalogue, now time.Time, id uuid.UUID) (OrganizationSummary, error) {
	o, err := organizationByID(ctx, db, id)
	if err != nil {
		return OrganizationSummary{}, err
	}
	e, err := organizationEntitlement(ctx, db, id)
	if err != nil {
		return OrganizationSummary{}, err
	}
	people, err := peopleOf(ctx, db, c, now, id, e)
	if err != nil {
		return OrganizationSummary{}, err
	}
	usual := &people.usual.entitlement
	s := OrganizationSummary{ID: o.ID, Name: o.Name, Plan: c.PlanOf(usual.PlanID).ID, Period: usual.PeriodAt(now)}
	if len(people.workspaces) == 0 {
		return s, nil
	}
	if err := people.sumUp(ctx, db, &s); err != nil {
		return OrganizationSummary{}, err
	}
	if s.TotalUsers > 0 {
		s.AverageHundredths = (s.TotalSuggestions*200 + s.TotalUsers) / (2 * s.TotalUsers)
	}
	if s.TopUsers, err = people.top(ctx, db); err != nil {
		return OrganizationSummary{}, err
	}
	return s, nil
}

// sumUp adds the people's figures to the summary. Who has no current record has used nothing, and what their plan includes.
func (p *people) sumUp(ctx context.Context, db bun.IDB, s *OrganizationSummary) error {
	if err := db.NewSelect().TableExpr("users").ColumnExpr("COUNT(*)").Where("workspace_id IN (?)", bun.List(p.workspaces)).Scan(ctx, &s.TotalUsers); err != nil {
		return err
	}
	s.Included = (s.TotalUsers - int64(len(p.own))) * p.usual.included
	for i := range p.own {
		s.Included += p.own[i].included
	}
	var sums struct{ Active, Used, More, People, Units, Cents, ForecastUnits, ForecastCents int64 }
	length, elapsed := int64(s.Period.End.Sub(s.Period.Start)/time.Second), max(1, int64(p.now.Sub(s.Period.Start)/time.Second))
	err := db.NewRaw(`SELECT COUNT(CASE WHEN m.used > 0 THEN 1 END) AS active, CAST(COALESCE(SUM(m.used), 0) AS bigint) AS used,
			CAST(COALESCE(SUM(m.included - m.of_plan), 0) AS bigint) AS more, COUNT(CASE WHEN m.overage > 0 THEN 1 END) AS people,
			CAST(COALESCE(SUM(m.overage), 0) AS bigint) AS units, CAST(COALESCE(SUM(m.cents), 0) AS bigint) AS cents,
			CAST(COALESCE(SUM(m.overage + m.further), 0) AS bigint) AS forecast_units,
			CAST(COALESCE(SUM(m.cents + m.further * m.further_rate), 0) AS bigint) AS forecast_cents
		FROM (SELECT l.*, CASE WHEN l.further_rate = 0 THEN 0 WHEN l.spend_limit IS NULL OR l.cents + l.straight * l.further_rate <= l.spend_limit THEN l.straight
				WHEN l.cents > l.spend_limit THEN 0 ELSE (l.spend_limit - l.cents) / l.further_rate END AS further
			FROM (SELECT c.*, CASE WHEN c.used * ? / ? - c.overage > c.included THEN c.used * ? / ? - c.overage - c.included ELSE 0 END AS straight
				FROM (?) c) l) m`,
		length, elapsed, length, elapsed, p.counted()).Scan(ctx, &sums)
	if err != nil {
		return err
	}
	s.Included += sums.More
	s.ActiveUsers, s.TotalSuggestions = sums.Active, sums.Used
	s.OveragePeople, s.OverageUnits, s.OverageCents = sums.People, sums.Units, sums.Cents
	if _, ok := (Standing{Used: s.TotalSuggestions, Period: s.Period}).Forecast(p.now); ok {
		s.Forecast = &Overage{Units: sums.ForecastUnits, Cents: sums.ForecastCents}
	}
	return nil
}

// top are the people who used most.
func (p *people) top(ctx context.Context, db bun.IDB) ([]RankedUser, error) {
	var ranked []RankedUser
	err := db.NewRaw(`SELECT t.email, u.name, t.used, t.overage, t.held, t.overage_held, t.included FROM (SELECT * FROM (?) m WHERE m.used > 0 ORDER BY m.used DESC, m.email LIMIT ?) t
		JOIN users u ON u.email = t.email ORDER BY t.used DESC, t.email`, p.counted(), topUsers).Scan(ctx, &ranked)
	for i := range ranked {
		u := &ranked[i]
		s := Standing{Used: u.Used, Overage: u.Overage, Held: u.Held, OverageHeld: u.OverageHeld, Included: u.Included}
		u.Rank, u.PercentUsed, u.WarningLevel = i+1, s.PercentUsed(), s.Level()
	}
	return ranked, err
}

// organizationEntitlement is what the organization's newest active subscription gives; nil without one.
func organizationEntitlement(ctx context.Context, db bun.IDB, id uuid.UUID) (*Entitlement, error) {
	var newest []Subscription
	err := db.NewSelect().Model(&newest).Where("id = "+newestActive("id", "n.organization_id = ?"), id).Scan(ctx)
	if err != nil || len(newest) == 0 {
		return nil, err
	}
	s := &newest[0]
	return s.entitlement(), nil
}
