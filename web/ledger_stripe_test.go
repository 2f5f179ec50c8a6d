package web

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/stripe/stripe-go/v76"
	"github.com/uptrace/bun"

	"tollgate/models/billing/stripetest"
)

// ledgerPayer is a customer at Stripe: a person's or an organization's.
type ledgerPayer struct {
	customer string
	plans    []string
	subs     []*ledgerSub
}

// ledgerSub is a subscription as Stripe has it. believed is what the last webhook said.
type ledgerSub struct {
	payer      *ledgerPayer
	id         string
	now        subState
	believed   subState
	start, end time.Time // of the current period
	trialEnd   time.Time
	ended      time.Time            // zero while it goes on
	atEnd      bool                 // it ends with its period
	since      map[string]time.Time // when the overage item of each plan was added
	invoices   []*ledgerInvoice
}

type subState struct{ plan, status string }

func (s subState) active() bool {
	return s.status == "active" || s.status == "trialing" || s.status == "past_due"
}

// ledgerInvoice is the invoice of the usage of a period.
type ledgerInvoice struct {
	id         string
	start, end time.Time
	trial      bool
	// counted is when the reporter had last delivered everything before the invoice became final; zero before.
	counted time.Time
}

func (s *ledgerSub) pastDue() bool { return s != nil && s.believed.status == "past_due" }

func (l *ledger) newPayer(customer string, metadata map[string]string, plans []string) *ledgerPayer {
	l.stand.AddCustomer(customer, metadata)
	payer := &ledgerPayer{customer: customer, plans: plans}
	l.payers = append(l.payers, payer)
	return payer
}

// open is the subscription that goes on; nil without one.
func (p *ledgerPayer) open() *ledgerSub {
	for _, s := range p.subs {
		if s.ended.IsZero() {
			return s
		}
	}
	return nil
}

// believed is the subscription that a person's plan comes from, as far as webhooks said.
func (l *ledger) believed(p *ledgerPerson, plan string) *ledgerSub {
	payer := l.payerOf(p, plan, l.clock())
	if payer == nil {
		return nil
	}
	for _, s := range slices.Backward(payer.subs) {
		if s.believed.active() {
			return s
		}
	}
	return nil
}

// tellAbout sends the webhook of a subscription after a while: at once in half of the cases, else minutes up to days later.
func (l *ledger) tellAbout(s *ledgerSub, kind string) {
	late := time.Duration(0)
	if l.rng.IntN(2) == 0 {
		late = time.Duration(l.rng.Int64N(int64(time.Hour)))
		if l.rng.IntN(2) == 0 {
			late *= time.Duration(1 + l.rng.IntN(60))
		}
	}
	what := fmt.Sprintf("a webhook of %s, %s late", s.payer.customer, late.Truncate(time.Second))
	if late == 0 {
		l.logf("%s", what)
		l.told(s, kind)
		return
	}
	l.later(late, what, func() { l.told(s, kind) })
}

func (l *ledger) told(s *ledgerSub, kind string) {
	l.counts["webhooks"]++
	l.tell(kind, l.stand.Object(s.id))
	l.eventually("a webhook is not applied, or the records that it changes are not up to date", func() bool {
		var waiting bool
		must(l.t, l.db.NewRaw("SELECT EXISTS (SELECT 1 FROM stripe_webhook_events WHERE applied_at IS NULL) OR EXISTS (SELECT 1 FROM records_due)").
			Scan(context.Background(), &waiting))
		return !waiting
	})
	for _, each := range s.payer.subs {
		each.believed = each.now
	}
}

// items are the prices that a subscription to a plan has.
func (l *ledger) items(plan string) []stripetest.Item {
	return []stripetest.Item{{Price: l.prices["price:"+plan], Quantity: 1}, {Price: l.prices["overage:"+plan]}}
}

// buy begins a subscription.
func (l *ledger) buy(payer *ledgerPayer, plan string, trial time.Duration) *ledgerSub {
	start := l.clock().Truncate(time.Second)
	s := &ledgerSub{payer: payer, now: subState{plan, "active"}, start: start, end: start.AddDate(0, 1, 0)}
	sub := stripetest.Subscription{Customer: payer.customer, Items: l.items(plan), PeriodStart: start}
	if trial > 0 {
		s.now.status, s.end, s.trialEnd = "trialing", start.Add(trial), start.Add(trial)
		sub.Status, sub.TrialEnd, sub.Anchor = "trialing", s.trialEnd, s.trialEnd
	}
	sub.PeriodEnd, s.since = s.end, map[string]time.Time{plan: start}
	s.id = l.stand.AddSubscription(sub)
	payer.subs = append(payer.subs, s)
	l.logf("%s buys %s, %s", payer.customer, plan, s.now.status)
	l.renewLater(s)
	l.tellAbout(s, "customer.subscription.created")
	return s
}

