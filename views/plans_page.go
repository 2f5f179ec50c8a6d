package views

import (
	"fmt"

	"tollgate/models"
	"tollgate/views/ui"
)

// Plans is the pricing page.
type Plans struct {
	Frame     ui.Frame
	Catalogue *models.Catalogue
	// Current is the viewer's plan and its source; the zero value for a viewer who is not signed in.
	Current Subscription
	// Own and Team are the subscriptions at Stripe because of which the viewer cannot buy a plan for
	// themselves, or for their organization; nil if there is none.
	Own, Team *Subscription
	// Costs is what each individual plan would have cost. Its Value is nil if there is no usage to
	// calculate it from.
	Costs Widget[*PlanCosts]
	// MayBuyTeam means that the viewer may buy a team plan for their organization: they are an admin of
	// it, or, if BecomesAdmin is set, it has no admin, and the buyer becomes one.
	MayBuyTeam, BecomesAdmin bool
	// Organization is the name of the viewer's organization; empty without one. Seats is the number of
	// its members if MayBuyTeam is set; 0 if it is unknown.
	Organization string
	Seats        int64
	// StripeConnected means that plans can be bought.
	StripeConnected bool
	// Invoices are the most recent invoices that the viewer may see; none if Stripe does not respond.
	Invoices []Invoice
	// Manages means that the viewer may open Stripe's Billing Portal for their own customer or their
	// organization's, even if another subscription gives them their plan.
	Manages bool
}

// PlanCosts compares the plans by the viewer's past usage.
type PlanCosts struct {
	// Months is the number of billing periods used for the comparison, at most six.
	Months int
	// Plans has an entry for each plan compared.
	Plans map[models.PlanID]PlanCost
}

// PlanCost is what a plan would have cost in those months.
type PlanCost struct {
	// Cents is the base price and overage, before tax.
	Cents int64
	// Refused is the units that the plan's hard cap would have refused.
	Refused int64
}

// aboutPlans says how a purchase works; empty if nothing can be bought.
func aboutPlans(d Plans) string {
	if !d.StripeConnected {
		return ""
	}
	return "A plan that you buy applies immediately, with all of its included units. To switch from a plan that you " +
		"bought here to another one in the same section, first cancel the plan that you bought. It stays active until its period ends. " +
		"Then you can buy the other one."
}

// wouldHaveCost returns the line that compares the plan by past usage; empty if the plan is not
// compared.
func wouldHaveCost(c *models.Catalogue, costs *PlanCosts, p models.Plan) string {
	if costs == nil {
		return ""
	}
	cost, ok := costs.Plans[p.ID]
	if !ok {
		return ""
	}
	span, sum := fmt.Sprintf("With your usage of the last %d months, including this one so far, ", costs.Months), " in total"
	if costs.Months == 1 {
		span, sum = "With your usage of this billing period so far, ", ""
	}
	switch {
	case cost.Refused > 0 && cost.Cents == 0:
		return fmt.Sprintf("%s%s would have cost nothing and would have refused %s.", span, p.Name, c.Units(cost.Refused))
	case cost.Refused > 0:
		return fmt.Sprintf("%s%s would have cost %s%s and would have refused %s.",
			span, p.Name, c.FormatMoney(cost.Cents), sum, c.Units(cost.Refused))
	case cost.Cents == 0:
		return fmt.Sprintf("%s%s would have cost nothing.", span, p.Name)
	}
	return fmt.Sprintf("%s%s would have cost %s%s.", span, p.Name, c.FormatMoney(cost.Cents), sum)
}

// plansOf returns the plans of one type, in the catalog's order.
func plansOf(c *models.Catalogue, kind models.PlanType) []models.Plan {
	var plans []models.Plan
	for _, p := range c.Plans {
		if p.Type == kind {
			plans = append(plans, p)
		}
	}
	return plans
}

// trialLine says until when the viewer's plan costs nothing; empty for other plans and without a
// trial.
func trialLine(d Plans, p models.Plan) string {
	if !d.Current.Trial || p.ID != d.Current.Plan.ID {
		return ""
	}
	free := d.Catalogue.FormatPrice(0)
	if d.Current.TrialEnd == nil {
		return "Trial: " + free + " until it ends."
	}
	return fmt.Sprintf("%s: %s\u00a0until\u00a0then.", d.Current.trialTitle(d.Frame.Now), free)
}

// currentPriceNote says that the prices on the card of the viewer's plan may not be their own; empty if
// they are.
func currentPriceNote(d Plans, p models.Plan) string {
	if p.ID != d.Current.Plan.ID || !d.Current.atStripe() {
		return ""
	}
	return "These are the prices of new subscriptions. The current subscription may have older ones."
}

