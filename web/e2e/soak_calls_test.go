//go:build linux

package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"time"
)

// caller is a client of the API, with its open holds.
type caller struct {
	*world
	name  string
	turns int
	holds []openHold
}

type openHold struct {
	id       string
	who      *someone
	quantity int64
	short    bool
	answered time.Time
}

func (c *caller) run(ctx context.Context) {
	for ; c.turns < soakTurns && ctx.Err() == nil && !c.t.Failed(); c.turns++ {
		what, do := c.pick()
		if err := do(); err != nil {
			c.t.Errorf("%s: %s: %v", c.name, what, err)
		}
		c.count(what)
		pause(ctx, rand.N(c.pace))
	}
	for _, h := range c.holds {
		if !h.short {
			h.who.held.Add(h.quantity)
		}
	}
}

func (c *caller) pick() (what string, do func() error) {
	switch n := rand.IntN(100); {
	case n < 35:
		return "consume", c.consume
	case n < 50:
		return "check", func() error { return c.look(http.MethodPost, "/v1/check") }
	case n < 58:
		return "usage", func() error { return c.look(http.MethodGet, "/v1/usage/") }
	case n < 66:
		return "hold", c.hold
	case n < 76:
		return "close a hold", c.closeHold
	case n < 84:
		return "events", c.events
	case n < 89:
		return "history", c.history
	case n < 92:
		return "organization", c.organizationUsage
	case n < 97:
		return "consume again", c.consumeAgain
	case n < 99:
		return "key reused", c.reuseKey
	default:
		return "unknown user", c.unknownUser
	}
}

func (c *caller) insistOn(method, path string, content any) *reply {
	return c.client.insist(c.t.Context(), c.addresses(), rand.IntN(len(c.servers)), method, path, content)
}

func (c *caller) post(path string, content any) *reply {
	return c.insistOn(http.MethodPost, path, content)
}

// name adds the person to a request by email, by Slack identity, or by both.
func (p *someone) name(team string, more body) body {
	way := 0
	if p.slack != "" {
		way = rand.IntN(3)
	}
	if way < 2 {
		more["email"] = p.email
	}
	if way > 0 {
		more["slack_team_id"], more["slack_user_id"] = team, p.slack
	}
	return more
}

// key returns an idempotency key that no other call uses.
func (c *caller) key(n int) string { return fmt.Sprintf("%s-%d-%d", c.name, c.turns, n) }

// wrong returns an error if a decision about the person is invalid.
func (p *someone) wrong(d *decision) error {
	switch {
	case d.Email != p.email || d.Plan != p.plan:
		return fmt.Errorf("about %s on the plan %s: %+v", p.email, p.plan, d)
	case p.plan == "free" && d.Used+d.Held > d.Included:
		return fmt.Errorf("above a hard cap: %+v", d)
	case p.plan != "free" && !d.Allowed:
		return fmt.Errorf("refused on the plan %s: %+v", p.plan, d)
	case !d.Allowed && (d.Reason == nil || *d.Reason != "included_exhausted"):
		return fmt.Errorf("refused without its reason: %+v", d)
	}
	return nil
}

func (c *caller) consume() error {
	p, quantity, key := c.anyone(), int64(1+rand.IntN(3)), c.key(0)
	p.atMost.Add(quantity)
	r := c.post("/v1/consume", p.name(c.team, body{"quantity": quantity, "idempotency_key": key}))
	d, err := r.decision()
	if err = errors.Join(err, p.wrong(&d)); err != nil {
		return err
	}
	if !d.Allowed {
		p.atMost.Add(-quantity)
		return nil
	}
	if d.EventID == nil || d.Replayed && !r.again {
		return fmt.Errorf("%s: %+v", key, d)
	}
	p.atLeast.Add(quantity)
	c.record(key, grant{*d.EventID, p.email, quantity}, d.Replayed)
	return nil
}

