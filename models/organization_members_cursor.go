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
	// The index gives the members of each workspace in their order.
	each := "CROSS JOIN LATERAL (SELECT u.id, u.email FROM users u WHERE u.workspace_id = w.id AND u.email > ? ORDER BY u.email LIMIT ?) m"
	if db.Dialect().Name() != dialect.PG {
		each = "JOIN users m ON m.id IN (SELECT u.id FROM users u WHERE u.workspace_id = w.id AND u.email > ? ORDER BY u.email LIMIT ?)"
	}
	var members []struct {
		ID    uuid.UUID `bun:",type:uuid"`
		Email string
	}
	err := db.NewRaw("SELECT m.id, m.email FROM workspaces w "+each+" WHERE w.organization_id = ? ORDER BY m.email LIMIT ?",
		after.email, limit+1, id, limit+1).Scan(ctx, &members)
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
	q := MemberQuery{Sort: SortEmail, Past: past, only: make([]uuid.UUID, len(members))}
	for i := range members {
		q.only[i] = members[i].ID
	}
	list, err := FindMembers(ctx, db, c, now, id, q)
	page.Rows = list.Rows
	return page, err
}
