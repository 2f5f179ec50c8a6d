package models

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/uptrace/bun"
)

// Link is a call's claim that an email and a Slack identity belong to one person.
type Link struct {
	Email string
	Slack SlackIdentity

	// verified means that Slack has verified the email, which only a sign-in can know.
	verified bool
}

// LinkedPerson is the person that a link or a sign-in identifies.
type LinkedPerson struct {
	UserID uuid.UUID
	// Email is the person's current label. It may differ from the link's.
	Email string
	// Ignored is the link's email if it is not the person's label; empty otherwise.
	Ignored string
	// Owner is the person whose label the ignored email is; the zero value if there is none.
	Owner uuid.UUID
	// NotLinked means that only the email identified the person: they are an admin or an operator
	// without a Slack identity, and an unverified address grants no role. Signing in with Slack
	// links them.
	NotLinked bool
}

// LinkPeople returns the person of each link, in the order of the links. It creates missing users,
// workspaces and, for a new workspace, an organization. All of it is one transaction, and each link
// sees the effects of the links before it.
//
//   - A linked identity determines the person. An unused email becomes the person's label; an email
//     in use is ignored.
//   - Otherwise, the email determines the person if its owner has no identity and is in no other
//     organization. They are linked, unless they are an admin or an operator.
//   - An unused email creates a person. An email that a person gave up is unused: it never identifies
//     its former owner.
//   - With any other email, the identity belongs to another human being. A separate person with a
//     placeholder label is created.
//
// No link moves a person out of an organization, takes a role away, or moves an identity from one
// person to another. docs/identities.md lists the cases.
func LinkPeople(ctx context.Context, db *DB, now time.Time, links []Link) ([]LinkedPerson, error) {
	if len(links) == 0 {
		return nil, nil
	}
	var people []LinkedPerson
	var err error
	if db.Postgres {
		err = db.inBatchTx(ctx, func(ctx context.Context, t *batchTx) (err error) {
			people, err = t.linkPeople(ctx, now, links)
			return err
		})
	} else {
		err = db.InTx(ctx, func(ctx context.Context, tx bun.Tx) (err error) {
			people, err = linkPeople(ctx, db, tx, now, links)
			return err
		})
	}
	if err != nil {
		return nil, fmt.Errorf("link %d people to Slack: %w", len(links), err)
	}
	return people, nil
}

// LogLinked logs each link whose email was ignored and each identity that was not linked.
func LogLinked(ctx context.Context, log *slog.Logger, links []Link, people []LinkedPerson) {
	for i, p := range people {
		attrs := []slog.Attr{
			slog.String("slack_team_id", links[i].Slack.TeamID), slog.String("slack_user_id", links[i].Slack.UserID),
			slog.String("user_id", p.UserID.String()),
		}
		switch {
		case p.NotLinked:
			log.LogAttrs(ctx, slog.LevelInfo, "Slack identity not linked: the email belongs to an admin or operator, who must sign in "+
				"with Slack once", attrs...)
		case p.Ignored != "" && p.Owner != uuid.Nil:
			log.LogAttrs(ctx, slog.LevelInfo, "email ignored: it belongs to another person",
				append(attrs, slog.String("owner_id", p.Owner.String()))...)
		case p.Ignored != "":
			log.LogAttrs(ctx, slog.LevelInfo, "email ignored: it is a placeholder", attrs...)
		}
	}
}

// names are the sorted, distinct names in some links.
type names struct {
	emails, teams []string
	identities    []SlackIdentity
}

func namesOf(links []Link) names {
	var n names
	for _, l := range links {
		n.emails, n.teams, n.identities = append(n.emails, l.Email), append(n.teams, l.Slack.TeamID), append(n.identities, l.Slack)
		if placeholder := l.Slack.placeholder(); placeholder != "" {
			n.emails = append(n.emails, placeholder)
		}
	}
	slices.Sort(n.emails)
	slices.Sort(n.teams)
	n.emails, n.teams = slices.Compact(n.emails), slices.Compact(n.teams)
	return n
}

// users selects the people with one of the emails or identities, in the order in which they are
// locked.
func (n *names) users(db bun.IDB) *bun.SelectQuery {
	return db.NewSelect().Model((*User)(nil)).Where("id IN (? UNION ?)",
		db.NewSelect().Model((*User)(nil)).Column("id").Where("email IN (?)", bun.List(n.emails)), identitiesQuery(db, n.identities).
			Column("u.id")).Order("email")
}

