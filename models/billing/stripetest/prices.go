package stripetest

import (
	"net/http"
	"slices"
	"strconv"
)

// maxLookupKeys is the maximum number of lookup keys in a request for a list.
const maxLookupKeys = 10

func (s *Stripe) priceRoutes() []route {
	product := []string{"name", "description", "active", "metadata[*]", "metadata", "unit_label", "statement_descriptor", "tax_code", "url"}
	price := []string{"active", "nickname", "lookup_key", "transfer_lookup_key", "metadata[*]", "metadata", "tax_behavior"}
	amounts := []string{
		"currency", "product", "unit_amount", "unit_amount_decimal", "billing_scheme",
		"recurring[interval]", "recurring[interval_count]", "recurring[usage_type]", "recurring[aggregate_usage]", "recurring[meter]",
	}
	return []route{
		{pattern: "POST /v1/products", params: params(product, []string{"id"}), handle: s.createProduct},
		{pattern: "GET /v1/products", params: params(listParams, []string{"active", "ids[]"}), handle: s.listProducts},
		{pattern: "GET /v1/products/{id}", params: params(), handle: s.get("product", "product")},
		{
			pattern: "POST /v1/products/{id}", params: params(product, []string{"default_price"}),
			handle: s.withObject("product", "product", func(c *call, o object) *answer {
				if id := c.form.Get("default_price"); id != "" && s.kind("price").by[id] == nil {
					return missing(http.StatusBadRequest, "default_price", "price", id)
				}
				o["updated"] = c.now.Unix()
				return update(c, o)
			}),
		},
		{pattern: "DELETE /v1/products/{id}", handle: s.deleteProduct},
		{pattern: "POST /v1/prices", params: params(price, amounts), handle: s.createPrice},
		{
			pattern: "GET /v1/prices",
			params: params(listParams, []string{
				"active", "currency", "product", "type", "lookup_keys[]", "recurring[interval]", "recurring[meter]", "recurring[usage_type]",
			}),
			handle: s.listPrices,
		},
		{pattern: "GET /v1/prices/{id}", params: params(), handle: s.get("price", "price")},
		{pattern: "POST /v1/prices/{id}", params: params(price), handle: s.withObject("price", "price", func(c *call, o object) *answer {
			change := c.change()
			delete(change, "transfer_lookup_key")
			if a := s.takeLookupKey(c, c.id); a != nil {
				return a
			}
			merge(o, change)
			return nil
		})},
	}
}

func (s *Stripe) createProduct(c *call) *answer {
	if a := c.require("name"); a != nil {
		return a
	}
	id := c.form.Get("id")
	if id == "" {
		id = s.newID("prod")
	} else if s.kind("product").by[id] != nil {
		return refuse(http.StatusBadRequest, "resource_already_exists", "id", "Product already exists.")
	}
	o := s.kind("product").put(object{
		"id": id, "object": "product", "active": true, "created": c.now.Unix(), "updated": c.now.Unix(), "livemode": s.o.Livemode,
		"description": nil, "default_price": nil, "metadata": object{}, "unit_label": nil, "type": "service",
	})
	merge(o, c.change())
	return s.one(c, o)
}

func (s *Stripe) listProducts(c *call) *answer {
	matches := c.filter("active")
	ids, _ := c.change()["ids"].([]any)
	return s.list(c, s.kind("product").newest(func(o object) bool {
		return matches(o) && (ids == nil || slices.Contains(ids, o["id"]))
	}))
}

func (s *Stripe) deleteProduct(c *call) *answer {
	products := s.kind("product")
	if products.by[c.id] == nil {
		return missing(http.StatusNotFound, "id", "product", c.id)
	}
	if len(s.kind("price").newest(func(p object) bool { return p["product"] == c.id })) > 0 {
		return refuse(http.StatusBadRequest, "", "", "This product cannot be deleted because it has one or more user-created prices.")
	}
	products.remove(c.id)
	return ok(object{"id": c.id, "object": "product", "deleted": true})
}

