//go:build linux

package e2e_test

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"tollgate/models/modelstest"
)

// writeReliability makes TestFaults and TestRollingRestart write what they measured: `make soak`
// does this.
var writeReliability = flag.Bool("write-reliability", false, "write the measurements of docs/reliability.md")

const reliabilityPage = "../../docs/reliability.md"

// replacePart replaces a generated part of the page. Comments in the page mark its begin and end.
func replacePart(t *testing.T, name, text string) {
	t.Helper()
	made.Lock()
	defer made.Unlock()
	before, _, after := pagePart(t, name)
	must(t, os.WriteFile(reliabilityPage, []byte(before+text+after), 0o644))
}

// pagePart returns a generated part of the page, and what is before and after it.
func pagePart(t *testing.T, name string) (before, part, after string) {
	t.Helper()
	page, err := os.ReadFile(reliabilityPage)
	must(t, err)
	begin, end := "<!-- begin "+name+" -->\n", "<!-- end "+name+" -->\n"
	i, j := strings.Index(string(page), begin), strings.Index(string(page), end)
	if i < 0 || j < i {
		t.Fatalf("docs/reliability.md has no part %q", name)
	}
	i += len(begin)
	return string(page[:i]), string(page[i:j]), string(page[j:])
}

// soakedFailure is how long a failure lasts with -soak.
func soakedFailure() time.Duration { return min(max(*soak/soakPart, shortFailure), longFailure) }

// where says when, where and on what a part was measured.
func where(t *testing.T) string {
	t.Helper()
	facts, err := modelstest.Machine()
	must(t, err)
	busy, err := modelstest.BusyShare(t.Context())
	must(t, err)
	text := fmt.Sprintf("Measured on %s at commit %s, with the processor %s (%s cores, shared by clients, servers and databases), "+
		"%s of memory, %s and Go %s. In the one second after the run, other programs used %.0f%% of the cores.",
		time.Now().UTC().Format(time.DateOnly),
		modelstest.Revision(t.Context(), "../..", "docs/reliability.md"),
		facts.Processor, facts.Cores, facts.Memory, facts.Kernel, strings.TrimPrefix(runtime.Version(), "go"), busy*100)
	return "\n" + modelstest.Wrap("", text) + "\n\n"
}

// writeOutcomes writes the tables of the matrix.
func writeOutcomes(t *testing.T, outcomes map[string]outcome) {
	t.Helper()
	var text strings.Builder
	text.WriteString(where(t))
	fmt.Fprintf(&text, "Each failure lasted %s, or longer, until the calls showed its effect.\n\n", soakedFailure())
	for i, kind := range []string{"SQLite", "PostgreSQL"} {
		if i > 0 {
			text.WriteString("\n")
		}
		fmt.Fprintf(&text, "### %s\n\n| failure | what happens | answered | 503 | no answer | recovery | memory before → after |"+
			" descriptors before → after |\n|---|---|---|---|---|---|---|---|\n", kind)
		for _, f := range failures() {
			fmt.Fprintf(&text, "| %s | %s |", f.name, f.on(kind).does)
			o, tried := outcomes[f.name+kind]
			if !tried {
				text.WriteString(" | | | | | |\n")
				continue
			}
			fmt.Fprintf(&text, " %d | %d | %d | %s | %d → %d MiB | %d → %d |\n", o.during.answered, o.during.refused, o.during.failed,
				short(o.recovery), o.before.memory>>20, o.after.memory>>20, o.before.descriptors, o.after.descriptors)
		}
	}
	replacePart(t, "failures", text.String()+"\n")
}

// writeRolling writes the table of rolling restarts.
func writeRolling(t *testing.T, rows [][]string) {
	t.Helper()
	text := where(t) + "| proxy | calls/s | answered | failed | p50 | p99 | slowest |\n|---|---|---|---|---|---|---|\n"
	for _, row := range rows {
		text += "| " + strings.Join(row, " | ") + " |\n"
	}
	replacePart(t, "rolling restart", text+"\n")
}

// short formats a duration for the tables.
func short(d time.Duration) string {
	if d < 10*time.Millisecond {
		return fmt.Sprintf("%.1f ms", d.Seconds()*1000)
	}
	if d < time.Second {
		return fmt.Sprintf("%d ms", d.Milliseconds())
	}
	return fmt.Sprintf("%.1f s", d.Seconds())
}

// The tables of docs/reliability.md have each failure on each database, in the order of the matrix,
// and what it does.
func TestReliabilityPageHasTheMatrix(t *testing.T) {
	_, part, _ := pagePart(t, "failures")
	for _, kind := range []string{"SQLite", "PostgreSQL"} {
		_, table, found := strings.Cut(part, "### "+kind+"\n")
		if !found {
			t.Fatalf("no table for %s", kind)
		}
		table, _, _ = strings.Cut(table, "\n### ")
		var has, want []string
		for line := range strings.Lines(table) {
			if cells := strings.Split(line, " | "); len(cells) > 2 {
				has = append(has, strings.TrimPrefix(cells[0], "| ")+": "+strings.TrimSuffix(cells[1], " |"))
			}
		}
		for _, f := range failures() {
			want = append(want, f.name+": "+f.on(kind).does)
		}
		if has = has[min(1, len(has)):]; !slices.Equal(has, want) {
			t.Errorf("the table for %s has\n%s\nwant\n%s\nRun make soak.", kind, strings.Join(has, "\n"), strings.Join(want, "\n"))
		}
	}
}
