package views

import (
	"fmt"
	"strings"
	"time"

	"tollgate/models"
	"tollgate/views/charts"
	"tollgate/views/ui"
)

// Usage is a member's own page.
type Usage struct {
	Frame     ui.Frame
	Catalogue *models.Catalogue
	// Standing is the person's state in the current period, as the gate sees it. For a person without
	// a record, models.Catalogue.Foresee calculates it.
	Standing Widget[models.Standing]
	// Subscription is the person's plan, its source and its future.
	Subscription Subscription
	// Days are those of the current period. Months are at most six, from the oldest to the current
	// one.
	Days   Widget[charts.Daily]
	Months Widget[[]models.PastPeriod]
	// Moved is the overage that moved between the months.
	Moved []models.MovedOverage
	// Comparison is with the same days of the previous period.
	Comparison Widget[models.Comparison]
	// Forecast is the units that a straight line reaches at the period's end. It is nil in the first
	// five days of a period and below ten events.
	Forecast *int64
	// RunsOut is when the units run out at the same pace; nil if that is not before the period's end.
	RunsOut *time.Time
	// Refusals are those of the current period, by reason; approximate.
	Refusals Widget[[]models.RefusalCount]
	// Limit is the state of the spend limit form.
	Limit SpendLimit
	// Organization is the name of the person's organization; empty without one.
	Organization string
	// ReadOnly leaves out all links and forms that act for the person, because the operator sees their
	// page.
	ReadOnly bool
}

// MentionsAdmins reports whether the page may tell a member to ask an admin of their organization.
func (d *Usage) MentionsAdmins() bool {
	s := &d.Standing.Value
	return d.Subscription.Shared || s.MemberLimit != nil || s.Organization.LimitCents != nil
}

// hasTotal reports whether the page shows the sum of the base price and overage: the person has a plan
// of their own.
func (d Usage) hasTotal() bool {
	return d.Subscription.Organization == "" && billed(d.Subscription.Plan)
}

// monthLinks are the links of the months; none on an operator's view of the page.
func (d Usage) monthLinks() charts.Links {
	if d.ReadOnly {
		return charts.Links{}
	}
	return charts.Links{Path: "/usage"}
}

// movedLines says for each period how much overage moved into it and out of it.
func movedLines(c *models.Catalogue, moved []models.MovedOverage) (lines []string) {
	for _, m := range moved {
		if m.In > 0 {
			lines = append(lines, fmt.Sprintf("%s: %s of overage moved into this period from another one, "+
				"because we learned late that the billing period had changed. This overage is still billed.", ui.Span(m.Period), c.Units(m.In)))
		}
		if m.Out > 0 {
			lines = append(lines, fmt.Sprintf("%s: %s of overage moved to another period, "+
				"because we learned late that the billing period had changed. This overage is still billed.", ui.Span(m.Period), c.Units(m.Out)))
		}
	}
	return lines
}

// headline returns the answer to the first question, how much is left.
func headline(c *models.Catalogue, s models.Standing) string {
	if s.Overage > 0 && s.Remaining() == 0 {
		return fmt.Sprintf("%s beyond the plan", c.Units(s.Overage))
	}
	if left, limited := s.LeftUnderMemberLimit(); limited {
		return c.Units(left) + " left"
	}
	return c.Units(s.Remaining()) + " left"
}

// headlineNote says which limit the headline is about; empty if it is about the included units.
func headlineNote(s models.Standing) string {
	if _, limited := s.LeftUnderMemberLimit(); limited {
		return "under the member limit of " + models.FormatCount(*s.MemberLimit)
	}
	return ""
}

// verdictTitle says that extra units are refused or billed; empty while included units are left.
func verdictTitle(c *models.Catalogue, s models.Standing) string {
	switch v := models.Decide(s, 1); {
	case v.Reason == models.MemberLimitReached:
		return "Paused: your member limit is reached"
	case v.Reason == models.OrganizationSpendLimitReached:
		return "Paused: your organization's spend limit is reached"
	case v.Reason == models.SpendLimitReached:
		return "Paused: your spend limit is reached"
	case v.Reason == models.PaymentPastDue:
		return "Paused: the last payment failed"
	case v.Reason == models.IncludedExhausted && s.Used-s.Overage >= s.Included:
		return "Paused until the reset"
	case v.Reason == models.IncludedExhausted:
		return "Paused: all remaining " + c.UnitPlural + " are on hold"
	case s.Level() == models.Exceeded:
		return "Still available. Each extra " + c.UnitSingular + " is billed."
	}
	return ""
}

