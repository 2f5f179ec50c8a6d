// Command vuln runs the govulncheck command in its arguments, and fails on every finding that is
// not excepted.
//
//	go run ./web/vuln go run golang.org/x/vuln/cmd/govulncheck@v1.9.0 -format json ./...
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"slices"

	"golang.org/x/mod/semver"
)

// exceptions has the findings that do not fail the check, with the first version of the module that
// is safe.
//
// Echo 4.16.3 fixes GO-2026-6872 (a forged X-Forwarded-For header chooses the client address) and
// GO-2026-6875 (the proxy middleware passes on a forged X-Real-IP header); see its CHANGELOG. The
// database does not list the fixed version. TestOnlyATrustedProxyNamesTheClient and
// TestRealIPHeaderIsIgnored in package web show that neither attack works here. Remove an exception
// when `make vuln` says that it is no longer needed.
var exceptions = map[string]exception{
	"GO-2026-6872": {module: "github.com/labstack/echo/v4", fixed: "v4.16.3"},
	"GO-2026-6875": {module: "github.com/labstack/echo/v4", fixed: "v4.16.3"},
}

type exception struct{ module, fixed string }

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "vuln:", err)
		os.Exit(1)
	}
}

func run(command []string, out io.Writer) error {
	if len(command) == 0 {
		return errors.New("no command given; pass the govulncheck command with -format json")
	}
	check := exec.Command(command[0], command[1:]...) //nolint:gosec,noctx // the command is from the Makefile, which may interrupt it
	check.Stderr = os.Stderr
	report, err := check.Output()
	if err != nil {
		return fmt.Errorf("run govulncheck: %w", err)
	}
	return judge(bytes.NewReader(report), out)
}

// message is one message of govulncheck's JSON stream.
// Source: https://pkg.go.dev/golang.org/x/vuln/internal/govulncheck#Message
type message struct {
	Config  *struct{} `json:"config"`
	SBOM    *struct{} `json:"SBOM"`
	OSV     *osv      `json:"osv"`
	Finding *finding  `json:"finding"`
}

type osv struct {
	ID      string `json:"id"`
	Summary string `json:"summary"`
}

type finding struct {
	OSV   string `json:"osv"`
	Fixed string `json:"fixed_version"`
	Trace []struct {
		Module   string `json:"module"`
		Version  string `json:"version"`
		Package  string `json:"package"`
		Function string `json:"function"`
	} `json:"trace"`
}

func (f *finding) excepted() bool {
	e, ok := exceptions[f.OSV]
	return ok && len(f.Trace) > 0 && f.Trace[0].Module == e.module && semver.Compare(f.Trace[0].Version, e.fixed) >= 0
}

// judge prints the findings of a report. It returns an error if one of them is not excepted, or if
// the report is incomplete.
func judge(report io.Reader, out io.Writer) error {
	summaries, bad, excepted := map[string]string{}, map[string]*finding{}, map[string]bool{}
	scanned := false
	for d := json.NewDecoder(report); ; {
		var m message
		if err := d.Decode(&m); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return fmt.Errorf("read the report: %w", err)
		}
		scanned = scanned || m.SBOM != nil
		switch f := m.Finding; {
		case m.OSV != nil:
			summaries[m.OSV.ID] = m.OSV.Summary
		case f == nil:
		case f.excepted():
			excepted[f.OSV] = true
		default:
			// The last finding of a vulnerability is the most precise one: module, package, function.
			bad[f.OSV] = f
		}
	}
	if !scanned {
		return errors.New("the report is incomplete: it lists no modules")
	}
	for _, id := range slices.Sorted(maps.Keys(exceptions)) {
		if excepted[id] {
			_, _ = fmt.Fprintf(out, "%s: excepted, fixed in %s %s\n", id, exceptions[id].module, exceptions[id].fixed)
		} else if bad[id] == nil {
			_, _ = fmt.Fprintf(out, "%s: not found; remove its exception\n", id)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(bad)) {
		_, _ = fmt.Fprintf(out, "%s: %s\n", id, summaries[id])
		if f := bad[id]; len(f.Trace) > 0 {
			_, _ = fmt.Fprintf(out, "    in %s %s %s, fixed in %q\n", f.Trace[0].Module, f.Trace[0].Version, f.Trace[0].Function, f.Fixed)
		}
	}
	if len(bad) > 0 {
		return fmt.Errorf("vulnerabilities found: %d", len(bad))
	}
	_, _ = fmt.Fprintln(out, "no other vulnerabilities found")
	return nil
}
