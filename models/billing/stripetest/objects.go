package stripetest

import (
	"bytes"
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// whole reports whether a parameter is a number. Other values remain strings.
func whole(name string) bool {
	switch name {
	case "unit_amount", "quantity", "interval_count", "trial_period_days":
		return true
	}
	return false
}

// nested converts parameters such as a[b]=1 and c[0][d]=2 to an object. An empty string becomes
// nil: it unsets a field, as at Stripe.
func nested(form url.Values) object {
	tree := object{}
	for _, name := range slices.Sorted(maps.Keys(form)) {
		parts := strings.FieldsFunc(name, func(r rune) bool { return r == '[' || r == ']' })
		values := form[name]
		if strings.HasSuffix(name, "[]") {
			for i, v := range values {
				plant(tree, append(slices.Clone(parts), strconv.Itoa(i)), v)
			}
			continue
		}
		plant(tree, parts, values[0])
	}
	return listed(tree).(object)
}

func plant(tree object, parts []string, text string) {
	for _, part := range parts[:len(parts)-1] {
		next, is := tree[part].(object)
		if !is {
			next = object{}
			tree[part] = next
		}
		tree = next
	}
	name := parts[len(parts)-1]
	tree[name] = text
	if slices.Contains(parts[:len(parts)-1], "metadata") {
		return
	}
	switch n, err := strconv.ParseInt(text, 10, 64); {
	case err == nil && whole(name):
		tree[name] = n
	case text == "true", text == "false":
		tree[name] = text == "true"
	case text == "":
		tree[name] = nil
	}
}

// listed converts objects whose keys are indexes to lists.
func listed(v any) any {
	o, is := v.(object)
	if !is {
		return v
	}
	indexes := make([]int, 0, len(o))
	for key := range o {
		o[key] = listed(o[key])
		if i, err := strconv.Atoi(key); err == nil {
			indexes = append(indexes, i)
		}
	}
	if len(o) == 0 || len(indexes) < len(o) {
		return o
	}
	slices.Sort(indexes)
	list := make([]any, len(indexes))
	for i, index := range indexes {
		list[i] = o[strconv.Itoa(index)]
	}
	return list
}

// merge changes an object according to parameters. It replaces lists and plain values, merges
// objects, and removes metadata keys with an empty value.
func merge(o, change object) {
	for key, v := range change {
		old, isObject := o[key].(object)
		with, withObject := v.(object)
		switch {
		case key == "metadata" && withObject:
			if !isObject {
				old = object{}
				o[key] = old
			}
			for name, text := range with {
				old[name] = text
				if text == "" {
					delete(old, name)
				}
			}
		case isObject && withObject:
			merge(old, with)
		default:
			o[key] = v
		}
	}
}

// clone returns a deep copy, with the types that JSON decodes to.
func clone(o object) object {
	text, err := json.Marshal(o)
	if err != nil {
		// Objects consist of strings, numbers, maps and lists.
		panic(err)
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var again object
	if err := d.Decode(&again); err != nil {
		panic(err)
	}
	return again
}

// find returns the object with an ID, of any kind, or nil.
func (s *Stripe) find(id string) object {
	for _, c := range s.objects {
		if o := c.by[id]; o != nil {
			return o
		}
	}
	return nil
}

// Object returns a copy of the object with an ID, as a webhook has it, or nil.
func (s *Stripe) Object(id string) map[string]any {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settle()
	o := s.find(id)
	if o == nil {
		return nil
	}
	return hide(clone(o)).(object)
}

// hide removes fields that are shown only on request or only once.
func hide(v any) any {
	switch v := v.(type) {
	case object:
		switch v["object"] {
		case "webhook_endpoint":
			delete(v, "secret")
		case "checkout.session":
			delete(v, "line_items")
			delete(v, "subscription_data")
		}
		for key := range v {
			v[key] = hide(v[key])
		}
	case []any:
		for i := range v {
			v[i] = hide(v[i])
		}
	}
	return v
}

// one answers with an object, expanded as the call requests.
func (s *Stripe) one(c *call, o object) *answer {
	shown := hide(clone(o)).(object)
	for _, path := range c.expansions() {
		if !s.expand(shown, strings.Split(path, ".")) {
			return invalid("", "expand", "This property cannot be expanded (%s).", path)
		}
	}
	return ok(shown)
}

// list answers with a page of objects, expanded as the call requests.
func (s *Stripe) list(c *call, all []object) *answer {
	data, more, a := c.cut(all)
	if a != nil {
		return a
	}
	shown := make([]object, len(data))
	for i, o := range data {
		shown[i] = hide(clone(o)).(object)
		for _, path := range c.expansions() {
			below, is := strings.CutPrefix(path, "data.")
			if !is || !s.expand(shown[i], strings.Split(below, ".")) {
				return invalid("", "expand", "This property cannot be expanded (%s).", path)
			}
		}
	}
	return ok(object{"object": "list", "url": c.path, "has_more": more, "data": shown})
}

// expansions returns the paths that a call wants expanded.
func (c *call) expansions() []string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(c.form)) {
		if strings.HasPrefix(name, "expand[") {
			all = append(all, c.form[name]...)
		}
	}
	return all
}