// look reads a person's usage. It must be at least what earlier calls were answered, and at most
// what was requested.
func (c *caller) look(method, path string) error {
	p, content := c.anyone(), any(nil)
	if method == http.MethodPost {
		content = p.name(c.team, body{})
	} else {
		path += p.email
	}
	least := p.atLeast.Load()
	d, err := c.insistOn(method, path, content).decision()
	if most := p.atMost.Load(); err == nil && c.sameMonth(d.Period.Start) && (d.Used < least || d.Used > most) {
		err = fmt.Errorf("%s used %d, want from %d to %d", p.email, d.Used, least, most)
	}
	return errors.Join(err, p.wrong(&d))
}

// sameMonth reports whether a billing period is the one in which the soak began. The test counts
// its units, unless clocks jump.
func (w *world) sameMonth(start time.Time) bool {
	return !w.jumps && start.Month() == w.begun.UTC().Month() && start.Year() == w.begun.UTC().Year()
}

func (c *caller) hold() error {
	p, quantity, key := c.anyone(), int64(1+rand.IntN(3)), c.key(0)
	short, ttl := !c.jumps && rand.IntN(5) == 0, 3600
	if short {
		ttl = 1
	}
	r := c.post("/v1/holds", p.name(c.team, body{"quantity": quantity, "idempotency_key": key, "ttl_seconds": ttl}))
	d, err := r.decision()
	if err = errors.Join(err, p.wrong(&d)); err != nil || !d.Allowed {
		return err
	}
	if d.Hold == nil || d.Hold.Quantity != quantity || d.Hold.State != "open" && (!short && !c.jumps || !r.again) {
		return fmt.Errorf("%s: %+v", key, d)
	}
	c.holds = append(c.holds, openHold{d.Hold.ID, p, quantity, short, time.Now()})
	return nil
}

// closeHold settles or releases the oldest hold.
func (c *caller) closeHold() error {
	if len(c.holds) == 0 {
		return nil
	}
	h := c.holds[0]
	address := "/v1/holds/" + h.id
	switch {
	case h.short && time.Since(h.answered) < lapses:
		return nil
	case h.short:
		c.holds = c.holds[1:]
		return c.wantProblem(http.StatusConflict, "hold_expired", address+"/settle", body{"quantity": h.quantity})
	case !c.jumps && rand.IntN(3) == 0:
		c.holds = c.holds[1:]
		for range 1 + rand.IntN(2) {
			d, err := c.post(address+"/release", nil).decision()
			if err != nil || d.Hold == nil || d.Hold.State != "released" {
				return fmt.Errorf("release: %+v, %w", d, err)
			}
		}
		return c.wantProblem(http.StatusConflict, "hold_released", address+"/settle", body{"quantity": h.quantity})
	}
	c.holds = c.holds[1:]
	if c.jumps {
		return c.settleMaybeExpired(h)
	}
	err := c.wantProblem(http.StatusUnprocessableEntity, "invalid_request", address+"/settle", body{"quantity": h.quantity + 1})
	if err != nil {
		return err
	}
	quantity := 1 + rand.Int64N(h.quantity)
	h.who.atMost.Add(quantity)
	r := c.post(address+"/settle", body{"quantity": quantity})
	d, err := r.decision()
	if err != nil || d.EventID == nil || d.Hold == nil || d.Hold.State != "settled" || d.Replayed && !r.again {
		return fmt.Errorf("settle: %+v, %w", d, err)
	}
	h.who.atLeast.Add(quantity)
	c.record("hold "+h.id, grant{*d.EventID, h.who.email, quantity}, d.Replayed)
	again, err := c.post(address+"/settle", body{"quantity": quantity}).decision()
	if err != nil || !again.Replayed || again.EventID == nil || *again.EventID != *d.EventID {
		return fmt.Errorf("settle again: %+v after %+v, %w", again, d, err)
	}
	return c.wantProblem(http.StatusConflict, "hold_settled", address+"/release", nil)
}

