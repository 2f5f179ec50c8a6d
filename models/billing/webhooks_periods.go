package billing

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/uptrace/bun"

	"tollgate/models"
)

// saidPeriod is a billing period that Stripe showed for a subscription.
type saidPeriod struct {
	subscription string
	period       models.Period
	at           time.Time
	// guess means that the period comes from an invoice. It does not split a known period.
	guess bool
}

// learnPeriods stores the billing periods in the events and in Stripe's answer. Tollgate never
// applies the state in an event, but the billing period at the time of an event remains true: of
// two changes in a row, only the events show the first one's period.
func (a *application) learnPeriods(ctx context.Context, customer string, events []models.StripeWebhookEvent) error {
	var rows []models.Subscription
	if err := a.tx.NewSelect().Model(&rows).Column("id", "stripe_subscription_id").
		Where("stripe_customer_id = ? AND stripe_subscription_id IS NOT NULL", customer).Scan(ctx); err != nil || len(rows) == 0 {
		return err
	}
	ours := map[string]uuid.UUID{}
	for _, row := range rows {
		ours[*row.StripeSubscriptionID] = row.ID
	}
	for some := range slices.Chunk(events, 500) {
		ids := make([]string, len(some))
		for i, e := range some {
			ids[i] = e.ID
		}
		var kept []models.StripeWebhookEvent
		if err := a.tx.NewSelect().Model(&kept).Column("type", "payload", "occurred_at").Where("id IN (?)", bun.List(ids)).
			Where("type LIKE 'customer.subscription.%' OR type LIKE 'invoice.%'").Order("occurred_at", "id").Scan(ctx); err != nil {
			return err
		}
		for _, e := range kept {
			if e.OccurredAt == nil {
				continue
			}
			for _, said := range periodsIn(e.Payload, e.OccurredAt.UTC()) {
				if err := a.learn(ctx, ours, customer, said); err != nil {
					return err
				}
			}
		}
	}
	for _, s := range a.at.subscriptions {
		if trial := (models.Period{Start: time.Unix(s.TrialStart, 0).UTC(), End: time.Unix(s.TrialEnd, 0).UTC()}); s.TrialStart > 0 &&
			!trial.End.After(a.now) {
			if err := a.learn(ctx, ours, customer, saidPeriod{s.ID, trial, a.now, false}); err != nil {
				return err
			}
		}
	}
	return nil
}

// learn stores a period, unless Stripe showed another end of it later.
func (a *application) learn(ctx context.Context, ours map[string]uuid.UUID, customer string, said saidPeriod) error {
	id, known := ours[said.subscription]
	if !known || !said.period.End.After(said.period.Start) {
		return nil
	}
	if said.guess {
		divides, err := a.tx.NewSelect().Model((*models.SubscriptionPeriod)(nil)).
			Where("subscription_id = ? AND period_start < ? AND period_end > ?", id, said.period.Start, said.period.Start).Exists(ctx)
		if err != nil || divides {
			return err
		}
	}
	_, err := a.tx.NewInsert().Model(&models.SubscriptionPeriod{
		SubscriptionID: id, StripeCustomerID: customer, PeriodStart: said.period.Start, PeriodEnd: said.period.End, SaidAt: said.at,
		LearnedAt: a.now,
	}).On("CONFLICT (subscription_id, period_start) DO UPDATE").
		Set("period_end = EXCLUDED.period_end, said_at = EXCLUDED.said_at, learned_at = EXCLUDED.learned_at").
		Where("subscription_period.said_at < EXCLUDED.said_at AND subscription_period.period_end <> EXCLUDED.period_end").Exec(ctx)
	return err
}

// periodsIn returns the billing periods in an event's payload: for a subscription, the current one
// and the one before the change; for a renewal's invoice, the one that ended.
func periodsIn(payload string, at time.Time) (said []saidPeriod) {
	var event struct {
		Data struct {
			Object   json.RawMessage
			Previous struct {
				Start int64 `json:"current_period_start"`
				End   int64 `json:"current_period_end"`
			} `json:"previous_attributes"`
		}
	}
	var head struct{ Object string }
	if json.Unmarshal([]byte(payload), &event) != nil || json.Unmarshal(event.Data.Object, &head) != nil {
		return nil
	}
	add := func(subscription string, start, end int64, at time.Time, guess bool) {
		if start > 0 && end > start {
			said = append(said, saidPeriod{subscription, models.Period{Start: time.Unix(start, 0).UTC(), End: time.Unix(end, 0).UTC()}, at, guess})
		}
	}
	switch head.Object {
	case "subscription":
		var s subscriptionWithPeriod
		if json.Unmarshal(event.Data.Object, &s) != nil {
			return nil
		}
		before := event.Data.Previous
		if before.Start > 0 && before.End == 0 {
			before.End = s.CurrentPeriodEnd
		}
		add(s.ID, before.Start, before.End, at.Add(-time.Second), false)
		add(s.ID, s.CurrentPeriodStart, s.CurrentPeriodEnd, at, false)
	case "invoice":
		var i struct {
			Subscription  json.RawMessage
			BillingReason string `json:"billing_reason"`
			PeriodStart   int64  `json:"period_start"`
			PeriodEnd     int64  `json:"period_end"`
			Parent        struct {
				Details struct{ Subscription json.RawMessage } `json:"subscription_details"`
			}
		}
		// The invoice's period is the one that ended.
		if json.Unmarshal(event.Data.Object, &i) != nil || i.BillingReason != "subscription_cycle" {
			return nil
		}
		for _, raw := range []json.RawMessage{i.Subscription, i.Parent.Details.Subscription} {
			var id string
			if json.Unmarshal(raw, &id) == nil && id != "" {
				add(id, i.PeriodStart, i.PeriodEnd, at, true)
				break
			}
		}
	}
	return said
}

