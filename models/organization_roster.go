package models

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect"
	"github.com/uptrace/bun/schema"
)

// roster is an organization's current members with everything that their standings depend on,
// except their usage records. With it, the database computes Foresee for all members and sends only
// the rows that are shown. All members have the same terms if the organization has a plan; without
// one, a few members have a plan of their own.
type roster struct {
	postgres bool
	now      time.Time
	// workspaces are the organization's. The queries contain their IDs as literals, so that the
	// planner can estimate the number of members.
	organization uuid.UUID
	workspaces   []uuid.UUID
	// only, unless it is nil, are the only members that the roster is about.
	only []uuid.UUID
	// version changes whenever the usage of a past period of the workspaces may change; see
	// PastUsageCache.
	version      string
	defaultTerms terms
	ownTerms     []terms
	// inStep means that every member's current period began when the default one did.
	inStep bool
}

// terms are what an entitlement gives a member now.
type terms struct {
	user           uuid.UUID
	entitlement    Entitlement
	included, rate int64
	// further is the rate of more overage: 0 while a payment is past due, because overage is then
	// refused.
	further int64
	// begins is the earliest start that the current record can have: an older one ended when the
	// subscription's period began.
	begins time.Time
	// starts is when the period began for a member without a current record.
	starts time.Time
}

func (c *Catalogue) termsOf(e *Entitlement, now time.Time) terms {
	plan := c.PlanOf(e.PlanID)
	period := e.PeriodAt(now)
	s := terms{
		entitlement: *e, included: plan.Included, rate: e.overageRate(plan, period.End), starts: period.Start,
		begins: now.Add(-maxPeriod + time.Microsecond),
	}
	if e.Status != StatusPastDue {
		s.further = s.rate
	}
	if own, ok := e.ownPeriod(now); ok {
		s.begins = own.Start
	}
	return s
}

// rosterOf reads the roster of an organization; e is the entitlement from the organization's
// subscription, nil without one. Unless only is nil, the roster is only about these members.
func rosterOf(
	ctx context.Context, db bun.IDB, c *Catalogue, now time.Time, id uuid.UUID, e *Entitlement, only []uuid.UUID,
) (*roster, error) {
	p := &roster{postgres: db.Dialect().Name() == dialect.PG, now: now, organization: id, only: only}
	var err error
	if p.workspaces, p.version, err = workspacesOf(ctx, db, id); err != nil {
		return nil, err
	}
	return p, p.readTerms(ctx, db, c, e)
}

// readTerms sets the members' terms. It reads the members' own plans if the organization has no plan.
func (p *roster) readTerms(ctx context.Context, db bun.IDB, c *Catalogue, e *Entitlement) error {
	p.defaultTerms = c.termsOf(cmp.Or(e, &Entitlement{}), p.now)
	if e != nil || len(p.workspaces) == 0 {
		return nil
	}
	var own []Subscription
	err := db.NewRaw("SELECT s.* FROM users u JOIN subscriptions s ON s.user_id = u.id WHERE ? AND s.id = "+
		newestActive("id", "n.user_id = u.id"), p.isMember()).Scan(ctx, &own)
	if err != nil {
		return err
	}
	for i := range own {
		s := c.termsOf(own[i].entitlement(), p.now)
		s.user = *own[i].UserID
		p.ownTerms = append(p.ownTerms, s)
	}
	return nil
}

// workspacesOf returns the organization's workspaces, and a text that differs whenever what their
// ended periods count may.
func workspacesOf(ctx context.Context, db bun.IDB, id uuid.UUID) (ids []uuid.UUID, version string, err error) {
	var rows []struct {
		ID      uuid.UUID
		Version string
	}
	err = db.NewRaw(`SELECT w.id, CAST(COALESCE(v.version, 0) AS text) AS version FROM workspaces w LEFT JOIN usage_versions v
		ON v.workspace_id = w.id
		WHERE w.organization_id = ? ORDER BY w.id`, id).Scan(ctx, &rows)
	for _, r := range rows {
		ids = append(ids, r.ID)
		version += r.ID.String() + " " + r.Version + "\n"
	}
	return ids, version, err
}

