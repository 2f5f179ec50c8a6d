package billing

import (
	"time"

	"tollgate/models"
)

// invoiceOverdue is how long after the end of a billing period its invoice may be missing. A draft
// becomes final after 72 hours at most.
const invoiceOverdue = 4 * 24 * time.Hour

// reportShare is a report's part in a billing period.
type reportShare struct {
	State  models.ReportState
	Counts models.ReportCounts
	// Minute is the report's timestamp, which determines the invoice.
	Minute           time.Time
	Value, Confirmed int64
	// SentAt is when Stripe received it; zero if unknown.
	SentAt time.Time
	// Here is the overage of its events that were used in the period. All is the overage of all its
	// events. They are negative if it takes back a voided event.
	Here, All models.OverageSum
	// ToCredit, Credited and NotBilled are the parts of Here whose events were voided after the
	// report was sealed.
	ToCredit, Credited, NotBilled models.OverageSum
}

// balanceSheet is the data that a balance is computed from.
type balanceSheet struct {
	payer, meter string
	period       models.Period
	now          time.Time
	// unsealed is the overage that is in no report yet.
	unsealed models.OverageSum
	reports  []reportShare
	// final is when the invoice became final; zero until then. drafted means that there is a draft.
	final   time.Time
	drafted bool
	// invoiced, voided and uncollectible are the amounts on final invoices.
	invoiced, voided, uncollectible models.OverageSum
	// otherCurrency means that an invoice is in another currency than the catalog.
	otherCurrency bool
	// counted is Stripe's total of the period's minutes.
	counted int64
	// held is the reason why the customer's reports are held back; empty if they are not.
	held models.OveragePart
	// blocked means that the customer's reports wait for an operator.
	blocked bool
	// canceled is when the subscription was canceled within the period; zero if it was not.
	canceled time.Time
	// noItem means that no subscription has the overage item of the meter's plan, and no invoice of
	// the period has a line for it.
	noItem bool
	// noPrice means that the subscription has no usable overage price.
	noPrice bool
}

// balance returns where each unit of the period's overage is. Decided is always the sum of Invoiced
// and the reasons.
func (s *balanceSheet) balance() models.OverageBalance {
	b := models.OverageBalance{
		Payer: s.payer, MeterEventName: s.meter, Period: s.period, Decided: s.unsealed, Invoiced: s.invoiced,
		Counted: models.OverageSum{Units: s.counted}, CheckedAt: s.now,
	}
	b.Add(s.unsent(), s.unsealed)
	var due dues
	tiers := false
	// reached adds overage that reached Stripe at an instant, for a report's minute. It is negative
	// for a voided event; a credit note follows if the invoice lacks it.
	reached := func(o models.OverageSum, minute, at time.Time) {
		near := !s.final.IsZero() && !at.IsZero() && at.Sub(s.final).Abs() <= requestSettles
		voided := models.OverageSum{}.Minus(o)
		switch reason := s.sent(minute, at); {
		case reason != "" && s.afterEnd(minute):
			b.Add(reason, o)
		case reason == models.OverageLate && voided.Units > 0:
			b.Add(models.OverageToCredit, o)
			if near {
				due.voidsAfter = due.voidsAfter.Plus(voided)
			}
		case reason == "" && voided.Units > 0:
			due.invoiced = due.invoiced.Plus(o)
			if near {
				due.voidsBefore = due.voidsBefore.Plus(voided)
			}
		case reason != "":
			b.Add(reason, o)
			if near && reason == models.OverageLate {
				due.closeAfter = due.closeAfter.Plus(o)
			}
		default:
			due.invoiced = due.invoiced.Plus(o)
			if near {
				due.closeBefore = due.closeBefore.Plus(o)
			}
		}
	}
	for _, r := range s.reports {
		b.Decided = b.Decided.Plus(r.Here).Minus(r.ToCredit).Minus(r.Credited).Minus(r.NotBilled)
		b.Add(models.OverageToCredit, models.OverageSum{}.Minus(r.ToCredit))
		b.Add(models.OverageCredited, models.OverageSum{}.Minus(r.Credited))
		b.Add(models.OverageNotBilled, models.OverageSum{}.Minus(r.NotBilled))
		inPeriod := s.period.Contains(r.Minute)
		tiers = tiers || inPeriod && r.Counts == models.CountsQuantity
		switch r.State {
		case models.ReportSealed:
			b.Add(s.unsent(), r.Here)
		case models.ReportUnknown:
			b.Add(models.OverageUnknown, r.Here)
			switch {
			case inPeriod && r.Value < 0:
				due.unansweredVoids = due.unansweredVoids.Minus(r.Here)
			case inPeriod:
				due.unanswered = due.unanswered.Plus(r.Here)
			}
		case models.ReportAccepted, models.ReportVerified:
			b.Sent = b.Sent.Plus(r.Here)
			if !inPeriod {
				b.Add(models.OverageOtherPeriod, r.Here)
				continue
			}
			due.counted += r.Value
			b.Add(models.OverageOtherPeriod, r.Here.Minus(r.All))
			reached(r.All, r.Minute, r.SentAt)
		case models.ReportMissing:
			// Its events are in another report.
		default:
			if r.State == models.ReportConflict || r.State == models.ReportRejected {
				b.Sent = b.Sent.Plus(r.Here)
			}
			if !inPeriod {
				b.Add(models.OveragePart(r.State), r.Here)
				continue
			}
			due.counted += r.Confirmed
			billed := part(r.All, r.Confirmed, r.Value)
			b.Add(models.OverageOtherPeriod, r.Here.Minus(r.All))
			b.Add(models.OveragePart(r.State), r.All.Minus(billed))
			reached(billed, r.Minute, r.SentAt)
		}
	}
	b.Add(models.OverageVoided, s.voided)
	b.Add(models.OverageUncollectible, s.uncollectible)
	if rest := due.invoiced.Minus(s.invoiced).Minus(s.voided).Minus(s.uncollectible); tiers {
		b.Add(models.OverageByTiers, rest)
	} else {
		s.explain(&b, rest, due)
	}
	if s.noPrice {
		b.Flag(models.OverageNoPrice)
	}
	return b
}

