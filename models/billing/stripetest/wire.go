package stripetest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// object is a Stripe object, decoded from JSON.
type object = map[string]any

// route is a method and path, with {id} for one segment, and its parameters. Stripe refuses others.
type route struct {
	pattern string
	// params are names as in Stripe's documentation: "payload[*]" allows every key,
	// "items[][price]" every index.
	params []string
	handle func(*call) *answer
}

// call is one request at the time of its effect.
type call struct {
	id, path string
	form     url.Values
	now      time.Time
	dropped  bool
}

// route returns a request's route, and the ID in its path.
func (s *Stripe) route(r *http.Request) (*route, string) {
	got := strings.Split(r.URL.Path, "/")
	for i := range s.routes {
		method, path, _ := strings.Cut(s.routes[i].pattern, " ")
		want := strings.Split(path, "/")
		if method != r.Method || len(want) != len(got) {
			continue
		}
		id, matches := "", true
		for j := range want {
			if want[j] == "{id}" {
				id = got[j]
			} else if want[j] != got[j] {
				matches = false
			}
		}
		if matches {
			return &s.routes[i], id
		}
	}
	return &route{pattern: "other", params: []string{"*"}, handle: func(*call) *answer {
		return refuse(http.StatusNotFound, "", "", "Unrecognized request URL (%s: %s).", r.Method, r.URL.Path)
	}}, ""
}

// index matches an index of a list, in the forms that clients write.
var index = regexp.MustCompile(`\[\d*\]`)

// run checks the parameters' names and answers.
func (rt *route) run(c *call) *answer {
	names := make([]string, 0, len(c.form))
	for name := range c.form {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		plain := index.ReplaceAllString(name, "[]")
		if !slices.ContainsFunc(rt.params, func(p string) bool {
			before, every := strings.CutSuffix(p, "*]")
			return p == "*" || p == plain || (every && strings.HasPrefix(plain, before) && strings.HasSuffix(plain, "]"))
		}) {
			return invalid("parameter_unknown", name, "Received unknown parameter: %s", name)
		}
	}
	return rt.handle(c)
}

// answer is a response.
type answer struct {
	status int
	body   any
	// html sends a page instead of the body.
	html bool
	// invalid means that the request never began, so no Idempotency-Key stores it.
	invalid bool
	// replayed means that the answer was stored under an Idempotency-Key.
	replayed bool
}

func (a *answer) write(w http.ResponseWriter) {
	if a.html {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.WriteHeader(a.status)
		fmt.Fprint(w, "<!doctype html><title>Please wait</title><p>Please wait.\n")
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if a.replayed {
		w.Header().Set("Idempotent-Replayed", "true")
	}
	body, err := json.Marshal(a.body)
	if err != nil {
		// Bodies consist of strings, numbers, maps and lists.
		panic(err)
	}
	w.WriteHeader(a.status)
	_, _ = w.Write(body)
}

// ok answers with an object in its current state.
func ok(o object) *answer {
	// The object may change after the lock is released; the answer must not.
	body, err := json.Marshal(o)
	if err != nil {
		panic(err)
	}
	return &answer{status: http.StatusOK, body: json.RawMessage(body)}
}

// refuse returns an error of Stripe's. code and param may be empty.
func refuse(status int, code, param, format string, args ...any) *answer {
	e := object{"type": "invalid_request_error", "message": fmt.Sprintf(format, args...)}
	if code != "" {
		e["code"] = code
	}
	if param != "" {
		e["param"] = param
	}
	return &answer{status: status, body: object{"error": e}}
}

// invalid refuses parameters.
func invalid(code, param, format string, args ...any) *answer {
	a := refuse(http.StatusBadRequest, code, param, format, args...)
	a.invalid = true
	return a
}

// kind changes the type of an error.
func (a *answer) kind(t string) { a.body.(object)["error"].(object)["type"] = t }

// missing refuses a parameter that names an unknown object.
func missing(status int, param, what, id string) *answer {
	return refuse(status, "resource_missing", param, "No such %s: '%s'", what, id)
}

// lockTimeout refuses a request because another one is using the object.
func lockTimeout(status int) *answer {
	return refuse(status, "lock_timeout", "", "This object cannot be accessed right now because another API request or Stripe "+
		"process is currently accessing it.")
}

func unknownError() *answer {
	a := refuse(http.StatusInternalServerError, "", "", "An unknown error occurred.")
	a.kind("api_error")
	return a
}

func html() *answer { return &answer{status: http.StatusOK, html: true} }

// require refuses a call without one of the parameters. It returns nil if none is missing.
func (c *call) require(names ...string) *answer {
	for _, name := range names {
		if c.form.Get(name) == "" {
			return invalid("parameter_missing", name, "Missing required param: %s.", name)
		}
	}
	return nil
}

// seconds reads a time. If the parameter is missing, it returns otherwise.
func (c *call) seconds(name string, otherwise int64) (int64, *answer) {
	text := c.form.Get(name)
	if text == "" {
		return otherwise, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0, invalid("parameter_invalid_integer", name, "Invalid integer: %s", text)
	}
	return n, nil
}

// listParams are the parameters of every list.
var listParams = []string{"limit", "starting_after", "ending_before"}

// cut returns the page that a call requests of a list, newest first, and whether there is more.
func (c *call) cut(all []object) (data []object, more bool, a *answer) {
	limit := 10
	if text := c.form.Get("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > 100 {
			return nil, false, invalid("parameter_invalid_integer", "limit", "This value must be between 1 and 100.")
		}
		limit = n
	}
	at := func(param string) (int, *answer) {
		id := c.form.Get(param)
		i := slices.IndexFunc(all, func(o object) bool { return o["id"] == id })
		if i < 0 {
			return 0, missing(http.StatusBadRequest, param, "object", id)
		}
		return i, nil
	}
	data = all
	switch {
	case c.form.Get("starting_after") != "":
		i, a := at("starting_after")
		if a != nil {
			return nil, false, a
		}
		data = all[i+1:]
	case c.form.Get("ending_before") != "":
		i, a := at("ending_before")
		if a != nil {
			return nil, false, a
		}
		// The page ends there, so it is shortened at its start.
		return all[max(0, i-limit):i], i > limit, nil
	}
	if len(data) > limit {
		return data[:limit], true, nil
	}
	return data, false, nil
}

// collection has the objects of one kind in the order of their creation.
type collection struct {
	order []string
	by    map[string]object
}

// kind returns the collection of a kind, which may be empty.
func (s *Stripe) kind(name string) *collection {
	c := s.objects[name]
	if c == nil {
		c = &collection{by: map[string]object{}}
		s.objects[name] = c
	}
	return c
}

// put adds an object, or replaces the one with its ID.
func (c *collection) put(o object) object {
	id, _ := o["id"].(string)
	if c.by[id] == nil {
		c.order = append(c.order, id)
	}
	c.by[id] = o
	return o
}

// remove removes an object.
func (c *collection) remove(id string) {
	delete(c.by, id)
	c.order = slices.DeleteFunc(c.order, func(other string) bool { return other == id })
}

// newest returns the matching objects, newest first. If matches is nil, it returns all.
func (c *collection) newest(matches func(object) bool) []object {
	var all []object
	for _, id := range slices.Backward(c.order) {
		if o := c.by[id]; matches == nil || matches(o) {
			all = append(all, o)
		}
	}
	return all
}
