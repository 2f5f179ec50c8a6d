package web

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/stripe/stripe-go/v76"
	"github.com/stripe/stripe-go/v76/client"
	"github.com/uptrace/bun"

	"tollgate/models"
	"tollgate/models/billing"
	"tollgate/models/billing/stripetest"
)

// ledgerPayer is a customer at Stripe: a person's or an organization's.
type ledgerPayer struct {
	customer string
	plans    []string
	subs     []*ledgerSub
}

// ledgerSub is a subscription as Stripe has it. believed is its state in the last webhook.
type ledgerSub struct {
	payer      *ledgerPayer
	id         string
	now        subState
	believed   subState
	start, end time.Time // of the current period
	trialEnd   time.Time
	ended      time.Time            // zero while it is active
	atEnd      bool                 // it ends with its period
	since      map[string]time.Time // when the overage item of each plan was added
	invoices   []*ledgerInvoice
	turns      []*ledgerTurn
}

// ledgerTurn is an unforeseeable moment at which a billing period began or ended. known is when its
// webhook was applied; zero before that.
type ledgerTurn struct{ at, known time.Time }

func (s *ledgerSub) turn(at time.Time) *ledgerTurn {
	t := &ledgerTurn{at: at}
	s.turns = append(s.turns, t)
	return t
}

type subState struct{ plan, status string }

func (s subState) active() bool {
	return s.status == "active" || s.status == "trialing" || s.status == "past_due"
}

// ledgerInvoice is the invoice of a period's usage.
type ledgerInvoice struct {
	id         string
	start, end time.Time
	trial      bool
	// counted is when the reporter had last delivered everything before the invoice became final; zero
	// before that.
	counted time.Time
}

func (s *ledgerSub) pastDue() bool { return s != nil && s.believed.status == "past_due" }

func (l *ledger) newPayer(customer string, metadata map[string]string, plans []string) *ledgerPayer {
	l.stand.AddCustomer(customer, metadata)
	payer := &ledgerPayer{customer: customer, plans: plans}
	l.payers = append(l.payers, payer)
	return payer
}

// open returns the active subscription; nil if there is none.
func (p *ledgerPayer) open() *ledgerSub {
	for _, s := range p.subs {
		if s.ended.IsZero() {
			return s
		}
	}
	return nil
}

// believed returns the subscription that a person's plan comes from, according to the webhooks.
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

// announce sends the webhook of a subscription: immediately in half of the cases, otherwise minutes
// to days later. Its payload is the state of now. It makes the turns known.
func (l *ledger) announce(s *ledgerSub, kind string, turns ...*ledgerTurn) {
	body, _ := l.stand.SignedEvent(webhookSecret, l.clock(), kind, l.stand.Object(s.id))
	send := func() {
		l.deliverWebhook(s, string(body))
		for _, t := range turns {
			t.known = l.clock()
		}
	}
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
		send()
		return
	}
	l.later(late, what, send)
}

// deliverWebhook sends a webhook of a subscription. Tollgate then reads all subscriptions of the
// customer.
func (l *ledger) deliverWebhook(s *ledgerSub, webhook string) {
	l.counts["webhooks"]++
	l.webhook(webhook, l.clock()).want(l.t, 200, nil)
	l.eventually("a webhook is not applied, or the records that it changes are not up to date", func() bool {
		var waiting bool
		must(l.t, l.db.NewRaw("SELECT EXISTS (SELECT 1 FROM stripe_webhook_events WHERE applied_at IS NULL)"+
			" OR EXISTS (SELECT 1 FROM records_due)").
			Scan(context.Background(), &waiting))
		return !waiting
	})
	for _, each := range s.payer.subs {
		each.believed = each.now
	}
}

// items returns the prices of a subscription to a plan.
func (l *ledger) items(plan string) []stripetest.Item {
	return []stripetest.Item{{Price: l.prices["price:"+plan], Quantity: 1}, {Price: l.prices["overage:"+plan]}}
}

// buy starts a subscription.
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
	l.announce(s, "customer.subscription.created", s.turn(start))
	return s
}

