package cli

import (
	"context"
	"errors"

	"github.com/google/uuid"

	"tollgate/models"
)

type subscribeCommand struct {
	Email        string        `xor:"subscriber" help:"The person who gets the plan. Give --email or --organization, not both."`
	Organization *uuid.UUID    `xor:"subscriber" placeholder:"ID" help:"${help_subscriber}"`
	Plan         models.PlanID `required:"" help:"A plan of the catalog. 'free' ends a plan that was assigned by hand."`
}

// Run assigns a plan and prints the subscription's ID, unless the plan is free.
func (c *subscribeCommand) Run(ctx context.Context, o *Output, db *models.DB, catalogue *models.Catalogue) error {
	if c.Email == "" && c.Organization == nil {
		return errors.New("missing --email or --organization: give the person or the organization that gets the plan")
	}
	made, err := models.Subscribe(ctx, db, catalogue, now(), models.Subscriber{Email: c.Email, OrganizationID: c.Organization}, c.Plan)
	if err != nil || made == nil {
		return err
	}
	return o.Print(made.ID)
}
