package models

import (
	"time"

	"github.com/uptrace/bun"
)

// InvoiceStatus is Stripe's status of an invoice. Source:
// https://docs.stripe.com/api/invoices/object#invoice_object-status
type InvoiceStatus string

// The statuses of an invoice. A draft may still change; the others are final.
const (
	InvoiceDraft         InvoiceStatus = "draft"
	InvoiceOpen          InvoiceStatus = "open"
	InvoicePaid          InvoiceStatus = "paid"
	InvoiceVoid          InvoiceStatus = "void"
	InvoiceUncollectible InvoiceStatus = "uncollectible"
)

// StripeInvoice is a Stripe invoice as last read.
type StripeInvoice struct {
	bun.BaseModel `bun:"table:stripe_invoices"`

	ID                     string `bun:",pk"`
	StripeCustomerID       string
	StripeSubscriptionID   *string
	Status                 InvoiceStatus
	Currency               string
	PeriodStart, PeriodEnd *time.Time
	// FinalizedAt is nil for a draft.
	FinalizedAt *time.Time
	// ReadAt is when Stripe was asked. A result of an earlier request never replaces one of a later
	// request.
	ReadAt time.Time
	// Balanced means that the customer's balances were written after the invoice was read.
	Balanced bool
}

// StripeInvoiceLine is an invoice line that bills overage.
type StripeInvoiceLine struct {
	bun.BaseModel `bun:"table:stripe_invoice_lines"`

	StripeInvoiceID      string `bun:",pk"`
	ID                   string `bun:",pk"`
	StripeCustomerID     string
	StripeSubscriptionID *string
	StripePriceID        string
	MeterEventName       string
	// PlanID is the plan whose overage the line bills; empty for the meter of earlier releases,
	// which all plans shared.
	PlanID PlanID
	// Quantity is in units, AmountCents before tax and discounts.
	Quantity    int64
	AmountCents int64
	Currency    string
	// PeriodStart and PeriodEnd are the billing period of the usage.
	PeriodStart, PeriodEnd time.Time
}
