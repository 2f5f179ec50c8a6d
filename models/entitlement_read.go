package models

import (
	"context"
	"database/sql"
	"time"

	"github.com/google/uuid"
	"github.com/uptrace/bun"
	"github.com/uptrace/bun/schema"
)

// EntitlementsOf reads the current entitlements of the people with these IDs. The result has no
// entry for a person who does not exist.
func EntitlementsOf(ctx context.Context, db bun.IDB, users []uuid.UUID) (map[uuid.UUID]Entitlement, error) {
	found := make(map[uuid.UUID]Entitlement, len(users))
	err := eachRow(ctx, db, entitlementsQuery(db, bun.SafeQuery("k.id IN (?)", bun.List(users))),
		func(row scanner) error { return scanPresent(row, found) })
	return found, err
}

func entitlementsQuery(db bun.IDB, which schema.QueryAppender) *bun.RawQuery {
	return db.NewRaw("SELECT k.id, "+entitlementColumns+" FROM users k "+EntitlementJoins+" WHERE ?", which)
}

func scanPresent(row scanner, found map[uuid.UUID]Entitlement) error {
	var user uuid.UUID
	var e Entitlement
	err := scanEntitlement(row, &user, &e)
	found[user] = e
	return err
}

// entitlementAt reads a person's entitlement at an instant; the zero value if the person does not
// exist.
func entitlementAt(ctx context.Context, tx bun.IDB, user uuid.UUID, at time.Time) (e Entitlement, err error) {
	err = eachRow(ctx, tx, entitlementAtQuery(tx, false, RecordKey{UserID: user}, at),
		func(row scanner) error { return scanEntitlement(row, &user, &e) })
	return e, err
}

func entitlementAtQuery(db bun.IDB, postgres bool, person RecordKey, at time.Time) *bun.RawQuery {
	which := bun.SafeQuery("id = ?", person.UserID)
	if person.UserID == uuid.Nil {
		which = bun.SafeQuery("email = ?", person.Email)
	}
	instant := "?"
	if postgres {
		instant = "CAST(? AS timestamptz)"
	}
	return db.NewRaw("SELECT k.id, "+entitlementColumns+" FROM (SELECT id, "+instant+" AS at FROM users WHERE ?) k "+entitlementJoinsAt,
		at, which)
}

func scanEntitlement(rows scanner, user *uuid.UUID, e *Entitlement, before ...any) error {
	var team, slackUser, plan, customer, status sql.NullString
	var created bun.NullTime
	err := rows.Scan(append(before, user, &e.WorkspaceID, &e.MemberOf, &team, &slackUser, &e.SpendLimitCents, &plan, &customer,
		&e.OrganizationID, &status, &e.AtStripe,
		&e.OverageRateCents, &e.Anchor, &e.PeriodStart, &e.PeriodEnd, &e.SubscriptionID, &created, &e.TrialEnd, &e.MemberLimit,
		&e.OrganizationSpendLimitCents)...)
	if slackUser.Valid {
		e.Slack = SlackIdentity{TeamID: team.String, UserID: slackUser.String}
	}
	e.PlanID, e.StripeCustomerID, e.Status, e.Created = PlanID(plan.String), customer.String, SubscriptionStatus(status.String), created.UTC()
	return err
}

// organizationEntitlement returns the entitlement from the organization's subscription; nil without
// an active one.
func organizationEntitlement(ctx context.Context, db bun.IDB, id uuid.UUID) (*Entitlement, error) {
	var newest []Subscription
	err := db.NewSelect().Model(&newest).Where("id = "+newestActive("id", "n.organization_id = ?"), id).Scan(ctx)
	if err != nil || len(newest) == 0 {
		return nil, err
	}
	s := &newest[0]
	return s.entitlement(), nil
}
