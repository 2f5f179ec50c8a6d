package billing

import (
	"fmt"
	"time"

	"github.com/google/uuid"

	"tollgate/models"
)

// truth is what the simulation knows about a billing period at Stripe, in units of one meter.
type truth struct {
	payer  *payer
	plan   models.PlanID
	period models.Period
	// decided is the overage in the period according to the answers, without what was voided. left is
	// what was voided and remains in Stripe's totals. counted is what Stripe has in the period's
	// minutes.
	decided, left, counted int64
}

// name returns how to repeat the schedule.
func (w *world) name() string {
	return fmt.Sprintf("%s: repeat it with -args -seed=%d -days=%d", w.now.Format("01-02 15:04:05"), w.s.seed, w.s.days)
}

// problems lists what is wrong after a schedule: wrong bills, and differences that are not shown
// with their exact amount and period.
func (w *world) problems() []string {
	a := &audit{world: w, reports: map[uuid.UUID]*models.StripeReport{}}
	c, err := w.processes[1].reporter.ReconcileAll(w.ctx, false)
	a.read()
	a.open()
	a.stripesEvents()
	a.ledger()
	a.credits()
	a.records()
	for _, p := range w.payers {
		for _, plan := range p.plans {
			a.meter(p, plan)
		}
	}
	w.must(models.Verify(w.ctx, w.db, func(d models.Difference) { a.problem("verify: %s", d) }))
	if len(a.found) > 0 && w.s.without == none {
		w.t.Logf("reconciled (%v): %+v\nfailed: %+v\nlost: %+v", err, c.Periods, c.Failed, c.Lost)
	}
	if n := len(a.found); n > 12 {
		a.found = append(a.found[:12], fmt.Sprintf("and %d more", n-12))
	}
	return a.found
}

// audit compares the truth with what the product says.
type audit struct {
	*world
	found    []string
	reports  map[uuid.UUID]*models.StripeReport
	events   map[uuid.UUID]*models.UsageEvent
	voids    map[uuid.UUID]*models.UsageVoid // by event
	totals   []models.StripeTotal
	balances []models.OverageBalance
}

func (a *audit) problem(format string, args ...any) {
	a.found = append(a.found, fmt.Sprintf(format, args...))
}

func (a *audit) read() {
	var reports []models.StripeReport
	a.must(a.db.NewSelect().Model(&reports).Scan(a.ctx))
	for i := range reports {
		a.reports[reports[i].ID] = &reports[i]
	}
	var events []models.UsageEvent
	a.must(a.db.NewSelect().Model(&events).Scan(a.ctx))
	a.events = map[uuid.UUID]*models.UsageEvent{}
	for i := range events {
		a.events[events[i].ID] = &events[i]
	}
	var voids []models.UsageVoid
	a.must(a.db.NewSelect().Model(&voids).Scan(a.ctx))
	a.voids = map[uuid.UUID]*models.UsageVoid{}
	for i := range voids {
		a.voids[voids[i].EventID] = &voids[i]
	}
	a.must(a.db.NewSelect().Model(&a.totals).Scan(a.ctx))
	var err error
	a.balances, err = Balances(a.ctx, a.db, time.Time{})
	a.must(err)
}

// open checks that nothing waits, and that reports failed only where something was lost: by a drop,
// or with a database.
func (a *audit) open() {
	if a.waits() {
		a.problem("something still waits")
	}
	for _, r := range a.reports {
		switch {
		case r.State == models.ReportVerified, r.State == models.ReportMissing:
		case r.State == models.ReportRejected && a.s.dropped > 0, r.State == models.ReportConflict && a.s.restores(),
			r.State == models.ReportGivenUp && r.Counts == models.CountsVoid && a.s.dropped > 0:
			a.counts[string(r.State)]++
		default:
			text := ""
			if r.LastError != nil {
				text = *r.LastError
			}
			a.problem("report %s of %d units at %s is %s after %d attempts: %s", r.Identifier, r.Value, stamp(r.Minute), r.State, r.Attempts, text)
		}
	}
	a.counts["reports"] = len(a.reports)
	var stopped []string
	a.must(a.db.NewSelect().Model((*models.StripeState)(nil)).ColumnExpr("COALESCE(stopped, paused)").
		Where("stopped IS NOT NULL OR paused IS NOT NULL").Scan(a.ctx, &stopped))
	if len(stopped) > 0 {
		a.problem("nothing is sent: %s", stopped[0])
	}
}

func (a *audit) stripesEvents() {
	for _, e := range a.stripe.Events() {
		if e.Times != 1 {
			a.problem("%s was counted %d times", e.Identifier, e.Times)
		}
	}
	for customer, most := range a.stripe.MaxConcurrent() {
		if most > 1 {
			a.problem("%s had %d calls at a time", customer, most)
		}
	}
}

