package billing

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
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
	// invoicesShown is how many a page shows.
	invoicesShown = 12
	// invoicesFresh is how long a customer's invoices are believed, invoicesAway how long it is believed that they cannot be
	// read, and invoicesPatience how long a page waits for them.
	invoicesFresh    = 3 * time.Minute
	invoicesAway     = 30 * time.Second
	invoicesPatience = 3 * time.Second
	// invoicesKept bounds the customers whose invoices are remembered.
	invoicesKept = 1000
)

// Errors of what cannot be bought or managed.
var (
	// ErrHasPlan says that there is a subscription already, which the portal manages.
	ErrHasPlan = errors.New("there is a subscription at Stripe already")
	// ErrNotSetUp says that the plan has no price at Stripe; tollgate stripe setup makes it.
	ErrNotSetUp = errors.New("the plan is not set up at Stripe")
	// ErrNoCustomer says that Stripe knows nobody whom the portal could be for.
	ErrNoCustomer = errors.New("nobody is a customer of Stripe here")
)

// ShopOptions are the surroundings of a shop. All are needed.
type ShopOptions struct {
	DB        *models.DB
	Client    *Client
	Catalogue *models.Catalogue
	Now       func() time.Time
	// BaseURL is where people come back to.
	BaseURL string
	Log     *slog.Logger
}

// Shop is what people buy and manage at Stripe: Checkout, the Billing Portal and invoices.
type Shop struct {
	ShopOptions
	accountCheck

	mu       sync.Mutex
	invoices map[string]keptInvoices
}

// keptInvoices are a customer's, until when they are believed.
type keptInvoices struct {
	list  []Invoice
	until time.Time
}

// NewShop makes a shop.
func NewShop(o ShopOptions) *Shop {
	return &Shop{ShopOptions: o, invoices: map[string]keptInvoices{}}
}

// Buyer is who gets a plan: a person, or an organization by one of its admins.
type Buyer struct {
	UserID uuid.UUID
	// Email is the person's, to whom Stripe writes.
	Email string
	// OrganizationID is set when it is for the organization.
	OrganizationID *uuid.UUID
}

// owner is whose the subscription will be.
func (b Buyer) owner() (column string, id uuid.UUID) {
	if b.OrganizationID != nil {
		return "organization_id", *b.OrganizationID
	}
	return "user_id", b.UserID
}

// reference is how Stripe is told whose it is, for Checkout's client_reference_id and the subscription's metadata.
func (b Buyer) reference() (reference, key, id string) {
	if b.OrganizationID != nil {
		return organizationReference + b.OrganizationID.String(), organizationKeys[0], b.OrganizationID.String()
	}
	return userReference + b.UserID.String(), userKeys[0], b.UserID.String()
}

// ReturnPath is where people come back to who bought a plan.
const ReturnPath = "/plans/return"