// renewLater ends the current period when its time has come.
func (l *ledger) renewLater(s *ledgerSub) {
	end := s.end
	l.later(end.Sub(l.clock())+time.Duration(l.rng.Int64N(int64(2*time.Minute))), s.payer.customer+" renews", func() {
		if !s.ended.IsZero() {
			return
		}
		invoice := &ledgerInvoice{id: l.stand.Renew(s.id), start: s.start, end: end, trial: !s.trialEnd.IsZero() && !s.trialEnd.Before(end)}
		s.start, s.end = end, end.AddDate(0, 1, 0)
		if s.atEnd {
			s.ended, s.now.status = end, "canceled"
			l.tellAbout(s, "customer.subscription.deleted")
		} else {
			if invoice.trial {
				s.now.status = "active"
			}
			l.renewLater(s)
			l.tellAbout(s, "customer.subscription.updated")
		}
		l.finalizeLater(s, invoice)
	})
}

func (l *ledger) finalizeLater(s *ledgerSub, invoice *ledgerInvoice) {
	s.invoices = append(s.invoices, invoice)
	wait := time.Hour + 3*time.Minute + time.Duration(l.rng.Int64N(int64(3*time.Hour)))
	l.later(wait, "the invoice "+invoice.id+" of "+s.payer.customer+" is final", func() {
		l.report()
		invoice.counted = l.clock()
		if !l.stand.FinalizeInvoice(invoice.id) {
			l.failf("there is no such draft")
		}
		l.tell("invoice.finalized", l.stand.Object(invoice.id))
	})
}

// changePlan gives the base item another price and adds the overage item of its plan. The old overage item stays.
func (l *ledger) changePlan(s *ledgerSub, plan string) {
	l.logf("%s changes from %s to %s", s.payer.customer, s.now.plan, plan)
	l.stand.ChangeSubscription(s.id, func(sub *stripetest.Subscription) {
		sub.Items[0].Price = l.prices["price:"+plan]
		if overage := l.prices["overage:"+plan]; !slices.ContainsFunc(sub.Items, func(i stripetest.Item) bool { return i.Price == overage }) {
			sub.Items, s.since[plan] = append(sub.Items, stripetest.Item{Price: overage}), l.clock()
		}
	})
	s.now.plan = plan
	l.tellAbout(s, "customer.subscription.updated")
}

func (l *ledger) setStatus(s *ledgerSub, status string) {
	l.logf("%s is %s", s.payer.customer, status)
	l.stand.ChangeSubscription(s.id, func(sub *stripetest.Subscription) { sub.Status = status })
	s.now.status = status
	l.tellAbout(s, "customer.subscription.updated")
}

// cancel ends a subscription with its period, at once with a last invoice, or at once without one.
func (l *ledger) cancel(s *ledgerSub, how string) {
	l.logf("%s cancels %s", s.payer.customer, how)
	if how == "at the end" {
		s.atEnd = true
		l.stand.ChangeSubscription(s.id, func(sub *stripetest.Subscription) { sub.CancelAtPeriodEnd = true })
		l.tellAbout(s, "customer.subscription.updated")
		return
	}
	_, err := l.client.Subscriptions.Cancel(s.id, &stripe.SubscriptionCancelParams{
		InvoiceNow: stripe.Bool(how == "with an invoice"), Prorate: stripe.Bool(true),
	})
	must(l.t, err)
	s.ended, s.now.status = l.clock(), "canceled"
	if how == "with an invoice" {
		var last *stripe.Invoice
		for all := l.client.Invoices.List(&stripe.InvoiceListParams{Subscription: &s.id}); last == nil && all.Next(); {
			last = all.Invoice()
		}
		l.finalizeLater(s, &ledgerInvoice{id: last.ID, start: s.start, end: s.ended})
	}
	l.tellAbout(s, "customer.subscription.deleted")
}

// The reasons why overage is not on an invoice.
const (
	invoiced  = ""
	late      = "late"
	discarded = "discarded"
	byHand    = "by_hand"
	// beforeItem is usage that was recorded late, decided under a plan whose overage item was added after it: Stripe bills usage only
	// from when the item was added.
	beforeItem = "before_item"
	// afterEnd is usage in a report with usage of the same hour from after the subscription's immediate end: the report has the minute of
	// the latter, which the last invoice does not cover.
	afterEnd = "after_end"
)

