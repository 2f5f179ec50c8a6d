package billing

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/stripe/stripe-go/v76"
	"github.com/uptrace/bun"

	"tollgate/models"
)

const (
	// resyncRetry is the delay before a failed comparison of all subscriptions is repeated.
	resyncRetry = 30 * time.Minute
	// resyncLook is how often a process checks whether the comparison is due.
	resyncLook = 10 * time.Minute
	// thinVersion is a version of Stripe's API that serves thin events.
	// Source: https://docs.stripe.com/api/v2/core/events/retrieve
	thinVersion = "2024-10-28.acacia"
	// thinPatience is how long to try to fetch the content of a thin event. After that, it is
	// stored without content.
	thinPatience = 3 * 24 * time.Hour
)

// housekeeping applies thin events, and compares all subscriptions once a day.
func (w *Webhooks) housekeeping(ctx context.Context) error {
	if err := w.applyThin(ctx); err != nil {
		return err
	}
	now := models.Now(w.clock)
	if now.Before(w.resyncNotBefore) {
		return nil
	}
	w.resyncNotBefore = now.Add(resyncLook)
	_, err := w.Resync(ctx)
	return err
}

// Resync compares all subscriptions of the account with the stored ones, once a day in one process.
// Customers with differences are then applied as after a webhook. It returns their number.
func (w *Webhooks) Resync(ctx context.Context) (int, error) {
	now := models.Now(w.clock)
	differ := 0
	err := onceADay(ctx, w.db, now, "resynced_at", resyncRetry, func() error {
		customers, err := w.differing(ctx)
		if err != nil {
			return err
		}
		differ = len(customers)
		for some := range slices.Chunk(customers, 500) {
			if err := makeDue(ctx, w.db, now, some); err != nil {
				return err
			}
			nudge(w.wake)
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("compare all subscriptions with Stripe's: %w", err)
	}
	return differ, nil
}

// differing returns the customers to apply again:
//   - Stripe has a different subscription than the database;
//   - the customer has an error, or its reports are held back, and the reason may be gone;
//   - the customer pays for fewer seats than it has members;
//   - one person or organization pays for two subscriptions. If both arrived at the same time, neither apply saw the other one.
func (w *Webhooks) differing(ctx context.Context) ([]string, error) {
	if err := w.account.check(ctx); err != nil {
		return nil, err
	}
	var rows []models.Subscription
	if err := w.db.NewSelect().Model(&rows).Where("stripe_subscription_id IS NOT NULL AND stripe_customer_id IS NOT NULL").
		Where("status NOT IN (?)", bun.List(models.FinalStatuses)).Scan(ctx); err != nil {
		return nil, err
	}
	ours := make(map[string]*models.Subscription, len(rows))
	held := map[holder]string{}
	var customers []string
	for i := range rows {
		ours[*rows[i].StripeSubscriptionID] = &rows[i]
		if !rows[i].Active() {
			continue
		}
		of := holderOf(&rows[i])
		if held[of] != "" {
			customers = append(customers, held[of])
		}
		held[of] = *rows[i].StripeCustomerID
	}
	prices, err := readPlanPrices(ctx, w.db, w.catalogue)
	if err != nil {
		return nil, err
	}
	var faulty []string
	if err := w.db.NewSelect().Model((*models.StripeCustomer)(nil)).Column("id").
		Where("fault IS NOT NULL OR held_subscriptions IS NOT NULL").Scan(ctx, &faulty); err != nil {
		return nil, err
	}
	customers = append(customers, faulty...)
	all, err := teams(ctx, w.db)
	if err != nil {
		return nil, err
	}
	for _, t := range all {
		if t.Seats < t.Members {
			customers = append(customers, t.StripeCustomerID)
		}
	}
	// Without a status, the list has all subscriptions except ended ones.
	if err := w.client.listSubscriptions(ctx, &stripe.SubscriptionListParams{}, func(s *stripe.Subscription) {
		row := ours[s.ID]
		delete(ours, s.ID)
		if s.Customer != nil && (row == nil || prices.differs(s, row)) {
			customers = append(customers, s.Customer.ID)
		}
	}); err != nil {
		return nil, err
	}
	for _, gone := range ours {
		customers = append(customers, *gone.StripeCustomerID)
	}
	slices.Sort(customers)
	return slices.Compact(customers), nil
}

// differs reports whether a subscription at Stripe may differ from its row.
func (p *planPrices) differs(s *stripe.Subscription, row *models.Subscription) bool {
	plan, item, reason := p.planOf(s)
	ends := unixTime(s.CancelAt)
	if ends == nil && s.CancelAtPeriodEnd {
		ends = unixTime(s.CurrentPeriodEnd)
	}
	return reason != "" || !p.sameOverage(s, row) || !same(p.itemsOf(s), row.OverageItems) || len(p.mismatches(s)) > 0 ||
		plan.ID != row.PlanID || models.SubscriptionStatus(s.Status) != row.Status ||
		row.StripePriceID == nil || item.Price.ID != *row.StripePriceID || row.StripeCustomerID == nil ||
		s.Customer.ID != *row.StripeCustomerID ||
		row.Seats != nil && *row.Seats != item.Quantity || !sameTime(ends, row.CancelAt) ||
		!sameTime(unixTime(s.CurrentPeriodStart), row.CurrentPeriodStart) || !sameTime(unixTime(s.CurrentPeriodEnd), row.CurrentPeriodEnd)
}

// meterErrors is a thin event: meter events that Stripe received and did not count, with samples.
type meterErrors struct {
	stripe.APIResource
	Data *struct {
		DeveloperMessageSummary string `json:"developer_message_summary"`
		Reason                  struct {
			ErrorCount int64 `json:"error_count"`
			ErrorTypes []struct {
				Code         string `json:"code"`
				ErrorCount   int64  `json:"error_count"`
				SampleErrors []struct {
					ErrorMessage string `json:"error_message"`
					Request      struct {
						Identifier string `json:"identifier"`
					} `json:"request"`
				} `json:"sample_errors"`
			} `json:"error_types"`
		} `json:"reason"`
	} `json:"data"`
}

// summary returns a text for operators.
func (e *meterErrors) summary() string {
	if e.Data == nil {
		return "Stripe gave no details"
	}
	parts := []string{e.Data.DeveloperMessageSummary}
	for _, t := range e.Data.Reason.ErrorTypes {
		parts = append(parts, fmt.Sprintf("%s: %d", t.Code, t.ErrorCount))
	}
	return strings.Trim(strings.Join(parts, "; "), "; ")
}

// thinTime is the time of a thin event. It is a string, while other events have a number.
func thinTime(raw json.RawMessage) *time.Time {
	var text string
	if json.Unmarshal(raw, &text) != nil {
		var seconds int64
		_ = json.Unmarshal(raw, &seconds) // what is neither is no time
		return unixTime(seconds)
	}
	at, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return nil
	}
	return new(at.UTC().Truncate(time.Microsecond))
}

// identifiersOf returns the identifiers of the report that a sample may name. Stripe's reference
// calls the sample's identifier "the request idempotency key", which is the report's identifier and
// the number of the attempt (see sendMeterEvent). Source:
// https://docs.stripe.com/api/v2/core/events/event-types
func identifiersOf(sample string) []string {
	identifiers := []string{sample}
	if i := strings.LastIndexByte(sample, ':'); i > 0 {
		if _, err := strconv.ParseUint(sample[i+1:], 10, 31); err == nil {
			identifiers = append(identifiers, sample[:i])
		}
	}
	return identifiers
}

// applyThin stores on the reports what Stripe says about them, and makes those that Stripe received
// due to be read.
func (w *Webhooks) applyThin(ctx context.Context) error {
	now := models.Now(w.clock)
	if now.Before(w.thinNotBefore) {
		return nil
	}
	for {
		var events []models.StripeWebhookEvent
		if err := w.db.NewSelect().Model(&events).Where("applied_at IS NULL AND stripe_customer_id IS NULL AND type IN (?)",
			bun.List(ThinWebhookTypes)).
			Order("received_at").Limit(20).Scan(ctx); err != nil {
			return fmt.Errorf("read the errors of meters: %w", err)
		}
		if len(events) == 0 {
			w.thinFailures = 0
			return nil
		}
		for i := range events {
			if err := w.applyThinEvent(ctx, now, &events[i]); err != nil {
				w.thinNotBefore = now.Add(fullJitter(w.random(), w.thinFailures))
				w.thinFailures++
				return fmt.Errorf("apply the event %s: %w", events[i].ID, err)
			}
		}
	}
}

func (w *Webhooks) applyThinEvent(ctx context.Context, now time.Time, event *models.StripeWebhookEvent) error {
	var content meterErrors
	if err := json.Unmarshal([]byte(event.Payload), &content); err != nil {
		content.Data = nil // of a form that is not known; its summary says so
	} else if content.Data == nil && now.Sub(event.ReceivedAt) < thinPatience {
		ask := params(ctx)
		ask.Headers = http.Header{"Stripe-Version": {thinVersion}}
		err := w.client.backend.Call(http.MethodGet, "/v2/core/events/"+url.PathEscape(event.ID), w.client.key, &ask, &content)
		// An event that does not exist is stored without content; other errors may be temporary.
		if e := stripeError(err); err != nil && (e == nil || e.HTTPStatusCode != http.StatusNotFound) {
			return err
		}
	}
	summary := content.summary()
	w.log.ErrorContext(ctx, "Stripe did not count some meter events", "event", event.ID,
		"type", event.Type, "summary", summary)
	return w.db.InTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		marked, err := tx.NewUpdate().Model((*models.StripeWebhookEvent)(nil)).Set("applied_at = ?, last_error = ?", now, summary).
			Where("id = ? AND applied_at IS NULL", event.ID).Exec(ctx)
		if err != nil {
			return err
		}
		if n, err := marked.RowsAffected(); err != nil || n == 0 || content.Data == nil {
			return err
		}
		for _, kind := range content.Data.Reason.ErrorTypes {
			for _, sample := range kind.SampleErrors {
				if sample.Request.Identifier == "" {
					continue
				}
				_, err := tx.NewUpdate().Model((*models.StripeReport)(nil)).
					Set("last_error = ?", strings.Trim(kind.Code+": "+sample.ErrorMessage, ": ")).
					Set("next_attempt_at = CASE WHEN state = ? THEN ? ELSE next_attempt_at END", models.ReportAccepted, now).
					Where("identifier IN (?)", bun.List(identifiersOf(sample.Request.Identifier))).Exec(ctx)
				if err != nil {
					return err
				}
			}
		}
		return nil
	})
}