// workspaces selects the workspaces of the teams, and of the people with one of the emails.
func (n *names) workspaces(db bun.IDB) *bun.SelectQuery {
	return db.NewSelect().Model((*Workspace)(nil)).Where("id IN (? UNION ?)",
		db.NewSelect().Model((*Workspace)(nil)).Column("id").Where("slack_team_id IN (?)", bun.List(n.teams)),
		db.NewSelect().Model((*User)(nil)).Column("workspace_id").Where("email IN (?) AND workspace_id IS NOT NULL", bun.List(n.emails)))
}

func linkPeople(ctx context.Context, db *DB, tx bun.Tx, now time.Time, links []Link) ([]LinkedPerson, error) {
	names := namesOf(links)
	var users []User
	if err := ForUpdate(names.users(tx)).Scan(ctx, &users); err != nil {
		return nil, err
	}
	// Read this only under these locks: a transaction that links other people of a new workspace
	// waits until the workspace exists, and must not wait for these people too.
	for _, team := range names.teams {
		if err := ensureWorkspace(ctx, tx, now, team); err != nil {
			return nil, err
		}
	}
	var workspaces []Workspace
	if err := names.workspaces(tx).Scan(ctx, &workspaces); err != nil {
		return nil, err
	}
	return applyLinks(ctx, db, tx, now, links, users, workspaces)
}

// linkPeople does the same in two round trips. The caller sends the second one.
func (t *batchTx) linkPeople(ctx context.Context, now time.Time, links []Link) ([]LinkedPerson, error) {
	db := t.db
	names := namesOf(links)
	var users []User
	readInto(t, ForUpdate(names.users(db)), &users)
	for _, team := range names.teams {
		organization := uuid.Must(uuid.NewV7())
		for _, statement := range []*bun.RawQuery{
			db.NewRaw("INSERT INTO organizations (id, name, automatic, created_at) SELECT ?, ?, true, ? WHERE NOT EXISTS (SELECT 1 FROM "+
				"workspaces WHERE slack_team_id = ?)",
				organization, automaticName(team), now, team),
			db.NewRaw("INSERT INTO workspaces (id, organization_id, slack_team_id, name, created_at) SELECT ?, id, ?, ?, ? FROM "+
				"organizations WHERE id = ? "+
				"ON CONFLICT (slack_team_id) DO NOTHING", uuid.Must(uuid.NewV7()), team, team, now, organization),
			// Another process made the workspace in the meantime.
			db.NewRaw("DELETE FROM organizations o WHERE o.id = ? AND NOT EXISTS (SELECT 1 FROM workspaces w WHERE w.organization_id = o.id)",
				organization),
		} {
			if _, err := statement.Conn(t).Exec(ctx); err != nil {
				return nil, err
			}
		}
	}
	var workspaces []Workspace
	readInto(t, names.workspaces(db), &workspaces)
	if err := t.send(ctx); err != nil {
		return nil, err
	}
	return applyLinks(ctx, db, t, now, links, users, workspaces)
}

func applyLinks(ctx context.Context, db *DB, conn bun.IConn, now time.Time, links []Link, users []User,
	workspaces []Workspace) ([]LinkedPerson, error) {
	n := newNaming(now, users, workspaces)
	people := make([]LinkedPerson, len(links))
	for i, l := range links {
		var err error
		if people[i], err = n.identify(l); err != nil {
			return nil, err
		}
	}
	return people, n.store(ctx, db, conn)
}

// naming applies links to people, one after another. It is pure: steps are the writes that are
// needed.
type naming struct {
	now        time.Time
	people     map[string]*User // by label
	linked     map[SlackIdentity]*User
	teams      map[string]*Workspace
	workspaces map[uuid.UUID]*Workspace
	steps      []namingStep
}

// namingStep is one write. Labels and identities are unique, so the order of the steps matters.
type namingStep struct {
	user User // as it is after the step
	kind namingKind
}

type namingKind uint8

const (
	personMade namingKind = iota
	personRenamed
	personLinked
)

func newNaming(now time.Time, users []User, workspaces []Workspace) *naming {
	n := &naming{
		now: now, people: make(map[string]*User, len(users)), linked: make(map[SlackIdentity]*User, len(users)),
		teams: make(map[string]*Workspace, len(workspaces)), workspaces: make(map[uuid.UUID]*Workspace, len(workspaces)),
	}
	for i := range workspaces {
		w := &workspaces[i]
		n.teams[w.SlackTeamID], n.workspaces[w.ID] = w, w
	}
	for i := range users {
		u := &users[i]
		n.people[u.Email] = u
		if u.SlackUserID == nil || u.WorkspaceID == nil {
			continue
		}
		if w := n.workspaces[*u.WorkspaceID]; w != nil {
			n.linked[SlackIdentity{TeamID: w.SlackTeamID, UserID: *u.SlackUserID}] = u
		}
	}
	return n
}

