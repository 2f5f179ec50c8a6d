package web

import (
	"flag"
	"fmt"
	"strings"
	"testing"
	"time"

	"tollgate/models"
	"tollgate/models/billing/stripetest"
	"tollgate/models/modelstest"
)

// TestTwoSeats is the worked example of docs/billing.md: a team of two, whose members used 79 and 9
// units.
func TestTwoSeats(t *testing.T) {
	onBothMetered(t, nil, func(t *testing.T, m *metered) {
		acme := m.organization("Acme", "T1")
		m.person("ada@example.com", "T1", models.Admin, false)
		m.person("bob@example.com", "T1", models.Member, false)
		m.stand.AddCustomer("cus_acme", map[string]string{"tollgate_organization": acme.String()})
		start := m.clock()
		sub := m.stand.AddSubscription(stripetest.Subscription{
			Customer: "cus_acme", PeriodStart: start, PeriodEnd: start.AddDate(0, 1, 0),
			Items: []stripetest.Item{{Price: m.price("price:team"), Quantity: 2}, {Price: m.price("overage:team")}},
		})
		m.sendWebhook("customer.subscription.created", m.stand.Object(sub))
		m.advance(time.Hour)
		m.consume("ada@example.com", 49)
		last := m.post("/v1/consume", `{"email": "ada@example.com", "quantity": 30, "idempotency_key": "thirty"}`)
		last.want(t, 200, map[string]any{
			"used": 79, "included": 50, "remaining": 0, "overage": 29, "overage_rate_cents": 25, "overage_cents": 725,
		})
		if _, message, _ := strings.Cut(last.raw, `"slack"`); !strings.Contains(message, "$7.25") {
			t.Errorf("the Slack message does not say $7.25: %s", message)
		}
		m.consume("bob@example.com", 9)

		for path, want := range map[string]map[string]any{
			"usage/ada@example.com/history":             {"periods.used": 79, "periods.overage": 29, "periods.overage_cents": 725},
			"usage/bob@example.com/history":             {"periods.used": 9, "periods.overage": 0, "periods.overage_cents": 0},
			"organizations/" + acme.String() + "/usage": {"total_suggestions": 88, "overage": 29, "overage_cents": 725},
		} {
			m.get("/v1/"+path).want(t, 200, want)
		}
		says(t, "/usage", textOf(m.signedIn("ada@example.com").get("/usage").section("cost")), []string{"Overage: 29 × $0.25 $7.25"}, nil)
		says(t, "/org", textOf(m.signedIn("ada@example.com").get("/org").section("cost")), []string{
			"Team, 2 seats × $12.00 $24.00 Overage: 29 × $0.25 $7.25 So far in this period $31.25",
		}, nil)

		m.set(start.AddDate(0, 1, 0).Add(time.Minute))
		invoice := m.stand.Renew(sub)
		m.sendWebhook("customer.subscription.updated", m.stand.Object(sub))
		m.advance(time.Hour)
		m.seal()
		m.deliver()
		m.stand.FinalizeInvoice(invoice)
		quantity, amount := meteredLine(m.stand.Object(invoice), m.price("overage:team"))
		if quantity != 29 || amount != 725 {
			t.Errorf("the invoice has %d units for %d cents, want 29 for 725", quantity, amount)
		}
	})
}

// meteredLine returns the quantity and the amount of the invoice's line for a price.
func meteredLine(invoice map[string]any, price string) (quantity, amount int64) {
	for _, each := range invoice["lines"].(map[string]any)["data"].([]any) {
		line := each.(map[string]any)
		if line["price"].(map[string]any)["id"] == price {
			quantity, amount = quantity+whole(line["quantity"]), amount+whole(line["amount"])
		}
	}
	return quantity, amount
}

// The long form is -customers=200.
var customers = flag.Int("customers", 8, "how many customers TestLedgerMonth has on each database")

