package billing

import (
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"tollgate/models"
	"tollgate/models/billing/stripetest"
)

// payer is a customer at Stripe with one subscription.
type payer struct {
	id           string
	plans        [2]models.PlanID
	plan         models.PlanID // at Stripe
	subscription string
	people       []*person
	// periods are the billing periods at Stripe, in order. The last one may be open.
	periods []models.Period
}

// storedWebhook is a webhook that a process has stored.
type storedWebhook struct {
	body []byte
	at   time.Time
}

// newPayer makes a customer whose period ends within the simulation: a person, or an organization
// with members.
func (w *world) newPayer(i int) {
	p := &payer{id: fmt.Sprintf("cus_%d", i), plans: [2]models.PlanID{"starter", "pro"}}
	metadata := map[string]string{}
	if i == 0 {
		p.plans = [2]models.PlanID{"team", "business"}
		o, err := models.CreateOrganization(w.ctx, w.db, w.now, "Acme", []string{"T1"})
		w.must(err)
		metadata["tollgate_organization"] = o.ID.String()
		for n := range 2 {
			w.newPerson(p, fmt.Sprintf("member%d@example.com", n), &o.ID)
		}
	} else {
		metadata["tollgate_user"] = w.newPerson(p, fmt.Sprintf("payer%d@example.com", i), nil).String()
	}
	p.plan = p.plans[w.rand.IntN(2)]
	w.payers = append(w.payers, p)
	w.stripe.AddCustomer(p.id, metadata)
	w.later(w.upTo(30*time.Minute), func() { w.subscribe(p, i == 3) })
}

func (w *world) newPerson(p *payer, email string, organization *uuid.UUID) uuid.UUID {
	u, err := models.SetUser(w.ctx, w.db, w.now, email, models.UserChange{OrganizationID: organization})
	w.must(err)
	p.people = append(p.people, &person{email: email, payer: p})
	return u.ID
}

// subscribe starts a subscription whose first period ends after some hours or days. It may be a
// trial.
func (w *world) subscribe(p *payer, trial bool) {
	turn := w.now.Add(time.Hour + w.upTo(w.s.length())).Truncate(time.Second)
	start := models.AnchoredMonth(turn, turn.Add(-time.Second)).Start
	sub := stripetest.Subscription{
		Customer: p.id, Items: []stripetest.Item{
			{Price: w.prices["price:"+string(p.plan)], Quantity: int64(len(p.people))}, {Price: w.prices["overage:"+string(p.plan)]},
		},
	}
	if trial {
		start, turn = w.now.Truncate(time.Second), w.now.Add(time.Hour+w.upTo(20*time.Hour)).Truncate(time.Second)
		sub.Status, sub.TrialEnd, sub.Anchor = "trialing", turn, turn
	}
	sub.PeriodStart, sub.PeriodEnd = start, turn
	p.subscription = w.stripe.AddSubscription(sub)
	p.periods = []models.Period{{Start: start, End: turn}}
	w.sendSubscription(p, "customer.subscription.created")
	w.renewLater(p)
}

func (p *payer) last() *models.Period { return &p.periods[len(p.periods)-1] }

// renewLater ends the current period in the minutes after its end.
func (w *world) renewLater(p *payer) {
	end := p.last().End
	if end.Sub(w.begin) > w.s.length() {
		return // the simulation ends before
	}
	w.later(end.Sub(w.now)+w.upTo(8*time.Minute), func() {
		if end != p.last().End {
			return // its end was moved
		}
		invoice := w.stripe.Renew(p.subscription)
		p.periods = append(p.periods, models.Period{Start: end, End: end.AddDate(0, 1, 0)})
		w.counts["renewals"]++
		w.sendSubscription(p, "customer.subscription.updated")
		w.renewLater(p)
		w.later(time.Hour+w.upTo(5*time.Hour), func() {
			if w.stripe.FinalizeInvoice(invoice) {
				w.send("invoice.finalized", w.stripe.Object(invoice))
			}
		})
	})
}

