package cli

import (
	"context"
	"fmt"

	"tollgate/models"
)

type organizationCommand struct {
	Create organizationCreate `cmd:"" help:"Create an organization and print its ID."`
	List   organizationList   `cmd:"" help:"List the organizations."`
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