// monthPage is a customer's overage as a page showed it in the last minute of a period, with its
// events.
type monthPage struct {
	sub    *ledgerSub
	at     time.Time
	end    time.Time
	cents  int64
	events map[*ledgerEvent]bool
	people map[*ledgerPerson]bool
}

// TestLedgerMonth runs individuals and teams through a month, with changes of plans, members and
// addresses. Each invoice must equal the page at the end of the period, or the test must find the
// reason for each cent of the difference.
func TestLedgerMonth(t *testing.T) {
	for name, address := range map[string]func(testing.TB) string{"sqlite": modelstest.SQLite, "postgres": modelstest.Postgres} {
		t.Run(name, func(t *testing.T) {
			l := newLedger(t, address)
			t.Cleanup(l.close)
			l.begin(t, *firstSeed)
			pages := l.month(*customers)
			reasons := map[string]int64{}
			for _, page := range pages {
				l.comparePage(page, reasons)
			}
			t.Logf("seed %d, %d customers: %v; cents of differences by their reason: %v", *firstSeed, *customers, l.counts, reasons)
		})
	}
}

func (l *ledger) month(n int) (pages []*monthPage) {
	teams := n / 4
	for i := range n - teams {
		l.newPerson(fmt.Sprintf("person%d", i))
	}
	for i := range teams {
		o := l.newOrg(fmt.Sprintf("team%d", i), fmt.Sprintf("T%d", i), false)
		for j := range 2 + l.rng.IntN(3) {
			p := l.newPerson(fmt.Sprintf("member%d-%d", i, j))
			l.advance(time.Second)
			l.join(p, o)
		}
		l.seesAll(o)
	}
	var paying []*ledgerPayer
	for _, payer := range l.payers {
		if !strings.Contains(payer.customer, "member") { // members have the plan of their team
			paying = append(paying, payer)
		}
	}
	for _, payer := range paying {
		l.advance(time.Duration(l.rng.Int64N(int64(2 * 24 * time.Hour / time.Duration(n)))))
		trial := time.Duration(0)
		if l.rng.IntN(20) == 0 {
			trial = 3 * 24 * time.Hour
		}
		s := l.buy(payer, payer.plans[l.rng.IntN(2)], trial)
		l.later(s.start.AddDate(0, 1, 0).Add(-time.Minute).Sub(l.clock()), "the page of "+payer.customer+" is read", func() {
			if s.ended.IsZero() && trial == 0 {
				pages = append(pages, l.readPage(s))
			}
		})
	}
	steps := 12 * n
	for range steps {
		l.advance(time.Duration(l.rng.Int64N(int64(2 * 30 * 24 * time.Hour / time.Duration(steps)))))
		l.monthStep(paying[l.rng.IntN(len(paying))])
	}
	for _, payer := range paying {
		if s := payer.open(); s != nil && !s.atEnd {
			l.cancel(s, "at the end")
		}
	}
	for len(l.due) > 0 {
		l.advance(12 * time.Hour)
	}
	l.compare()
	l.report()
	l.invoices()
	l.verify(l.t)
	return pages
}

// peopleOf returns the people whose usage a customer pays for.
func (l *ledger) peopleOf(payer *ledgerPayer) (people []*ledgerPerson) {
	for _, p := range l.people {
		if o := p.org(l.clock()); p.payer == payer && o == nil || o != nil && o.payer == payer {
			people = append(people, p)
		}
	}
	return people
}

