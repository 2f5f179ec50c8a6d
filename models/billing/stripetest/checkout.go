package stripetest

import (
	"fmt"
	"net/http"
	"time"
)

// maxReference is the maximum length of a client_reference_id in bytes.
const maxReference = 200

func (s *Stripe) checkoutRoutes() []route {
	portal := []string{
		"business_profile[headline]", "business_profile[privacy_policy_url]", "business_profile[terms_of_service_url]", "default_return_url",
		"login_page[enabled]", "metadata[*]", "metadata",
		"features[customer_update][enabled]", "features[customer_update][allowed_updates][]", "features[customer_update][allowed_updates]",
		"features[invoice_history][enabled]", "features[payment_method_update][enabled]",
		"features[subscription_cancel][enabled]", "features[subscription_cancel][mode]", "features[subscription_cancel][proration_behavior]",
		"features[subscription_cancel][cancellation_reason][enabled]", "features[subscription_cancel][cancellation_reason][options][]",
		"features[subscription_update][enabled]", "features[subscription_update][default_allowed_updates][]",
		"features[subscription_update][default_allowed_updates]", "features[subscription_update][proration_behavior]",
		"features[subscription_update][products][][product]", "features[subscription_update][products][][prices][]",
		"features[subscription_update][products]", "features[subscription_pause][enabled]",
	}
	return []route{
		{
			pattern: "POST /v1/checkout/sessions",
			params: params([]string{
				"mode", "customer", "customer_email", "client_reference_id", "success_url", "cancel_url", "locale", "metadata[*]",
				"line_items[][price]", "line_items[][quantity]", "line_items[][adjustable_quantity][enabled]",
				"line_items[][adjustable_quantity][minimum]", "line_items[][adjustable_quantity][maximum]",
				"subscription_data[metadata][*]", "subscription_data[trial_period_days]", "subscription_data[description]",
				"allow_promotion_codes", "billing_address_collection", "automatic_tax[enabled]", "tax_id_collection[enabled]",
				"customer_update[address]", "customer_update[name]", "payment_method_collection", "expires_at",
			}),
			handle: s.createCheckout,
		},
		{pattern: "GET /v1/checkout/sessions", params: params(listParams, []string{"customer", "subscription", "status"}),
			handle: func(c *call) *answer {
				return s.list(c, s.kind("checkout.session").newest(c.filter("customer", "subscription", "status")))
			}},
		{pattern: "GET /v1/checkout/sessions/{id}", params: params(), handle: s.get("checkout.session", "checkout.session")},
		{pattern: "POST /v1/checkout/sessions/{id}/expire", params: params(), handle: s.withObject("checkout.session", "checkout.session",
			func(_ *call, o object) *answer {
				if o["status"] != "open" {
					return refuse(http.StatusBadRequest, "", "", "Only Checkout Sessions with a status in [\"open\"] can be expired.")
				}
				o["status"], o["url"] = "expired", nil
				return nil
			})},
		{pattern: "POST /v1/billing_portal/configurations", params: params(portal), handle: s.createPortal},
		{pattern: "GET /v1/billing_portal/configurations", params: params(listParams, []string{"active", "is_default"}),
			handle: func(c *call) *answer {
				return s.list(c, s.kind("portal").newest(c.filter("active", "is_default")))
			}},
		{pattern: "GET /v1/billing_portal/configurations/{id}", params: params(), handle: s.get("portal", "configuration")},
		{
			pattern: "POST /v1/billing_portal/configurations/{id}", params: params(portal, []string{"active"}),
			handle: s.withObject("portal", "configuration", func(c *call, o object) *answer {
				if a := s.portalPrices(c); a != nil {
					return a
				}
				o["updated"] = c.now.Unix()
				return update(c, o)
			}),
		},
		{
			pattern: "POST /v1/billing_portal/sessions", params: params([]string{"customer", "configuration", "return_url", "locale"}),
			handle: s.createPortalSession,
		},
	}
}

