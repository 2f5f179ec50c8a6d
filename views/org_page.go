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
	// Overage is all the members' in the current period.
	Overage Widget[OrgOverage]
	// Days and Months are sums over the members; what is included is the sum of their limits.
	Days   Widget[charts.Daily]
	Months Widget[[]charts.Month]
	// StripeConnected says that overage is billed.
	StripeConnected bool
}

// OrgOverage is the members' overage of a period.
type OrgOverage struct {
	// Units are beyond the members' plans, Cents their price before tax, People who went beyond.
	Units, Cents, People int64
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
