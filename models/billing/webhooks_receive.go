package billing

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/stripe/stripe-go/v76"
	"github.com/stripe/stripe-go/v76/webhook"
	"github.com/uptrace/bun"

	"tollgate/models"
)

const (
	// signatureTolerance is how much a signature's time may differ from ours, in both directions.
	// Stripe signs each attempt again. Source: https://docs.stripe.com/webhooks#replay-attacks
	signatureTolerance = 5 * time.Minute
	// receivePatience is how long the answer to a webhook waits until the event is applied.
	// receiveWaiters is how many may wait at a time, and customerWaiters how many for one customer;
	// the others are answered at once.
	receivePatience = 2 * time.Second
	receiveWaiters  = 64
	customerWaiters = 4
	// receivePoll is how often a waiting call checks, because another process may apply the event.
	receivePoll = 250 * time.Millisecond
	// maxEventID is the maximum length of an event ID, in bytes. Stripe's IDs have at most 255
	// characters.
	maxEventID = 255
)

// WebhookPath is the path for Stripe's events, after the base URL.
const WebhookPath = "/stripe/webhook"

// WebhookTypes are the event types that setup subscribes to and that are applied, without thin
// ones. Events of other types are only stored.
var WebhookTypes = []string{
	"checkout.session.completed",
	"customer.subscription.created", "customer.subscription.updated", "customer.subscription.deleted",
	"customer.subscription.paused", "customer.subscription.resumed", "customer.deleted",
	"invoice.created", "invoice.finalized", "invoice.paid", "invoice.payment_failed",
}

// checkoutCompleted is the event with the owner of a subscription, as Checkout's
// client_reference_id.
const checkoutCompleted = "checkout.session.completed"

// ThinWebhookTypes are the types of thin events about meter events that Stripe did not count.
// Source: https://docs.stripe.com/billing/subscriptions/usage-based/recording-usage-api#handle-errors
var ThinWebhookTypes = []string{"v1.billing.meter.error_report_triggered", "v1.billing.meter.no_meter_found"}

// ErrNotStripes means that a webhook is not a current one from Stripe: its signature is missing,
// wrong, too old or in the future.
var ErrNotStripes = errors.New("the webhook is not a valid, current event from Stripe")

// WebhookOptions configure Webhooks. All except Secret are required.
type WebhookOptions struct {
	DB        *models.DB
	Client    *Client
	Catalogue *models.Catalogue
	// Secret is the endpoint's signing secret, or several, separated by commas: thin events come
	// from a destination with its own secret, and a replaced secret stays valid for some time.
	// Without one, no webhooks are received, and only the daily comparison updates plans.
	Secret string
	Now    func() time.Time
	// Random returns a random number in [0, 1).
	Random func() float64
	Log    *slog.Logger
}

// Webhooks store Stripe's events and update the plans. They never apply the state in an event: an
// event only says which customer's state to fetch from Stripe. So events may arrive late, twice and
// in any order.
type Webhooks struct {
	db        *models.DB
	client    *Client
	catalogue *models.Catalogue
	secret    string
	clock     func() time.Time
	random    func() float64
	log       *slog.Logger
	account   *accountCheck

	// wake and wakeThin wake a worker.
	wake, wakeThin chan struct{}
	waiters        chan struct{}
	workers        workers

	// preparing is locked while people's records are updated.
	preparing sync.Mutex

	mu sync.Mutex
	// waiting has the channels of calls that wait for a customer to be applied. They receive
	// whether that succeeded.
	waiting map[string][]chan bool

	// thinFailures and thinNotBefore delay the next request for thin events. Only housekeeping uses
	// them.
	thinFailures  int
	thinNotBefore time.Time
	// resyncNotBefore avoids unnecessary queries.
	resyncNotBefore time.Time
	// leaseRenewal is how often the lease of a customer is renewed. Tests may shorten it.
	leaseRenewal time.Duration
}

// NewWebhooks returns Webhooks that can receive events. Start applies them.
func NewWebhooks(o WebhookOptions) *Webhooks {
	w := &Webhooks{
		db: o.DB, client: o.Client, catalogue: o.Catalogue, secret: o.Secret, clock: o.Now, random: o.Random, log: o.Log,
		account: newAccountCheck(o.Client, o.DB, nil), wake: make(chan struct{}, customerWorkers), wakeThin: make(chan struct{}, 1),
		waiters: make(chan struct{}, receiveWaiters), waiting: map[string][]chan bool{}, leaseRenewal: leaseRenewal,
	}
	for range customerWorkers {
		w.workers = append(w.workers, newWorker(func(ctx context.Context) { w.run(ctx, w.wake, w.applyDue) }))
	}
	w.workers = append(w.workers, newWorker(func(ctx context.Context) { w.run(ctx, w.wakeThin, w.housekeeping) }))
	return w
}

