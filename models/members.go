package models

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/uptrace/bun"
)

// MemberUsage is one person of an organization in the current billing period.
type MemberUsage struct {
	ID   uuid.UUID
	Name string
	Role Role
	// SignedUp is when the person became known.
	SignedUp time.Time
	// Standing is what the gate says, but for units on hold.
	Standing Standing
	// LastPeriod is the units of the period before; nil when the person was not known in it.
	LastPeriod *int64
}

// OrganizationMembers returns everybody in the organization, those who used nothing among them, in no order.
func OrganizationMembers(ctx context.Context, db bun.IDB, c *Catalogue, now time.Time, id uuid.UUID) ([]MemberUsage, error) {
	var all []MemberUsage
	err := eachMember(ctx, db, now, id, func(m *member) {
		all = append(all, MemberUsage{ID: m.id, Name: m.name, Role: m.role, SignedUp: m.signedUp.UTC(), Standing: m.standing(c, now)})
	})
	if err == nil {
		err = addLastPeriods(ctx, db, now, id, all)
	}
	if err != nil {
		return nil, fmt.Errorf("list the members of the organization %s: %w", id, err)
	}
	return all, nil
}

// addLastPeriods tells what the members used in the period before their current one.
func addLastPeriods(ctx context.Context, db bun.IDB, now time.Time, id uuid.UUID, members []MemberUsage) error {
	var ended []struct {
		Email string
		End   time.Time
		Used  int64
	}
	if err := db.NewRaw(`SELECT r.email, r.billing_period_end AS "end", r.suggestions_used AS used`+organizationRecords+` AND r.billing_period_end <= ?`,
		id, now.Add(-2*maxPeriod), now).Scan(ctx, &ended); err != nil {
		return err
	}
	type key struct {
		email string
		end   int64
	}
	used := make(map[key]int64, len(ended))
	for _, r := range ended {
		used[key{r.Email, r.End.UnixMicro()}] = r.Used
	}
	for i := range members {
		m := &members[i]
		units, ok := used[key{m.Standing.Email, m.Standing.Period.Start.UnixMicro()}]
		if ok || m.SignedUp.Before(m.Standing.Period.Start) {
			m.LastPeriod = &units
		}
	}
	return nil
}

// MemberOf returns a person of the organization; nil when nobody there has the id.
func MemberOf(ctx context.Context, db bun.IDB, organization, id uuid.UUID) (*User, error) {
	var found []User
	err := db.NewSelect().Model(&found).Where("id = ?", id).
		Where("workspace_id IN (SELECT w.id FROM workspaces w WHERE w.organization_id = ?)", organization).Scan(ctx)
	if err != nil {
		return nil, fmt.Errorf("find the member %s: %w", id, err)
	}
	if len(found) == 0 {
		return nil, nil
	}
	found[0].CreatedAt = found[0].CreatedAt.UTC()
	return &found[0], nil
}

// RecordsSince returns the usage records of some people whose period began after since, oldest first, by email.
func RecordsSince(ctx context.Context, db bun.IDB, since time.Time, emails []string) (map[string][]UsageRecord, error) {
	byEmail := make(map[string][]UsageRecord, len(emails))
	if len(emails) == 0 {
		return byEmail, nil
	}
	var records []UsageRecord
	err := db.NewSelect().Model(&records).Where("email IN (?)", bun.List(emails)).Where("billing_period_start > ?", since).
		Order("email", "billing_period_start").Scan(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the usage records of %d people: %w", len(emails), err)
	}
	for _, r := range records {
		byEmail[r.Email] = append(byEmail[r.Email], r)
	}
	return byEmail, nil
}

// organizationRecords are the usage records of the organization's present members whose period began after since.
const organizationRecords = ` FROM workspaces w JOIN users u ON u.workspace_id = w.id JOIN usage_records r ON r.email = u.email
	WHERE w.organization_id = ? AND r.billing_period_start > ?`

// OrganizationMonths sums up the usage of the organization's present members over its newest billing periods, n of them, oldest
// first. The current one is as the summary says. Before it, a person's own period counts to that of the organization in which
// it began, with that person's limit then.
func OrganizationMonths(ctx context.Context, db bun.IDB, current *OrganizationSummary, founded time.Time, n int) ([]PastPeriod, error) {
	months := periodsBack(current.Period, founded, n)
	last := &months[n-1]
	last.Used, last.Included, last.OverageCents, last.BeforeSignUp = current.TotalSuggestions, current.Included, current.OverageCents, false
	var sums []struct {
		Start                 time.Time
		Used, Included, Cents int64
	}
	err := db.NewRaw(`SELECT r.billing_period_start AS start, CAST(SUM(r.suggestions_used) AS bigint) AS used, CAST(SUM(r.suggestions_included) AS bigint) AS included,
		CAST(SUM(CASE WHEN r.suggestions_used > r.suggestions_included THEN (r.suggestions_used - r.suggestions_included) * r.overage_rate_cents ELSE 0 END) AS bigint) AS cents`+
		organizationRecords+` GROUP BY r.billing_period_start`, current.ID, months[0].Period.Start.Add(-time.Microsecond)).Scan(ctx, &sums)
	if err != nil {
		return nil, fmt.Errorf("sum up the months of the organization %s: %w", current.ID, err)
	}
	for _, sum := range sums {
		for i := range months[:n-1] {
			if m := &months[i]; m.Period.Contains(sum.Start.UTC()) {
				m.Used, m.Included, m.OverageCents = m.Used+sum.Used, m.Included+sum.Included, m.OverageCents+sum.Cents
				m.BeforeSignUp = false
			}
		}
	}
	return months, nil
}

// OrganizationDays sums up the usage of the organization's present members by day of a period, from its first UTC date on.
func OrganizationDays(ctx context.Context, db bun.IDB, period Period, id uuid.UUID) ([]int64, error) {
	var rows []struct {
		Start time.Time
		Daily Daily
	}
	// A record that began before the period may reach into it.
	err := db.NewRaw(`SELECT r.billing_period_start AS start, r.daily`+organizationRecords+` AND r.billing_period_start < ? AND r.daily <> ''`,
		id, period.Start.Add(-maxPeriod), period.End).Scan(ctx, &rows)
	if err != nil {
		return nil, fmt.Errorf("sum up the days of the organization %s: %w", id, err)
	}
	first, last := date(period.Start), date(period.End.Add(-time.Microsecond))
	days := make([]int64, int(last.Sub(first)/(24*time.Hour))+1)
	for i := range rows {
		offset := int(date(rows[i].Start).Sub(first) / (24 * time.Hour))
		for day, units := range rows[i].Daily.Units() {
			if at := offset + day; at >= 0 && at < len(days) {
				days[at] += units
			}
		}
	}
	return days, nil
}
