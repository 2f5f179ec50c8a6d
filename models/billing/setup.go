package billing

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/stripe/stripe-go/v76"
	"github.com/uptrace/bun"

	"tollgate/models"
)

// The keys of a meter event's payload.
const (
	meterCustomerKey = "stripe_customer_id"
	meterValueKey    = "value"
)

// lookupsAtATime is how many lookup keys Stripe takes in one question.
const lookupsAtATime = 10

// SetupOptions are what set-up is done with.
type SetupOptions struct {
	DB        *models.DB
	Client    *Client
	Catalogue *models.Catalogue
	Now       func() time.Time
	// BaseURL is where Stripe reaches this server.
	BaseURL string
	// DryRun only lists what would be done.
	DryRun bool
}

// SetupReport is what set-up did and found.
type SetupReport struct {
	// Made is what was made, or would be; Found, what was there and fits.
	Made, Found []string
	// Drift is what is there and differs from the catalogue. It is left as it is.
	Drift []string
	// Notes are what a person has to do.
	Notes []string
	// WebhookSecret is the new endpoint's. Stripe tells it this once.
	WebhookSecret string
}

// Lines are the report as a person reads it.
func (r *SetupReport) Lines() []string {
	var lines []string
	for _, part := range []struct {
		word  string
		lines []string
	}{{"made", r.Made}, {"found", r.Found}, {"differs", r.Drift}, {"note", r.Notes}} {
		for _, line := range part.lines {
			lines = append(lines, part.word+": "+line)
		}
	}
	return lines
}

// Setup makes at Stripe what the catalogue needs, or finds it: the meter, a product a plan with its monthly price and its
// overage price, the webhook endpoint and the portal's configuration. A second run makes nothing. What differs is listed and
// left alone: people may have subscribed to it. The ids are kept in stripe_objects, where serve reads them.
func Setup(ctx context.Context, o SetupOptions) (SetupReport, error) {
	s := &setup{SetupOptions: o, products: map[models.PlanID]*stripe.Product{}, prices: map[string]*stripe.Price{}}
	for _, step := range []func(context.Context) error{s.known, s.meter, s.plans, s.webhook, s.portal} {
		if err := step(ctx); err != nil {
			return s.SetupReport, fmt.Errorf("set up Stripe: %w", err)
		}
	}
	return s.SetupReport, nil
}

// setup is one run.
type setup struct {
	SetupOptions
	SetupReport

	objects  map[string]string // ids of what was set up before, by name
	meterID  string
	products map[models.PlanID]*stripe.Product
	prices   map[string]*stripe.Price // by lookup key
}

func (s *setup) made(format string, args ...any) {
	s.Made = append(s.Made, fmt.Sprintf(format, args...))
}
func (s *setup) found(format string, args ...any) {
	s.Found = append(s.Found, fmt.Sprintf(format, args...))
}
func (s *setup) differs(format string, args ...any) {
	s.Drift = append(s.Drift, fmt.Sprintf(format, args...))
}

// known reads what was set up before.
func (s *setup) known(ctx context.Context) (err error) {
	s.objects, err = stripeObjects(ctx, s.DB)
	return err
}

// stripeObjects are the ids of what was set up, by name.
func stripeObjects(ctx context.Context, db bun.IDB) (map[string]string, error) {
	var rows []models.StripeObject
	if err := db.NewSelect().Model(&rows).Scan(ctx); err != nil {
		return nil, fmt.Errorf("read what was set up at Stripe: %w", err)
	}
	ids := make(map[string]string, len(rows))
	for _, r := range rows {
		ids[r.Name] = r.StripeID
	}
	return ids, nil
}

// keepID writes an id down under its name.
func (s *setup) keepID(ctx context.Context, name, id string) error {
	if s.DryRun || id == "" || s.objects[name] == id {
		return nil
	}
	s.objects[name] = id
	return keepObject(ctx, s.DB, models.Now(s.Now), name, id)
}

