package cli

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/google/uuid"

	"tollgate/models"
)

type organizationCommand struct {
	Create organizationCreate `cmd:"" help:"Create an organization and print its ID."`
	List   organizationList   `cmd:"" help:"List the organizations."`
	Show   organizationShow   `cmd:"" help:"Show an organization, its limits and its usage."`
	Rename organizationRename `cmd:"" help:"Rename an organization."`
	Set    organizationSet    `cmd:"" help:"Set an organization's limits."`
}

type organizationCreate struct {
	Name      string   `arg:"" help:"The organization's name."`
	SlackTeam []string `sep:"none" placeholder:"ID" help:"${help_slack_team}"`
}

// Run creates an organization.
func (c *organizationCreate) Run(ctx context.Context, o *Output, db *models.DB) error {
	created, err := models.CreateOrganization(ctx, db, now(), c.Name, c.SlackTeam)
	return o.printID(created.ID, err)
}

type organizationList struct{}

// Run lists the organizations.
func (organizationList) Run(ctx context.Context, o *Output, db *models.DB, catalogue *models.Catalogue) error {
	entries, err := models.ListOrganizations(ctx, db, catalogue)
	if err != nil {
		return err
	}
	return o.table("ID\tNAME\tPLAN\tTEAMS\tMEMBERS", len(entries), func(i int) string {
		e := &entries[i]
		return fmt.Sprintf("%s\t%s\t%s\t%d\t%d", e.ID, e.Name, e.PlanID, e.Teams, e.Members)
	})
}

type organizationShow struct {
	ID uuid.UUID `arg:"" help:"The organization's ID, as listed."`
}

// Run prints an organization's settings and its usage in the current billing period.
func (c *organizationShow) Run(ctx context.Context, o *Output, db *models.DB, catalogue *models.Catalogue) error {
	s, err := models.OrganizationUsage(ctx, db, catalogue, now(), c.ID)
	if err != nil {
		return err
	}
	admins, err := models.AdminsOf(ctx, db, c.ID)
	if err != nil {
		return err
	}
	emails := make([]string, len(admins))
	for i := range admins {
		emails[i] = admins[i].Email
	}
	spend := moneyOr(catalogue, s.SpendLimitCents)
	if s.Spent != nil && s.Spent.Counted {
		spend += ", " + catalogue.FormatMoney(s.Spent.OverageCents) + " spent"
	} else if s.Spent != nil {
		spend += ", being applied"
	}
	plan := string(s.Plan)
	if !s.HasPlan {
		plan = "none; members may have their own plans"
	}
	return o.facts([][2]string{
		{"ID", s.ID.String()}, {"Name", s.Name}, {"Plan", plan}, {"Period", period(s.Period)},
		{"Members", fmt.Sprintf("%d, %d of them active", s.TotalUsers, s.ActiveUsers)}, {"Admins", orDash(strings.Join(emails, ", "))},
		{"Used", strconv.FormatInt(s.TotalSuggestions, 10)}, {"Overage of members", catalogue.FormatMoney(s.OverageCents)},
		{"Spend limit", spend}, {"Member limit", unitsOr(s.MemberLimit)},
	})
}

type organizationRename struct {
	ID   uuid.UUID `arg:"" help:"The organization's ID, as listed."`
	Name string    `arg:"" help:"The new name."`
}

// Run renames an organization.
func (c *organizationRename) Run(ctx context.Context, db *models.DB, catalogue *models.Catalogue) error {
	name := strings.TrimSpace(c.Name)
	return models.SetOrganization(ctx, db, catalogue, now(), models.ActorShell, c.ID, models.OrganizationChange{Name: &name})
}

type organizationSet struct {
	ID          uuid.UUID `arg:"" help:"The organization's ID, as listed."`
	SpendLimit  *string   `placeholder:"AMOUNT|none" help:"${help_organization_spend_limit}"`
	MemberLimit *string   `placeholder:"UNITS|none" help:"${help_organization_member_limit}"`
}

// Run sets an organization's limits. They apply when the command ends.
func (c *organizationSet) Run(ctx context.Context, db *models.DB, catalogue *models.Catalogue) error {
	if c.SpendLimit == nil && c.MemberLimit == nil {
		return errors.New("missing --spend-limit or --member-limit: give the limit to set")
	}
	spend, err := limitOf("--spend-limit", c.SpendLimit, models.ParseAmount)
	if err != nil {
		return err
	}
	member, err := limitOf("--member-limit", c.MemberLimit, models.ParseUnits)
	if err != nil {
		return err
	}
	return models.SetOrganization(ctx, db, catalogue, now(), models.ActorShell, c.ID,
		models.OrganizationChange{SpendLimit: spend, MemberLimit: member})
}

// limitOf reads a limit; nil if the flag is not given.
func limitOf(flag string, text *string, parse func(string) (int64, error)) (*models.LimitChange, error) {
	switch {
	case text == nil:
		return nil, nil
	case *text == "none":
		return &models.LimitChange{Unseen: true}, nil
	}
	limit, err := parse(*text)
	if err != nil {
		return nil, fmt.Errorf("%s is %q: it %w, or none", flag, *text, err)
	}
	return &models.LimitChange{To: &limit, Unseen: true}, nil
}
