package web

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"tollgate/models"
)

// decisionAnswer contains the fields of a decision that the model checks.
type decisionAnswer struct {
	Allowed          bool
	Reason           *string
	Plan             string
	Used, Held       int64
	Included         int64
	Remaining        int64
	Overage          int64
	OverageRateCents int64  `json:"overage_rate_cents"`
	OverageCents     int64  `json:"overage_cents"`
	SpendLimitCents  *int64 `json:"spend_limit_cents"`
	Period           struct{ Start, End time.Time }
	EventID          *string `json:"event_id"`
	Replayed         bool
	Hold             *struct {
		ID, State string
		ExpiresAt time.Time `json:"expires_at"`
	}
}

func (l *ledger) ask(path, body string) (a decisionAnswer, status int, raw string) {
	l.t.Helper()
	answer := l.post(path, body)
	l.counts["calls"]++
	if answer.status == 200 {
		must(l.t, json.Unmarshal([]byte(answer.raw), &a))
	}
	return a, answer.status, answer.raw
}

// tally is what the model expects of a person in a period.
type tally struct{ used, over, cents, held, overHeld, centsHeld int64 }

func (l *ledger) tally(p *ledgerPerson, start, end time.Time) (s tally) {
	for _, e := range p.events {
		if !e.at.Before(start) && e.at.Before(end) {
			s.used, s.over, s.cents = s.used+e.quantity, s.over+e.over, s.cents+e.cent
		}
	}
	p.holds = slices.DeleteFunc(p.holds, func(h *ledgerHold) bool { return !h.expires.After(l.clock()) })
	for _, h := range p.holds {
		if !h.created.Before(start) && h.created.Before(end) {
			s.held, s.overHeld, s.centsHeld = s.held+h.quantity, s.overHeld+h.over, s.centsHeld+h.cents
		}
	}
	return s
}

// decide checks a decision against the model, and returns the overage that it must have.
func (l *ledger) decide(p *ledgerPerson, a decisionAnswer, quantity int64) (over int64) {
	l.t.Helper()
	s := l.tally(p, a.Period.Start, a.Period.End)
	over = max(0, quantity-max(0, a.Included-(s.used-s.over)-(s.held-s.overHeld)))
	rate, reason := a.OverageRateCents, ""
	switch {
	case over == 0:
	case rate == 0:
		reason = "included_exhausted"
	case l.believed(p, a.Plan).pastDue():
		reason = "payment_past_due"
	case a.SpendLimitCents != nil && s.cents+s.centsHeld+over*rate > *a.SpendLimitCents:
		reason = "spend_limit_reached"
	}
	if got := *or(a.Reason, ""); got != reason || a.Allowed != (reason == "") {
		l.failf("allowed is %t for the reason %q, want %q; %+v", a.Allowed, got, reason, s)
	}
	if want := l.web.catalogue.PlanOf(models.PlanID(a.Plan)).OverageRateCents; rate != 0 && rate != want {
		l.failf("the rate is %d, want %d", rate, want)
	}
	return over
}

// standing checks the figures of the latest answer.
func (l *ledger) standing(p *ledgerPerson, a decisionAnswer) {
	l.t.Helper()
	s := l.tally(p, a.Period.Start, a.Period.End)
	if a.Used != s.used || a.Overage != s.over || a.OverageCents != s.cents || a.Held != s.held {
		l.failf("%s has %d used, %d overage, %d cents and %d held, want %+v, in %s to %s",
			p.name, a.Used, a.Overage, a.OverageCents, a.Held, s, a.Period.Start, a.Period.End)
	}
	if want := max(0, a.Included-(s.used-s.over)-(s.held-s.overHeld)); a.Remaining != want {
		l.failf("%s has %d left, want %d", p.name, a.Remaining, want)
	}
}

func or[T any](p *T, otherwise T) *T {
	if p == nil {
		return &otherwise
	}
	return p
}

func (l *ledger) key() string {
	l.keys++
	return fmt.Sprintf("key %d", l.keys)
}

func (l *ledger) quantity() int64 {
	if l.rng.IntN(3) == 0 {
		return 1 + l.rng.Int64N(120)
	}
	return 1 + l.rng.Int64N(15)
}

func (l *ledger) consume(p *ledgerPerson, identity string) {
	l.t.Helper()
	e := &ledgerEvent{key: l.key(), at: l.clock(), recorded: l.clock(), quantity: l.quantity()}
	l.logf("%s consumes %d, identified by %s", p.name, e.quantity, identity)
	body := fmt.Sprintf(`{%s, "quantity": %d, "idempotency_key": %q}`, identity, e.quantity, e.key)
	a, status, raw := l.ask("/v1/consume", body)
	if status != 200 {
		l.failf("status %d: %s", status, raw)
	}
	over := l.decide(p, a, e.quantity)
	if a.Allowed {
		e.id, e.over, e.cent, e.plan = *a.EventID, over, over*a.OverageRateCents, a.Plan
		e.payer = l.payerOf(p, a.Plan, e.at)
		p.events = append(p.events, e)
	}
	l.standing(p, a)
	if a.Allowed && l.rng.IntN(4) == 0 {
		if _, _, again := l.ask("/v1/consume", body); !sameFigures(raw, again) {
			l.failf("the retry has another answer:\n%s\n%s", raw, again)
		}
	}
}

