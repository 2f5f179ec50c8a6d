package web

import (
	"context"
	"encoding/csv"
	"iter"
	"strings"
	"testing"

	"golang.org/x/net/html"

	"tollgate/models"
)

// document returns the page as a browser parses it.
func (p page) document() *html.Node {
	d, err := html.Parse(strings.NewReader(p.body))
	if err != nil {
		panic(err) // cannot happen: the parser accepts any page
	}
	return d
}

// main returns the text of the page's content, or of the whole body if it has no main element.
func (p page) main() string {
	if m := p.find("main", "", ""); m != nil {
		return textOf(m)
	}
	return p.body
}

// find returns the first element with the tag and the attribute; nil if there is none. With an
// empty name, any attributes match.
func (p page) find(tag, name, value string) *html.Node { return find(p.document(), tag, name, value) }

func find(of *html.Node, tag, name, value string) *html.Node {
	for n := range elements(of, tag) {
		if name == "" || attribute(n, name) == value {
			return n
		}
	}
	return nil
}

// elements yields the elements with a tag below a node, in order. The node may be nil.
func elements(of *html.Node, tag string) iter.Seq[*html.Node] {
	return func(yield func(*html.Node) bool) {
		if of == nil {
			return
		}
		for n := range of.Descendants() {
			if n.Type == html.ElementNode && n.Data == tag && !yield(n) {
				return
			}
		}
	}
}

func attribute(n *html.Node, name string) string {
	for _, a := range n.Attr {
		if a.Key == name {
			return a.Val
		}
	}
	return ""
}

// textOf returns the text of a node with one space between words.
func textOf(n *html.Node) string {
	if n == nil {
		return ""
	}
	var b strings.Builder
	for d := range n.Descendants() {
		if d.Type == html.TextNode {
			b.WriteString(d.Data + " ")
		}
	}
	return strings.Join(strings.Fields(b.String()), " ")
}

// table returns the text of the cells of the first table below a node, starting with its header
// row.
func table(of *html.Node) (rows [][]string) {
	t := find(of, "table", "", "")
	for tr := range elements(t, "tr") {
		var row []string
		for cell := range tr.ChildNodes() {
			if cell.Type == html.ElementNode && (cell.Data == "td" || cell.Data == "th") {
				row = append(row, textOf(cell))
			}
		}
		rows = append(rows, row)
	}
	return rows
}

// section returns the section under the heading with the ID.
func (p page) section(id string) *html.Node { return p.find("section", "aria-labelledby", id) }

// csv returns the rows of a file.
func (p page) csv(t testing.TB) [][]string {
	t.Helper()
	if got := p.header.Get("Content-Type"); p.status != 200 || got != "text/csv; charset=utf-8" {
		t.Fatalf("the file is %s, %q: %s", p.kind(), got, p.main())
	}
	body, marked := strings.CutPrefix(p.body, "\ufeff")
	if !marked || strings.Count(body, "\n") != strings.Count(body, "\r\n") || !strings.HasSuffix(body, "\r\n") {
		t.Errorf("the file has no byte order mark, or lines that do not end with CRLF: %q", p.body)
	}
	r := csv.NewReader(strings.NewReader(body))
	rows, err := r.ReadAll()
	must(t, err)
	return rows
}

// person creates a person, in a Slack team if one is given.
func (f *fixture) person(email, team string, role models.Role, operator bool) models.User {
	f.t.Helper()
	ctx := context.Background()
	if team != "" {
		user := "U" + strings.ToUpper(strings.NewReplacer("@", "", ".", "", "-", "", "+", "").Replace(email))
		_, err := models.LinkPeople(ctx, f.db, f.clock(), []models.Link{{Email: email, Slack: models.SlackIdentity{TeamID: team, UserID: user}}})
		must(f.t, err)
	}
	u, err := models.SetUser(ctx, f.db, f.clock(), email, models.UserChange{Role: &role, Operator: &operator})
	must(f.t, err)
	return u
}
