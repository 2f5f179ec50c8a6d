package views

import (
	"fmt"

	"tollgate/models"
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
