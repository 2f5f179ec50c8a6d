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
