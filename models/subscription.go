package models

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/uptrace/bun"
)

// Subscriber is the holder of a subscription: either a person or an organization.
type Subscriber struct {
	Email          string
	OrganizationID *uuid.UUID
}

func (s Subscriber) String() string {
	if s.OrganizationID != nil {
		return s.OrganizationID.String()
	}
	return s.Email
}

// PlanByHand is a request to assign a plan by hand.
type PlanByHand struct {
	Subscriber
	// Plan is a plan of the catalog. FreePlan only ends the assigned plan.
	Plan PlanID
	// UserID, unless it is zero, must be the ID of the person with the email: the address may have moved
	// to another person since the operator saw it.
	UserID uuid.UUID
	// Actor is who assigns the plan, for the audit log; the shell if empty.
	Actor string
	// Seen is nil except in an operator's form: the ID of the assigned plan that the operator saw; the
	// zero value if there was none. If it changed since, AssignPlan returns an Error with
	// CodeChangedMeanwhile. If the wanted plan already applies, AssignPlan changes nothing and adds
	// nothing to the audit log.
	Seen *uuid.UUID
}

// audit adds an entry about the subscriber to the audit log.
func (p *PlanByHand) audit(ctx context.Context, tx bun.Tx, now time.Time, action, detail string) error {
	actor := p.Actor
	if actor == "" {
		actor = ActorShell
	}
	if p.OrganizationID != nil {
		return AuditOrganization(ctx, tx, now, actor, action, p.String(), detail, *p.OrganizationID)
	}
	return Audit(ctx, tx, now, actor, action, p.String(), detail)
}

// Subscribe assigns a plan by hand, as the command line does. See AssignPlan.
func Subscribe(ctx context.Context, db *DB, c *Catalogue, now time.Time, who Subscriber, plan PlanID) (*Subscription, error) {
	return AssignPlan(ctx, db, c, now, PlanByHand{Subscriber: who, Plan: plan})
}

// AssignPlan assigns a plan by hand, without Stripe, such as for a trial or a customer with an
// invoice of their own. It ends the plan that was assigned by hand before. The new subscription is
// newer than all others of the subscriber, so its plan applies from now on. Subscriptions at Stripe
// do not change. The plan free only ends the assigned plan, and the result is nil. An unknown
// person is created.
//
// It returns ErrEmail, an Error with CodeUnknownOrganization or CodeChangedMeanwhile, or an error
// that names the plans or says who may have this one.
func AssignPlan(ctx context.Context, db *DB, c *Catalogue, now time.Time, p PlanByHand) (made *Subscription, err error) {
	if p.OrganizationID == nil {
		email, err := ParseEmail(p.Email)
		if err != nil {
			return nil, fmt.Errorf("subscribe a person: %q %w", p.Email, err)
		}
		p.Email = email
	}
	if err := c.checkSubscriber(p.Subscriber, p.Plan); err != nil {
		return nil, fmt.Errorf("subscribe %s: %w", p, err)
	}
	if err := keepFromSubscriber(ctx, db, c, now, p.Subscriber, p.Plan); err != nil {
		return nil, fmt.Errorf("subscribe %s: %w", p, err)
	}
	if err := db.InTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		made, err = p.assign(ctx, tx, now)
		return err
	}); err != nil {
		return nil, fmt.Errorf("subscribe %s: %w", p, err)
	}
	if err := refitPaying(ctx, db, c, now, p.Subscriber); err != nil {
		return nil, fmt.Errorf("subscribe %s: %w", p, err)
	}
	return made, nil
}

