package billing

import (
	"fmt"
	"slices"
	"strings"

	"tollgate/models"
)

// meter compares each billing period of a payer and a meter.
func (a *audit) meter(p *payer, plan models.PlanID) {
	name := a.catalogue.MeterOf(plan)
	var all, left, counted int64
	for _, period := range p.periods {
		of := truth{payer: p, plan: plan, period: period}
		for _, person := range p.people {
			for _, u := range person.uses {
				if u.plan == plan && period.Contains(u.at) {
					of.decided += u.overage
				}
			}
			for _, u := range person.takenBack {
				if u.plan == plan && period.Contains(u.at) && a.isLeft(a.voids[u.id]) {
					of.left += u.overage
				}
			}
		}
		for _, e := range a.stripe.Events() {
			if e.Customer == p.id && e.EventName == name && period.Contains(e.Timestamp) {
				of.counted += e.Value
			}
		}
		all, left, counted = all+of.decided, left+of.left, counted+of.counted
		a.period(&of)
	}
	var lost int64
	for _, person := range p.people {
		for _, u := range person.lost {
			if u.plan == plan {
				lost += u.overage
			}
		}
	}
	failed := a.failed(p.id, name, models.Period{End: a.now})
	// Stripe may have units that were lost with a database, but it has no units twice.
	if counted > all+left+lost || counted < all+left-failed {
		a.problem("%s, %s: %d units are in the ledger, %d were lost with the database, %d are in failed reports, and Stripe has %d", p.id, plan,
			all, lost, failed, counted)
	}
	for _, b := range a.balances {
		if b.Payer == p.id && b.MeterEventName == name {
			all -= b.Decided.Units
		}
	}
	if all != 0 {
		a.problem("%s, %s: %d units that were decided are in no period's balance", p.id, plan, all)
	}
}

// isLeft reports whether Stripe's totals still have the units of a voided event: a credit note takes
// or will take them back, or no invoice has them, and there is no negative report that came too late.
func (a *audit) isLeft(v *models.UsageVoid) bool {
	if v.State != models.VoidCredited && v.State != models.VoidNotBilled && v.State != models.VoidWaiting {
		return false
	}
	return v.StripeReportID == nil || a.reports[*v.StripeReportID].State != models.ReportVerified
}

// period requires that Stripe has what was decided, or that the exact difference is shown.
func (a *audit) period(of *truth) {
	where := fmt.Sprintf("%s, %s, %s to %s: %d units were decided, Stripe counted %d", of.payer.id, of.plan, stamp(of.period.Start),
		stamp(of.period.End), of.decided, of.counted)
	if of.decided == 0 && of.left == 0 && of.counted == 0 {
		return
	}
	a.counts["periods"]++
	total, balance := a.shown(of)
	if total == nil || balance == nil {
		a.problem("%s, and the totals or the balances do not have this period: %s", where, a.list(of))
		return
	}
	if total.Used != of.decided+of.left || total.Confirmed != of.counted || total.Waiting != 0 {
		a.problem("%s, and the totals say %d and %d, and that %d wait", where, total.Used, total.Confirmed, total.Waiting)
	}
	if balance.Decided.Units != of.decided || balance.Counted.Units != of.counted {
		a.problem("%s, and the balances say %d and %d", where, balance.Decided.Units, balance.Counted.Units)
	}
	visible, reason := a.visible(of, total)
	if of.counted-of.decided-of.left != visible {
		a.problem("%s, and a difference of %d is visible", where, visible)
	}
	if visible != 0 {
		a.counts["differences "+reason]++
	}
	if moved := -balance.NotInvoiced(models.OverageOtherPeriod).Units; moved != total.Misplaced && !a.s.restores() {
		a.problem("%s; %d units of other periods are in its minutes, and the balance says %d", where, total.Misplaced, moved)
	}
}

// visible returns the difference of a period that an operator sees, and its reason. Without a
// reason, it consists of the units that failed reports lack, or that Stripe has of events lost with
// a database.
func (a *audit) visible(of *truth, total *models.StripeTotal) (units int64, reason string) {
	lacks := total.Confirmed - total.Sent
	units, reason = lacks+total.Misplaced, string(total.Reason)
	if units != 0 && total.Difference == 0 && total.Reason == "" {
		a.problem("%s, %s: a difference of %d units is shown without a reason", of.payer.id, stamp(of.period.Start), units)
	}
	failed := a.failed(of.payer.id, total.MeterEventName, of.period)
	if lacks != -failed {
		if !a.s.restores() {
			a.problem("%s, %s: Stripe lacks %d of the units sent, and the failed reports lack %d", of.payer.id, stamp(of.period.Start),
				-lacks, failed)
		}
		reason += " lost"
	}
	if failed != 0 {
		reason += " failed"
	}
	return units, strings.TrimSpace(reason)
}

// failed returns the units that Stripe lacks of failed reports in the minutes of a period.
func (a *audit) failed(customer, meter string, period models.Period) (units int64) {
	for _, r := range a.reports {
		if r.StripeCustomerID == customer && r.MeterEventName == meter && period.Contains(r.Minute.UTC()) && r.State.Failed() {
			units += r.Value - *or(r.Confirmed, 0)
		}
	}
	return units
}

func or[T any](p *T, otherwise T) *T {
	if p == nil {
		return &otherwise
	}
	return p
}

// shown returns the product's total and balance of a period, or nil if it shows none of exactly
// this period.
func (a *audit) shown(of *truth) (total *models.StripeTotal, balance *models.OverageBalance) {
	meter := a.catalogue.MeterOf(of.plan)
	for i, t := range a.totals {
		exact := t.PeriodStart.Equal(of.period.Start) && t.PeriodEnd.Equal(of.period.End)
		if exact && t.StripeCustomerID == of.payer.id && t.MeterEventName == meter {
			total = &a.totals[i]
		}
	}
	i := slices.IndexFunc(a.balances, func(b models.OverageBalance) bool {
		return b.Payer == of.payer.id && b.MeterEventName == meter && b.Period == of.period
	})
	if i >= 0 {
		balance = &a.balances[i]
	}
	return total, balance
}

// list lists the periods that the product shows.
func (a *audit) list(of *truth) string {
	meter, texts := a.catalogue.MeterOf(of.plan), []string{}
	for _, t := range a.totals {
		if t.StripeCustomerID == of.payer.id && t.MeterEventName == meter {
			texts = append(texts, fmt.Sprintf("total %s to %s, %d, %d", stamp(t.PeriodStart), stamp(t.PeriodEnd), t.Used, t.Confirmed))
		}
	}
	for _, b := range a.balances {
		if b.Payer == of.payer.id && b.MeterEventName == meter {
			texts = append(texts, fmt.Sprintf("balance %s to %s, %d, %d", stamp(b.Period.Start), stamp(b.Period.End), b.Decided.Units,
				b.Counted.Units))
		}
	}
	slices.Sort(texts)
	return strings.Join(texts, "; ")
}