// renewLater ends the current period at its end.
func (l *ledger) renewLater(s *ledgerSub) {
	end := s.end
	l.later(end.Sub(l.clock())+time.Duration(l.rng.Int64N(int64(2*time.Minute))), s.payer.customer+" renews", func() {
		if !s.ended.IsZero() || !s.end.Equal(end) {
			return
		}
		invoice := &ledgerInvoice{id: l.stand.Renew(s.id), start: s.start, end: end, trial: !s.trialEnd.IsZero() && !s.trialEnd.Before(end)}
		s.start, s.end = end, end.AddDate(0, 1, 0)
		if s.atEnd {
			s.ended, s.now.status = end, "canceled"
			l.announce(s, "customer.subscription.deleted")
		} else {
			if invoice.trial {
				s.now.status = "active"
			}
			l.renewLater(s)
			l.announce(s, "customer.subscription.updated")
		}
		l.finalizeLater(s, invoice)
	})
}

// reset moves the billing date of a subscription to now: its period ends, and another one begins.
func (l *ledger) reset(s *ledgerSub) {
	now := l.clock().Truncate(time.Second)
	if !now.After(s.start) {
		return
	}
	l.counts["resets"]++
	l.logf("%s starts another period", s.payer.customer)
	l.stand.ChangeSubscription(s.id, func(sub *stripetest.Subscription) { sub.PeriodEnd, sub.Anchor = now, now })
	invoice := &ledgerInvoice{id: l.stand.Renew(s.id), start: s.start, end: now}
	s.start, s.end = now, now.AddDate(0, 1, 0)
	l.renewLater(s)
	l.announce(s, "customer.subscription.updated", s.turn(now))
	l.finalizeLater(s, invoice)
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
		body, _ := l.stand.SignedEvent(webhookSecret, l.clock(), "invoice.finalized", l.stand.Object(invoice.id))
		l.deliverWebhook(s, string(body))
	})
}

// changePlan gives the base item another price and adds the overage item of the new plan. The old
// overage item stays.
func (l *ledger) changePlan(s *ledgerSub, plan string) {
	l.logf("%s changes from %s to %s", s.payer.customer, s.now.plan, plan)
	l.stand.ChangeSubscription(s.id, func(sub *stripetest.Subscription) {
		sub.Items[0].Price = l.prices["price:"+plan]
		if overage := l.prices["overage:"+plan]; !slices.ContainsFunc(sub.Items, func(i stripetest.Item) bool { return i.Price == overage }) {
			sub.Items, s.since[plan] = append(sub.Items, stripetest.Item{Price: overage}), l.clock()
		}
	})
	s.now.plan = plan
	l.announce(s, "customer.subscription.updated")
}

func (l *ledger) setStatus(s *ledgerSub, status string) {
	l.logf("%s is %s", s.payer.customer, status)
	l.stand.ChangeSubscription(s.id, func(sub *stripetest.Subscription) { sub.Status = status })
	s.now.status = status
	l.announce(s, "customer.subscription.updated")
}

// sdk returns Stripe's own client of the stand-in, for what the product never does.
func (m *metered) sdk() *client.API {
	b := stripe.GetBackendWithConfig(stripe.APIBackend, &stripe.BackendConfig{
		HTTPClient: &http.Client{Transport: m.stand.Transport()}, MaxNetworkRetries: stripe.Int64(0),
		LeveledLogger: &stripe.LeveledLogger{Level: stripe.LevelNull}, EnableTelemetry: stripe.Bool(false),
	})
	return client.New("sk_test_1", &stripe.Backends{API: b, Connect: b, Uploads: b})
}

// cancel ends a subscription with its period, immediately with a last invoice, or immediately
// without one.
func (l *ledger) cancel(s *ledgerSub, how string) {
	l.logf("%s cancels %s", s.payer.customer, how)
	if how == "at the end" {
		s.atEnd = true
		l.stand.ChangeSubscription(s.id, func(sub *stripetest.Subscription) { sub.CancelAtPeriodEnd = true })
		l.announce(s, "customer.subscription.updated")
		return
	}
	sdk := l.sdk()
	_, err := sdk.Subscriptions.Cancel(s.id, &stripe.SubscriptionCancelParams{
		InvoiceNow: stripe.Bool(how == "with an invoice"), Prorate: stripe.Bool(true),
	})
	must(l.t, err)
	s.ended, s.now.status = l.clock(), "canceled"
	if how == "with an invoice" {
		var last *stripe.Invoice
		for all := sdk.Invoices.List(&stripe.InvoiceListParams{Subscription: &s.id}); last == nil && all.Next(); {
			last = all.Invoice()
		}
		l.finalizeLater(s, &ledgerInvoice{id: last.ID, start: s.start, end: s.ended})
	}
	l.announce(s, "customer.subscription.deleted", s.turn(s.ended))
}

