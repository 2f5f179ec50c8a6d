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
	// Most calls have one op, and most ops have a key.
	l := lookups{wants: make([]models.RecordKey, 0, len(calls)), keys: make([]keyOf[models.RecordKey], 0, len(calls))}
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
