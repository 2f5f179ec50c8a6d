package stripetest_test

import (
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/stripe/stripe-go/v76"

	"tollgate/models/billing/stripetest"
)

func TestCreditNotes(t *testing.T) {
	s := newStandIn(nil)
	overage := s.AddPrice(stripetest.Price{Cents: 25, Meter: s.meter})
	sub := s.AddSubscription(stripetest.Subscription{
		Customer: "cus_1", Items: []stripetest.Item{{Price: overage}}, PeriodStart: start, PeriodEnd: start.AddDate(0, 1, 0),
	})
	s.Add(time.Hour)
	if a := s.must(t, post, event("a", "4", start), ""); a.status != http.StatusOK {
		t.Fatalf("usage: %d %v", a.status, a.body)
	}
	invoice := s.Renew(sub)
	line := must(s.sdk().Invoices.Get(invoice, nil))(t).Lines.Data[0].ID
	credit := func(cents, balance int64) error {
		t.Helper()
		p := &stripe.CreditNoteParams{Invoice: &invoice, Lines: []*stripe.CreditNoteLineParams{
			{Type: stripe.String("invoice_line_item"), InvoiceLineItem: &line, Amount: &cents},
		}}
		p.AddMetadata("k", "v")
		if balance > 0 {
			p.CreditAmount = &balance
		}
		_, err := s.sdk().CreditNotes.New(p)
		return err
	}
	refused := func(what string, err error) {
		t.Helper()
		if e := (*stripe.Error)(nil); !errors.As(err, &e) || e.HTTPStatusCode != http.StatusBadRequest {
			t.Errorf("%s: %v", what, err)
		}
	}
	refused("a draft", credit(25, 0))
	s.FinalizeInvoice(invoice)
	refused("more than the line has", credit(101, 0))
	refused("a balance of an open invoice", credit(25, 25))
	if err := credit(50, 0); err != nil {
		t.Error(err)
	}
	refused("more than the line has left", credit(51, 0))
	if left := must(s.sdk().Invoices.Get(invoice, nil))(t).AmountRemaining; left != 50 {
		t.Errorf("%d cents remain, want 50", left)
	}
	s.CloseInvoice(invoice, "paid")
	refused("a paid invoice without a balance", credit(25, 0))
	if err := credit(25, 25); err != nil {
		t.Error(err)
	}
	list := s.sdk().CreditNotes.List(&stripe.CreditNoteListParams{Invoice: &invoice})
	n := 0
	for list.Next() {
		if n++; list.CreditNote().Metadata["k"] != "v" {
			t.Errorf("a credit note is %+v", list.CreditNote())
		}
	}
	if notes := s.CreditNotes(); n != 2 || len(notes) != 2 || notes[0].ToBalance != 0 || notes[1].ToBalance != 25 || notes[0].Cents != 50 {
		t.Errorf("%d are listed of %+v, %v", n, notes, list.Err())
	}
}
