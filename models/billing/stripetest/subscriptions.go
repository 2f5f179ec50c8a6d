package stripetest

import (
	"net/http"
	"slices"
	"time"
)

// Subscription is a subscription for AddSubscription.
type Subscription struct {
	// ID is generated if it is empty.
	ID, Customer string
	// Status is Stripe's status; empty means active.
	Status string
	Items  []Item
	// PeriodStart and PeriodEnd are the current period; zero means a month from now.
	PeriodStart, PeriodEnd time.Time
	// Anchor is the billing cycle's anchor; zero means the period's start.
	Anchor time.Time
	// CancelAt, CanceledAt, EndedAt and TrialEnd are null if they are zero.
	CancelAt, CanceledAt, EndedAt, TrialEnd time.Time
	CancelAtPeriodEnd                       bool
	Metadata                                map[string]string
	// PeriodOnItems puts the period on each item instead of the subscription, as API versions since
	// 2025-03-31 do.
	PeriodOnItems bool

	created time.Time
}

// Item is one price of a subscription. A missing price is created.
type Item struct {
	// ID is generated if it is empty.
	ID, Price string
	// Quantity is not shown for a metered price.
	Quantity int64

	// since is when the item got its price, charged, during the subscription. Earlier usage is not
	// billed.
	since   time.Time
	charged string
	// created is when the item was added.
	created time.Time
}

func (s *Stripe) subscriptionRoutes() []route {
	return []route{
		{pattern: "GET /v1/subscriptions", params: params(listParams, []string{"customer", "status", "price"}), handle: s.listSubscriptions},
		{pattern: "GET /v1/subscriptions/{id}", params: params(), handle: s.get("subscription", "subscription")},
		{
			pattern: "POST /v1/subscriptions/{id}",
			params: params([]string{
				"cancel_at_period_end", "metadata[*]", "metadata", "proration_behavior", "items[][id]", "items[][price]", "items[][quantity]",
				"items[][deleted]",
			}),
			handle: s.withObject("subscription", "subscription", s.changeSubscription),
		},
		{
			pattern: "DELETE /v1/subscriptions/{id}", params: params([]string{"invoice_now", "prorate"}),
			handle: s.withObject("subscription", "subscription", func(c *call, _ object) *answer {
				sub := s.subs[c.id]
				if sub.Status == "canceled" {
					return missing(http.StatusNotFound, "id", "subscription", c.id)
				}
				if c.form.Get("invoice_now") == "true" {
					s.draft(&bill{subscription: sub.clone(), start: sub.PeriodStart, end: c.now}, c.now)
				}
				sub.Status, sub.CanceledAt, sub.EndedAt = "canceled", c.now, c.now
				s.render(sub, c.now)
				return nil
			}),
		},
	}
}

// AddSubscription adds a subscription and returns its ID. It creates a missing customer.
func (s *Stripe) AddSubscription(sub Subscription) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.addSubscription(sub, s.settle())
}

func (s *Stripe) addSubscription(sub Subscription, now time.Time) string {
	s.needCustomer(sub.Customer, now)
	if sub.ID == "" {
		sub.ID = s.newID("sub")
	}
	if sub.Status == "" {
		sub.Status = "active"
	}
	if sub.PeriodStart.IsZero() {
		sub.PeriodStart = now.Truncate(time.Second)
		sub.PeriodEnd = sub.PeriodStart.AddDate(0, 1, 0)
	}
	sub.created = now
	sub.Items = slices.Clone(sub.Items)
	for i := range sub.Items {
		sub.Items[i].charged = sub.Items[i].Price
	}
	s.subs[sub.ID] = &sub
	s.render(&sub, now)
	return sub.ID
}

// ChangeSubscription changes a subscription. It reports whether the subscription exists. Items
// without an ID are new.
func (s *Stripe) ChangeSubscription(id string, change func(*Subscription)) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.settle()
	sub := s.subs[id]
	if sub == nil {
		return false
	}
	change(sub)
	sub.ID = id
	s.render(sub, now)
	return true
}

