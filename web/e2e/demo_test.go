//go:build linux

package e2e_test

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const defaultListen = "127.0.0.1:8080"

// The demo uses another port if its own is in use, and removes its database at the end.
func TestDemo(t *testing.T) {
	taken, err := new(net.ListenConfig).Listen(t.Context(), "tcp", defaultListen)
	if err == nil { // otherwise, another program uses it already
		defer func() { _ = taken.Close() }()
	}
	s := start(t, "demo")
	if strings.HasSuffix(s.url, ":8080") {
		t.Fatalf("listens on %s", s.url)
	}
	var printed strings.Builder
	for !strings.Contains(printed.String(), "/usage\n") {
		line, err := s.out.ReadString('\n')
		if err != nil {
			t.Fatalf("%v after %q: %s", err, printed.String(), s.stderr)
		}
		printed.WriteString(line)
	}
	if strings.Count(printed.String(), "\ncurl ") != 3 || !strings.Contains(printed.String(), s.url+"/docs") ||
		!strings.Contains(printed.String(), "?next=/org\n") {
		t.Errorf("printed %s", printed.String())
	}
	_, another, _ := strings.Cut(printed.String(), "\nTo get another link, run ")
	another, _, _ = strings.Cut(another, "\n")
	if words := strings.Fields(strings.ReplaceAll(another, "'", "")); len(words) < 2 {
		t.Errorf("the command for another link is %q", another)
	} else if r := runIt(t, nil, words[1:]...); r.status != 0 || !strings.HasPrefix(r.stdout, s.url+"/sign-in/") {
		t.Errorf("%s: %+v", another, r)
	}
	folder := func() []string {
		found, err := filepath.Glob(filepath.Join(s.Dir, "tollgate-demo-*"))
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	if len(folder()) != 1 {
		t.Errorf("temporary folders %q", folder())
	}
	status, want := s.stop(t, os.Interrupt), defaultListen+" is in use, so the demo listens on 127.0.0.1:"
	if status != 0 || !strings.HasPrefix(s.stderr.String(), want) {
		t.Errorf("status %d, %s", status, s.stderr)
	}
	if len(folder()) != 0 {
		t.Errorf("left behind: %q", folder())
	}
}

// A second demo on one database continues with the first one's people.
func TestDemoAgain(t *testing.T) {
	s := shell{t, sqliteDatabase(t)}
	var lists []string
	for i := range 2 {
		d := start(t, "demo", "--database", s.database, "--listen", "127.0.0.1:0")
		d.get(t, d.url+"/readyz")
		status := d.stop(t, os.Interrupt)
		if status != 0 || strings.Contains(d.stderr.String(), "already has the demo's people and history") != (i == 1) {
			t.Errorf("run %d: status %d, %s", i+1, status, d.stderr)
		}
		lists = append(lists, s.ok("organization", "list"))
	}
	if lists[0] != lists[1] || !strings.Contains(lists[0], " 42\n") {
		t.Errorf("organizations\n%s, then\n%s", lists[0], lists[1])
	}
}

// The demo adds nothing to a database with other data, whether a flag, a variable or a file names
// it.
func TestDemoNeedsAnEmptyDatabase(t *testing.T) {
	s := shell{t, sqliteDatabase(t)}
	s.ok("organization", "create", "Real")
	s.fails(1, "the database is not empty; demo needs an empty one", "demo", "--listen", "127.0.0.1:0")
	file := filepath.Join(t.TempDir(), "address")
	if err := os.WriteFile(file, []byte(s.database+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := runIt(t, []string{"DATABASE_URL_FILE=" + file}, "demo", "--listen", "127.0.0.1:0")
	if r.status != 1 || !strings.Contains(r.stderr, "demo needs an empty one") {
		t.Errorf("named by a file: %+v", r)
	}
	if list := s.ok("organization", "list"); strings.Count(list, "\n") != 2 {
		t.Errorf("organizations\n%s", list)
	}
}
