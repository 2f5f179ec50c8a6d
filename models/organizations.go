package models

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/uptrace/bun"
)

// maxOrganizationName is in characters.
const maxOrganizationName = 200

// ErrOrganizationName says what an organization's name must be.
var ErrOrganizationName = fmt.Errorf("an organization needs a name of 1 to %d printable characters", maxOrganizationName)

// ErrSlackTeam says what a Slack team's id must be.
var ErrSlackTeam = errors.New("a Slack team id is " + SlackIDRule)

// CreateOrganization makes an organization of Slack teams, whose ids they are. A team that is known already moves to it
// with all its people; the organization of its own that it came with is removed when nothing else holds on to it.
// It returns ErrOrganizationName and ErrSlackTeam for what cannot be one.
func CreateOrganization(ctx context.Context, db *DB, now time.Time, name string, slackTeams []string) (Organization, error) {
	o := Organization{ID: uuid.Must(uuid.NewV7()), Name: strings.TrimSpace(name), CreatedAt: now}
	if err := checkOrganization(o.Name, slackTeams); err != nil {
		return Organization{}, err
	}
	// In one order, so that two operators who join the same teams do not wait for each other.
	teams := slices.Compact(slices.Sorted(slices.Values(slackTeams)))
	err := db.InTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		if _, err := tx.NewInsert().Model(&o).Exec(ctx); err != nil {
			return err
		}
		for _, team := range teams {
			if err := joinTeam(ctx, db, tx, now, &o, team); err != nil {
				return err
			}
		}
		return Audit(ctx, tx, now, ActorShell, "organization.create", o.ID.String(), fmt.Sprintf("%q, Slack teams: %s", o.Name, listOr(teams, "none")))
	})
	if err != nil {
		return Organization{}, fmt.Errorf("create the organization %q: %w", o.Name, err)
	}
	return o, nil
}

func checkOrganization(name string, slackTeams []string) error {
	if n := utf8.RuneCountInString(name); n == 0 || n > maxOrganizationName || !utf8.ValidString(name) || strings.ContainsFunc(name, isNotPrint) {
		return ErrOrganizationName
	}
	for _, team := range slackTeams {
		if !IsSlackID(team) {
			return fmt.Errorf("%w, not %q", ErrSlackTeam, team)
		}
	}
	return nil
}

func isNotPrint(r rune) bool { return !unicode.IsPrint(r) }

// joinTeam gives the organization a Slack team's workspace.
func joinTeam(ctx context.Context, db *DB, tx bun.Tx, now time.Time, o *Organization, team string) error {
	var known []Workspace
	if err := db.ForUpdate(tx.NewSelect().Model(&known).Where("slack_team_id = ?", team)).Scan(ctx); err != nil {
		return err
	}
	w := Workspace{ID: uuid.Must(uuid.NewV7()), OrganizationID: o.ID, SlackTeamID: team, Name: team, CreatedAt: now}
	// The team's first call may make its workspace between the look and the insert.
	if _, err := tx.NewInsert().Model(&w).On("CONFLICT (slack_team_id) DO UPDATE").Set("organization_id = EXCLUDED.organization_id").Exec(ctx); err != nil {
		return err
	}
	if err := noteMemberships(ctx, db, tx, now, bun.SafeQuery("w.slack_team_id = ?", team)); err != nil || len(known) == 0 {
		return err
	}
	_, err := tx.NewDelete().Model((*Organization)(nil)).
		Where("id = ? AND automatic", known[0].OrganizationID).
		Where("NOT EXISTS (SELECT 1 FROM workspaces w WHERE w.organization_id = ?)", known[0].OrganizationID).
		Where("NOT EXISTS (SELECT 1 FROM subscriptions s WHERE s.organization_id = ?)", known[0].OrganizationID).Exec(ctx)
	return err
}

// OrganizationEntry is a line of the list of organizations.
type OrganizationEntry struct {
	Organization `bun:",extend"`

	// Teams is the number of its Slack teams, Members that of the people in them.
	Teams   int64
	Members int64
	// PlanID is the plan of its active subscription, free without one.
	PlanID PlanID
}

// ListOrganizations returns all organizations, oldest first.
func ListOrganizations(ctx context.Context, db bun.IDB, c *Catalogue) ([]OrganizationEntry, error) {
	var entries []OrganizationEntry
	err := db.NewSelect().TableExpr("organizations AS o").Column("o.id", "o.name", "o.created_at").
		ColumnExpr("(SELECT COUNT(*) FROM workspaces w WHERE w.organization_id = o.id) AS teams").
		ColumnExpr("(SELECT COUNT(*) FROM workspaces w JOIN users u ON u.workspace_id = w.id WHERE w.organization_id = o.id) AS members").
		ColumnExpr("COALESCE("+newestActive("plan_id", "n.organization_id = o.id")+", '') AS plan_id").
		Order("o.created_at", "o.id").Scan(ctx, &entries)
	if err != nil {
		return nil, fmt.Errorf("list the organizations: %w", err)
	}
	for i := range entries {
		e := &entries[i]
		e.CreatedAt = e.CreatedAt.UTC()
		e.PlanID = c.PlanOf(e.PlanID).ID
	}
	return entries, nil
}

