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

// maxOrganizationName is the maximum length of a name, in characters.
const maxOrganizationName = 200

// ErrOrganizationName means that an organization's name is invalid.
var ErrOrganizationName = fmt.Errorf("the name of an organization must be 1 to %d printable characters", maxOrganizationName)

// ErrSlackTeam means that a Slack team ID is invalid.
var ErrSlackTeam = errors.New("a Slack team id is " + SlackIDRule)

// CreateOrganization creates an organization with these Slack teams. A team that already exists
// moves to it with all its people; the automatic organization of that team is deleted if nothing
// else uses it. It returns ErrOrganizationName or ErrSlackTeam for invalid values.
func CreateOrganization(ctx context.Context, db *DB, now time.Time, name string, slackTeams []string) (Organization, error) {
	o := Organization{ID: uuid.Must(uuid.NewV7()), Name: strings.TrimSpace(name), CreatedAt: now}
	if err := checkOrganization(o.Name, slackTeams); err != nil {
		return Organization{}, err
	}
	// Lock the teams in one order, so that two operators who add the same teams do not deadlock.
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
		return AuditOrganization(ctx, tx, now, ActorShell, "organization.create", o.ID.String(),
			fmt.Sprintf("created as %q; Slack teams: %s", o.Name, listOr(teams, "none")), o.ID)
	})
	if err != nil {
		return Organization{}, fmt.Errorf("create the organization %q: %w", o.Name, err)
	}
	return o, nil
}

func checkOrganization(name string, slackTeams []string) error {
	if n := utf8.RuneCountInString(name); n == 0 || n > maxOrganizationName || !utf8.ValidString(name) ||
		strings.ContainsFunc(name, isNotPrint) {
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

// joinTeam moves a Slack team's workspace to the organization, or creates it.
func joinTeam(ctx context.Context, db *DB, tx bun.Tx, now time.Time, o *Organization, team string) error {
	var known []Workspace
	if err := ForUpdate(tx.NewSelect().Model(&known).Where("slack_team_id = ?", team)).Scan(ctx); err != nil {
		return err
	}
	w := Workspace{ID: uuid.Must(uuid.NewV7()), OrganizationID: o.ID, SlackTeamID: team, Name: team, CreatedAt: now}
	// The team's first call may create its workspace between the select and the insert.
	if _, err := tx.NewInsert().Model(&w).On("CONFLICT (slack_team_id) DO UPDATE").Set("organization_id = EXCLUDED.organization_id").
		Exec(ctx); err != nil {
		return err
	}
	if err := noteMemberships(ctx, db, tx, now, bun.SafeQuery("w.slack_team_id = ?", team)); err != nil || len(known) == 0 {
		return err
	}
	if known[0].OrganizationID != o.ID { // a person's own limit is valid only in one organization
		if _, err := tx.NewUpdate().Model((*User)(nil)).Set("member_limit = NULL").
			Where("workspace_id = ? AND member_limit IS NOT NULL", known[0].ID).Exec(ctx); err != nil {
			return err
		}
	}
	_, err := tx.NewDelete().Model((*Organization)(nil)).
		Where("id = ? AND automatic", known[0].OrganizationID).
		Where("NOT EXISTS (SELECT 1 FROM workspaces w WHERE w.organization_id = ?)", known[0].OrganizationID).
		Where("NOT EXISTS (SELECT 1 FROM subscriptions s WHERE s.organization_id = ?)", known[0].OrganizationID).Exec(ctx)
	return err
}

// OrganizationEntry is an entry in the list of organizations.
type OrganizationEntry struct {
	Organization `bun:",extend"`

	// Teams is the number of its Slack teams. Members is the number of people in them.
	Teams   int64
	Members int64
	// PlanID is the plan of its active subscription; free without one.
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

// OrganizationByID returns an organization, or an Error with CodeUnknownOrganization.
func OrganizationByID(ctx context.Context, db bun.IDB, id uuid.UUID) (Organization, error) {
	o, err := organizationByID(ctx, db, id)
	if err != nil {
		return Organization{}, fmt.Errorf("find the organization %s: %w", id, err)
	}
	return *o, nil
}

// organizationByID returns an Error with CodeUnknownOrganization if the organization does not
// exist.
func organizationByID(ctx context.Context, db bun.IDB, id uuid.UUID) (*Organization, error) {
	var found []Organization
	if err := db.NewSelect().Model(&found).Where("id = ?", id).Scan(ctx); err != nil {
		return nil, err
	}
	if len(found) == 0 {
		return nil, unknownOrganization(id)
	}
	return &found[0], nil
}

// OrganizationOfWorkspace returns the ID of the workspace's organization.
func OrganizationOfWorkspace(ctx context.Context, db bun.IDB, workspace uuid.UUID) (id uuid.UUID, err error) {
	if err := db.NewSelect().Model((*Workspace)(nil)).Column("organization_id").Where("id = ?", workspace).Scan(ctx, &id); err != nil {
		return uuid.Nil, fmt.Errorf("find the organization of the workspace %s: %w", workspace, err)
	}
	return id, nil
}

func unknownOrganization(id uuid.UUID) *Error {
	return &Error{Code: CodeUnknownOrganization, Detail: fmt.Sprintf("There is no organization %s.", id)}
}

// Organization is a customer with members. It may have a team plan for all of them.
type Organization struct {
	bun.BaseModel `bun:"table:organizations"`

	ID   uuid.UUID `bun:",pk,type:uuid"`
	Name string
	// Automatic means that a Slack team's first call created it, not an operator.
	Automatic bool
	// SpendLimitCents is the maximum price of the overage that its subscription pays for in a
	// billing period; MemberLimit is the default for its members, in units. nil means no limit.
	SpendLimitCents, MemberLimit *int64
	CreatedAt                    time.Time
}

// Workspace is a Slack team. It belongs to one organization.
type Workspace struct {
	bun.BaseModel `bun:"table:workspaces"`

	ID             uuid.UUID `bun:",pk,type:uuid"`
	OrganizationID uuid.UUID `bun:",type:uuid"`
	SlackTeamID    string
	Name           string
	CreatedAt      time.Time
}

// ensureWorkspace creates the workspace of a team, with an organization of its own, if it is
// missing.
func ensureWorkspace(ctx context.Context, tx bun.Tx, now time.Time, team string) error {
	known, err := tx.NewSelect().Model((*Workspace)(nil)).Where("slack_team_id = ?", team).Exists(ctx)
	if err != nil || known {
		return err
	}
	organization := Organization{ID: uuid.Must(uuid.NewV7()), Name: automaticName(team), Automatic: true, CreatedAt: now}
	if _, err := tx.NewInsert().Model(&organization).Exec(ctx); err != nil {
		return err
	}
	w := &Workspace{ID: uuid.Must(uuid.NewV7()), OrganizationID: organization.ID, SlackTeamID: team, Name: team, CreatedAt: now}
	made, err := tx.NewInsert().Model(w).On("CONFLICT (slack_team_id) DO NOTHING").Exec(ctx)
	if err != nil {
		return err
	}
	if n, err := made.RowsAffected(); err != nil || n == 1 {
		return err
	}
	// Another process made the workspace in the meantime.
	_, err = tx.NewDelete().Model(&organization).WherePK().Exec(ctx)
	return err
}

// automaticName returns the name of the organization that a new Slack team gets.
func automaticName(team string) string { return "Slack team " + team }