// takeLookupKey ensures that no other price has the lookup key of a call. An archived price keeps
// its own key.
func (s *Stripe) takeLookupKey(c *call, id string) *answer {
	key := c.form.Get("lookup_key")
	if key == "" {
		return nil
	}
	for _, o := range s.kind("price").newest(func(o object) bool { return o["lookup_key"] == key && o["id"] != id }) {
		if c.form.Get("transfer_lookup_key") != "true" {
			return refuse(http.StatusBadRequest, "", "lookup_key", "A price (`%s`) already uses that lookup key.", o["id"])
		}
		o["lookup_key"] = nil
	}
	return nil
}

// createPrice creates a price. Its amounts never change.
// Source: https://docs.stripe.com/api/prices/create.
func (s *Stripe) createPrice(c *call) *answer {
	if a := c.require("currency", "product"); a != nil {
		return a
	}
	change := c.change()
	if id := c.form.Get("product"); s.kind("product").by[id] == nil {
		return missing(http.StatusBadRequest, "product", "product", id)
	}
	o := object{
		"object": "price", "active": true, "billing_scheme": "per_unit", "created": c.now.Unix(), "livemode": s.o.Livemode,
		"lookup_key": nil, "nickname": nil, "metadata": object{}, "recurring": nil, "tax_behavior": "unspecified", "tiers_mode": nil,
		"transform_quantity": nil, "custom_unit_amount": nil, "type": "one_time", "unit_amount": nil, "unit_amount_decimal": nil,
	}
	if a := s.recurring(change, o); a != nil {
		return a
	}
	if scheme := c.form.Get("billing_scheme"); scheme != "" && scheme != "per_unit" {
		return invalid("", "billing_scheme", "This stand-in creates prices with billing_scheme=per_unit, not %q; see AddPrice.", scheme)
	}
	if c.form.Get("unit_amount") == "" && c.form.Get("unit_amount_decimal") == "" {
		return invalid("parameter_missing", "unit_amount", "Prices require an unit_amount or unit_amount_decimal.")
	}
	if a := decimals(change); a != nil {
		return a
	}
	if a := s.takeLookupKey(c, ""); a != nil {
		return a
	}
	delete(change, "transfer_lookup_key")
	o["id"] = s.newID("price")
	merge(o, change)
	s.kind("price").put(o)
	return s.one(c, o)
}

// recurring reads the interval and the meter of a price.
func (s *Stripe) recurring(change, o object) *answer {
	r, is := change["recurring"].(object)
	delete(change, "recurring")
	if !is {
		return nil
	}
	made := object{
		"aggregate_usage": nil, "interval": nil, "interval_count": int64(1), "meter": nil, "trial_period_days": nil, "usage_type": "licensed",
	}
	merge(made, r)
	switch made["interval"] {
	case "day", "week", "month", "year":
	default:
		return invalid("", "recurring[interval]", "Invalid recurring[interval]: must be one of day, month, week, or year")
	}
	switch made["usage_type"] {
	case "licensed", "metered":
	default:
		return invalid("", "recurring[usage_type]", "Invalid recurring[usage_type]: must be one of licensed or metered")
	}
	if id, has := made["meter"].(string); has {
		m := s.kind("meter").by[id]
		switch {
		case made["usage_type"] != "metered":
			return invalid("", "recurring[meter]", "A meter needs recurring[usage_type]=metered.")
		case made["aggregate_usage"] != nil:
			return invalid("", "recurring[aggregate_usage]", "A price with a meter takes no aggregate_usage.")
		case m == nil:
			return missing(http.StatusBadRequest, "recurring[meter]", "billing meter", id)
		case m["status"] != "active":
			return refuse(http.StatusBadRequest, "", "recurring[meter]", "The meter %s is inactive.", id)
		}
	}
	o["type"], o["recurring"] = "recurring", made
	return nil
}

