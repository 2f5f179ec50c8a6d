package enforcement

import (
	"cmp"
	"errors"
	"slices"
	"time"

	"tollgate/models"
)

// maxRemembered bounds the records that one worker remembers; each takes some 400 bytes.
const maxRemembered = 16384

// maxCaution is the most groups that are decided under locks after one was decided upon what was no longer so.
const maxCaution = 512

// memory is what a worker knows of usage records from its last groups. A group decided upon it takes one round trip: its
// transaction writes only if every record still is as it is remembered here, so being out of date costs time and never a
// wrong count. Where others change the same records, the worker learns to ask first.
type memory struct {
	accounts map[string]*account // by email, each of the period that was current
	// caution is how many groups the next fault costs, wait how many are left of the last one's.
	caution, wait int
}

// keep remembers the current ones of the records that a transaction read, as they are after its commit.
func (m *memory) keep(accounts []*account, now time.Time) {
	for _, a := range accounts {
		if a == nil || !a.record.Period().Contains(now) {
			continue
		}
		a.record.SuggestionsUsed, a.record.SuggestionsHeld, a.record.Daily, a.dirty = a.standing.Used, a.standing.Held, a.daily, false
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

// recall returns the wanted records as they are remembered, or nil when one is not known, or not current.
func (m *memory) recall(l lookups, now time.Time) *found {
	if m.wait > 0 {
		m.wait--
		return nil
	}
	if len(l.holdKeys)+len(l.holdIDs) > 0 || l.skipLocked {
		return nil
	}
	f := &found{accounts: make([]*account, len(l.wants)), events: make(map[string]*models.UsageEvent, len(l.keys))}
	for i, w := range l.wants {
		known, ok := m.accounts[w.Email]
		if !ok || !w.At.Equal(now) || !known.record.Period().Contains(now) {
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
		m.caution = max(0, m.caution-1)
		return
	}
	m.forget(l)
	m.caution = min(maxCaution, max(2, 2*m.caution))
	m.wait = m.caution
}

// forget drops the records of a group, as it is not known how they are in the database.
func (m *memory) forget(l lookups) {
	for _, w := range l.wants {
		delete(m.accounts, w.Email)
	}
}

// isMoved says that what was remembered was not so: nothing was written, and the group can be decided under locks.
func isMoved(err error) bool {
	return errors.Is(err, errMoved) || models.IsRetryable(err) || models.IsDuplicate(err)
}

// inOrder sorts accounts as locks are taken in, so that no two groups wait for each other.
func inOrder(accounts []*account) {
	slices.SortFunc(accounts, func(a, b *account) int {
		return cmp.Or(cmp.Compare(a.record.Email, b.record.Email), a.record.BillingPeriodStart.Compare(b.record.BillingPeriodStart))
	})
}
