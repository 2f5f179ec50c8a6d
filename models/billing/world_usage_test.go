package billing

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"tollgate/models"
	"tollgate/models/enforcement"
)

// person is a person whose plan a payer pays for, with the processes' answers.
type person struct {
	email string
	payer *payer
	uses  []*use
	holds []*heldUnits
	// lost are the uses that were lost with a database, voided those that were voided before they were
	// in a report, and takenBack those that were voided later.
	lost, voided, takenBack []*use
}

// use is an event according to the answers.
type use struct {
	id uuid.UUID
	// key or hold names the event.
	key            string
	hold           uuid.UUID
	at, recorded   time.Time
	units, overage int64
	plan           models.PlanID
}

// heldUnits is an open hold according to the answers.
type heldUnits struct {
	id               uuid.UUID
	created, expires time.Time
	units            int64
}

func (p *person) named() enforcement.Person { return enforcement.Person{Email: p.email} }

func (w *world) anyPerson() *person {
	p := w.payers[w.rand.IntN(len(w.payers))]
	return p.people[w.rand.IntN(len(p.people))]
}

func (w *world) units() int64 {
	if w.rand.IntN(4) == 0 {
		return 1 + w.rand.Int64N(70)
	}
	return 1 + w.rand.Int64N(6)
}

func (w *world) key() string {
	w.keys++
	return fmt.Sprintf("key %d", w.keys)
}

// use records usage of a random person in a random way.
func (w *world) use() {
	p := w.anyPerson()
	switch n := w.rand.IntN(20); {
	case n < 10:
		w.usage(p)
	case n < 13:
		w.hold(p)
	case n < 16:
		w.closeHold(p)
	default:
		w.recordPast(p)
	}
	// Another process voids a use. It has its own random numbers, so the schedule stays the same.
	if w.voiding.IntN(6) == 0 && !w.s.restores() {
		w.void(w.payers[w.voiding.IntN(len(w.payers))])
	}
}

// void voids one of the last uses. A retry gets the first answer.
func (w *world) void(of *payer) {
	p := of.people[w.voiding.IntN(len(of.people))]
	if len(p.uses) == 0 {
		return
	}
	i := max(0, len(p.uses)-1-w.voiding.IntN(4))
	if w.voiding.IntN(3) == 0 {
		i = w.voiding.IntN(len(p.uses)) // it may be on an invoice
	}
	u := p.uses[i]
	request := models.NewVoid{
		Actor: models.ActorShell, Email: p.email, IdempotencyKey: u.key, HoldID: u.hold, Reason: "by mistake", Reported: w.voiding.IntN(3) > 0,
	}
	var answers [2]models.Voided
	for n := range answers {
		var err error
		at := models.Now(w.processes[w.voiding.IntN(len(w.processes))].clock)
		answers[n], err = models.Void(w.ctx, w.db, w.catalogue, at, request)
		if errors.Is(err, models.ErrEventReported) {
			w.counts["voids refused"]++
			return
		}
		w.must(err)
	}
	if first, again := answers[0], answers[1]; first.Replayed || !again.Replayed || again.Standing != first.Standing ||
		first.Void.EventID != u.id || first.Void.OverageQuantity != u.overage {
		w.t.Errorf("%s: the void of %s and its retry have the answers %+v and %+v", w.name(), u.id, first, again)
	}
	p.uses = slices.Delete(p.uses, i, i+1)
	if answers[0].Void.State == models.VoidNotReported {
		p.voided = append(p.voided, u)
		w.counts["voids"]++
		return
	}
	p.takenBack = append(p.takenBack, u)
	w.counts["voids of reported events"]++
}

// usage asks for units and uses them if they are allowed. A quarter of the calls is repeated at
// another process.
func (w *world) usage(p *person) {
	at, units, key := w.anyProcess(), w.units(), w.key()
	answer, err := at.gate.Consume(w.ctx, p.named(), units, key)
	w.must(err)
	if !answer.Verdict.Allowed {
		w.counts["refused"]++
		return
	}
	w.note(p, at, &use{
		id: answer.EventID, key: key, at: models.Now(at.clock), units: units, overage: answer.Verdict.Overage, plan: answer.Standing.Plan,
	})
	if w.rand.IntN(4) == 0 {
		again, err := w.anyProcess().gate.Consume(w.ctx, p.named(), units, key)
		w.must(err)
		if !again.Replayed || again.EventID != answer.EventID || again.Standing.Overage != answer.Standing.Overage {
			w.t.Errorf("%s: the retry of %s has another answer: %+v, not %+v", w.name(), key, again, answer)
		}
	}
}

