package views

import (
	"time"

	"tollgate/models"
	"tollgate/views/ui"
)

// Purchase is the result of a purchase, or the reason why nothing was bought.
type Purchase struct {
	Frame ui.Frame
	// Title is the page's title; Lines are its paragraphs.
	Title string
	Lines []string
	// Waiting means that the page reloads automatically, at Next.
	Waiting bool
	Next    string
	// Portal offers Stripe's Billing Portal.
	Portal bool
	// Shared means that it is the organization's portal.
	Shared bool
	// Reference is the ID by which the operator finds the purchase in Stripe, or the request in the log;
	// may be empty.
	Reference string
}

// Invoice is one Stripe invoice.
type Invoice struct {
	// Number is empty for a draft.
	Number string
	// Status is one of Stripe's: draft, open, paid, uncollectible or void.
	Status string
	// Total is in the currency's smallest unit, as models.FormatMoney takes it. Currency is an ISO
	// 4217 code in lower case.
	Total    int64
	Currency string
	Created  time.Time
	// URL is the address where Stripe shows the invoice; may be empty.
	URL string
}

// invoiceStates maps Stripe's statuses to the words shown on the page.
var invoiceStates = map[string]string{
	"draft": "Draft, may still change", "open": "Open", "paid": "Paid", "uncollectible": "Uncollectible", "void": "Void",
}

func (i Invoice) state() string {
	if word, ok := invoiceStates[i.Status]; ok {
		return word
	}
	return i.Status
}

// name returns the invoice's number, or a placeholder for a draft.
func (i Invoice) name() string {
	if i.Number == "" {
		return "No number yet"
	}
	return i.Number
}

// amount returns the total in the invoice's own currency.
func (i Invoice) amount() string { return models.FormatMoney(i.Total, i.Currency) }
