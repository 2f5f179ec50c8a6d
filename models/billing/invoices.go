package billing

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/stripe/stripe-go/v76"
	"github.com/stripe/stripe-go/v76/form"
	"github.com/uptrace/bun"

	"tollgate/models"
)

// invoicesAtOnce is the maximum number of invoices to read when a customer's events are applied.
// The other events wait for the next time.
const invoicesAtOnce = 50

// endedInvoiceTypes are the events of invoices that end unpaid. Setup does not subscribe to them,
// because the daily comparison reads open invoices again, but an endpoint may receive them.
var endedInvoiceTypes = []string{"invoice.voided", "invoice.marked_uncollectible"}

// invoice is an invoice with its lines. It reads the fields that we need from every version of
// Stripe's API: versions since 2025-03-31 have the subscription and the price in other places,
// where the SDK does not read them. Source:
// https://docs.stripe.com/changelog/basil/2025-03-31/adds-new-parent-field-to-invoicing-objects
type invoice struct {
	stripe.APIResource
	ID                string               `json:"id"`
	Customer          objectID             `json:"customer"`
	Subscription      objectID             `json:"subscription"`
	Status            models.InvoiceStatus `json:"status"`
	Currency          string               `json:"currency"`
	PeriodStart       int64                `json:"period_start"`
	PeriodEnd         int64                `json:"period_end"`
	StatusTransitions struct {
		FinalizedAt int64 `json:"finalized_at"`
	} `json:"status_transitions"`
	Parent struct {
		SubscriptionDetails struct {
			Subscription objectID `json:"subscription"`
		} `json:"subscription_details"`
	} `json:"parent"`
	Lines invoiceLines `json:"lines"`
}

type invoiceLines struct {
	stripe.APIResource
	stripe.ListMeta
	Data []*invoiceLine `json:"data"`
}

type invoiceLine struct {
	ID           string        `json:"id"`
	Amount       int64         `json:"amount"`
	Currency     string        `json:"currency"`
	Quantity     int64         `json:"quantity"`
	Subscription objectID      `json:"subscription"`
	Price        *stripe.Price `json:"price"`
	Pricing      struct {
		PriceDetails struct {
			Price string `json:"price"`
		} `json:"price_details"`
	} `json:"pricing"`
	Period struct {
		Start int64 `json:"start"`
		End   int64 `json:"end"`
	} `json:"period"`
}

// objectID is the ID of an object that may be expanded; empty for null.
type objectID string

// UnmarshalJSON reads the ID or the object.
func (id *objectID) UnmarshalJSON(data []byte) error {
	var expanded struct{ ID string }
	if json.Unmarshal(data, &expanded) == nil {
		*id = objectID(expanded.ID)
		return nil
	}
	return json.Unmarshal(data, (*string)(id))
}

func (id objectID) orNil() *string {
	if id == "" {
		return nil
	}
	return new(string(id))
}

// invoice fetches an invoice with all its lines. It returns Stripe's error.
func (c *Client) invoice(ctx context.Context, id string) (*invoice, error) {
	i := &invoice{}
	if err := c.backend.Call(http.MethodGet, "/v1/invoices/"+url.PathEscape(id), c.key,
		&stripe.InvoiceParams{Params: params(ctx)}, i); err != nil {
		return nil, err
	}
	return i, c.allLines(ctx, i)
}

// allLines fetches the lines that are missing in an invoice.
func (c *Client) allLines(ctx context.Context, i *invoice) error {
	if !i.Lines.HasMore {
		return nil
	}
	i.Lines.Data, i.Lines.HasMore = nil, false
	list := &stripe.InvoiceListLinesParams{}
	list.Context, list.Limit = ctx, stripe.Int64(100)
	return c.list("/v1/invoices/"+url.PathEscape(i.ID)+"/lines", list,
		func() (stripe.ListContainer, func() []any) {
			page := &invoiceLines{}
			return page, func() []any { return anys(page.Data) }
		}, func(line any) { i.Lines.Data = append(i.Lines.Data, line.(*invoiceLine)) })
}

// invoicesOf calls do for the customer's newest invoices, at most a hundred. It does not fetch
// missing lines.
func (c *Client) invoicesOf(ctx context.Context, customer string, do func(*invoice)) error {
	list := &stripe.InvoiceListParams{Customer: &customer}
	list.Context, list.Limit, list.Single = ctx, stripe.Int64(100), true
	return c.list("/v1/invoices", list, func() (stripe.ListContainer, func() []any) {
		page := &struct {
			stripe.APIResource
			stripe.ListMeta
			Data []*invoice `json:"data"`
		}{}
		return page, func() []any { return anys(page.Data) }
	}, func(i any) { do(i.(*invoice)) })
}

