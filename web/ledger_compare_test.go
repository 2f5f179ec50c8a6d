package web

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"tollgate/models"
)

// compare compares everything that is shown with the model.
func (l *ledger) compare() {
	l.t.Helper()
	l.counts["comparisons"]++
	cents := map[*ledgerOrg]int64{}
	for _, p := range l.people {
		l.logf("compare %s", p.name)
		now, status, raw := l.ask("/v1/check", fmt.Sprintf(`{"email": %q}`, p.email))
		if status != 200 {
			l.failf("status %d: %s", status, raw)
		}
		l.decide(p, now, 1)
		l.standing(p, now)
		if o := p.org(l.clock()); o != nil {
			cents[o] += now.OverageCents
		}
		l.compareHistory(p, now)
		if raw != p.shown || l.rng.IntN(4) == 0 { // pages take most of the time
			l.comparePages(p, now)
			p.shown = raw
		}
		l.compareRows(p)
	}
	for _, o := range l.orgs {
		l.logf("compare %s", o.name)
		a := l.get("/v1/organizations/" + o.id.String() + "/usage")
		if got := a.number("overage_cents"); a.status != 200 || got != cents[o] {
			l.failf("the organization's overage is %d cents, want %d: %s", got, cents[o], a.raw)
		}
	}
	l.logf("compare /org")
	shown := l.page(l.orgs[0].admin, "/org").section("cost")
	if plan := l.get("/v1/organizations/" + l.orgs[0].id.String() + "/usage").body["plan"]; shown == nil && plan == "free" {
		return // without its own plan, the organization pays nothing
	}
	if text := textOf(shown); strings.Contains(text, "Overage:") || cents[l.orgs[0]] > 0 {
		if want := " " + l.web.catalogue.FormatMoney(cents[l.orgs[0]]) + " So far in this period"; !strings.Contains(text, want) {
			l.failf("the page says %q, want %q", text, want)
		}
	}
}

// compareHistory checks that each event is in one period of the history, and that each period has
// the sums of its events.
func (l *ledger) compareHistory(p *ledgerPerson, now decisionAnswer) {
	l.t.Helper()
	history := l.history(p)
	for _, h := range history {
		if s := l.tally(p, h.Period.Start, h.Period.End); h.Used != s.used || h.Overage != s.over || h.OverageCents != s.cents {
			l.failf("the history of %s to %s is %+v, want %+v", h.Period.Start, h.Period.End, h, s)
		}
	}
	if got, want := sum(history), l.tally(p, time.Time{}, l.clock().AddDate(1, 0, 0)); got.used != want.used || got.cents != want.cents {
		l.failf("the history of %s has %+v, want %+v", p.name, got, want)
	}
	if len(history) > 0 && history[0].Period == now.Period && history[0].OverageCents != now.OverageCents {
		l.failf("the history's current period is %+v, the answer %+v", history[0], now)
	}
}

func (l *ledger) page(p *ledgerPerson, path string) page {
	l.web.strangers = newClientLimit(time.Now, l.web.log) // all people have one address
	if p.browser == nil {
		p.browser = l.signedIn(p.email)
	}
	shown := p.browser.get(path)
	if shown.status == 303 {
		p.browser = l.signedIn(p.email)
		shown = p.browser.get(path)
	}
	if shown.status != 200 {
		l.failf("%s answered %d", path, shown.status)
	}
	return shown
}

