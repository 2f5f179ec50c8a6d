package models

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/uptrace/bun"
)

// LimitChange sets a limit.
type LimitChange struct {
	// To is the new limit; nil means no limit.
	To *int64
	// Seen is the limit that the person who changes it saw. Unless it is the current one, the
	// change fails with CodeChangedMeanwhile.
	Seen *int64
	// Unseen means that the change applies whatever the current limit is.
	Unseen bool
}

func (c *LimitChange) check(current *int64) error {
	if c.Unseen || equal(c.Seen, current) {
		return nil
	}
	return &Error{Code: CodeChangedMeanwhile, Detail: "Someone else changed this limit in the meantime. Check it and try again."}
}

func equal[T comparable](a, b *T) bool {
	return a == nil && b == nil || a != nil && b != nil && *a == *b
}

// OrganizationChange is a change of an organization's settings. Nil fields do not change.
type OrganizationChange struct {
	Name *string
	// SpendLimit is in cents: the maximum price of the overage that the organization's subscription
	// pays for in a billing period.
	SpendLimit *LimitChange
	// MemberLimit is in units: the default maximum for each member in a billing period.
	MemberLimit *LimitChange
}

// limitStep is the number of people whose usage one transaction counts when a limit is set. The
// gate's calls for these people wait that long.
const limitStep = 100

// ErrUnfinishedLimit means that a spend limit is stored, but not in force yet.
var ErrUnfinishedLimit = errors.New("the spend limit is stored and will apply soon")