// identify returns the person of a link, as described at LinkPeople.
func (n *naming) identify(l Link) (LinkedPerson, error) {
	if u := n.linked[l.Slack]; u != nil {
		if u.Email != l.Email && n.people[l.Email] == nil && !isPlaceholder(l.Email) {
			n.rename(u, l.Email)
		}
		return n.answer(u, l), nil
	}
	if isPlaceholder(l.Email) && l.Email != l.Slack.placeholder() {
		return n.separate(l), nil
	}
	owner := n.people[l.Email]
	switch {
	case owner == nil:
		return n.answer(n.make(l.Email, l.Slack), l), nil
	case !n.linkable(owner, l.Slack):
		return n.separate(l), nil
	case owner.Role != Admin && !owner.Operator, l.verified && owner.WorkspaceID != nil:
		n.link(owner, l.Slack)
		return n.answer(owner, l), nil
	case l.verified:
		// A Slack team controls the addresses of its people, so it cannot make anyone an operator.
		return LinkedPerson{}, &Error{Code: CodeSignInRefused,
			Detail: "This email address has an operator account that is not in a Slack workspace yet, so Slack cannot sign you in to it. " +
				"Someone with access to the server can add the account to your organization: tollgate user set EMAIL --organization ID"}
	}
	person := n.answer(owner, l)
	person.NotLinked = true
	return person, nil
}

func (n *naming) answer(u *User, l Link) LinkedPerson {
	person := LinkedPerson{UserID: u.ID, Email: u.Email}
	if u.Email != l.Email {
		person.Ignored = l.Email
		if owner := n.people[l.Email]; owner != nil {
			person.Owner = owner.ID
		}
	}
	return person
}

// linkable reports whether the owner may get the identity: they have none, and are in no other
// organization.
func (n *naming) linkable(owner *User, identity SlackIdentity) bool {
	if owner.SlackUserID != nil {
		return false
	}
	if owner.WorkspaceID == nil {
		return true
	}
	w := n.workspaces[*owner.WorkspaceID]
	return w != nil && w.OrganizationID == n.teams[identity.TeamID].OrganizationID
}

// separate returns the separate person for an identity whose email belongs to another person: a new
// one, or the person who has the identity's placeholder because they lost the identity.
func (n *naming) separate(l Link) LinkedPerson {
	label := l.Slack.placeholder()
	former := n.people[label]
	if former != nil && n.linkable(former, l.Slack) && former.Role != Admin && !former.Operator {
		n.link(former, l.Slack)
		return n.answer(former, l)
	}
	if former != nil {
		label = ""
	}
	return n.answer(n.make(label, l.Slack), l)
}

func (n *naming) make(label string, identity SlackIdentity) *User {
	u := &User{ID: uuid.Must(uuid.NewV7()), Email: label, WorkspaceID: &n.teams[identity.TeamID].ID, SlackUserID: &identity.UserID,
		Role: Member, CreatedAt: n.now}
	if label == "" {
		u.Email = u.ID.String() + "@" + placeholderDomain
	}
	n.people[u.Email], n.linked[identity] = u, u
	n.steps = append(n.steps, namingStep{*u, personMade})
	return u
}

func (n *naming) rename(u *User, label string) {
	delete(n.people, u.Email)
	u.Email = label
	n.people[label] = u
	n.steps = append(n.steps, namingStep{*u, personRenamed})
}

func (n *naming) link(u *User, identity SlackIdentity) {
	u.WorkspaceID, u.SlackUserID = &n.teams[identity.TeamID].ID, &identity.UserID
	n.linked[identity] = u
	n.steps = append(n.steps, namingStep{*u, personLinked})
}

