package views

import (
	"fmt"
	"strconv"

	"tollgate/models"
	"tollgate/views/ui"
)

// The choices of a form that sets a limit.
const (
	ChoiceNone  = "none"
	ChoiceLimit = "limit"
)

// LimitForm is the state of a form that sets a limit.
type LimitForm struct {
	// Sent means that the form was sent and is shown again with these entries.
	Sent bool
	// Choice is ChoiceNone, ChoiceLimit, or anything else that was sent. Entered is the text in the
	// field of the limit.
	Choice, Entered string
	// Confirm is a limit that must be confirmed, because it would pause usage immediately or is too low
	// to end a pause; nil otherwise.
	Confirm *int64
}

// limitFields are the fields of a form that sets a limit, or removes it.
type limitFields struct {
	action string
	// current is the limit that the admin sees, which the form repeats; nil without one.
	current *int64
	form    LimitForm
	// legend asks which limit applies; none and own are its answers.
	legend, none, own string
	field             ui.Field
	// format returns a limit as it is typed.
	format func(int64) string
	// quiet means that another button of the page is the primary one.
	quiet bool
}

// fill sets the field's value: what was entered, or the current limit.
func (f limitFields) fill(check func(ui.Field) ui.Field) limitFields {
	switch {
	case f.form.Sent:
		f.field.Value = f.form.Entered
	case f.current != nil:
		f.field.Value = f.format(*f.current)
	}
	f.field.Type, f.field.Name, f.field.Autocomplete = "text", FieldAmount, "off"
	f.field = check(f.field)
	return f
}

// chosen reports whether the choice is selected.
func (f limitFields) chosen(choice string) bool {
	if f.form.Sent {
		return f.form.Choice == choice
	}
	return (f.current != nil) == (choice == ChoiceLimit)
}

// Seen returns the value of the hidden field that repeats the limit that the admin sees.
func Seen(limit *int64) string {
	if limit == nil {
		return ""
	}
	return strconv.FormatInt(*limit, 10)
}

// SpendConsequence says what a spend limit of an organization does.
func SpendConsequence(c *models.Catalogue, s models.OrganizationSummary, cents int64) string {
	if !s.HasPlan {
		return fmt.Sprintf("The organization has no active plan, so it does not pay for extra %s. The limit applies once it has one.",
			c.UnitPlural)
	}
	rate := s.OverageRateCents
	if rate <= 0 {
		return fmt.Sprintf("Extra %s are not available at present, so this limit has no effect yet.", c.UnitPlural)
	}
	units := cents / rate
	if units == 0 {
		return fmt.Sprintf("Each extra %s costs %s, so a limit of %s pauses all extra %s for everyone.",
			c.UnitSingular, c.FormatMoney(rate), c.FormatMoney(cents), c.UnitPlural)
	}
	return fmt.Sprintf("At %s each, %s pays for %s per billing period; after that, extra %s are paused for everyone.",
		c.FormatMoney(rate), c.FormatMoney(cents), extra(c, units), c.UnitPlural)
}

// extra returns "1 extra suggestion" or "250 extra suggestions".
func extra(c *models.Catalogue, n int64) string {
	return ui.Count(n, "extra "+c.UnitSingular, "extra "+c.UnitPlural)
}

// MemberConsequence says what a member limit does. who is the subject of the sentence: "a member" or
// "the member".
func MemberConsequence(c *models.Catalogue, who string, limit int64) string {
	if limit == 0 {
		return fmt.Sprintf("A limit of 0 pauses %s immediately.", c.UnitPlural)
	}
	return fmt.Sprintf("Once %s has used %s in a billing period (included and extra), usage is paused until the next period.",
		who, c.Units(limit))
}

// memberLimitText says which member limit applies: "60 suggestions per billing period".
func memberLimitText(c *models.Catalogue, limit *int64) string {
	if limit == nil {
		return "no limit"
	}
	return c.Units(*limit) + " per billing period"
}