// settleMaybeExpired settles a hold that has expired if the server's clock jumped far enough.
func (c *caller) settleMaybeExpired(h openHold) error {
	r := c.post("/v1/holds/"+h.id+"/settle", body{"quantity": h.quantity})
	if r.status == http.StatusConflict {
		p, err := r.problem()
		if err != nil || p.Code != "hold_expired" {
			return fmt.Errorf("settle: %s, %w", r.body, err)
		}
		return nil
	}
	d, err := r.decision()
	if err != nil || d.EventID == nil || d.Hold == nil || d.Hold.State != "settled" || d.Replayed && !r.again {
		return fmt.Errorf("settle: %+v, %w", d, err)
	}
	h.who.atLeast.Add(h.quantity)
	c.record("hold "+h.id, grant{*d.EventID, h.who.email, h.quantity}, d.Replayed)
	return nil
}

// events records events of this month and an earlier one. Among them are a known event, one whose
// key was used for another event, and an invalid one.
func (c *caller) events() error {
	type entry struct {
		who      *someone // nil if the event is not new or not of this month
		key      string
		grant    grant
		statuses [2]string // the second one is for a repeated call
	}
	var entries []entry
	var sent []body
	add := func(e entry, at time.Time) {
		entries = append(entries, e)
		sent = append(sent, body{
			"email": e.grant.email, "quantity": e.grant.quantity, "idempotency_key": e.key, "occurred_at": at.UTC().Format(time.RFC3339),
		})
	}
	now := time.Now()
	if c.jumps {
		now = now.Add(-2 * time.Hour) // a server whose clock is an hour late accepts no later events
	}
	for n := range 1 + rand.IntN(6) {
		// Only members, who have no cap: an event is never refused, so it could exceed another person's
		// cap.
		p := c.members[rand.IntN(len(c.members))]
		e := entry{who: p, key: c.key(n), grant: grant{"", p.email, int64(1 + rand.IntN(3))}, statuses: [2]string{"recorded", "duplicate"}}
		at := now
		if n == 3 {
			e.who, at = nil, now.AddDate(0, 0, -40)
		} else {
			p.atMost.Add(e.grant.quantity)
		}
		add(e, at)
	}
	if key, g, ok := c.recall(); ok {
		add(entry{key: key, grant: g, statuses: [2]string{"duplicate", "duplicate"}}, now)
		g.id = ""
		g.quantity++
		add(entry{key: key, grant: g, statuses: [2]string{"conflict", "conflict"}}, now)
	}
	add(entry{key: c.key(99), grant: grant{"", "ada@soak.example", 0}, statuses: [2]string{"invalid", "invalid"}}, now)

	r := c.post("/v1/events", body{"events": sent})
	var answer struct {
		Results []struct {
			Key     *string `json:"idempotency_key"`
			Status  string
			EventID *string `json:"event_id"`
			Error   *string
		}
	}
	if err := r.read(http.StatusOK, &answer); err != nil {
		return err
	}
	if len(answer.Results) != len(entries) {
		return fmt.Errorf("%d results for %d events: %s", len(answer.Results), len(entries), r.body)
	}
	for i, e := range entries {
		got := answer.Results[i]
		expected := got.Status == e.statuses[0] || r.again && got.Status == e.statuses[1]
		recorded := got.Status == "recorded" || got.Status == "duplicate"
		if !expected || got.Key == nil || *got.Key != e.key || recorded != (got.EventID != nil) || recorded != (got.Error == nil) {
			return fmt.Errorf("the event %+v got %+v", e, got)
		}
		switch {
		case e.grant.id != "" && *got.EventID != e.grant.id:
			return fmt.Errorf("the event %+v got the ID %s", e, *got.EventID)
		case e.statuses[0] == "recorded":
			e.grant.id = *got.EventID
			if e.who != nil {
				e.who.atLeast.Add(e.grant.quantity)
			}
			c.record(e.key, e.grant, got.Status == "duplicate")
		}
	}
	return nil
}

