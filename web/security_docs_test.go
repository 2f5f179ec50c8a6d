package web

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Each threat in docs/security.md names at least one test, and each of these tests exists.
func TestEveryThreatHasATest(t *testing.T) {
	page, err := os.ReadFile("../docs/security.md")
	must(t, err)
	_, table, found := strings.Cut(string(page), "| threat | defense | tests |\n|---|---|---|\n")
	if !found {
		t.Fatal("there is no table of threats")
	}
	tests := map[string]map[string]bool{}
	named := regexp.MustCompile("`([a-z0-9/]+)/(Test[A-Za-z0-9]+)`")
	rows := 0
	for row := range strings.Lines(table) {
		cells := strings.Split(strings.TrimSpace(row), " | ")
		if len(cells) != 3 {
			t.Errorf("%q has %d cells", row, len(cells))
			continue
		}
		rows++
		all := named.FindAllStringSubmatch(cells[2], -1)
		if len(all) == 0 || len(all) != strings.Count(cells[2], "`")/2 {
			t.Errorf("%q names no test, or something else", cells[0])
		}
		for _, name := range all {
			folder := name[1]
			if tests[folder] == nil {
				tests[folder] = testsOf(t, folder)
			}
			if !tests[folder][name[2]] {
				t.Errorf("there is no %s in %s, which %q names", name[2], folder, cells[0])
			}
		}
	}
	if rows < 20 {
		t.Errorf("the table has %d threats", rows)
	}
}

// testsOf returns the names of a package's tests.
func testsOf(t *testing.T, folder string) map[string]bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("..", folder, "*_test.go"))
	must(t, err)
	found := map[string]bool{}
	for _, path := range files {
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		must(t, err)
		for _, d := range file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil {
				found[f.Name.Name] = true
			}
		}
	}
	return found
}