// createCheckout creates a Checkout session.
// Source: https://docs.stripe.com/api/checkout/sessions/create.
func (s *Stripe) createCheckout(c *call) *answer {
	if a := c.require("mode", "success_url"); a != nil {
		return a
	}
	if mode := c.form.Get("mode"); mode != "subscription" {
		return invalid("", "mode", "This stand-in supports mode=subscription, not %q.", mode)
	}
	customer := c.form.Get("customer")
	if customer != "" {
		if c.form.Get("customer_email") != "" {
			return invalid("", "customer_email", "You may only specify one of these parameters: customer, customer_email.")
		}
		if a := s.noCustomer(customer); a != nil {
			return a
		}
	}
	if len(c.form.Get("client_reference_id")) > maxReference {
		return invalid("parameter_invalid_string", "client_reference_id", "Invalid string: must be at most %d characters", maxReference)
	}
	change := c.change()
	lines, _ := change["line_items"].([]any)
	if len(lines) == 0 {
		return invalid("parameter_missing", "line_items", "The `line_items` parameter is required in subscription mode.")
	}
	data := make([]any, len(lines))
	recurring := false
	for i, each := range lines {
		line, _ := each.(object)
		id, _ := line["price"].(string)
		price := s.kind("price").by[id]
		if price == nil {
			return missing(http.StatusBadRequest, fmt.Sprintf("line_items[%d][price]", i), "price", id)
		}
		if price["active"] != true {
			return refuse(http.StatusBadRequest, "", fmt.Sprintf("line_items[%d][price]", i),
				"The price specified is inactive. This field only accepts active prices.")
		}
		r, _ := price["recurring"].(object)
		recurring = recurring || r != nil
		quantity, has := line["quantity"].(int64)
		switch param := fmt.Sprintf("line_items[%d][quantity]", i); {
		case r["usage_type"] == "metered" && has:
			return refuse(http.StatusBadRequest, "", param, "Quantity should not be specified where usage_type is `metered`.")
		case r["usage_type"] != "metered" && (!has || quantity < 1):
			return refuse(http.StatusBadRequest, "", param, "Quantity is required. Add `quantity` to `line_items[%d]`", i)
		}
		data[i] = object{"id": s.newID("li"), "object": "item", "price": price, "quantity": line["quantity"]}
	}
	if !recurring {
		return refuse(http.StatusBadRequest, "", "line_items", "You must provide at least one recurring price in `subscription` mode.")
	}
	id := s.newID("cs_test")
	if s.o.Livemode {
		id = s.newID("cs_live")
	}
	o := object{
		"id": id, "object": "checkout.session", "livemode": s.o.Livemode, "created": c.now.Unix(), "expires_at": c.now.Add(24 * time.Hour).Unix(),
		"mode": "subscription", "status": "open", "payment_status": "unpaid", "url": "https://checkout.stripe.com/c/pay/" + id,
		"customer": nil, "customer_email": nil, "client_reference_id": nil, "subscription": nil, "invoice": nil, "metadata": object{},
		"currency": "usd",
	}
	delete(change, "line_items")
	merge(o, change)
	o["line_items"] = object{"object": "list", "has_more": false, "url": "/v1/checkout/sessions/" + id + "/line_items", "data": data}
	s.kind("checkout.session").put(o)
	return s.one(c, o)
}

// CompleteCheckout pays an open Checkout session. It creates the subscription, and the customer if
// the session has none, and returns the subscription's ID. It returns "" if there is no such open
// session.
func (s *Stripe) CompleteCheckout(id string) (subscription string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.settle()
	o := s.kind("checkout.session").by[id]
	if o == nil || o["status"] != "open" {
		return ""
	}
	customer, _ := o["customer"].(string)
	if customer == "" {
		customer = s.newID("cus")
		s.addCustomer(customer, now)["email"] = o["customer_email"]
	}
	sub := Subscription{Customer: customer, Metadata: map[string]string{}}
	data, _ := o["subscription_data"].(object)
	metadata, _ := data["metadata"].(object)
	for name, text := range metadata {
		sub.Metadata[name], _ = text.(string)
	}
	if days, is := data["trial_period_days"].(int64); is && days > 0 {
		sub.Status = "trialing"
		sub.PeriodStart = now.Truncate(time.Second)
		sub.PeriodEnd = sub.PeriodStart.AddDate(0, 0, int(days))
		sub.TrialEnd, sub.Anchor = sub.PeriodEnd, sub.PeriodEnd
	}
	for _, each := range o["line_items"].(object)["data"].([]any) {
		line := each.(object)
		item := Item{Price: line["price"].(object)["id"].(string)}
		item.Quantity, _ = line["quantity"].(int64)
		sub.Items = append(sub.Items, item)
	}
	subscription = s.addSubscription(sub, now)
	o["customer"], o["subscription"], o["status"], o["payment_status"], o["url"] = customer, subscription, "complete", "paid", nil
	return subscription
}