// verdictText explains verdictTitle and says what to do next.
// raiser says who raises the limits that only an admin can raise.
func verdictText(c *models.Catalogue, s models.Standing, raiser string) string {
	text := availability(c, s, raiser)
	if onlyHoldsRefuse(s) {
		text += released(c)
	}
	return text
}

// onlyHoldsRefuse reports whether one more unit would be allowed if nothing were on hold.
func onlyHoldsRefuse(s models.Standing) bool {
	return s.Held > 0 && !models.Decide(s, 1).Allowed && models.Decide(s.WithoutHolds(), 1).Allowed
}

// released says that holds may make units available before the reset.
func released(c *models.Catalogue) string {
	return fmt.Sprintf(" %s on hold that the work does not use may become available again.", capital(c.UnitPlural))
}

// mayRaise reports whether the viewer is an admin, who can raise the limits of their organization.
func (d *Usage) mayRaise() bool { return !d.ReadOnly && d.Frame.Viewer.Admin }

// raiser says who raises the limits that only an admin can raise: "an admin raises" or "you raise".
func (d *Usage) raiser() string {
	if d.mayRaise() {
		return "you raise"
	}
	return "an admin raises"
}

// raiseStep returns the label and the path of the form with which an admin raises the limit that pauses
// them; empty without one.
func (d *Usage) raiseStep(s models.Standing) (label, path string) {
	switch v := models.Decide(s, 1); {
	case !d.mayRaise():
	case v.Reason == models.MemberLimitReached && (withoutMemberLimit(s).Allowed || *s.MemberLimit == 0):
		return "Change member limit", PathMember(s.UserID) + "#limit"
	case v.Reason == models.OrganizationSpendLimitReached:
		return "Change organization's spend limit", "/org#spend-limit"
	}
	return "", ""
}

// availability says when units are available, or what extra ones cost.
func availability(c *models.Catalogue, s models.Standing, raiser string) string {
	reset, included := models.FormatReset(s.Period.End), ""
	if !c.IncludesNone(s.Plan) {
		included = fmt.Sprintf(" You get new included %s on %s.", c.UnitPlural, reset)
	}
	switch v := models.Decide(s, 1); {
	case v.Reason == models.MemberLimitReached && !withoutMemberLimit(s).Allowed && *s.MemberLimit == 0:
		return fmt.Sprintf("Your member limit is %s. Raising it alone would not help now, because %s.", c.Units(0), otherCause(c, s))
	case v.Reason == models.MemberLimitReached && !withoutMemberLimit(s).Allowed:
		return fmt.Sprintf("Your member limit is %s. Raising it alone would not help, because %s.%s",
			c.Units(*s.MemberLimit), otherCause(c, s), included)
	case v.Reason == models.MemberLimitReached && *s.MemberLimit == 0:
		return fmt.Sprintf("Your member limit is %s. You can use %s as soon as %s the limit.", c.Units(0), c.UnitPlural, raiser)
	case v.Reason == models.MemberLimitReached:
		return fmt.Sprintf("Your member limit is %s. You get new ones on %s, or as soon as %s the limit.",
			c.Units(*s.MemberLimit), reset, raiser)
	case raises(s, raiser) != nil && noneAfterReset(c, s):
		return fmt.Sprintf("Each %s costs %s. %s are available as soon as %s.", c.UnitSingular, c.FormatMoney(s.OverageRateCents),
			capital(c.UnitPlural), strings.Join(raises(s, raiser), " and "))
	case v.Reason == models.OrganizationSpendLimitReached:
		return fmt.Sprintf("No included %s are available, and one more would exceed your organization's spend limit. "+
			"You get new ones on %s, or as soon as %s the limit.", c.UnitPlural, reset, raiser)
	case v.Reason == models.SpendLimitReached:
		return fmt.Sprintf("One more %s would exceed your limit of %s. New ones are available on %s, or as soon as %s.",
			c.UnitSingular, c.FormatMoney(*s.SpendLimitCents), reset, strings.Join(raises(s, raiser), " and "))
	case v.Reason == models.PaymentPastDue:
		s.PastDue = false
		return fmt.Sprintf("No included %s are available. Extra ones are available as soon as %s.%s",
			c.UnitPlural, strings.Join(append([]string{"the payment succeeds"}, raises(s, raiser)...), " and "), included)
	case v.Reason == models.IncludedExhausted && s.Used-s.Overage >= s.Included:
		return fmt.Sprintf("All included %s are used. You get new ones on %s.", c.UnitPlural, reset)
	case v.Reason == models.IncludedExhausted:
		return fmt.Sprintf("All remaining %s are on hold for work in progress. You get new ones on %s.", c.UnitPlural, reset)
	case c.IncludesNone(s.Plan):
		return afterIncluded(c, s, false)
	case s.SpendLimitCents != nil:
		return fmt.Sprintf("The included %s are used. Each extra one costs %s, up to your spend limit of %s.%s",
			c.UnitPlural, c.FormatMoney(s.OverageRateCents), c.FormatMoney(*s.SpendLimitCents), sharedLimit(s))
	case s.Organization.LimitCents != nil:
		return fmt.Sprintf("The included %s are used. Each extra one costs %s, up to the spend limit of your organization.",
			c.UnitPlural, c.FormatMoney(s.OverageRateCents))
	}
	return fmt.Sprintf("The included %s are used. Each extra one costs %s. No spend limit is set.",
		c.UnitPlural, c.FormatMoney(s.OverageRateCents))
}