// assign stores the plan and returns its subscription; nil for the free plan.
func (p *PlanByHand) assign(ctx context.Context, tx bun.Tx, now time.Time) (*Subscription, error) {
	s := &Subscription{ID: uuid.Must(uuid.NewV7()), OrganizationID: p.OrganizationID, PlanID: p.Plan, Status: StatusActive,
		CreatedAt: now, UpdatedAt: now}
	if err := s.lockSubscriber(ctx, tx, p.Subscriber, now); err != nil {
		return nil, err
	}
	if p.UserID != uuid.Nil && s.UserID != nil && *s.UserID != p.UserID {
		return nil, fmt.Errorf("the email belongs to another user now: %s", *s.UserID)
	}
	all, err := s.ofSubscriber(ctx, tx)
	if err != nil {
		return nil, err
	}
	if p.Seen != nil {
		current, applies := assignedPlan(all)
		switch {
		case p.Plan == FreePlan && current == nil:
			return nil, nil
		case current != nil && applies && current.PlanID == p.Plan:
			return current, nil
		case current == nil && *p.Seen != uuid.Nil, current != nil && *p.Seen != current.ID:
			return nil, &Error{Code: CodeChangedMeanwhile, Detail: "Someone else changed this plan in the meantime. Check it and try again."}
		}
	}
	ended, err := s.replaceByHand(ctx, tx, all)
	if err != nil {
		return nil, err
	}
	if p.Plan == FreePlan {
		return nil, p.audit(ctx, tx, now, "subscription.end", "plans assigned by hand that this ended: "+listOr(ended, "none"))
	}
	if _, err := tx.NewInsert().Model(s).Exec(ctx); err != nil {
		return nil, err
	}
	return s, p.audit(ctx, tx, now, "subscription.give", fmt.Sprintf(
		"plan %s assigned by hand; plans that this ended: %s", p.Plan, listOr(ended, "none")))
}

// assignedPlan returns the active plan that was assigned by hand; nil without one. all are a
// subscriber's subscriptions, oldest first. applies means that no active one is newer.
func assignedPlan(all []Subscription) (current *Subscription, applies bool) {
	for i := range all {
		switch s := &all[i]; {
		case !s.Active():
		case s.StripeSubscriptionID == nil:
			current, applies = s, true
		default:
			applies = false
		}
	}
	return current, applies
}

// refitPaying ends the records of those people of the subscriber whose payer may have changed,
// because they have a subscription of their own at Stripe.
func refitPaying(ctx context.Context, db *DB, c *Catalogue, now time.Time, who Subscriber) error {
	var ids []uuid.UUID
	q := db.NewSelect().TableExpr("users AS u").Column("u.id").Order("u.email").
		Where("EXISTS (SELECT 1 FROM subscriptions s WHERE s.user_id = u.id AND s.stripe_subscription_id IS NOT NULL)")
	if who.OrganizationID != nil {
		q = q.Join("JOIN workspaces AS w ON w.id = u.workspace_id").Where("w.organization_id = ?", *who.OrganizationID)
	} else {
		q = q.Where("u.email = ?", who.Email)
	}
	if err := q.Scan(ctx, &ids); err != nil {
		return err
	}
	for some := range slices.Chunk(ids, 50) {
		if err := RefitRecords(ctx, db, c, now, some); err != nil {
			return err
		}
	}
	return nil
}

// keepFromSubscriber calls KeepIncluded for each active subscription of the subscriber that
// includes more than the plan.
func keepFromSubscriber(ctx context.Context, db *DB, c *Catalogue, now time.Time, who Subscriber, plan PlanID) error {
	var held []Subscription
	q := db.NewSelect().Model(&held).Where(ActiveSubscription("subscription"))
	if who.OrganizationID != nil {
		q = q.Where("organization_id = ?", *who.OrganizationID)
	} else {
		q = q.Where("user_id = (SELECT u.id FROM users u WHERE u.email = ?)", who.Email)
	}
	if err := q.Scan(ctx); err != nil {
		return err
	}
	for i := range held {
		if err := held[i].KeepIncluded(ctx, db, c, now, plan); err != nil {
			return err
		}
	}
	return nil
}