// The reasons why overage is not on an invoice.
const (
	invoiced  = ""
	late      = "late"
	discarded = "discarded"
	byHand    = "by_hand"
	// beforeItem is usage from before the overage item of its plan was added, or from the same minute:
	// Stripe bills usage only from the time the item was added. It was recorded late, and decided
	// under that plan.
	beforeItem = "before_item"
	// noItem is usage under a plan for which the subscription of its period never had an overage item:
	// the plan belonged to an earlier subscription, and Tollgate learned late that it had ended.
	noItem = "no_item"
	// afterEnd is usage whose report has a minute after the subscription's immediate end, which the
	// last invoice does not cover. It was sent before the end became known, with usage of the same
	// hour from after the end.
	afterEnd = "after_end"
)

// reason returns the invoice that an event is on, or the reason why it is on none. Stripe bills a
// report by its minute, which is in the period of its events if possible.
func (l *ledger) reason(e *ledgerEvent) (*ledgerInvoice, string) {
	if e.payer == nil {
		return nil, byHand
	}
	var in, on *ledgerInvoice // by the event's time, and by its report's minute
	var of, ended *ledgerSub
	for _, s := range e.payer.subs {
		for _, i := range s.invoices {
			if i.contains(e.at) {
				in, of = i, s
			}
			if !e.minute.IsZero() && i.contains(e.minute) {
				on = i
				if of == nil {
					of = s
				}
			}
		}
		if !s.ended.IsZero() && (ended == nil || s.ended.After(ended.ended)) && !e.at.Before(s.start) {
			ended = s
		}
	}
	if in != on && !l.misplaced(e, in) {
		l.failf("%+v is in a report of another period, in %+v and on %+v", e, in, on)
	}
	switch {
	case on != nil && of.since[e.plan].IsZero():
		return nil, noItem
	case on != nil && e.recorded.After(on.counted), on == nil && in != nil && e.recorded.After(in.counted):
		return nil, late
	case on != nil && e.minute.Before(of.since[e.plan]):
		if e.at.Truncate(time.Minute).After(of.since[e.plan]) {
			l.failf("%+v is reported for a time before its plan's item of %s", e, of.since[e.plan])
		}
		return nil, beforeItem
	case on != nil:
		return on, invoiced
	case in != nil:
		return nil, afterEnd
	case ended != nil && e.at.Before(ended.ended):
		return nil, discarded
	}
	return nil, late // the subscription had ended, and its last invoice covers earlier usage
}

func (i *ledgerInvoice) contains(t time.Time) bool { return !t.Before(i.start) && t.Before(i.end) }

// misplaced reports whether the minute of an event's report may be in another period than the
// event: the report was sent before a turn between them was known, or the event's period, in, has
// no whole minute.
func (l *ledger) misplaced(e *ledgerEvent, in *ledgerInvoice) bool {
	if in != nil && !in.start.Add(time.Minute-time.Nanosecond).Truncate(time.Minute).Before(in.end) {
		return true
	}
	from, to := e.at, e.minute
	if to.Before(from) {
		from, to = to, from
	}
	for _, s := range e.payer.subs {
		for _, t := range s.turns {
			if t.at.After(from) && !t.at.After(to) && t.known.After(e.sent) {
				return true
			}
		}
	}
	return false
}

// readMinutes reads the minute for which each event was reported, and when it was sent.
func (l *ledger) readMinutes() {
	var rows []struct {
		ID             uuid.UUID
		Minute         time.Time
		FirstAttemptAt bun.NullTime
	}
	people := make([]uuid.UUID, len(l.people))
	for i, p := range l.people {
		people[i] = p.id
	}
	must(l.t, l.db.NewRaw(`SELECT e.id, r.minute, r.first_attempt_at FROM usage_events e JOIN stripe_reports r ON r.id = e.stripe_report_id
		WHERE e.user_id IN (?)`, bun.List(people)).Scan(l.t.Context(), &rows))
	events := map[string]*ledgerEvent{}
	for _, p := range l.people {
		for _, e := range p.events {
			events[e.id] = e
		}
	}
	for _, r := range rows {
		events[r.ID.String()].minute, events[r.ID.String()].sent = r.Minute.UTC(), r.FirstAttemptAt.UTC()
	}
}

// invoices compares each final invoice with the events, to the cent, and finds the reason for each
// cent that is on none.
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
	rest := reasons[late] + reasons[discarded] + reasons[byHand] + reasons[beforeItem] + reasons[afterEnd] + reasons[noItem]
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

