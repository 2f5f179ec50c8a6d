package billing

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/stripe/stripe-go/v76"
	"github.com/uptrace/bun"

	"tollgate/models"
)

const (
	// customerWorkers is how many customers a process asks Stripe for at a time.
	customerWorkers = 4
	// customerLease is how long a customer stays with the process that claimed it; customerPatience, which is shorter, bounds
	// the requests to Stripe, so that what was fetched is applied under the lease or not at all.
	customerLease    = 2 * time.Minute
	customerPatience = 90 * time.Second
	// customerPoll is how often a worker looks for what another process left or what is due again.
	customerPoll = 5 * time.Second
	// customerEvents is how many events are marked at a time as applied; the rest follow at once.
	customerEvents = 5000
	// A customer of whom more than a flood of events came at once rests before the next question: the next flood may be on
	// its way.
	customerFlood, customerRest = 20, time.Second
	// The waits between tries that fail double from the first to the last, each drawn evenly from zero on (full jitter).
	firstRetry, lastRetry = 5 * time.Second, 15 * time.Minute
	// actorStripe is the audit log's actor of what follows from Stripe.
	actorStripe = "stripe"
)

// errLeaseLost says that another process has the customer by now: what was fetched is older than what that one fetches.
var errLeaseLost = errors.New("the lease ran out and is somebody else's")

// Start applies what is kept and what comes, until Stop or until ctx ends. Any number of processes may do so at once.
func (w *Webhooks) Start(ctx context.Context) {
	ctx, w.stop = context.WithCancel(ctx)
	for range customerWorkers {
		w.running.Go(func() { w.run(ctx, w.wake, w.applyDue) })
	}
	w.running.Go(func() { w.run(ctx, w.wakeThin, w.keepHouse) })
}

// Stop ends the workers and waits for them. A customer that is being applied is left to the next process.
func (w *Webhooks) Stop() {
	w.stop()
	w.running.Wait()
}

// run does some work whenever it is woken, and now and then without that.
func (w *Webhooks) run(ctx context.Context, wake <-chan struct{}, work func(context.Context) error) {
	poll := time.NewTicker(customerPoll)
	defer poll.Stop()
	for ctx.Err() == nil {
		if err := work(ctx); err != nil && ctx.Err() == nil {
			w.Log.LogAttrs(ctx, slog.LevelError, "Stripe's webhooks could not be applied", slog.String("error", err.Error()))
		}
		select {
		case <-ctx.Done():
		case <-wake:
		case <-poll.C:
		}
	}
}

// applyDue applies one customer after another until none is due.
func (w *Webhooks) applyDue(ctx context.Context) error {
	for {
		customer, err := w.claim(ctx)
		if err != nil {
			return fmt.Errorf("claim a customer: %w", err)
		}
		if customer == nil {
			return nil
		}
		err = w.applyCustomer(ctx, customer)
		if err != nil && !errors.Is(err, errLeaseLost) {
			if failed := w.putOff(ctx, customer, err); failed != nil {
				return errors.Join(err, failed)
			}
		}
		w.settle(customer.ID, err == nil)
	}
}

// claim takes the customer that has been due for longest; nil when none is.
func (w *Webhooks) claim(ctx context.Context) (*models.StripeCustomer, error) {
	now := models.Now(w.Now)
	// Without a transaction at first: on SQLite one would lock out all writers, and mostly nothing is due.
	due := func(db bun.IDB) *bun.SelectQuery {
		return db.NewSelect().Model((*models.StripeCustomer)(nil)).
			Where("next_attempt_at <= ? AND (leased_until IS NULL OR leased_until <= ?)", now, now).Order("next_attempt_at").Limit(1)
	}
	if some, err := due(w.DB).Exists(ctx); err != nil || !some {
		return nil, err
	}
	var claimed *models.StripeCustomer
	err := w.DB.InTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		claimed = nil
		q := due(tx)
		if w.DB.Postgres {
			q = q.For("UPDATE SKIP LOCKED")
		}
		var found []models.StripeCustomer
		if err := q.Model(&found).Scan(ctx); err != nil || len(found) == 0 {
			return err
		}
		claimed = &found[0]
		claimed.LeaseToken, claimed.LeasedUntil = new(uuid.New()), new(now.Add(customerLease))
		_, err := tx.NewUpdate().Model(claimed).Column("lease_token", "leased_until").WherePK().Exec(ctx)
		return err
	})
	return claimed, err
}

