package billing

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/stripe/stripe-go/v76"
	"github.com/uptrace/bun"

	"tollgate/models"
)

const (
	// invoicesShown is the number of invoices on a page.
	invoicesShown = 12
	// invoicesFresh is how long a customer's invoices are cached, invoicesAway how long an error is
	// cached, and invoicesPatience how long a page waits for them.
	invoicesFresh    = 3 * time.Minute
	invoicesAway     = 30 * time.Second
	invoicesPatience = 3 * time.Second
	// invoicesKept is the maximum number of customers in the cache.
	invoicesKept = 1000
)

// The errors of purchases.
var (
	// ErrHasPlan means that there is a subscription already, which can be changed in the portal.
	ErrHasPlan = errors.New("there is a subscription at Stripe already")
	// ErrNotSetUp means that the plan has no price at Stripe. Run tollgate stripe setup.
	ErrNotSetUp = errors.New("the plan is not set up at Stripe")
	// ErrNoCustomer means that the buyer is not a customer at Stripe, so there is no portal for
	// them.
	ErrNoCustomer = errors.New("the buyer is not a customer at Stripe")
)

// ShopOptions configure a Shop. All are required.
type ShopOptions struct {
	DB        *models.DB
	Client    *Client
	Catalogue *models.Catalogue
	Now       func() time.Time
	// BaseURL is the address to which people return.
	BaseURL string
	Log     *slog.Logger
}

// Shop is Checkout, the Billing Portal and invoices.
type Shop struct {
	db        *models.DB
	client    *Client
	catalogue *models.Catalogue
	clock     func() time.Time
	baseURL   string
	log       *slog.Logger
	account   *accountCheck

	mu       sync.Mutex
	invoices map[string]cachedInvoices
}

// cachedInvoices are a customer's invoices and when they expire.
type cachedInvoices struct {
	list  []Invoice
	until time.Time
}

// NewShop returns a shop.
func NewShop(o ShopOptions) *Shop {
	return &Shop{
		db: o.DB, client: o.Client, catalogue: o.Catalogue, clock: o.Now, baseURL: o.BaseURL, log: o.Log,
		account: newAccountCheck(o.Client, o.DB, nil), invoices: map[string]cachedInvoices{},
	}
}

// Buyer is the future holder of a plan: a person, or an organization with one of its admins.
type Buyer struct {
	UserID uuid.UUID
	// Email is the person's address, which Stripe writes to.
	Email string
	// OrganizationID is set if the plan is for the organization.
	OrganizationID *uuid.UUID
	// BecomesAdmin means that the organization has no admin, so the buyer becomes its admin.
	BecomesAdmin bool
}

// owner returns the owner of the subscription.
func (b Buyer) owner() (column string, id uuid.UUID) {
	if b.OrganizationID != nil {
		return "organization_id", *b.OrganizationID
	}
	return "user_id", b.UserID
}

// reference identifies the owner in Checkout's client_reference_id and in the subscription's
// metadata.
func (b Buyer) reference() (reference, key, id string) {
	if b.OrganizationID != nil {
		return organizationReference + b.OrganizationID.String(), organizationKeys[0], b.OrganizationID.String()
	}
	return userReference + b.UserID.String(), userKeys[0], b.UserID.String()
}

// ReturnPath is the path to which people return after a purchase.
const ReturnPath = "/plans/return"