// KeepIncluded stores what the people of an active subscription may use until their period ends, if
// the next plan includes less. Otherwise only people with usage in the meantime would keep it,
// because a record gets its plan when something is added to it.
func (s *Subscription) KeepIncluded(ctx context.Context, db *DB, c *Catalogue, now time.Time, next PlanID) error {
	before, known := c.Plan(s.PlanID)
	after, follows := c.Plan(next)
	if !known || follows && after.Included >= before.Included {
		return nil
	}
	var emails []string
	q := db.NewSelect().TableExpr("users AS u").Column("u.email").Order("u.email")
	if s.OrganizationID != nil {
		q = q.Join("JOIN workspaces AS w ON w.id = u.workspace_id").Where("w.organization_id = ?", *s.OrganizationID)
	} else {
		q = q.Where("u.id = ?", *s.UserID)
	}
	if err := q.Scan(ctx, &emails); err != nil {
		return err
	}
	for some := range slices.Chunk(emails, 50) {
		wants := make([]RecordKey, len(some))
		for i, email := range some {
			wants[i] = RecordKey{Email: email, At: now}
		}
		if err := PrepareRecords(ctx, db, c, now, wants); err != nil {
			return err
		}
	}
	return nil
}

// UnknownPlan is a plan with active subscriptions that is not in the catalog.
type UnknownPlan struct {
	ID            PlanID `bun:"plan_id"`
	Subscriptions int
}

// UnknownPlans returns the plans with active subscriptions that are not in the catalog. They give
// what the free plan gives (see PlanOf).
func UnknownPlans(ctx context.Context, db bun.IDB, c *Catalogue) (plans []UnknownPlan, err error) {
	err = db.NewSelect().TableExpr("subscriptions").Column("plan_id").ColumnExpr("COUNT(*) AS subscriptions").
		Where(ActiveSubscription("subscriptions")).Group("plan_id").Order("plan_id").Scan(ctx, &plans)
	if err != nil {
		return nil, fmt.Errorf("list the subscribed plans: %w", err)
	}
	return slices.DeleteFunc(plans, func(p UnknownPlan) bool {
		_, known := c.Plan(p.ID)
		return known
	}), nil
}

// checkSubscriber returns an error if the subscriber cannot have the plan.
func (c *Catalogue) checkSubscriber(who Subscriber, id PlanID) error {
	plan, ok := c.Plan(id)
	switch {
	case !ok:
		var ids []string
		for _, p := range c.Plans {
			ids = append(ids, string(p.ID))
		}
		return fmt.Errorf("the catalog has no plan %q, only %s", id, listOr(ids, "none"))
	case id == FreePlan:
		return nil
	case plan.Type == Team && who.OrganizationID == nil:
		return fmt.Errorf("%q is a team plan, which only an organization can have", id)
	case plan.Type == Individual && who.OrganizationID != nil:
		return fmt.Errorf("%q is an individual plan, which only a person can have", id)
	}
	return nil
}

// lockSubscriber locks the subscriber's row, so that of two simultaneous commands, the second one
// ends the plan of the first.
func (s *Subscription) lockSubscriber(ctx context.Context, tx bun.Tx, who Subscriber, now time.Time) error {
	if who.OrganizationID != nil {
		if _, err := organizationByID(ctx, tx, *who.OrganizationID); err != nil {
			return err
		}
		return ForUpdate(tx.NewSelect().Model((*Organization)(nil)).Column("id").Where("id = ?", *who.OrganizationID)).Scan(ctx, new(uuid.UUID))
	}
	var user User
	if err := lockUser(ctx, tx, now, who.Email, &user); err != nil {
		return err
	}
	s.UserID = &user.ID
	return nil
}

// ofSubscriber returns all subscriptions of the subscriber, oldest first.
func (s *Subscription) ofSubscriber(ctx context.Context, tx bun.Tx) (all []Subscription, err error) {
	q := tx.NewSelect().Model(&all).Order("created_at")
	if s.OrganizationID != nil {
		q = q.Where("organization_id = ?", *s.OrganizationID)
	} else {
		q = q.Where("user_id = ?", *s.UserID)
	}
	return all, q.Scan(ctx)
}

