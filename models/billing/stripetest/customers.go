package stripetest

import (
	"net/http"
	"time"
)

func (s *Stripe) customerRoutes() []route {
	fields := []string{"email", "name", "description", "phone", "metadata[*]", "metadata"}
	return []route{
		{pattern: "POST /v1/customers", params: params(fields), handle: func(c *call) *answer {
			o := s.addCustomer(s.newID("cus"), c.now)
			merge(o, c.change())
			return s.one(c, o)
		}},
		{pattern: "GET /v1/customers", params: params(listParams, []string{"email"}), handle: func(c *call) *answer {
			matches := c.filter("email")
			return s.list(c, s.kind("customer").newest(func(o object) bool { return o["deleted"] != true && matches(o) }))
		}},
		{pattern: "GET /v1/customers/{id}", params: params(), handle: s.get("customer", "customer")},
		{pattern: "POST /v1/customers/{id}", params: params(fields), handle: s.withObject("customer", "customer",
			func(c *call, o object) *answer {
				if o["deleted"] == true {
					return missing(http.StatusNotFound, "id", "customer", c.id)
				}
				return update(c, o)
			})},
		{pattern: "DELETE /v1/customers/{id}", handle: func(c *call) *answer {
			if !s.deleteCustomer(c.id, c.now) {
				return missing(http.StatusNotFound, "id", "customer", c.id)
			}
			return ok(s.kind("customer").by[c.id])
		}},
	}
}

// AddCustomer adds a customer, or replaces the one with its ID. The metadata may be nil.
func (s *Stripe) AddCustomer(id string, metadata map[string]string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.addCustomer(id, s.settle())
	for name, text := range metadata {
		o["metadata"].(object)[name] = text
	}
}

func (s *Stripe) addCustomer(id string, now time.Time) object {
	return s.kind("customer").put(object{
		"id": id, "object": "customer", "created": now.Unix(), "livemode": s.o.Livemode, "metadata": object{},
		"email": nil, "name": nil, "description": nil, "phone": nil,
	})
}

// needCustomer returns a customer, and creates a missing one.
func (s *Stripe) needCustomer(id string, now time.Time) object {
	if o := s.kind("customer").by[id]; o != nil {
		return o
	}
	return s.addCustomer(id, now)
}

// DeleteCustomer deletes a customer and cancels their subscriptions, as Stripe does. It reports
// whether the customer existed.
func (s *Stripe) DeleteCustomer(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.deleteCustomer(id, s.settle())
}

func (s *Stripe) deleteCustomer(id string, now time.Time) bool {
	o := s.kind("customer").by[id]
	if o == nil || o["deleted"] == true {
		return false
	}
	s.kind("customer").put(object{"id": id, "object": "customer", "deleted": true})
	for _, sub := range s.subs {
		if sub.Customer == id && sub.Status != "canceled" {
			sub.Status, sub.CanceledAt, sub.EndedAt = "canceled", now, now
			s.render(sub, now)
		}
	}
	return true
}

// noCustomer refuses a missing or deleted customer. It returns nil if the customer exists.
func (s *Stripe) noCustomer(id string) *answer {
	if o := s.kind("customer").by[id]; o == nil || o["deleted"] == true {
		return missing(http.StatusBadRequest, "customer", "customer", id)
	}
	return nil
}

// Invoice is an invoice for AddInvoice. Amounts are in cents.
type Invoice struct {
	// ID is generated if it is empty.
	ID, Customer, Subscription string
	// Number is the number that people see; a draft has none.
	Number string
	// Status is draft, open, paid, uncollectible or void.
	Status      string
	Currency    string
	Total       int64
	Created     time.Time
	PeriodStart time.Time
	PeriodEnd   time.Time
	// HostedURL and PDF are the addresses of the page and the file; a draft has neither.
	HostedURL, PDF string
}

// AddInvoice adds an invoice, or replaces the one with its ID, and returns the ID. It creates a
// missing customer.
func (s *Stripe) AddInvoice(i Invoice) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.invoice(i, s.settle())
}

func (s *Stripe) invoice(i Invoice, now time.Time) string {
	s.needCustomer(i.Customer, now)
	if i.ID == "" {
		i.ID = s.newID("in")
	}
	if i.Created.IsZero() {
		i.Created = now
	}
	paid, due := int64(0), i.Total
	if i.Status == "paid" {
		paid = i.Total
	}
	s.kind("invoice").put(object{
		"id": i.ID, "object": "invoice", "livemode": s.o.Livemode, "customer": i.Customer, "subscription": text(i.Subscription),
		"number": text(i.Number), "status": i.Status, "currency": i.Currency, "total": i.Total, "subtotal": i.Total,
		"amount_due": due, "amount_paid": paid, "amount_remaining": due - paid, "paid": i.Status == "paid",
		"created": i.Created.Unix(), "period_start": moment(i.PeriodStart), "period_end": moment(i.PeriodEnd),
		"hosted_invoice_url": text(i.HostedURL), "invoice_pdf": text(i.PDF), "metadata": object{},
	})
	return i.ID
}

// text returns nil for an empty string.
func text(s string) any {
	if s == "" {
		return nil
	}
	return s
}

// moment returns a time in seconds, or nil for the zero time.
func moment(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.Unix()
}