// ledger checks that the ledger has each answer as it was given, and nothing else.
func (a *audit) ledger() {
	seen := 0
	for _, p := range a.payers {
		for _, person := range p.people {
			for _, u := range person.uses {
				e := a.events[u.id]
				if e == nil {
					a.problem("an event of %s at %s is not in the ledger", person.email, u.at)
					continue
				}
				seen++
				same := e.OverageQuantity == u.overage && e.Quantity == u.units && e.OccurredAt.Equal(u.at) && e.Email == person.email
				if !same || e.PlanID != u.plan && u.overage > 0 {
					a.problem("the ledger has %+v, and the answer was %+v", e, u)
				}
				if e.OverageQuantity > 0 && (e.StripeCustomerID == nil || *e.StripeCustomerID != p.id) {
					a.problem("%d units of overage of %s at %s are not paid by %s", u.overage, person.email, u.at, p.id)
				}
				a.report(e)
			}
			for _, u := range person.voided {
				seen++
				if e := a.events[u.id]; e == nil || e.VoidedAt == nil || e.StripeReportID != nil {
					a.problem("the ledger has %+v, and its event was voided before it was in a report", e)
				}
			}
			for _, u := range person.takenBack {
				seen++
				if e, v := a.events[u.id], a.voids[u.id]; e == nil || e.VoidedAt == nil || v == nil {
					a.problem("the ledger has %+v and %+v, and its event was voided", e, v)
				}
			}
		}
	}
	if seen != len(a.events) {
		a.problem("the ledger has %d events, and %d were answered", len(a.events), seen)
	}
}

// credits checks that Stripe has one credit note for each void that has one, with its amount.
func (a *audit) credits() {
	notes := map[string]int64{}
	for _, n := range a.stripe.CreditNotes() {
		notes[n.ID] = n.Cents
	}
	for _, v := range a.voids {
		a.counts["voids "+string(v.State)]++
		if v.CreditNoteID == nil {
			continue
		}
		if cents, ok := notes[*v.CreditNoteID]; !ok || cents != v.OverageCents {
			a.problem("the void of %d cents has the credit note %s of %d cents", v.OverageCents, *v.CreditNoteID, cents)
		}
		delete(notes, *v.CreditNoteID)
	}
	if len(notes) > 0 {
		a.problem("no void has these credit notes: %v", notes)
	}
}

// report checks the report of an event.
func (a *audit) report(e *models.UsageEvent) {
	if (e.OverageQuantity == 0) != (e.StripeReportID == nil) || e.OverageQuantity == 0 && e.StripeReportedAt != nil {
		a.problem("an event with %d units of overage is in the report %v, reported at %v", e.OverageQuantity, e.StripeReportID,
			e.StripeReportedAt)
	}
	if e.StripeReportID == nil {
		return
	}
	if r := a.reports[*e.StripeReportID]; r.MeterEventName != a.catalogue.MeterOf(e.PlanID) || r.Counts != models.CountsOverage {
		a.problem("an event of %s is in a report to %s of the %s", e.PlanID, r.MeterEventName, r.Counts)
	}
}

// records checks that each record lies within one billing period at Stripe. It also checks that
// each event is in a report of its own period, unless the report was sent before their boundary was
// known.
func (a *audit) records() {
	for _, p := range a.payers {
		var records []models.UsageRecord
		a.must(a.db.NewSelect().Model(&records).Where("stripe_customer_id = ?", p.id).Scan(a.ctx))
		for _, r := range records {
			if of := p.at(r.BillingPeriodStart.UTC()); r.BillingPeriodEnd.After(of.End) && r.SuggestionsUsed > 0 {
				a.problem("a record of %s from %s to %s is not within Stripe's period from %s to %s", r.Email, stamp(r.BillingPeriodStart),
					stamp(r.BillingPeriodEnd), stamp(of.Start), stamp(of.End))
			}
		}
		known := a.known(p)
		for _, e := range a.events {
			if e.StripeReportID == nil || *e.StripeCustomerID != p.id {
				continue
			}
			r := a.reports[*e.StripeReportID]
			if r.FirstAttemptAt == nil || r.NoMinute || a.replaces(r) {
				continue
			}
			between, late := 0, true
			for _, period := range p.periods[1:] {
				if turn := period.Start; e.OccurredAt.Before(turn) != r.Minute.Before(turn) {
					between++
					late = late && r.FirstAttemptAt.After(known[turn.Unix()].Add(time.Minute))
				}
			}
			if between > 0 && late {
				a.problem("an event of %s at %s is in a report of %s that was first sent at %s, when the boundary between them was known", p.id,
					stamp(e.OccurredAt), stamp(r.Minute), stamp(*r.FirstAttemptAt))
			}
		}
	}
}

// replaces reports whether a report replaces one that never arrived. It then has the same events.
func (a *audit) replaces(r *models.StripeReport) bool {
	for _, other := range a.reports {
		if other.ReplacedBy != nil && *other.ReplacedBy == r.ID {
			return true
		}
	}
	return false
}

// known returns when Tollgate learned of each period of a customer, by the period's start.
func (a *audit) known(p *payer) map[int64]time.Time {
	var rows []models.SubscriptionPeriod
	a.must(a.db.NewSelect().Model(&rows).Where("stripe_customer_id = ?", p.id).Scan(a.ctx))
	known := map[int64]time.Time{}
	for _, r := range rows {
		known[r.PeriodStart.Unix()] = r.LearnedAt.UTC()
	}
	return known
}

// at returns the billing period at Stripe that contains t.
func (p *payer) at(t time.Time) models.Period {
	for _, period := range p.periods {
		if period.Contains(t) {
			return period
		}
	}
	return models.Period{}
}

func stamp(t time.Time) string { return t.UTC().Format("01-02 15:04:05") }