// changeSubscriptions sometimes changes a subscription at Stripe.
func (w *world) changeSubscriptions() {
	for _, p := range w.payers {
		if p.subscription == "" || !p.last().Contains(w.now) {
			continue // it is about to be renewed
		}
		switch n := w.rand.IntN(1000); {
		case n < 6:
			w.reset(p)
		case n < 8:
			w.reset(p)
			w.pass(time.Second + w.upTo(35*time.Second))
			w.usage(p.people[0])
			w.reset(p)
		case n < 11:
			w.lengthen(p)
		case n < 20:
			w.changePlan(p)
		}
	}
}

// reset starts a new billing period in the middle of the current one.
func (w *world) reset(p *payer) {
	start := w.now.Truncate(time.Second)
	if !start.After(p.last().Start) {
		return
	}
	p.last().End = start
	p.periods = append(p.periods, models.Period{Start: start, End: start.AddDate(0, 1, 0)})
	w.counts["resets"]++
	w.change(p, func(s *stripetest.Subscription) {
		s.PeriodStart, s.PeriodEnd, s.Anchor = start, start.AddDate(0, 1, 0), start
		if s.Status == "trialing" {
			s.Status, s.TrialEnd = "active", start
		}
	})
}

// lengthen moves the end of the current period, as when the billing date is moved.
func (w *world) lengthen(p *payer) {
	end := p.last().End.Add(time.Duration(1+9*w.rand.IntN(2)) * 24 * time.Hour)
	if end.Sub(p.last().Start) > longestPeriod {
		return
	}
	p.last().End = end
	w.counts["lengthened"]++
	w.change(p, func(s *stripetest.Subscription) {
		s.PeriodEnd, s.Anchor = end, end
		if s.Status == "trialing" {
			s.TrialEnd = end
		}
	})
	w.renewLater(p)
}

// changePlan gives the base item another price and adds the overage item of its plan. The old
// overage item stays.
func (w *world) changePlan(p *payer) {
	if p.plan == p.plans[0] {
		p.plan = p.plans[1]
	} else {
		p.plan = p.plans[0]
	}
	w.counts["plan changes"]++
	w.change(p, func(s *stripetest.Subscription) {
		s.Items[0].Price = w.prices["price:"+string(p.plan)]
		overage := w.prices["overage:"+string(p.plan)]
		if !slices.ContainsFunc(s.Items, func(i stripetest.Item) bool { return i.Price == overage }) {
			s.Items = append(s.Items, stripetest.Item{Price: overage})
		}
	})
}

// change changes the subscription and sends its webhook.
func (w *world) change(p *payer, change func(*stripetest.Subscription)) {
	w.stripe.ChangeSubscription(p.subscription, change)
	w.sendSubscription(p, "customer.subscription.updated")
}

// sendSubscription sends the webhook of a subscription in its current state.
func (w *world) sendSubscription(p *payer, kind string) {
	w.send(kind, w.stripe.Object(p.subscription))
}

// send sends a webhook after a delay, and some of them twice: most within minutes, some hours or
// days later.
func (w *world) send(kind string, object map[string]any) {
	body, _ := w.stripe.SignedEvent(webhookSecret, w.now, kind, object)
	for twice := w.rand.IntN(7) == 0; ; twice = false {
		wait := 5 * time.Minute
		switch n := w.rand.IntN(20); {
		case n < 1:
			wait = 72 * time.Hour
		case n < 3:
			wait = 24 * time.Hour
		case n < 6:
			wait = 6 * time.Hour
		}
		w.later(w.upTo(wait), func() { w.deliver(body) })
		if !twice {
			return
		}
	}
}

// deliver delivers a webhook to a process, which stores and applies it. If the process does not
// store it, Stripe sends it again.
func (w *world) deliver(body []byte) {
	p := w.anyProcess()
	held := false
	survived := w.perform(p, 0.1, func() {
		w.must(p.hooks.Receive(w.ctx, body, stripetest.Sign(webhookSecret, w.now, body)))
		held = true
		w.must(p.hooks.applyDue(w.ctx))
	})
	if !survived {
		w.later(time.Minute+w.upTo(time.Hour), func() { w.deliver(body) }) // a second delivery does no harm
	}
	if held && !slices.ContainsFunc(w.sent, func(k storedWebhook) bool { return &k.body[0] == &body[0] }) {
		w.counts["webhooks"]++
		w.sent = append(w.sent, storedWebhook{body, w.now})
	}
}