// recentRecords is the age of the records between which a change of billing periods can move units.
const recentRecords = 2 * models.MaxPeriodDays * 24 * time.Hour

// owners are the people and organizations whose subscriptions changed.
type owners struct{ users, organizations []uuid.UUID }

func (o *owners) add(s *models.Subscription) {
	if s.UserID != nil {
		o.users = append(o.users, *s.UserID)
	}
	if s.OrganizationID != nil {
		o.organizations = append(o.organizations, *s.OrganizationID)
	}
}

// follow updates everything that depends on a customer's subscriptions and billing periods.
func (a *application) follow(ctx context.Context, customer string, before timeline) error {
	after, err := timelinesOf(ctx, a.tx, []string{customer})
	if err != nil {
		return err
	}
	if !slices.Equal(before.periods, after[customer].periods) {
		var all []models.Subscription
		if err := a.tx.NewSelect().Model(&all).Column("user_id", "organization_id").Where("stripe_customer_id = ?", customer).
			Scan(ctx); err != nil {
			return err
		}
		for i := range all {
			a.changed.add(&all[i])
		}
		if err := unseal(ctx, a.tx, []string{customer}, false); err != nil {
			return err
		}
	}
	if len(a.changed.users) == 0 && len(a.changed.organizations) == 0 {
		return nil
	}
	return a.makeRecordsDue(ctx, a.changed)
}

// makeRecordsDue stores, in the same transaction as the change, which people's records may be
// affected. prepareDue updates them.
func (a *application) makeRecordsDue(ctx context.Context, changed owners) error {
	at := "?"
	if a.db.Postgres {
		at = "CAST(? AS timestamptz)"
	}
	none := uuid.UUID{} // an empty list is no SQL
	_, err := a.tx.NewRaw(`INSERT INTO records_due (user_id, due_at) SELECT u.id, `+at+` FROM users u
		WHERE (u.id IN (?) OR u.id IN (SELECT m.user_id FROM memberships m WHERE m.organization_id IN (?))
				OR u.workspace_id IN (SELECT w.id FROM workspaces w WHERE w.organization_id IN (?)))
			AND EXISTS (SELECT 1 FROM usage_records r WHERE r.user_id = u.id AND r.billing_period_end > ?)
		ON CONFLICT (user_id) DO UPDATE SET due_at = EXCLUDED.due_at`,
		a.now, bun.List(append(changed.users, none)), bun.List(append(changed.organizations, none)),
		bun.List(append(changed.organizations, none)),
		a.now.Add(-recentRecords)).Exec(ctx)
	return err
}

// dueAtOnce is the number of people whose records are updated in one transaction. duePatience is
// the delay before a retry for a person whose records could not be updated.
const (
	dueAtOnce   = 50
	duePatience = time.Minute
)

// prepareDue updates the records of people whose subscriptions changed, so that no unit stays in
// the wrong period until the person's next call. It also handles what another process left.
func (w *Webhooks) prepareDue(ctx context.Context) error {
	if !w.preparing.TryLock() {
		return nil // another worker is at it
	}
	defer w.preparing.Unlock()
	for {
		now := models.Now(w.clock)
		var due []struct {
			UserID uuid.UUID `bun:",type:uuid"`
			DueAt  time.Time
		}
		if err := w.db.NewRaw(`SELECT user_id, due_at FROM records_due WHERE due_at <= ? ORDER BY due_at, user_id LIMIT ?`, now, dueAtOnce).
			Scan(ctx, &due); err != nil {
			return fmt.Errorf("find people whose records are due: %w", err)
		}
		if len(due) == 0 {
			return nil
		}
		ids := make([]uuid.UUID, len(due))
		for i, d := range due {
			ids[i] = d.UserID
		}
		together := models.RefitRecords(ctx, w.db, w.catalogue, now, ids)
		for _, d := range due {
			// An error for one person does not stop the others.
			err := together
			if err != nil {
				err = models.RefitRecords(ctx, w.db, w.catalogue, now, []uuid.UUID{d.UserID})
			}
			done := w.db.NewRaw(`DELETE FROM records_due WHERE user_id = ? AND due_at = ?`, d.UserID, d.DueAt)
			if err != nil {
				if ctx.Err() != nil {
					return err
				}
				w.log.ErrorContext(ctx, "a person's usage records could not be updated",
					"user", d.UserID.String(), "error", err.Error())
				done = w.db.NewRaw(`UPDATE records_due SET due_at = ? WHERE user_id = ? AND due_at = ?`, now.Add(duePatience), d.UserID, d.DueAt)
			}
			if _, err := done.Exec(ctx); err != nil {
				return err
			}
		}
	}
}
