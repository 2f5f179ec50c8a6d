package views

import (
	"strings"
	"time"

	"tollgate/models"
)

// OpsOverage shows the operator how much overage reached each step from the decision to the
// invoice.
type OpsOverage struct {
	// Steps and Reasons are sums over the current billing periods and those that ended in the last 35
	// days.
	Steps, Reasons []models.OverageShare
	// Balances are the periods with overage that is neither invoiced nor waiting. Unexplained ones
	// come first.
	Balances []models.OverageBalance
	// CheckedAt is the time of the last comparison; nil before the first one.
	CheckedAt *time.Time
	// Currency is the catalog's currency.
	Currency string
}

// unexplained returns the amount without a known reason.
func (o OpsOverage) unexplained() (sum models.OverageSum) {
	for _, r := range o.Reasons {
		if r.Part == models.OverageUnexplained {
			sum = sum.Plus(r.OverageSum)
		}
	}
	return sum
}

// shown returns the reasons whose amount is not zero.
func (o OpsOverage) shown() (shown []models.OverageShare) {
	for _, r := range o.Reasons {
		if r.OverageSum != (models.OverageSum{}) {
			shown = append(shown, r)
		}
	}
	return shown
}

func (o OpsOverage) money(cents int64) string { return models.FormatMoney(cents, o.Currency) }

// why lists a period's reasons: "Late: 3 ($0.90). Waiting: 5 ($1.50)."
func (o OpsOverage) why(b models.OverageBalance) string {
	var texts []string
	for _, r := range b.Reasons {
		text := overageWord(r.Part)
		if r.OverageSum != (models.OverageSum{}) {
			text += ": " + models.FormatCount(r.Units)
			if b.HasAmount(r) {
				text += " (" + o.money(r.Cents) + ")"
			}
		} else {
			text += ": " + overageMeaning(r.Part)
		}
		texts = append(texts, text+".")
	}
	return strings.Join(texts, " ")
}

// overageWord returns the label of a step or a reason.
func overageWord(p models.OveragePart) string {
	return capital(strings.ReplaceAll(string(p), "_", " "))
}

// overageMeaning says what a step or a reason means.
func overageMeaning(p models.OveragePart) string {
	switch p {
	case models.OverageDecided:
		return "billable, according to the recorded usage"
	case models.OverageSent:
		return "accepted by Stripe"
	case models.OverageCounted:
		return "in Stripe’s totals"
	case models.OverageInvoiced:
		return "on a final invoice"
	case models.OverageUnexplained:
		return "no known reason; compare the invoice with the periods below"
	case models.OverageWaiting:
		return "not sent yet, or the invoice is not final"
	case models.OverageUnknown:
		return "sent, but no clear response from Stripe; will be checked or sent again"
	case models.OverageLate:
		return "not sent before the invoice was final, or used after the subscription had ended, so Stripe does not bill these units" +
			billYourself
	case models.OverageNoItem:
		return "the subscription no longer has this plan’s overage price, so Stripe does not bill these units" +
			billYourself
	case models.OverageDiscarded:
		return "the subscription was canceled without an invoice, so Stripe does not bill these units" + billYourself
	case models.OverageByHand:
		return "the plan was assigned by hand, so Stripe does not bill these units" + billYourself
	case models.OverageTwoSubscriptions:
		return "held back until only one subscription is left"
	case models.OverageByTiers:
		return "held back until the price is replaced with one without tiers"
	case models.OverageNoPrice:
		return "the subscription has no usable overage price, so units beyond the included ones are refused"
	case models.OverageBlocked:
		return "Stripe does not know the customer or the meter"
	case models.OverageExpired:
		return stateMeaning(models.ReportExpired)
	case models.OverageRejected:
		return stateMeaning(models.ReportRejected)
	case models.OverageDead:
		return stateMeaning(models.ReportDead)
	case models.OverageConflict:
		return stateMeaning(models.ReportConflict)
	case models.OverageGivenUp:
		return stateMeaning(models.ReportGivenUp)
	case models.OverageOtherPeriod:
		return "billed in a different period than the one in which the units were used"
	case models.OverageNotCounted:
		return "sent, but not in Stripe’s total"
	case models.OverageOtherSource:
		return "invoiced, but not sent by Tollgate"
	case models.OverageToCredit:
		return "voided events that the invoice contains or may contain; credit notes follow, unless the list of voids " +
			"without a credit note says what to do"
	case models.OverageCredited:
		return "voided events that the invoice contains; credit notes have taken the amount back"
	case models.OverageNotBilled:
		return "voided events that were reported but are on no invoice. Another row already " +
			"includes these units, so this row subtracts them"
	case models.OverageVoided:
		return "the invoice was voided"
	case models.OverageUncollectible:
		return "the invoice is marked uncollectible"
	case models.OverageOtherCurrency:
		return "the invoice is in another currency"
	}
	return ""
}

// billYourself says what an operator can do about overage that Stripe does not bill.
const billYourself = "; to charge for them, bill them by hand"

// sendInTime says what happens to overage that is sent too late.
const sendInTime = "Stripe does not bill overage that arrives after the invoice of its billing period is final. " +
	"Stripe refuses overage that is more than 35 days old."