// decimals adds the other form of a price's amount, of which one is given.
func decimals(o object) *answer {
	if text, is := o["unit_amount_decimal"].(string); is {
		f, err := strconv.ParseFloat(text, 64)
		if err != nil || f < 0 {
			return invalid("parameter_invalid_integer", "unit_amount_decimal", "Invalid decimal: %s", text)
		}
		if n := int64(f); float64(n) == f {
			o["unit_amount"] = n
		}
		return nil
	}
	n, is := o["unit_amount"].(int64)
	if !is || n < 0 {
		return invalid("parameter_invalid_integer", "unit_amount", "Invalid integer: %v", o["unit_amount"])
	}
	o["unit_amount_decimal"] = strconv.FormatInt(n, 10)
	return nil
}

func (s *Stripe) listPrices(c *call) *answer {
	want := c.change()
	matches := c.filter("active", "currency", "product", "type")
	keys, _ := want["lookup_keys"].([]any)
	if len(keys) > maxLookupKeys {
		return invalid("", "lookup_keys", "You can request up to %d lookup keys.", maxLookupKeys)
	}
	recurring, _ := want["recurring"].(object)
	return s.list(c, s.kind("price").newest(func(o object) bool {
		if !matches(o) || (keys != nil && !slices.Contains(keys, o["lookup_key"])) {
			return false
		}
		r, _ := o["recurring"].(object)
		for name, v := range recurring {
			if r[name] != v {
				return false
			}
		}
		return true
	}))
}

// Price is a price for AddPrice: a monthly price that was made by hand or by an earlier release.
type Price struct {
	// ID is generated if it is empty, and so is the product.
	ID, Product, LookupKey string
	// Currency is the currency; empty means usd.
	Currency string
	// Meter is the ID of the meter of a metered price; it is empty for a licensed one.
	Meter string
	// Cents is the price of a unit. It may have decimals.
	Cents float64
	// Tiered means that the price has graduated tiers, which are not specified.
	Tiered   bool
	Metadata map[string]string
}

// AddPrice adds a price and returns its ID.
func (s *Stripe) AddPrice(p Price) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.settle().Unix()
	if p.ID == "" {
		p.ID = s.newID("price")
	}
	o := s.needPrice(p.ID, now)
	o["lookup_key"] = text(p.LookupKey)
	if p.Product != "" {
		o["product"] = p.Product
	}
	if p.Currency != "" {
		o["currency"] = p.Currency
	}
	for name, text := range p.Metadata {
		o["metadata"].(object)[name] = text
	}
	if p.Meter != "" {
		o["recurring"] = object{"interval": "month", "interval_count": int64(1), "usage_type": "metered", "meter": p.Meter}
	}
	o["unit_amount"], o["unit_amount_decimal"] = nil, nil
	if p.Tiered {
		o["billing_scheme"], o["tiers_mode"] = "tiered", "graduated"
		return p.ID
	}
	o["unit_amount_decimal"] = strconv.FormatFloat(p.Cents, 'f', -1, 64)
	if n := int64(p.Cents); float64(n) == p.Cents {
		o["unit_amount"] = n
	}
	return p.ID
}

// needPrice returns a price. It creates a missing one with its product: a monthly price of 0.
func (s *Stripe) needPrice(id string, created int64) object {
	if o := s.kind("price").by[id]; o != nil {
		return o
	}
	product := "prod_of_" + id
	s.kind("product").put(object{
		"id": product, "object": "product", "active": true, "created": created, "updated": created, "livemode": s.o.Livemode, "name": id,
		"description": nil, "default_price": nil, "metadata": object{}, "unit_label": nil, "type": "service",
	})
	return s.kind("price").put(object{
		"id": id, "object": "price", "active": true, "billing_scheme": "per_unit", "created": created, "currency": "usd",
		"livemode":   s.o.Livemode,
		"lookup_key": nil, "nickname": nil, "metadata": object{}, "product": product, "type": "recurring",
		"recurring":   object{"interval": "month", "interval_count": int64(1), "usage_type": "licensed", "meter": nil},
		"unit_amount": int64(0), "unit_amount_decimal": "0",
	})
}
