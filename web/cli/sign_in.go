package cli

import (
	"context"

	"tollgate/models"
	"tollgate/web"
)

type signInCommand struct {
	Email string `arg:"" help:"The person's email address. The person must exist."`
}

// Run prints a one-time link to the server that has the same settings.
func (c *signInCommand) Run(ctx context.Context, o *Output, s *Settings, db *models.DB) error {
	base, err := s.serverURL()
	if err != nil {
		return err
	}
	token, err := models.CreateSignInLink(ctx, db, now(), c.Email)
	if err != nil {
		return err
	}
	o.Note("This link works once, within ten minutes. It signs in %s.", c.Email)
	return o.Print(base + web.SignInLinkPath + token)
}