func keepObject(ctx context.Context, db bun.IDB, now time.Time, name, id string) error {
	row := models.StripeObject{Name: name, StripeID: id, UpdatedAt: now}
	_, err := db.NewInsert().Model(&row).On("CONFLICT (name) DO UPDATE").Set("stripe_id = EXCLUDED.stripe_id, updated_at = EXCLUDED.updated_at").Exec(ctx)
	return err
}

// onlyMissing turns Stripe's answer that something is not there into nothing.
func onlyMissing(err error) error {
	if e := stripeError(err); e != nil && e.HTTPStatusCode == http.StatusNotFound {
		return nil
	}
	return err
}

// meter finds the catalogue's meter by its event name, of which Stripe allows one active one.
func (s *setup) meter(ctx context.Context) error {
	name := s.Catalogue.MeterEventName
	var found *stripe.BillingMeter
	list := &stripe.BillingMeterListParams{}
	list.Context, list.Limit = ctx, stripe.Int64(100)
	meters := s.Client.BillingMeters.List(list)
	for meters.Next() {
		if m := meters.BillingMeter(); m.EventName == name && (found == nil || m.Status == stripe.BillingMeterStatusActive) {
			found = m
		}
	}
	if err := meters.Err(); err != nil {
		return fmt.Errorf("list the meters: %w", err)
	}
	if found == nil {
		if s.DryRun {
			s.made("the meter %s", name)
			return nil
		}
		var err error
		found, err = s.Client.BillingMeters.New(&stripe.BillingMeterParams{
			Params: params(ctx), DisplayName: stripe.String(s.Catalogue.UnitPlural), EventName: &name,
			DefaultAggregation: &stripe.BillingMeterDefaultAggregationParams{Formula: stripe.String(string(stripe.BillingMeterDefaultAggregationFormulaSum))},
			CustomerMapping:    &stripe.BillingMeterCustomerMappingParams{Type: stripe.String("by_id"), EventPayloadKey: stripe.String(meterCustomerKey)},
			ValueSettings:      &stripe.BillingMeterValueSettingsParams{EventPayloadKey: stripe.String(meterValueKey)},
		})
		if err != nil {
			return fmt.Errorf("make the meter %s: %w", name, err)
		}
		s.made("the meter %s, %s", name, found.ID)
	} else {
		s.found("the meter %s, %s", name, found.ID)
		s.checkMeter(found)
	}
	s.meterID = found.ID
	return s.keepID(ctx, objectMeter, found.ID)
}

func (s *setup) checkMeter(m *stripe.BillingMeter) {
	if m.Status != stripe.BillingMeterStatusActive {
		s.differs("the meter %s is %s, so Stripe takes no usage", m.ID, m.Status)
	}
	if m.DefaultAggregation == nil || m.DefaultAggregation.Formula != stripe.BillingMeterDefaultAggregationFormulaSum {
		s.differs("the meter %s does not add up its events", m.ID)
	}
	if m.CustomerMapping == nil || m.CustomerMapping.EventPayloadKey != meterCustomerKey {
		s.differs("the meter %s does not take the customer from %q", m.ID, meterCustomerKey)
	}
	if m.ValueSettings == nil || m.ValueSettings.EventPayloadKey != meterValueKey {
		s.differs("the meter %s does not take the value from %q", m.ID, meterValueKey)
	}
}

