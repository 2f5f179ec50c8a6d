package enforcement

import (
	"time"

	"github.com/google/uuid"

	"tollgate/models"
)

// decider decides the ops of a group one after another, in order of arrival. Each decision sees the
// outcome of those before it.
type decider struct {
	found   *found
	changes changes
	now     time.Time
	// lapsed are organizations whose limit decided an op although some of their holds may have
	// expired. Those holds must be counted again first.
	lapsed []int64
}

func (d *decider) decide(o *op) {
	o.answer, o.err, o.lapsed = Answer{}, nil, 0
	o.account.readSpend()
	switch o.kind {
	case consume, record:
		d.consume(o)
	case hold:
		d.hold(o)
	case settle:
		d.settle(o)
	case release:
		d.release(o)
	}
}

func (d *decider) consume(o *op) {
	a := o.account
	key := keyOf[uuid.UUID]{a.record.UserID, o.key}
	if first, ok := d.found.events[key]; ok {
		if o.quantity != first.Quantity {
			o.err = errKeyReused
			return
		}
		o.answer = replay(first)
		return
	}
	occurredAt := d.now
	var verdict models.Verdict
	if o.kind == record && o.at.Before(d.found.prunedBefore) {
		o.err = tooLate(d.found.prunedBefore)
		return
	}
	if o.kind == record {
		occurredAt, verdict = o.at, models.Classify(a.standing, o.quantity)
		d.noteLimit(o, verdict.Overage < models.Classify(a.standing.WithoutOrganization(), o.quantity).Overage)
	} else if verdict = models.Decide(a.standing, o.quantity); !verdict.Allowed {
		d.noteLimit(o, verdict.Reason == models.OrganizationSpendLimitReached)
		o.answer = Answer{Standing: a.standing, Verdict: verdict}
		return
	}
	event := d.event(a, o.quantity, verdict, occurredAt)
	a.limit(verdict)
	event.IdempotencyKey = &o.key
	event.Message = d.message(o)
	d.found.events[key] = event
	o.answer = Answer{Standing: event.Standing(event.UserID, event.Email), Verdict: verdict, EventID: event.ID, Message: event.Message}
}

// mayBeTooLate reports whether an event occurred so long ago that events of its time may be deleted.
func (o *op) mayBeTooLate(now time.Time) bool {
	return o.kind == record && o.at.Before(models.LatestHorizon(now))
}

// isTooLate reports whether an op without a record is refused, so that no person and no record is
// created for it. The person must be known, or be new: then the keys that were read include the op's.
func (f *found) isTooLate(o *op) bool {
	if o.kind != record || !o.at.Before(f.prunedBefore) ||
		o.person.Slack != (models.SlackIdentity{}) && o.user.UserID == uuid.Nil && !o.newIdentity {
		return false
	}
	for key := range f.events {
		if key.key == o.key {
			return false // it may be this person's
		}
	}
	return true
}

// tooLate is the error of an event that may be a retry of a deleted one.
func tooLate(before time.Time) error {
	return &models.Error{Code: models.CodeInvalidRequest, Detail: "This event was not recorded, because it occurred before " +
		before.Format(time.RFC3339) + ". Events from before then may have been deleted, so Tollgate cannot tell whether it was " +
		"recorded earlier. Do not send it again."}
}

// event counts the units in the account and adds an event.
func (d *decider) event(a *account, quantity int64, v models.Verdict, occurredAt time.Time) *models.UsageEvent {
	s, before := &a.standing, a.standing
	s.Add(quantity, v)
	if s.Period.Contains(d.now) {
		a.notices = append(a.notices, models.Crossed(&before, s, a.record.LimitRaises, d.now)...)
	}
	d.changes.events = append(d.changes.events, models.UsageEvent{
		ID: uuid.Must(uuid.NewV7()), UserID: a.record.UserID, RecordID: a.record.ID, Email: s.Email, WorkspaceID: a.record.WorkspaceID,
		Quantity: quantity, OverageQuantity: v.Overage, OverageCents: v.OverageCents,
		OccurredAt: occurredAt, RecordedAt: d.now, Figures: s.Figures(), StripeCustomerID: a.record.StripeCustomerID,
	})
	a.daily = a.daily.Add(models.DayOf(s.Period.Start, occurredAt), quantity)
	a.spend(v.OverageCents, 0)
	d.touch(a)
	return &d.changes.events[len(d.changes.events)-1]
}

// message reports whether the op's answer is the first at its warning level, and notes it.
func (d *decider) message(o *op) bool {
	a := o.account
	if o.silent || o.kind == record || !a.standing.Period.Contains(d.now) {
		return false
	}
	level, due := models.MessageDue(a.message, &a.standing)
	if due {
		a.message, a.notified = level, true
	}
	return due
}

func (d *decider) touch(a *account) {
	if !a.dirty {
		a.dirty = true
		d.changes.accounts = append(d.changes.accounts, a)
	}
}

