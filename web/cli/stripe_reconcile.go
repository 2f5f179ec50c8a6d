package cli

import (
	"context"
	"log/slog"

	"tollgate/models"
)

type stripeReconcile struct {
	Restored bool `help:"${help_restored}"`
}

// Run prints the comparison, and returns an error on any difference.
func (c *stripeReconcile) Run(ctx context.Context, o *Output, s *Settings, db *models.DB, catalogue *models.Catalogue) error {
	client, err := s.stripeClient()
	if err != nil {
		return err
	}
	return s.reporter(db, client, catalogue, slog.New(slog.DiscardHandler)).PrintReconciliation(ctx, o.Stdout, o.Stderr, c.Restored)
}
