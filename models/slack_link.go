package models

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/uptrace/bun"
	"github.com/uptrace/bun/schema"
)

// Link says that Slack knows the person with this email by this identity.
type Link struct {
	Email string
	Slack SlackIdentity
	// Gentle takes nothing from anybody: it does nothing when somebody has the identity, or the person another one or a
	// place in another workspace.
	Gentle bool
}

// LinkedPerson is the person that a link names.
type LinkedPerson struct {
	UserID uuid.UUID
	Email  string
}

func linkedAs(links []Link) []LinkedPerson {
	people := make([]LinkedPerson, len(links))
	for i, l := range links {
		people[i].Email = l.Email
	}
	return people
}

// LinkPeople notes who people are to Slack, all in one transaction and one link after another. What is missing is made: the
// user, the workspace, and for a new workspace an organization of its own. An identity moves when somebody else had it;
// of two links of one person or of one identity the last one stands.
func LinkPeople(ctx context.Context, db *DB, now time.Time, links []Link) ([]LinkedPerson, error) {
	var err error
	if db.Postgres {
		err = db.inTrips(ctx, func(ctx context.Context, t *trips) error { return t.linkPeopleNow(ctx, now, links) })
	} else {
		err = db.InTx(ctx, func(ctx context.Context, tx bun.Tx) error { return linkPeopleNow(ctx, db, tx, now, links) })
	}
	if err != nil {
		return nil, fmt.Errorf("link %d people to Slack: %w", len(links), err)
	}
	return linkedAs(links), nil
}

// namesOf returns whom and which teams links name, each once and sorted.
func namesOf(links []Link) (emails, teams []string, identities []SlackIdentity) {
	for _, l := range links {
		emails, teams, identities = append(emails, l.Email), append(teams, l.Slack.TeamID), append(identities, l.Slack)
	}
	slices.Sort(emails)
	slices.Sort(teams)
	return slices.Compact(emails), slices.Compact(teams), identities
}

func linkPeople(ctx context.Context, db *DB, tx bun.Tx, now time.Time, links []Link) ([]LinkedPerson, error) {
	return linkedAs(links), linkPeopleNow(ctx, db, tx, now, links)
}

func linkPeopleNow(ctx context.Context, db *DB, tx bun.Tx, now time.Time, links []Link) error {
	emails, teams, identities := namesOf(links)
	if err := ensureUsers(ctx, tx, emails, now); err != nil {
		return err
	}
	taken, err := EmailsOf(ctx, tx, identities)
	if err != nil {
		return err
	}
	// Everybody whose row may change: these people, and who has their identities now.
	concerned := slices.Concat(emails, slices.Collect(maps.Values(taken)))
	slices.Sort(concerned)
	var users []User
	if err := db.ForUpdate(tx.NewSelect().Model(&users).Where("email IN (?)", bun.List(slices.Compact(concerned))).Order("email")).Scan(ctx); err != nil {
		return err
	}
	// Only under these locks: whoever links others of a new workspace waits until it is there, and must not wait for these people too.
	workspaces := make(map[string]*Workspace, len(teams))
	for _, team := range teams {
		if workspaces[team], err = ensureWorkspace(ctx, tx, now, team); err != nil {
			return err
		}
	}
	return storeLinks(ctx, db, tx, now, links, taken, users, workspaces)
}

// linkPeople is the same in two round trips, the second of which the caller sends.
func (t *trips) linkPeople(ctx context.Context, now time.Time, links []Link) ([]LinkedPerson, error) {
	return linkedAs(links), t.linkPeopleNow(ctx, now, links)
}