func (c *caller) history() error {
	p := c.anyone()
	least := p.atLeast.Load()
	var answer struct {
		Email   string
		Periods []struct {
			Period struct{ Start time.Time }
			Used   int64
		}
	}
	r := c.insistOn(http.MethodGet, "/v1/usage/"+p.email+"/history", nil)
	if err := r.read(http.StatusOK, &answer); err != nil {
		return err
	}
	most := p.atMost.Load()
	for i, period := range answer.Periods {
		if i > 0 && !period.Period.Start.Before(answer.Periods[i-1].Period.Start) {
			return fmt.Errorf("not newest first: %s", r.body)
		}
		if c.sameMonth(period.Period.Start) && (period.Used < least || period.Used > most) {
			return fmt.Errorf("%s used %d, want from %d to %d", p.email, period.Used, least, most)
		}
	}
	// A process whose clock is behind does not list a month that began on another process.
	if len(answer.Periods) == 0 && least > 0 && !c.jumps || answer.Email != p.email {
		return fmt.Errorf("the history of %s, who used %d: %s", p.email, least, r.body)
	}
	return nil
}

func (c *caller) organizationUsage() error {
	var least, most int64
	for _, p := range c.members {
		least += p.atLeast.Load()
	}
	var answer struct {
		Period           struct{ Start time.Time }
		TotalUsers       int64 `json:"total_users"`
		ActiveUsers      int64 `json:"active_users"`
		TotalSuggestions int64 `json:"total_suggestions"`
		TopUsers         []struct {
			Rank  int
			Email string
			Used  int64
		} `json:"top_users"`
	}
	r := c.insistOn(http.MethodGet, "/v1/organizations/"+c.organization+"/usage", nil)
	if err := r.read(http.StatusOK, &answer); err != nil {
		return err
	}
	for _, p := range c.members {
		most += p.atMost.Load()
	}
	people := int64(len(c.members))
	if answer.TotalUsers != people || answer.ActiveUsers > people || len(answer.TopUsers) > 10 {
		return fmt.Errorf("of %d people: %s", people, r.body)
	}
	if c.sameMonth(answer.Period.Start) && (answer.TotalSuggestions < least || answer.TotalSuggestions > most) {
		return fmt.Errorf("%d units used, want from %d to %d", answer.TotalSuggestions, least, most)
	}
	for i, u := range answer.TopUsers {
		if before := answer.TopUsers[max(0, i-1)]; u.Rank != i+1 || u.Used > before.Used || u.Used == before.Used && u.Email < before.Email {
			return fmt.Errorf("not in order of use: %s", r.body)
		}
	}
	return nil
}

// consumeAgain repeats an answered call of any caller.
func (c *caller) consumeAgain() error {
	key, g, ok := c.recall()
	if !ok {
		return nil
	}
	d, err := c.post("/v1/consume", body{"email": g.email, "quantity": g.quantity, "idempotency_key": key}).decision()
	if err != nil || !d.Allowed || !d.Replayed || d.EventID == nil || *d.EventID != g.id {
		return fmt.Errorf("%s was %+v and is %+v: %w", key, g, d, err)
	}
	return nil
}

func (c *caller) reuseKey() error {
	key, g, ok := c.recall()
	if !ok {
		return nil
	}
	return c.wantProblem(http.StatusConflict, "idempotency_key_reused", "/v1/consume",
		body{"email": g.email, "quantity": g.quantity + 1, "idempotency_key": key})
}

func (c *caller) unknownUser() error {
	return c.wantProblem(http.StatusNotFound, "unknown_user", "/v1/check", body{"slack_team_id": c.team, "slack_user_id": "UNKNOWN"})
}

func (c *caller) wantProblem(status int, code, path string, content any) error {
	r := c.post(path, content)
	var p problem
	if err := r.read(status, &p); err != nil {
		return fmt.Errorf("%s: want %s: %w", path, code, err)
	}
	if p.Code != code || !json.Valid(r.body) {
		return fmt.Errorf("%s: want %s: %s", path, code, r.body)
	}
	return nil
}
