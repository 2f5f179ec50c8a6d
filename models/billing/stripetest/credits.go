package stripetest

import (
	"net/http"
	"strconv"
)

// CreditNote is a credit note of an invoice.
type CreditNote struct {
	ID, Invoice string
	// Cents is its total. ToBalance is the part that went to the customer's balance, because the
	// invoice was paid.
	Cents, ToBalance int64
}

func (s *Stripe) creditRoutes() []route {
	lines := []string{"lines[][type]", "lines[][invoice_line_item]", "lines[][amount]"}
	return []route{
		{pattern: "GET /v1/credit_notes", params: params(listParams, []string{"invoice", "customer"}), handle: func(c *call) *answer {
			return s.list(c, s.kind("credit_note").newest(c.filter("invoice", "customer")))
		}},
		{pattern: "GET /v1/credit_notes/preview", params: params(lines, []string{"invoice"}), handle: func(c *call) *answer {
			note, a := s.creditNote(c)
			if a != nil {
				return a
			}
			return ok(note)
		}},
		{
			pattern: "POST /v1/credit_notes", params: params(lines, []string{"invoice", "credit_amount", "metadata[*]"}),
			handle: s.createCreditNote,
		},
	}
}

// creditNote returns the credit note that a call describes. It must be about one line of a final
// invoice, and must not credit more than the line has.
// Source: https://docs.stripe.com/api/credit_notes/create.
func (s *Stripe) creditNote(c *call) (object, *answer) {
	if a := c.require("invoice", "lines[0][type]", "lines[0][invoice_line_item]", "lines[0][amount]"); a != nil {
		return nil, a
	}
	id, line := c.form.Get("invoice"), c.form.Get("lines[0][invoice_line_item]")
	invoice := s.kind("invoice").by[id]
	if invoice == nil {
		return nil, missing(http.StatusNotFound, "invoice", "invoice", id)
	}
	if status := invoice["status"]; status != "open" && status != "paid" {
		return nil, refuse(http.StatusBadRequest, "", "invoice", "Credit notes can only be created for open or paid invoices: it is %s.", status)
	}
	cents, err := strconv.ParseInt(c.form.Get("lines[0][amount]"), 10, 64)
	if err != nil || cents <= 0 {
		return nil, invalid("", "lines[0][amount]", "Invalid amount.")
	}
	left := int64(-1)
	if b := s.bills[id]; b != nil {
		for _, l := range b.lines {
			if l["id"] == line {
				left = l["amount"].(int64)
			}
		}
	}
	if left < 0 {
		return nil, missing(http.StatusNotFound, "lines[0][invoice_line_item]", "line item", line)
	}
	for _, note := range s.kind("credit_note").newest(func(o object) bool { return o["invoice"] == id && o["line"] == line }) {
		left -= note["total"].(int64)
	}
	if cents > left {
		return nil, refuse(http.StatusBadRequest, "", "lines[0][amount]", "The amount is more than the line item has left: %d.", left)
	}
	return object{
		"object": "credit_note", "invoice": id, "customer": invoice["customer"], "currency": invoice["currency"], "livemode": s.o.Livemode,
		"amount": cents, "subtotal": cents, "total": cents, "created": c.now.Unix(), "status": "issued", "metadata": object{}, "line": line,
	}, nil
}

func (s *Stripe) createCreditNote(c *call) *answer {
	note, a := s.creditNote(c)
	if a != nil {
		return a
	}
	invoice, total := s.kind("invoice").by[c.form.Get("invoice")], note["total"].(int64)
	note["to_balance"] = int64(0)
	if credit := c.form.Get("credit_amount"); invoice["status"] == "paid" {
		if credit != strconv.FormatInt(total, 10) {
			return refuse(http.StatusBadRequest, "", "credit_amount",
				"The sum of credit amount, refund amount and out of band amount must equal the credit note amount: %d.", total)
		}
		note["to_balance"] = total
	} else {
		if credit != "" {
			return refuse(http.StatusBadRequest, "", "credit_amount", "credit_amount is only for invoices that are paid.")
		}
		invoice["amount_remaining"] = invoice["amount_remaining"].(int64) - total
	}
	merge(note, object{"metadata": c.change()["metadata"]})
	note["id"] = s.newID("cn")
	return s.one(c, s.kind("credit_note").put(note))
}

// CreditNotes returns the credit notes, oldest first.
func (s *Stripe) CreditNotes() []CreditNote {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settle()
	var notes []CreditNote
	for _, o := range s.kind("credit_note").newest(func(object) bool { return true }) {
		notes = append([]CreditNote{{
			ID: o["id"].(string), Invoice: o["invoice"].(string), Cents: o["total"].(int64), ToBalance: o["to_balance"].(int64),
		}}, notes...)
	}
	return notes
}