// putOff gives a customer back that could not be applied, to be tried again later. When it is the process that ends, the next
// one may try at once.
func (w *Webhooks) putOff(ctx context.Context, customer *models.StripeCustomer, reason error) error {
	now := models.Now(w.Now)
	wait := min(lastRetry, firstRetry<<min(customer.Failures, 20))
	next, failures := now.Add(time.Duration(w.Random()*float64(wait))), customer.Failures+1
	if ctx.Err() != nil {
		next, failures = now, customer.Failures
	} else {
		w.Log.LogAttrs(ctx, slog.LevelWarn, "a customer could not be brought into line with Stripe",
			slog.String("customer", customer.ID), slog.Int("failures", failures), slog.String("error", reason.Error()))
	}
	// As long as it takes to say so, also when the process ends.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	return w.DB.InTx(ctx, func(ctx context.Context, tx bun.Tx) error {
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

// applyCustomer brings what a customer holds into line with Stripe. The events that were in the inbox before Stripe was asked
// are applied with that, however many they are.
func (w *Webhooks) applyCustomer(ctx context.Context, customer *models.StripeCustomer) error {
	var events []models.StripeWebhookEvent
	err := w.DB.NewSelect().Model(&events).Column("id", "occurred_at").
		Where("stripe_customer_id = ? AND applied_at IS NULL", customer.ID).Order("received_at", "id").Limit(customerEvents).Scan(ctx)
	if err != nil {
		return fmt.Errorf("read the events of %s: %w", customer.ID, err)
	}
	patience, cancel := context.WithTimeout(ctx, customerPatience)
	defer cancel()
	if err := w.checkAccount(patience); err != nil {
		return err
	}
	at, err := w.ask(patience, customer.ID)
	if err != nil {
		return fmt.Errorf("ask Stripe for %s: %w", customer.ID, err)
	}
	err = w.DB.InTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		a := application{Webhooks: w, tx: tx, now: models.Now(w.Now), at: at, newest: newestOf(events)}
		return a.apply(ctx, customer, events)
	})
	if err != nil {
		return fmt.Errorf("apply what Stripe has of %s: %w", customer.ID, err)
	}
	return nil
}

// errOtherAccount says that the key is another account's than everything here is of.
var errOtherAccount = errors.New("the key is of another account at Stripe than what is kept here, or of its other mode")

// checkAccount sees to it that the key is of the account and mode that all customers here are of. With another one's key Stripe
// knows none of them, as if they had all been deleted, and everybody's plan would end. The first account that is seen is
// the one.
func (w *Webhooks) checkAccount(ctx context.Context) error {
	w.mu.Lock()
	known := w.accountKnown
	w.mu.Unlock()
	if known {
		return nil
	}
	account, err := w.Client.account(ctx)
	if err != nil {
		return err
	}
	err = w.DB.InTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		if _, err := tx.NewUpdate().Model((*models.StripeState)(nil)).Set("account_id = ?", account).Where("id = 1 AND account_id = ''").Exec(ctx); err != nil {
			return err
		}
		if _, err := tx.NewUpdate().Model((*models.StripeState)(nil)).Set("livemode = ?", w.Client.Live).Where("id = 1 AND livemode IS NULL").Exec(ctx); err != nil {
			return err
		}
		var state models.StripeState
		if err := tx.NewSelect().Model(&state).Where("id = 1").Scan(ctx); err != nil {
			return err
		}
		if account != "" && state.AccountID != account || *state.Livemode != w.Client.Live {
			return errOtherAccount
		}
		return nil
	})
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.accountKnown = true
	return nil
}

