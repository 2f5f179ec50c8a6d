package views

import (
	"fmt"
	"time"

	"github.com/google/uuid"

	"tollgate/models"
	"tollgate/views/charts"
	"tollgate/views/ui"
)

// Members is a page of the organization's people, those who used nothing among them.
type Members struct {
	Frame     ui.Frame
	Catalogue *models.Catalogue
	// Organization is its name.
	Organization string
	Query        MembersQuery
	List         Widget[MembersList]
	// Billed says that a member's overage has a price.
	Billed bool
}

// MembersList is what a query finds.
type MembersList struct {
	// Rows are those of the page.
	Rows []MemberRow
	// Found is how many people the query finds on all its pages, Total how many belong to the organization.
	Found, Total int64
}

// MemberRow is one person.
type MemberRow struct {
	ID   uuid.UUID
	Name string
	Role models.Role
	// SignedUp is when the person became known.
	SignedUp time.Time
	// Standing is that of the current period; it has the email.
	Standing models.Standing
	// LastPeriod is the units of the period before; nil before sign-up.
	LastPeriod *int64
	// Months are the last six, oldest first, for the sparkline.
	Months []charts.Month
}

// memberColumn is a column of the table that it can be sorted by.
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

// lastPage is how many pages the list has; at least one.
func (l *MembersList) lastPage() int { return int(max(1, (l.Found+MembersPerPage-1)/MembersPerPage)) }

// membersFound says how many of all are shown: "37 of 42 people".
func membersFound(q MembersQuery, l MembersList) string {
	if !q.Filtered() {
		return people(l.Total)
	}
	return fmt.Sprintf("%s of %s", models.FormatCount(l.Found), people(l.Total))
}