// SetOrganization changes an organization. A member limit applies from the next decision. A spend
// limit applies when SetOrganization returns: before, it counts the overage of the current billing
// period, in steps that the gate does not wait for. If it fails in between, FinishSpendLimits
// continues, and the error is ErrUnfinishedLimit. It returns an Error with CodeUnknownOrganization,
// CodeChangedMeanwhile or CodeInvalidRequest.
func SetOrganization(ctx context.Context, db *DB, c *Catalogue, now time.Time, actor string, id uuid.UUID,
	change OrganizationChange) error {
	var unfinished bool
	err := db.InTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		// The locks are taken in the gate's order: a new member limit locks all members, and a new
		// spend limit the organization's records.
		if change.MemberLimit != nil && db.Postgres {
			if _, err := tx.ExecContext(ctx, "SELECT u.id FROM users u JOIN workspaces w ON w.id = u.workspace_id "+
				"WHERE w.organization_id = ? ORDER BY u.email FOR UPDATE OF u", id); err != nil {
				return err
			}
		}
		var found []Organization
		if err := lockRows(tx.NewSelect().Model(&found).Where("id = ?", id), "NO KEY UPDATE").Scan(ctx); err != nil {
			return err
		}
		if len(found) == 0 {
			return unknownOrganization(id)
		}
		o, before := found[0], found[0]
		var details []string
		if change.Name != nil {
			name := strings.TrimSpace(*change.Name)
			if err := checkOrganization(name, nil); err != nil {
				return &Error{Code: CodeInvalidRequest, Path: "name", Detail: fmt.Sprintf("must be 1 to %d printable characters", maxOrganizationName)}
			}
			if name != o.Name {
				details = append(details, fmt.Sprintf("name from %q to %q", o.Name, name))
				o.Name, o.Automatic = name, false
			}
		}
		if l := change.MemberLimit; l != nil && !equal(l.To, o.MemberLimit) {
			if err := l.check(o.MemberLimit); err != nil {
				return err
			}
			details = append(details, "member limit from "+unitsText(o.MemberLimit, "no limit")+" to "+unitsText(l.To, "no limit"))
			o.MemberLimit = l.To
		}
		unfinished = change.SpendLimit != nil // also if an earlier call could not finish
		if l := change.SpendLimit; l != nil && !equal(l.To, o.SpendLimitCents) {
			if err := l.check(o.SpendLimitCents); err != nil {
				return err
			}
			details = append(details, "spend limit from "+c.limitText(o.SpendLimitCents)+" to "+c.limitText(l.To))
			o.SpendLimitCents = l.To
		}
		if len(details) == 0 {
			return nil
		}
		if _, err := tx.NewUpdate().Model(&o).Column("name", "automatic", "spend_limit_cents", "member_limit").WherePK().Exec(ctx); err != nil {
			return err
		}
		if !equal(before.SpendLimitCents, o.SpendLimitCents) {
			if err := o.changeRecords(ctx, tx, now, before.SpendLimitCents); err != nil {
				return err
			}
		}
		for _, detail := range details {
			if err := AuditOrganization(ctx, tx, now, actor, "organization.set", id.String(), detail, id); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil && change.MemberLimit != nil {
		err = finishMemberLimit(ctx, db, id)
	}
	if err == nil && unfinished {
		if err = FinishSpendLimits(ctx, db, c, now, &id); err != nil {
			err = fmt.Errorf("%w: %w", ErrUnfinishedLimit, err)
		}
	}
	if err != nil {
		return fmt.Errorf("set the organization %s: %w", id, err)
	}
	return nil
}

// changeRecords changes the spend limit of a locked organization's record of the current period.
func (o *Organization) changeRecords(ctx context.Context, tx bun.Tx, now time.Time, before *int64) error {
	cents := o.SpendLimitCents
	current := tx.NewUpdate().Model((*OrganizationRecord)(nil)).Where("organization_id = ? AND billing_period_end > ?", o.ID, now)
	switch {
	case cents == nil:
		_, err := current.Set("spend_limit_cents = NULL, counted = TRUE").Exec(ctx)
		return err
	case before != nil:
		_, err := current.Set("spend_limit_cents = ?", cents).Where("spend_limit_cents IS NOT NULL").Exec(ctx)
		return err
	}
	if _, err := current.Set("counted = FALSE").Exec(ctx); err != nil {
		return err
	}
	e, err := organizationEntitlement(ctx, tx, o.ID)
	if err != nil || e == nil {
		return err
	}
	period := e.PeriodAt(now)
	_, err = tx.NewInsert().Model(&OrganizationRecord{
		OrganizationID: o.ID, Payer: e.payer(), BillingPeriodStart: period.Start, BillingPeriodEnd: period.End, CreatedAt: now,
	}).On("CONFLICT (payer, billing_period_start) DO NOTHING").Exec(ctx)
	return err
}

// finishMemberLimit marks the records of people whom other transactions made while the limit
// changed. The trigger on organizations could not see them.
func finishMemberLimit(ctx context.Context, db *DB, id uuid.UUID) error {
	if !db.Postgres {
		return nil
	}
	if err := waitForNewMembers(ctx, db, id); err != nil {
		return err
	}
	return db.InTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		_, err := tx.ExecContext(ctx, `SELECT tollgate_entitlement_changed(ARRAY(SELECT u.id FROM users u
			JOIN workspaces w ON w.id = u.workspace_id JOIN organizations home ON home.id = w.organization_id
			JOIN usage_records r ON r.user_id = u.id
			WHERE home.id = ? AND r.entitled AND r.billing_period_end > now() AND r.member_limit IS DISTINCT FROM `+memberLimit+`))`, id)
		return err
	})
}

// waitForNewMembers waits for transactions that make people of an organization: such a transaction
// holds a lock on the workspace.
func waitForNewMembers(ctx context.Context, db *DB, id uuid.UUID) error {
	return waitFor(ctx, db, "SELECT id FROM workspaces WHERE organization_id = ? ORDER BY id FOR UPDATE", id)
}

func unitsText(units *int64, none string) string {
	if units == nil {
		return none
	}
	return FormatCount(*units)
}

// FinishSpendLimits finishes the changes of spend limits whose steps are not complete: of one
// organization, or of all if id is nil. Any number of processes may do so at once.
func FinishSpendLimits(ctx context.Context, db *DB, c *Catalogue, now time.Time, id *uuid.UUID) error {
	var rows []OrganizationRecord
	q := db.NewSelect().Model(&rows).Where("NOT counted OR spend_limit_cents IS NULL").Order("id")
	if id != nil {
		q = q.Where("organization_id = ?", *id)
	}
	if err := q.Scan(ctx); err != nil {
		return fmt.Errorf("find unfinished spend limits: %w", err)
	}
	var errs []error
	for i := range rows {
		o := &rows[i]
		var err error
		if o.removed() {
			err = o.remove(ctx, db)
		} else {
			err = o.count(ctx, db, c, now)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("finish the spend limit of the organization %s: %w", o.OrganizationID, err))
		}
	}
	return errors.Join(errs...)
}

