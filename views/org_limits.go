package views

import (
	"fmt"

	"tollgate/models"
	"tollgate/views/ui"
)

// The IDs of the fields of the organization's limits.
const (
	FieldIDOrgSpendLimit  = "org-spend-limit-amount"
	FieldIDOrgMemberLimit = "org-member-limit-units"
)

// SpentText returns "Spent $12.40 of $50.00." with the part that is on hold.
func SpentText(c *models.Catalogue, s models.OrganizationSummary) string {
	spent, held := int64(0), int64(0)
	if s.Spent != nil {
		spent, held = s.Spent.OverageCents, s.Spent.OverageCentsHeld
	}
	text := fmt.Sprintf("Spent %s of %s", c.FormatMoney(spent), c.FormatMoney(*s.SpendLimitCents))
	if held > 0 {
		text += fmt.Sprintf(", and %s more is on hold for work in progress", c.FormatMoney(held))
	}
	return text + "."
}

// SpentNote explains why the spent amount differs from the members' overage, which is shown above it;
// empty if it does not.
func SpentNote(c *models.Catalogue, s models.OrganizationSummary) string {
	if s.Spent == nil {
		return ""
	}
	switch differs := s.Spent.OverageCents - s.OverageCents; {
	case differs > 0:
		return fmt.Sprintf("%s of the spent amount is not in the overage above. It was used by people who have left, "+
			"or by current members before they left and rejoined.", c.FormatMoney(differs))
	case differs < 0:
		return fmt.Sprintf("%s of the overage above is not billed to the organization's subscription.", c.FormatMoney(-differs))
	}
	return ""
}

// applying reports whether the spend limit is stored but not in force yet.
func applying(s models.OrganizationSummary) bool {
	return s.SpendLimitCents != nil && s.Spent != nil && !s.Spent.Counted
}

// orgPaused reports whether the spend limit does not allow another extra unit.
func orgPaused(s models.OrganizationSummary) bool {
	return s.SpendLimitCents != nil && s.Spent != nil && s.Spent.Counted && s.OverageRateCents > 0 && s.Exceeds(*s.SpendLimitCents)
}

// orgPausedText says until when extra units are paused.
func orgPausedText(c *models.Catalogue, s models.OrganizationSummary) string {
	if *s.SpendLimitCents < s.OverageRateCents {
		payment := ""
		if s.PastDue {
			payment = "the payment succeeds and "
		}
		text, spent := fmt.Sprintf("They are paused until %san admin raises the limit", payment), s.SpentCents()
		if spent == 0 {
			return fmt.Sprintf("%s to at least %s.", text, c.FormatMoney(s.OverageRateCents))
		}
		return fmt.Sprintf("%s: to at least %s in this billing period, or at least %s from the next one.", text,
			c.FormatMoney(spent+s.OverageRateCents), c.FormatMoney(s.OverageRateCents))
	}
	if s.PastDue {
		return "They are paused until the payment succeeds. After that, the limit pauses them until " + models.FormatReset(s.Period.End) +
			", or until an admin raises it."
	}
	return "They are paused until " + models.FormatReset(s.Period.End) + ", or until an admin raises the limit."
}

// noSpendLimit says what happens without a spend limit.
func noSpendLimit(c *models.Catalogue, s models.OrganizationSummary) string {
	switch {
	case !s.HasPlan:
		return fmt.Sprintf("The organization has no active plan, so it does not pay for extra %s. "+
			"A spend limit applies once the organization has a plan.", c.UnitPlural)
	case s.OverageRateCents <= 0:
		return fmt.Sprintf("No limit is set. Extra %s are not available at present.", c.UnitPlural)
	case s.PastDue:
		return fmt.Sprintf("No limit is set. Extra %s are paused until the payment succeeds; after that, they are billed at %s each.",
			c.UnitPlural, c.FormatMoney(s.OverageRateCents))
	}
	return fmt.Sprintf("No limit is set: extra %s are billed at %s each, without a maximum for the organization.",
		c.UnitPlural, c.FormatMoney(s.OverageRateCents))
}

// spendHint explains a spend limit next to its field.
func spendHint(c *models.Catalogue, s models.OrganizationSummary) string {
	if s.OverageRateCents <= 0 {
		return fmt.Sprintf("The most that all members together may spend on extra %s.", c.UnitPlural)
	}
	if s.SpendLimitCents != nil { // the sentence above says what it does
		return fmt.Sprintf("Each extra %s costs %s.", c.UnitSingular, c.FormatMoney(s.OverageRateCents))
	}
	return "For example: " + SpendConsequence(c, s, 250*s.OverageRateCents)
}

