package billing

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/uptrace/bun"

	"tollgate/models"
)

// A process claims a stream or a customer by storing a token and the end of its lease in the row.
// Another process takes over when the lease has ended, so within half a minute after a process was
// killed.
const (
	leaseTime = 25 * time.Second
	// leaseMargin is how long before the end of its lease a request to Stripe is canceled.
	leaseMargin = 5 * time.Second
	// leaseRenewal is how often the lease of a customer is renewed.
	leaseRenewal = 8 * time.Second
)

// lease is a stream that this process may send until the lease expires.
type lease struct {
	stream models.StripeStream
	token  uuid.UUID
	// report is the report to send, with this attempt already counted. before is its previous
	// state.
	report models.StripeReport
	before models.ReportState
}

// claim claims the stream that has waited longest, and counts the attempt of its first report. If
// the stream turns out to have nothing to send, found is true without a lease, and other streams
// may be due.
func (r *Reporter) claim(ctx context.Context) (got *lease, found bool, err error) {
	err = r.db.InTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		got, found = nil, false
		now := r.now()
		var streams []models.StripeStream
		q := tx.NewSelect().Model(&streams).Where("next_attempt_at <= ? AND blocked IS NULL AND (leased_until IS NULL OR leased_until "+
			"<= ?)", now, now).
			Where("NOT EXISTS (SELECT 1 FROM stripe_streams b WHERE b.meter_event_name = stripe_stream.meter_event_name AND b.blocked IS "+
				"NOT NULL AND b.blocked_kind = ?)",
				models.BlockedByMeter).
			Where(notHeld).
			Where("NOT EXISTS (SELECT 1 FROM stripe_state WHERE stopped IS NOT NULL OR paused IS NOT NULL)").Order("next_attempt_at").Limit(1)
		if err := models.ForUpdateSkipLocked(q).Scan(ctx); err != nil || len(streams) == 0 {
			return err
		}
		found = true
		l := &lease{stream: streams[0], token: r.newID()}
		ok, err := r.begin(ctx, tx, l)
		if err == nil && ok {
			got = l
		}
		return err
	})
	if err != nil {
		return nil, false, fmt.Errorf("claim a stream: %w", err)
	}
	return got, found, nil
}

// holds locks the stream and reports whether the lease is still ours.
func (r *Reporter) holds(ctx context.Context, tx bun.Tx, l *lease) (bool, error) {
	var streams []models.StripeStream
	q := tx.NewSelect().Model(&streams).Where("stripe_customer_id = ? AND meter_event_name = ?", l.stream.StripeCustomerID,
		l.stream.MeterEventName)
	if err := models.ForUpdate(q).Scan(ctx); err != nil || len(streams) == 0 {
		return false, err
	}
	l.stream = streams[0]
	return l.stream.LeaseToken != nil && *l.stream.LeaseToken == l.token, nil
}

// endLease ends the lease of a locked stream. The stream is due again with its next report, but not
// before notBefore.
func (r *Reporter) endLease(ctx context.Context, tx bun.Tx, l *lease, notBefore time.Time) error {
	var first bun.NullTime
	if err := tx.NewSelect().Model((*models.StripeReport)(nil)).ColumnExpr("MIN(next_attempt_at)").
		Where(sendable, l.stream.StripeCustomerID, l.stream.MeterEventName, r.now().Add(-r.guard)).Scan(ctx, &first); err != nil {
		return err
	}
	l.stream.NextAttemptAt, l.stream.LeaseToken, l.stream.LeasedUntil = nil, nil, nil
	if !first.IsZero() {
		next := first.UTC()
		if next.Before(notBefore) {
			next = notBefore
		}
		l.stream.NextAttemptAt = &next
	}
	_, err := tx.NewUpdate().Model(&l.stream).Column("next_attempt_at", "lease_token", "leased_until", "failures", "blocked",
		"blocked_kind").WherePK().Exec(ctx)
	return err
}

// release ends the lease without sending anything.
func (r *Reporter) release(ctx context.Context, l *lease) error {
	return r.db.InTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		held, err := r.holds(ctx, tx, l)
		if err != nil || !held {
			return err
		}
		return r.endLease(ctx, tx, l, time.Time{})
	})
}

// errLeaseLost means that another process has claimed the customer, so the fetched state may be
// outdated.
var errLeaseLost = errors.New("the lease expired and another process has the customer")

// claim claims the customer that has been due longest; nil without one.
func (w *Webhooks) claim(ctx context.Context) (*models.StripeCustomer, error) {
	now := models.Now(w.clock)
	// Check without a transaction first: on SQLite, a transaction would block all writers, and
	// usually nothing is due.
	due := func(db bun.IDB) *bun.SelectQuery {
		return db.NewSelect().Model((*models.StripeCustomer)(nil)).
			Where("next_attempt_at <= ? AND (leased_until IS NULL OR leased_until <= ?)", now, now).Order("next_attempt_at").Limit(1)
	}
	if some, err := due(w.db).Exists(ctx); err != nil || !some {
		return nil, err
	}
	var claimed *models.StripeCustomer
	err := w.db.InTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		claimed = nil
		var found []models.StripeCustomer
		if err := models.ForUpdateSkipLocked(due(tx).Model(&found)).Scan(ctx); err != nil || len(found) == 0 {
			return err
		}
		claimed = &found[0]
		claimed.LeaseToken, claimed.LeasedUntil = new(uuid.New()), new(now.Add(leaseTime))
		_, err := tx.NewUpdate().Model(claimed).Column("lease_token", "leased_until").WherePK().Exec(ctx)
		return err
	})
	return claimed, err
}

// renewLease renews the lease of a claimed customer until release is called. The returned context
// is for the requests to Stripe. It ends leaseMargin before the lease if the lease cannot be
// renewed, at once if another process has the customer, and after customerPatience at the latest.
func (w *Webhooks) renewLease(ctx context.Context, customer *models.StripeCustomer) (patience context.Context, release func()) {
	patience, cancel := context.WithTimeout(ctx, customerPatience)
	expiry := time.AfterFunc(customer.LeasedUntil.Sub(models.Now(w.clock))-leaseMargin, cancel)
	renewal := newWorker(func(ctx context.Context) {
		next := time.NewTicker(w.leaseRenewal)
		defer next.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-next.C:
			}
			begin := time.Now()
			renewed, err := w.db.NewUpdate().Model((*models.StripeCustomer)(nil)).Set("leased_until = ?", models.Now(w.clock).Add(leaseTime)).
				Where("id = ? AND lease_token = ?", customer.ID, *customer.LeaseToken).Exec(ctx)
			if err != nil {
				continue // the lease ends, and the requests before it, unless a later renewal succeeds
			}
			if n, err := renewed.RowsAffected(); err == nil && n == 0 {
				cancel()
				return
			}
			expiry.Reset(leaseTime - leaseMargin - time.Since(begin))
		}
	})
	renewal.Start(patience)
	return patience, func() {
		cancel()
		expiry.Stop()
		renewal.Stop()
	}
}