// Receives reports whether there is a secret to verify Stripe's signatures.
func (w *Webhooks) Receives() bool { return strings.Trim(w.secret, ", ") != "" }

// Receive stores a webhook's event, and waits a moment until it is applied. An event with the same
// ID changes nothing. After the event is stored, there is no error. It returns ErrNotStripes, or an
// error of the database.
func (w *Webhooks) Receive(ctx context.Context, payload []byte, signature string) error {
	now := models.Now(w.clock)
	event, err := w.read(payload, signature, now)
	if err != nil {
		return err
	}
	fresh, err := w.store(ctx, event, now)
	if err != nil {
		return fmt.Errorf("store the webhook %s: %w", event.ID, err)
	}
	if !fresh || event.AppliedAt != nil {
		return nil
	}
	if event.StripeCustomerID == nil {
		nudge(w.wakeThin)
		return nil
	}
	select {
	case w.waiters <- struct{}{}:
		defer func() { <-w.waiters }()
		w.await(ctx, event)
	default:
		nudge(w.wake)
	}
	return nil
}

// read verifies the signature of the raw bytes and parses the fields that the inbox stores.
func (w *Webhooks) read(payload []byte, signature string, now time.Time) (*models.StripeWebhookEvent, error) {
	secret, err := w.secretOf(payload, signature)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotStripes, err)
	}
	if err := checkTime(signature, now); err != nil {
		return nil, err
	}
	var head struct {
		ID, Type, Object string
		Created          json.RawMessage
	}
	if err := json.Unmarshal(payload, &head); err != nil || head.ID == "" || head.Type == "" || len(head.ID) > maxEventID ||
		strings.ContainsRune(head.ID+head.Type, 0) {
		return nil, fmt.Errorf("%w: it is not an event", ErrNotStripes)
	}
	kept := &models.StripeWebhookEvent{ID: head.ID, Type: head.Type, Payload: strings.ToValidUTF8(string(payload), "\uFFFD"), ReceivedAt: now}
	if slices.Contains(ThinWebhookTypes, head.Type) {
		kept.OccurredAt = thinTime(head.Created)
		return kept, nil
	}
	kept.AppliedAt = &now
	if !slices.Contains(WebhookTypes, head.Type) && !slices.Contains(endedInvoiceTypes, head.Type) {
		// It is not used, and may be about an erased person, so its text is not stored.
		kept.Payload = models.ErasedPayload
		return kept, nil
	}
	event, err := webhook.ConstructEventWithOptions(payload, signature, secret, webhook.ConstructEventOptions{IgnoreTolerance: true,
		IgnoreAPIVersionMismatch: true})
	if err != nil || event.Data == nil {
		return nil, fmt.Errorf("%w: it is not an event: %w", ErrNotStripes, err)
	}
	if event.Created > 0 {
		kept.OccurredAt = new(time.Unix(event.Created, 0).UTC())
	}
	switch id := customerOf(&event); {
	case strings.ContainsRune(id, 0):
		return nil, fmt.Errorf("%w: its customer's ID contains a NUL character", ErrNotStripes)
	case id != "":
		kept.StripeCustomerID, kept.AppliedAt = &id, nil
	}
	return kept, nil
}

// CheckSignature checks what is possible without the body: that there is a signature with a current
// time. It returns ErrNotStripes.
func (w *Webhooks) CheckSignature(signature string) error {
	timed, signed := false, false
	for pair := range strings.SplitSeq(signature, ",") {
		name, value, ok := strings.Cut(pair, "=")
		if !ok || strings.Contains(value, "=") {
			return fmt.Errorf("%w: its signature is malformed", ErrNotStripes)
		}
		switch name {
		case "t":
			if _, err := strconv.ParseInt(value, 10, 64); err != nil {
				return fmt.Errorf("%w: its signature is malformed", ErrNotStripes)
			}
			timed = true
		case "v1":
			sum, err := hex.DecodeString(value)
			signed = signed || err == nil && len(sum) == sha256.Size
		}
	}
	if !timed || !signed {
		return fmt.Errorf("%w: it has no signature", ErrNotStripes)
	}
	return checkTime(signature, models.Now(w.clock))
}

// checkTime returns ErrNotStripes if a signature's time is not current. Stripe's own package would
// use its own clock, and accepts times in the future.
func checkTime(signature string, now time.Time) error {
	if d := now.Sub(signedAt(signature)); d > signatureTolerance || d < -signatureTolerance {
		return fmt.Errorf("%w: the time of its signature differs from the server's time by %s", ErrNotStripes, d.Abs())
	}
	return nil
}

