package models

import (
	"context"
	"encoding/base64"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect"
)

// MemberCursor is a position in the list of an organization's members, sorted by email.
type MemberCursor struct {
	organization uuid.UUID
	email        string
}

// String returns the text that ParseMemberCursor parses.
func (c MemberCursor) String() string {
	return base64.RawURLEncoding.EncodeToString([]byte(c.organization.String() + ":" + c.email))
}

// ParseMemberCursor parses the text of a cursor in the list of an organization. It returns ErrCursor,
// also for a cursor of another organization.
func ParseMemberCursor(text string, organization uuid.UUID) (*MemberCursor, error) {
	raw, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil || !utf8.Valid(raw) {
		return nil, ErrCursor
	}
	id, email, _ := strings.Cut(string(raw), ":")
	c := &MemberCursor{organization, email}
	if id != organization.String() || email == "" || strings.ContainsRune(email, 0) || c.String() != text {
		return nil, ErrCursor
	}
	return c, nil
}

// MemberPage is a part of the list of an organization's members, sorted by email.
type MemberPage struct {
	Rows []MemberUsage
	// Next continues the list; nil at its end.
	Next *MemberCursor
}

// MembersAfter returns the members of an organization that FindMembers finds in a period (nil: the
// current one), after a cursor (nil: from the start). It reads at most limit members and their
// records, so a page of a past period is shorter if some of these members did not exist yet.
func MembersAfter(
	ctx context.Context, db bun.IDB, c *Catalogue, now time.Time, id uuid.UUID, past *Period, after *MemberCursor, limit int,
) (MemberPage, error) {
	var page MemberPage
	if after == nil {
		after = &MemberCursor{organization: id}
	}
	members, err := nextMembers(ctx, db, after, limit+1)
	if err != nil {
		return MemberPage{}, fmt.Errorf("find the next members of the organization %s: %w", id, err)
	}
	if len(members) > limit {
		members = members[:limit]
		page.Next = &MemberCursor{id, members[limit-1].Email}
	}
	if len(members) == 0 {
		return page, nil
	}
	ids := make([]uuid.UUID, len(members))
	for i := range members {
		ids[i] = members[i].ID
	}
	list, err := listMembers(ctx, db, c, now, id, MemberQuery{Sort: SortEmail, Past: past}, ids)
	page.Rows = list.Rows
	return page, err
}

// nextMembers returns the IDs and emails of at most limit members after a cursor. An index gives the
// members of each workspace in their order.
func nextMembers(ctx context.Context, db bun.IDB, after *MemberCursor, limit int) ([]User, error) {
	var next []User
	if db.Dialect().Name() != dialect.PG {
		err := db.NewRaw(`SELECT m.id, m.email FROM workspaces w JOIN users m ON m.id IN
			(SELECT u.id FROM users u WHERE u.workspace_id = w.id AND u.email > ? ORDER BY u.email LIMIT ?)
			WHERE w.organization_id = ? ORDER BY m.email LIMIT ?`, after.email, limit, after.organization, limit).Scan(ctx, &next)
		return next, err
	}
	workspaces, _, err := workspacesOf(ctx, db, after.organization)
	if err != nil || len(workspaces) == 0 {
		return nil, err
	}
	// The IDs are literals, so that the planner can estimate the number of members.
	var each []string
	var args []any
	for _, w := range workspaces {
		each = append(each, "(SELECT id, email FROM users WHERE workspace_id = ? AND email > ? ORDER BY email LIMIT ?)")
		args = append(args, w, after.email, limit)
	}
	err = db.NewRaw("SELECT id, email FROM ("+strings.Join(each, " UNION ALL ")+") m ORDER BY email LIMIT ?", append(args, limit)...).
		Scan(ctx, &next)
	return next, err
}
