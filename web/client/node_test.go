package client_test

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sync"
	"testing"
)

const (
	typescript = "../../clients/typescript"
	example    = "../../examples/bolt"
)

// installed makes sure that the packages of a folder are installed once.
var installed sync.Map

// install installs Node's packages of a folder's package-lock.json, if they are missing or old, and
// compiles the folder.
func install(t *testing.T, dir string) {
	t.Helper()
	once, _ := installed.LoadOrStore(dir, sync.OnceValue(func() error {
		lock, err := os.Stat(filepath.Join(dir, "package-lock.json"))
		if err != nil {
			return err
		}
		// npm writes this file at the end of an installation.
		done, err := os.Stat(filepath.Join(dir, "node_modules", ".package-lock.json"))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err != nil || done.ModTime().Before(lock.ModTime()) {
			if err := run(t, dir, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"); err != nil {
				return err
			}
		}
		return run(t, dir, "npm", "run", "build")
	}))
	must(t, once.(func() error)())
}

// run runs a program in a folder. Its error has the output.
func run(t *testing.T, dir, name string, args ...string) error {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return errors.Join(err, errors.New(string(out)))
	}
	return nil
}

// node runs the Node tests of a folder, which start servers of their own.
func node(t *testing.T, dir string) {
	t.Helper()
	for _, name := range []string{"node", "npm"} {
		if _, err := exec.LookPath(name); err != nil { // a skipped test would look like one that passed
			t.Fatalf("%v; install it with `make deps`", err)
		}
	}
	install(t, typescript)
	install(t, dir)
	cmd := exec.CommandContext(t.Context(), "npm", "test")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "TOLLGATE_BINARY="+program(t))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("npm test: %v\n%s", err, out)
	}
	for _, summary := range regexp.MustCompile(`(?m)^(# (tests|pass|duration_ms|\d+ ).*|ℹ .*)$`).FindAllString(string(out), -1) {
		t.Log(summary)
	}
}

func TestTypeScriptClient(t *testing.T) {
	t.Parallel()
	node(t, typescript)
}

// The example needs ten seconds, in which its Tollgate is stopped.
func TestBoltExample(t *testing.T) {
	t.Parallel()
	node(t, example)
}