// isMember is the condition that u is one of the members.
func (p *roster) isMember() schema.QueryAppender {
	workspace := "u.workspace_id"
	if p.only != nil && !p.postgres {
		workspace = "+u.workspace_id" // the plus keeps SQLite from reading all members by this column's index
	}
	return bun.SafeQuery("? AND "+workspace+" IN (?)", p.isOne(), bun.List(p.workspaces))
}

// isOne is the condition that u is one of only.
func (p *roster) isOne() schema.QueryAppender {
	if p.only == nil {
		return bun.SafeQuery("TRUE")
	}
	return bun.SafeQuery("u.id IN (?)", bun.List(p.only))
}

// joinTerms joins o, the terms of members who do not have the default ones.
func (p *roster) joinTerms() schema.QueryAppender {
	if len(p.ownTerms) == 0 {
		return bun.SafeQuery("")
	}
	row := ", (?, ?, ?, ?, ?, ?, ?)"
	if p.postgres { // which takes the types from the first row
		row = ", (CAST(? AS uuid), CAST(? AS text), CAST(? AS bigint), CAST(? AS bigint), CAST(? AS bigint), CAST(? AS timestamptz), " +
			"CAST(? AS timestamptz))"
	}
	args := make([]any, 0, 7*len(p.ownTerms))
	for i := range p.ownTerms {
		o := &p.ownTerms[i]
		args = append(args, o.user, o.entitlement.payer(), o.included, o.rate, o.further, o.begins, o.starts)
	}
	rows := strings.Repeat(row, len(p.ownTerms))[2:]
	return bun.SafeQuery("LEFT JOIN (WITH given (user_id, payer, included, rate, further, begins, starts) AS (VALUES "+rows+
		") SELECT * FROM given) o ON o.user_id = u.id", args...)
}

// coalesce returns a column of o, or the default where a member has none.
func (p *roster) coalesce(column string, value any) schema.QueryAppender {
	if len(p.ownTerms) == 0 {
		return bun.SafeQuery("?", value)
	}
	return bun.SafeQuery("COALESCE(o."+column+", ?)", value)
}

// isCurrent is the condition that r is the current record of one of the people.
func (p *roster) isCurrent() schema.QueryAppender {
	q := bun.SafeQuery("r.present_workspace_id IN (?) AND r.billing_period_start <= ? AND r.billing_period_start >= ? AND "+
		"r.billing_period_end > ?",
		bun.List(p.workspaces), p.now, p.now.Add(-maxPeriod+time.Microsecond), p.now)
	return bun.SafeQuery("? AND r.billing_period_start >= ? AND ?", q, p.coalesce("begins", p.defaultTerms.begins), p.isPaid())
}

// isPaid is the condition that the payer of the record r is the person's, or that the change from
// the one to the other does not end the record (Entitlement.changed). Records of earlier releases
// name no payer.
func (p *roster) isPaid() schema.QueryAppender {
	payer := p.defaultTerms.entitlement.payer()
	same := bun.SafeQuery("(r.payer IS NULL OR r.payer = ?)", p.coalesce("payer", payer))
	switch {
	case payer == "": // a plan that was assigned to the organization by hand may have ended
		return bun.SafeQuery("(? OR r.payer = ? AND ? = '')", same, PayerOf("", &p.organization), p.coalesce("payer", payer))
	case byHand(payer): // the person may have been there before the plan was
		return bun.SafeQuery("(? OR r.payer = '' AND NOT EXISTS (SELECT 1 FROM memberships j WHERE j.user_id = r.user_id AND j.since >= ?))",
			same, p.defaultTerms.entitlement.Created)
	}
	return same
}

// currentRecords returns a query of the members with a current record: their units used and
// included, of_plan among these what the plan includes, those beyond, the rate of further overage,
// and the person's spend limit.
func (p *roster) currentRecords() schema.QueryAppender {
	from := "usage_records r"
	if len(p.ownTerms) > 0 {
		from += " JOIN users u ON u.id = r.user_id"
	}
	return standings("r.email, r.suggestions_used AS used, r.overage_used AS overage, r.overage_cents AS cents, r.units_held AS held, "+
		"r.overage_held, r.suggestions_included AS given, r.included_before AS before, r.granted, ? AS of_plan, ? AS further_rate, "+
		limitsNow+" FROM "+from+" ? WHERE ?",
		p.coalesce("included", p.defaultTerms.included), p.coalesce("further", p.defaultTerms.further), p.joinTerms(), p.isCurrent())
}

