package billing

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/stripe/stripe-go/v76"
	"github.com/uptrace/bun"

	"tollgate/models"
)

const (
	// customerWorkers is the number of customers that a process handles in parallel.
	customerWorkers = 4
	// customerPatience limits the requests to Stripe for one customer. Meanwhile, its lease is
	// renewed.
	customerPatience = 90 * time.Second
	// customerPoll is how often a worker checks for customers that are due or were left by another
	// process.
	customerPoll = 5 * time.Second
	// customerEvents is the number of events to mark as applied at a time.
	customerEvents = 5000
	// A customer with more than customerFlood events at once waits for customerRest before the next
	// request, because more events may follow.
	customerFlood, customerRest = 20, time.Second
	// actorStripe is the audit log's actor of changes that come from Stripe.
	actorStripe = "stripe"
)

// Start applies stored and new events until Stop is called or ctx ends. Any number of processes may
// do this at once.
func (w *Webhooks) Start(ctx context.Context) { w.workers.Start(ctx) }

// Stop stops the workers and waits for them. A customer that is being applied is left to the next
// process.
func (w *Webhooks) Stop() { w.workers.Stop() }

// run calls work when it is woken, and at an interval.
func (w *Webhooks) run(ctx context.Context, wake <-chan struct{}, work func(context.Context) error) {
	poll := time.NewTicker(customerPoll)
	defer poll.Stop()
	for ctx.Err() == nil {
		if err := work(ctx); err != nil && ctx.Err() == nil {
			w.log.ErrorContext(ctx, "Stripe's webhooks could not be applied", "error", err.Error())
		}
		select {
		case <-ctx.Done():
		case <-wake:
		case <-poll.C:
		}
	}
}

// applyDue applies the events of one customer after another until none is due.
func (w *Webhooks) applyDue(ctx context.Context) error {
	for {
		customer, err := w.claim(ctx)
		if err != nil {
			return fmt.Errorf("claim a customer: %w", err)
		}
		if customer == nil {
			return w.prepareDue(ctx)
		}
		err = w.applyCustomer(ctx, customer)
		if err == nil {
			if failed := w.prepareDue(ctx); failed != nil && ctx.Err() == nil {
				w.log.ErrorContext(ctx, "usage records could not be updated", "error", failed.Error())
			}
		}
		if err != nil && !errors.Is(err, errLeaseLost) {
			if failed := w.retryLater(ctx, customer, err); failed != nil {
				return errors.Join(err, failed)
			}
		}
		w.answerWaiters(customer.ID, err == nil)
	}
}

// retryLater ends the lease of a customer whose events could not be applied, and schedules a retry.
// If this process is stopping, another one may retry at once.
func (w *Webhooks) retryLater(ctx context.Context, customer *models.StripeCustomer, reason error) error {
	now := models.Now(w.clock)
	next, failures := now.Add(fullJitter(w.random(), customer.Failures)), customer.Failures+1
	if ctx.Err() != nil {
		next, failures = now, customer.Failures
	} else {
		w.log.WarnContext(ctx, "a customer's subscriptions could not be updated",
			"customer", customer.ID, "failures", failures, "error", reason.Error())
	}
	// Store this even if the process is stopping.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	return w.db.InTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		given, err := tx.NewUpdate().Model((*models.StripeCustomer)(nil)).
			Set("failures = ?, next_attempt_at = ?, lease_token = NULL, leased_until = NULL", failures, next).
			Where("id = ? AND lease_token = ?", customer.ID, *customer.LeaseToken).Exec(ctx)
		if err != nil || failures == customer.Failures {
			return err
		}
		if n, err := given.RowsAffected(); err != nil || n == 0 {
			return err
		}
		_, err = tx.NewUpdate().Model((*models.StripeWebhookEvent)(nil)).Set("last_error = ?", reason.Error()).
			Where("stripe_customer_id = ? AND applied_at IS NULL AND last_error IS NULL", customer.ID).Exec(ctx)
		return err
	})
}