// list calls do for each object of a list; newPage creates the pages.
func (c *Client) list(
	path string, params stripe.ListParamsContainer, newPage func() (stripe.ListContainer, func() []any), do func(any),
) error {
	found := stripe.GetIter(params, func(p *stripe.Params, b *form.Values) ([]any, stripe.ListContainer, error) {
		page, data := newPage()
		err := c.backend.CallRaw(http.MethodGet, path, c.key, b, p, page.(stripe.LastResponseSetter))
		return data(), page, err
	})
	for found.Next() {
		do(found.Current())
	}
	return found.Err()
}

func anys[T any](list []T) []any {
	all := make([]any, len(list))
	for i, v := range list {
		all[i] = v
	}
	return all
}

// overageLine returns the plan and the meter whose overage a line bills; ok is false if it bills
// none of ours.
func (p *planPrices) overageLine(line *invoiceLine) (price string, plan models.PlanID, meter string, ok bool) {
	price = line.Pricing.PriceDetails.Price
	if line.Price != nil {
		price = line.Price.ID
	}
	plan, ok = p.overage[price]
	if !ok && (line.Price == nil || !isMetered(line.Price) || !p.isOurs(line.Price)) {
		return price, "", "", false
	}
	if !ok {
		if key, sold := strings.CutPrefix(line.Price.LookupKey, lookupOverage); sold {
			plan = models.PlanID(key)
		} else if line.Price.Product != nil {
			plan = p.byProduct[line.Price.Product.ID]
		}
		if of := line.Price.Recurring.Meter; p.meters[of] != "" {
			plan = p.meters[of]
		} else if of != "" && of == p.oldMeter {
			plan = ""
		}
	}
	if plan == "" {
		return price, "", p.catalogue.MeterEventName, true
	}
	return price, plan, p.catalogue.MeterOf(plan), true
}

// storeInvoice stores an invoice that was requested at readAt, with its lines that bill overage. It
// does nothing if a later result is stored.
func storeInvoice(ctx context.Context, tx bun.Tx, prices *planPrices, i *invoice, readAt time.Time) error {
	row := models.StripeInvoice{
		ID: i.ID, StripeCustomerID: string(i.Customer), StripeSubscriptionID: i.Subscription.orNil(), Status: i.Status, Currency: i.Currency,
		PeriodStart: unixTime(i.PeriodStart), PeriodEnd: unixTime(i.PeriodEnd),
		FinalizedAt: unixTime(i.StatusTransitions.FinalizedAt), ReadAt: readAt,
	}
	if row.StripeSubscriptionID == nil {
		row.StripeSubscriptionID = i.Parent.SubscriptionDetails.Subscription.orNil()
	}
	if row.FinalizedAt == nil && row.Status != models.InvoiceDraft {
		row.FinalizedAt = &readAt
	}
	done, err := tx.NewInsert().Model(&row).On("CONFLICT (id) DO UPDATE").
		Set("status = EXCLUDED.status, currency = EXCLUDED.currency, period_start = EXCLUDED.period_start, period_end = EXCLUDED.period_end").
		Set("finalized_at = COALESCE(EXCLUDED.finalized_at, stripe_invoice.finalized_at), read_at = EXCLUDED.read_at, balanced = " +
			"EXCLUDED.balanced").
		Set("stripe_customer_id = EXCLUDED.stripe_customer_id, stripe_subscription_id = EXCLUDED.stripe_subscription_id").
		Where("stripe_invoice.read_at <= EXCLUDED.read_at").Exec(ctx)
	if err != nil {
		return err
	}
	if n, err := done.RowsAffected(); err != nil || n == 0 {
		return err
	}
	if _, err := tx.NewDelete().Model((*models.StripeInvoiceLine)(nil)).Where("stripe_invoice_id = ?", i.ID).Exec(ctx); err != nil {
		return err
	}
	var lines []models.StripeInvoiceLine
	for _, l := range i.Lines.Data {
		price, plan, meter, ok := prices.overageLine(l)
		if !ok || l.Period.End <= l.Period.Start {
			continue
		}
		line := models.StripeInvoiceLine{
			StripeInvoiceID: i.ID, ID: l.ID, StripeCustomerID: row.StripeCustomerID, StripeSubscriptionID: l.Subscription.orNil(),
			StripePriceID:  price,
			MeterEventName: meter, PlanID: plan, Quantity: l.Quantity, AmountCents: l.Amount, Currency: l.Currency,
			PeriodStart: time.Unix(l.Period.Start, 0).UTC(), PeriodEnd: time.Unix(l.Period.End, 0).UTC(),
		}
		if line.StripeSubscriptionID == nil {
			line.StripeSubscriptionID = row.StripeSubscriptionID
		}
		lines = append(lines, line)
	}
	for some := range slices.Chunk(lines, 500) {
		if _, err := tx.NewInsert().Model(&some).Exec(ctx); err != nil {
			return err
		}
	}
	return nil
}

