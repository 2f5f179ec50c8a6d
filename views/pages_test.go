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

	"tollgate/static"
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