// applyCustomer updates a customer's subscriptions to Stripe's state. This applies all events that
// were stored before Stripe was asked.
func (w *Webhooks) applyCustomer(ctx context.Context, customer *models.StripeCustomer) error {
	var events []models.StripeWebhookEvent
	err := w.db.NewSelect().Model(&events).Column("id", "type", "occurred_at").
		Where("stripe_customer_id = ? AND applied_at IS NULL", customer.ID).Order("received_at", "id").Limit(customerEvents).Scan(ctx)
	if err != nil {
		return fmt.Errorf("read the events of %s: %w", customer.ID, err)
	}
	patience, release := w.renewLease(ctx, customer)
	defer release()
	if err := w.account.check(patience); err != nil {
		return err
	}
	named, err := w.named(ctx, customer.ID)
	if err != nil {
		return fmt.Errorf("read the subscriptions of %s: %w", customer.ID, err)
	}
	invoices, events, err := w.namedInvoices(ctx, events)
	if err != nil {
		return fmt.Errorf("read the invoices of %s: %w", customer.ID, err)
	}
	readAt := models.Now(w.clock)
	at, err := w.ask(patience, customer.ID, named)
	if err != nil {
		return fmt.Errorf("ask Stripe for %s: %w", customer.ID, err)
	}
	at.readAt = readAt
	if err := w.client.askInvoices(patience, customer.ID, invoices, at); err != nil {
		return fmt.Errorf("ask Stripe for the invoices of %s: %w", customer.ID, err)
	}
	if err := w.keepIncluded(patience, customer.ID, at); err != nil {
		return fmt.Errorf("store the included units of %s: %w", customer.ID, err)
	}
	release()
	err = w.db.InTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		a := application{Webhooks: w, tx: tx, now: models.Now(w.clock), at: at, newest: newestOf(events)}
		return a.apply(ctx, customer, events)
	})
	if err != nil {
		return fmt.Errorf("apply the state of %s at Stripe: %w", customer.ID, err)
	}
	return nil
}

// keepIncluded stores what people may use under subscriptions that end or change within their
// period.
func (w *Webhooks) keepIncluded(ctx context.Context, customer string, at *atStripe) error {
	now := models.Now(w.clock)
	var rows []models.Subscription
	if err := w.db.NewSelect().Model(&rows).Where("stripe_customer_id = ? AND stripe_subscription_id IS NOT NULL", customer).
		Where(models.ActiveSubscription("subscription")).Where("current_period_end > ?", now).Scan(ctx); err != nil || len(rows) == 0 {
		return err
	}
	prices, err := readPlanPrices(ctx, w.db, w.catalogue)
	if err != nil {
		return err
	}
	for i := range rows {
		next := models.FreePlan
		if at.partial {
			next = rows[i].PlanID
		}
		for _, s := range at.subscriptions {
			if s.ID == *rows[i].StripeSubscriptionID && (&models.Subscription{Status: models.SubscriptionStatus(s.Status)}).Active() {
				next = rows[i].PlanID // one whose plan cannot be said keeps it
				if plan, _, reason := prices.planOf(s); reason == "" {
					next = plan.ID
				}
			}
		}
		if err := rows[i].KeepIncluded(ctx, w.db, w.catalogue, now, next); err != nil {
			return err
		}
	}
	return nil
}

// newestOf returns the time of the newest event; nil without one.
func newestOf(events []models.StripeWebhookEvent) (newest *time.Time) {
	for _, e := range events {
		if e.OccurredAt != nil && (newest == nil || e.OccurredAt.After(*newest)) {
			newest = new(e.OccurredAt.UTC())
		}
	}
	return newest
}

// atStripe is Stripe's state of a customer.
type atStripe struct {
	deleted       bool
	metadata      map[string]string
	subscriptions []*stripe.Subscription
	// partial means that there may be more subscriptions, so a missing one has not necessarily
	// ended.
	partial bool
	// invoices are the ones that the events are about, requested after readAt. unread is the reason
	// if they cannot be read.
	invoices []*invoice
	readAt   time.Time
	unread   error
}

// ask fetches a customer, all their subscriptions including ended ones, and the named subscriptions
// that the list does not have. If Stripe has neither the customer nor a subscription, the customer
// counts as deleted.
func (w *Webhooks) ask(ctx context.Context, id string, named []string) (*atStripe, error) {
	c, unknown := w.client.api.Customers.Get(id, &stripe.CustomerParams{Params: params(ctx)})
	if unknown != nil && !isMissing(unknown) {
		return nil, unknown
	}
	at := &atStripe{}
	if unknown == nil {
		if c.Deleted {
			return &atStripe{deleted: true}, nil
		}
		at.metadata = c.Metadata
	}
	list := &stripe.SubscriptionListParams{Customer: &id, Status: stripe.String("all")}
	unlisted := w.client.listSubscriptions(ctx, list, func(s *stripe.Subscription) { at.add(id, s) })
	if unlisted != nil && !isMissing(unlisted) {
		return nil, unlisted
	}
	for _, n := range named {
		if slices.ContainsFunc(at.subscriptions, func(s *stripe.Subscription) bool { return s.ID == n }) {
			continue
		}
		s, err := w.client.subscription(ctx, n)
		if err == nil {
			at.add(id, s)
		} else if !isMissing(err) {
			return nil, err
		}
	}
	switch {
	case len(at.subscriptions) > 0:
		at.partial = unlisted != nil
	case unknown != nil && stripeError(unknown).Code != stripe.ErrorCodeResourceMissing:
		return nil, unknown // a 404 of another server
	case unknown == nil && unlisted != nil:
		return nil, unlisted
	default:
		at.deleted = unknown != nil
	}
	return at, nil
}