func (t *trips) linkPeopleNow(ctx context.Context, now time.Time, links []Link) error {
	db := t.db
	emails, teams, identities := namesOf(links)
	if err := t.ensureUsers(ctx, emails, now); err != nil {
		return err
	}
	taken := make(map[SlackIdentity]string, len(identities))
	t.read(emailsQuery(db, identities).String(), func(row scanner) error { return scanEmail(row, taken) })
	var users []User
	readInto(t, db.ForUpdate(db.NewSelect().Model((*User)(nil)).Where("id IN (? UNION ?)",
		db.NewSelect().Model((*User)(nil)).Column("id").Where("email IN (?)", bun.List(emails)), identitiesQuery(db, identities).Column("u.id")).Order("email")), &users)
	for _, team := range teams {
		organization := uuid.Must(uuid.NewV7())
		for _, statement := range []*bun.RawQuery{
			db.NewRaw("INSERT INTO organizations (id, name, created_at) SELECT ?, ?, ? WHERE NOT EXISTS (SELECT 1 FROM workspaces WHERE slack_team_id = ?)",
				organization, automaticName(team), now, team),
			db.NewRaw("INSERT INTO workspaces (id, organization_id, slack_team_id, name, created_at) SELECT ?, id, ?, ?, ? FROM organizations WHERE id = ? "+
				"ON CONFLICT (slack_team_id) DO NOTHING", uuid.Must(uuid.NewV7()), team, team, now, organization),
			// Another process made the workspace in the meantime.
			db.NewRaw("DELETE FROM organizations o WHERE o.id = ? AND NOT EXISTS (SELECT 1 FROM workspaces w WHERE w.organization_id = o.id)", organization),
		} {
			if _, err := statement.Conn(t).Exec(ctx); err != nil {
				return err
			}
		}
	}
	var rows []Workspace
	readInto(t, db.NewSelect().Model((*Workspace)(nil)).Where("slack_team_id IN (?)", bun.List(teams)), &rows)
	if err := t.send(ctx); err != nil {
		return err
	}
	workspaces := make(map[string]*Workspace, len(teams))
	for i := range rows {
		workspaces[rows[i].SlackTeamID] = &rows[i]
	}
	return storeLinks(ctx, db, t, now, links, taken, users, workspaces)
}

func storeLinks(ctx context.Context, db *DB, conn bun.IConn, now time.Time, links []Link, taken map[SlackIdentity]string, users []User, workspaces map[string]*Workspace) error {
	given := give(links, taken, users, workspaces)
	// All are given up first and then given out, as no two people may have the same one at any time.
	for i := range users {
		u := &users[i]
		_, moves := given[u.Email]
		if u.SlackUserID == nil || !moves && !u.loses(taken, workspaces) {
			continue
		}
		if _, err := db.NewUpdate().Conn(conn).Model((*User)(nil)).Set("slack_user_id = NULL").Where("id = ?", u.ID).Exec(ctx); err != nil {
			return err
		}
	}
	for i := range users {
		u := &users[i]
		identity, ok := given[u.Email]
		if !ok {
			continue
		}
		w := workspaces[identity.TeamID]
		// Who lost the identity to a later one of these links is in the workspace all the same.
		var slackUser *string
		if taken[identity] == u.Email {
			slackUser = &identity.UserID
		}
		// An admin of one organization is not one of the next.
		if _, err := db.NewUpdate().Conn(conn).Model((*User)(nil)).Set("workspace_id = ?, slack_user_id = ?", w.ID, slackUser).
			Set("role = CASE WHEN EXISTS (SELECT 1 FROM workspaces w WHERE w.id = workspace_id AND w.organization_id <> ?) THEN ? ELSE role END", w.OrganizationID, Member).
			Where("id = ?", u.ID).Exec(ctx); err != nil {
			return err
		}
	}
	emails, _, _ := namesOf(links)
	return noteMemberships(ctx, db, conn, now, bun.SafeQuery("u.email IN (?)", bun.List(emails)))
}

// noteMemberships keeps since when the people whom a condition on users u finds are in their organizations, or, by the id of nothing, in
// none any more. Whoever is new was in theirs always: it is the first that is heard of them.
func noteMemberships(ctx context.Context, db *DB, conn bun.IConn, now time.Time, who schema.QueryAppender) error {
	for _, which := range []struct {
		condition string
		since     time.Time
	}{{"u.created_at < ?", now}, {"u.created_at >= ?", time.Unix(0, 0).UTC()}} {
		_, err := db.NewRaw(`INSERT INTO memberships (user_id, organization_id, since)
			SELECT u.id, COALESCE(w.organization_id, ?), ? FROM users u LEFT JOIN workspaces w ON w.id = u.workspace_id WHERE ? AND `+which.condition+`
				AND COALESCE(w.organization_id, ?) <> COALESCE((SELECT m.organization_id FROM memberships m WHERE m.user_id = u.id ORDER BY m.since DESC LIMIT 1), ?)
			ON CONFLICT (user_id, since) DO UPDATE SET organization_id = EXCLUDED.organization_id`, uuid.Nil, which.since, who, now, uuid.Nil, uuid.Nil).Conn(conn).Exec(ctx)
		if err != nil {
			return err
		}
	}
	return nil
}