// noneAfterReset reports whether a spend limit allows no unit even at the start of a billing period.
func noneAfterReset(c *models.Catalogue, s models.Standing) bool {
	low := func(limit *int64) bool { return limit != nil && *limit < s.OverageRateCents }
	return c.IncludesNone(s.Plan) && (low(s.SpendLimitCents) || low(s.Organization.LimitCents))
}

// raises says which spend limits must be raised before one more unit is allowed, such as "you raise
// your spend limit"; empty if none must.
func raises(s models.Standing, raiser string) []string {
	switch models.Decide(s, 1).Reason {
	case models.SpendLimitReached:
		s.SpendLimitCents = nil
		return append([]string{"you raise your spend limit"}, raises(s, raiser)...)
	case models.OrganizationSpendLimitReached:
		return []string{raiser + " your organization's spend limit"}
	}
	return nil
}

// otherCause says why one more unit would be refused without the member limit, too.
func otherCause(c *models.Catalogue, s models.Standing) string {
	switch withoutMemberLimit(s).Reason {
	case models.SpendLimitReached:
		return "your spend limit is reached, too"
	case models.OrganizationSpendLimitReached:
		return "your organization's spend limit is reached, too"
	case models.PaymentPastDue:
		return "the last payment failed"
	}
	return "no included " + c.UnitPlural + " are available"
}

// withoutMemberLimit returns what one more unit would be answered without the member limit.
func withoutMemberLimit(s models.Standing) models.Verdict {
	s.MemberLimit = nil
	return models.Decide(s, 1)
}

// aboutUsage names the plan, and who pays for it; empty if the standing could not be read.
func aboutUsage(d Usage) string {
	if d.Standing.Failed != "" {
		return ""
	}
	return d.Subscription.Plan.Name + " plan" + origin(d)
}

// earlierPlan is shown with overage if the last plan of the period is the free one.
const earlierPlan = "This overage is from before the free plan. It is billed to whoever paid for the plan then. "

// atStripeNote is shown for a subscription at Stripe while the server is not connected to Stripe.
const atStripeNote = "Stripe is not connected here at the moment, so this page may not show the latest state of the subscription. " +
	"To change it, ask the operator of this service."

// atStripe reports whether the plan comes from a subscription at Stripe.
func (s *Subscription) atStripe() bool { return s.Status.Active() && !s.ByHand }

// priceNote says where the base price comes from; empty without one.
func (s *Subscription) priceNote() string {
	if !s.atStripe() || s.basePriceCents() == 0 {
		return ""
	}
	return "The base price is the plan's current one; your subscription may have an older price. "
}

// baseLine returns the label of the base price of a person's own plan.
func baseLine(s Subscription) string {
	switch {
	case s.Trial && s.TrialEnd != nil:
		return s.Plan.Name + ", trial until " + ui.Day(*s.TrialEnd)
	case s.Trial:
		return s.Plan.Name + ", trial"
	}
	return s.Plan.Name + ", per month"
}

// atTheLimit says which limit ends the usage, or what further units cost.
func atTheLimit(c *models.Catalogue, s models.Standing, trial bool, raiser string) string {
	text := afterIncluded(c, s, trial)
	if s.MemberLimit == nil || *s.MemberLimit > s.Included && s.OverageRateCents <= 0 {
		return text
	}
	if *s.MemberLimit == 0 {
		return fmt.Sprintf("Your member limit is %s, so they are paused until %s the limit.", c.Units(0), raiser)
	}
	limit := fmt.Sprintf("Your member limit is %s per billing period. When it is reached, new ones are paused until the reset.",
		c.Units(*s.MemberLimit))
	if *s.MemberLimit <= s.Included {
		return limit
	}
	return text + " " + limit
}