// UserChange is what an operator changes of a user. What is nil stays as it is.
type UserChange struct {
	// OrganizationID is the organization that the user is put in: in its first workspace, unless they are in one of its
	// workspaces already. A role goes with an organization, so in another one the user is a member again.
	OrganizationID *uuid.UUID
	// Leaves takes the user out of their organization: its seats, its pages, its plan. What they used there is billed to it as before.
	Leaves   bool
	Role     *Role
	Operator *bool
	// UserID, unless it is the zero value, is the person whom the email must still identify: it may have changed hands since the
	// operator saw whose it is.
	UserID uuid.UUID
}

// Grants returns whether the change may give the person a role.
func (c *UserChange) Grants() bool {
	return c.Role != nil && *c.Role == Admin || c.Operator != nil && *c.Operator
}

func (c *UserChange) String() string {
	var parts []string
	if c.OrganizationID != nil {
		parts = append(parts, "organization "+c.OrganizationID.String())
	}
	if c.Leaves {
		parts = append(parts, "no organization")
	}
	if c.Role != nil {
		parts = append(parts, "role "+string(*c.Role))
	}
	if c.Operator != nil {
		parts = append(parts, fmt.Sprintf("operator %t", *c.Operator))
	}
	return listOr(parts, "nothing")
}

// SetUser changes a user and returns them as they are then. A person unknown so far is made. It returns ErrEmail for what
// cannot be an address, an Error with CodeUnknownOrganization, and one for an admin of no organization.
func SetUser(ctx context.Context, db *DB, now time.Time, email string, change UserChange) (User, error) {
	given := email
	email, err := ParseEmail(given)
	if err != nil {
		return User{}, fmt.Errorf("set a user: %q %w", given, err)
	}
	if r := change.Role; r != nil && *r != Member && *r != Admin {
		return User{}, fmt.Errorf("set the user %s: the role is %q, must be %q or %q", email, *r, Member, Admin)
	}
	var user User
	err = db.InTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		if err := lockUser(ctx, db, tx, now, email, &user); err != nil {
			return err
		}
		if change.UserID != uuid.Nil && change.UserID != user.ID {
			return fmt.Errorf("the email belongs to another user now: %s", user.ID)
		}
		if change.OrganizationID != nil {
			if err := user.moveTo(ctx, tx, *change.OrganizationID); err != nil {
				return err
			}
		}
		if change.Leaves {
			user.WorkspaceID, user.SlackUserID, user.Role = nil, nil, Member
		}
		if change.Role != nil {
			if user.Role = *change.Role; user.Role == Admin && user.WorkspaceID == nil {
				return errors.New("an admin is one of an organization, and they are in none: name it with --organization")
			}
		}
		if change.Operator != nil {
			user.Operator = *change.Operator
		}
		if _, err := tx.NewUpdate().Model(&user).Column("workspace_id", "slack_user_id", "role", "operator").WherePK().Exec(ctx); err != nil {
			return err
		}
		if err := noteMemberships(ctx, db, tx, now, bun.SafeQuery("u.id = ?", user.ID)); err != nil {
			return err
		}
		return Audit(ctx, tx, now, ActorShell, "user.set", email, change.String())
	})
	if err != nil {
		return User{}, fmt.Errorf("set the user %s: %w", email, err)
	}
	return user, nil
}

// lockUser reads a user, made when missing, under the lock of their row.
func lockUser(ctx context.Context, db *DB, tx bun.Tx, now time.Time, email string, user *User) error {
	if err := ensureUsers(ctx, tx, []string{email}, now); err != nil {
		return err
	}
	*user = User{}
	return db.ForUpdate(tx.NewSelect().Model(user).Where("email = ?", email)).Scan(ctx)
}

// moveTo puts the user in the organization's first workspace.
func (u *User) moveTo(ctx context.Context, tx bun.Tx, id uuid.UUID) error {
	o, err := organizationByID(ctx, tx, id)
	if err != nil {
		return err
	}
	var workspaces []Workspace
	if err := tx.NewSelect().Model(&workspaces).Where("organization_id = ?", id).Order("created_at", "id").Scan(ctx); err != nil {
		return err
	}
	if len(workspaces) == 0 {
		return fmt.Errorf("the organization %q has no workspace to put people in: create it with --slack-team", o.Name)
	}
	for _, w := range workspaces {
		if u.WorkspaceID != nil && *u.WorkspaceID == w.ID {
			return nil
		}
	}
	// A Slack user id means nothing in another team, and being an admin nothing in another organization.
	u.WorkspaceID, u.SlackUserID, u.Role = &workspaces[0].ID, nil, Member
	return nil
}

// organizationByID returns an Error with CodeUnknownOrganization when there is none.
func organizationByID(ctx context.Context, db bun.IDB, id uuid.UUID) (*Organization, error) {
	var found []Organization
	if err := db.NewSelect().Model(&found).Where("id = ?", id).Scan(ctx); err != nil {
		return nil, err
	}
	if len(found) == 0 {
		return nil, &Error{Code: CodeUnknownOrganization, Detail: fmt.Sprintf("There is no organization %s.", id)}
	}
	return &found[0], nil
}

// listOr joins words with commas, or names their absence.
func listOr(words []string, none string) string {
	if len(words) == 0 {
		return none
	}
	return strings.Join(words, ", ")
}
