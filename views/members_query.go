package views

import (
	"net/url"
	"slices"
	"strconv"
	"strings"

	"tollgate/models"
)

// MembersPerPage is the number of members on one page of the table.
const MembersPerPage = 25

var memberSorts = []models.MemberSort{
	models.SortName, models.SortEmail, models.SortUsed, models.SortIncluded,
	models.SortPercent, models.SortLevel, models.SortOverage, models.SortLastPeriod,
}

// maxSearch is the maximum length of a search text in bytes.
const maxSearch = 200

// MembersQuery is the state of the table of members. All of it is in the URL.
type MembersQuery models.MemberQuery

// ParseMembersQuery reads the state from the parameters of a URL. It ignores unknown values, so
// that an old or mistyped URL still shows the table.
func ParseMembersQuery(v url.Values) MembersQuery {
	q := MembersQuery{Search: strings.TrimSpace(v.Get("q")), Sort: models.SortUsed, Descending: true, Page: 1}
	if len(q.Search) > maxSearch {
		q.Search = strings.ToValidUTF8(q.Search[:maxSearch], "")
	}
	if level := models.WarningLevel(v.Get("level")); slices.Contains(models.WarningLevels, level) {
		q.Level = level
	}
	if sort := models.MemberSort(v.Get("sort")); slices.Contains(memberSorts, sort) {
		q.Sort, q.Descending = sort, v.Get("order") == "desc"
	}
	if page, err := strconv.Atoi(v.Get("page")); err == nil && page > 1 {
		q.Page = page
	}
	return q
}

// values returns the parameters of the URL. Defaults are left out.
func (q MembersQuery) values() url.Values {
	v := url.Values{}
	if q.Search != "" {
		v.Set("q", q.Search)
	}
	if q.Level != "" {
		v.Set("level", string(q.Level))
	}
	if !q.defaultOrder() {
		v.Set("sort", string(q.Sort))
		if q.Descending {
			v.Set("order", "desc")
		}
	}
	if q.Past != nil {
		v.Set("period", models.FormatPeriod(*q.Past))
	}
	if q.Page > 1 {
		v.Set("page", strconv.Itoa(q.Page))
	}
	return v
}

// defaultOrder reports whether the table has its default order: most used first.
func (q MembersQuery) defaultOrder() bool { return q.Sort == models.SortUsed && q.Descending }

func address(path string, v url.Values) string {
	if len(v) == 0 {
		return path
	}
	return path + "?" + v.Encode()
}

// URL returns the table's URL in this state.
func (q MembersQuery) URL() string { return address("/org/members", q.values()) }

// CSV returns the URL of a file with the same members in the same order, from all pages.
func (q MembersQuery) CSV() string {
	q.Page = 1
	return address("/org/members.csv", q.values())
}

// OnPage returns the state on another page.
func (q MembersQuery) OnPage(page int) MembersQuery {
	q.Page = page
	return q
}

// By returns the state after a click on the column's header. If the table is already sorted by the
// column, the order is reversed. Otherwise names and emails start at A, and numbers at the largest.
func (q MembersQuery) By(column models.MemberSort) MembersQuery {
	if q.Sort == column {
		q.Descending = !q.Descending
	} else {
		q.Sort, q.Descending = column, column != models.SortName && column != models.SortEmail
	}
	q.Page = 1
	return q
}

// Filtered reports whether the query has a filter.
func (q MembersQuery) Filtered() bool { return q.Search != "" || q.Level != "" }

// ariaSort returns the column's aria-sort; empty if the table is not sorted by the column.
func (q MembersQuery) ariaSort(column models.MemberSort) string {
	switch {
	case q.Sort != column:
		return ""
	case q.Descending:
		return "descending"
	}
	return "ascending"
}
