package stripetest

import (
	"math"
	"net/http"
	"slices"
	"strconv"
	"time"
)

// linesShown is the number of lines in an invoice object; its lines route lists the rest.
const linesShown = 10

// bill has the data for an invoice of a subscription.
type bill struct {
	// subscription and items are as they were at the end of the billing period.
	subscription Subscription
	// start and end are the ended billing period, whose usage is billed. next has the period whose
	// base prices are billed; it is zero after the end of the subscription.
	start, end time.Time
	next       Subscription
	// lines are all lines.
	lines []object
}

func (s *Stripe) invoiceRoutes() []route {
	return []route{
		{
			pattern: "GET /v1/invoices", params: params(listParams, []string{"customer", "status", "subscription"}),
			handle: func(c *call) *answer {
				return s.list(c, s.kind("invoice").newest(c.filter("customer", "status", "subscription")))
			},
		},
		{pattern: "GET /v1/invoices/{id}", params: params(), handle: s.get("invoice", "invoice")},
		{pattern: "GET /v1/invoices/{id}/lines", params: params(listParams), handle: func(c *call) *answer {
			if s.kind("invoice").by[c.id] == nil {
				return missing(http.StatusNotFound, "id", "invoice", c.id)
			}
			var lines []object
			if b := s.bills[c.id]; b != nil {
				lines = b.lines
			}
			return s.list(c, lines)
		}},
		{
			pattern: "POST /v1/invoices/{id}/finalize", params: params([]string{"auto_advance"}),
			handle: s.withObject("invoice", "invoice", func(c *call, _ object) *answer {
				if !s.finalize(c.id, c.now) {
					return refuse(http.StatusBadRequest, "invoice_no_longer_editable", "",
						"This invoice is already finalized, you can't re-finalize a non-draft invoice.")
				}
				return nil
			}),
		},
	}
}

// Renew ends the current billing period of a subscription, starts the next one, which is a month,
// and creates a draft invoice: the base prices of the next period and the usage of the ended one. A
// subscription that is to be canceled at the end of its period ends. Renew returns the invoice's
// ID, or "" if there is no such subscription or it had ended.
func (s *Stripe) Renew(subscription string) (invoice string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.settle()
	sub := s.subs[subscription]
	if sub == nil || sub.Status == "canceled" {
		return ""
	}
	b := &bill{subscription: sub.clone(), start: sub.PeriodStart, end: sub.PeriodEnd}
	if sub.CancelAtPeriodEnd || !sub.CancelAt.IsZero() && !sub.CancelAt.After(sub.PeriodEnd) {
		sub.Status, sub.EndedAt = "canceled", sub.PeriodEnd
	} else {
		sub.PeriodStart, sub.PeriodEnd = sub.PeriodEnd, sub.PeriodEnd.AddDate(0, 1, 0)
		if sub.Status == "trialing" && !sub.TrialEnd.After(sub.PeriodStart) {
			sub.Status = "active"
		}
		b.next = sub.clone()
	}
	s.render(sub, now)
	return s.draft(b, now)
}

// FinalizeInvoice finalizes a draft of Renew with the units counted so far. Nothing on it changes
// afterward. It reports whether there was such a draft.
func (s *Stripe) FinalizeInvoice(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.finalize(id, s.settle())
}

// clone returns a copy that later changes do not affect.
func (sub *Subscription) clone() Subscription {
	c := *sub
	c.Items = slices.Clone(sub.Items)
	return c
}

// draft creates the draft of an invoice.
func (s *Stripe) draft(b *bill, now time.Time) string {
	id := s.newID("in")
	s.bills[id] = b
	s.invoice(Invoice{
		ID: id, Customer: b.subscription.Customer, Subscription: b.subscription.ID, Status: "draft", Currency: "usd", Created: now,
		PeriodStart: b.start, PeriodEnd: b.end,
	}, now)
	s.charge(id)
	return id
}

