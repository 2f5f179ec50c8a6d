package cli

import (
	"context"
	"errors"
	"time"

	"tollgate/models"
	"tollgate/models/billing"
)

type stripeSetup struct {
	DryRun bool `help:"Only list what would be created and what differs."`
}

// Run sets up Stripe and lists what it did.
func (c *stripeSetup) Run(ctx context.Context, o *Output, s *Settings, db *models.DB, catalogue *models.Catalogue) error {
	client, err := s.stripeClient()
	if err != nil {
		return err
	}
	report, err := billing.Setup(ctx, billing.SetupOptions{
		DB: db, Client: client, Catalogue: catalogue, Now: time.Now, BaseURL: string(s.BaseURL), DryRun: c.DryRun,
	})
	for _, line := range report.Lines() {
		o.Note("%s", line)
	}
	if report.WebhookSecret != "" {
		o.Note("This is the endpoint's secret, for STRIPE_WEBHOOK_SECRET. Stripe shows it only once.")
		return errors.Join(err, o.Print(report.WebhookSecret))
	}
	return err
}
