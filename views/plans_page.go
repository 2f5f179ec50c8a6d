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
	// Current is the viewer's plan and where it comes from; the zero value when nobody is signed in.
	Current Subscription
	// Costs is what each individual plan would have cost; its Value is nil when there is nothing to compute it from.
	Costs Widget[*PlanCosts]
	// MayBuyTeam says that the viewer is an admin of an organization, and may buy a team plan for it.
	MayBuyTeam bool
	// StripeConnected says that plans can be bought.
	StripeConnected bool
	// Invoices are the last ones of what the viewer may manage; none when Stripe does not answer.
	Invoices []Invoice
}

// PlanCosts sets the plans against what the viewer used.
type PlanCosts struct {
	// Months is how many of the viewer's billing periods were taken, at most six.
	Months int
	// Plans has an entry for each plan that is compared.
	Plans map[models.PlanID]PlanCost
}

// PlanCost is what a plan would have come to over those months.
type PlanCost struct {
	// Cents is base price and overage, before tax.
	Cents int64
	// Refused is the units that a hard cap would not have allowed.
	Refused int64
}

// wouldHaveCost is the line that compares; empty when there is nothing to say of this plan.
func wouldHaveCost(c *models.Catalogue, costs *PlanCosts, p models.Plan) string {
	if costs == nil {
		return ""
	}
	cost, ok := costs.Plans[p.ID]
	if !ok {
		return ""
	}
	span := fmt.Sprintf("With your last %d months, ", costs.Months)
	if costs.Months == 1 {
		span = "With your last month, "
	}
	switch {
	case cost.Refused > 0 && cost.Cents == 0:
		return fmt.Sprintf("%s%s would have cost nothing and refused %s.", span, p.Name, c.Units(cost.Refused))
	case cost.Refused > 0:
		return fmt.Sprintf("%s%s would have cost %s and refused %s.", span, p.Name, c.FormatMoney(cost.Cents), c.Units(cost.Refused))
	case cost.Cents == 0:
		return fmt.Sprintf("%s%s would have cost nothing.", span, p.Name)
	}
	return fmt.Sprintf("%s%s would have cost %s.", span, p.Name, c.FormatMoney(cost.Cents))
}

// plansOf are the catalogue's plans of one type, in its order.
func plansOf(c *models.Catalogue, kind models.PlanType) []models.Plan {
	var plans []models.Plan
	for _, p := range c.Plans {
		if p.Type == kind {
			plans = append(plans, p)
		}
	}
	return plans
}

// trialLine returns until when the viewer's plan costs nothing; empty for other plans and without a trial.
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

// priceUnit says what the base price is for.
func priceUnit(p models.Plan) string {
	switch {
	case p.Type == models.Team:
		return "per seat per month"
	case p.BasePriceCents == 0:
		return "no card needed"
	}
	return "per month"
}

// overageLine says what happens beyond what the plan includes.
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

// cannotBuy says why the plan's button is not one to press; empty when it is.
func cannotBuy(d Plans, p models.Plan) string {
	switch {
	case !d.StripeConnected:
		return "Billing is not available here, so nothing can be bought."
	case p.Type == models.Team && !d.MayBuyTeam:
		return "An admin of your organization can buy it."
	case p.Type == models.Individual && d.Current.Organization != "":
		return ui.Sentence("Your plan comes from " + d.Current.Organization)
	case running(d.Current) && p.Type == d.Current.Plan.Type && d.Current.EndsAt != nil:
		return fmt.Sprintf("%s stays active until %s. You can buy %s then.", d.Current.Plan.Name, ui.Day(*d.Current.EndsAt), p.Name)
	case running(d.Current) && p.Type == d.Current.Plan.Type && d.Current.Trial:
		return ui.Sentence(fmt.Sprintf("You are trying %s. To switch, cancel it under “Invoices and payment”. "+
			"It stays active until the trial ends; then you can buy %s", d.Current.Plan.Name, p.Name))
	case running(d.Current) && p.Type == d.Current.Plan.Type:
		return ui.Sentence(fmt.Sprintf("You already pay for %s. To switch, cancel it under “Invoices and payment”. It stays active until the paid period ends; then you can buy %s", d.Current.Plan.Name, p.Name))
	}
	return ""
}

// running says that the viewer pays for a plan already. The Billing Portal ends it; it cannot change one that bills usage.
func running(s Subscription) bool {
	return s.Manageable && s.Status != "" && s.Status != models.StatusCanceled
}