func (d Org) spendFields(s models.OrganizationSummary) limitFields {
	c := d.Catalogue
	return limitFields{
		action: PathOrgSpendLimit, current: s.SpendLimitCents, form: d.SpendForm, quiet: d.SpendForm.Confirm != nil,
		legend: "What may the organization spend on overage?", none: "No limit", own: "An amount per billing period",
		format: func(cents int64) string { return models.FormatAmount(cents, c.Currency) },
		field: ui.Field{
			ID: FieldIDOrgSpendLimit, Label: "Amount", InputMode: "decimal", MaxLength: 12, Prefix: models.CurrencySign(c.Currency),
			Hint: spendHint(c, s),
		},
	}.fill(d.Frame.Check)
}

func (d Org) memberFields(s models.OrganizationSummary) limitFields {
	return limitFields{
		action: PathOrgMemberLimit, current: s.MemberLimit, form: d.MemberForm, quiet: d.SpendForm.Confirm != nil,
		legend: "How much may each member use?", none: "No limit", own: "A limit per billing period", format: models.FormatCount,
		field: ui.Field{
			ID: FieldIDOrgMemberLimit, Label: "Number of " + d.Catalogue.UnitPlural, InputMode: "numeric", MaxLength: 13,
			Hint: "Counts both included and extra " + d.Catalogue.UnitPlural + ". You can give a member their own limit on the member's page.",
		},
	}.fill(d.Frame.Check)
}

// defaultLimitText says what the default member limit is.
func defaultLimitText(c *models.Catalogue, s models.OrganizationSummary) string {
	if s.MemberLimit == nil {
		return "No default limit. Members without their own limit are limited only by the plan and by spend limits."
	}
	return MemberConsequence(c, "a member", *s.MemberLimit)
}

// keepLabel is the label of the link that does not save a new spend limit.
func keepLabel(current *int64) string {
	if current == nil {
		return "Do not set a limit"
	}
	return "Keep the current limit"
}

// extraPaused reports whether no extra units are allowed before the new spend limit is saved.
func extraPaused(s models.OrganizationSummary) bool {
	return orgPaused(s) || s.PastDue || s.OverageRateCents <= 0
}

// orgConfirmLabel is the label of the button that saves the spend limit.
func orgConfirmLabel(c *models.Catalogue, s models.OrganizationSummary) string {
	if extraPaused(s) {
		return "Save limit"
	}
	return "Pause extra " + c.UnitPlural + " now"
}

// orgConfirmTitle says that a spend limit is not saved yet.
func orgConfirmTitle(c *models.Catalogue, s models.OrganizationSummary, cents int64) string {
	if extraPaused(s) {
		return fmt.Sprintf("Not saved yet. With a limit of %s, extra %s stay paused for everyone", c.FormatMoney(cents), c.UnitPlural)
	}
	return fmt.Sprintf("Not saved yet. A limit of %s would pause extra %s for everyone immediately", c.FormatMoney(cents), c.UnitPlural)
}

// orgConfirmText says what a spend limit does that is already reached.
func orgConfirmText(c *models.Catalogue, s models.OrganizationSummary, cents int64) string {
	held := int64(0)
	if s.Spent != nil && s.Spent.Counted {
		held = s.Spent.OverageCentsHeld
	}
	used := s.SpentCents() - held
	text := spentSoFar(c, used, held) + fmt.Sprintf("With a limit of %s, extra %s are paused for everyone", c.FormatMoney(cents), c.UnitPlural)
	more, reset, payment := "One", models.FormatReset(s.Period.End), ""
	if s.PastDue {
		payment = "a successful payment and "
	}
	switch {
	case cents < s.OverageRateCents:
		text += fmt.Sprintf(", even after the reset on %s. After the reset, they need %sa limit of at least %s.", reset, payment,
			c.FormatMoney(s.OverageRateCents))
		more = "Before the reset, one"
	case s.PastDue:
		text += " at least until " + reset + ", and until the payment succeeds."
	default:
		text += " until " + reset + "."
	}
	if orgPaused(s) {
		text += fmt.Sprintf(" %s more extra %s needs %sa limit of at least %s.", more, c.UnitSingular, payment,
			c.FormatMoney(s.SpentCents()+s.OverageRateCents))
	}
	if held > 0 && !s.PastDue && s.OverageRateCents > 0 && used+s.OverageRateCents <= cents {
		text += released(c)
	}
	return text
}

// changeSubject says whom or what a change is about.
func (d Org) changeSubject(e models.AuditEntry) string {
	if e.Subject == d.ID.String() {
		return d.Name
	}
	return e.Subject
}

// changeActor says who made a change.
func changeActor(e models.AuditEntry) string {
	if e.Actor == models.ActorShell {
		return "Operator"
	}
	return e.Actor
}