// priceUnit returns the text after the base price: "per month".
func priceUnit(p models.Plan) string {
	switch {
	case p.Type == models.Team:
		return "per seat per month"
	case p.ID == models.FreePlan:
		return "no card needed"
	}
	return "per month"
}

// overageLine says what happens when the included units are used.
func overageLine(c *models.Catalogue, p models.Plan) string {
	if p.OverageRateCents == 0 {
		return ", then paused until the reset"
	}
	return ", then " + c.FormatMoney(p.OverageRateCents) + " each"
}

// includedLine says what the base price covers.
func includedLine(c *models.Catalogue, p models.Plan) string {
	if p.Type == models.Team {
		return c.Units(p.Included) + " per member"
	}
	return c.Units(p.Included) + " per month"
}

// held returns the subscription because of which the viewer cannot buy the plan; nil without one.
func (d *Plans) held(p models.Plan) *Subscription {
	if p.Type == models.Team {
		return d.Team
	}
	return d.Own
}

// otherPortal reports whether the viewer must manage the subscription because of which they cannot buy
// the plan, but the button at the top of the page opens the portal for another one.
func otherPortal(d Plans, p models.Plan) bool {
	held := d.held(p)
	return held != nil && held.Manageable && (!d.Current.Manageable || d.Current.Shared != held.Shared) &&
		(held.Shared || d.Current.Organization == "")
}

// cannotBuy says why the viewer cannot buy the plan; empty if they can.
func cannotBuy(d Plans, p models.Plan) string {
	held, whose, where := d.held(p), "Your", "under “Invoices and payment”"
	if p.Type == models.Team {
		whose = "Your organization's"
	}
	if otherPortal(d, p) {
		where = "with the button below"
	}
	switch {
	case !d.StripeConnected:
		return "Billing is not available here, so nothing can be bought."
	case p.Type == models.Team && d.Organization == "":
		return "Team plans are for organizations, and you belong to none. You join your Slack team's organization " +
			"when you use the Slack app, or the operator of this service can add you to one."
	case p.Type == models.Team && d.BecomesAdmin && held != nil:
		return d.Organization + " already has a subscription, but no admin. Ask the operator of this service to make someone an admin."
	case p.Type == models.Team && !d.MayBuyTeam:
		return "Only admins can buy a team plan for your organization."
	case p.Type == models.Individual && d.Current.Organization != "":
		return "Your plan comes from " + d.Current.Organization + ", so you cannot buy one of your own."
	case held == nil:
		return ""
	case held.Suspended:
		return fmt.Sprintf("%s subscription is %s. First continue or cancel it %s.", whose, held.Status, where)
	case held.EndsAt != nil:
		return fmt.Sprintf("%s stays active until %s. You can buy %s then.", held.Plan.Name, ui.Day(*held.EndsAt), p.Name)
	case held.Trial:
		return ui.Sentence(fmt.Sprintf("You are trying %s. To switch, cancel it %s. "+
			"It stays active until the trial ends; then you can buy %s", held.Plan.Name, where, p.Name))
	case held.Status == models.StatusPastDue:
		return ui.Sentence(fmt.Sprintf("The last payment for %s failed. To switch, cancel %s %s. "+
			"After it has ended, you can buy %s", held.Plan.Name, held.Plan.Name, where, p.Name))
	}
	return ui.Sentence(fmt.Sprintf("You already pay for %s. To switch, cancel it %s. "+
		"It stays active until the paid period ends; then you can buy %s", held.Plan.Name, where, p.Name))
}

// aboutSeats says what the buyer of a team plan pays for; empty for other plans.
func aboutSeats(d Plans, p models.Plan) string {
	if p.Type != models.Team {
		return ""
	}
	text := "You buy one seat for each current member"
	if d.Seats > 0 {
		text += fmt.Sprintf(": %s × %s = %s per month, before tax", ui.Count(d.Seats, "seat", "seats"),
			d.Catalogue.FormatMoney(p.BasePriceCents), d.Catalogue.FormatMoney(d.Seats*p.BasePriceCents))
	}
	text += ". When members join or leave, the number of seats stays the same; the operator of this service can change it."
	if d.Own != nil && !d.Own.Suspended && d.Own.EndsAt == nil && d.Current.Organization == "" {
		text += fmt.Sprintf(" Your own subscription to %s then has no effect, but renews until you cancel it.", d.Own.Plan.Name)
	}
	return text
}