func (w *world) note(p *person, at *process, u *use) {
	u.recorded = models.Now(at.clock)
	p.uses = append(p.uses, u)
	w.counts["events"]++
	w.counts["units of overage"] += int(u.overage)
}

// recordPast records usage of up to 20 hours ago. Some of it is within seconds of a change of the
// billing period.
func (w *world) recordPast(p *person) {
	at := w.anyProcess()
	when := w.now.Add(-w.upTo(20 * time.Hour))
	if n := len(p.payer.periods); n > 1 && w.rand.IntN(2) == 0 {
		turn := p.payer.periods[1+w.rand.IntN(n-1)].Start
		if near := turn.Add(w.upTo(6*time.Second) - 3*time.Second); w.now.Sub(near) < 20*time.Hour && near.Before(w.now.Add(-time.Second)) {
			when = near
		}
	}
	when = when.Truncate(time.Microsecond)
	units, key := w.units(), w.key()
	outcomes, err := at.gate.Record(w.ctx, []enforcement.PastEvent{{
		Person: p.named(), Quantity: units, IdempotencyKey: key, OccurredAt: when,
	}})
	w.must(err)
	w.must(outcomes[0].Err)
	answer := outcomes[0].Answer
	w.counts["late events"]++
	w.note(p, at, &use{id: answer.EventID, key: key, at: when, units: units, overage: answer.Verdict.Overage, plan: answer.Standing.Plan})
}

func (w *world) hold(p *person) {
	at, units := w.anyProcess(), w.units()
	answer, err := at.gate.Hold(w.ctx, p.named(), units, w.key(), time.Minute+w.upTo(time.Hour))
	w.must(err)
	if answer.Verdict.Allowed {
		p.holds = append(p.holds, &heldUnits{id: answer.Hold.ID, created: answer.Hold.CreatedAt, expires: answer.Hold.ExpiresAt, units: units})
	}
}

// holdExpires returns when a hold expires if its billing period is known to have ended early.
func (p *person) holdExpires(h *heldUnits) time.Time {
	for _, period := range p.payer.periods {
		if latest := period.End.Add(models.HoldsOutlivePeriod); period.Contains(h.created) && latest.Before(h.expires) {
			return latest
		}
	}
	return h.expires
}

// closeHold settles or releases the oldest open hold of a person. The processes' clocks may
// disagree on whether it has expired.
func (w *world) closeHold(p *person) {
	p.holds = slices.DeleteFunc(p.holds, func(h *heldUnits) bool { return h.expires.Before(w.now.Add(-time.Minute)) })
	if len(p.holds) == 0 {
		w.hold(p)
		return
	}
	h := p.holds[0]
	p.holds = p.holds[1:]
	at := w.anyProcess()
	if w.rand.IntN(4) == 0 {
		_, err := at.gate.Release(w.ctx, h.id)
		w.must(err)
		return
	}
	units := 1 + w.rand.Int64N(h.units)
	answer, err := at.gate.Settle(w.ctx, h.id, units)
	var refused *models.Error
	if errors.As(err, &refused) && refused.Code == models.CodeHoldExpired && !p.holdExpires(h).After(w.now.Add(15*time.Second)) {
		return
	}
	w.must(err)
	u := &use{id: answer.EventID, hold: h.id, at: models.Now(at.clock), units: units, plan: answer.Standing.Plan}
	if !answer.Standing.Period.Contains(u.at) {
		u.at = h.created
	}
	// The answer has the sum of the period.
	u.overage = answer.Standing.Overage
	for _, other := range p.uses {
		if answer.Standing.Period.Contains(other.at) {
			u.overage -= other.overage
		}
	}
	w.note(p, at, u)
	w.counts["settled"]++
}
