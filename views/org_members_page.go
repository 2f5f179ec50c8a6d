package views

import (
	"fmt"

	"tollgate/models"
	"tollgate/views/charts"
	"tollgate/views/ui"
)

// Members is one page of the organization's members, including those without usage.
type Members struct {
	Frame     ui.Frame
	Catalogue *models.Catalogue
	// Organization is the organization's name.
	Organization string
	Query        MembersQuery
	List         Widget[MembersList]
	// Billed means that members' overage has a price.
	Billed bool
}

// MembersList is the result of a query.
type MembersList struct {
	// Rows are the members on the current page.
	Rows []MemberRow
	// Found is the number of members on all pages of the result. Total is the number of members of the
	// organization.
	Found, Total int64
}

// MemberRow is one member with the last six months, oldest first, for the sparkline.
type MemberRow struct {
	models.MemberUsage
	Months []models.PastPeriod
}

// heading is the page's title: "Members in Oct 2026" for a past period.
func (d Members) heading() string {
	if d.Query.Past == nil {
		return "Members"
	}
	return "Members in " + charts.MonthName(*d.Query.Past)
}

// about is the line below the title.
func (d Members) about() string {
	if d.Query.Past == nil {
		return d.Organization
	}
	return d.Organization + " · " + ui.Span(*d.Query.Past)
}

// memberURL is the page of a member in the same period.
func (d Members) memberURL(row MemberRow) string {
	path := "/org/members/" + row.ID.String()
	if d.Query.Past != nil {
		path += "?period=" + models.FormatPeriod(*d.Query.Past)
	}
	return path
}

// ofPlan returns a figure that depends on the plan; "—" in a past period without a record, which has
// no plan.
func (r MemberRow) ofPlan(figure string) string {
	if r.Standing.Plan == "" {
		return "—"
	}
	return figure
}

// memberColumn is a column by which the table can be sorted.
type memberColumn struct {
	sort   models.MemberSort
	label  string
	number bool
}

func memberColumns(billed bool) []memberColumn {
	columns := []memberColumn{
		{models.SortName, "Name", false}, {models.SortEmail, "Email", false}, {models.SortUsed, "Used", true},
		{models.SortIncluded, "Included", true},
		{models.SortPercent, "Percent used", true}, {models.SortLevel, "Level", false},
	}
	if billed {
		columns = append(columns, memberColumn{models.SortOverage, "Overage", true})
	}
	return append(columns, memberColumn{models.SortLastPeriod, "Previous period", true})
}

// lastPage returns the number of pages, at least one.
func (l *MembersList) lastPage() int { return int(max(1, (l.Found+MembersPerPage-1)/MembersPerPage)) }

// membersFound returns how many members the query finds: "37 of 42 members".
func membersFound(q MembersQuery, l MembersList) string {
	if !q.Filtered() {
		return members(l.Total)
	}
	return fmt.Sprintf("%s of %s", models.FormatCount(l.Found), members(l.Total))
}
