package billing

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/stripe/stripe-go/v76"

	"tollgate/models"
)

// SetupOptions configure Setup.
type SetupOptions struct {
	DB        *models.DB
	Client    *Client
	Catalogue *models.Catalogue
	Now       func() time.Time
	// BaseURL is the address at which Stripe reaches this server.
	BaseURL string
	// DryRun only lists what would be done.
	DryRun bool
}

// SetupReport is the result of Setup.
type SetupReport struct {
	// Made lists what was created, Missing what would be created without DryRun, and Found what
	// exists and is correct.
	Made, Missing, Found []string
	// Drift lists what exists but differs from the catalog. It is not changed.
	Drift []string
	// Notes are instructions for a person.
	Notes []string
	// WebhookSecret is the secret of the new endpoint. Stripe shows it only once.
	WebhookSecret string
}

// Lines returns the report as text.
func (r *SetupReport) Lines() []string {
	var lines []string
	for _, part := range []struct {
		word  string
		lines []string
	}{{"created", r.Made}, {"would create", r.Missing}, {"found", r.Found}, {"differs", r.Drift}, {"note", r.Notes}} {
		for _, line := range part.lines {
			lines = append(lines, part.word+": "+line)
		}
	}
	return lines
}

// Setup creates at Stripe what the catalog needs, or finds it: for each plan a product, a meter, a
// monthly price and an overage price, and also the webhook endpoint and the portal's configuration.
// A second run creates nothing. Differences are listed and not changed, because people may have
// subscribed to existing prices. The IDs are stored in stripe_objects. With a key of another
// account than the database's, it creates nothing.
func Setup(ctx context.Context, o SetupOptions) (SetupReport, error) {
	s := &setup{SetupOptions: o, products: map[models.PlanID]*stripe.Product{}, prices: map[string]*stripe.Price{}}
	for _, step := range []func(context.Context) error{s.account, s.known, s.plans, s.webhook, s.portal} {
		if err := step(ctx); err != nil {
			return s.SetupReport, fmt.Errorf("set up Stripe: %w", err)
		}
	}
	return s.SetupReport, nil
}

// setup is one run of Setup.
type setup struct {
	SetupOptions
	SetupReport

	objects  map[string]string                 // ids of what was set up before, by name
	meters   map[string][]*stripe.BillingMeter // by event name
	products map[models.PlanID]*stripe.Product
	prices   map[string]*stripe.Price // by lookup key
}

func (s *setup) made(format string, args ...any) {
	to := &s.Made
	if s.DryRun {
		to = &s.Missing
	}
	*to = append(*to, fmt.Sprintf(format, args...))
}
func (s *setup) found(format string, args ...any) {
	s.Found = append(s.Found, fmt.Sprintf(format, args...))
}
func (s *setup) differs(format string, args ...any) {
	s.Drift = append(s.Drift, fmt.Sprintf(format, args...))
}

// account checks that the key belongs to the account of the database. It sets the account of a
// database that has none yet.
func (s *setup) account(ctx context.Context) error {
	if s.DryRun {
		return s.Client.compareAccount(ctx, s.DB)
	}
	return s.Client.claimAccount(ctx, s.DB)
}

// known reads what was set up before.
func (s *setup) known(ctx context.Context) (err error) {
	if s.objects, err = stripeObjects(ctx, s.DB); err != nil {
		return err
	}
	if s.objects[objectOldMeter] != "" {
		s.Notes = append(s.Notes, fmt.Sprintf("the meter %s is used only for reports that were sealed by an earlier release; keep it "+
			"in Stripe until these are verified",
			s.Catalogue.MeterEventName))
	}
	s.meters, err = s.Client.meters(ctx)
	return err
}

// storeID stores an ID by its name.
func (s *setup) storeID(ctx context.Context, name, id string) error {
	if s.DryRun || id == "" || s.objects[name] == id {
		return nil
	}
	s.objects[name] = id
	return storeObject(ctx, s.DB, models.Now(s.Now), name, id)
}

// onlyMissing returns nil instead of an error about an object that does not exist at Stripe.
func onlyMissing(err error) error {
	if e := stripeError(err); e != nil && e.HTTPStatusCode == http.StatusNotFound {
		return nil
	}
	return err
}