// plans sets up a product and prices for each plan but the free one.
func (s *setup) plans(ctx context.Context) error {
	if err := s.findProducts(ctx); err != nil {
		return err
	}
	var keys []string
	for _, p := range s.Catalogue.Plans {
		keys = append(keys, lookupBase+string(p.ID), overageKey(p, 1))
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

// findProducts finds the plans' products by their metadata; of several, one that is active.
func (s *setup) findProducts(ctx context.Context) error {
	list := &stripe.ProductListParams{}
	list.Context, list.Limit = ctx, stripe.Int64(100)
	found := s.Client.Products.List(list)
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

// pricesByKey finds prices by their lookup keys, with their tiers.
func pricesByKey(ctx context.Context, client *Client, keys []string) (map[string]*stripe.Price, error) {
	prices := map[string]*stripe.Price{}
	for some := range slices.Chunk(keys, lookupsAtATime) {
		list := &stripe.PriceListParams{LookupKeys: stripe.StringSlice(some), Expand: stripe.StringSlice([]string{"data.tiers"})}
		list.Context, list.Limit = ctx, stripe.Int64(100)
		found := client.Prices.List(list)
		for found.Next() {
			if p := found.Price(); p.LookupKey != "" {
				prices[p.LookupKey] = p
			}
		}
		if err := found.Err(); err != nil {
			return nil, fmt.Errorf("list the prices: %w", err)
		}
	}
	return prices, nil
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
			s.differs("the product %s of %s is called %q, and the plan %q", product.ID, p.ID, product.Name, p.Name)
		}
	case s.DryRun:
		s.made("the product of %s", p.ID)
	default:
		var err error
		product, err = s.Client.Products.New(&stripe.ProductParams{
			Params: params(ctx), Name: &p.Name, Description: &p.Description, Metadata: map[string]string{metadataPlan: string(p.ID)},
		})
		if err != nil {
			return fmt.Errorf("make the product: %w", err)
		}
		s.made("the product of %s, %s", p.ID, product.ID)
		s.products[p.ID] = product
	}
	if product == nil {
		product = &stripe.Product{}
	}
	if err := s.keepID(ctx, objectProduct+string(p.ID), product.ID); err != nil {
		return err
	}
	if err := s.price(ctx, objectPrice+string(p.ID), p.StripePriceID, basePrice(s.Catalogue, p, product.ID)); err != nil {
		return err
	}
	if p.OverageRateCents == 0 {
		return nil // a hard cap: there is nothing to bill
	}
	return s.price(ctx, objectOverage+string(p.ID), p.StripeOveragePriceID, overagePrice(s.Catalogue, p, 1, product.ID, s.meterID))
}

// basePrice is the monthly price of a plan; of a team plan, of a seat.
func basePrice(c *models.Catalogue, p models.Plan, product string) *stripe.PriceParams {
	return &stripe.PriceParams{
		Currency: &c.Currency, Product: &product, UnitAmount: &p.BasePriceCents, LookupKey: stripe.String(lookupBase + string(p.ID)),
		Recurring: &stripe.PriceRecurringParams{
			Interval: stripe.String(string(stripe.PriceRecurringIntervalMonth)), UsageType: stripe.String(string(stripe.PriceRecurringUsageTypeLicensed)),
		},
		Metadata: map[string]string{metadataPlan: string(p.ID)},
	}
}

// overageKey is the lookup key of a plan's overage price. A team's tiers depend on its seats: what is included is included for
// each member, while Stripe counts a customer's usage as one.
func overageKey(p models.Plan, seats int64) string {
	if p.Type == models.Team {
		return fmt.Sprintf("%s%s_%d", lookupOverage, p.ID, seats)
	}
	return lookupOverage + string(p.ID)
}

// overagePrice bills usage: all of it is reported, and the first tier leaves what is included free.
func overagePrice(c *models.Catalogue, p models.Plan, seats int64, product, meter string) *stripe.PriceParams {
	var tiers []*stripe.PriceTierParams
	included := p.Included
	if p.Type == models.Team {
		included *= seats
	}
	if included > 0 {
		tiers = append(tiers, &stripe.PriceTierParams{UpTo: &included, UnitAmount: stripe.Int64(0)})
	}
	tiers = append(tiers, &stripe.PriceTierParams{UpToInf: stripe.Bool(true), UnitAmount: &p.OverageRateCents})
	return &stripe.PriceParams{
		Currency: &c.Currency, Product: &product, LookupKey: stripe.String(overageKey(p, seats)), Tiers: tiers,
		BillingScheme: stripe.String(string(stripe.PriceBillingSchemeTiered)), TiersMode: stripe.String(string(stripe.PriceTiersModeGraduated)),
		Recurring: &stripe.PriceRecurringParams{
			Interval: stripe.String(string(stripe.PriceRecurringIntervalMonth)), UsageType: stripe.String(string(stripe.PriceRecurringUsageTypeMetered)), Meter: &meter,
		},
		Metadata: map[string]string{metadataPlan: string(p.ID)},
	}
}

// price finds a price, by the id that the catalogue has or by its lookup key, or makes it.
func (s *setup) price(ctx context.Context, name, inCatalogue string, want *stripe.PriceParams) error {
	found := s.prices[*want.LookupKey]
	if inCatalogue != "" {
		get := &stripe.PriceParams{Params: params(ctx), Expand: stripe.StringSlice([]string{"tiers"})}
		var err error
		if found, err = s.Client.Prices.Get(inCatalogue, get); onlyMissing(err) != nil {
			return fmt.Errorf("read the price %s: %w", inCatalogue, err)
		} else if err != nil {
			s.differs("Stripe does not know the price %s, which the catalogue has for %s", inCatalogue, name)
			return nil
		}
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
		if found, err = s.Client.Prices.New(want); err != nil {
			return fmt.Errorf("make %s: %w", name, err)
		}
		s.made("%s, %s", name, found.ID)
	}
	return s.keepID(ctx, name, found.ID)
}

// priceDifferences are what of a price is not as it must be.
func priceDifferences(p *stripe.Price, want *stripe.PriceParams) (lines []string) {
	differs := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	if !p.Active {
		differs("it is inactive")
	}
	if string(p.Currency) != *want.Currency {
		differs("it is in %s, and the catalogue in %s", p.Currency, *want.Currency)
	}
	if p.Product != nil && *want.Product != "" && p.Product.ID != *want.Product {
		differs("it is of the product %s, not %s", p.Product.ID, *want.Product)
	}
	switch r := p.Recurring; {
	case r == nil || string(r.Interval) != *want.Recurring.Interval || r.IntervalCount > 1:
		differs("it is not monthly")
	case string(r.UsageType) != *want.Recurring.UsageType:
		differs("it is %s, not %s", r.UsageType, *want.Recurring.UsageType)
	case want.Recurring.Meter != nil && r.Meter != *want.Recurring.Meter:
		differs("it counts by the meter %q, not %q", r.Meter, *want.Recurring.Meter)
	}
	if want.UnitAmount != nil && (p.UnitAmount != *want.UnitAmount || p.BillingScheme != stripe.PriceBillingSchemePerUnit) {
		differs("it is %d cents, and the catalogue says %d", p.UnitAmount, *want.UnitAmount)
	}
	if len(want.Tiers) > 0 {
		if got, should := tiersOf(p.Tiers), tiersWanted(want.Tiers); got != should || p.TiersMode != stripe.PriceTiersModeGraduated {
			differs("its tiers are %s, and the catalogue says %s", got, should)
		}
	}
	return lines
}

func tiersOf(tiers []*stripe.PriceTier) string {
	var parts []string
	for _, t := range tiers {
		parts = append(parts, tierText(t.UpTo, t.UnitAmount, t.FlatAmount))
	}
	return strings.Join(parts, ", ")
}

func tiersWanted(tiers []*stripe.PriceTierParams) string {
	var parts []string
	for _, t := range tiers {
		var upTo int64
		if t.UpTo != nil {
			upTo = *t.UpTo
		}
		parts = append(parts, tierText(upTo, *t.UnitAmount, 0))
	}
	return strings.Join(parts, ", ")
}

// tierText is a tier in words; no bound is 0.
func tierText(upTo, cents, flat int64) string {
	text := fmt.Sprintf("beyond at %d cents", cents)
	if upTo > 0 {
		text = fmt.Sprintf("up to %d at %d cents", upTo, cents)
	}
	if flat > 0 {
		text += fmt.Sprintf(" and %d flat", flat)
	}
	return text
}

// webhook sets up the endpoint that Stripe sends its events to, when Stripe can reach it.
func (s *setup) webhook(ctx context.Context) error {
	address := strings.TrimRight(s.BaseURL, "/") + WebhookPath
	if !strings.HasPrefix(address, "https://") {
		s.Notes = append(s.Notes, fmt.Sprintf("no webhook endpoint: Stripe sends to https alone, and --base-url is %q", s.BaseURL))
		return nil
	}
	var found *stripe.WebhookEndpoint
	list := &stripe.WebhookEndpointListParams{}
	list.Context, list.Limit = ctx, stripe.Int64(100)
	endpoints := s.Client.WebhookEndpoints.List(list)
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
		found, err = s.Client.WebhookEndpoints.New(&stripe.WebhookEndpointParams{
			Params: params(ctx), URL: &address, APIVersion: stripe.String(stripe.APIVersion), EnabledEvents: stripe.StringSlice(WebhookTypes),
		})
		if err != nil {
			return fmt.Errorf("make the webhook endpoint %s: %w", address, err)
		}
		s.made("the webhook endpoint %s, %s", address, found.ID)
		s.WebhookSecret = found.Secret
		s.Notes = append(s.Notes, fmt.Sprintf("what Stripe could not count is told by thin events (%s), which go to an event destination of their own: add one for %s in Stripe's dashboard, and its secret to STRIPE_WEBHOOK_SECRET behind a comma",
			strings.Join(ThinWebhookTypes, ", "), address))
	}
	return s.keepID(ctx, objectWebhook, found.ID)
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
			s.differs("the webhook endpoint %s is not sent %s", e.ID, kind)
		}
	}
	for _, kind := range e.EnabledEvents {
		if !slices.Contains(WebhookTypes, kind) {
			s.differs("the webhook endpoint %s is sent %s, which is nothing to us", e.ID, kind)
		}
	}
}

