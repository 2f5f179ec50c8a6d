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
	// sessionAge is how long a click leads to the same Checkout as the one before. Stripe keeps one open for a day.
	sessionAge = time.Hour
	// sessionsKept is how long a buyer's Checkout is known: Stripe has long told by then of what was bought there.
	sessionsKept = 7 * 24 * time.Hour
	// sessionTries is how often a Checkout is asked for when Stripe breaks, or another click of the same buyer is faster.
	sessionTries = 3
	// sessionInAddress is what Stripe replaces by the Checkout's id in the address that it leads back to.
	sessionInAddress = "{CHECKOUT_SESSION_ID}"
	// metadataPurchase is where a Checkout says what it is of.
	metadataPurchase = "tollgate_purchase"
)

// errFasterClick says that another click of the same buyer was faster.
var errFasterClick = errors.New("the same buyer began another purchase at the same time")

// begin returns where a purchase goes on. Each buyer has one open Checkout at a time, so that nobody pays for two plans.
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

// beginOnce leads to the buyer's Checkout of before, or closes that and makes a new one. The new one counts once its id is written
// down in place of that of before; until then nobody has its address.
func (s *Shop) beginOnce(ctx context.Context, session *stripe.CheckoutSessionParams) (string, error) {
	purchase := purchaseOf(session)
	name := objectCheckout + *session.ClientReferenceID
	before, err := s.sessionBefore(ctx, name)
	if err != nil {
		return "", err
	}
	if before != "" {
		if address, err := s.goOn(ctx, before, purchase); err != nil || address != "" {
			return address, err
		}
	}
	session.Params = params(ctx)
	session.Metadata = map[string]string{metadataPurchase: purchase}
	made, err := s.Client.CheckoutSessions.New(session)
	if err != nil {
		return "", err
	}
	return made.URL, s.keepSession(ctx, name, before, made.ID)
}

// purchaseOf is of all that a purchase consists of, so that two of the same are known as such.
func purchaseOf(session *stripe.CheckoutSessionParams) string {
	parts := []string{stripe.StringValue(session.Customer), stripe.StringValue(session.CustomerEmail), *session.SuccessURL}
	for _, i := range session.LineItems {
		parts = append(parts, fmt.Sprint(*i.Price, " ", stripe.Int64Value(i.Quantity)))
	}
	sum := sha256.Sum256([]byte(strings.Join(parts, "\n")))
	return hex.EncodeToString(sum[:16])
}

// goOn is where a Checkout of before leads to: on with it when it is open and of the same purchase, and when it was paid, to where that
// is waited for. With no address it can be paid no longer. It returns errFasterClick when it changed meanwhile.
func (s *Shop) goOn(ctx context.Context, id, purchase string) (address string, err error) {
	get := &stripe.CheckoutSessionParams{Params: params(ctx), Expand: stripe.StringSlice([]string{"subscription"})}
	found, err := s.Client.CheckoutSessions.Get(id, get)
	if err != nil {
		return "", onlyMissing(err)
	}
	switch found.Status {
	case stripe.CheckoutSessionStatusComplete:
		if found.Subscription == nil || found.Subscription.Status == stripe.SubscriptionStatusCanceled || found.Subscription.Status == stripe.SubscriptionStatusIncompleteExpired {
			return "", nil // what was bought has ended
		}
		return strings.ReplaceAll(found.SuccessURL, sessionInAddress, id), nil
	case stripe.CheckoutSessionStatusExpired:
		return "", nil
	}
	if found.Metadata[metadataPurchase] == purchase && models.Now(s.Now).Sub(time.Unix(found.Created, 0)) < sessionAge {
		return found.URL, nil
	}
	_, err = s.Client.CheckoutSessions.Expire(id, &stripe.CheckoutSessionExpireParams{Params: params(ctx)})
	if e := stripeError(err); e != nil && e.HTTPStatusCode == http.StatusBadRequest {
		return "", fmt.Errorf("%w: %w", errFasterClick, err)
	}
	return "", err
}

// sessionBefore is the id of the buyer's last Checkout; empty when there was none of late.
func (s *Shop) sessionBefore(ctx context.Context, name string) (string, error) {
	var ids []string
	if err := s.DB.NewSelect().Model((*models.StripeObject)(nil)).Column("stripe_id").Where("name = ?", name).Scan(ctx, &ids); err != nil {
		return "", fmt.Errorf("look for an earlier Checkout: %w", err)
	}
	if len(ids) == 0 {
		return "", nil
	}
	return ids[0], nil
}

// keepSession writes a Checkout down in place of the one before, and forgets those of long ago. It returns errFasterClick when the
// one before is no longer there.
func (s *Shop) keepSession(ctx context.Context, name, before, made string) error {
	now := models.Now(s.Now)
	return s.DB.InTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		if _, err := tx.NewDelete().Model((*models.StripeObject)(nil)).Where("name LIKE ? AND name <> ? AND updated_at < ?", objectCheckout+"%", name, now.Add(-sessionsKept)).Exec(ctx); err != nil {
			return err
		}
		row := models.StripeObject{Name: name, StripeID: made, UpdatedAt: now}
		kept, err := tx.NewInsert().Model(&row).On("CONFLICT (name) DO UPDATE").Set("stripe_id = EXCLUDED.stripe_id, updated_at = EXCLUDED.updated_at").
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
