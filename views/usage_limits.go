package views

import (
	"fmt"
	"strings"

	"tollgate/models"
	"tollgate/views/ui"
)

// SpendLimit is the state of the spend limit form. The limit itself is in the Standing.
type SpendLimit struct {
	// Entered is the text in the field, if the form was sent and is shown again.
	Entered string
	// Sent means that the form was sent and is shown again.
	Sent bool
	// Confirm is a limit in cents that must be confirmed, because it would pause usage immediately or is
	// too low to end a pause; nil otherwise.
	Confirm *int64
}

// limitEffect says what the spend limit does.
func limitEffect(c *models.Catalogue, s models.Standing) string {
	if *s.SpendLimitCents < s.OverageRateCents {
		return fmt.Sprintf("It allows no extra %s, because each one costs %s.", c.UnitPlural, c.FormatMoney(s.OverageRateCents))
	}
	return fmt.Sprintf("When it is reached, extra %s are paused until the reset.", c.UnitPlural)
}

// noLimit says what happens without a spend limit.
func noLimit(c *models.Catalogue, s models.Standing, raiser string) string {
	if s.MemberLimit != nil && *s.MemberLimit <= s.Included {
		return "You have set no spend limit. Your member limit allows no extra " + c.UnitPlural + "."
	}
	if s.PastDue {
		s.PastDue = false
		until := strings.Join(append([]string{"the payment succeeds"}, raises(s, raiser)...), " and ")
		var limits []string
		if s.Organization.LimitCents != nil {
			limits = append(limits, "your organization's spend limit")
		}
		if s.MemberLimit != nil {
			limits = append(limits, "your member limit")
		}
		text := fmt.Sprintf("You have set no spend limit. Extra %s are paused until %s; after that, they are billed", c.UnitPlural, until)
		if len(limits) > 0 {
			text += " until " + strings.Join(limits, " or ") + " is reached"
		}
		return text + "."
	}
	if s.Organization.LimitCents != nil {
		return fmt.Sprintf("You have set no limit of your own: extra %s are billed until your organization's spend limit is reached. "+
			"If you set your own limit, extra %s are paused from the time you reach it until the reset.",
			c.UnitPlural, c.UnitPlural)
	}
	if s.MemberLimit != nil {
		return fmt.Sprintf("No spend limit is set: extra %s are billed until you reach your member limit. "+
			"If you set a limit, extra %s are paused from the time you reach it until the reset.", c.UnitPlural, c.UnitPlural)
	}
	return fmt.Sprintf("No spend limit is set: all extra %s are billed. If you set a limit, extra %s are paused from the time you reach it "+
		"until the reset.",
		c.UnitPlural, c.UnitPlural)
}

// stopsImmediately says what a limit does that is already reached.
func stopsImmediately(c *models.Catalogue, s models.Standing, cents int64) string {
	stops, stays := "stop immediately,", "stop immediately and stay paused,"
	if paused(s) {
		stops, stays = "stay paused", "stay paused,"
	}
	text, more := spentSoFar(c, s.OverageCents, s.OverageCentsHeld)+"With a limit of "+c.FormatMoney(cents)+", ", "One"
	reset := models.FormatReset(s.Period.End)
	// If there are other included units, they are available after the reset.
	switch {
	case cents < s.OverageRateCents && (s.Remaining() > 0 || c.IncludesNone(s.Plan)):
		payment := ""
		if s.PastDue {
			payment = "a successful payment and "
		}
		text += fmt.Sprintf("%s %s even after the reset on %s. After the reset, they need %sa limit of at least %s.",
			whatStops(c, s), stays, reset, payment, c.FormatMoney(s.OverageRateCents))
		more = "Before the reset, one"
	case s.PastDue && s.Remaining() > 0:
		text += fmt.Sprintf("%s %s at least until %s, and until the payment succeeds.", whatStops(c, s), stops, reset)
	default:
		text += fmt.Sprintf("%s %s until %s.", whatStops(c, s), stops, reset)
	}
	if nextExtra(s).Reason == models.SpendLimitReached {
		needed := s.OverageCents + s.OverageCentsHeld + s.OverageRateCents
		if more == "One" || needed > s.OverageRateCents { // otherwise, the minimum was named above
			text += fmt.Sprintf(" %s more extra %s needs a limit of at least %s.", more, c.UnitSingular, c.FormatMoney(needed))
		}
		s.SpendLimitCents = &needed
		if nextExtra(s).Reason == models.OrganizationSpendLimitReached {
			text += " Your organization's spend limit must be raised, too."
		}
	}
	if s.OverageCents == 0 && s.OverageCentsHeld == 0 && !c.IncludesNone(s.Plan) {
		text += " None of your included " + c.UnitPlural + " are left."
	}
	s.SpendLimitCents = &cents
	if onlyHoldsRefuse(s) {
		text += released(c)
	}
	return text
}