func (at *atStripe) add(customer string, s *stripe.Subscription) {
	if s.Customer != nil && s.Customer.ID == customer {
		at.subscriptions = append(at.subscriptions, s)
	}
}

func isMissing(err error) bool {
	e := stripeError(err)
	return e != nil && (e.HTTPStatusCode == http.StatusNotFound || e.Code == stripe.ErrorCodeResourceMissing)
}

// named returns the customer's subscriptions that the newest unapplied events are about.
func (w *Webhooks) named(ctx context.Context, customer string) ([]string, error) {
	var payloads []string
	if err := w.db.NewSelect().Model((*models.StripeWebhookEvent)(nil)).Column("payload").
		Where("stripe_customer_id = ? AND applied_at IS NULL AND type LIKE 'customer.subscription.%'", customer).
		Order("received_at DESC").Limit(5).Scan(ctx, &payloads); err != nil {
		return nil, err
	}
	var ids []string
	for _, p := range payloads {
		var event struct {
			Data struct{ Object struct{ ID string } }
		}
		if json.Unmarshal([]byte(p), &event) == nil && event.Data.Object.ID != "" && !slices.Contains(ids, event.Data.Object.ID) {
			ids = append(ids, event.Data.Object.ID)
		}
	}
	return ids, nil
}

// application is the transaction that applies a customer's events.
type application struct {
	*Webhooks
	tx     bun.Tx
	now    time.Time
	at     *atStripe
	newest *time.Time
	prices *planPrices
	owner  owner
	// erased means that the owner is an erased person, whose events are not stored with their text.
	erased   bool
	problems []string
	// changed are the owners of subscriptions that changed.
	changed owners
}

func (a *application) problem(format string, args ...any) {
	a.problems = append(a.problems, fmt.Sprintf(format, args...))
}

func (a *application) apply(ctx context.Context, claimed *models.StripeCustomer, events []models.StripeWebhookEvent) error {
	var held []models.StripeCustomer
	q := a.tx.NewSelect().Model(&held).Where("id = ? AND lease_token = ?", claimed.ID, *claimed.LeaseToken)
	if err := models.ForUpdate(q).Scan(ctx); err != nil {
		return err
	}
	if len(held) == 0 {
		return errLeaseLost
	}
	customer := &held[0]
	var err error
	if a.prices, err = readPlanPrices(ctx, a.tx, a.catalogue); err != nil {
		return err
	}
	if a.owner, err = a.ownerOf(ctx, customer); err != nil {
		return err
	}
	if a.owner.user != nil {
		if a.erased, err = models.IsErased(ctx, a.tx, *a.owner.user); err != nil {
			return err
		}
	}
	before, err := timelinesOf(ctx, a.tx, []string{customer.ID})
	if err != nil {
		return err
	}
	if err := a.applySubscriptions(ctx, customer); err != nil {
		return err
	}
	if err := a.learnPeriods(ctx, customer.ID, events); err != nil {
		return err
	}
	if err := a.follow(ctx, customer.ID, before[customer.ID]); err != nil {
		return err
	}
	if err := a.checkSingle(ctx, customer); err != nil {
		return err
	}
	a.holdBack(customer)
	if err := a.storeInvoices(ctx); err != nil {
		return err
	}
	for some := range slices.Chunk(events, 500) {
		ids := make([]string, len(some))
		for i, e := range some {
			ids[i] = e.ID
		}
		applied := a.tx.NewUpdate().Model((*models.StripeWebhookEvent)(nil)).Set("applied_at = ?", a.now).
			Where("id IN (?) AND applied_at IS NULL", bun.List(ids))
		if a.erased {
			applied = applied.Set("payload = ?", models.ErasedPayload)
		}
		if _, err := applied.Exec(ctx); err != nil {
			return err
		}
	}
	customer.UserID, customer.OrganizationID, customer.Deleted = a.owner.user, a.owner.organization, a.at.deleted
	customer.Failures, customer.LeaseToken, customer.LeasedUntil, customer.NextAttemptAt, customer.Problem = 0, nil, nil, nil, nil
	if len(a.problems) > 0 {
		customer.Problem = new(strings.Join(a.problems, "; "))
	}
	// Events that arrived while Stripe was asked may be newer than its answer. Code that stores an
	// event waits for this row, or its event was seen here.
	more, err := a.tx.NewSelect().Model((*models.StripeWebhookEvent)(nil)).Where("stripe_customer_id = ? AND applied_at IS NULL",
		customer.ID).Exists(ctx)
	if err != nil {
		return err
	}
	if more {
		customer.NextAttemptAt = &a.now
	}
	if len(events) > customerFlood {
		customer.LeasedUntil = new(a.now.Add(customerRest))
	}
	_, err = a.tx.NewUpdate().Model(customer).WherePK().Exec(ctx)
	return err
}