func (d *decider) hold(o *op) {
	a := o.account
	key := keyOf[uuid.UUID]{a.record.UserID, o.key}
	if first, ok := d.found.holdKeys[key]; ok {
		if o.quantity != first.Quantity {
			o.err = errKeyReused
			return
		}
		o.answer = Answer{
			Standing: first.Standing(first.UserID, first.Email), Verdict: models.Verdict{Allowed: true}, Replayed: true,
			Hold: d.asOfNow(first), Message: first.Message,
		}
		return
	}
	verdict := models.Decide(a.standing, o.quantity)
	if !verdict.Allowed {
		d.noteLimit(o, verdict.Reason == models.OrganizationSpendLimitReached)
		o.answer = Answer{Standing: a.standing, Verdict: verdict}
		return
	}
	a.standing.Hold(o.quantity, verdict)
	s := &a.standing
	// An invoice can be final one hour after its period. By then, all holds of the period must have
	// ended.
	expires := d.now.Add(o.ttl)
	if last := s.Period.End.Add(models.HoldsOutlivePeriod); expires.After(last) {
		expires = last
	}
	if a.record.HoldsExpireAt == nil || expires.Before(*a.record.HoldsExpireAt) {
		a.record.HoldsExpireAt = &expires
	}
	made := &models.UsageHold{
		ID: models.NewHoldID(a.record.UserID), UserID: a.record.UserID, RecordID: a.record.ID, Email: s.Email,
		Quantity: o.quantity, OverageQuantity: verdict.Overage, OverageCents: verdict.OverageCents, IdempotencyKey: o.key,
		State: models.HoldOpen, ExpiresAt: expires, CreatedAt: d.now, Figures: s.Figures(), Message: d.message(o),
	}
	a.spend(0, verdict.OverageCents)
	a.limit(verdict)
	if a.organization != nil && verdict.OverageCents > 0 && (a.organization.expire == nil || expires.Before(*a.organization.expire)) {
		a.organization.expire = &expires
	}
	d.changes.holds = append(d.changes.holds, made)
	d.found.holdKeys[key] = made
	d.touch(a)
	o.answer = Answer{Standing: made.Standing(made.UserID, made.Email), Verdict: verdict, Hold: d.asOfNow(made), Message: made.Message}
}

// asOfNow returns a copy of the hold. An open hold whose expiry time has passed gets the state
// expired.
func (d *decider) asOfNow(h *models.UsageHold) *models.UsageHold {
	c := *h
	if c.State == models.HoldOpen && !c.ExpiresAt.After(d.now) {
		c.State = models.HoldExpired
	}
	return &c
}

func (d *decider) settle(o *op) {
	h, a := d.found.holds[o.holdID], o.account
	if h == nil { // retention deleted it after identify
		o.err = errNoHold
		return
	}
	switch state := d.asOfNow(h).State; {
	case state == models.HoldSettled:
		first := d.found.settled[h.ID]
		if first == nil { // retention deletes both while this transaction reads one after the other
			o.err = errNoHold
			return
		}
		if first.Quantity != o.quantity {
			o.err = &models.Error{Code: models.CodeHoldSettled, Detail: "This hold was settled with another quantity."}
			return
		}
		o.answer = replay(first)
		o.answer.Hold = d.asOfNow(h)
		return
	case state == models.HoldReleased:
		o.err = &models.Error{Code: models.CodeHoldReleased, Detail: "This hold was released. Record the usage with POST /v1/events."}
		return
	case state == models.HoldExpired:
		o.err = &models.Error{Code: models.CodeHoldExpired, Detail: "This hold has expired. Record the usage with POST /v1/events."}
		return
	case o.quantity > h.Quantity:
		o.err = &models.Error{Code: models.CodeInvalidRequest, Path: "quantity", Detail: "must be at most the hold's quantity"}
		return
	}
	// The event counts in the hold's period, even if the work ended later.
	occurredAt := d.now
	if !a.standing.Period.Contains(occurredAt) {
		occurredAt = h.CreatedAt
	}
	d.close(a, h, models.HoldSettled)
	verdict := models.Settle(a.standing, h, o.quantity)
	event := d.event(a, o.quantity, verdict, occurredAt)
	event.HoldID, event.Message = &h.ID, d.message(o)
	if verdict.Overage > 0 {
		// The overage was decided when the hold was created, so the event has the hold's price and
		// plan, and is reported to that plan's meter.
		event.PlanID, event.OverageRateCents = h.PlanID, h.OverageRateCents
	}
	d.found.settled[h.ID] = event
	o.answer = Answer{
		Standing: event.Standing(event.UserID, event.Email), Verdict: models.Verdict{Allowed: true}, EventID: event.ID,
		Hold: d.asOfNow(h), Message: event.Message,
	}
}

func (d *decider) release(o *op) {
	h, a := d.found.holds[o.holdID], o.account
	if h == nil { // see settle
		o.err = errNoHold
		return
	}
	switch d.asOfNow(h).State {
	case models.HoldSettled:
		o.err = &models.Error{Code: models.CodeHoldSettled, Detail: "This hold was settled."}
		return
	case models.HoldOpen:
		d.close(a, h, models.HoldReleased)
	}
	o.answer = Answer{Standing: a.standing, Verdict: models.Verdict{Allowed: true}, Hold: d.asOfNow(h)}
}

// close ends an open hold and subtracts its units from the units on hold.
func (d *decider) close(a *account, h *models.UsageHold, state models.HoldState) {
	h.State = state
	a.standing.Hold(-h.Quantity, models.Verdict{Overage: -h.OverageQuantity, OverageCents: -h.OverageCents})
	a.spend(0, -h.OverageCents)
	if a.standing.Held == 0 {
		a.record.HoldsExpireAt = nil
	}
	d.changes.closed = append(d.changes.closed, h)
	d.touch(a)
}

// replay returns the answer that was given when the event was recorded.
func replay(e *models.UsageEvent) Answer {
	return Answer{
		Standing: e.Standing(e.UserID, e.Email),
		Verdict:  models.Verdict{Allowed: true}, EventID: e.ID, Message: e.Message, Replayed: true,
	}
}