func (s *Stripe) finalize(id string, now time.Time) bool {
	o, b := s.kind("invoice").by[id], s.bills[id]
	if b == nil || o["status"] != "draft" {
		return false
	}
	s.charge(id)
	o["status"], o["number"], o["hosted_invoice_url"] = "open", "S-"+strconv.Itoa(s.serial), "https://invoice.stripe.com/i/"+id
	o["status_transitions"] = object{"finalized_at": now.Unix(), "paid_at": nil, "voided_at": nil, "marked_uncollectible_at": nil}
	return true
}

// charge writes the lines and the total of an invoice.
func (s *Stripe) charge(id string) {
	o, b := s.kind("invoice").by[id], s.bills[id]
	b.lines = nil
	var total int64
	add := func(item *Item, price object, quantity int64, start, end time.Time) {
		amount := lineAmount(price, quantity)
		total += amount
		b.lines = append(b.lines, object{
			"id": "il_" + id + "_" + item.ID, "object": "line_item", "amount": amount, "amount_excluding_tax": amount,
			"currency": price["currency"], "description": nil,
			"discount_amounts": []any{}, "discountable": true, "discounts": []any{}, "invoice": id, "livemode": s.o.Livemode, "metadata": object{},
			"period": object{"start": start.Unix(), "end": end.Unix()}, "price": price, "proration": false, "quantity": quantity,
			"subscription": b.subscription.ID, "subscription_item": item.ID, "tax_amounts": []any{}, "tax_rates": []any{}, "type": "subscription",
		})
	}
	for i := range b.next.Items {
		item := &b.next.Items[i]
		if price := s.needPrice(item.Price, 0); !metered(price) {
			add(item, price, item.Quantity, b.next.PeriodStart, b.next.PeriodEnd)
		}
	}
	for i := range b.subscription.Items {
		item := &b.subscription.Items[i]
		// Usage in a trial is not charged.
		if price := s.needPrice(item.Price, 0); metered(price) && b.subscription.TrialEnd.Before(b.end) {
			add(item, price, s.usage(b, item, price), b.start, b.end)
		}
	}
	o["total"], o["subtotal"], o["amount_due"], o["amount_remaining"] = total, total, total, total
	shown := b.lines[:min(len(b.lines), linesShown)]
	data := make([]any, len(shown))
	for i, line := range shown {
		data[i] = line
	}
	o["lines"] = object{"object": "list", "url": "/v1/invoices/" + id + "/lines", "has_more": len(b.lines) > len(shown),
		"total_count": len(b.lines), "data": data}
}

// usage returns the units that an item bills in the ended period: those of its meter since the item
// got its price. In classic billing mode, usage before a price exchange is not billed. A negative
// total bills 0.
func (s *Stripe) usage(b *bill, item *Item, price object) (units int64) {
	meter := price["recurring"].(object)["meter"]
	for _, r := range s.meter.byCustomer[b.subscription.Customer] {
		at := time.Unix(r.timestamp, 0)
		if !r.lost && r.meter == meter && !at.Before(b.start) && at.Before(b.end) && !at.Before(item.since) {
			units += r.value
		}
	}
	return max(0, units)
}

func metered(price object) bool {
	r, _ := price["recurring"].(object)
	return r["usage_type"] == "metered"
}

// lineAmount returns the amount of a quantity in cents. A price with tiers charges nothing, because
// the stand-in does not know its tiers.
func lineAmount(price object, quantity int64) int64 {
	text, _ := price["unit_amount_decimal"].(string)
	cents, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return 0
	}
	return int64(math.Round(cents * float64(quantity)))
}

// CloseInvoice sets an open invoice's status to paid, void or uncollectible. It reports whether
// there was such an invoice.
func (s *Stripe) CloseInvoice(id, status string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.kind("invoice").by[id]
	if o == nil || o["status"] != "open" {
		return false
	}
	o["status"], o["paid"] = status, status == "paid"
	return true
}