// unsent returns the reason why overage that was not sent is not invoiced.
func (s *balanceSheet) unsent() models.OveragePart {
	switch {
	case s.held != "":
		return s.held
	case s.blocked:
		return models.OverageBlocked
	case s.discarded():
		return models.OverageDiscarded
	case s.noItem:
		return models.OverageNoItem
	case !s.final.IsZero():
		return models.OverageLate
	}
	return models.OverageWaiting
}

// afterEnd reports whether a minute is after the subscription's immediate end. Its last invoice
// covers the time before it.
func (s *balanceSheet) afterEnd(minute time.Time) bool {
	return !s.canceled.IsZero() && !minute.Before(s.canceled)
}

// discarded reports whether the subscription was canceled without an invoice.
func (s *balanceSheet) discarded() bool {
	return !s.canceled.IsZero() && !s.drafted && s.final.IsZero()
}

// sent returns the reason why overage is not invoiced that reached Stripe at an instant, for a
// minute; empty if it should be invoiced.
func (s *balanceSheet) sent(minute, at time.Time) models.OveragePart {
	switch {
	case s.discarded():
		return models.OverageDiscarded
	case s.noItem:
		return models.OverageNoItem
	case !s.final.IsZero() && (at.After(s.final) || s.afterEnd(minute)):
		return models.OverageLate
	case !s.final.IsZero():
		return ""
	case s.drafted:
		return models.OverageWaiting
	case s.now.Sub(s.period.End) > invoiceOverdue:
		return ""
	}
	return models.OverageWaiting
}

// dues are the amounts that should be in Stripe's total and on the invoice.
type dues struct {
	// counted should be in Stripe's total, and invoiced on the invoice.
	counted  int64
	invoiced models.OverageSum
	// closeBefore is the part of invoiced, and closeAfter the part of the late overage, that was
	// sent within an hour of the time when the invoice became final. The invoice may lack the first
	// and contain the second. unanswered was sent without an answer.
	closeBefore, closeAfter, unanswered models.OverageSum
	// The same for what negative reports take back, as positive amounts. Nothing of voidsAfter is in
	// invoiced.
	voidsBefore, voidsAfter, unansweredVoids models.OverageSum
}

// explain adds the reasons for rest, which should be on the invoice and is not. rest is negative if
// the invoice has more.
func (s *balanceSheet) explain(b *models.OverageBalance, rest models.OverageSum, due dues) {
	take := func(reason models.OveragePart, units int64) {
		o := part(rest, units, rest.Units)
		b.Add(reason, o)
		rest = rest.Minus(o)
	}
	// surplus explains what the invoice has more with the amount of another reason.
	surplus := func(reason models.OveragePart, of models.OverageSum) (units int64) {
		units = min(-rest.Units, of.Units)
		if units <= 0 {
			return 0
		}
		o := part(of, units, of.Units)
		b.Add(reason, models.OverageSum{}.Minus(o))
		rest = rest.Plus(o)
		return units
	}
	// lack explains what the invoice has less with a void, whose amount is another reason's.
	lack := func(reason models.OveragePart, of models.OverageSum) (units int64) {
		if units = min(rest.Units, of.Units); units <= 0 {
			return 0
		}
		o := part(of, units, of.Units)
		b.Add(reason, o)
		rest = rest.Minus(o)
		return units
	}
	due.counted += surplus(models.OverageUnknown, due.unanswered)
	due.counted -= lack(models.OverageUnknown, due.unansweredVoids)
	surplus(models.OverageLate, due.closeAfter)
	surplus(models.OverageToCredit, due.voidsBefore)
	lack(models.OverageToCredit, due.voidsAfter)
	if missing := due.counted - s.counted; rest.Units > 0 && missing > 0 {
		take(models.OverageNotCounted, min(missing, rest.Units))
	} else if rest.Units < 0 && missing < 0 {
		take(models.OverageOtherSource, max(missing, rest.Units))
	}
	if n := min(rest.Units, due.closeBefore.Units); n > 0 {
		take(models.OverageLate, n)
	}
	if s.otherCurrency {
		b.Add(models.OverageOtherCurrency, models.OverageSum{Cents: rest.Cents})
		rest.Cents = 0
		if rest.Units != 0 {
			b.Flag(models.OverageOtherCurrency)
		}
	}
	b.Add(models.OverageUnexplained, rest)
}

// part returns the share of an amount for n of all its units.
func part(o models.OverageSum, n, all int64) models.OverageSum {
	if all == 0 || n == 0 {
		return models.OverageSum{}
	}
	return models.OverageSum{Units: o.Units * n / all, Cents: o.Cents * n / all}
}
