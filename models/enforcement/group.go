package enforcement

import (
	"bytes"
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"tollgate/models"
)

// account is one usage record that a group decides on.
type account struct {
	record models.UsageRecord
	// version changes with every change of the record by any writer. On PostgreSQL, it is the
	// version of the row. On SQLite, it is the version of the file, which changes when another
	// connection writes.
	version uint32
	// standing and daily include the decisions of the group. The record has what is stored.
	standing models.Standing
	daily    models.Daily
	// message is the record's MessageLevel, including the answers of the group. notified means that it
	// changed and must be written.
	message  int64
	notified bool
	// notices are what the group's decisions are to notify the person of.
	notices []models.DueNotice
	// dirty means that the counters changed and must be written.
	dirty bool
	// organization is what the organization of the record's payer spends; nil unless it has a spend
	// limit.
	organization *organization
}

// lookups is what a group reads in its transaction before it decides.
type lookups struct {
	wants    []models.RecordKey        // sorted, without duplicates: the order of the locks
	keys     []keyOf[models.RecordKey] // of events
	holdKeys []keyOf[models.RecordKey]
	holds    []holdOf
	// past means that some of the ops are events that already happened.
	past bool

	skipLocked bool
}

// keyOf is an idempotency key and its person.
type keyOf[P comparable] struct {
	person P
	key    string
}

// holdOf is a hold and its user.
type holdOf struct{ user, id uuid.UUID }

// found is what the transaction read, with the records locked.
type found struct {
	accounts []*account // one for each of wants, in the same order; nil if the record is missing or was skipped
	locked   []bool     // whether each record was locked and skipped; nil unless locked records are skipped
	events   map[keyOf[uuid.UUID]]*models.UsageEvent
	settled  map[uuid.UUID]*models.UsageEvent // by hold
	holds    map[uuid.UUID]*models.UsageHold
	holdKeys map[keyOf[uuid.UUID]]*models.UsageHold
	// organizations are what organizations with a spend limit spend, by ID of their records. The
	// transaction reads them without locks. A group that is decided on remembered records does not
	// read them.
	organizations map[int64]*organization
	remembered    bool
	// prunedBefore is the time before which events may have been deleted. It is read only for events
	// that already happened.
	prunedBefore time.Time
}

func newFound(l lookups) *found {
	return &found{
		accounts: make([]*account, len(l.wants)), events: make(map[keyOf[uuid.UUID]]*models.UsageEvent, len(l.keys)),
		settled: map[uuid.UUID]*models.UsageEvent{}, holds: map[uuid.UUID]*models.UsageHold{},
		holdKeys: map[keyOf[uuid.UUID]]*models.UsageHold{}, organizations: map[int64]*organization{},
	}
}

// changes is what a group writes in its transaction.
type changes struct {
	now      time.Time
	events   []models.UsageEvent
	holds    []*models.UsageHold // new ones
	closed   []*models.UsageHold // settled or released ones
	accounts []*account          // dirty ones
}

func (c *changes) empty() bool { return len(c.accounts) == 0 && len(c.closed) == 0 }

// organizations returns the organizations to which the group adds something, in the order in which
// all transactions lock their records.
func (c *changes) organizations() (spending []*organization) {
	for _, a := range c.accounts {
		if o := a.organization; o != nil && o.cents|o.held != 0 && !slices.Contains(spending, o) {
			spending = append(spending, o)
		}
	}
	slices.SortFunc(spending, func(a, b *organization) int { return cmp.Compare(a.id, b.id) })
	return spending
}

// eventsByMessage returns the events without a message and those with one.
func (c *changes) eventsByMessage() (without, with []models.UsageEvent) {
	if len(c.notified()) == 0 {
		return c.events, nil
	}
	for _, e := range c.events {
		if e.Message {
			with = append(with, e)
		} else {
			without = append(without, e)
		}
	}
	return without, with
}

// notified returns the records for which the group gives a message.
func (c *changes) notified() (notified []*account) {
	for _, a := range c.accounts {
		if a.notified {
			notified = append(notified, a)
		}
	}
	return notified
}

// notices returns the notices of all records.
func (c *changes) notices() (all []models.DueNotice) {
	for _, a := range c.accounts {
		all = append(all, a.notices...)
	}
	return all
}

