package cli

import (
	"context"

	"github.com/google/uuid"

	"tollgate/models"
)

type userCommands struct {
	Set userSet `cmd:"" help:"Change a person, and print their ID."`
}

type userSet struct {
	Email          string       `arg:"" help:"The person's email address. A person who does not exist is created."`
	Organization   *uuid.UUID   `xor:"organization" placeholder:"ID" help:"Put the person in this organization."`
	NoOrganization bool         `xor:"organization" help:"${help_no_organization}"`
	Role           *models.Role `placeholder:"admin|member" help:"The person's role in the organization."`
	Operator       *bool        `negatable:"" help:"Whether the person may open the operator's pages."`
}

// Run prints which identity the address belongs to before it grants a role: an API call may have
// claimed the address.
func (c *userSet) Run(ctx context.Context, o *Output, db *models.DB) error {
	change := models.UserChange{OrganizationID: c.Organization, Leaves: c.NoOrganization, Role: c.Role, Operator: c.Operator}
	if change.Grants() {
		known, err := models.IdentitiesOf(ctx, db, c.Email)
		if err != nil {
			return err
		}
		o.Note("%s", known.Describe())
		change.UserID = known.UserID
	}
	u, err := models.SetUser(ctx, db, now(), c.Email, change)
	return o.printID(u.ID, err)
}
