package models

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/uptrace/bun"
)

// The lifetime of a session: it ends at whichever limit is reached first. See docs/decisions.md.
const (
	SessionIdle     = 7 * 24 * time.Hour
	SessionLifetime = 30 * 24 * time.Hour
)

// maxUserAgent is in bytes.
const maxUserAgent = 300

// Session is a person's signed-in state in one browser.
type Session struct {
	bun.BaseModel `bun:"table:sessions"`

	// TokenHash is the SHA-256 of the token in the browser's cookie. The token is 32 random bytes,
	// so a plain hash cannot be reversed, and reading this table lets no one sign in.
	TokenHash []byte `bun:",pk"`
	// ID identifies the session to its owner. It grants no access.
	ID uuid.UUID `bun:",type:uuid"`
	// UserID is the person who is signed in, even if their email changes.
	UserID uuid.UUID `bun:",type:uuid"`
	// Data is the session manager's data.
	Data []byte
	// UserAgent is the User-Agent header of the sign-in.
	UserAgent string
	// CreatedAt is the time of the sign-in.
	CreatedAt time.Time
	// LastSeenAt may be some minutes old, because it is not written at each request.
	LastSeenAt time.Time
	ExpiresAt  time.Time
}

// expiry returns when a session ends if it is not used after seen.
func expiry(signedIn, seen time.Time) time.Time {
	idle, last := seen.Add(SessionIdle), signedIn.Add(SessionLifetime)
	if idle.Before(last) {
		return idle
	}
	return last
}

// Viewer is the person who requested a page, as stored at that moment.
type Viewer struct {
	User User
	// Organization is nil for a person without a workspace.
	Organization *Organization
	// Session is the session of the request, without its data.
	Session Session
}

// IsAdmin reports whether the viewer may see all people in their organization.
func (v *Viewer) IsAdmin() bool { return v.Organization != nil && v.User.Role == Admin }

// IsOperator reports whether the viewer runs this installation.
func (v *Viewer) IsOperator() bool { return v.User.Operator }

// SaveSession stores a new session, whose ID and times it sets.
func SaveSession(ctx context.Context, db bun.IDB, now time.Time, tokenHash []byte, user uuid.UUID, userAgent string, data []byte) error {
	if len(userAgent) > maxUserAgent {
		userAgent = userAgent[:maxUserAgent]
	}
	s := Session{
		TokenHash: tokenHash, ID: uuid.Must(uuid.NewV7()), UserID: user, Data: data, UserAgent: printable(userAgent),
		CreatedAt: now, LastSeenAt: now, ExpiresAt: expiry(now, now),
	}
	if _, err := db.NewInsert().Model(&s).Exec(ctx); err != nil {
		return fmt.Errorf("save a session of the user %s: %w", user, err)
	}
	return nil
}

// FindSession returns the person of a token's session, with everything that a page needs to know
// about them, and the session's data. It is one query. The result is nil if the session is unknown,
// ended or expired.
func FindSession(ctx context.Context, db bun.IDB, now time.Time, tokenHash []byte) (*Viewer, []byte, error) {
	var rows []struct {
		Session               `bun:",extend"`
		Email                 string
		Name                  string
		WorkspaceID           *uuid.UUID
		SlackUserID           *string
		Role                  Role
		Operator              bool
		SpendLimitCents       *int64
		UserCreatedAt         time.Time
		OrganizationID        *uuid.UUID
		OrganizationName      string
		OrganizationCreatedAt bun.NullTime
	}
	err := db.NewSelect().TableExpr("sessions AS s").Join("JOIN users AS u ON u.id = s.user_id").
		Join("LEFT JOIN workspaces AS w ON w.id = u.workspace_id").Join("LEFT JOIN organizations AS o ON o.id = w.organization_id").
		Column("s.token_hash", "s.id", "s.user_id", "s.data", "s.user_agent", "s.created_at", "s.last_seen_at", "s.expires_at").
		ColumnExpr("u.email, u.name, u.workspace_id, u.slack_user_id, u.role, u.operator, u.spend_limit_cents").
		ColumnExpr("u.created_at AS user_created_at, o.id AS organization_id, COALESCE(o.name, '') AS organization_name").
		ColumnExpr("o.created_at AS organization_created_at").
		Where("s.token_hash = ?", tokenHash).Where("s.expires_at > ?", now).
		Where("u.erased_at IS NULL"). // a sign-in that was under way may store a session after the erasure
		Scan(ctx, &rows)
	if err != nil {
		return nil, nil, fmt.Errorf("find a session: %w", err)
	}
	if len(rows) == 0 {
		return nil, nil, nil
	}
	r := &rows[0]
	data := r.Data
	v := &Viewer{Session: r.read(), User: User{
		ID: r.UserID, Email: r.Email, Name: r.Name, WorkspaceID: r.WorkspaceID, SlackUserID: r.SlackUserID, Role: r.Role, Operator: r.Operator,
		SpendLimitCents: r.SpendLimitCents, CreatedAt: r.UserCreatedAt.UTC(),
	}}
	if r.OrganizationID != nil {
		v.Organization = &Organization{ID: *r.OrganizationID, Name: r.OrganizationName, CreatedAt: r.OrganizationCreatedAt.UTC()}
	}
	return v, data, nil
}

