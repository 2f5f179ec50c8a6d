package views

import (
	"fmt"
	"strconv"

	"tollgate/models"
	"tollgate/views/charts"
	"tollgate/views/ui"
)

// Org is what an admin sees of the organization.
type Org struct {
	Frame     ui.Frame
	Catalogue *models.Catalogue
	Name      string
	// Plan is the organization's own; the free one when it has no subscription. Its people's may differ.
	Plan         models.Plan
	Subscription Subscription
	// Summary is the current period's: totals and the ten who used most.
	Summary Widget[models.OrganizationSummary]
	// Cost is what the current period costs.
	Cost Widget[OrgCost]
	// Days and Months are sums over the members; what is included is the sum of their limits.
	Days   Widget[charts.Daily]
	Months Widget[[]charts.Month]
	// StripeConnected says that overage is billed.
	StripeConnected bool
}

// OrgCost is what a period costs, before tax.
type OrgCost struct {
	// Seats is the subscription's number of seats if Subscribed, and otherwise the number of members with usage in the period.
	Seats      int64
	Subscribed bool
	// Overage is all members' so far, People the number of members who have any.
	Overage models.Overage
	People  int64
	// Forecast is the overage at the end of the period; nil early in it.
	Forecast *models.Overage
}

// seatsLine names the base price: "Business, 42 seats × $20.00".
func (d Org) seatsLine() string {
	return fmt.Sprintf("%s, %s × %s", d.Plan.Name, ui.Count(d.Cost.Value.Seats, "seat", "seats"), d.Catalogue.FormatMoney(d.Subscription.basePriceCents()))
}

// baseCents is the base price of all seats.
func (d Org) baseCents() int64 { return d.Cost.Value.Seats * d.Subscription.basePriceCents() }

func (d Org) overageLine(name string, o models.Overage) string {
	return overageText(d.Catalogue, name, o, d.Plan.OverageRateCents)
}

// showsOverage says whether overage has a line of its own. A trial usually has none, and the plan's rate does not apply to it.
func (d Org) showsOverage() bool {
	return d.Plan.OverageRateCents > 0 && (!d.Subscription.Trial || d.Cost.Value.Overage.Units > 0)
}

// toCome is the overage between now and the end of the period, at the members' pace.
func (c OrgCost) toCome() models.Overage {
	return models.Overage{Units: c.Forecast.Units - c.Overage.Units, Cents: c.Forecast.Cents - c.Overage.Cents}
}

// seatsText says which number the seats are.
func (c OrgCost) seatsText() string {
	if c.Subscribed {
		return "The number of seats is that of the subscription."
	}
	return "A seat is a member with usage in this billing period."
}

func orgFinding(s models.OrganizationSummary) string {
	switch {
	case s.TotalUsers == 0:
		return "This organization has no members yet."
	case s.ActiveUsers == 0:
		return fmt.Sprintf("By none of %s in this billing period.", people(s.TotalUsers))
	}
	return fmt.Sprintf("By %s of %s in this billing period.", models.FormatCount(s.ActiveUsers), people(s.TotalUsers))
}

func people(n int64) string { return ui.Count(n, "person", "people") }

// share is a person's part of the total in percent, with one decimal.
func share(part, whole int64) string {
	if whole <= 0 {
		return "0%"
	}
	return strconv.FormatFloat(float64(part)*100/float64(whole), 'f', 1, 64) + "%"
}

// called is a person's name, or the address of somebody who has none.
func called(name, email string) string {
	if name != "" {
		return name
	}
	return email
}