// namedInvoices returns the IDs of the invoices in events, at most invoicesAtOnce, and the leading
// events that these cover.
func (w *Webhooks) namedInvoices(
	ctx context.Context, events []models.StripeWebhookEvent,
) (ids []string, until []models.StripeWebhookEvent, err error) {
	for from := 0; from < len(events); from += 100 {
		some := events[from:min(from+100, len(events))]
		var of []string
		for _, e := range some {
			if strings.HasPrefix(e.Type, "invoice.") {
				of = append(of, e.ID)
			}
		}
		if len(of) == 0 {
			continue
		}
		var rows []models.StripeWebhookEvent
		if err := w.db.NewSelect().Model(&rows).Column("id", "payload").Where("id IN (?)", bun.List(of)).Scan(ctx); err != nil {
			return nil, nil, err
		}
		invoices := map[string]string{}
		for _, row := range rows {
			var event struct {
				Data struct{ Object struct{ ID, Object string } }
			}
			if o := &event.Data.Object; json.Unmarshal([]byte(row.Payload), &event) == nil && o.Object == "invoice" {
				invoices[row.ID] = o.ID
			}
		}
		for i, e := range some {
			id := invoices[e.ID]
			if id == "" || slices.Contains(ids, id) {
				continue
			}
			if len(ids) == invoicesAtOnce {
				return ids, events[:from+i], nil
			}
			ids = append(ids, id)
		}
	}
	return ids, events, nil
}

// askInvoices fetches invoices of a customer. It leaves out invoices that Stripe does not have,
// such as a deleted draft, and those of other customers. A key without permission to read invoices
// still lets the customer's plan be updated.
func (c *Client) askInvoices(ctx context.Context, customer string, ids []string, at *atStripe) error {
	for _, id := range ids {
		i, err := c.invoice(ctx, id)
		if isMissing(err) {
			continue
		}
		if e := stripeError(err); e != nil && e.HTTPStatusCode == http.StatusForbidden {
			at.unread = err
			return nil
		}
		if err != nil {
			return fmt.Errorf("invoice %s: %w", id, err)
		}
		if string(i.Customer) == customer {
			at.invoices = append(at.invoices, i)
		}
	}
	return nil
}

// storeInvoices stores fetched invoices.
func (a *application) storeInvoices(ctx context.Context) error {
	if a.at.unread != nil {
		a.problem("its invoices cannot be read, so it is unknown what they bill: %v", a.at.unread)
	}
	for _, i := range a.at.invoices {
		if err := storeInvoice(ctx, a.tx, a.prices, i, a.at.readAt); err != nil {
			return fmt.Errorf("invoice %s: %w", i.ID, err)
		}
	}
	return nil
}

// errInvoices means that Stripe does not show a customer's invoices, for example because the key
// lacks the permission.
var errInvoices = errors.New("the invoices cannot be read")

// isTemporary reports whether an error of Stripe's may be temporary.
func isTemporary(err error) bool {
	v := classify(err, 1).verdict
	return v != refused && v != misconfigured
}

// readInvoices fetches the invoices of a customer and stores those that are new or have another
// status.
func (r *Reporter) readInvoices(ctx context.Context, customer string) error {
	readAt := r.now()
	var changed []*invoice
	var known []models.StripeInvoice
	if err := r.db.NewSelect().Model(&known).Where("stripe_customer_id = ?", customer).Scan(ctx); err != nil {
		return err
	}
	err := r.client.invoicesOf(ctx, customer, func(i *invoice) {
		same := slices.ContainsFunc(known, func(k models.StripeInvoice) bool { return k.ID == i.ID && k.Status == i.Status })
		if !same && string(i.Customer) == customer {
			changed = append(changed, i)
		}
	})
	if isMissing(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%w: list the invoices of %s: %w", errInvoices, customer, err)
	}
	for _, i := range changed {
		if err := r.client.allLines(ctx, i); err != nil {
			return fmt.Errorf("%w: read the lines of invoice %s: %w", errInvoices, i.ID, err)
		}
	}
	if len(changed) == 0 {
		return nil
	}
	prices, err := readPlanPrices(ctx, r.db, r.catalogue)
	if err != nil {
		return err
	}
	return r.db.InTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		for _, i := range changed {
			if err := storeInvoice(ctx, tx, prices, i, readAt); err != nil {
				return fmt.Errorf("store invoice %s: %w", i.ID, err)
			}
		}
		return nil
	})
}
