package views

import (
	"fmt"
	"time"

	"github.com/google/uuid"

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

// MemberRow is one member.
type MemberRow struct {
	ID   uuid.UUID
	Name string
	Role models.Role
	// SignedUp is when the member was created.
	SignedUp time.Time
	// Standing is the member's state in the current period. It contains the email.
	Standing models.Standing
	// LastPeriod is the units used in the previous period; nil if that was before sign-up.
	LastPeriod *int64
	// Months are the last six months, oldest first, for the sparkline.
	Months []charts.Month
}

// memberColumn is a column by which the table can be sorted.
type memberColumn struct {
	sort   MemberSort
	label  string
	number bool
}

func memberColumns(billed bool) []memberColumn {
	columns := []memberColumn{
		{SortName, "Name", false}, {SortEmail, "Email", false}, {SortUsed, "Used", true}, {SortIncluded, "Included", true},
		{SortPercent, "Percent used", true}, {SortLevel, "Level", false},
	}
	if billed {
		columns = append(columns, memberColumn{SortOverage, "Overage", true})
	}
	return append(columns, memberColumn{SortLastPeriod, "Last period", true})
}

// lastPage returns the number of pages, at least one.
func (l *MembersList) lastPage() int { return int(max(1, (l.Found+MembersPerPage-1)/MembersPerPage)) }

// membersFound returns how many members the query finds: "37 of 42 people".
func membersFound(q MembersQuery, l MembersList) string {
	if !q.Filtered() {
		return people(l.Total)
	}
	return fmt.Sprintf("%s of %s", models.FormatCount(l.Found), people(l.Total))
}