// comparePages checks /usage and its file.
func (l *ledger) comparePages(p *ledgerPerson, now decisionAnswer) {
	l.t.Helper()
	if now.OverageRateCents > 0 {
		money := l.web.catalogue.FormatMoney
		// Units at one rate are shown with it, others only with their price.
		count, price := "Overage: "+models.FormatCount(now.Overage)+" ", " "+money(now.OverageCents)
		if text := textOf(l.page(p, "/usage").section("cost")); !strings.Contains(text, count) || !strings.Contains(text, price) {
			l.failf("the page says %q, want %q and %q", text, count, price)
		}
	}
	var total tally
	for _, row := range l.page(p, "/usage.csv").csv(l.t)[1:] {
		if row[0] != "period" {
			continue
		}
		total.used, total.over, total.cents = total.used+whole(row[4]), total.over+whole(row[10]), total.cents+whole(row[11])
		if start, err := time.Parse(time.RFC3339, row[1]); err != nil || start.Equal(now.Period.Start) && whole(row[11]) != now.OverageCents {
			l.failf("the file has %q, want %d cents", row, now.OverageCents)
		}
	}
	want := l.tally(p, time.Time{}, l.clock().AddDate(1, 0, 0))
	if total.used != want.used || total.over != want.over || total.cents != want.cents {
		l.failf("the file has %+v, want %+v", total, want)
	}
}

// compareRows checks the ledger and the records themselves.
func (l *ledger) compareRows(p *ledgerPerson) {
	l.t.Helper()
	var events []models.UsageEvent
	must(l.t, l.db.NewSelect().Model(&events).Where("user_id = ?", p.id).Scan(l.t.Context()))
	var records []models.UsageRecord
	must(l.t, l.db.NewSelect().Model(&records).Where("user_id = ?", p.id).Scan(l.t.Context()))
	if len(events) != len(p.events) {
		l.failf("%s has %d events, want %d", p.name, len(events), len(p.events))
	}
	of := map[int64]models.Period{}
	for _, r := range records {
		of[r.ID] = r.Period()
		held := l.tally(p, r.Period().Start, r.Period().End)
		if lapsed := r.HoldsExpireAt != nil && !r.HoldsExpireAt.After(l.clock()); !lapsed && // otherwise the next decision gives them back
			(r.UnitsHeld != held.held || r.OverageHeld != held.overHeld || r.OverageCentsHeld != held.centsHeld) {
			l.failf("the record of %v holds %d, %d overage, %d cents, want %+v", r.Period(), r.UnitsHeld, r.OverageHeld, r.OverageCentsHeld, held)
		}
		if s := held; r.SuggestionsUsed != s.used || r.OverageUsed != s.over || r.OverageCents != s.cents {
			l.failf("the record of %v has %d used, %d overage, %d cents, want %+v", r.Period(), r.SuggestionsUsed, r.OverageUsed, r.OverageCents, s)
		}
	}
	byID := map[string]*ledgerEvent{}
	for _, e := range p.events {
		byID[e.id] = e
	}
	for _, e := range events {
		want := byID[e.ID.String()]
		customer := ""
		if want != nil && want.payer != nil {
			customer = want.payer.customer
		}
		switch period := of[e.RecordID]; {
		case want == nil || e.Quantity != want.quantity || e.OverageQuantity != want.over || e.OverageCents != want.cent ||
			string(e.PlanID) != want.plan:
			l.failf("the event %+v is stored, want %+v", e, want)
		case !e.OccurredAt.Equal(want.at) || !period.Contains(e.OccurredAt):
			l.failf("the event of %s is in the record of %v", e.OccurredAt, period)
		case e.OverageQuantity > 0 && *or(e.StripeCustomerID, "") != customer:
			l.failf("the event's overage is paid by %q, want %q", *or(e.StripeCustomerID, ""), customer)
		}
	}
}

// pastLedger is a period of the history.
type pastLedger struct {
	Period                  struct{ Start, End time.Time }
	Plan                    string
	Used, Included, Overage int64
	OverageCents            int64 `json:"overage_cents"`
}

func (l *ledger) history(p *ledgerPerson) []pastLedger {
	l.t.Helper()
	var all struct{ Periods []pastLedger }
	a := l.get("/v1/usage/" + p.email + "/history?months=36")
	if a.status != 200 {
		l.failf("history: %s", a.raw)
	}
	must(l.t, json.Unmarshal([]byte(a.raw), &all))
	return all.Periods
}

func sum(all []pastLedger) (s tally) {
	for _, p := range all {
		s.used, s.over, s.cents = s.used+p.Used, s.over+p.Overage, s.cents+p.OverageCents
	}
	return s
}