// store writes the steps. If another transaction has written a row with the same label or identity
// in the meantime, the transaction fails and is retried.
func (n *naming) store(ctx context.Context, db *DB, conn bun.IConn) error {
	var placed []uuid.UUID
	for i := 0; i < len(n.steps); {
		s := &n.steps[i]
		switch s.kind {
		case personMade:
			var made []User
			for ; i < len(n.steps) && n.steps[i].kind == personMade; i++ {
				made, placed = append(made, n.steps[i].user), append(placed, n.steps[i].user.ID)
			}
			// Write the rows in one order, so that two transactions that create the same people do
			// not deadlock.
			slices.SortFunc(made, func(a, b User) int { return strings.Compare(a.Email, b.Email) })
			if _, err := conn.ExecContext(ctx, db.NewInsert().Model(&made).String()); err != nil {
				return err
			}
			continue
		case personRenamed:
			if _, err := db.NewUpdate().Conn(conn).Model((*User)(nil)).Set("email = ?", s.user.Email).Where("id = ?", s.user.ID).
				Exec(ctx); err != nil {
				return err
			}
		case personLinked:
			placed = append(placed, s.user.ID)
			if _, err := db.NewUpdate().Conn(conn).Model((*User)(nil)).Set("workspace_id = ?, slack_user_id = ?", s.user.WorkspaceID,
				s.user.SlackUserID).
				Where("id = ?", s.user.ID).Exec(ctx); err != nil {
				return err
			}
		}
		i++
	}
	if len(placed) == 0 {
		return nil
	}
	return noteMemberships(ctx, db, conn, n.now, bun.SafeQuery("u.id IN (?)", bun.List(placed)))
}

// placeholderDomain is the domain of placeholder labels. No mail server can have it.
// Source: https://www.rfc-editor.org/rfc/rfc2606#section-2
const placeholderDomain = "slack.invalid"

// placeholder returns the label of a person whose address belongs to another person:
// "u1@t1.slack.invalid". It is empty if the IDs cannot be part of an address.
func (s SlackIdentity) placeholder() string {
	label := strings.ToLower(s.UserID + "@" + s.TeamID + "." + placeholderDomain)
	if normal, err := ParseEmail(label); err != nil || normal != label {
		return ""
	}
	return label
}

// isPlaceholder reports whether a label is a placeholder or that of an erased person.
func isPlaceholder(email string) bool {
	return strings.HasSuffix(email, "."+placeholderDomain) || strings.HasSuffix(email, "@"+placeholderDomain) ||
		strings.HasSuffix(email, "@"+erasedDomain)
}

// PeopleByIdentity returns the people with these Slack identities. The result has no entry for an
// unknown identity.
func PeopleByIdentity(ctx context.Context, db bun.IDB, identities []SlackIdentity) (map[SlackIdentity]LinkedPerson, error) {
	found := make(map[SlackIdentity]LinkedPerson, len(identities))
	if len(identities) == 0 {
		return found, nil
	}
	query := identitiesQuery(db, identities).Column("w.slack_team_id", "u.slack_user_id", "u.id", "u.email")
	err := eachRow(ctx, db, query, func(row scanner) error {
		var id SlackIdentity
		var p LinkedPerson
		err := row.Scan(&id.TeamID, &id.UserID, &p.UserID, &p.Email)
		found[id] = p
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("find people by their Slack identity: %w", err)
	}
	return found, nil
}

// identitiesQuery selects from the users u and workspaces w with these identities, of which there
// must be at least one. Both databases name the columns of VALUES column1 and column2.
func identitiesQuery(db bun.IDB, identities []SlackIdentity) *bun.SelectQuery {
	values := strings.TrimSuffix(strings.Repeat("(?, ?), ", len(identities)), ", ")
	args := make([]any, 0, 2*len(identities))
	for _, id := range identities {
		args = append(args, id.TeamID, id.UserID)
	}
	return db.NewSelect().TableExpr("(VALUES "+values+") AS k", args...).
		Join("JOIN workspaces AS w ON w.slack_team_id = k.column1").
		Join("JOIN users AS u ON u.workspace_id = w.id AND u.slack_user_id = k.column2")
}

// SlackIdentity identifies a person in Slack. A Slack user ID is unique only within its team.
type SlackIdentity struct {
	TeamID string
	UserID string
}

// SlackIDRule describes the valid IDs of Slack teams and users, for error messages.
const SlackIDRule = `1 to 64 letters, digits, dots, dashes or underscores, such as "T024BE7LD"`

// IsSlackID reports whether s can be the ID of a Slack team or user. Slack documents them only as
// strings, so this accepts more than Slack uses.
func IsSlackID(s string) bool {
	if len(s) < 1 || len(s) > 64 {
		return false
	}
	for i := range len(s) {
		b := s[i]
		if (b < '0' || b > '9') && (b < 'A' || b > 'Z') && (b < 'a' || b > 'z') && b != '.' && b != '-' && b != '_' {
			return false
		}
	}
	return true
}
