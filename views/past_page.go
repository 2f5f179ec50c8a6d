package views

import (
	"fmt"
	"slices"

	"tollgate/models"
	"tollgate/views/charts"
	"tollgate/views/ui"
)

// Past is the page about a person's usage in a billing period that has ended.
type Past struct {
	Frame     ui.Frame
	Catalogue *models.Catalogue
	// Title is the page's title, and About the line below it, without the plan.
	Title, About string
	// Path is the page of the current period. Activity and File are the paths of the events and of the
	// CSV file. Section is the entry of the navigation; empty for none.
	Path, Activity, File, Section string
	// Selected is the value of the parameter period.
	Selected string
	Usage    Widget[models.PastUsage]
	// Refusals are those of the period, by reason; approximate.
	Refusals Widget[[]models.RefusalCount]
	// Trial means that a trial covered the period, so that it had no base price.
	Trial bool
}

// during returns a path with the selected period.
func (d Past) during(path string) string { return path + "?period=" + d.Selected }

// heading is the title with the month: "Usage in Oct 2026".
func (d Past) heading() string {
	if d.Usage.Failed != "" {
		return d.Title
	}
	return d.Title + " in " + charts.MonthName(d.Usage.Value.Standing.Period)
}

func (d Past) plan() models.Plan { return d.Catalogue.PlanOf(d.Usage.Value.Standing.Plan) }

func (d Past) about() string {
	if d.Usage.Failed != "" || !d.Usage.Value.Recorded {
		return d.About
	}
	about := d.plan().Name + " plan in this billing period"
	if d.About != "" {
		about = d.About + " · " + about
	}
	return about
}

// Days returns the chart of the days.
func (d Past) Days() *charts.Daily {
	u := &d.Usage.Value
	chart := &charts.Daily{Period: u.Standing.Period, Now: d.Frame.Now, Used: u.Days.Used, Included: u.Standing.Included}
	if u.Days.Known || len(u.Days.Previous) > 0 {
		chart.Previous = u.Days.Previous
	}
	return chart
}

// links returns the links of the months, with the one that has the figures of this page.
func (d Past) links() charts.Links {
	links := charts.Links{Path: d.Path}
	for _, m := range d.Usage.Value.Months {
		if month := models.FormatPeriod(m.Period); month == d.Selected || month == models.FormatPeriod(d.Usage.Value.Standing.Period) {
			links.Selected = month
		}
	}
	return links
}

// money reports whether the months have a cost.
func (d Past) money() bool {
	return slices.ContainsFunc(d.Usage.Value.Months, func(m models.PastPeriod) bool { return billed(d.Catalogue.PlanOf(m.Plan)) })
}

// costNote says how reliable the cost is.
func (d Past) costNote() string {
	const note = "Estimate, before tax; the invoice is authoritative."
	switch {
	case d.Usage.Value.SeveralPayers:
		return "The payer changed in this period. Some or all of this overage is billed to an earlier payer. " + note
	case d.Usage.Value.Standing.Plan == models.FreePlan:
		return earlierPlan + note
	case d.byOrganization() && d.Usage.Value.Standing.Overage == 0:
		return "No overage in this period. The plan came from the organization."
	case d.byOrganization():
		return "Billed to the organization. " + note
	case d.baseCents() > 0:
		return "The base price is the plan's current one. " + note
	}
	return note
}

// byOrganization reports whether an organization paid for the period, or for its last part.
func (d Past) byOrganization() bool { return d.plan().Type == models.Team }

// hasTotal reports whether the page shows what the person paid in total.
func (d Past) hasTotal() bool {
	return billed(d.plan()) && !d.byOrganization() && !d.Usage.Value.SeveralPayers
}

// baseCents returns the base price that the person paid for the period.
func (d Past) baseCents() int64 {
	if d.Trial || d.byOrganization() {
		return 0
	}
	return d.plan().BasePriceCents
}

// baseLine returns the label of the base price.
func (d Past) baseLine() string {
	if d.Trial {
		return d.plan().Name + ", trial"
	}
	return d.plan().Name + ", per month"
}

// limitsThen lists the limits of the person that were in force at the end of the period.
func (d Past) limitsThen() (lines []string) {
	s := d.Usage.Value.Standing
	if s.MemberLimit != nil {
		lines = append(lines, fmt.Sprintf("Member limit: %s.", d.Catalogue.Units(*s.MemberLimit)))
	}
	if s.SpendLimitCents != nil {
		lines = append(lines, fmt.Sprintf("Spend limit: %s.", d.Catalogue.FormatMoney(*s.SpendLimitCents)))
	}
	return lines
}