// count counts what the row's payer pays for, and then puts the limit in force.
func (o *OrganizationRecord) count(ctx context.Context, db *DB, c *Catalogue, now time.Time) error {
	// Preparing a member's record points it to the row. Whoever prepares it from now on does so,
	// too. An earlier transaction that does not yet know the limit holds the lock on its person.
	if err := waitForNewMembers(ctx, db, o.OrganizationID); err != nil {
		return err
	}
	after := ""
	for {
		var members []User
		err := db.NewSelect().Model(&members).Column("id", "email").
			Where("workspace_id IN (SELECT id FROM workspaces WHERE organization_id = ?) AND email > ?", o.OrganizationID, after).
			Order("email").Limit(limitStep).Scan(ctx)
		if err != nil {
			return err
		}
		if len(members) == 0 {
			break
		}
		ids := make([]uuid.UUID, len(members))
		for i := range members {
			ids[i] = members[i].ID
		}
		// RefitRecords does not wait for people who have no record yet.
		if err := waitFor(ctx, db, "SELECT id FROM users WHERE id IN (?) ORDER BY email FOR UPDATE", bun.List(ids)); err != nil {
			return err
		}
		if err := RefitRecords(ctx, db, c, now, ids); err != nil {
			return err
		}
		after = members[len(members)-1].Email
	}
	// The others have left the organization, or have a further record of the period.
	for {
		n, err := o.point(ctx, db, &o.ID, "organization_record_id IS DISTINCT FROM ?")
		if err != nil {
			return err
		}
		if n == 0 {
			break
		}
	}
	return db.InTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		var organization []Organization
		if err := lockRows(tx.NewSelect().Model(&organization).Where("id = ?", o.OrganizationID), "NO KEY UPDATE").Scan(ctx); err != nil {
			return err
		}
		var limit *int64
		if len(organization) > 0 {
			limit = organization[0].SpendLimitCents
		}
		_, err := tx.NewUpdate().Model(o).Set("counted = TRUE, spend_limit_cents = ?", limit).WherePK().Where("NOT counted").Exec(ctx)
		return err
	})
}

// waitFor waits until the transactions that have locked the rows of a query end. SQLite has only one
// at a time.
func waitFor(ctx context.Context, db *DB, query string, args ...any) error {
	if !db.Postgres {
		return nil
	}
	return db.InTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		_, err := tx.ExecContext(ctx, query, args...)
		return err
	})
}

// remove removes the row of a limit that was removed.
func (o *OrganizationRecord) remove(ctx context.Context, db *DB) error {
	for {
		n, err := o.point(ctx, db, nil, "organization_record_id = ?")
		if err != nil {
			return err
		}
		if n > 0 {
			continue
		}
		var left bool
		err = db.InTx(ctx, func(ctx context.Context, tx bun.Tx) error {
			var current []OrganizationRecord
			if err := ForUpdate(tx.NewSelect().Model(&current).Where("id = ?", o.ID)).Scan(ctx); err != nil {
				return err
			}
			if len(current) == 0 || !current[0].removed() {
				left = false
				return nil // the limit was set again
			}
			// Under the lock, no transaction can point a record to the row.
			var err error
			if left, err = o.records(tx).Where("organization_record_id = ?", o.ID).Exists(ctx); err != nil || left {
				return err
			}
			_, err = tx.NewDelete().Model(o).WherePK().Exec(ctx)
			return err
		})
		if err != nil || !left {
			return err
		}
	}
}

// records selects the usage records of the row's payer and period.
func (o *OrganizationRecord) records(db bun.IDB) *bun.SelectQuery {
	return db.NewSelect().Model((*UsageRecord)(nil)).
		Where("payer = ? AND payer <> '' AND billing_period_start >= ? AND billing_period_start < ?",
			o.Payer, o.BillingPeriodStart, o.BillingPeriodEnd)
}

