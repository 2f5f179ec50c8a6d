package models

import (
	"context"
	"fmt"
	"time"

	"github.com/uptrace/bun"
)

// Past is what a person may use now and, as far as that is known, might use at other times: what of their subscriptions and of
// their organization's there is, and since when they are in it. What has no history, such as their own limit, is as it is now.
type Past struct {
	Now Entitlement

	subscriptions []pastSubscription // newest first
}

type pastSubscription struct {
	Subscription `bun:",extend"`

	Email string
	// MemberSince is when the person came to the organization that holds it, and WorkspaceSince when their workspace did; null
	// when they were always there.
	MemberSince, WorkspaceSince bun.NullTime
}

// PastsOf reads the pasts of the people with these emails. Somebody unknown is missing from the answer.
func PastsOf(ctx context.Context, db bun.IDB, emails []string) (map[string]*Past, error) {
	entitlements, err := EntitlementsOf(ctx, db, emails)
	if err != nil {
		return nil, fmt.Errorf("read what %d people may use: %w", len(emails), err)
	}
	pasts := make(map[string]*Past, len(entitlements))
	for email, e := range entitlements {
		pasts[email] = &Past{Now: e}
	}
	var rows []pastSubscription
	if err := db.NewRaw(`SELECT s.*, u.email, u.joined_at AS member_since, w.joined_at AS workspace_since
		FROM users u JOIN workspaces w ON w.id = u.workspace_id JOIN subscriptions s ON s.organization_id = w.organization_id WHERE u.email IN (?)
		UNION ALL SELECT s.*, u.email, NULL, NULL FROM users u JOIN subscriptions s ON s.user_id = u.id WHERE u.email IN (?)
		ORDER BY created_at DESC`, bun.List(emails), bun.List(emails)).Scan(ctx, &rows); err != nil {
		return nil, fmt.Errorf("read the subscriptions of %d people: %w", len(emails), err)
	}
	for _, s := range rows {
		if p, ok := pasts[s.Email]; ok {
			p.subscriptions = append(p.subscriptions, s)
		}
	}
	return pasts, nil
}

// At is what the person might use at an instant: by the newest subscription that gave a plan then, their organization's before
// their own.
func (p *Past) At(t time.Time) Entitlement {
	e := Entitlement{WorkspaceID: p.Now.WorkspaceID, Slack: p.Now.Slack, SpendLimitCents: p.Now.SpendLimitCents}
	var gave *pastSubscription
	for i := range p.subscriptions {
		if s := &p.subscriptions[i]; s.gaveAt(t) && (gave == nil || gave.OrganizationID == nil && s.OrganizationID != nil) {
			gave = s
		}
	}
	if gave == nil {
		return e
	}
	e.PlanID, e.Anchor, e.PeriodStart, e.PeriodEnd = gave.PlanID, gave.BillingCycleAnchor, gave.CurrentPeriodStart, gave.CurrentPeriodEnd
	if gave.StripeCustomerID != nil {
		e.StripeCustomerID = *gave.StripeCustomerID
	}
	return e
}

// gaveAt says that the subscription gave the person its plan at t. One that is backdated gave it from the start of its period.
// Of a status that gives none it is not known when it began, but for the last one: a subscription that ended did so once.
func (s *pastSubscription) gaveAt(t time.Time) bool {
	began := s.CreatedAt
	if s.CurrentPeriodStart != nil && s.CurrentPeriodStart.Before(began) {
		began = *s.CurrentPeriodStart
	}
	if t.Before(began) || t.Before(s.MemberSince.Time) || t.Before(s.WorkspaceSince.Time) {
		return false
	}
	if s.Status != StatusCanceled {
		return s.Active()
	}
	ended := s.UpdatedAt
	if s.CancelAt != nil {
		ended = *s.CancelAt
	}
	return t.Before(ended)
}
