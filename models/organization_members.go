package models

import (
	"context"
	"database/sql"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/uptrace/bun"
	"github.com/uptrace/bun/schema"
	"golang.org/x/sync/errgroup"
)

// MemberSort is a column by which the members of an organization can be sorted.
type MemberSort string

// The columns, as they appear in the page's URL.
const (
	SortName       MemberSort = "name"
	SortEmail      MemberSort = "email"
	SortUsed       MemberSort = "used"
	SortIncluded   MemberSort = "included"
	SortPercent    MemberSort = "percent"
	SortLevel      MemberSort = "level"
	SortOverage    MemberSort = "overage"
	SortLastPeriod MemberSort = "last"
)

// MemberQuery filters, sorts and pages the members of an organization.
type MemberQuery struct {
	// Search is a part of a name or an email, ignoring case; empty for all members.
	Search string
	// Level filters by one warning level; empty for all levels.
	Level WarningLevel
	// Sort and Descending are the sort order. Ties are sorted by email. Members without a name or a
	// last period sort before the others.
	Sort       MemberSort
	Descending bool
	// Page counts from 1; a page after the last one is the last one. PerPage is the number of
	// members on a page; 0 means all on one page.
	Page, PerPage int
	// Past is a period that has ended; nil means the current one.
	Past *Period
}

// MemberList is the result of a query.
type MemberList struct {
	// Rows are the members on the page.
	Rows []MemberUsage
	// Page is the number of the page.
	Page int
	// Found is the number of members on all pages of the result. Total is the number of members of
	// the organization.
	Found, Total int64
	// Billed means that the overage of at least one found member has a price.
	Billed bool
}

// FindMembers returns a page of an organization's members, including those without usage. Their
// standings are those of the gate, except that expired holds may still be counted.
func FindMembers(ctx context.Context, db bun.IDB, c *Catalogue, now time.Time, id uuid.UUID, q MemberQuery) (MemberList, error) {
	return listMembers(ctx, db, c, now, id, q, nil)
}

// listMembers is FindMembers among some members, all of whom are on the page and not counted; nil
// means all members.
func listMembers(
	ctx context.Context, db bun.IDB, c *Catalogue, now time.Time, id uuid.UUID, q MemberQuery, only []uuid.UUID,
) (MemberList, error) {
	var list MemberList
	var err error
	if q.Past != nil {
		list, err = findPastMembers(ctx, db, id, *q.Past, q, only)
	} else {
		list, err = findMembers(ctx, db, c, now, id, q, only)
	}
	if err != nil {
		return MemberList{}, fmt.Errorf("list the members of the organization %s: %w", id, err)
	}
	return list, nil
}

func findMembers(
	ctx context.Context, db bun.IDB, c *Catalogue, now time.Time, id uuid.UUID, q MemberQuery, only []uuid.UUID,
) (MemberList, error) {
	list := MemberList{Page: 1}
	e, err := organizationEntitlement(ctx, db, id)
	if err != nil {
		return list, err
	}
	p, err := rosterOf(ctx, db, c, now, id, e, only)
	if err != nil || len(p.workspaces) == 0 {
		return list, err
	}
	read := func(limit, offset int) ([]MemberUsage, error) { return p.readMembers(ctx, db, c, &q, limit, offset) }
	if only != nil {
		list.Rows, err = read(len(only), 0)
		return list, err
	}
	err = q.readPage(&list, func() error { return p.count(ctx, db, &q, &list) }, read)
	return list, err
}

// readPage counts the members and reads a page of them, at the same time. If the page is after the
// last one, it then reads the last one.
func (q *MemberQuery) readPage(list *MemberList, count func() error, read func(limit, offset int) ([]MemberUsage, error)) error {
	limit := q.PerPage
	if limit <= 0 {
		limit = math.MaxInt32
	}
	page := max(1, min(q.Page, math.MaxInt32/limit))
	var rows []MemberUsage
	var both errgroup.Group
	both.Go(Recovered(count))
	both.Go(Recovered(func() (err error) { rows, err = read(limit, (page-1)*limit); return err }))
	err := both.Wait()
	last := max(1, (list.Found+int64(limit)-1)/int64(limit))
	if err == nil && int64(page) > last {
		page = int(last)
		rows, err = read(limit, (page-1)*limit)
	}
	list.Page, list.Rows = page, rows
	return err
}