// balance lets the reporter compare its totals with Stripe, and write the balances.
func (l *ledger) balance() {
	l.t.Helper()
	_, err := l.reporter.Totals(l.t.Context(), true)
	must(l.t, err)
}

// compareBalances checks that the balances of all billing periods add up, and that each matches the
// model's events.
func (l *ledger) compareBalances() {
	l.t.Helper()
	type key struct{ payer, meter string }
	sums := map[key]models.OverageSum{}
	all, err := billing.Balances(l.t.Context(), l.db, l.clock().AddDate(-1, 0, 0))
	must(l.t, err)
	for _, payer := range l.payers {
		for _, b := range all {
			if b.Payer != payer.customer {
				continue
			}
			want := models.OverageBalance{Payer: b.Payer, MeterEventName: b.MeterEventName, Period: b.Period}
			l.expect(&want, payer)
			total := b.Invoiced
			for _, r := range b.Reasons {
				total = total.Plus(r.OverageSum)
			}
			if o := want.NotInvoiced(models.OverageUnexplained); o != (models.OverageSum{}) {
				// Tollgate counts usage as late if it was sent within an hour before the invoice became final
				// and is not on it.
				lateUnexplained(&b)
				lateUnexplained(&want)
			}
			if total != b.Decided || b.Decided != want.Decided || b.Invoiced != want.Invoiced || !slices.Equal(b.Reasons, want.Reasons) {
				l.failf("the balance of %s, %s, %s to %s has %v decided, %v invoiced and %v, want %v, %v and %v", b.Payer, b.MeterEventName,
					b.Period.Start, b.Period.End, b.Decided, b.Invoiced, b.Reasons, want.Decided, want.Invoiced, want.Reasons)
			}
			of := key{b.Payer, b.MeterEventName}
			sums[of] = sums[of].Plus(b.Decided)
		}
	}
	decided := map[key]models.OverageSum{}
	for _, p := range l.people {
		for _, e := range p.events {
			if e.payer != nil && e.over > 0 {
				of := key{e.payer.customer, l.web.catalogue.MeterOf(models.PlanID(e.plan))}
				decided[of] = decided[of].Plus(models.OverageSum{Units: e.over, Cents: e.cent})
			}
		}
	}
	for of, want := range decided {
		if sums[of] != want {
			l.failf("the balances of %s, %s have %v, want %v", of.payer, of.meter, sums[of], want)
		}
	}
}

// lateUnexplained moves the late usage of a balance to its unexplained usage.
func lateUnexplained(b *models.OverageBalance) {
	o := b.NotInvoiced(models.OverageLate)
	b.Add(models.OverageLate, models.OverageSum{}.Minus(o))
	b.Add(models.OverageUnexplained, o)
}

// expect fills in a balance from the model's events of its period and the reports in it.
func (l *ledger) expect(b *models.OverageBalance, payer *ledgerPayer) {
	for _, p := range l.people {
		for _, e := range p.events {
			if e.payer != payer || e.over == 0 || l.web.catalogue.MeterOf(models.PlanID(e.plan)) != b.MeterEventName {
				continue
			}
			o := models.OverageSum{Units: e.over, Cents: e.cent}
			here, there := b.Period.Contains(e.at), b.Period.Contains(e.minute)
			if here {
				b.Decided = b.Decided.Plus(o)
			}
			if here && !there {
				b.Add(models.OverageOtherPeriod, o)
			}
			if !there {
				continue
			}
			if !here {
				b.Add(models.OverageOtherPeriod, models.OverageSum{}.Minus(o))
			}
			_, reason := l.reason(e)
			switch has := func(s *ledgerSub) bool { // an invoice of the period
				return slices.ContainsFunc(s.invoices, func(i *ledgerInvoice) bool { return !i.trial && b.Period.Contains(i.start) })
			}; {
			case reason == invoiced:
				b.Invoiced = b.Invoiced.Plus(o)
			case reason == noItem:
				b.Add(models.OverageNoItem, o)
			case reason == beforeItem:
				b.Add(models.OverageUnexplained, o)
			case slices.ContainsFunc(payer.subs, has):
				b.Add(models.OverageLate, o)
			default:
				b.Add(models.OverageDiscarded, o)
			}
		}
	}
}

// whole returns a whole number of a stand-in's object.
func whole(v any) int64 {
	n, err := strconv.ParseInt(fmt.Sprint(v), 10, 64)
	if err != nil {
		return -1
	}
	return n
}