// limitsNow are a member's limits. Those of a record are outdated from a change of a limit until the
// member's next decision; entitled is then false.
const limitsNow = `CASE WHEN r.entitled THEN r.spend_limit_cents
			ELSE (SELECT x.spend_limit_cents FROM users x WHERE x.id = r.user_id) END AS spend_limit,
		CASE WHEN r.entitled THEN r.member_limit
			ELSE (SELECT COALESCE(x.member_limit, o.member_limit) FROM users x JOIN workspaces w ON w.id = x.workspace_id
				JOIN organizations o ON o.id = w.organization_id WHERE x.id = r.user_id) END AS member_limit`

// members returns a query of all members that reads no usage record.
func (p *roster) members() schema.QueryAppender {
	return bun.SafeQuery("SELECT u.id, u.email, ? AS folded, u.created_at, ? AS rate FROM users u ? WHERE ?",
		p.folded(), p.coalesce("rate", p.defaultTerms.rate), p.joinTerms(), p.isMember())
}

// membersWithRecords returns a query of all members with their current record and the start of
// their period.
func (p *roster) membersWithRecords() schema.QueryAppender {
	return standings("u.id, u.email, ? AS folded, u.created_at, COALESCE(r.billing_period_start, ?) AS starts, "+
		"COALESCE(r.suggestions_used, 0) AS used, COALESCE(r.overage_used, 0) AS overage, COALESCE(r.overage_cents, 0) AS cents, "+
		"COALESCE(r.units_held, 0) AS held, COALESCE(r.overage_held, 0) AS overage_held, COALESCE(r.suggestions_included, 0) AS given, "+
		"COALESCE(r.included_before, 0) AS before, COALESCE(r.granted, 0) AS granted, ? AS of_plan, ? AS rate "+
		"FROM users u ? LEFT JOIN usage_records r ON r.user_id = u.id AND ? WHERE ?",
		p.folded(), p.coalesce("starts", p.defaultTerms.starts), p.coalesce("included", p.defaultTerms.included),
		p.coalesce("rate", p.defaultTerms.rate), p.joinTerms(), p.isCurrent(), p.isMember())
}

// standings adds to a query with given, before, granted and of_plan what is included and what is
// left of it: an upgrade counts at once, a downgrade lowers nothing before the period ends. counted
// is as in Standing.
func standings(query string, args ...any) schema.QueryAppender {
	return bun.SafeQuery(`SELECT j.*, 
			CASE WHEN j.included - (j.used - j.overage) - (j.held - j.overage_held) > 0 THEN j.used - j.overage ELSE j.used END AS counted
		FROM (SELECT g.*, g.granted + CASE WHEN g.given > g.of_plan - g.before THEN g.given ELSE g.of_plan - g.before END AS included
			FROM (SELECT ?) g) j`, bun.SafeQuery(query, args...))
}

// folded is the name as it is searched and sorted by. Names of before folded_name are as the
// database folds them.
func (p *roster) folded() schema.QueryAppender {
	if p.postgres {
		return bun.SafeQuery(`COALESCE(u.folded_name, lower(u.name)) COLLATE "C"`)
	}
	return bun.SafeQuery("COALESCE(u.folded_name, lower(u.name))")
}

// percentUsed is Standing.PercentUsed in SQL.
const percentUsed = `CASE WHEN m.included > 0 THEN m.counted * 100 / m.included WHEN m.used > 0 THEN 100 ELSE 0 END`

// levelRank is Standing.Level in SQL, as its place in WarningLevels.
var levelRank = fmt.Sprintf(`CASE WHEN m.included <= 0 THEN CASE WHEN m.used > 0 THEN 3 ELSE 0 END
	WHEN m.counted * 100 >= m.included * %d THEN 3
	WHEN m.counted * 100 >= m.included * %d THEN 2
	WHEN m.counted * 100 >= m.included * %d THEN 1 ELSE 0 END`, exceededPercent, criticalPercent, warningPercent)
