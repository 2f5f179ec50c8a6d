package models

import (
	"context"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect"
)

// UserQuery finds people.
type UserQuery struct {
	// Search is a part of a name or an email, ignoring case, or a Slack user ID; empty for everyone.
	Search string
	// OrganizationID is the people's organization; nil for any.
	OrganizationID *uuid.UUID
	// Limit is the maximum number of people; 0 means all.
	Limit int
}

// UserEntry is a person in a list.
type UserEntry struct {
	User `bun:",extend"`

	// OrganizationID is nil without an organization, and Organization is then empty.
	OrganizationID *uuid.UUID
	Organization   string
}

// ListUsers returns the people that a query finds, sorted by email.
func ListUsers(ctx context.Context, db bun.IDB, q UserQuery) ([]UserEntry, error) {
	var entries []UserEntry
	list := db.NewSelect().TableExpr("users AS u").ColumnExpr("u.id, u.email, u.name, u.workspace_id, u.slack_user_id, u.role, u.operator").
		ColumnExpr("u.spend_limit_cents, u.member_limit, u.created_at, o.id AS organization_id, COALESCE(o.name, '') AS organization").
		Join("LEFT JOIN workspaces AS w ON w.id = u.workspace_id").Join("LEFT JOIN organizations AS o ON o.id = w.organization_id").
		Order("u.email")
	if search := strings.TrimSpace(q.Search); search != "" {
		if !utf8.ValidString(search) || strings.ContainsRune(search, 0) {
			return nil, nil // no name has it, and PostgreSQL takes no such text
		}
		position, folded := positionFunction(db.Dialect().Name() == dialect.PG), strings.ToLower(search)
		list = list.Where("("+position+"(u.email, ?) > 0 OR "+position+"(COALESCE(u.folded_name, ''), ?) > 0 OR u.slack_user_id = ?)",
			folded, folded, search)
	}
	if q.OrganizationID != nil {
		list = list.Where("o.id = ?", *q.OrganizationID)
	}
	if q.Limit > 0 {
		list = list.Limit(int64(q.Limit))
	}
	if err := list.Scan(ctx, &entries); err != nil {
		return nil, fmt.Errorf("list the users: %w", err)
	}
	for i := range entries {
		entries[i].CreatedAt = entries[i].CreatedAt.UTC()
	}
	return entries, nil
}

// UserByLabel returns a person with their organization for an operator, who may also name an erased
// person. Otherwise it does the same as UserByEmail.
func UserByLabel(ctx context.Context, db bun.IDB, label string) (UserEntry, error) {
	if id, ok := erasedUser(label); ok {
		return findUser(ctx, db, "email = ?", erasedLabel(id))
	}
	return UserByEmail(ctx, db, label)
}

// UserByEmail returns a person with their organization, or an Error with CodeUnknownUser. It returns
// ErrEmail for an invalid address.
func UserByEmail(ctx context.Context, db bun.IDB, email string) (UserEntry, error) {
	given := email
	email, err := ParseEmail(given)
	if err != nil {
		return UserEntry{}, fmt.Errorf("find a user: %q %w", given, err)
	}
	return findUser(ctx, db, "email = ?", email)
}

// UserByID returns a person with their organization, or an Error with CodeUnknownUser.
func UserByID(ctx context.Context, db bun.IDB, id uuid.UUID) (UserEntry, error) {
	return findUser(ctx, db, "id = ?", id)
}

func findUser(ctx context.Context, db bun.IDB, condition string, value any) (UserEntry, error) {
	var found []User
	if err := db.NewSelect().Model(&found).Where(condition, value).Scan(ctx); err != nil {
		return UserEntry{}, fmt.Errorf("find the user %v: %w", value, err)
	}
	if len(found) == 0 {
		return UserEntry{}, &Error{Code: CodeUnknownUser, Detail: fmt.Sprintf("There is no user %v.", value)}
	}
	entry := UserEntry{User: found[0]}
	entry.CreatedAt = entry.CreatedAt.UTC()
	home, err := entry.organization(ctx, db)
	if err != nil || home == nil {
		return entry, err
	}
	o, err := OrganizationByID(ctx, db, *home)
	entry.OrganizationID, entry.Organization = home, o.Name
	return entry, err
}
