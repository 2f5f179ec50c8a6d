package views

import (
	"net/url"
	"slices"
	"strconv"
	"strings"

	"tollgate/models"
)

// MembersPerPage is how many people a page of the members' table shows.
const MembersPerPage = 25

// MemberSort is a column that the members' table is sorted by.
type MemberSort = models.MemberSort

// The columns, as they stand in the address. Ties are always by email.
const (
	SortName       = models.SortName
	SortEmail      = models.SortEmail
	SortUsed       = models.SortUsed
	SortIncluded   = models.SortIncluded
	SortPercent    = models.SortPercent
	SortLevel      = models.SortLevel
	SortOverage    = models.SortOverage
	SortLastPeriod = models.SortLastPeriod
)

var memberSorts = []MemberSort{SortName, SortEmail, SortUsed, SortIncluded, SortPercent, SortLevel, SortOverage, SortLastPeriod}

// maxSearch is in bytes; nobody is called so.
const maxSearch = 200

// MembersQuery is the state of the members' table. All of it is in the address.
type MembersQuery struct {
	// Search is a part of a name or an email; empty for everybody.
	Search string
	// Level narrows to one warning level; empty for all.
	Level models.WarningLevel
	// Sort and Descending give the order.
	Sort       MemberSort
	Descending bool
	// Page counts from 1.
	Page int
}

// ParseMembersQuery reads the state from an address. What it does not know it takes as not given, so that an old or
// mistyped address still shows the table.
func ParseMembersQuery(v url.Values) MembersQuery {
	q := MembersQuery{Search: strings.TrimSpace(v.Get("q")), Sort: SortUsed, Descending: true, Page: 1}
	if len(q.Search) > maxSearch {
		q.Search = strings.ToValidUTF8(q.Search[:maxSearch], "")
	}
	if level := models.WarningLevel(v.Get("level")); slices.Contains(models.WarningLevels, level) {
		q.Level = level
	}
	if sort := MemberSort(v.Get("sort")); slices.Contains(memberSorts, sort) {
		q.Sort, q.Descending = sort, v.Get("order") == "desc"
	}
	if page, err := strconv.Atoi(v.Get("page")); err == nil && page > 1 {
		q.Page = page
	}
	return q
}

// values is what the address carries; what is not asked for is left out.
func (q MembersQuery) values() url.Values {
	v := url.Values{}
	if q.Search != "" {
		v.Set("q", q.Search)
	}
	if q.Level != "" {
		v.Set("level", string(q.Level))
	}
	if !q.usualOrder() {
		v.Set("sort", string(q.Sort))
		if q.Descending {
			v.Set("order", "desc")
		}
	}
	if q.Page > 1 {
		v.Set("page", strconv.Itoa(q.Page))
	}
	return v
}

// usualOrder says that the table is sorted as it is when nothing is asked for: who used most first.
func (q MembersQuery) usualOrder() bool { return q.Sort == SortUsed && q.Descending }

func address(path string, v url.Values) string {
	if len(v) == 0 {
		return path
	}
	return path + "?" + v.Encode()
}

// URL is the table's address in this state.
func (q MembersQuery) URL() string { return address("/org/members", q.values()) }

// CSV is the address of the same people in the same order as a file, all pages of them.
func (q MembersQuery) CSV() string {
	q.Page = 1
	return address("/org/members.csv", q.values())
}

// OnPage is the state on another page.
func (q MembersQuery) OnPage(page int) MembersQuery {
	q.Page = page
	return q
}

// By is the state when the column's header is followed: the other way round when it is sorted by already, else the way
// that people ask for first, words from A and numbers from the largest.
func (q MembersQuery) By(column MemberSort) MembersQuery {
	if q.Sort == column {
		q.Descending = !q.Descending
	} else {
		q.Sort, q.Descending = column, column != SortName && column != SortEmail
	}
	q.Page = 1
	return q
}

// Filtered says that not everybody is asked for.
func (q MembersQuery) Filtered() bool { return q.Search != "" || q.Level != "" }

// ariaSort is the column's aria-sort; empty on those that the table is not sorted by.
func (q MembersQuery) ariaSort(column MemberSort) string {
	switch {
	case q.Sort != column:
		return ""
	case q.Descending:
		return "descending"
	}
	return "ascending"
}