// reason says on which invoice an event is, or why it is on none.
func (l *ledger) reason(e *ledgerEvent) (*ledgerInvoice, string) {
	if e.payer == nil {
		return nil, byHand
	}
	ends := time.Time{}
	for _, s := range e.payer.subs {
		for _, i := range s.invoices {
			// Usage in the minute in which a subscription ended may still be on its last invoice: a report has the minute of its last event.
			last := i.end.Equal(s.ended) && !e.at.Before(i.end) && !e.minute.IsZero() && e.minute.Before(i.end)
			if in := !e.at.Before(i.start) && e.at.Before(i.end); !in && !last {
				continue
			}
			switch {
			case e.recorded.After(i.counted):
				return nil, late
			case e.minute.Before(s.since[e.plan]) && e.at.Sub(s.since[e.plan]) < time.Hour:
				return nil, beforeItem
			case i.end.Equal(s.ended) && !s.atEnd && !e.minute.Before(i.end) && e.minute.Sub(i.end) < time.Hour:
				return nil, afterEnd
			}
			return i, invoiced
		}
		if s.ended.After(ends) && !e.at.Before(s.start) {
			ends = s.ended
		}
	}
	if !ends.IsZero() && e.at.Before(ends) {
		return nil, discarded
	}
	return nil, late // the subscription had ended, and its last invoice covers what came before
}

// readMinutes reads which minute each event was reported for.
func (l *ledger) readMinutes() {
	var rows []struct {
		ID     uuid.UUID
		Minute time.Time
	}
	people := make([]uuid.UUID, len(l.people))
	for i, p := range l.people {
		people[i] = p.id
	}
	must(l.t, l.db.NewRaw(`SELECT e.id, r.minute FROM usage_events e JOIN stripe_reports r ON r.id = e.stripe_report_id
		WHERE e.user_id IN (?)`, bun.List(people)).Scan(l.t.Context(), &rows))
	minutes := map[string]time.Time{}
	for _, r := range rows {
		minutes[r.ID.String()] = r.Minute.UTC()
	}
	for _, p := range l.people {
		for _, e := range p.events {
			e.minute = minutes[e.id]
		}
	}
}

// invoices compares each final invoice with the events, to the cent, and names the reason for each cent that is on none.
func (l *ledger) invoices() {
	l.t.Helper()
	type line struct {
		invoice *ledgerInvoice
		plan    string
	}
	l.readMinutes()
	units, cents, reasons := map[line]int64{}, map[line]int64{}, map[string]int64{}
	var decided, billed int64
	for _, p := range l.people {
		for _, e := range p.events {
			if e.over == 0 {
				continue
			}
			decided += e.cent
			i, reason := l.reason(e)
			reasons[reason] += e.cent
			if reason == invoiced {
				units[line{i, e.plan}] += e.over
				cents[line{i, e.plan}] += e.cent
			}
		}
	}
	for _, payer := range l.payers {
		for _, s := range payer.subs {
			for _, i := range s.invoices {
				if i.counted.IsZero() {
					l.failf("the invoice %s of %s is not final", i.id, payer.customer)
				}
				lines, _ := l.stand.Object(i.id)["lines"].(map[string]any)
				seen := map[string]bool{}
				for _, each := range lines["data"].([]any) {
					it := each.(map[string]any)
					price := it["price"].(map[string]any)["id"].(string)
					quantity, amount := whole(it["quantity"]), whole(it["amount"])
					for name, id := range l.prices {
						plan, metered := strings.CutPrefix(name, "overage:")
						if !metered || id != price {
							continue
						}
						seen[plan] = true
						if of := (line{i, plan}); quantity != units[of] || amount != cents[of] {
							l.failf("the invoice %s of %s, %s to %s, has %d units of %s for %d cents, want %d for %d", i.id, payer.customer,
								i.start.Format(time.RFC3339), i.end.Format(time.RFC3339), quantity, plan, amount, units[of], cents[of])
						}
						billed += amount
					}
				}
				for of, n := range units {
					if of.invoice == i && !seen[of.plan] {
						l.failf("%d units of %s have no line on the invoice %s of %s", n, of.plan, i.id, payer.customer)
					}
				}
			}
		}
	}
	rest := reasons[late] + reasons[discarded] + reasons[byHand] + reasons[beforeItem] + reasons[afterEnd]
	if decided != billed+rest || billed != reasons[invoiced] {
		l.failf("%d cents were decided and %d invoiced; the reasons are %v", decided, billed, reasons)
	}
	l.counts["cents invoiced"] += billed
	for reason, n := range reasons {
		if reason != invoiced {
			l.counts["cents "+reason] += n
		}
	}
}

// whole reads a whole number of a stand-in's object.
func whole(v any) int64 {
	n, err := strconv.ParseInt(fmt.Sprint(v), 10, 64)
	if err != nil {
		return -1
	}
	return n
}
