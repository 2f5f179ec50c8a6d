package models

import (
	"slices"
	"time"
)

// OveragePart is a step of overage on its way from the decision to the invoice, or a reason why
// some of it is not on an invoice.
type OveragePart string

// The steps.
const (
	OverageDecided  OveragePart = "decided"
	OverageSent     OveragePart = "sent"
	OverageCounted  OveragePart = "counted"
	OverageInvoiced OveragePart = "invoiced"
)

// The reasons why overage is not on an invoice. Decided is the sum of invoiced and all reasons, in
// units and in cents.
const (
	// OverageUnexplained has no known reason. It is negative if the invoice has more than was
	// decided.
	OverageUnexplained OveragePart = "unexplained"
	// OverageWaiting was not sent yet, or its invoice is not final.
	OverageWaiting OveragePart = "waiting"
	// OverageUnknown was sent, and it is unknown whether Stripe counted it.
	OverageUnknown OveragePart = "unknown"
	// OverageLate was not sent before its invoice was final, or was used after the subscription ended.
	OverageLate OveragePart = "late"
	// OverageNoItem is for a plan whose overage item the subscription does not have, so Stripe does
	// not bill it.
	OverageNoItem OveragePart = "no_item"
	// OverageDiscarded was lost because the subscription was canceled without an invoice.
	OverageDiscarded OveragePart = "discarded"
	// OverageByHand belongs to a plan without a Stripe subscription.
	OverageByHand OveragePart = "by_hand"
	// OverageTwoSubscriptions and OverageByTiers are held back. OverageByTiers is also the effect
	// of the tiers of earlier releases.
	OverageTwoSubscriptions OveragePart = "two_subscriptions"
	OverageByTiers          OveragePart = "tiered"
	// OverageNoPrice means that the subscription has no usable overage price, so no overage is
	// decided.
	OverageNoPrice OveragePart = "no_overage_price"
	// OverageBlocked waits for an operator, because Stripe does not have the customer or the meter.
	OverageBlocked OveragePart = "blocked"
	// These are reports in the state with the same name.
	OverageExpired  OveragePart = "expired"
	OverageRejected OveragePart = "rejected"
	OverageDead     OveragePart = "dead"
	OverageConflict OveragePart = "conflict"
	OverageGivenUp  OveragePart = "given_up"
	// OverageOtherPeriod is billed in another billing period than its own. It is negative in that
	// other period.
	OverageOtherPeriod OveragePart = "other_period"
	// OverageNotCounted was sent and is missing from Stripe's total. OverageOtherSource is
	// negative: it is in the total, but Tollgate did not send it.
	OverageNotCounted  OveragePart = "not_counted"
	OverageOtherSource OveragePart = "other_source"
	// These are negative: their events were voided after they went into a report. OverageToCredit
	// waits until the invoice is final, OverageCredited was taken back with credit notes, and
	// OverageNotBilled is on no invoice, so another reason has its amount, too.
	OverageToCredit  OveragePart = "to_credit"
	OverageCredited  OveragePart = "credited"
	OverageNotBilled OveragePart = "not_billed"
	// OverageVoided and OverageUncollectible are on an invoice that will not be paid.
	OverageVoided        OveragePart = "voided"
	OverageUncollectible OveragePart = "uncollectible"
	// OverageOtherCurrency is the difference, in cents, of an invoice in another currency than the
	// catalog's.
	OverageOtherCurrency OveragePart = "other_currency"
)

// OverageSteps and OverageReasons are in the order of pages and metrics.
var (
	OverageSteps   = []OveragePart{OverageDecided, OverageSent, OverageCounted, OverageInvoiced}
	OverageReasons = []OveragePart{
		OverageUnexplained, OverageWaiting, OverageUnknown, OverageLate, OverageNoItem, OverageDiscarded, OverageByHand, OverageTwoSubscriptions,
		OverageByTiers, OverageNoPrice, OverageBlocked, OverageExpired, OverageRejected, OverageDead, OverageConflict, OverageGivenUp,
		OverageOtherPeriod, OverageNotCounted, OverageOtherSource, OverageToCredit, OverageCredited, OverageNotBilled,
		OverageVoided, OverageUncollectible, OverageOtherCurrency,
	}
)

// OverageSum is an amount of overage.
type OverageSum struct{ Units, Cents int64 }

// Plus returns the sum of two amounts.
func (o OverageSum) Plus(more OverageSum) OverageSum {
	return OverageSum{o.Units + more.Units, o.Cents + more.Cents}
}

// Minus returns the difference of two amounts.
func (o OverageSum) Minus(less OverageSum) OverageSum {
	return OverageSum{o.Units - less.Units, o.Cents - less.Cents}
}

// OverageShare is the amount of one part.
type OverageShare struct {
	Part OveragePart
	OverageSum
}

// OverageBalance says where the overage of a payer, a meter and a billing period is.
type OverageBalance struct {
	// Payer is a Stripe customer, "organization:ID" or "user:ID".
	Payer string
	// Name is the organization's name or the person's email; empty for a Stripe customer.
	Name           string
	MeterEventName string
	Period         Period
	// Counted has no cents, because Stripe's totals are units.
	Decided, Sent, Counted, Invoiced OverageSum
	// Reasons are in the order of OverageReasons.
	Reasons []OverageShare
	// CheckedAt is when the balance was computed.
	CheckedAt time.Time
}

// NotInvoiced returns the balance's amount for a reason.
func (b *OverageBalance) NotInvoiced(reason OveragePart) OverageSum {
	for _, r := range b.Reasons {
		if r.Part == reason {
			return r.OverageSum
		}
	}
	return OverageSum{}
}

// HasAmount reports whether a reason's amount is known in the catalog's currency. It is not for
// units that only an invoice in another currency has.
func (b *OverageBalance) HasAmount(r OverageShare) bool {
	return r.Cents != 0 || r.Part != OverageUnexplained ||
		!slices.ContainsFunc(b.Reasons, func(other OverageShare) bool { return other.Part == OverageOtherCurrency })
}

// Add adds an amount to a reason.
func (b *OverageBalance) Add(reason OveragePart, o OverageSum) {
	if o == (OverageSum{}) {
		return
	}
	i := slices.IndexFunc(b.Reasons, func(r OverageShare) bool { return r.Part == reason })
	if i < 0 {
		b.Reasons = append(b.Reasons, OverageShare{Part: reason, OverageSum: o})
		b.sort()
		return
	}
	b.Reasons[i].OverageSum = b.Reasons[i].Plus(o)
	if b.Reasons[i].OverageSum == (OverageSum{}) {
		b.Reasons = slices.Delete(b.Reasons, i, i+1)
	}
}

// Flag adds a reason without an amount.
func (b *OverageBalance) Flag(reason OveragePart) {
	if !slices.ContainsFunc(b.Reasons, func(r OverageShare) bool { return r.Part == reason }) {
		b.Reasons = append(b.Reasons, OverageShare{Part: reason})
		b.sort()
	}
}

func (b *OverageBalance) sort() {
	slices.SortFunc(b.Reasons, func(x, y OverageShare) int {
		return slices.Index(OverageReasons, x.Part) - slices.Index(OverageReasons, y.Part)
	})
}

// Set sets a step, or adds an amount to a reason.
func (b *OverageBalance) Set(part OveragePart, o OverageSum) {
	switch part {
	case OverageDecided:
		b.Decided = o
	case OverageSent:
		b.Sent = o
	case OverageCounted:
		b.Counted = o
	case OverageInvoiced:
		b.Invoiced = o
	default:
		b.Flag(part)
		b.Add(part, o)
	}
}