// replaceByHand ends the active plans that were assigned by hand, of all subscriptions of the
// subscriber, and returns them. It makes s newer than all of them, even if the clock did not
// advance, because the newest one counts.
func (s *Subscription) replaceByHand(ctx context.Context, tx bun.Tx, all []Subscription) (ended []string, err error) {
	for _, old := range all {
		if !old.CreatedAt.Before(s.CreatedAt) {
			s.CreatedAt = old.CreatedAt.UTC().Add(time.Microsecond)
		}
		if old.StripeSubscriptionID != nil || !old.Active() {
			continue
		}
		if _, err := tx.NewUpdate().Model((*Subscription)(nil)).Set("status = ?, updated_at = ?, inactive_since = ?", StatusCanceled,
			s.UpdatedAt, s.UpdatedAt).Where("id = ?", old.ID).Exec(ctx); err != nil {
			return nil, err
		}
		ended = append(ended, string(old.PlanID))
	}
	return ended, nil
}

// Held is the subscription that gives a person their plan, with its holder.
type Held struct {
	Subscription
	// Organization is the name of the organization that has the subscription; empty if it is the
	// person's own.
	Organization string
}

// SubscriptionOf returns the active subscription that gives a person their plan (see
// entitlingSubscription). Without one, it returns a suspended one, the newest that ended, or nil.
func SubscriptionOf(ctx context.Context, db bun.IDB, email string) (*Held, error) {
	var found []Held
	err := db.NewRaw(`SELECT s.*, COALESCE(o.name, '') AS organization
		FROM users u LEFT JOIN workspaces w ON w.id = u.workspace_id
		JOIN subscriptions s ON s.id = COALESCE(`+entitlingSubscription+`,
			(SELECT n.id FROM subscriptions n WHERE n.user_id = u.id OR n.organization_id = w.organization_id
				ORDER BY `+suspendedFirst("n")+` LIMIT 1))
		LEFT JOIN organizations o ON o.id = s.organization_id WHERE u.email = ?`, email).Scan(ctx, &found)
	if err != nil {
		return nil, fmt.Errorf("read the subscription of %s: %w", email, err)
	}
	if len(found) == 0 {
		return nil, nil
	}
	return &found[0], nil
}

// OwnAtStripe returns a person's own subscription at Stripe that is active and was not canceled; nil
// without one. The person pays for it even if an organization gives them their plan.
func OwnAtStripe(ctx context.Context, db bun.IDB, user uuid.UUID) (*Subscription, error) {
	var found []Subscription
	err := db.NewSelect().Model(&found).
		Where("user_id = ? AND stripe_subscription_id IS NOT NULL AND cancel_at IS NULL AND "+ActiveSubscription("subscription"), user).
		Order("created_at DESC").Limit(1).Scan(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the own subscription of %s: %w", user, err)
	}
	if len(found) == 0 {
		return nil, nil
	}
	return &found[0], nil
}

// BlocksPurchase returns the active or suspended subscription at Stripe that prevents a purchase, because
// the buyer would pay for two plans; nil if the buyer can buy one. The buyer is the person or, if
// organization is not nil, the organization.
func BlocksPurchase(ctx context.Context, db bun.IDB, user uuid.UUID, organization *uuid.UUID) (*Subscription, error) {
	column, id := "user_id", user
	if organization != nil {
		column, id = "organization_id", *organization
	}
	var found []Subscription
	if err := db.NewSelect().Model(&found).Where("? = ? AND stripe_subscription_id IS NOT NULL", bun.Ident(column), id).
		Where(hasStatus("subscription", slices.Concat(activeStatuses, suspendedStatuses))).
		OrderExpr(activeFirst("subscription")).Limit(1).Scan(ctx); err != nil {
		return nil, fmt.Errorf("read the subscription of %s at Stripe: %w", id, err)
	}
	if len(found) == 0 {
		return nil, nil
	}
	return &found[0], nil
}

// SubscriptionOfOrganization returns the active subscription that gives an organization its plan.
// Without one, it returns a suspended one, the newest that ended, or nil.
func SubscriptionOfOrganization(ctx context.Context, db bun.IDB, id uuid.UUID) (*Subscription, error) {
	var found []Subscription
	if err := db.NewSelect().Model(&found).Where("organization_id = ?", id).
		OrderExpr(activeFirst("subscription")).
		Limit(1).Scan(ctx); err != nil {
		return nil, fmt.Errorf("read the subscription of organization %s: %w", id, err)
	}
	if len(found) == 0 {
		return nil, nil
	}
	return &found[0], nil
}

