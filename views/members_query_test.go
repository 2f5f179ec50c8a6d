package views_test

import (
	"net/url"
	"strings"
	"testing"

	"tollgate/models"
	"tollgate/views"
)

func TestMembersQueryRoundTripsThroughURL(t *testing.T) {
	for _, test := range []struct {
		query views.MembersQuery
		want  string
	}{
		{views.MembersQuery{Sort: models.SortUsed, Descending: true, Page: 1}, "/org/members"},
		{views.MembersQuery{Sort: models.SortUsed, Page: 1}, "/org/members?sort=used"},
		{views.MembersQuery{Sort: models.SortName, Page: 3}, "/org/members?page=3&sort=name"},
		{
			views.MembersQuery{Search: "a&b =c", Level: models.Critical, Sort: models.SortLastPeriod, Descending: true, Page: 2},
			"/org/members?level=critical&order=desc&page=2&q=a%26b+%3Dc&sort=last",
		},
	} {
		got := test.query.URL()
		if got != test.want {
			t.Errorf("URL of %+v = %q, want %q", test.query, got, test.want)
		}
		u, err := url.Parse(got)
		if err != nil {
			t.Fatal(err)
		}
		if back := views.ParseMembersQuery(u.Query()); back != test.query {
			t.Errorf("ParseMembersQuery(%q) = %+v, want %+v", got, back, test.query)
		}
	}
}

func TestParseMembersQueryIgnoresUnknownValues(t *testing.T) {
	defaults := views.MembersQuery{Sort: models.SortUsed, Descending: true, Page: 1}
	for _, address := range []string{
		"", "level=angry", "sort=password", "sort=password&order=asc", "page=0", "page=-3", "page=x", "q=+++",
	} {
		v, err := url.ParseQuery(address)
		if err != nil {
			t.Fatal(err)
		}
		if got := views.ParseMembersQuery(v); got != defaults {
			t.Errorf("ParseMembersQuery(%q) = %+v, want %+v", address, got, defaults)
		}
	}
	if got := views.ParseMembersQuery(url.Values{"q": {strings.Repeat("ä", 300)}}).Search; len(got) != 200 {
		t.Errorf("a long search has %d bytes, want 200", len(got))
	}
}

func TestMembersQuerySteps(t *testing.T) {
	q := views.MembersQuery{Search: "ada", Sort: models.SortUsed, Descending: true, Page: 4}
	for _, test := range []struct{ name, got, want string }{
		{"the sorted column is reversed", q.By(models.SortUsed).URL(), "/org/members?q=ada&sort=used"},
		{"names and emails start at A", q.By(models.SortEmail).URL(), "/org/members?q=ada&sort=email"},
		{"numbers start at the largest", q.By(models.SortPercent).URL(), "/org/members?order=desc&q=ada&sort=percent"},
		{"the file has all pages", q.CSV(), "/org/members.csv?q=ada"},
		{"the next page keeps search and order", q.OnPage(5).URL(), "/org/members?page=5&q=ada"},
	} {
		if test.got != test.want {
			t.Errorf("%s: %q, want %q", test.name, test.got, test.want)
		}
	}
}