// readMembers reads the members that the query finds, from an offset on.
func (p *roster) readMembers(
	ctx context.Context, db bun.IDB, c *Catalogue, q *MemberQuery, limit, offset int,
) (found []MemberUsage, err error) {
	if q.Sort == SortLastPeriod && q.Level == "" {
		if err := p.compareStarts(ctx, db); err != nil {
			return nil, err
		}
	}
	key, join := p.sortKey(q.Sort)
	direction := bun.SafeQuery("ASC")
	if q.Descending {
		direction = bun.SafeQuery("DESC")
	}
	// First find the members on the page, reading only what their order needs. The other columns
	// are read only for them.
	rows, err := db.QueryContext(ctx, `SELECT u.id, u.email, u.name, u.role, u.created_at, u.spend_limit_cents, u.member_limit, r.id,
	r.billing_period_start, r.billing_period_end,
			r.suggestions_included, r.granted, r.included_before, r.suggestions_used, r.overage_used, r.overage_cents, r.units_held, r.overage_held,
			r.overage_cents_held, last.suggestions_used
		FROM (SELECT m.id, m.email, ? AS sort_key FROM (?) m ? WHERE ? ORDER BY sort_key ?, m.email LIMIT ? OFFSET ?) page
		JOIN users u ON u.id = page.id AND ? ? LEFT JOIN usage_records r ON r.user_id = u.id AND ?
		LEFT JOIN usage_records last ON last.user_id = u.id AND last.billing_period_end = COALESCE(r.billing_period_start, ?)
		AND last.billing_period_start > ?
			AND last.billing_period_start < ? AND last.billing_period_end <= ?
		ORDER BY page.sort_key ?, page.email`,
		key, p.ordered(q), join, p.found(q), direction, limit, offset,
		p.isOne(), p.joinTerms(), p.isCurrent(), p.coalesce("starts", p.defaultTerms.starts), p.now.Add(-2*maxPeriod), p.now, p.now, direction)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	own := make(map[uuid.UUID]*Entitlement, len(p.ownTerms))
	for i := range p.ownTerms {
		own[p.ownTerms[i].user] = &p.ownTerms[i].entitlement
	}
	for rows.Next() {
		var m MemberUsage
		var email string
		var spendLimit *int64
		var recordID, included, granted, before, used, overage, cents, held, overageHeld, centsHeld, last sql.NullInt64
		var start, end sql.NullTime
		if err := rows.Scan(&m.ID, &email, &m.Name, &m.Role, &m.SignedUp, &spendLimit, &m.MemberLimit, &recordID, &start, &end, &included,
			&granted, &before, &used, &overage, &cents, &held, &overageHeld, &centsHeld, &last); err != nil {
			return nil, err
		}
		entitlement := p.defaultTerms.entitlement
		if e, ok := own[m.ID]; ok {
			entitlement = *e
		}
		entitlement.SpendLimitCents = spendLimit
		var record *UsageRecord
		if recordID.Valid {
			record = &UsageRecord{
				ID: recordID.Int64, UserID: m.ID, Email: email, BillingPeriodStart: start.Time, BillingPeriodEnd: end.Time,
				SuggestionsIncluded: included.Int64, Granted: granted.Int64, IncludedBefore: before.Int64,
				SuggestionsUsed: used.Int64, OverageUsed: overage.Int64, OverageCents: cents.Int64,
				UnitsHeld: held.Int64, OverageHeld: overageHeld.Int64, OverageCentsHeld: centsHeld.Int64,
			}
		}
		m.SignedUp = m.SignedUp.UTC()
		m.Standing = c.Foresee(email, &entitlement, []*UsageRecord{record}, p.now)
		m.Standing.UserID = m.ID // also before the first record
		if last.Valid || m.SignedUp.Before(m.Standing.Period.Start) {
			m.LastPeriod = &last.Int64
		}
		found = append(found, m)
	}
	return found, rows.Err()
}

// count counts all members and those that the query finds. Without a level in the query, it reads
// no usage records.
func (p *roster) count(ctx context.Context, db bun.IDB, q *MemberQuery, list *MemberList) error {
	from := p.membersWithRecords()
	if q.Level == "" {
		from = p.members()
	}
	var counted struct{ Total, Found, Rate int64 }
	err := db.NewRaw(`SELECT COUNT(*) AS total, COUNT(CASE WHEN ? THEN 1 END) AS found, COALESCE(MAX(CASE
		WHEN ? THEN m.rate END), 0) AS rate FROM (?) m`,
		p.found(q), p.found(q), from).Scan(ctx, &counted)
	list.Total, list.Found, list.Billed = counted.Total, counted.Found, counted.Rate > 0
	return err
}