// sameFigures compares the figures of an answer with those of its replay. The Slack message may
// differ.
func sameFigures(first, again string) bool {
	var a, b decisionAnswer
	if json.Unmarshal([]byte(first), &a) != nil || json.Unmarshal([]byte(again), &b) != nil || !b.Replayed {
		return false
	}
	return a.Used == b.Used && a.Overage == b.Overage && a.OverageCents == b.OverageCents && *a.EventID == *b.EventID && a.Period == b.Period
}

func (l *ledger) hold(p *ledgerPerson) {
	l.t.Helper()
	h := &ledgerHold{created: l.clock(), quantity: l.quantity()}
	ttl := 30 + l.rng.IntN(3570)
	identity := p.identity(l)
	l.logf("%s holds %d for %d s", p.name, h.quantity, ttl)
	body := fmt.Sprintf(`{%s, "quantity": %d, "idempotency_key": %q, "ttl_seconds": %d}`, identity, h.quantity, l.key(), ttl)
	a, status, raw := l.ask("/v1/holds", body)
	if status != 200 {
		l.failf("status %d: %s", status, raw)
	}
	if over := l.decide(p, a, h.quantity); a.Allowed {
		h.id, h.expires, h.over, h.cents, h.rate = a.Hold.ID, a.Hold.ExpiresAt, over, over*a.OverageRateCents, a.OverageRateCents
		if want := h.created.Add(time.Duration(ttl) * time.Second); !h.expires.Equal(want) && !h.expires.Equal(a.Period.End.Add(30*time.Minute)) {
			l.failf("the hold expires at %s, want %s", h.expires, want)
		}
		p.holds = append(p.holds, h)
	}
	l.standing(p, a)
}

// settle settles or releases the first open hold of a person.
func (l *ledger) settle(p *ledgerPerson) {
	l.t.Helper()
	if l.tally(p, time.Time{}, l.clock().AddDate(1, 0, 0)); len(p.holds) == 0 {
		return
	}
	h := p.holds[0]
	if l.rng.IntN(4) == 0 {
		l.logf("%s releases a hold of %d", p.name, h.quantity)
		a, status, raw := l.ask("/v1/holds/"+h.id+"/release", "")
		if status != 200 {
			l.failf("status %d: %s", status, raw)
		}
		p.holds = p.holds[1:]
		l.standing(p, a)
		return
	}
	quantity := 1 + l.rng.Int64N(h.quantity)
	l.logf("%s settles %d of a hold of %d", p.name, quantity, h.quantity)
	a, status, raw := l.ask("/v1/holds/"+h.id+"/settle", fmt.Sprintf(`{"quantity": %d}`, quantity))
	if status != 200 {
		l.failf("status %d: %s", status, raw)
	}
	p.holds = p.holds[1:]
	s := l.tally(p, a.Period.Start, a.Period.End)
	now := max(0, quantity-max(0, a.Included-(s.used-s.over)-(s.held-s.overHeld)))
	over := min(max(0, quantity-(h.quantity-h.over)), now)
	e := &ledgerEvent{
		id: *a.EventID, at: l.clock(), recorded: l.clock(), quantity: quantity, over: over, cent: over * h.rate, plan: a.Plan,
	}
	if !e.at.Before(a.Period.End) {
		e.at = h.created
	}
	e.payer = l.payerOf(p, a.Plan, e.at)
	p.events = append(p.events, e)
	l.standing(p, a)
}

// recordPast records usage from up to three weeks ago.
func (l *ledger) recordPast(p *ledgerPerson) {
	l.t.Helper()
	age := time.Duration(l.rng.Int64N(int64(time.Hour)))
	if l.rng.IntN(2) == 0 {
		age *= time.Duration(1 + l.rng.IntN(500))
	}
	e := &ledgerEvent{key: l.key(), at: l.clock().Add(-age).Truncate(time.Microsecond), recorded: l.clock(), quantity: l.quantity()}
	l.logf("%s used %d at %s, which is recorded now", p.name, e.quantity, e.at.Format("01-02 15:04:05"))
	before := sum(l.history(p))
	a := l.post("/v1/events", fmt.Sprintf(`{"events": [{%s, "quantity": %d, "idempotency_key": %q, "occurred_at": %q}]}`,
		p.identity(l), e.quantity, e.key, e.at.Format(time.RFC3339Nano)))
	a.want(l.t, 200, map[string]any{"results.status": "recorded"})
	e.id = a.body["results"].([]any)[0].(map[string]any)["event_id"].(string)
	history := l.history(p)
	after := sum(history)
	e.over, e.cent = after.over-before.over, after.cents-before.cents
	if after.used-before.used != e.quantity {
		l.failf("%d more units are in the history, want %d", after.used-before.used, e.quantity)
	}
	i := slices.IndexFunc(history, func(h pastLedger) bool { return !e.at.Before(h.Period.Start) && e.at.Before(h.Period.End) })
	if i < 0 {
		l.failf("no period of the history contains the event: %+v", history)
	}
	of := history[i]
	s := l.tally(p, of.Period.Start, of.Period.End)
	free := max(0, of.Included-(s.used-s.over)-(s.held-s.overHeld))
	e.plan = of.Plan
	rate := l.web.catalogue.PlanOf(models.PlanID(e.plan)).OverageRateCents
	switch over := max(0, e.quantity-free); {
	case e.over > over: // fewer are billed at a spend limit, and none in a trial or while a payment is past due
		l.failf("%d units are billed, want at most %d", e.over, over)
	case e.cent != e.over*rate:
		l.failf("%d units cost %d cents, want the rate %d", e.over, e.cent, rate)
	}
	e.payer = l.payerOf(p, e.plan, e.at)
	p.events = append(p.events, e)
}