// expand replaces IDs with objects, and adds fields that are shown only on request.
func (s *Stripe) expand(o object, path []string) bool {
	key := path[0]
	value, there := o[key]
	id, _ := o["id"].(string)
	switch {
	case !there && o["object"] == "customer" && key == "subscriptions":
		subs := s.kind("subscription").newest(func(sub object) bool { return sub["customer"] == id && sub["status"] != "canceled" })
		o[key] = hide(clone(object{"object": "list", "url": "/v1/customers/" + id + "/subscriptions", "has_more": false, "data": subs}))
	case !there && o["object"] == "checkout.session" && key == "line_items":
		o[key] = hide(clone(s.find(id)["line_items"].(object)))
	case !there:
		return false
	}
	switch v := value.(type) {
	case string:
		found := s.find(v)
		if found == nil {
			return false
		}
		o[key] = hide(clone(found))
	case nil:
		// An unset field cannot be expanded any further.
		if there {
			return true
		}
	}
	if len(path) == 1 {
		return true
	}
	switch below := o[key].(type) {
	case object:
		return s.expand(below, path[1:])
	case []any:
		for _, each := range below {
			if inner, is := each.(object); !is || !s.expand(inner, path[1:]) {
				return false
			}
		}
		return true
	}
	return false
}

// get answers with an object of a kind. what is its name in errors.
func (s *Stripe) get(kind, what string) func(*call) *answer {
	return s.withObject(kind, what, nil)
}

// withObject answers with an object of a kind after change, which may be nil and may refuse.
func (s *Stripe) withObject(kind, what string, change func(*call, object) *answer) func(*call) *answer {
	return func(c *call) *answer {
		o := s.kind(kind).by[c.id]
		if o == nil {
			return missing(http.StatusNotFound, "id", what, c.id)
		}
		if change != nil {
			if a := change(c, o); a != nil {
				return a
			}
		}
		// The change may have replaced the object.
		return s.one(c, s.kind(kind).by[c.id])
	}
}

// change returns the parameters as an object, without those that concern only the answer.
func (c *call) change() object {
	tree := nested(c.form)
	delete(tree, "expand")
	return tree
}

// update merges the parameters into an object.
func update(c *call, o object) *answer {
	merge(o, c.change())
	return nil
}

// filter returns a function that matches objects by parameters with the fields' names. A missing
// parameter matches all objects.
func (c *call) filter(fields ...string) func(object) bool {
	want := c.change()
	return func(o object) bool {
		for _, field := range fields {
			if w, given := want[field]; given && o[field] != w {
				return false
			}
		}
		return true
	}
}

// params joins lists of parameters, and adds expand[].
func params(lists ...[]string) []string {
	return append(slices.Concat(lists...), "expand[]")
}
