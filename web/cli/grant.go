package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"tollgate/models"
)

type grantCommand struct {
	Email    string   `arg:"" help:"The person's email address."`
	Quantity int64    `required:"" placeholder:"UNITS" help:"The number of units to add."`
	Reason   string   `required:"" help:"The reason, which is stored in the audit log."`
	Expires  *instant `placeholder:"TIME" help:"${help_expires}"`
}

// instant is a time in RFC 3339, whose error shows an example instead of Go's layout.
type instant struct{ time.Time }

func (i *instant) UnmarshalText(text []byte) (err error) {
	if i.Time, err = time.Parse(time.RFC3339, string(text)); err != nil {
		return fmt.Errorf("must be a time such as 2026-11-30T12:00:00Z, not %q", text)
	}
	return nil
}

// Run adds included units for a person and prints the grant's ID.
func (c *grantCommand) Run(ctx context.Context, o *Output, db *models.DB, catalogue *models.Catalogue) error {
	email, err := models.ParseEmail(c.Email)
	if err != nil {
		return err
	}
	grant := models.NewGrant{Actor: models.ActorShell, Email: email, Quantity: c.Quantity, Reason: c.Reason}
	if c.Expires != nil {
		grant.ExpiresAt = &c.Expires.Time
	}
	granted, err := models.Grant(ctx, db, catalogue, now(), grant)
	if invalid := (*models.Error)(nil); errors.As(err, &invalid) && invalid.Path == "expires_at" {
		return fmt.Errorf("--expires %s", invalid.Detail)
	}
	if err != nil {
		return err
	}
	s := &granted.Standing
	o.Note("%s has used %s of %s included units.", s.Email, models.FormatCount(s.Used-s.Overage), models.FormatCount(s.Included))
	return o.Print(granted.Grant.ID)
}