func give(links []Link, taken map[SlackIdentity]string, users []User, workspaces map[string]*Workspace) map[string]SlackIdentity {
	given := make(map[string]SlackIdentity, len(links))
	for _, l := range links {
		if l.Gentle {
			_, others := taken[l.Slack]
			_, again := given[l.Email]
			i, _ := slices.BinarySearchFunc(users, l.Email, func(u User, email string) int { return strings.Compare(u.Email, email) })
			u := &users[i]
			if others || again || u.SlackUserID != nil || u.WorkspaceID != nil && *u.WorkspaceID != workspaces[l.Slack.TeamID].ID {
				continue
			}
		}
		given[l.Email], taken[l.Slack] = l.Slack, l.Email
	}
	return given
}

// loses says that the user's identity is somebody else's now.
func (u *User) loses(taken map[SlackIdentity]string, workspaces map[string]*Workspace) bool {
	for team, w := range workspaces {
		if u.WorkspaceID != nil && *u.WorkspaceID == w.ID {
			email, ok := taken[SlackIdentity{TeamID: team, UserID: *u.SlackUserID}]
			return ok && email != u.Email
		}
	}
	return false
}

func ensureWorkspace(ctx context.Context, tx bun.Tx, now time.Time, team string) (*Workspace, error) {
	w, err := workspaceByTeam(ctx, tx, team)
	if err != nil || w != nil {
		return w, err
	}
	organization := Organization{ID: uuid.Must(uuid.NewV7()), Name: automaticName(team), CreatedAt: now}
	if _, err := tx.NewInsert().Model(&organization).Exec(ctx); err != nil {
		return nil, err
	}
	w = &Workspace{ID: uuid.Must(uuid.NewV7()), OrganizationID: organization.ID, SlackTeamID: team, Name: team, CreatedAt: now}
	made, err := tx.NewInsert().Model(w).On("CONFLICT (slack_team_id) DO NOTHING").Exec(ctx)
	if err != nil {
		return nil, err
	}
	if n, err := made.RowsAffected(); err != nil || n == 1 {
		return w, err
	}
	// Somebody else made the workspace meanwhile; theirs stands.
	if _, err := tx.NewDelete().Model(&organization).WherePK().Exec(ctx); err != nil {
		return nil, err
	}
	return workspaceByTeam(ctx, tx, team)
}

// automaticName is the name of the organization that a new Slack team gets.
func automaticName(team string) string { return "Slack team " + team }

func workspaceByTeam(ctx context.Context, db bun.IDB, team string) (*Workspace, error) {
	var found []Workspace
	if err := db.NewSelect().Model(&found).Where("slack_team_id = ?", team).Scan(ctx); err != nil || len(found) == 0 {
		return nil, err
	}
	return &found[0], nil
}

// EmailsOf finds the people whom Slack knows by these identities; those that nobody has are missing from the answer.
func EmailsOf(ctx context.Context, db bun.IDB, identities []SlackIdentity) (map[SlackIdentity]string, error) {
	found := make(map[SlackIdentity]string, len(identities))
	for some := range slices.Chunk(identities, 200) { // SQLite bounds the depth of an expression
		if err := emailsOf(ctx, db, some, found); err != nil {
			return nil, fmt.Errorf("find people by their Slack identity: %w", err)
		}
	}
	return found, nil
}

func emailsOf(ctx context.Context, db bun.IDB, identities []SlackIdentity, found map[SlackIdentity]string) error {
	return eachRow(ctx, db, emailsQuery(db, identities), func(row scanner) error { return scanEmail(row, found) })
}

// identitiesQuery selects from the users u and workspaces w with these identities.
func identitiesQuery(db bun.IDB, identities []SlackIdentity) *bun.SelectQuery {
	var where strings.Builder
	args := make([]any, 0, 2*len(identities))
	for i, id := range identities {
		if i > 0 {
			where.WriteString(" OR ")
		}
		where.WriteString("(w.slack_team_id = ? AND u.slack_user_id = ?)")
		args = append(args, id.TeamID, id.UserID)
	}
	return db.NewSelect().TableExpr("users AS u").Join("JOIN workspaces AS w ON w.id = u.workspace_id").Where(where.String(), args...)
}

func emailsQuery(db bun.IDB, identities []SlackIdentity) *bun.SelectQuery {
	return identitiesQuery(db, identities).Column("w.slack_team_id", "u.slack_user_id", "u.email")
}

func scanEmail(row scanner, found map[SlackIdentity]string) error {
	var id SlackIdentity
	var email string
	err := row.Scan(&id.TeamID, &id.UserID, &email)
	found[id] = email
	return err
}