// secretOf returns the secret that a payload is signed with.
func (w *Webhooks) secretOf(payload []byte, signature string) (secret string, err error) {
	for text := range strings.SplitSeq(w.secret, ",") {
		// With an empty secret, anyone could sign.
		if secret = strings.TrimSpace(text); secret == "" {
			continue
		}
		if err = webhook.ValidatePayloadIgnoringTolerance(payload, signature, secret); err == nil {
			return secret, nil
		}
	}
	if err == nil {
		err = errors.New("no signing secret is set")
	}
	return "", err
}

// signedAt returns the time of a valid signature. Of several times, the last one counts, as in the
// verification.
func signedAt(signature string) (at time.Time) {
	for pair := range strings.SplitSeq(signature, ",") {
		if text, ok := strings.CutPrefix(pair, "t="); ok {
			if seconds, err := strconv.ParseInt(text, 10, 64); err == nil {
				at = time.Unix(seconds, 0)
			}
		}
	}
	return at
}

// customerOf returns the ID of the customer that an event is about; empty without one.
func customerOf(event *stripe.Event) string {
	var object struct {
		ID, Object string
		Customer   json.RawMessage
	}
	if json.Unmarshal(event.Data.Raw, &object) != nil {
		return ""
	}
	if object.Object == "customer" {
		return object.ID
	}
	var id string
	if json.Unmarshal(object.Customer, &id) == nil {
		return id
	}
	var expanded struct{ ID string }
	_ = json.Unmarshal(object.Customer, &expanded) // empty without one
	return expanded.ID
}

// store stores the event and makes its customer due, in one transaction. fresh is false if the
// event was stored before.
func (w *Webhooks) store(ctx context.Context, event *models.StripeWebhookEvent, now time.Time) (fresh bool, err error) {
	err = w.db.InTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		made, err := tx.NewInsert().Model(event).On("CONFLICT (id) DO NOTHING").Exec(ctx)
		if err != nil {
			return err
		}
		n, err := made.RowsAffected()
		if fresh = n == 1; err != nil || !fresh || event.StripeCustomerID == nil {
			return err
		}
		return makeDue(ctx, tx, now, []string{*event.StripeCustomerID})
	})
	return fresh, err
}

// makeDue makes customers due to be fetched from Stripe.
func makeDue(ctx context.Context, db bun.IDB, now time.Time, ids []string) error {
	rows := make([]models.StripeCustomer, len(ids))
	for i, id := range ids {
		rows[i] = models.StripeCustomer{ID: id, NextAttemptAt: &now, CreatedAt: now}
	}
	_, err := db.NewInsert().Model(&rows).On("CONFLICT (id) DO UPDATE").Set("next_attempt_at = EXCLUDED.next_attempt_at").
		Where("stripe_customer.next_attempt_at IS NULL OR stripe_customer.next_attempt_at > EXCLUDED.next_attempt_at").Exec(ctx)
	return err
}

// await waits a moment for the event to be applied, here or by another process.
func (w *Webhooks) await(ctx context.Context, event *models.StripeWebhookEvent) {
	customer := *event.StripeCustomerID
	answer, ok := w.notify(customer)
	nudge(w.wake)
	if !ok {
		return
	}
	defer w.forget(customer, answer)
	ctx, cancel := context.WithTimeout(ctx, receivePatience)
	defer cancel()
	poll := time.NewTicker(receivePoll)
	defer poll.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case succeeded := <-answer:
			if !succeeded {
				return
			}
		case <-poll.C:
			nudge(w.wake)
		}
		waiting, err := w.db.NewSelect().Model((*models.StripeWebhookEvent)(nil)).Where("id = ? AND applied_at IS NULL", event.ID).Exists(ctx)
		if err != nil || !waiting {
			return
		}
	}
}

// notify returns a channel that receives a value each time a customer was applied or failed; nil if
// too many are waiting.
func (w *Webhooks) notify(customer string) (answer chan bool, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.waiting[customer]) >= customerWaiters {
		return nil, false
	}
	answer = make(chan bool, 1)
	w.waiting[customer] = append(w.waiting[customer], answer)
	return answer, true
}

func (w *Webhooks) forget(customer string, answer chan bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.waiting[customer] = slices.DeleteFunc(w.waiting[customer], func(c chan bool) bool { return c == answer })
	if len(w.waiting[customer]) == 0 {
		delete(w.waiting, customer)
	}
}

// answerWaiters answers the calls that wait for a customer.
func (w *Webhooks) answerWaiters(customer string, succeeded bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, answer := range w.waiting[customer] {
		select {
		case answer <- succeeded:
		default: // it has not read the last value yet
		}
	}
}
