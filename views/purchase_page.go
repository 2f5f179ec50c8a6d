package views

import (
	"time"

	"tollgate/models"
	"tollgate/views/ui"
)

// Purchase is what becomes of a purchase, or why there is none.
type Purchase struct {
	Frame ui.Frame
	// Title is the page's; Lines are its paragraphs.
	Title string
	Lines []string
	// Waiting says that the page looks again by itself, at Next.
	Waiting bool
	Next    string
	// Portal offers Stripe's Billing Portal.
	Portal bool
	// Reference is what whoever runs this finds the purchase by at Stripe; empty without one.
	Reference string
}

// Invoice is one of Stripe's.
type Invoice struct {
	// Number is empty for a draft.
	Number string
	// Status is Stripe's: draft, open, paid, uncollectible or void.
	Status string
	// Total is in the currency's smallest unit, as models.FormatMoney takes it. Currency is an ISO 4217 code in lower case.
	Total    int64
	Currency string
	Created  time.Time
	// URL is where Stripe shows it; empty where it does not.
	URL string
}

// invoiceStates are Stripe's words as people read them.
var invoiceStates = map[string]string{
	"draft": "Draft", "open": "Open", "paid": "Paid", "uncollectible": "Uncollectible", "void": "Void",
}

func (i Invoice) state() string {
	if word, ok := invoiceStates[i.Status]; ok {
		return word
	}
	return i.Status
}

// name is what the invoice is called.
func (i Invoice) name() string {
	if i.Number == "" {
		return "No number yet"
	}
	return i.Number
}

// amount returns the total in the invoice's own currency.
func (i Invoice) amount() string { return models.FormatMoney(i.Total, i.Currency) }
