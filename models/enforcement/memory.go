package enforcement

import (
	"cmp"
	"errors"
	"slices"
	"time"

	"github.com/google/uuid"

	"tollgate/models"
)

// maxRemembered bounds the records that one worker remembers; each takes some 400 bytes.
const maxRemembered = 16384

// maxBackoff is the most groups that are decided under locks after one was decided upon what was no longer so.
const maxBackoff = 512

// memory is what a worker knows of usage records from its last groups. A group decided upon it takes one round trip: its
// transaction writes only if every record still is as it is remembered here, so being out of date costs time and never a
// wrong count. Where others change the same records, the worker learns to ask first.
type memory struct {
	accounts map[string]*account // by email, each of the period that was current
	// people are those whom calls with an email and a Slack identity named. A record says which identity its user has, so an entry that
	// is out of date never names another person.
	people map[models.Link]named
	// backoff is how many groups the next fault costs, wait how many are left of the last one's.
	backoff, wait int
}

// keep remembers the current ones of the records that a transaction read, as they are after its commit.
func (m *memory) keep(accounts []*account, now time.Time) {
	for _, a := range accounts {
		if a == nil || !a.record.Period().Contains(now) {
			continue
		}
		a.take()
		m.remember(a)
	}
}

// learn remembers records that were prepared, so that deciding upon them takes one round trip as well.
func (m *memory) learn(records []models.PreparedRecord) {
	for _, r := range records {
		m.remember(&account{record: r.UsageRecord, version: r.Version})
	}
}

func (m *memory) remember(a *account) {
	if _, known := m.accounts[a.record.Email]; !known && len(m.accounts) >= maxRemembered {
		clear(m.accounts) // a worker with so many people at once is rare, and knows them again after one group each
	}
	m.accounts[a.record.Email] = a
}

// take writes into the record what was decided.
func (a *account) take() {
	r, s := &a.record, &a.standing
	r.SuggestionsUsed, r.OverageUsed, r.OverageCents = s.Used, s.Overage, s.OverageCents
	r.UnitsHeld, r.OverageHeld, r.OverageCentsHeld = s.Held, s.OverageHeld, s.OverageCentsHeld
	r.Daily, a.dirty = a.daily, false
}

// named is the person whom a link named. It is looked up again now and then, as an email that was in use can become free.
type named struct {
	person models.LinkedPerson
	until  time.Time
}

// namesFor is how long a worker remembers whom a call named.
const namesFor = time.Minute

// name remembers whom a link named.
func (m *memory) name(l models.Link, p models.LinkedPerson, now time.Time) {
	if m.people == nil || len(m.people) >= maxRemembered {
		m.people = map[models.Link]named{}
	}
	m.people[l] = named{p, now.Add(namesFor)}
}

// recall returns the wanted records as they are remembered, or nil when one is not known, or not current.
func (m *memory) recall(l lookups, now time.Time) *found {
	if m.wait > 0 {
		m.wait--
		return nil
	}
	if len(l.holdKeys)+len(l.holds) > 0 || l.skipLocked {
		return nil
	}
	f := &found{accounts: make([]*account, len(l.wants)), events: make(map[keyOf[uuid.UUID]]*models.UsageEvent, len(l.keys))}
	for i, w := range l.wants {
		known, ok := m.accounts[w.Email]
		if !ok || !w.At.Equal(now) || !known.record.Period().Contains(now) || w.UserID != uuid.Nil && w.UserID != known.record.UserID {
			return nil
		}
		known.dirty = false // what was decided upon it last may have come to nothing
		f.accounts[i] = known
	}
	return f
}

// tell says what came of a group that was decided upon memory.
func (m *memory) tell(l lookups, err error) {
	if err == nil {
		m.backoff = max(0, m.backoff-1)
		return
	}
	m.forget(l)
	m.backoff = min(maxBackoff, max(2, 2*m.backoff))
	m.wait = m.backoff
}

// forget drops the records of a group, as it is not known how they are in the database.
func (m *memory) forget(l lookups) {
	for _, w := range l.wants {
		delete(m.accounts, w.Email)
	}
}

// isMoved says that what was remembered was not so: nothing was written, and the group can be decided under locks.
func isMoved(err error) bool {
	return errors.Is(err, errStale) || models.IsRetryable(err) || models.IsDuplicate(err)
}

// inOrder sorts accounts as locks are taken in, so that no two groups wait for each other.
func inOrder(accounts []*account) {
	slices.SortFunc(accounts, func(a, b *account) int {
		return cmp.Or(cmp.Compare(a.record.Email, b.record.Email), a.record.BillingPeriodStart.Compare(b.record.BillingPeriodStart))
	})
}
