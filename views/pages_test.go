package views_test

import (
	"flag"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"tollgate/models"
	"tollgate/static"
	"tollgate/views"
	"tollgate/views/viewstest"
)

// glued matches a missing space between a word and an element next to it.
var glued = regexp.MustCompile(`[\pL\pN,.]<(a|code|span|strong|time)\b[^>]*>[\pL\pN]|[\pL\pN]</(a|code|span|strong|time)>[\pL\pN]`)

// out is a folder to which the test writes every page in every state, with the files that they link
// to, so that you can view and measure them.
var out = flag.String("out", "", "the folder to write the pages to")

func TestEveryPageIsCompleteInEveryState(t *testing.T) {
	pages := viewstest.Pages(t)
	for _, name := range slices.Sorted(maps.Keys(pages)) {
		t.Run(name, func(t *testing.T) {
			page := viewstest.Render(t, pages[name])
			for _, part := range []string{"<main id=\"main\"", static.Address("app.css"), static.Address("favicon.svg"), "lang=\"en\""} {
				if !strings.Contains(page, part) {
					t.Errorf("the page has no %s", part)
				}
			}
			if n := strings.Count(page, "<h1"); n != 1 {
				t.Errorf("the page has %d h1 elements, want 1", n)
			}
			for _, part := range []string{"<script", " style=", " onclick=", "%!"} {
				if strings.Contains(page, part) {
					t.Errorf("the page has %q", part)
				}
			}
			for _, words := range glued.FindAllString(page, -1) {
				t.Errorf("the page has %q, without a space", words)
			}
			if first := strings.Index(page, "<a "); !strings.HasPrefix(page[first:], `<a href="#main"`) {
				t.Error("the first link does not skip to the content")
			}
			if *out != "" {
				write(t, name+".html", []byte(page))
			}
		})
	}
	if *out != "" {
		for _, name := range []string{"app.css", "favicon.svg"} {
			content, _, _ := static.Open(static.Address(name))
			write(t, static.Address(name), content)
		}
	}
}

func write(t *testing.T, name string, content []byte) {
	t.Helper()
	file := filepath.Join(*out, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, content, 0o644); err != nil {
		t.Fatal(err)
	}
}

// text returns the page's text without tags and with single spaces.
func text(page string) string {
	var b strings.Builder
	for rest := page; rest != ""; {
		before, after, _ := strings.Cut(rest, "<")
		b.WriteString(before + " ")
		_, rest, _ = strings.Cut(after, ">")
	}
	return strings.Join(strings.Fields(b.String()), " ")
}

func TestNavigationOnlyHasPagesThatOpen(t *testing.T) {
	for _, test := range []struct {
		page string
		want []string
		not  []string
	}{
		{"usage-safe", []string{`href="/usage"`, `action="/sign-out"`}, []string{`href="/org"`, `href="/org/members"`, `href="/ops"`}},
		{"org", []string{`href="/org"`, `href="/org/members"`}, []string{`href="/ops"`}},
		{"ops", []string{`href="/org"`, `href="/ops"`}, nil},
		{"landing", []string{`href="/sign-in"`, `action="/sign-in/slack"`}, []string{`href="/usage"`, `action="/sign-out"`}},
		{"landing-locked", []string{"ask the operator"}, []string{`action="/sign-in/slack"`, "SLACK_"}},
	} {
		page := viewstest.Render(t, viewstest.Pages(t)[test.page])
		for _, want := range test.want {
			if !strings.Contains(page, want) {
				t.Errorf("%s has no %s", test.page, want)
			}
		}
		for _, not := range test.not {
			if strings.Contains(page, not) {
				t.Errorf("%s has %s", test.page, not)
			}
		}
	}
}

func TestErrorPagesNameTheRequest(t *testing.T) {
	pages := viewstest.OtherPages(t)
	for name, want := range map[string]string{
		"error-403": "Alma Teapot, alma.teapot@example.com bruno.paperclip@example.com An admin whose name is not known here (ask in Slack)",
		"error-404": "Page not found", "error-500": "Something went wrong",
		"error-503": "The database is not responding",
	} {
		said := text(viewstest.Render(t, pages[name]))
		if !strings.Contains(said, want) || !strings.Contains(said, "request ID 9f2c41d07be84a55") {
			t.Errorf("%s does not say %q and the request ID:\n%s", name, want, said)
		}
	}
}

// doubled matches a sentence with two ends.
var doubled = regexp.MustCompile(`[.!?…] ?\.( |$)`)

func TestNamesThatEndASentence(t *testing.T) {
	for _, name := range []string{"Example Inc.", "Yahoo!", "Who?"} {
		usage := viewstest.Member(t, "business", 118, 100)
		usage.Subscription.Organization, usage.Subscription.Status = name, models.StatusPastDue
		plans := views.Plans{
			Frame: usage.Frame, Catalogue: usage.Catalogue, StripeConnected: true,
			Current: views.Subscription{Plan: usage.Subscription.Plan, Organization: name},
		}
		for page, said := range map[string]string{
			"usage": text(viewstest.Render(t, views.UsagePage(usage))), "plans": text(viewstest.Render(t, views.PlansPage(plans))),
		} {
			for _, at := range doubled.FindAllStringIndex(said, -1) {
				t.Errorf("%s says %q", page, said[max(0, at[0]-60):at[1]])
			}
			if !strings.Contains(said, name) {
				t.Errorf("%s does not contain the name %s", page, name)
			}
		}
	}
}

func TestEveryTableIsInAScrollRegionWithAHint(t *testing.T) {
	for name, page := range viewstest.Pages(t) {
		drawn := viewstest.Render(t, page)
		tables := strings.Count(drawn, "<table")
		regions := strings.Count(drawn, `<section class="scroll-x" tabindex="0" aria-label=`)
		if hints := strings.Count(drawn, "Scroll sideways for more"); tables != regions || tables != hints {
			t.Errorf("%s has %d tables in %d regions with %d hints", name, tables, regions, hints)
		}
	}
}
