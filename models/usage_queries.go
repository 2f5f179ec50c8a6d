package models

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"slices"
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
	err := db.NewSelect().Model(&records).Where("email = ?", email).
		Where("billing_period_start <= ? AND billing_period_start > ?", now, now.Add(-maxPeriod)).Where("billing_period_end > ?", now).Scan(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the current usage of %s: %w", email, err)
	}
	if len(records) == 0 {
		return nil, nil
	}
	return &records[0], nil
}

// UsageHistory returns a person's newest usage records, the current one included, newest first; months at most, and
// none for a period in which nothing was asked for.
func UsageHistory(ctx context.Context, db bun.IDB, now time.Time, email string, months int) ([]UsageRecord, error) {
	var records []UsageRecord
	err := db.NewSelect().Model(&records).Where("email = ?", email).Where("billing_period_start <= ?", now).
		Order("billing_period_start DESC").Limit(int64(months)).Scan(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the usage history of %s: %w", email, err)
	}
	return records, nil
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
	// TopUsers are at most ten of the active ones, by units used, then by email.
	TopUsers []RankedUser
}

// AveragePerUser is AverageHundredths as the number of two decimals that is nearest to it.
func (s *OrganizationSummary) AveragePerUser() float64 { return float64(s.AverageHundredths) / 100 }

// RankedUser is one of an organization's people in the order of their use.
type RankedUser struct {
	// Rank is 1 for who used most.
	Rank  int
	Email string
	Name  string
	// Used and Included are units.
	Used         int64
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
	s := OrganizationSummary{ID: o.ID, Name: o.Name, Plan: c.PlanOf(&e).ID, Period: e.PeriodAt(now)}
	err = eachMember(ctx, db, now, id, func(m *member) {
		s.TotalUsers++
		standing := m.standing(c, now)
		s.Included += standing.Included
		if standing.Overage() > 0 {
			s.OveragePeople++
			s.OverageUnits += standing.Overage()
			s.OverageCents += standing.OverageCents()
		}
		if standing.Used > 0 {
			s.ActiveUsers++
			s.TotalSuggestions += standing.Used
			s.rank(RankedUser{
				Email: m.email, Name: m.name, Used: standing.Used, Included: standing.Included,
				PercentUsed: standing.PercentUsed(), WarningLevel: standing.Level(),
			})
		}
	})
	if err != nil {
		return OrganizationSummary{}, err
	}
	if s.TotalUsers > 0 {
		s.AverageHundredths = (s.TotalSuggestions*200 + s.TotalUsers) / (2 * s.TotalUsers)
	}
	for i := range s.TopUsers {
		s.TopUsers[i].Rank = i + 1
	}
	return s, nil
}

// organizationEntitlement is what the organization's newest active subscription gives; the zero value without one.
func organizationEntitlement(ctx context.Context, db bun.IDB, id uuid.UUID) (Entitlement, error) {
	var newest []Subscription
	err := db.NewSelect().Model(&newest).Where("organization_id = ?", id).Where("status IN (?)", bun.List(activeStatuses)).
		Order("created_at DESC").Limit(1).Scan(ctx)
	if err != nil || len(newest) == 0 {
		return Entitlement{}, err
	}
	s := &newest[0]
	return Entitlement{PlanID: s.PlanID, Anchor: s.BillingCycleAnchor, PeriodStart: s.CurrentPeriodStart, PeriodEnd: s.CurrentPeriodEnd}, nil
}

// rank keeps the first ten.
func (s *OrganizationSummary) rank(u RankedUser) {
	i, _ := slices.BinarySearchFunc(s.TopUsers, u, func(a, b RankedUser) int {
		return cmp.Or(cmp.Compare(b.Used, a.Used), cmp.Compare(a.Email, b.Email))
	})
	if i >= topUsers {
		return
	}
	if len(s.TopUsers) == topUsers {
		s.TopUsers = s.TopUsers[:topUsers-1]
	}
	s.TopUsers = slices.Insert(s.TopUsers, i, u)
}

// member is one person of an organization; the record is zero when they have none of the current period.
type member struct {
	id          uuid.UUID
	email, name string
	role        Role
	signedUp    time.Time
	entitlement Entitlement
	record      UsageRecord
}

// standing is the member's, without units on hold.
func (m *member) standing(c *Catalogue, now time.Time) Standing {
	var record *UsageRecord
	if m.record.ID != 0 {
		record = &m.record
	}
	return c.Foresee(m.email, &m.entitlement, record, now)
}

// eachMember reads the organization's people, one at a time, with what a standing of theirs depends on but for units
// on hold. What a person may use is read as for a decision, so that no figure of a page differs from the gate's.
func eachMember(ctx context.Context, db bun.IDB, now time.Time, id uuid.UUID, visit func(*member)) (err error) {
	rows, err := db.QueryContext(ctx, `SELECT k.id, k.email, k.name, k.role, k.created_at, r.id, r.billing_period_start, r.billing_period_end, r.plan_id, r.suggestions_included,
			r.suggestions_used, `+EntitlementColumns+`
		FROM workspaces team JOIN users k ON k.workspace_id = team.id
		LEFT JOIN usage_records r ON r.email = k.email AND r.billing_period_start <= ? AND r.billing_period_start > ? AND r.billing_period_end > ? `+
		EntitlementJoins+` WHERE team.organization_id = ?`, now, now.Add(-maxPeriod), now, id)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var recordID, included, used sql.NullInt64
		var start, end sql.NullTime
		var recordPlan, team, slackUser, plan, customer sql.NullString
		m := &member{}
		e := &m.entitlement
		if err := rows.Scan(&m.id, &m.email, &m.name, &m.role, &m.signedUp, &recordID, &start, &end, &recordPlan, &included, &used,
			&e.WorkspaceID, &team, &slackUser, &e.SpendLimitCents, &plan, &customer, &e.Anchor, &e.PeriodStart, &e.PeriodEnd); err != nil {
			return err
		}
		e.PlanID, e.StripeCustomerID = PlanID(plan.String), customer.String
		m.record = UsageRecord{
			ID: recordID.Int64, BillingPeriodStart: start.Time, BillingPeriodEnd: end.Time, PlanID: PlanID(recordPlan.String),
			SuggestionsIncluded: included.Int64, SuggestionsUsed: used.Int64,
		}
		visit(m)
	}
	return rows.Err()
}