// monthStep does one random thing for a customer, mostly a call.
func (l *ledger) monthStep(payer *ledgerPayer) {
	people := l.peopleOf(payer)
	if len(people) == 0 {
		return
	}
	p := people[l.rng.IntN(len(people))]
	s := payer.open()
	switch n := l.rng.IntN(100); {
	case n < 70:
		l.consume(p, p.identity(l))
	case n < 76:
		l.recordPast(p)
	case n < 82:
		l.hold(p)
		l.advance(10 * time.Second)
		l.settle(p)
	case n < 86:
		l.renamed(p)
	case n < 90 && strings.HasPrefix(p.name, "member"):
		if o := l.orgs[l.rng.IntN(len(l.orgs))]; l.rng.IntN(2) == 0 {
			l.join(p, o)
		} else {
			l.join(p, nil)
		}
	case n < 96 && s != nil && !s.atEnd:
		l.changePlan(s, payer.plans[l.rng.IntN(2)])
	case n == 96 && s != nil && !s.atEnd && s.now.status == "active":
		l.cancel(s, []string{"at the end", "with an invoice", "without an invoice"}[l.rng.IntN(3)])
	case n == 97:
		l.restart()
	}
}

// readPage reads a customer's overage from a page.
func (l *ledger) readPage(s *ledgerSub) *monthPage {
	l.t.Helper()
	page := &monthPage{sub: s, at: l.clock(), end: s.end, events: map[*ledgerEvent]bool{}, people: map[*ledgerPerson]bool{}}
	shown := &ledgerPerson{}
	path := "/usage"
	var start, end time.Time
	for _, p := range l.peopleOf(s.payer) {
		now, _, _ := l.ask("/v1/check", fmt.Sprintf(`{"email": %q}`, p.email))
		start, end, shown = now.Period.Start, now.Period.End, p
		page.people[p] = true
		for _, e := range p.events {
			if !e.at.Before(start) && e.at.Before(end) && e.over > 0 {
				page.events[e] = true
				page.cents += e.cent
			}
		}
	}
	for _, o := range l.orgs {
		if o.payer == s.payer {
			path, shown = "/org", o.admin
		}
	}
	l.logf("%s of %s is read", path, shown.name)
	text := textOf(l.page(shown, path).section("cost"))
	if _, after, ok := strings.Cut(text, "Overage: "); ok || page.cents > 0 {
		if want := " " + l.web.catalogue.FormatMoney(page.cents) + " So far"; !strings.Contains(after, want) {
			l.failf("the page says %q, want %q", text, want)
		}
	}
	return page
}

// comparePage finds the reason for each cent that is only on the page or only on the invoice.
func (l *ledger) comparePage(page *monthPage, reasons map[string]int64) {
	l.t.Helper()
	var invoice *ledgerInvoice
	for _, i := range page.sub.invoices {
		if i.end.Equal(page.end) {
			invoice = i
		}
	}
	if invoice == nil {
		l.failf("%s has no invoice for the period that ended at %s", page.sub.payer.customer, page.end)
	}
	var amount int64
	for name, id := range l.prices {
		if strings.HasPrefix(name, "overage:") {
			_, cents := meteredLine(l.stand.Object(invoice.id), id)
			amount += cents
		}
	}
	difference := amount - page.cents
	for _, p := range l.people {
		for _, e := range p.events {
			if e.over == 0 {
				continue
			}
			on, why := l.reason(e)
			switch onInvoice := on == invoice; {
			case onInvoice == page.events[e]:
				continue
			case onInvoice:
				why = "recorded after the page was read"
				if !e.recorded.After(page.at) {
					why = "by a person who left or came back"
					if page.people[p] && p.org(page.end.AddDate(0, -1, 0)) == p.org(page.end) && len(p.memberships) < 2 {
						l.failf("the page of %s lacks %+v", page.sub.payer.customer, e)
					}
				}
				difference -= e.cent
			case why == invoiced:
				l.failf("%+v is on the page of %s, and on another invoice", e, page.sub.payer.customer)
			default:
				difference += e.cent
			}
			reasons[why] += e.cent
		}
	}
	if difference != 0 {
		l.failf("the invoice of %s has %d cents, its page %d; %d cents have no reason", page.sub.payer.customer, amount, page.cents, difference)
	}
	reasons["pages"]++
	reasons["cents on invoices"] += amount
}