// Checkout begins a purchase and returns where it goes on. Two clicks one after the other lead to the same one, and a click after a
// purchase of which Stripe has not told yet, to where that is waited for. It returns ErrHasPlan, ErrNotSetUp, ErrOtherAccount, and what is wrong with Stripe or the database.
func (s *Shop) Checkout(ctx context.Context, who Buyer, plan models.Plan) (address string, err error) {
	if err := s.checkAccount(ctx, s.Client, s.DB); err != nil {
		return "", fmt.Errorf("begin a purchase: %w", err)
	}
	column, id := who.owner()
	var held []models.Subscription
	if err := s.DB.NewSelect().Model(&held).Where("? = ? AND stripe_subscription_id IS NOT NULL", bun.Ident(column), id).Scan(ctx); err != nil {
		return "", fmt.Errorf("begin a purchase: %w", err)
	}
	for _, h := range held {
		// One that is paused or unpaid is still there, and a second one beside it would be paid for as well.
		if h.Active() || h.Status == models.SubscriptionStatus(stripe.SubscriptionStatusUnpaid) || h.Status == models.SubscriptionStatus(stripe.SubscriptionStatusPaused) {
			return "", ErrHasPlan
		}
	}
	seats := int64(1)
	if plan.Type == models.Team {
		n, err := members(ctx, s.DB, id)
		if err != nil {
			return "", fmt.Errorf("begin a purchase: %w", err)
		}
		seats = max(1, n)
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
	session := &stripe.CheckoutSessionParams{
		Mode: stripe.String(string(stripe.CheckoutSessionModeSubscription)), ClientReferenceID: &reference, LineItems: items,
		SubscriptionData: &stripe.CheckoutSessionSubscriptionDataParams{Metadata: map[string]string{key: value}},
		SuccessURL:       stripe.String(s.BaseURL + ReturnPath + "?plan=" + string(plan.ID) + "&session_id=" + sessionInAddress),
		CancelURL:        stripe.String(s.BaseURL + "/plans"),
	}
	if customer != "" {
		session.Customer = &customer
	} else {
		session.CustomerEmail = &who.Email
	}
	address, err = s.begin(ctx, session)
	if e := stripeError(err); e != nil && e.Code == stripe.ErrorCodeResourceMissing && e.Param == "customer" {
		// They were deleted at Stripe, and we have not heard of it.
		session.Customer, session.CustomerEmail = nil, &who.Email
		address, err = s.begin(ctx, session)
	}
	if err != nil {
		return "", fmt.Errorf("begin a purchase of %s: %w", plan.ID, err)
	}
	return address, nil
}

// items are what a subscription to the plan is charged by: the base price for each seat, and the overage price.
func (s *Shop) items(ctx context.Context, plan models.Plan, seats int64) ([]*stripe.CheckoutSessionLineItemParams, error) {
	objects, err := stripeObjects(ctx, s.DB)
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

// CustomerOf is the customer of Stripe's that a person or an organization is; ErrNoCustomer when they are none.
func (s *Shop) CustomerOf(ctx context.Context, who Buyer) (string, error) {
	column, id := who.owner()
	var ids []string
	if err := s.DB.NewSelect().Model((*models.StripeCustomer)(nil)).Column("id").Where("? = ? AND NOT deleted", bun.Ident(column), id).
		Order("created_at DESC", "id").Limit(1).Scan(ctx, &ids); err != nil {
		return "", fmt.Errorf("find a customer: %w", err)
	}
	if len(ids) == 0 {
		return "", ErrNoCustomer
	}
	return ids[0], nil
}

// Portal opens Stripe's Billing Portal for a customer and returns where it is. It returns ErrNoCustomer when Stripe does not
// know them, and ErrOtherAccount.
func (s *Shop) Portal(ctx context.Context, customer string) (address string, err error) {
	if err := s.checkAccount(ctx, s.Client, s.DB); err != nil {
		return "", fmt.Errorf("open the portal: %w", err)
	}
	objects, err := stripeObjects(ctx, s.DB)
	if err != nil {
		return "", err
	}
	session := &stripe.BillingPortalSessionParams{Params: params(ctx), Customer: &customer, ReturnURL: stripe.String(s.BaseURL + "/plans")}
	if id := objects[objectPortal]; id != "" {
		session.Configuration = &id
	}
	made, err := s.Client.BillingPortalSessions.New(session)
	if e := stripeError(err); e != nil && e.Code == stripe.ErrorCodeResourceMissing && e.Param == "customer" {
		return "", ErrNoCustomer
	}
	if err != nil {
		return "", fmt.Errorf("open the portal: %w", err)
	}
	return made.URL, nil
}

// Arrived says that a subscription of the buyer's to the plan is there: Stripe told of it.
func (s *Shop) Arrived(ctx context.Context, who Buyer, plan models.PlanID) (bool, error) {
	column, id := who.owner()
	var held []models.Subscription
	if err := s.DB.NewSelect().Model(&held).Where("? = ? AND stripe_subscription_id IS NOT NULL AND plan_id = ?", bun.Ident(column), id, plan).Scan(ctx); err != nil {
		return false, fmt.Errorf("look for a purchase: %w", err)
	}
	for _, h := range held {
		if h.Active() {
			return true, nil
		}
	}
	return false, nil
}

// Hurry asks Stripe about a Checkout whose webhook does not come, and has its customer brought into line.
func (s *Shop) Hurry(ctx context.Context, session string) error {
	found, err := s.Client.CheckoutSessions.Get(session, &stripe.CheckoutSessionParams{Params: params(ctx)})
	if err != nil {
		return fmt.Errorf("read a Checkout: %w", err)
	}
	if found.Customer == nil {
		return nil // nothing is bought yet
	}
	return makeDue(ctx, s.DB, models.Now(s.Now), []string{found.Customer.ID})
}

// Invoice is one of Stripe's, as a page shows it.
type Invoice struct {
	// Number is empty for a draft.
	Number string
	// Status is Stripe's: draft, open, paid, uncollectible or void.
	Status string
	// Total is in the currency's smallest unit, as models.FormatMoney takes it. Currency is an ISO 4217 code in lower case.
	Total    int64
	Currency string
	Created  time.Time
	// URL is where Stripe shows it; empty for a draft.
	URL string
}

// Invoices are a customer's last twelve, newest first. They are remembered for some minutes. When Stripe does not answer in
// time there are none, and that is no fault of the page's.
func (s *Shop) Invoices(ctx context.Context, customer string) []Invoice {
	now := models.Now(s.Now)
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
	found := s.Client.Invoices.List(list)
	fresh := keptInvoices{until: now.Add(invoicesFresh)}
	for found.Next() {
		i := found.Invoice()
		shown := Invoice{Number: i.Number, Status: string(i.Status), Total: i.Total, Currency: string(i.Currency), Created: time.Unix(i.Created, 0).UTC()}
		if strings.HasPrefix(i.HostedInvoiceURL, "https://") {
			shown.URL = i.HostedInvoiceURL
		}
		fresh.list = append(fresh.list, shown)
	}
	if err := found.Err(); err != nil {
		s.Log.LogAttrs(ctx, slog.LevelWarn, "invoices could not be read", slog.String("customer", customer), slog.String("error", err.Error()))
		// Those that were read before are still invoices.
		fresh = keptInvoices{list: kept.list, until: now.Add(invoicesAway)}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.invoices) >= invoicesKept {
		clear(s.invoices)
	}
	s.invoices[customer] = fresh
	return fresh.list
}

// sessionID is what the id of a Checkout looks like.
var sessionID = regexp.MustCompile(`^cs_[A-Za-z0-9_]{1,250}$`)

// IsSession says that a text may be the id of a Checkout.
func IsSession(text string) bool { return sessionID.MatchString(text) }

// IsStripe says that an error is an answer of Stripe's, or that Stripe could not be reached.
func IsStripe(err error) bool {
	var transport *url.Error
	return stripeError(err) != nil || errors.As(err, &transport)
}