// spentSoFar says which overage is billed despite a new limit: the cents that are used, and as much
// of the held cents as the work uses.
func spentSoFar(c *models.Catalogue, cents, held int64) string {
	var text string
	if cents > 0 {
		text = fmt.Sprintf("%s of overage was used in this period and is billed in any case. ", c.FormatMoney(cents))
	}
	if held > 0 {
		text += fmt.Sprintf("Overage of %s is on hold for work in progress. The part that the work uses is billed, even above "+
			"the new limit. ", c.FormatMoney(held))
	}
	return text
}

// whatStops names what stops when the limit is already reached: only extra units, if included ones are
// left.
func whatStops(c *models.Catalogue, s models.Standing) string {
	if s.Remaining() > 0 {
		return "extra " + c.UnitPlural
	}
	return c.UnitPlural
}

// nextExtra returns the decision about the next extra unit under the current limits.
func nextExtra(s models.Standing) models.Verdict { return models.Decide(s, s.Remaining()+1) }

// paused reports whether extra units are paused before the new limit is saved.
func paused(s models.Standing) bool { return !nextExtra(s).Allowed }

// confirmLabel is the label of the button that saves the limit.
func confirmLabel(c *models.Catalogue, s models.Standing) string {
	if paused(s) {
		return "Save limit"
	}
	return fmt.Sprintf("Stop %s now", whatStops(c, s))
}

// confirmTitle says that a limit is not saved yet, because it would stop usage immediately, or is too
// low to end a pause.
func confirmTitle(c *models.Catalogue, s models.Standing, cents int64) string {
	if paused(s) {
		return fmt.Sprintf("Not saved yet: with a limit of %s, %s stay paused", c.FormatMoney(cents), whatStops(c, s))
	}
	return fmt.Sprintf("Not saved yet: a limit of %s would stop %s immediately", c.FormatMoney(cents), whatStops(c, s))
}

// limitValue returns the value of the limit's field: "3.00".
func limitValue(c *models.Catalogue, f SpendLimit, s models.Standing) string {
	switch {
	case f.Sent:
		return f.Entered
	case s.SpendLimitCents != nil:
		return models.FormatAmount(*s.SpendLimitCents, c.Currency)
	}
	return ""
}

// FieldIDAmount is the ID of the spend limit's field.
const FieldIDAmount = "spend-limit-amount"

func amountField(d Usage, s models.Standing) ui.Field {
	c := d.Catalogue
	return d.Frame.Check(ui.Field{
		ID: FieldIDAmount, Name: FieldAmount, Label: "Maximum overage cost per billing period", Type: "text",
		InputMode: "decimal", Autocomplete: "off", Required: true,
		MaxLength: 12, Prefix: models.CurrencySign(c.Currency), Value: limitValue(c, d.Limit, s),
		Hint: fmt.Sprintf("Each extra %s costs %s.", c.UnitSingular, c.FormatMoney(s.OverageRateCents)),
	})
}