// Checkout starts a purchase and returns the URL where it continues. A second click leads to the
// same Checkout. A click after a purchase that Stripe has not reported yet leads to the page that
// waits for it. It returns ErrHasPlan, ErrNotSetUp, ErrOtherAccount, or an error of Stripe or the
// database.
func (s *Shop) Checkout(ctx context.Context, who Buyer, plan models.Plan) (address string, err error) {
	if err := s.account.check(ctx); err != nil {
		return "", fmt.Errorf("begin a purchase: %w", err)
	}
	held, err := models.BlocksPurchase(ctx, s.db, who.UserID, who.OrganizationID)
	if err != nil {
		return "", fmt.Errorf("begin a purchase: %w", err)
	}
	if held != nil {
		return "", ErrHasPlan
	}
	seats := int64(1)
	if who.OrganizationID != nil {
		if seats, err = SeatsFor(ctx, s.db, *who.OrganizationID); err != nil {
			return "", fmt.Errorf("begin a purchase: %w", err)
		}
	}
	items, err := s.items(ctx, plan, seats)
	if err != nil {
		return "", fmt.Errorf("begin a purchase of %s: %w", plan.ID, err)
	}
	customer, err := s.CustomerOf(ctx, who)
	if err != nil && !errors.Is(err, ErrNoCustomer) {
		return "", fmt.Errorf("begin a purchase: %w", err)
	}
	reference, key, value := who.reference()
	metadata := map[string]string{key: value}
	if who.OrganizationID != nil && who.BecomesAdmin {
		metadata[metadataBuyer] = who.UserID.String()
	}
	session := &stripe.CheckoutSessionParams{
		Mode: stripe.String(string(stripe.CheckoutSessionModeSubscription)), ClientReferenceID: &reference, LineItems: items,
		SubscriptionData: &stripe.CheckoutSessionSubscriptionDataParams{Metadata: metadata},
		SuccessURL:       stripe.String(s.baseURL + ReturnPath + "?plan=" + string(plan.ID) + "&session_id=" + sessionInAddress),
		CancelURL:        stripe.String(s.baseURL + "/plans"),
	}
	if customer != "" {
		session.Customer = &customer
	} else {
		session.CustomerEmail = &who.Email
	}
	address, err = s.begin(ctx, session)
	if e := stripeError(err); e != nil && e.Code == stripe.ErrorCodeResourceMissing && e.Param == "customer" {
		// The customer was deleted at Stripe, and the webhook has not arrived.
		session.Customer, session.CustomerEmail = nil, &who.Email
		address, err = s.begin(ctx, session)
	}
	if err != nil {
		return "", fmt.Errorf("begin a purchase of %s: %w", plan.ID, err)
	}
	return address, nil
}

// items returns the items of a subscription to the plan: the base price for each seat, and the
// overage price.
func (s *Shop) items(ctx context.Context, plan models.Plan, seats int64) ([]*stripe.CheckoutSessionLineItemParams, error) {
	objects, err := stripeObjects(ctx, s.db)
	if err != nil {
		return nil, err
	}
	base := plan.StripePriceID
	if base == "" {
		base = objects[objectPrice+string(plan.ID)]
	}
	if base == "" {
		return nil, ErrNotSetUp
	}
	items := []*stripe.CheckoutSessionLineItemParams{{Price: &base, Quantity: &seats}}
	if plan.OverageRateCents == 0 {
		return items, nil
	}
	overage := plan.StripeOveragePriceID
	if overage == "" {
		overage = objects[objectOverage+string(plan.ID)]
	}
	if overage == "" {
		return nil, ErrNotSetUp
	}
	return append(items, &stripe.CheckoutSessionLineItemParams{Price: &overage}), nil
}

// CustomerOf returns the Stripe customer of a person or an organization, or ErrNoCustomer.
func (s *Shop) CustomerOf(ctx context.Context, who Buyer) (string, error) {
	column, id := who.owner()
	var ids []string
	if err := s.db.NewSelect().Model((*models.StripeCustomer)(nil)).Column("id").Where("? = ? AND NOT deleted", bun.Ident(column), id).
		Order("created_at DESC", "id").Limit(1).Scan(ctx, &ids); err != nil {
		return "", fmt.Errorf("find a customer: %w", err)
	}
	if len(ids) == 0 {
		return "", ErrNoCustomer
	}
	return ids[0], nil
}

// Portal returns the URL of a session in Stripe's Billing Portal. It returns ErrNoCustomer or
// ErrOtherAccount.
func (s *Shop) Portal(ctx context.Context, customer string) (address string, err error) {
	if err := s.account.check(ctx); err != nil {
		return "", fmt.Errorf("open the portal: %w", err)
	}
	objects, err := stripeObjects(ctx, s.db)
	if err != nil {
		return "", err
	}
	session := &stripe.BillingPortalSessionParams{Params: params(ctx), Customer: &customer, ReturnURL: stripe.String(s.baseURL + "/plans")}
	if id := objects[objectPortal]; id != "" {
		session.Configuration = &id
	}
	made, err := s.client.api.BillingPortalSessions.New(session)
	if e := stripeError(err); e != nil && e.Code == stripe.ErrorCodeResourceMissing && e.Param == "customer" {
		return "", ErrNoCustomer
	}
	if err != nil {
		return "", fmt.Errorf("open the portal: %w", err)
	}
	return made.URL, nil
}

