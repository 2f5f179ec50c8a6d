package main

import (
	"strings"
	"testing"
)

const start = `{"config": {"scanner_name": "govulncheck"}} {"SBOM": {"modules": []}}
	{"osv": {"id": "GO-2026-1", "summary": "Something else"}}`

// found returns a finding in a required module, as govulncheck reports it.
func found(id, module, version string) string {
	return `{"finding": {"osv": "` + id + `", "trace": [{"module": "` + module + `", "version": "` + version + `"}]}}`
}

func TestJudge(t *testing.T) {
	const echo = "github.com/labstack/echo/v4"
	both := found("GO-2026-6872", echo, "v4.16.4") + found("GO-2026-6875", echo, "v4.16.4")
	for name, test := range map[string]struct {
		report string
		fails  string // a part of the error; empty if it passes
		prints string
	}{
		"nothing":                      {start, "", "GO-2026-6872: not found; remove its exception"},
		"the two exceptions":           {start + both, "", "no other vulnerabilities found"},
		"the fixed version itself":     {start + found("GO-2026-6872", echo, "v4.16.3"), "", "GO-2026-6872: excepted"},
		"an older Echo":                {start + found("GO-2026-6872", echo, "v4.16.2"), "vulnerabilities found: 1", "GO-2026-6872: "},
		"an older Echo, the other one": {start + found("GO-2026-6875", echo, "v4.15.0"), "vulnerabilities found: 1", "GO-2026-6875: "},
		"another module with that ID":  {start + found("GO-2026-6872", "example.com/x", "v4.16.4"), "vulnerabilities found: 1", ""},
		"another finding in Echo": {
			start + both + found("GO-2026-1", echo, "v4.16.4"), "vulnerabilities found: 1", "GO-2026-1: Something else",
		},
		"another finding elsewhere": {
			start + found("GO-2026-1", "golang.org/x/crypto", "v0.58.0"), "vulnerabilities found: 1", "GO-2026-1: Something else",
		},
		"a finding without a trace":    {start + `{"finding": {"osv": "GO-2026-6872"}}`, "vulnerabilities found: 1", ""},
		"no version":                   {start + found("GO-2026-6872", echo, ""), "vulnerabilities found: 1", ""},
		"no report":                    {"", "incomplete", ""},
		"a report that ends too early": {`{"config": {"scanner_name": "govulncheck"}}`, "incomplete", ""},
		"a report that is broken":      {start + `{"finding": {`, "read the report", ""},
		"output that is not a report":  {"No vulnerabilities found.", "read the report", ""},
	} {
		t.Run(name, func(t *testing.T) {
			var out strings.Builder
			err := judge(strings.NewReader(test.report), &out)
			if (err == nil) != (test.fails == "") || err != nil && !strings.Contains(err.Error(), test.fails) {
				t.Errorf("error %v, want %q", err, test.fails)
			}
			if !strings.Contains(out.String(), test.prints) {
				t.Errorf("printed %q, want %q", out.String(), test.prints)
			}
		})
	}
}

func TestRunFailsWithItsCommand(t *testing.T) {
	for _, command := range [][]string{nil, {"false"}, {"true"}, {"no-such-program-as-this"}} {
		if err := run(command, &strings.Builder{}); err == nil {
			t.Errorf("%q passed", command)
		}
	}
}
