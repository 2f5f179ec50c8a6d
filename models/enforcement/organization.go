package enforcement

import (
	"fmt"
	"slices"
	"time"

	"tollgate/models"
)

// organization is what an organization with a spend limit spends in one billing period.
//
// A group never compares it with what it read, because all members of an organization would then
// wait for each other. It only adds its own amounts, in the last statement of its transaction, on
// the condition that the sum stays within the limit. If the sum does not, the whole group is
// decided again.
type organization struct {
	id int64
	// spend includes the decisions of the group. Without a limit, it was not read.
	spend models.OrganizationSpend
	// holdsExpireAt is models.OrganizationRecord's.
	holdsExpireAt *time.Time
	// cents and held are what the group adds.
	cents, held int64
	// expire is the earliest expiry of the group's new holds; nil without one.
	expire *time.Time
	// limited means that the group was allowed something that the limit must still allow when it
	// commits.
	limited bool
}

func newOrganization(r models.OrganizationRecord) *organization {
	return &organization{id: r.ID, spend: r.Spend(), holdsExpireAt: r.HoldsExpireAt}
}

// organizationIDs returns the organizations' records that the accounts' records point to.
func (f *found) organizationIDs() (ids []int64) {
	for _, a := range f.accounts {
		if a != nil && a.record.OrganizationRecordID != nil && !slices.Contains(ids, *a.record.OrganizationRecordID) {
			ids = append(ids, *a.record.OrganizationRecordID)
		}
	}
	return ids
}

// bindOrganization sets the account's organization. It returns false if the organization's record
// was deleted, so that the usage record must be prepared.
func (f *found) bindOrganization(a *account) bool {
	a.organization = nil
	id := a.record.OrganizationRecordID
	if id == nil {
		return true
	}
	known, ok := f.organizations[*id]
	if !ok && f.remembered {
		known, ok = &organization{id: *id}, true
		f.organizations[*id] = known
	}
	a.organization = known
	return ok
}

// readSpend copies what the organization spends into the account's standing.
func (a *account) readSpend() {
	if a.organization != nil {
		a.standing.Organization = a.organization.spend
	}
}

// spend adds cents of overage, and cents of overage on hold, to what the organization spends.
func (a *account) spend(cents, held int64) {
	if o := a.organization; o != nil {
		o.cents += cents
		o.held += held
		o.spend = a.standing.Organization
	}
}

// limit notes that a decision depends on the organization's limit.
func (a *account) limit(v models.Verdict) {
	if a.organization != nil && v.OverageCents > 0 {
		a.organization.limited = true
	}
}

// noteLimit notes that the organization's limit changed the decision on an op, if some of the
// organization's holds may have expired.
func (d *decider) noteLimit(decided *op, changed bool) {
	o := decided.account.organization
	if !changed || o == nil || o.holdsExpireAt == nil || o.holdsExpireAt.After(d.now) {
		return
	}
	decided.lapsed = o.id
	if !slices.Contains(d.lapsed, o.id) {
		d.lapsed = append(d.lapsed, o.id)
	}
}

// expireHolds counts the holds of w.lapsed again. If that fails for an organization, it fails only
// the calls that depend on it, and returns the others.
func (w *worker) expireHolds(calls []*call, now time.Time) []*call {
	lapsed := w.lapsed
	w.lapsed = nil
	for _, id := range lapsed {
		if len(calls) == 0 {
			break
		}
		start := time.Now()
		ctx, cancel := w.inTime(calls)
		err := models.ExpireOrganizationHolds(ctx, w.db.WithLockTimeout(groupPatience), w.catalogue, now, id)
		cancel()
		if err == nil {
			continue
		}
		var waiting, others []*call
		for _, c := range calls {
			if c.lapsed(id) {
				waiting = append(waiting, c)
			} else {
				others = append(others, c)
			}
		}
		switch calls = others; {
		case models.IsLockTimeout(err):
			failAll(waiting, errLocked)
		case models.IsUnavailable(err):
			calls = append(calls, w.failed(waiting, err, start)...) // the next pass tries again
		default:
			failAll(waiting, fmt.Errorf("count the holds of an organization again: %w", err))
		}
	}
	return calls
}

// lapsed reports whether an op of the call depends on expired holds of an organization.
func (c *call) lapsed(id int64) bool {
	return slices.ContainsFunc(c.ops, func(o op) bool { return o.lapsed == id })
}