// Arrived reports whether the buyer's subscription to the plan has arrived from Stripe.
func (s *Shop) Arrived(ctx context.Context, who Buyer, plan models.PlanID) (bool, error) {
	column, id := who.owner()
	var held []models.Subscription
	if err := s.db.NewSelect().Model(&held).Where("? = ? AND stripe_subscription_id IS NOT NULL AND plan_id = ?", bun.Ident(column), id,
		plan).Scan(ctx); err != nil {
		return false, fmt.Errorf("look for a purchase: %w", err)
	}
	for _, h := range held {
		if h.Active() {
			return true, nil
		}
	}
	return false, nil
}

// Hurry asks Stripe about a Checkout whose webhook has not arrived, and updates its customer.
func (s *Shop) Hurry(ctx context.Context, session string) error {
	found, err := s.client.api.CheckoutSessions.Get(session, &stripe.CheckoutSessionParams{Params: params(ctx)})
	if err != nil {
		return fmt.Errorf("read a Checkout: %w", err)
	}
	if found.Customer == nil {
		return nil // nothing is bought yet
	}
	return makeDue(ctx, s.db, models.Now(s.clock), []string{found.Customer.ID})
}

// Invoice is an invoice on a page.
type Invoice struct {
	// Number is empty for a draft.
	Number string
	// Status is Stripe's status: draft, open, paid, uncollectible or void.
	Status string
	// Total is in the currency's smallest unit, as for models.FormatMoney. Currency is an ISO 4217
	// code in lower case.
	Total    int64
	Currency string
	Created  time.Time
	// URL is the invoice's page at Stripe; empty for a draft.
	URL string
}

// Invoices returns a customer's last twelve invoices, newest first. They are cached for some
// minutes. If Stripe does not answer in time, there are none, and the page works without them.
func (s *Shop) Invoices(ctx context.Context, customer string) []Invoice {
	now := models.Now(s.clock)
	s.mu.Lock()
	kept, ok := s.invoices[customer]
	s.mu.Unlock()
	if ok && now.Before(kept.until) {
		return kept.list
	}
	patience, cancel := context.WithTimeout(ctx, invoicesPatience)
	defer cancel()
	list := &stripe.InvoiceListParams{Customer: &customer}
	list.Context, list.Limit, list.Single = patience, stripe.Int64(invoicesShown), true
	found := s.client.api.Invoices.List(list)
	fresh := cachedInvoices{until: now.Add(invoicesFresh)}
	for found.Next() {
		i := found.Invoice()
		shown := Invoice{Number: i.Number, Status: string(i.Status), Total: i.Total, Currency: string(i.Currency),
			Created: time.Unix(i.Created, 0).UTC()}
		if strings.HasPrefix(i.HostedInvoiceURL, "https://") {
			shown.URL = i.HostedInvoiceURL
		}
		fresh.list = append(fresh.list, shown)
	}
	if err := found.Err(); err != nil {
		s.log.WarnContext(ctx, "invoices could not be read", "customer", customer, "error", err.Error())
		// The invoices that were read before are still valid.
		fresh = cachedInvoices{list: kept.list, until: now.Add(invoicesAway)}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.invoices) >= invoicesKept {
		clear(s.invoices)
	}
	s.invoices[customer] = fresh
	return fresh.list
}

// sessionID matches the ID of a Checkout.
var sessionID = regexp.MustCompile(`^cs_[A-Za-z0-9_]{1,250}$`)

// IsSession reports whether a text can be the ID of a Checkout.
func IsSession(text string) bool { return sessionID.MatchString(text) }

// IsStripe reports whether an error is Stripe's answer, or means that Stripe could not be reached.
func IsStripe(err error) bool {
	var transport *url.Error
	return stripeError(err) != nil || errors.As(err, &transport)
}

// IsRefused reports whether an error is an answer of Stripe that another attempt would get, too, such
// as one about a key without permission.
func IsRefused(err error) bool {
	e := stripeError(err)
	if e == nil || errors.Is(err, errFasterClick) {
		return false
	}
	switch e.HTTPStatusCode {
	case http.StatusConflict, http.StatusFailedDependency, http.StatusTooEarly, http.StatusTooManyRequests:
		return false
	}
	return e.HTTPStatusCode >= http.StatusBadRequest && e.HTTPStatusCode < http.StatusInternalServerError
}