// read returns the session for callers outside this package: in UTC, and without its data.
func (s Session) read() Session {
	s.Data, s.CreatedAt, s.LastSeenAt, s.ExpiresAt = nil, s.CreatedAt.UTC(), s.LastSeenAt.UTC(), s.ExpiresAt.UTC()
	return s
}

// ListSessions returns a person's sessions that have not expired, most recently used first.
func ListSessions(ctx context.Context, db bun.IDB, now time.Time, user uuid.UUID) ([]Session, error) {
	var sessions []Session
	err := db.NewSelect().Model(&sessions).Where("user_id = ?", user).Where("expires_at > ?", now).Order("last_seen_at DESC", "id DESC").
		Scan(ctx)
	if err != nil {
		return nil, fmt.Errorf("list the sessions of the user %s: %w", user, err)
	}
	for i := range sessions {
		sessions[i] = sessions[i].read()
	}
	return sessions, nil
}

// EndSession ends one of a person's sessions. It returns false if they have no session with this
// ID.
func EndSession(ctx context.Context, db bun.IDB, user, id uuid.UUID) (bool, error) {
	n, err := endSessions(ctx, db.NewDelete().Where("user_id = ? AND id = ?", user, id))
	if err != nil {
		return false, fmt.Errorf("end the session %s of the user %s: %w", id, user, err)
	}
	return n > 0, nil
}

// EndOtherSessions ends all of a person's sessions except one, and returns their number.
func EndOtherSessions(ctx context.Context, db bun.IDB, user, but uuid.UUID) (int64, error) {
	n, err := endSessions(ctx, db.NewDelete().Where("user_id = ? AND id <> ?", user, but))
	if err != nil {
		return 0, fmt.Errorf("end the other sessions of the user %s: %w", user, err)
	}
	return n, nil
}

// EndSessionByToken ends the session of a token. It is not an error if the session has ended.
func EndSessionByToken(ctx context.Context, db bun.IDB, tokenHash []byte) error {
	if _, err := endSessions(ctx, db.NewDelete().Where("token_hash = ?", tokenHash)); err != nil {
		return fmt.Errorf("end a session: %w", err)
	}
	return nil
}

func endSessions(ctx context.Context, q *bun.DeleteQuery) (int64, error) {
	done, err := q.Model((*Session)(nil)).Exec(ctx)
	if err != nil {
		return 0, err
	}
	return done.RowsAffected()
}

// TouchSession stores that a session was used at seen, which extends it. It does not revive a
// session that has ended, or overwrite a later use that another process stored.
func TouchSession(ctx context.Context, db bun.IDB, s *Session, seen time.Time) error {
	_, err := db.NewUpdate().Model((*Session)(nil)).Set("last_seen_at = ?, expires_at = ?", seen, expiry(s.CreatedAt, seen)).
		Where("token_hash = ? AND last_seen_at < ?", s.TokenHash, seen).Exec(ctx)
	if err != nil {
		return fmt.Errorf("note the use of a session of the user %s: %w", s.UserID, err)
	}
	return nil
}