// point sets the organization's record of the next usage records for which a condition on the
// row's ID is true. It returns their number; 0 if no more are left, or if the row has been counted
// or the limit set again or removed since it was read.
func (o *OrganizationRecord) point(ctx context.Context, db *DB, to *int64, condition string) (n int, err error) {
	err = db.InTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		var records []*UsageRecord
		err := ForUpdate(o.records(tx).Where(condition, o.ID).Order("email", "billing_period_start").Limit(limitStep)).Scan(ctx, &records)
		if n = len(records); err != nil || n == 0 {
			return err
		}
		before, after := map[int64]spent{}, map[int64]spent{}
		ids := make([]int64, n)
		for i, r := range records {
			if ids[i] = r.ID; r.OrganizationRecordID != nil {
				before[*r.OrganizationRecordID] = before[*r.OrganizationRecordID].plus(r)
			}
			if to != nil {
				after[*to] = after[*to].plus(r)
			}
		}
		rows := maps.Clone(before)
		rows[o.ID] = before[o.ID]
		var locked []OrganizationRecord
		if err := lockRows(tx.NewSelect().Model(&locked).Where("id IN (?)", bun.List(slices.Sorted(maps.Keys(rows)))).Order("id"),
			"NO KEY UPDATE").Scan(ctx); err != nil {
			return err
		}
		i := slices.IndexFunc(locked, func(current OrganizationRecord) bool { return current.ID == o.ID })
		if i < 0 || locked[i].Counted != o.Counted || locked[i].removed() != o.removed() {
			n = 0
			return nil
		}
		if _, err := tx.NewUpdate().Model((*UsageRecord)(nil)).Set("organization_record_id = ?", to).Where("id IN (?)", bun.List(ids)).
			Where("payer = ? AND payer <> '' AND billing_period_start >= ? AND billing_period_start < ?", o.Payer, o.BillingPeriodStart,
				o.BillingPeriodEnd).Exec(ctx); err != nil {
			return err
		}
		for _, id := range slices.Sorted(maps.Keys(rows)) {
			if err := addSpent(ctx, db, tx, id, before[id], after[id]); err != nil {
				return err
			}
		}
		return nil
	})
	return n, err
}

// ExpireOrganizationHolds expires the lapsed holds that an organization's record counts, in steps.
func ExpireOrganizationHolds(ctx context.Context, db *DB, c *Catalogue, now time.Time, id int64) error {
	for {
		var found []OrganizationRecord
		if err := db.NewSelect().Model(&found).Where("id = ?", id).Scan(ctx); err != nil || len(found) == 0 || !found[0].HoldsLapsed(now) {
			return err
		}
		o := &found[0]
		var lapsed []UsageRecord
		err := o.records(db).Column("user_id", "billing_period_start").Where("organization_record_id = ? AND holds_expire_at <= ?", o.ID, now).
			Limit(limitStep).Scan(ctx, &lapsed)
		if err != nil {
			return fmt.Errorf("find the lapsed holds of the organization %s: %w", o.OrganizationID, err)
		}
		if len(lapsed) > 0 {
			wants := make([]RecordKey, len(lapsed))
			for i, r := range lapsed {
				wants[i] = RecordKey{UserID: r.UserID, At: r.BillingPeriodStart.UTC()}
			}
			if err := PrepareRecords(ctx, db, c, now, wants); err != nil {
				return err
			}
			continue
		}
		err = db.InTx(ctx, func(ctx context.Context, tx bun.Tx) error {
			// Each transaction that makes a hold updates the row. Under its lock, the next statement
			// sees all of them.
			if err := ForUpdate(tx.NewSelect().Model((*OrganizationRecord)(nil)).Column("id").Where("id = ?", o.ID)).
				Scan(ctx, new(int64)); err != nil {
				return err
			}
			first := o.records(tx).ColumnExpr("MIN(holds_expire_at)").Where("organization_record_id = ?", o.ID)
			_, err := tx.NewUpdate().Model(o).Set("holds_expire_at = (?)", first).WherePK().Exec(ctx)
			return err
		})
		if err != nil {
			return fmt.Errorf("find the next hold of the organization %s: %w", o.OrganizationID, err)
		}
	}
}
