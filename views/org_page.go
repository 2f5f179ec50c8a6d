package views

import (
	"fmt"
	"strconv"

	"github.com/google/uuid"

	"tollgate/models"
	"tollgate/views/charts"
	"tollgate/views/ui"
)

// Org is the organization's page for its admins.
type Org struct {
	Frame     ui.Frame
	Catalogue *models.Catalogue
	ID        uuid.UUID
	Name      string
	// Plan is the organization's plan, or the free plan without a subscription. Members' plans may
	// differ.
	Plan         models.Plan
	Subscription Subscription
	// Summary has the totals of the current period and its top ten users.
	Summary Widget[models.OrganizationSummary]
	// Cost is the cost of the current period.
	Cost Widget[OrgCost]
	// Days and Months are sums over the members. Included is the sum of the members' limits.
	Days   Widget[charts.Daily]
	Months Widget[[]models.PastPeriod]
	// Refused are the members who were refused in the current period.
	Refused Widget[RefusedMembers]
	// SpendForm and MemberForm are the states of the forms of the spend limit and of the default member
	// limit.
	SpendForm, MemberForm LimitForm
	// Changes are the latest changes of the organization, newest first.
	Changes Widget[[]models.AuditEntry]
}

// OrgPlan names the organization's plan.
func OrgPlan(c *models.Catalogue, o *models.OrganizationSummary) string {
	if !o.HasPlan {
		return "No organization plan"
	}
	return c.PlanOf(o.Plan).Name + " plan"
}

// orgAbout names the plan below the page's heading; empty if it could not be read.
func orgAbout(d Org) string {
	if d.Summary.Failed != "" {
		return ""
	}
	return OrgPlan(d.Catalogue, &d.Summary.Value)
}

// OrgCost is the cost of a period, before tax.
type OrgCost struct {
	// Seats is the subscription's number of seats if Subscribed. Otherwise it is the number of members
	// with usage in the period.
	Seats      int64
	Subscribed bool
	// Overage is the overage of all members so far. People is the number of members who have any.
	Overage models.Overage
	People  int64
	// Forecast is the expected overage at the end of the period; nil early in the period.
	Forecast *models.Overage
}

// seatsLine returns the label of the base price: "Business, 42 seats × $20.00".
func (d Org) seatsLine() string {
	seats := ui.Count(d.Cost.Value.Seats, "seat", "seats")
	return fmt.Sprintf("%s, %s × %s", d.Plan.Name, seats, d.Catalogue.FormatMoney(d.Subscription.basePriceCents()))
}

// baseCents returns the base price of all seats.
func (d Org) baseCents() int64 { return d.Cost.Value.Seats * d.Subscription.basePriceCents() }

func (d Org) overageLine(name string, o models.Overage) string {
	return overageText(d.Catalogue, name, o, d.Summary.Value.OverageRateCents)
}

// showsOverage reports whether overage has its own line. Without a rate, such as during a trial, it
// has one only if there is overage from before.
func (d Org) showsOverage() bool {
	return d.Summary.Value.OverageRateCents > 0 || d.Cost.Value.Overage.Units > 0
}

// othersNote says which overage is only on the invoice; empty if the plan is not at Stripe or the page
// shows no overage.
func (d Org) othersNote() string {
	if !d.Subscription.atStripe() || !d.showsOverage() {
		return ""
	}
	return "If people left in this period, the invoice also has their overage up to then, even if they have rejoined. "
}

// moreOverage returns the expected overage from now until the end of the period.
func (c OrgCost) moreOverage() models.Overage {
	return models.Overage{Units: c.Forecast.Units - c.Overage.Units, Cents: c.Forecast.Cents - c.Overage.Cents}
}

// seatsText says where the number of seats comes from.
func (c OrgCost) seatsText() string {
	if c.Subscribed {
		return "The number of seats comes from the subscription."
	}
	return "Each member with usage in this billing period counts as a seat."
}

func orgFinding(s models.OrganizationSummary) string {
	switch {
	case s.TotalUsers == 0:
		return "This organization has no members yet."
	case s.ActiveUsers == 0:
		return fmt.Sprintf("No usage in this billing period yet (%s).", members(s.TotalUsers))
	}
	return fmt.Sprintf("Used by %s of %s in this billing period.", models.FormatCount(s.ActiveUsers), members(s.TotalUsers))
}

func members(n int64) string { return ui.Count(n, "member", "members") }

// share returns part as a percentage of whole, with one decimal.
func share(part, whole int64) string {
	if whole <= 0 {
		return "0%"
	}
	return strconv.FormatFloat(float64(part)*100/float64(whole), 'f', 1, 64) + "%"
}

// displayName returns the person's name, or the email address if there is no name.
func displayName(name, email string) string {
	if name != "" {
		return name
	}
	return email
}