// askForMore tells members whose organization's plan bills no extra units how to get more.
func askForMore(d Usage, s models.Standing) string {
	if d.ReadOnly || d.Subscription.Organization == "" || s.OverageRateCents > 0 || d.Subscription.Trial || d.Frame.Viewer.Admin ||
		!d.Subscription.StripeConnected {
		return "" // if Stripe is not connected, a note below it says whom to ask
	}
	switch {
	case d.forFirstAdmin():
		return " For a larger plan, open the page with the plans."
	case d.Subscription.NoAdmin:
		return " For a larger plan, ask the operator of this service to make someone an admin."
	}
	return " " + ui.Sentence("For a larger plan, ask an admin of "+d.Subscription.Organization)
}

// forFirstAdmin reports whether any member may be able to buy a plan for the organization and become
// its admin.
func (d *Usage) forFirstAdmin() bool {
	return d.Subscription.NoAdmin && d.Subscription.ByHand && d.Subscription.StripeConnected && !d.ReadOnly
}

// missingAdmin tells members with a limit that only an admin can raise that there is no admin; empty
// otherwise.
func missingAdmin(d Usage, s models.Standing) string {
	if d.ReadOnly || !d.Subscription.NoAdmin || s.MemberLimit == nil && s.Organization.LimitCents == nil {
		return ""
	}
	return fmt.Sprintf("%s has no admin, so no one can raise its limits. Ask the operator of this service to make someone an admin.",
		d.Organization)
}

// afterIncluded says what happens when the included units are used up.
func afterIncluded(c *models.Catalogue, s models.Standing, trial bool) string {
	switch {
	case trial && s.OverageRateCents <= 0:
		return fmt.Sprintf("When all %s are used, new ones are paused until the reset. Extra ones are not available during a trial.",
			c.Units(s.Included))
	case s.OverageRateCents <= 0:
		return fmt.Sprintf("When all %s are used, new ones are paused until the reset.", c.Units(s.Included))
	case s.PastDue:
		return fmt.Sprintf("When all %s are used, new ones are paused until the payment succeeds or the billing period resets.",
			c.Units(s.Included))
	case s.SpendLimitCents == nil && s.Organization.LimitCents != nil:
		return priceOfExtra(c, s) + ", up to a spend limit that all members of your organization share."
	case s.SpendLimitCents == nil && s.MemberLimit != nil:
		return priceOfExtra(c, s) + ". No spend limit is set."
	case s.SpendLimitCents == nil:
		return priceOfExtra(c, s) + ". No spend limit is set, so there is no maximum."
	}
	switch low := *s.SpendLimitCents < s.OverageRateCents; {
	case low && c.IncludesNone(s.Plan):
		return fmt.Sprintf("Your spend limit of %s allows no %s, because each one costs %s.", c.FormatMoney(*s.SpendLimitCents), c.UnitPlural,
			c.FormatMoney(s.OverageRateCents))
	case low:
		return fmt.Sprintf("When all %s are used, new ones are paused until the reset, because your spend limit of %s allows no extra ones.",
			c.Units(s.Included), c.FormatMoney(*s.SpendLimitCents))
	}
	return priceOfExtra(c, s) + ", up to your spend limit of " + limitInUnits(c, s.OverageRateCents, *s.SpendLimitCents) + "." + sharedLimit(s)
}

// sharedLimit is the sentence about the organization's spend limit, after one about overage; empty
// without it.
func sharedLimit(s models.Standing) string {
	if s.Organization.LimitCents == nil {
		return ""
	}
	return " The spend limit that all members of your organization share may be reached earlier."
}

// priceOfExtra says what a unit costs when the included ones are used, without a period at the end.
func priceOfExtra(c *models.Catalogue, s models.Standing) string {
	price := c.FormatMoney(s.OverageRateCents)
	if s.Included == 0 {
		return fmt.Sprintf("Each %s costs %s", c.UnitSingular, price)
	}
	return fmt.Sprintf("After %s, each extra one costs %s",
		ui.Count(s.Included, "included "+c.UnitSingular, "included "+c.UnitPlural), price)
}

// limitInUnits formats a limit in money and in units: "$3.00 (10 suggestions beyond the plan)".
func limitInUnits(c *models.Catalogue, rate, cents int64) string {
	return fmt.Sprintf("%s (%s beyond the plan)", c.FormatMoney(cents), c.Units(cents/rate))
}