// late returns the changed records whose periods have ended.
func (c *changes) late() (late []*account) {
	for _, a := range c.accounts {
		if !a.record.BillingPeriodEnd.After(c.now) {
			late = append(late, a)
		}
	}
	return late
}

// collectLookups returns what the group must read. All ops use the same now, so that a person has
// only one record key.
func collectLookups(calls []*call, now time.Time) lookups {
	var l lookups
	for _, c := range calls {
		for i := range c.ops {
			o := &c.ops[i]
			if o.unknown {
				continue
			}
			switch o.kind {
			case consume, record:
				l.keys = append(l.keys, o.idempotencyKey())
				l.past = l.past || o.kind == record
			case hold:
				l.holdKeys = append(l.holdKeys, o.idempotencyKey())
			case settle, release:
				l.holds = append(l.holds, holdOf{o.held.UserID, o.holdID})
			}
			l.wants = append(l.wants, o.recordKey(now))
		}
	}
	slices.SortFunc(l.wants, compareWants)
	l.wants = slices.Compact(l.wants)
	return l
}

func compareWants(a, b models.RecordKey) int {
	return cmp.Or(strings.Compare(a.Email, b.Email), a.At.Compare(b.At), bytes.Compare(a.UserID[:], b.UserID[:]))
}

// binding is what a group knows about the record of a key.
type binding struct {
	account *account // nil if the record is missing or was skipped
	fit     bool     // the record can be decided on now
	locked  bool     // the record was locked and skipped
}

// bindAccounts sets the account of each op. It separates the calls that can be decided now from
// those whose people must be linked or whose records must be prepared first.
func bindAccounts(calls []*call, l lookups, f *found, c *models.Catalogue, now time.Time) (ready, unready []*call) {
	bindings := make(map[models.RecordKey]binding, len(l.wants))
	byRecord := make(map[int64]*account, len(l.wants))
	for i, w := range l.wants {
		a := f.accounts[i]
		if a == nil {
			if f.locked != nil && f.locked[i] {
				bindings[w] = binding{locked: true}
			}
			continue
		}
		if same, ok := byRecord[a.record.ID]; ok {
			a, f.accounts[i] = same, same
		} else {
			byRecord[a.record.ID] = a
		}
		var ok bool
		a.standing, ok = c.Standing(&a.record, now)
		ok = f.bindOrganization(a) && ok
		a.daily, a.message, a.notified = a.record.Daily, a.record.MessageLevel, false
		a.notices = nil
		bindings[w] = binding{account: a, fit: ok}
	}
	ready = calls[:0]
	for _, call := range calls {
		call.err = nil // an earlier try may have set it
		ok, waits := true, false
		for i := range call.ops {
			o := &call.ops[i]
			if o.unknown {
				continue
			}
			bound := bindings[o.recordKey(now)]
			waits = waits || bound.locked
			o.account = bound.account
			if bound.account == nil && !bound.locked && f.isTooLate(o) {
				o.unknown, o.err = true, tooLate(f.prunedBefore)
				continue
			}
			ok = ok && bound.fit && !o.mustLink(o.account.record.Slack(), o.account.record.Email)
			if h := f.holds[o.holdID]; h != nil && o.account != nil && (o.kind == settle || o.kind == release) {
				ok = ok && h.RecordID == o.account.record.ID // otherwise the hold has moved to another record since identify
			}
		}
		switch {
		case waits:
			call.fail(errLocked)
		case ok:
			ready = append(ready, call)
		default:
			unready = append(unready, call)
		}
	}
	return ready, unready
}

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
	return &models.Error{Code: models.CodeInvalidRequest, Detail: "This event occurred before " + before.Format(time.RFC3339) +
		". Events from before then are deleted, so it may have been recorded already."}
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
		o.err = &models.Error{Code: models.CodeHoldReleased, Detail: "This hold was released."}
		return
	case state == models.HoldExpired:
		o.err = &models.Error{Code: models.CodeHoldExpired, Detail: "This hold has expired. Record the usage with POST /v1/events."}
		return
	case o.quantity > h.Quantity:
		o.err = &models.Error{Code: models.CodeInvalidRequest, Path: "quantity", Detail: "must be at most the units held"}
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
