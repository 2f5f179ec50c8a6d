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

// object is one of Stripe's, as its JSON has it.
type object = map[string]any

// route is a method and path, with {id} for one segment, and the parameters that it takes: Stripe refuses others.
type route struct {
	pattern string
	// params are names as Stripe's documents write them: "payload[*]" takes every key, "items[][price]" every index.
	params []string
	handle func(*call) *answer
}

// call is one request that has come as far as its effect.
type call struct {
	id, path string
	form     url.Values
	now      time.Time
	dropped  bool
}

// route finds whose request it is.
func (s *Stripe) route(r *http.Request) (*route, string) {
	got := strings.Split(r.URL.Path, "/")
	for i := range s.routes {
		method, path, _ := strings.Cut(s.routes[i].pattern, " ")
		want := strings.Split(path, "/")
		if method != r.Method || len(want) != len(got) {
			continue
		}
		id, fits := "", true
		for j := range want {
			if want[j] == "{id}" {
				id = got[j]
			} else if want[j] != got[j] {
				fits = false
			}
		}
		if fits {
			return &s.routes[i], id
		}
	}
	return &route{pattern: "other", params: []string{"*"}, handle: func(*call) *answer {
		return refuse(http.StatusNotFound, "", "", "Unrecognized request URL (%s: %s).", r.Method, r.URL.Path)
	}}, ""
}

// index is an index of a list, in the ways that clients write one.
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

// answer is what is sent back.
type answer struct {
	status int
	body   any
	// html sends a page instead of the body.
	html bool
	// invalid says that the request never began, so that no Idempotency-Key keeps it.
	invalid bool
	// replayed says that an Idempotency-Key had it.
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
		// Every body is made of strings, numbers, maps and lists here.
		panic(err)
	}
	w.WriteHeader(a.status)
	_, _ = w.Write(body)
}

// ok answers with an object as it is now.
func ok(o object) *answer {
	// What is kept may change after the lock is gone, and what is answered may not.
	body, err := json.Marshal(o)
	if err != nil {
		panic(err)
	}
	return &answer{status: http.StatusOK, body: json.RawMessage(body)}
}

// refuse is one of Stripe's errors; code and param may be empty.
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

// missing says that a parameter names something that is not there.
func missing(status int, param, what, id string) *answer {
	return refuse(status, "resource_missing", param, "No such %s: '%s'", what, id)
}

// lockTimeout says that another request has the object.
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

// require says which of the parameters is not there, or nil.
func (c *call) require(names ...string) *answer {
	for _, name := range names {
		if c.form.Get(name) == "" {
			return invalid("parameter_missing", name, "Missing required param: %s.", name)
		}
	}
	return nil
}

// seconds reads a time, which is a default when the parameter is not there.
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

// listParams are those of every list.
var listParams = []string{"limit", "starting_after", "ending_before"}

// cut is the page that a call asks for of a list that is in order, newest first, and whether there is more.
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
		// The page is the one that ends there, so it is cut at its beginning.
		return all[max(0, i-limit):i], i > limit, nil
	}
	if len(data) > limit {
		return data[:limit], true, nil
	}
	return data, false, nil
}

// collection is the objects of one kind, in the order in which they were made.
type collection struct {
	order []string
	by    map[string]object
}

// kind is a collection, which may be empty.
func (s *Stripe) kind(name string) *collection {
	c := s.objects[name]
	if c == nil {
		c = &collection{by: map[string]object{}}
		s.objects[name] = c
	}
	return c
}

// put adds an object, or puts it in the place of the one with its id.
func (c *collection) put(o object) object {
	id, _ := o["id"].(string)
	if c.by[id] == nil {
		c.order = append(c.order, id)
	}
	c.by[id] = o
	return o
}

// remove takes an object away.
func (c *collection) remove(id string) {
	delete(c.by, id)
	c.order = slices.DeleteFunc(c.order, func(other string) bool { return other == id })
}

// newest are the objects that fit, the newest first; nil fits all.
func (c *collection) newest(fits func(object) bool) []object {
	var all []object
	for _, id := range slices.Backward(c.order) {
		if o := c.by[id]; fits == nil || fits(o) {
			all = append(all, o)
		}
	}
	return all
}