// meter finds the meter of a plan by its event name, or creates it. (Stripe allows one active meter
// per event name.) It returns the meter's ID; empty if a dry run would create it.
func (s *setup) meter(ctx context.Context, p models.Plan) (string, error) {
	name := s.Catalogue.MeterOf(p.ID)
	var found *stripe.BillingMeter
	if all := s.meters[name]; len(all) > 0 {
		found = all[0]
		s.found("the meter %s, %s", name, found.ID)
		s.checkMeter(found)
	} else {
		if s.DryRun {
			s.made("the meter %s", name)
			return "", nil
		}
		var err error
		found, err = s.Client.api.BillingMeters.New(&stripe.BillingMeterParams{
			Params: params(ctx), DisplayName: stripe.String(p.Name + ": extra " + s.Catalogue.UnitPlural), EventName: &name,
			DefaultAggregation: &stripe.BillingMeterDefaultAggregationParams{Formula: stripe.String(string(
				stripe.BillingMeterDefaultAggregationFormulaSum))},
			CustomerMapping: &stripe.BillingMeterCustomerMappingParams{Type: stripe.String("by_id"),
				EventPayloadKey: stripe.String(meterCustomerKey)},
			ValueSettings: &stripe.BillingMeterValueSettingsParams{EventPayloadKey: stripe.String(meterValueKey)},
		})
		if err != nil {
			return "", fmt.Errorf("create the meter %s: %w", name, err)
		}
		s.made("the meter %s, %s", name, found.ID)
	}
	return found.ID, s.storeID(ctx, objectMeter+string(p.ID), found.ID)
}

func (s *setup) checkMeter(m *stripe.BillingMeter) {
	if m.Status != stripe.BillingMeterStatusActive {
		s.differs("the meter %s is %s, so Stripe accepts no usage", m.ID, m.Status)
	}
	if m.DefaultAggregation == nil || m.DefaultAggregation.Formula != stripe.BillingMeterDefaultAggregationFormulaSum {
		s.differs("the meter %s does not add up its events", m.ID)
	}
	if m.CustomerMapping == nil || m.CustomerMapping.EventPayloadKey != meterCustomerKey {
		s.differs("the meter %s does not read the customer from %q", m.ID, meterCustomerKey)
	}
	if m.ValueSettings == nil || m.ValueSettings.EventPayloadKey != meterValueKey {
		s.differs("the meter %s does not read the value from %q", m.ID, meterValueKey)
	}
}

// plans sets up a product, a meter and prices for each plan except the free one.
func (s *setup) plans(ctx context.Context) error {
	if err := s.findProducts(ctx); err != nil {
		return err
	}
	var keys []string
	for _, p := range s.Catalogue.Plans {
		keys = append(keys, lookupBase+string(p.ID), overageKey(p.ID))
	}
	var err error
	if s.prices, err = pricesByKey(ctx, s.Client, keys); err != nil {
		return err
	}
	for _, p := range s.Catalogue.Plans {
		if p.ID == models.FreePlan {
			continue
		}
		if err := s.plan(ctx, p); err != nil {
			return fmt.Errorf("plan %s: %w", p.ID, err)
		}
	}
	return nil
}

// findProducts finds the plans' products by their metadata. Of several products of a plan, it
// prefers an active one.
func (s *setup) findProducts(ctx context.Context) error {
	list := &stripe.ProductListParams{}
	list.Context, list.Limit = ctx, stripe.Int64(100)
	found := s.Client.api.Products.List(list)
	for found.Next() {
		p := found.Product()
		if id := models.PlanID(p.Metadata[metadataPlan]); id != "" && (s.products[id] == nil || !s.products[id].Active) {
			s.products[id] = p
		}
	}
	if err := found.Err(); err != nil {
		return fmt.Errorf("list the products: %w", err)
	}
	return nil
}

