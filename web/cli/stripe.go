package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"go.opentelemetry.io/otel/trace"

	"tollgate/models"
	"tollgate/models/billing"
	"tollgate/web"
)

type stripeCommands struct {
	Setup     stripeSetup     `cmd:"" help:"${help_stripe_setup}"`
	Reconcile stripeReconcile `cmd:"" help:"${help_stripe_reconcile}"`
}

// stripeClient returns a client with the settings' secret key.
func (s *Settings) stripeClient() (*billing.Client, error) {
	if s.StripeSecretKey == "" {
		//nolint:staticcheck // Stripe is a name
		return nil, errors.New("Stripe is not connected: set STRIPE_SECRET_KEY or STRIPE_SECRET_KEY_FILE")
	}
	if err := billing.CheckKey(s.StripeSecretKey); err != nil {
		return nil, fmt.Errorf("STRIPE_SECRET_KEY: %w", err)
	}
	return billing.NewClient(billing.ClientOptions{Key: s.StripeSecretKey, APIBase: s.StripeAPIBase})
}

func (s *Settings) reporter(
	db *models.DB, client *billing.Client, catalogue *models.Catalogue, log *slog.Logger, tracer trace.Tracer,
) *billing.Reporter {
	return billing.NewReporter(billing.ReporterOptions{DB: db, Client: client, Catalogue: catalogue, Now: time.Now, Log: log,
		Every: s.ReportEvery, Tracer: tracer})
}

// StartStripe adds billing to a server's options and starts its workers, if Stripe is connected.
// Reports stop when ctx ends. Webhooks are applied until the drain ends, since Stripe sends them
// until then. stop waits for both.
func (s *Settings) StartStripe(ctx context.Context, o *web.Options) (stop func(), err error) {
	if s.StripeSecretKey == "" {
		return func() {}, nil
	}
	client, err := s.stripeClient()
	if err != nil {
		return nil, err
	}
	o.Reporter, o.StripeLive = s.reporter(o.DB, client, o.Catalogue, o.Log, o.Tracer), client.Live
	if err := billing.RegisterMetrics(o.Metrics, o.DB, o.Reporter.Sends, time.Now, o.Log); err != nil {
		return nil, err
	}
	var stops []func()
	if s.ReportEvery > 0 {
		o.Reporter.Start(ctx)
		stops = append(stops, o.Reporter.Stop)
	} else {
		o.Log.Warn("this process reports no overage to Stripe: --report-every is 0")
	}
	o.Shop = billing.NewShop(billing.ShopOptions{
		DB: o.DB, Client: client, Catalogue: o.Catalogue, Now: time.Now, BaseURL: o.BaseURL, Log: o.Log,
	})
	o.Webhooks = billing.NewWebhooks(billing.WebhookOptions{
		DB: o.DB, Client: client, Catalogue: o.Catalogue, Secret: s.StripeWebhookSecret, Now: time.Now,
		Random: rand.Float64, Log: o.Log,
	})
	applying, end := context.WithCancel(context.WithoutCancel(ctx))
	context.AfterFunc(ctx, func() { time.AfterFunc(o.Drain, end) })
	o.Webhooks.Start(applying)
	stops = append(stops, o.Webhooks.Stop)
	return func() {
		end()
		for _, stop := range stops {
			stop()
		}
	}, nil
}
