package models

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/uptrace/bun"
	"github.com/uptrace/bun/schema"
)

// noteMemberships records since when the people that a condition on users u selects have been in
// their current organizations. The zero organization ID means that they are in none. A new person
// counts as a member from the beginning, because nothing earlier is known about them.
func noteMemberships(ctx context.Context, db *DB, conn bun.IConn, now time.Time, who schema.QueryAppender) error {
	for _, which := range []struct {
		condition string
		since     time.Time
	}{{"u.created_at < ?", now}, {"u.created_at >= ?", time.Unix(0, 0).UTC()}} {
		_, err := db.NewRaw(`INSERT INTO memberships (user_id, organization_id, since)
			SELECT u.id, COALESCE(w.organization_id, ?), ? FROM users u LEFT JOIN workspaces w ON w.id = u.workspace_id WHERE ?
			AND `+which.condition+`
				AND COALESCE(w.organization_id, ?) <> COALESCE((SELECT m.organization_id FROM memberships m WHERE m.user_id = u.id
				ORDER BY m.since DESC LIMIT 1), ?)
			ON CONFLICT (user_id, since) DO UPDATE SET organization_id = EXCLUDED.organization_id`, uuid.Nil, which.since, who, now, uuid.Nil,
			uuid.Nil).Conn(conn).Exec(ctx)
		if err != nil {
			return err
		}
	}
	return nil
}

// MakeFirstAdmin makes a member of an organization its admin, because they bought its plan, unless it
// has an admin. Call it before the transaction locks usage records.
func MakeFirstAdmin(ctx context.Context, tx bun.Tx, now time.Time, organization, user uuid.UUID) error {
	members := "workspace_id IN (SELECT id FROM workspaces WHERE organization_id = ?)"
	// The change of the subscription locks all members later, in the same order.
	var all []User
	err := ForUpdate(tx.NewSelect().Model(&all).Column("id", "email", "role").Where(members, organization).Order("email")).Scan(ctx)
	i := slices.IndexFunc(all, func(u User) bool { return u.ID == user })
	if err != nil || i < 0 || slices.ContainsFunc(all, func(u User) bool { return u.Role == Admin }) {
		return err
	}
	if _, err := tx.NewUpdate().Model((*User)(nil)).Set("role = ?", Admin).Where("id = ?", user).Exec(ctx); err != nil {
		return err
	}
	return AuditOrganization(ctx, tx, now, all[i].Email, "user.set", all[i].Email, "role from member to admin, as the buyer of the plan",
		organization)
}

// AdminsOf returns an organization's admins, sorted by email; at most ten, for a list of people to
// ask.
func AdminsOf(ctx context.Context, db bun.IDB, organization uuid.UUID) ([]User, error) {
	var admins []User
	err := db.NewSelect().Model(&admins).Where("role = ?", Admin).
		Where("workspace_id IN (SELECT id FROM workspaces WHERE organization_id = ?)", organization).
		Order("email").Limit(10).Scan(ctx)
	if err != nil {
		return nil, fmt.Errorf("find the admins of the organization %s: %w", organization, err)
	}
	return admins, nil
}