func (s *setup) plan(ctx context.Context, p models.Plan) error {
	product := s.products[p.ID]
	switch {
	case product != nil:
		s.found("the product of %s, %s", p.ID, product.ID)
		if !product.Active {
			s.differs("the product %s of %s is inactive", product.ID, p.ID)
		}
		if product.Name != p.Name {
			s.differs("the product %s of %s is called %q, but the plan is called %q", product.ID, p.ID, product.Name, p.Name)
		}
	case s.DryRun:
		s.made("the product of %s", p.ID)
	default:
		var err error
		product, err = s.Client.api.Products.New(&stripe.ProductParams{
			Params: params(ctx), Name: &p.Name, Description: &p.Description, Metadata: map[string]string{metadataPlan: string(p.ID)},
		})
		if err != nil {
			return fmt.Errorf("create the product: %w", err)
		}
		s.made("the product of %s, %s", p.ID, product.ID)
		s.products[p.ID] = product
	}
	if product == nil {
		product = &stripe.Product{}
	}
	if err := s.storeID(ctx, objectProduct+string(p.ID), product.ID); err != nil {
		return err
	}
	if err := s.price(ctx, objectPrice+string(p.ID), p.StripePriceID, basePrice(s.Catalogue, p, product.ID)); err != nil {
		return err
	}
	meter, err := s.meter(ctx, p)
	if err != nil || p.OverageRateCents == 0 {
		return err // without an overage rate there is nothing to bill
	}
	return s.price(ctx, objectOverage+string(p.ID), p.StripeOveragePriceID, overagePrice(s.Catalogue, p, product.ID, meter))
}

// price finds a price by its ID in the catalog or by its lookup key, or creates it.
func (s *setup) price(ctx context.Context, name, inCatalogue string, want *stripe.PriceParams) error {
	found := s.prices[*want.LookupKey]
	if inCatalogue != "" {
		var err error
		if found, err = s.Client.api.Prices.Get(inCatalogue, &stripe.PriceParams{Params: params(ctx)}); onlyMissing(err) != nil {
			return fmt.Errorf("read the price %s: %w", inCatalogue, err)
		} else if err != nil {
			s.differs("Stripe does not know the price %s, which the catalog has for %s", inCatalogue, name)
			return nil
		}
	}
	if found != nil && isTiered(found) && want.Recurring.Meter != nil && inCatalogue == "" {
		// An earlier release created it. The new price takes over its lookup key; existing
		// subscribers keep the old price.
		found, want.TransferLookupKey = nil, stripe.Bool(true)
	}
	switch {
	case found != nil:
		s.found("%s, %s", name, found.ID)
		for _, difference := range priceDifferences(found, want) {
			s.differs("%s, %s: %s", name, found.ID, difference)
		}
	case s.DryRun:
		s.made("%s", name)
		return nil
	default:
		want.Context = ctx
		var err error
		if found, err = s.Client.api.Prices.New(want); err != nil {
			return fmt.Errorf("create %s: %w", name, err)
		}
		s.made("%s, %s", name, found.ID)
	}
	return s.storeID(ctx, name, found.ID)
}

// webhook sets up the endpoint for Stripe's events, if Stripe can reach this server.
func (s *setup) webhook(ctx context.Context) error {
	address := strings.TrimRight(s.BaseURL, "/") + WebhookPath
	if !strings.HasPrefix(address, "https://") {
		s.Notes = append(s.Notes, fmt.Sprintf("no webhook endpoint was created, because Stripe sends only to https addresses, and "+
			"--base-url is %q; set it to the server's public URL, and run this command again", s.BaseURL))
		return nil
	}
	var found *stripe.WebhookEndpoint
	list := &stripe.WebhookEndpointListParams{}
	list.Context, list.Limit = ctx, stripe.Int64(100)
	endpoints := s.Client.api.WebhookEndpoints.List(list)
	for endpoints.Next() {
		if e := endpoints.WebhookEndpoint(); e.URL == address && (found == nil || e.Status == "enabled") {
			found = e
		}
	}
	if err := endpoints.Err(); err != nil {
		return fmt.Errorf("list the webhook endpoints: %w", err)
	}
	switch {
	case found != nil:
		s.found("the webhook endpoint %s, %s", address, found.ID)
		s.checkEndpoint(found)
	case s.DryRun:
		s.made("the webhook endpoint %s", address)
		return nil
	default:
		var err error
		found, err = s.Client.api.WebhookEndpoints.New(&stripe.WebhookEndpointParams{
			Params: params(ctx), URL: &address, APIVersion: stripe.String(stripe.APIVersion), EnabledEvents: stripe.StringSlice(WebhookTypes),
		})
		if err != nil {
			return fmt.Errorf("create the webhook endpoint %s: %w", address, err)
		}
		s.made("the webhook endpoint %s, %s", address, found.ID)
		s.WebhookSecret = found.Secret
		s.Notes = append(s.Notes, fmt.Sprintf("If Stripe cannot count usage, it says so in thin events (%s). These need their own event "+
			"destination: add one for %s in Stripe's dashboard, and append a comma and its secret to STRIPE_WEBHOOK_SECRET",
			strings.Join(ThinWebhookTypes, ", "), address))
	}
	return s.storeID(ctx, objectWebhook, found.ID)
}

