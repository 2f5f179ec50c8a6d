package enforcement

import (
	"cmp"
	"errors"
	"slices"
	"time"

	"github.com/google/uuid"

	"tollgate/models"
)

// maxRemembered is the maximum number of records that one worker remembers. Each takes about 400
// bytes.
const maxRemembered = 16384

// maxBackoff is the maximum number of groups that are decided under locks after a remembered record
// was stale.
const maxBackoff = 512

// memory has the usage records of a worker's last groups. A group that is decided on them takes one
// round trip: its transaction writes only if every record still equals the remembered one. So a
// stale record costs time, but never a wrong count. If other processes change the same records
// often, the worker backs off and locks first.
type memory struct {
	accounts map[string]*account // by email, each of its current period
	// people are the persons of calls with an email and a Slack identity. A record has its user's
	// identity, so a stale entry never leads to another person's record.
	people map[models.Link]named
	// backoff is how many groups are decided under locks after the next stale record. wait is how
	// many are left after the last one.
	backoff, wait int
	// full are the organizations that reached their spend limit, and until when that is assumed.
	// Their overage is decided under locks at once.
	full map[int64]time.Time
}

// keep remembers the records of a committed transaction whose periods are current.
func (m *memory) keep(accounts []*account, now time.Time) {
	for _, a := range accounts {
		if a == nil || !a.record.Period().Contains(now) {
			continue
		}
		a.take()
		m.remember(a)
	}
}

// learn remembers prepared records, so that a decision on them takes only one round trip.
func (m *memory) learn(records []models.PreparedRecord) {
	for _, r := range records {
		m.remember(&account{record: r.UsageRecord, version: r.Version})
	}
}

func (m *memory) remember(a *account) {
	if _, known := m.accounts[a.record.Email]; !known && len(m.accounts) >= maxRemembered {
		clear(m.accounts) // so many people are rare, and each is remembered again after one group
	}
	m.accounts[a.record.Email] = a
}

// take copies the decided counters into the record.
func (a *account) take() {
	r, s := &a.record, &a.standing
	r.SuggestionsUsed, r.OverageUsed, r.OverageCents = s.Used, s.Overage, s.OverageCents
	r.UnitsHeld, r.OverageHeld, r.OverageCentsHeld = s.Held, s.OverageHeld, s.OverageCentsHeld
	r.Daily, r.MessageLevel, a.dirty, a.notified, a.notices = a.daily, a.message, false, false, nil
}

// named is the person that a link named. It expires, because an email that is in use can become
// free.
type named struct {
	person models.LinkedPerson
	until  time.Time
}

// namesFor is how long a worker remembers the person of a link.
const namesFor = time.Minute

// name remembers the person that a link named.
func (m *memory) name(l models.Link, p models.LinkedPerson, now time.Time) {
	if m.people == nil || len(m.people) >= maxRemembered {
		m.people = map[models.Link]named{}
	}
	m.people[l] = named{p, now.Add(namesFor)}
}

// recall returns the remembered records of the lookups, or nil if one of them is missing or not
// current.
func (m *memory) recall(l lookups, now time.Time) *found {
	if m.wait > 0 {
		m.wait--
		return nil
	}
	if len(l.holdKeys)+len(l.holds) > 0 || l.skipLocked {
		return nil
	}
	f := &found{
		accounts: make([]*account, len(l.wants)), events: make(map[keyOf[uuid.UUID]]*models.UsageEvent, len(l.keys)),
		organizations: map[int64]*organization{}, remembered: true,
	}
	for i, w := range l.wants {
		known, ok := m.accounts[w.Email]
		if !ok || !w.At.Equal(now) || !known.record.Period().Contains(now) || w.UserID != uuid.Nil && w.UserID != known.record.UserID {
			return nil
		}
		known.dirty = false // the last decisions on it may not have been committed
		f.accounts[i] = known
	}
	return f
}

// adjust changes the backoff after a group that was decided on remembered records.
func (m *memory) adjust(l lookups, err error) {
	if err == nil {
		m.backoff = max(0, m.backoff-1)
		return
	}
	m.forget(l)
	m.backoff = min(maxBackoff, max(2, 2*m.backoff))
	m.wait = m.backoff
}

// forget drops the records of a group whose state in the database is unknown.
func (m *memory) forget(l lookups) {
	for _, w := range l.wants {
		delete(m.accounts, w.Email)
	}
}

// fullFor is how long a worker assumes that an organization that reached its spend limit has.
const fullFor = time.Second

// noteLimits notes the organizations that reached their spend limits.
func (m *memory) noteLimits(calls []*call, now time.Time) {
	for _, c := range calls {
		for i := range c.ops {
			if o := &c.ops[i]; o.answer.Verdict.Reason == models.OrganizationSpendLimitReached {
				if m.full == nil || len(m.full) >= maxRemembered {
					m.full = map[int64]time.Time{}
				}
				m.full[o.account.organization.id] = now.Add(fullFor)
			}
		}
	}
}

// limited reports whether one of the organizations probably reached its spend limit.
func (m *memory) limited(organizations []*organization, now time.Time) bool {
	return slices.ContainsFunc(organizations, func(o *organization) bool { return now.Before(m.full[o.id]) })
}

// isStale reports whether a commit failed because a remembered record was stale. Nothing was
// written then, and the group can be decided under locks.
func isStale(err error) bool {
	return errors.Is(err, errStale) || models.IsRetryable(err) || models.IsDuplicate(err)
}

// inOrder sorts accounts in the order in which all transactions lock them, so that two groups never
// wait for each other.
func inOrder(accounts []*account) {
	slices.SortFunc(accounts, func(a, b *account) int {
		return cmp.Or(cmp.Compare(a.record.Email, b.record.Email), a.record.BillingPeriodStart.Compare(b.record.BillingPeriodStart))
	})
}
