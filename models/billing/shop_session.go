package billing

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/stripe/stripe-go/v76"
	"github.com/uptrace/bun"

	"tollgate/models"
)

const (
	// sessionAge is how long clicks lead to the same Checkout. Stripe keeps one open for a day.
	sessionAge = time.Hour
	// sessionsKept is how long a buyer's Checkout is stored. By then, Stripe has long reported any
	// purchase.
	sessionsKept = 7 * 24 * time.Hour
	// sessionTries is the number of attempts to create a Checkout if Stripe fails or another click
	// of the same buyer is faster.
	sessionTries = 3
	// sessionInAddress is the placeholder that Stripe replaces with the Checkout's ID in the return
	// URL.
	sessionInAddress = "{CHECKOUT_SESSION_ID}"
	// metadataPurchase is the metadata key for what a Checkout is about.
	metadataPurchase = "tollgate_purchase"
)

// errFasterClick means that another click of the same buyer was faster.
var errFasterClick = errors.New("the same buyer began another purchase at the same time")

// begin returns the URL where a purchase continues. Each buyer has one open Checkout at a time, so
// that no one pays for two plans.
func (s *Shop) begin(ctx context.Context, session *stripe.CheckoutSessionParams) (address string, err error) {
	for range sessionTries {
		address, err = s.beginOnce(ctx, session)
		e := stripeError(err)
		if broke := e != nil && e.HTTPStatusCode >= http.StatusInternalServerError; !broke && !errors.Is(err, errFasterClick) {
			break
		}
	}
	return address, err
}

// beginOnce continues the buyer's last Checkout, or closes it and creates a new one. The new one
// counts after its ID has replaced that of the last one; until then, its URL is not given out.
func (s *Shop) beginOnce(ctx context.Context, session *stripe.CheckoutSessionParams) (string, error) {
	purchase := purchaseOf(session)
	name := objectCheckout + *session.ClientReferenceID
	before, err := s.lastSession(ctx, name)
	if err != nil {
		return "", err
	}
	if before != "" {
		if address, err := s.continueSession(ctx, before, purchase); err != nil || address != "" {
			return address, err
		}
	}
	session.Params = params(ctx)
	session.Metadata = map[string]string{metadataPurchase: purchase}
	made, err := s.client.api.CheckoutSessions.New(session)
	if err != nil {
		return "", err
	}
	return made.URL, s.storeSession(ctx, name, before, made.ID)
}

// purchaseOf returns a text with everything that defines a purchase, to recognize the same purchase
// again.
func purchaseOf(session *stripe.CheckoutSessionParams) string {
	parts := []string{stripe.StringValue(session.Customer), stripe.StringValue(session.CustomerEmail), *session.SuccessURL}
	if buyer := session.SubscriptionData.Metadata[metadataBuyer]; buyer != "" {
		parts = append(parts, buyer) // another buyer must not pay for this one to become the admin
	}
	for _, i := range session.LineItems {
		parts = append(parts, fmt.Sprint(*i.Price, " ", stripe.Int64Value(i.Quantity)))
	}
	sum := sha256.Sum256([]byte(strings.Join(parts, "\n")))
	return hex.EncodeToString(sum[:16])
}

// continueSession returns the URL of the last Checkout: to continue it if it is open and for the
// same purchase, or, if it was paid, the page that waits for the webhook. The URL is empty if it
// can no longer be paid. It returns errFasterClick if the Checkout changed in the meantime.
func (s *Shop) continueSession(ctx context.Context, id, purchase string) (address string, err error) {
	get := &stripe.CheckoutSessionParams{Params: params(ctx), Expand: stripe.StringSlice([]string{"subscription"})}
	found, err := s.client.api.CheckoutSessions.Get(id, get)
	if err != nil {
		return "", onlyMissing(err)
	}
	switch found.Status {
	case stripe.CheckoutSessionStatusComplete:
		if found.Subscription == nil || found.Subscription.Status == stripe.SubscriptionStatusCanceled ||
			found.Subscription.Status == stripe.SubscriptionStatusIncompleteExpired {
			return "", nil // what was bought has ended
		}
		return strings.ReplaceAll(found.SuccessURL, sessionInAddress, id), nil
	case stripe.CheckoutSessionStatusExpired:
		return "", nil
	}
	if found.Metadata[metadataPurchase] == purchase && models.Now(s.clock).Sub(time.Unix(found.Created, 0)) < sessionAge {
		return found.URL, nil
	}
	_, err = s.client.api.CheckoutSessions.Expire(id, &stripe.CheckoutSessionExpireParams{Params: params(ctx)})
	if e := stripeError(err); e != nil && e.HTTPStatusCode == http.StatusBadRequest {
		return "", fmt.Errorf("%w: %w", errFasterClick, err)
	}
	return "", err
}

// lastSession returns the ID of the buyer's last Checkout; empty without a recent one.
func (s *Shop) lastSession(ctx context.Context, name string) (string, error) {
	var ids []string
	if err := s.db.NewSelect().Model((*models.StripeObject)(nil)).Column("stripe_id").Where("name = ?", name).Scan(ctx, &ids); err != nil {
		return "", fmt.Errorf("look for an earlier Checkout: %w", err)
	}
	if len(ids) == 0 {
		return "", nil
	}
	return ids[0], nil
}

// storeSession replaces the buyer's last Checkout, and deletes old ones. It returns errFasterClick
// if the last one has changed.
func (s *Shop) storeSession(ctx context.Context, name, before, made string) error {
	now := models.Now(s.clock)
	return s.db.InTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		if _, err := tx.NewDelete().Model((*models.StripeObject)(nil)).Where("name LIKE ? AND name <> ? AND updated_at < ?",
			objectCheckout+"%", name, now.Add(-sessionsKept)).Exec(ctx); err != nil {
			return err
		}
		row := models.StripeObject{Name: name, StripeID: made, UpdatedAt: now}
		kept, err := tx.NewInsert().Model(&row).On("CONFLICT (name) DO UPDATE").
			Set("stripe_id = EXCLUDED.stripe_id, updated_at = EXCLUDED.updated_at").
			Where("stripe_object.stripe_id = ?", before).Exec(ctx)
		if err != nil {
			return err
		}
		if n, err := kept.RowsAffected(); err != nil || n == 1 {
			return err
		}
		return errFasterClick
	})
}