func (s *setup) checkEndpoint(e *stripe.WebhookEndpoint) {
	if e.Status != "enabled" {
		s.differs("the webhook endpoint %s is %s", e.ID, e.Status)
	}
	if e.APIVersion != stripe.APIVersion {
		s.differs("the webhook endpoint %s has the API version %q, not %s", e.ID, e.APIVersion, stripe.APIVersion)
	}
	if slices.Contains(e.EnabledEvents, "*") {
		return
	}
	for _, kind := range WebhookTypes {
		if !slices.Contains(e.EnabledEvents, kind) {
			s.differs("the webhook endpoint %s does not get %s events", e.ID, kind)
		}
	}
	for _, kind := range e.EnabledEvents {
		if !slices.Contains(WebhookTypes, kind) {
			s.differs("the webhook endpoint %s gets %s events, which Tollgate does not use", e.ID, kind)
		}
	}
}

// portal sets up what people can do in Stripe's portal: see invoices, change how they pay, and
// cancel. They cannot change their plan there. The portal cannot change a subscription that bills
// usage, and one without usage would continue without its overage price. Source:
// https://docs.stripe.com/customer-management#customer-subscription-management
func (s *setup) portal(ctx context.Context) error {
	var found *stripe.BillingPortalConfiguration
	list := &stripe.BillingPortalConfigurationListParams{}
	list.Context, list.Limit = ctx, stripe.Int64(100)
	all := s.Client.api.BillingPortalConfigurations.List(list)
	for all.Next() {
		c := all.BillingPortalConfiguration()
		if c.Metadata[metadataObject] == objectPortal && (found == nil || c.Active) || c.ID == s.objects[objectPortal] && found == nil {
			found = c
		}
	}
	if err := all.Err(); err != nil {
		return fmt.Errorf("list the portal's configurations: %w", err)
	}
	switch {
	case found != nil:
		s.found("the portal's configuration, %s", found.ID)
		if !found.Active {
			s.differs("the portal's configuration %s is inactive", found.ID)
		}
	case s.DryRun:
		s.made("the portal's configuration")
		return nil
	default:
		on := stripe.Bool(true)
		config := &stripe.BillingPortalConfigurationParams{
			Params: params(ctx), BusinessProfile: &stripe.BillingPortalConfigurationBusinessProfileParams{Headline: stripe.String("Your " +
				"plan and its invoices")},
			Features: &stripe.BillingPortalConfigurationFeaturesParams{
				InvoiceHistory:      &stripe.BillingPortalConfigurationFeaturesInvoiceHistoryParams{Enabled: on},
				PaymentMethodUpdate: &stripe.BillingPortalConfigurationFeaturesPaymentMethodUpdateParams{Enabled: on},
				CustomerUpdate: &stripe.BillingPortalConfigurationFeaturesCustomerUpdateParams{
					Enabled: on, AllowedUpdates: stripe.StringSlice([]string{"email", "address", "tax_id"}),
				},
				SubscriptionCancel: &stripe.BillingPortalConfigurationFeaturesSubscriptionCancelParams{Enabled: on,
					Mode: stripe.String("at_period_end")},
			},
			Metadata: map[string]string{metadataObject: objectPortal},
		}
		if strings.HasPrefix(s.BaseURL, "https://") {
			config.DefaultReturnURL = stripe.String(strings.TrimRight(s.BaseURL, "/") + "/plans")
		}
		var err error
		if found, err = s.Client.api.BillingPortalConfigurations.New(config); err != nil {
			return fmt.Errorf("create the portal's configuration: %w", err)
		}
		s.made("the portal's configuration, %s", found.ID)
	}
	return s.storeID(ctx, objectPortal, found.ID)
}