// entitlement returns the entitlement from an active subscription.
func (s *Subscription) entitlement() *Entitlement {
	e := &Entitlement{
		PlanID: s.PlanID, OrganizationID: s.OrganizationID, Status: s.Status, AtStripe: s.StripeSubscriptionID != nil,
		OverageRateCents: s.OverageRateCents, Anchor: s.BillingCycleAnchor, PeriodStart: s.CurrentPeriodStart,
		PeriodEnd: s.CurrentPeriodEnd, TrialEnd: s.TrialEnd, Created: s.CreatedAt,
	}
	if s.CurrentPeriodStart != nil && s.CurrentPeriodStart.Before(e.Created) {
		e.Created = *s.CurrentPeriodStart // it is backdated
	}
	if s.StripeCustomerID != nil {
		e.StripeCustomerID = *s.StripeCustomerID
	}
	return e
}

// InTrial reports whether the base price is 0 now. The trial ends at its time, even if Stripe's
// event about it is late.
func (s *Subscription) InTrial(now time.Time) bool {
	return s.Status == StatusTrialing && (s.TrialEnd == nil || s.TrialEnd.After(now))
}

// Subscription is a plan of one user or one organization. Stripe's columns are null if the plan was
// assigned by hand.
type Subscription struct {
	bun.BaseModel `bun:"table:subscriptions"`

	ID                   uuid.UUID  `bun:",pk,type:uuid"`
	UserID               *uuid.UUID `bun:",type:uuid"`
	OrganizationID       *uuid.UUID `bun:",type:uuid"`
	PlanID               PlanID
	Status               SubscriptionStatus
	StripeSubscriptionID *string
	StripeCustomerID     *string
	BillingCycleAnchor   *time.Time
	CurrentPeriodStart   *time.Time
	CurrentPeriodEnd     *time.Time
	// StripeEventAt is the time of the newest Stripe event that was applied.
	StripeEventAt *time.Time
	// StripePriceID is its base price. Seats is the quantity of a team plan. CancelAt is when it
	// ends, if known.
	StripePriceID *string
	Seats         *int64
	CancelAt      *time.Time
	// TrialEnd is when the trial ends or ended; nil without a trial, and in rows that are older
	// than this column.
	TrialEnd *time.Time
	// InactiveSince is when it stopped giving its plan; nil while it is active, or if unknown.
	InactiveSince *time.Time
	// OverageRateCents is the unit amount of its overage item at Stripe, in cents; nil until it was
	// read. OverageProblem says why its overage cannot be billed.
	OverageRateCents *int64
	OverageProblem   *string
	// OverageItems lists the plans whose overage items it has at Stripe, separated by spaces; nil
	// until they were read.
	OverageItems *string
	CreatedAt    time.Time
	UpdatedAt    time.Time
}

// SubscriptionStatus is Stripe's status of a subscription.
// Source: https://docs.stripe.com/api/subscriptions/object#subscription_object-status
type SubscriptionStatus string

// The statuses that this code names. activeStatuses lists those that give a plan.
const (
	StatusActive   SubscriptionStatus = "active"
	StatusTrialing SubscriptionStatus = "trialing"
	StatusPastDue  SubscriptionStatus = "past_due"
	StatusUnpaid   SubscriptionStatus = "unpaid"
	StatusPaused   SubscriptionStatus = "paused"
	StatusCanceled SubscriptionStatus = "canceled"
	// StatusIncomplete means that the first payment was not made yet.
	StatusIncomplete SubscriptionStatus = "incomplete"
	// StatusIncompleteExpired means that the first payment was not made in time.
	StatusIncompleteExpired SubscriptionStatus = "incomplete_expired"
)

// FinalStatuses are the statuses of subscriptions that cannot become active again.
var FinalStatuses = []SubscriptionStatus{StatusCanceled, StatusIncompleteExpired}