func (s *Stripe) createPortal(c *call) *answer {
	change := c.change()
	features, _ := change["features"].(object)
	if len(features) == 0 {
		return invalid("parameter_missing", "features", "Missing required param: features.")
	}
	if a := s.portalPrices(c); a != nil {
		return a
	}
	o := object{
		"id": s.newID("bpc"), "object": "billing_portal.configuration", "active": true, "is_default": false, "livemode": s.o.Livemode,
		"created": c.now.Unix(), "updated": c.now.Unix(), "default_return_url": nil, "metadata": object{},
		"business_profile": object{"headline": nil, "privacy_policy_url": nil, "terms_of_service_url": nil},
		"login_page":       object{"enabled": false, "url": nil},
		"features": object{
			"customer_update": object{"enabled": false, "allowed_updates": []any{}}, "invoice_history": object{"enabled": false},
			"payment_method_update": object{"enabled": false},
			"subscription_cancel": object{
				"enabled": false, "mode": "at_period_end", "proration_behavior": "none",
				"cancellation_reason": object{"enabled": false, "options": []any{}},
			},
			"subscription_pause":  object{"enabled": false},
			"subscription_update": object{"enabled": false, "default_allowed_updates": []any{}, "proration_behavior": "none"},
		},
	}
	merge(o, change)
	return s.one(c, s.kind("portal").put(o))
}

// portalPrices refuses products and prices that do not exist.
func (s *Stripe) portalPrices(c *call) *answer {
	features, _ := c.change()["features"].(object)
	with, _ := features["subscription_update"].(object)
	products, _ := with["products"].([]any)
	for _, each := range products {
		p, _ := each.(object)
		id, _ := p["product"].(string)
		if s.kind("product").by[id] == nil {
			return missing(http.StatusBadRequest, "features[subscription_update][products]", "product", id)
		}
		prices, _ := p["prices"].([]any)
		for _, each := range prices {
			price, _ := each.(string)
			if o := s.kind("price").by[price]; o == nil || o["product"] != id {
				return missing(http.StatusBadRequest, "features[subscription_update][products]", "price", price)
			}
		}
	}
	return nil
}

// createPortalSession requires a configuration. A configuration made with the API is never the
// default one, which only the Dashboard saves.
func (s *Stripe) createPortalSession(c *call) *answer {
	if a := c.require("customer"); a != nil {
		return a
	}
	if a := s.noCustomer(c.form.Get("customer")); a != nil {
		return a
	}
	id := c.form.Get("configuration")
	conf := s.kind("portal").by[id]
	switch {
	case id == "":
		return refuse(http.StatusBadRequest, "", "", "No configuration provided and your default configuration has not been created.")
	case conf == nil:
		return missing(http.StatusBadRequest, "configuration", "configuration", id)
	case conf["active"] != true:
		return refuse(http.StatusBadRequest, "", "configuration", "The configuration %s is inactive.", id)
	}
	back := text(c.form.Get("return_url"))
	if back == nil {
		back = conf["default_return_url"]
	}
	session := s.newID("bps")
	return s.one(c, s.kind("portal.session").put(object{
		"id": session, "object": "billing_portal.session", "livemode": s.o.Livemode, "created": c.now.Unix(), "customer": c.form.Get("customer"),
		"configuration": id, "return_url": back, "url": "https://billing.stripe.com/p/session/" + session,
	}))
}
