package views

import (
	"fmt"

	"tollgate/models"
	"tollgate/views/charts"
	"tollgate/views/ui"
)

// currentPeriod and thisPeriod say which period a list is about.
const (
	currentPeriod = "the current billing period"
	thisPeriod    = "this billing period"
)

// PastOrg is the organization's page about a billing period that has ended.
type PastOrg struct {
	Frame     ui.Frame
	Catalogue *models.Catalogue
	Name      string
	Usage     Widget[models.OrganizationPeriod]
	Days      Widget[charts.Daily]
	Refused   Widget[RefusedMembers]
}

// current returns a path without a period, for a page about the current one.
func current(path string) string { return path }

// during returns a path with the page's period.
func (d PastOrg) during(path string) string {
	return path + "?period=" + models.FormatPeriod(d.Usage.Value.Period)
}

func (d PastOrg) heading() string {
	if d.Usage.Failed != "" {
		return d.Name
	}
	return d.Name + " in " + charts.MonthName(d.Usage.Value.Period)
}

// about names the plan that the most members with usage records had.
func (d PastOrg) about() string {
	if d.Usage.Failed != "" || d.Usage.Value.Plan == "" {
		return ""
	}
	return "Most common plan in this billing period: " + d.Catalogue.PlanOf(d.Usage.Value.Plan).Name
}

func (d PastOrg) links() charts.Links {
	links := charts.Links{Path: "/org"}
	for _, m := range d.Usage.Value.Months {
		if models.FormatPeriod(m.Period) == models.FormatPeriod(d.Usage.Value.Period) {
			links.Selected = models.FormatPeriod(m.Period)
		}
	}
	return links
}

// finding says who used how much.
func (d PastOrg) finding() string {
	u := &d.Usage.Value
	if u.ActiveUsers == 0 {
		return fmt.Sprintf("No usage in this billing period (%s).", members(u.TotalUsers))
	}
	return fmt.Sprintf("Used by %s of %s. This counts current members who had signed up before the period "+
		"ended, or have usage in it. Former members are not counted.",
		models.FormatCount(u.ActiveUsers), members(u.TotalUsers))
}

// limitText compares the spend limit with what the subscription paid for.
func (d PastOrg) limitText() string {
	u := &d.Usage.Value
	return fmt.Sprintf("Spend limit of the organization: %s. Overage that counted toward it: %s.",
		d.Catalogue.FormatMoney(*u.SpendLimitCents), d.Catalogue.FormatMoney(u.Spent.OverageCents))
}