// newestOf is the time of the newest event; nil when none has one.
func newestOf(events []models.StripeWebhookEvent) (newest *time.Time) {
	for _, e := range events {
		if e.OccurredAt != nil && (newest == nil || e.OccurredAt.After(*newest)) {
			newest = new(e.OccurredAt.UTC())
		}
	}
	return newest
}

// atStripe is what Stripe has of a customer.
type atStripe struct {
	deleted       bool
	metadata      map[string]string
	subscriptions []*stripe.Subscription
}

// ask fetches a customer and all their subscriptions, ended ones too. A customer that Stripe does not know is as one that
// was deleted.
func (w *Webhooks) ask(ctx context.Context, id string) (*atStripe, error) {
	c, err := w.Client.Customers.Get(id, &stripe.CustomerParams{Params: params(ctx)})
	if e := stripeError(err); e != nil && e.HTTPStatusCode == http.StatusNotFound && e.Code == stripe.ErrorCodeResourceMissing {
		return &atStripe{deleted: true}, nil
	}
	if err != nil {
		return nil, err
	}
	if c.Deleted {
		return &atStripe{deleted: true}, nil
	}
	at := &atStripe{metadata: c.Metadata}
	list := &stripe.SubscriptionListParams{Customer: &id, Status: stripe.String("all")}
	list.Context, list.Limit = ctx, stripe.Int64(100)
	for found := w.Client.Subscriptions.List(list); ; {
		if !found.Next() {
			return at, found.Err()
		}
		at.subscriptions = append(at.subscriptions, found.Subscription())
	}
}

// application is one customer's transaction.
type application struct {
	*Webhooks
	tx     bun.Tx
	now    time.Time
	at     *atStripe
	newest *time.Time
	prices *planPrices
	owner  owner
	faults []string
}

func (a *application) fault(format string, args ...any) {
	a.faults = append(a.faults, fmt.Sprintf(format, args...))
}

