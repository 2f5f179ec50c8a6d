package enforcement

import (
	"database/sql"
	"time"

	"github.com/google/uuid"

	"tollgate/models"
)

func scanRecord(rows *sql.Rows) (i int, r *models.UsageRecord, err error) {
	r = &models.UsageRecord{}
	err = rows.Scan(&i, &r.ID, &r.UserID, &r.Email, &r.BillingPeriodStart, &r.BillingPeriodEnd, &r.PlanID,
		&r.SuggestionsIncluded, &r.Granted, &r.IncludedBefore, &r.SuggestionsUsed, &r.OverageUsed, &r.OverageCents,
		&r.OverageRateCents, &r.PastDue, &r.SpendLimitCents, &r.MemberLimit, &r.WorkspaceID, &r.SlackTeamID,
		&r.SlackUserID, &r.StripeCustomerID, &r.Entitled, &r.OrganizationRecordID, &r.GrantsExpireAt, &r.MessageLevel, &r.LimitRaises,
		&r.UnitsHeld, &r.OverageHeld, &r.OverageCentsHeld, &r.HoldsExpireAt, &r.Daily)
	return i, r, err
}

// intoFigures returns the destinations for the columns of figures.
func intoFigures(f *models.Figures) []any {
	return []any{
		&f.PlanID, &f.BillingPeriodStart, &f.BillingPeriodEnd,
		&f.UsedAfter, &f.OverageAfter, &f.OverageCentsAfter, &f.HeldAfter, &f.OverageHeldAfter,
		&f.Included, &f.OverageRateCents, &f.SpendLimitCents, &f.MemberLimit, &f.NextRefusal,
	}
}

func (f *found) scanEvent(rows *sql.Rows) error {
	e := &models.UsageEvent{}
	columns := []any{&e.ID, &e.UserID, &e.Email, &e.Quantity, &e.IdempotencyKey, &e.HoldID, &e.Message}
	if err := rows.Scan(append(columns, intoFigures(&e.Figures)...)...); err != nil {
		return err
	}
	e.BillingPeriodStart, e.BillingPeriodEnd = e.BillingPeriodStart.UTC(), e.BillingPeriodEnd.UTC()
	if e.HoldID != nil {
		f.settled[*e.HoldID] = e
	} else {
		f.events[keyOf[uuid.UUID]{e.UserID, *e.IdempotencyKey}] = e
	}
	return nil
}

func (f *found) scanOrganization(rows *sql.Rows) error {
	var r models.OrganizationRecord
	if err := rows.Scan(&r.ID, &r.OverageCents, &r.OverageCentsHeld, &r.SpendLimitCents, &r.HoldsExpireAt); err != nil {
		return err
	}
	f.organizations[r.ID] = newOrganization(r)
	return nil
}

// scanHold reads a hold. A hold that was found both by key and by ID is one value.
func (f *found) scanHold(rows *sql.Rows) error {
	h := &models.UsageHold{}
	columns := []any{
		&h.ID, &h.UserID, &h.Email, &h.Quantity, &h.OverageQuantity, &h.OverageCents, &h.IdempotencyKey, &h.State,
		&h.ExpiresAt, &h.CreatedAt, &h.RecordID, &h.Message,
	}
	if err := rows.Scan(append(columns, intoFigures(&h.Figures)...)...); err != nil {
		return err
	}
	h.BillingPeriodStart, h.BillingPeriodEnd = h.BillingPeriodStart.UTC(), h.BillingPeriodEnd.UTC()
	h.ExpiresAt, h.CreatedAt = h.ExpiresAt.UTC(), h.CreatedAt.UTC()
	if first, ok := f.holds[h.ID]; ok {
		h = first
	}
	f.holds[h.ID], f.holdKeys[keyOf[uuid.UUID]{h.UserID, h.IdempotencyKey}] = h, h
	return nil
}

// optional returns nil or the value itself, because the driver needs reflection for a pointer.
func optional[T any](v *T) any {
	if v == nil {
		return nil
	}
	if id, ok := any(*v).(uuid.UUID); ok {
		return id.String()
	}
	return *v
}

// liteTime formats a time as bun does on SQLite, so that times compare as text.
func liteTime(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05.999999-07:00") }
