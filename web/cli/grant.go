package cli

import (
	"context"
	"time"

	"tollgate/models"
)

type grantCommand struct {
	Email    string     `arg:"" help:"The person's email address."`
	Quantity int64      `required:"" placeholder:"UNITS" help:"The number of units to add."`
	Reason   string     `required:"" help:"The reason, which is stored in the audit log."`
	Expires  *time.Time `placeholder:"TIME" help:"${help_expires}"`
}

// Run adds included units for a person and prints the grant's ID.
func (c *grantCommand) Run(ctx context.Context, o *Output, db *models.DB, catalogue *models.Catalogue) error {
	email, err := models.ParseEmail(c.Email)
	if err != nil {
		return err
	}
	granted, err := models.Grant(ctx, db, catalogue, now(), models.NewGrant{
		Actor: models.ActorShell, Email: email, Quantity: c.Quantity, Reason: c.Reason, ExpiresAt: c.Expires,
	})
	if err != nil {
		return err
	}
	s := &granted.Standing
	o.Note("%s has used %s of %s included units.", s.Email, models.FormatCount(s.Used-s.Overage), models.FormatCount(s.Included))
	return o.Print(granted.Grant.ID)
}