// ordered returns a query of all members with the columns that the filter and the order need.
func (p *roster) ordered(q *MemberQuery) schema.QueryAppender {
	if q.Level == "" && (q.Sort == SortName || q.Sort == SortEmail || q.Sort == SortLastPeriod && p.inStep) {
		return p.members()
	}
	return p.membersWithRecords()
}

// compareStarts checks whether the current period of every member began when the default one did,
// as it usually does. Then members can be sorted by their last period without reading their current
// records.
func (p *roster) compareStarts(ctx context.Context, db bun.IDB) error {
	if len(p.ownTerms) > 0 {
		return nil
	}
	var others bool
	err := db.NewRaw(`SELECT EXISTS (SELECT 1 FROM usage_records r WHERE ? AND r.billing_period_start < ?) OR EXISTS (SELECT 1
		FROM usage_records r WHERE ? AND r.billing_period_start > ?)`,
		p.isCurrent(), p.defaultTerms.starts, p.isCurrent(), p.defaultTerms.starts).Scan(ctx, &others)
	p.inStep = err == nil && !others
	return err
}

// found returns the condition that the query finds a member m.
func (p *roster) found(q *MemberQuery) schema.QueryAppender {
	level := bun.SafeQuery("TRUE")
	if q.Level != "" {
		level = bun.SafeQuery("("+levelRank+") = ?", slices.Index(WarningLevels, q.Level))
	}
	search := strings.ToLower(q.Search)
	switch {
	case search == "":
		return level
	case !utf8.ValidString(search) || strings.ContainsRune(search, 0):
		return bun.SafeQuery("FALSE") // no name has it, and PostgreSQL takes no such text
	}
	position := positionFunction(p.postgres)
	return bun.SafeQuery("? AND ("+position+"(m.email, ?) > 0 OR "+position+"(m.folded, ?) > 0)", level, search, search)
}

// sortKey returns the expression that a column sorts m by, and the join that it needs.
func (p *roster) sortKey(by MemberSort) (key, join schema.QueryAppender) {
	join = bun.SafeQuery("")
	switch by {
	case SortName:
		return bun.SafeQuery("m.folded"), join
	case SortEmail:
		return bun.SafeQuery("m.email"), join
	case SortIncluded:
		return bun.SafeQuery("m.included"), join
	case SortPercent:
		return bun.SafeQuery(percentUsed), join
	case SortLevel:
		return bun.SafeQuery(levelRank), join
	case SortOverage:
		return bun.SafeQuery("m.cents"), join
	case SortLastPeriod:
		starts := bun.SafeQuery("m.starts")
		if p.inStep {
			starts = bun.SafeQuery("?", p.defaultTerms.starts)
		}
		return bun.SafeQuery("COALESCE(b.suggestions_used, CASE WHEN m.created_at < ? THEN 0 ELSE -1 END)", starts),
			bun.SafeQuery(`LEFT JOIN usage_records b ON b.user_id = m.id AND b.present_workspace_id IN (?) AND b.billing_period_start > ?
			AND b.billing_period_start < ?
				AND b.billing_period_end <= ? AND b.billing_period_end = ?`, bun.List(p.workspaces), p.now.Add(-2*maxPeriod), p.now, p.now, starts)
	}
	return bun.SafeQuery("m.used"), join
}

// MemberUsage is a member of an organization in the current billing period.
type MemberUsage struct {
	ID   uuid.UUID
	Name string
	Role Role
	// MemberLimit is the member's own limit in units; nil means the organization's default.
	MemberLimit *int64
	// SignedUp is when the member was created.
	SignedUp time.Time
	// Standing is the standing that the gate decides with, except that expired holds may still be
	// counted.
	Standing Standing
	// LastPeriod is the units used in the previous period; nil if the member did not exist then.
	LastPeriod *int64
}

// MemberOf returns the member of an organization with an ID; nil if there is none.
func MemberOf(ctx context.Context, db bun.IDB, organization, id uuid.UUID) (*User, error) {
	var found []User
	err := db.NewSelect().Model(&found).Where("id = ?", id).
		Where("workspace_id IN (SELECT w.id FROM workspaces w WHERE w.organization_id = ?)", organization).Scan(ctx)
	if err != nil {
		return nil, fmt.Errorf("find the member %s: %w", id, err)
	}
	if len(found) == 0 {
		return nil, nil
	}
	found[0].CreatedAt = found[0].CreatedAt.UTC()
	return &found[0], nil
}