func (a *application) apply(ctx context.Context, claimed *models.StripeCustomer, events []models.StripeWebhookEvent) error {
	var held []models.StripeCustomer
	q := a.tx.NewSelect().Model(&held).Where("id = ? AND lease_token = ?", claimed.ID, *claimed.LeaseToken)
	if a.DB.Postgres {
		q = q.For("UPDATE")
	}
	if err := q.Scan(ctx); err != nil {
		return err
	}
	if len(held) == 0 {
		return errLeaseLost
	}
	customer := &held[0]
	var err error
	if a.prices, err = readPlanPrices(ctx, a.tx, a.Catalogue); err != nil {
		return err
	}
	if a.owner, err = a.ownerOf(ctx, customer); err != nil {
		return err
	}
	if err := a.applySubscriptions(ctx, customer); err != nil {
		return err
	}
	for some := range slices.Chunk(events, 500) {
		ids := make([]string, len(some))
		for i, e := range some {
			ids[i] = e.ID
		}
		if _, err := a.tx.NewUpdate().Model((*models.StripeWebhookEvent)(nil)).Set("applied_at = ?", a.now).
			Where("id IN (?) AND applied_at IS NULL", bun.List(ids)).Exec(ctx); err != nil {
			return err
		}
	}
	customer.UserID, customer.OrganizationID, customer.Deleted = a.owner.user, a.owner.organization, a.at.deleted
	customer.Failures, customer.LeaseToken, customer.LeasedUntil, customer.NextAttemptAt, customer.Fault = 0, nil, nil, nil, nil
	if len(a.faults) > 0 {
		customer.Fault = new(strings.Join(a.faults, "; "))
	}
	// What came while Stripe was asked may be newer than its answer. Whoever keeps an event waits for this row, or was seen here.
	more, err := a.tx.NewSelect().Model((*models.StripeWebhookEvent)(nil)).Where("stripe_customer_id = ? AND applied_at IS NULL", customer.ID).Exists(ctx)
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

// applySubscriptions makes a row of each subscription that Stripe has, and ends those that it no longer has.
func (a *application) applySubscriptions(ctx context.Context, customer *models.StripeCustomer) error {
	ids := []string{""} // an empty list is no SQL
	for _, s := range a.at.subscriptions {
		ids = append(ids, s.ID)
	}
	var rows []models.Subscription
	if err := a.tx.NewSelect().Model(&rows).Where("stripe_customer_id = ? OR stripe_subscription_id IN (?)", customer.ID, bun.List(ids)).Scan(ctx); err != nil {
		return err
	}
	known := map[string]*models.Subscription{}
	for i := range rows {
		if rows[i].StripeSubscriptionID != nil {
			known[*rows[i].StripeSubscriptionID] = &rows[i]
		}
	}
	for _, s := range a.at.subscriptions {
		row := known[s.ID]
		delete(known, s.ID)
		if err := a.applySubscription(ctx, customer, s, row); err != nil {
			return fmt.Errorf("subscription %s: %w", s.ID, err)
		}
	}
	for _, gone := range known {
		if gone.Status == models.StatusCanceled {
			continue
		}
		next := *gone
		next.Status = models.StatusCanceled
		if next.CancelAt == nil || next.CancelAt.After(a.now) {
			next.CancelAt = &a.now
		}
		if err := a.write(ctx, gone, &next); err != nil {
			return err
		}
	}
	return nil
}

// applySubscription makes row what Stripe has; row is nil when there is none yet. What cannot be is told to the operator, and
// nobody's plan changes by it.
func (a *application) applySubscription(ctx context.Context, customer *models.StripeCustomer, s *stripe.Subscription, row *models.Subscription) error {
	next := models.Subscription{CreatedAt: a.now, StripeSubscriptionID: &s.ID, StripeCustomerID: &customer.ID}
	if s.Created > 0 {
		next.CreatedAt = time.Unix(s.Created, 0).UTC()
	}
	if row != nil {
		next = *row
		next.StripeCustomerID = &customer.ID
	}
	next.Status = models.SubscriptionStatus(s.Status)
	ends := next.Active() // whether anybody's plan is at stake
	if s.CurrentPeriodEnd <= s.CurrentPeriodStart || s.CurrentPeriodStart <= 0 {
		if ends {
			a.fault("subscription %s: Stripe gives it no billing period (from %d to %d), as versions of its API after %s do; it stays as it was",
				s.ID, s.CurrentPeriodStart, s.CurrentPeriodEnd, stripe.APIVersion)
			return nil
		}
	} else {
		next.CurrentPeriodStart, next.CurrentPeriodEnd = unixTime(s.CurrentPeriodStart), unixTime(s.CurrentPeriodEnd)
	}
	next.BillingCycleAnchor = unixTime(s.BillingCycleAnchor)
	switch {
	case s.EndedAt > 0:
		next.CancelAt = unixTime(s.EndedAt)
	case s.CancelAt > 0:
		next.CancelAt = unixTime(s.CancelAt)
	case s.CancelAtPeriodEnd:
		next.CancelAt = next.CurrentPeriodEnd
	default:
		next.CancelAt = nil
	}
	kept, err := a.givePlan(ctx, s, &next, ends)
	if err != nil || !kept {
		return err
	}
	return a.write(ctx, row, &next)
}

// unixTime is Stripe's time; nil for its 0, which is none.
func unixTime(seconds int64) *time.Time {
	if seconds <= 0 {
		return nil
	}
	return new(time.Unix(seconds, 0).UTC())
}

// givePlan sets whose the subscription is and which plan it gives. Where that cannot be said, a row that is there keeps its
// plan and its holder, and one that is not there is not made: kept is false.
func (a *application) givePlan(ctx context.Context, s *stripe.Subscription, next *models.Subscription, active bool) (kept bool, err error) {
	isNew := next.ID == uuid.UUID{}
	fault := func(format string, args ...any) (bool, error) {
		if active {
			a.fault("subscription "+s.ID+": "+format, args...)
		}
		return !isNew, nil
	}
	plan, item, reason := a.prices.planOf(s)
	if item != nil {
		next.StripePriceID = &item.Price.ID
	}
	if reason != "" {
		return fault("%s", reason)
	}
	holder := a.owner
	if named, reason, err := a.named(ctx, s.Metadata); err != nil {
		return false, err
	} else if reason != "" {
		return fault("its metadata names %s", reason)
	} else if !named.none() {
		holder = named
	}
	if holder.none() && !isNew {
		holder = owner{user: next.UserID, organization: next.OrganizationID}
	}
	switch {
	case holder.none():
		return fault("nobody is named whom it is for, neither by metadata (tollgate_organization, tollgate_user or tollgate_email) nor by Checkout's client_reference_id")
	case plan.Type == models.Team && holder.organization == nil:
		return fault("%q is a team plan, which an organization may hold, and it is a person's", plan.ID)
	case plan.Type == models.Individual && holder.organization != nil:
		return fault("%q is an individual plan, which a person may hold, and it is an organization's", plan.ID)
	}
	next.PlanID, next.UserID, next.OrganizationID, next.Seats = plan.ID, holder.user, holder.organization, nil
	if plan.Type == models.Team {
		next.Seats = &item.Quantity
	}
	if a.owner.none() {
		a.owner = holder // the customer is theirs, until its own metadata says otherwise
	}
	return true, nil
}

// write stores what changed of a subscription. The database's triggers then have the people's records brought up to date, so
// nothing is written when nothing changed.
func (a *application) write(ctx context.Context, row, next *models.Subscription) error {
	if a.newest != nil && (next.StripeEventAt == nil || next.StripeEventAt.Before(*a.newest)) {
		next.StripeEventAt = a.newest
	}
	if row == nil {
		next.ID, next.UpdatedAt = uuid.Must(uuid.NewV7()), a.now
		if _, err := a.tx.NewInsert().Model(next).Exec(ctx); err != nil {
			return err
		}
		return a.audit(ctx, "subscription.begin", next)
	}
	if sameSubscription(row, next) {
		if sameTime(row.StripeEventAt, next.StripeEventAt) {
			return nil
		}
		_, err := a.tx.NewUpdate().Model(next).Column("stripe_event_at").WherePK().Exec(ctx)
		return err
	}
	next.UpdatedAt = a.now
	if _, err := a.tx.NewUpdate().Model(next).WherePK().Exec(ctx); err != nil {
		return err
	}
	if row.PlanID != next.PlanID || row.Status != next.Status {
		return a.audit(ctx, "subscription.change", next)
	}
	return nil
}

func (a *application) audit(ctx context.Context, action string, s *models.Subscription) error {
	return models.Audit(ctx, a.tx, a.now, actorStripe, action, *s.StripeSubscriptionID, fmt.Sprintf("plan %s, %s, customer %s", s.PlanID, s.Status, *s.StripeCustomerID))
}

// sameSubscription says that nothing that matters to anybody differs.
func sameSubscription(a, b *models.Subscription) bool {
	return a.PlanID == b.PlanID && a.Status == b.Status && same(a.UserID, b.UserID) && same(a.OrganizationID, b.OrganizationID) &&
		same(a.StripeCustomerID, b.StripeCustomerID) && same(a.StripePriceID, b.StripePriceID) && same(a.Seats, b.Seats) &&
		sameTime(a.BillingCycleAnchor, b.BillingCycleAnchor) && sameTime(a.CurrentPeriodStart, b.CurrentPeriodStart) &&
		sameTime(a.CurrentPeriodEnd, b.CurrentPeriodEnd) && sameTime(a.CancelAt, b.CancelAt)
}

func same[T comparable](a, b *T) bool { return a == b || a != nil && b != nil && *a == *b }

func sameTime(a, b *time.Time) bool { return a == b || a != nil && b != nil && a.Equal(*b) }