// portal sets up what people may do at Stripe by themselves: see invoices, change how they pay, cancel. They cannot change the
// plan there: Stripe's portal changes no subscription that bills usage, and one without would go on without its overage price.
// Source: https://docs.stripe.com/customer-management#customer-subscription-management
func (s *setup) portal(ctx context.Context) error {
	var found *stripe.BillingPortalConfiguration
	list := &stripe.BillingPortalConfigurationListParams{}
	list.Context, list.Limit = ctx, stripe.Int64(100)
	all := s.Client.BillingPortalConfigurations.List(list)
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
			Params: params(ctx), BusinessProfile: &stripe.BillingPortalConfigurationBusinessProfileParams{Headline: stripe.String("Your plan and its invoices")},
			Features: &stripe.BillingPortalConfigurationFeaturesParams{
				InvoiceHistory:      &stripe.BillingPortalConfigurationFeaturesInvoiceHistoryParams{Enabled: on},
				PaymentMethodUpdate: &stripe.BillingPortalConfigurationFeaturesPaymentMethodUpdateParams{Enabled: on},
				CustomerUpdate: &stripe.BillingPortalConfigurationFeaturesCustomerUpdateParams{
					Enabled: on, AllowedUpdates: stripe.StringSlice([]string{"email", "address", "tax_id"}),
				},
				SubscriptionCancel: &stripe.BillingPortalConfigurationFeaturesSubscriptionCancelParams{Enabled: on, Mode: stripe.String("at_period_end")},
			},
			Metadata: map[string]string{metadataObject: objectPortal},
		}
		if strings.HasPrefix(s.BaseURL, "https://") {
			config.DefaultReturnURL = stripe.String(strings.TrimRight(s.BaseURL, "/") + "/plans")
		}
		var err error
		if found, err = s.Client.BillingPortalConfigurations.New(config); err != nil {
			return fmt.Errorf("make the portal's configuration: %w", err)
		}
		s.made("the portal's configuration, %s", found.ID)
	}
	return s.keepID(ctx, objectPortal, found.ID)
}