// comparisonText compares the current period with the previous one.
func comparisonText(c *models.Catalogue, d models.Comparison) string {
	days := "day"
	if d.Days > 1 {
		days = fmt.Sprintf("%d days", d.Days)
	}
	used := fmt.Sprintf("%s used so far in the first %s", c.Units(d.Used), days)
	than := fmt.Sprintf("in the first %s of the previous period", days)
	if d.Whole {
		than = "in the whole previous period"
	}
	if d.Before == nil {
		return used + ". There is no previous period to compare with."
	}
	switch before := *d.Before; {
	case d.Used == before:
		return used + ", as many as " + than + "."
	case before == 0:
		return used + ", none " + than + "."
	case d.Used > before:
		return fmt.Sprintf("%s, %s more than %s (%s).", used, percentOf(d.Used-before, before), than, models.FormatCount(before))
	default:
		return fmt.Sprintf("%s, %s fewer than %s (%s).", used, percentOf(before-d.Used, before), than, models.FormatCount(before))
	}
}

// percentOf formats a part of a number above 0: "12%" or "less than 1%".
func percentOf(part, all int64) string {
	if part*100 < all {
		return "less than 1%"
	}
	return fmt.Sprintf("%d%%", part*100/all)
}

// forecastText says how many units the current pace reaches by the reset, and what they cost.
func forecastText(c *models.Catalogue, s models.Standing, units int64) string {
	text := fmt.Sprintf("At this pace, about %s by the reset", c.Units(units))
	over := s.ForecastOverage(units)
	beyondMember := s.MemberLimit != nil && units > *s.MemberLimit
	if beyondMember && *s.MemberLimit <= s.Included {
		return memberForecast(text, s)
	}
	billable := over.Units > 0 && s.OverageRateCents > 0 && !s.PastDue
	switch {
	case !billable && units-s.Overage <= s.Included && s.Overage > 0:
		return text + ", with no more overage than now."
	case !billable && units-s.Overage <= s.Included:
		return text + ", within the plan."
	case !billable:
		return text + ", more than the plan includes."
	}
	if beyondMember && (s.SpendLimitCents == nil || s.ForecastOverage(*s.MemberLimit).Cents <= *s.SpendLimitCents) {
		return memberForecast(text, s)
	}
	if beyond := models.FormatCount(over.Units); over.Units == units-s.Included {
		text += fmt.Sprintf(", %s beyond the plan", beyond)
	} else {
		text += fmt.Sprintf(", %s of them billed", beyond)
	}
	if s.SpendLimitCents == nil || over.Cents <= *s.SpendLimitCents {
		return fmt.Sprintf("%s: %s of overage.", text, c.FormatMoney(over.Cents)) + sharedLimit(s)
	}
	return fmt.Sprintf("%s. The spend limit of %s is reached before that.", text, c.FormatMoney(*s.SpendLimitCents))
}

func memberForecast(text string, s models.Standing) string {
	return fmt.Sprintf("%s, more than your member limit of %s.", text, models.FormatCount(*s.MemberLimit))
}

// runsOutText says when the units run out: "Included suggestions run out about Nov 24".
func runsOutText(c *models.Catalogue, s models.Standing, at time.Time) string {
	day := " about " + at.UTC().Format("Jan 2")
	if _, limited := s.LeftUnderMemberLimit(); limited {
		return "You reach your member limit" + day
	}
	return "Included " + c.UnitPlural + " run out" + day
}

// hasRate reports whether the amount is that of all units at this rate. An average says nothing: units
// of two prices can have an average that is the price of neither.
func hasRate(o models.Overage, rate int64) bool { return rate > 0 && o.Cents == o.Units*rate }

// overageText returns the label of an amount of overage, with the price per unit if all units have
// the current rate: "Overage: 36 × $0.20".
func overageText(c *models.Catalogue, name string, o models.Overage, rate int64) string {
	if !hasRate(o, rate) {
		return name + " " + c.Units(o.Units)
	}
	return fmt.Sprintf("%s %s × %s", name, models.FormatCount(o.Units), c.FormatMoney(rate))
}

// overageSentence says what a person's overage costs.
func overageSentence(c *models.Catalogue, s models.Standing) string {
	text := fmt.Sprintf("%s of overage: %s", c.FormatMoney(s.OverageCents), c.Units(s.Overage))
	if s.Overage > 0 && hasRate(models.Overage{Units: s.Overage, Cents: s.OverageCents}, s.OverageRateCents) {
		text += " × " + c.FormatMoney(s.OverageRateCents)
	}
	return text + "."
}

// whatCounts returns the text next to the meter that says which units count.
func whatCounts(c *models.Catalogue) string {
	return fmt.Sprintf("What counts: each %s made for you, including regenerated ones. A failed one does not count.", c.UnitSingular)
}