// render updates a subscription's object.
func (s *Stripe) render(sub *Subscription, now time.Time) {
	metadata := object{}
	for name, text := range sub.Metadata {
		metadata[name] = text
	}
	if sub.Anchor.IsZero() {
		sub.Anchor = sub.PeriodStart
	}
	items := make([]any, len(sub.Items))
	for i := range sub.Items {
		item := &sub.Items[i]
		if item.ID == "" {
			item.ID = s.newID("si")
		}
		if item.charged == "" {
			item.created = now
		}
		if item.charged != item.Price {
			item.charged, item.since = item.Price, now
		}
		price := s.needPrice(item.Price, sub.created.Unix())
		o := object{
			"id": item.ID, "object": "subscription_item", "created": item.created.Unix(), "metadata": object{}, "price": price,
			"subscription": sub.ID,
		}
		if r, _ := price["recurring"].(object); r["usage_type"] != "metered" {
			o["quantity"] = item.Quantity
		}
		if sub.PeriodOnItems {
			o["current_period_start"], o["current_period_end"] = sub.PeriodStart.Unix(), sub.PeriodEnd.Unix()
		}
		items[i] = o
	}
	o := object{
		"id": sub.ID, "object": "subscription", "livemode": s.o.Livemode, "customer": sub.Customer, "status": sub.Status,
		"created":    sub.created.Unix(),
		"start_date": sub.created.Unix(), "billing_cycle_anchor": sub.Anchor.Unix(), "cancel_at": moment(sub.CancelAt),
		"cancel_at_period_end": sub.CancelAtPeriodEnd, "canceled_at": moment(sub.CanceledAt), "ended_at": moment(sub.EndedAt),
		"trial_end": moment(sub.TrialEnd),
		"metadata":  metadata, "currency": "usd", "collection_method": "charge_automatically", "latest_invoice": nil,
		"items": object{"object": "list", "url": "/v1/subscription_items?subscription=" + sub.ID, "has_more": false, "data": items},
	}
	if !sub.PeriodOnItems {
		o["current_period_start"], o["current_period_end"] = sub.PeriodStart.Unix(), sub.PeriodEnd.Unix()
	}
	s.kind("subscription").put(o)
}

// listSubscriptions leaves out canceled subscriptions unless they are requested.
// Source: https://docs.stripe.com/api/subscriptions/list.
func (s *Stripe) listSubscriptions(c *call) *answer {
	if id := c.form.Get("customer"); id != "" && s.kind("customer").by[id] == nil {
		return missing(http.StatusBadRequest, "customer", "customer", id)
	}
	matches := c.filter("customer")
	status, price := c.form.Get("status"), c.form.Get("price")
	switch status {
	case "", "all", "ended", "active", "canceled", "incomplete", "incomplete_expired", "past_due", "paused", "trialing", "unpaid":
	default:
		return invalid("", "status", "Invalid status: %s", status)
	}
	return s.list(c, s.kind("subscription").newest(func(o object) bool {
		sub := s.subs[o["id"].(string)]
		switch {
		case !matches(o):
			return false
		case status == "" && sub.Status == "canceled":
			return false
		case status == "ended" && sub.Status != "canceled" && sub.Status != "incomplete_expired":
			return false
		case status != "" && status != "all" && status != "ended" && status != sub.Status:
			return false
		}
		return price == "" || slices.ContainsFunc(sub.Items, func(i Item) bool { return i.Price == price })
	}))
}

func (s *Stripe) changeSubscription(c *call, _ object) *answer {
	sub := s.subs[c.id]
	if sub.Status == "canceled" {
		return refuse(http.StatusBadRequest, "resource_missing", "id",
			"A canceled subscription can only update its cancellation_details and metadata.")
	}
	change := c.change()
	items := slices.Clone(sub.Items)
	given, _ := change["items"].([]any)
	for _, each := range given {
		item, _ := each.(object)
		id, _ := item["id"].(string)
		i := slices.IndexFunc(items, func(i Item) bool { return i.ID == id })
		if id == "" {
			items = append(items, Item{})
			i = len(items) - 1
		}
		if i < 0 {
			return missing(http.StatusBadRequest, "items", "subscription item", id)
		}
		if item["deleted"] == true {
			items = slices.Delete(items, i, i+1)
			continue
		}
		if quantity, is := item["quantity"].(int64); is {
			items[i].Quantity = quantity
		}
		if price, is := item["price"].(string); is {
			if s.kind("price").by[price] == nil {
				return missing(http.StatusBadRequest, "items", "price", price)
			}
			items[i].Price = price
		}
		if price := s.kind("price").by[items[i].Price]; price != nil && metered(price) && item["quantity"] != nil {
			return refuse(http.StatusBadRequest, "", "items", "You cannot set the quantity of a metered price.")
		}
	}
	prices := map[string]bool{}
	for _, item := range items {
		if prices[item.Price] {
			return refuse(http.StatusBadRequest, "", "items", "Cannot add multiple subscription items with the same price: %s", item.Price)
		}
		prices[item.Price] = true
	}
	sub.Items = items
	if end, is := change["cancel_at_period_end"].(bool); is {
		sub.CancelAtPeriodEnd, sub.CancelAt, sub.CanceledAt = end, time.Time{}, time.Time{}
		if end {
			sub.CancelAt, sub.CanceledAt = sub.PeriodEnd, c.now
		}
	}
	if metadata, is := change["metadata"].(object); is {
		all := map[string]string{}
		for name, text := range sub.Metadata {
			all[name] = text
		}
		for name, text := range metadata {
			all[name], _ = text.(string)
			if text == "" {
				delete(all, name)
			}
		}
		sub.Metadata = all
	}
	s.render(sub, c.now)
	return nil
}
