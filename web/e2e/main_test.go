//go:build linux

// Package e2e_test tests the program as it is shipped. It builds it once, runs processes with their
// own databases, calls them over HTTP as the app does, and causes failures, such as a killed
// process or database. Then it compares the answers with the database.
//
// Everything uses this machine's loopback addresses, and every process ends with its test.
package e2e_test

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"tollgate/models/modelstest"
)

// soak is how long TestSoak runs its load: `go test ./web/e2e -args -soak=10m`.
var soak = flag.Duration("soak", 0, "how long TestSoak runs; 0 means its short form")

// made has what the tests share. Each part is created for the first test that needs it.
var made struct {
	sync.Mutex
	dir       string // of the program; empty until the program is built
	cluster   *modelstest.Cluster
	databases int
	ports     map[int]bool
}

func TestMain(m *testing.M) {
	if file := os.Getenv(neighborVariable); file != "" {
		beNeighbor(file)
	}
	code := m.Run()
	if made.cluster != nil {
		if err := made.cluster.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = max(code, 1)
		}
	}
	if made.dir != "" {
		if err := os.RemoveAll(made.dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = max(code, 1)
		}
	}
	os.Exit(code)
}

// program builds tollgate for the first test and returns its path. Like a release, it is built
// without C code and without the race detector, even if the tests use it.
func program(t *testing.T) string {
	t.Helper()
	made.Lock()
	defer made.Unlock()
	path := filepath.Join(made.dir, "tollgate")
	if made.dir != "" {
		return path
	}
	root, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "tollgate").Output()
	if err != nil {
		t.Fatalf("find the module: %v", withOutput(err))
	}
	dir, err := os.MkdirTemp("", "tollgate-e2e-")
	if err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(dir, "tollgate")
	build := exec.CommandContext(t.Context(), "go", "build", "-race=false", "-pgo=off", "-o", path, "tollgate")
	build.Dir, build.Env = string(bytes.TrimSpace(root)), append(os.Environ(), "CGO_ENABLED=0")
	if output, err := build.CombinedOutput(); err != nil {
		_ = os.RemoveAll(dir) // it is empty, and the build's error is the one to report
		t.Fatalf("build tollgate: %v\n%s", err, output)
	}
	made.dir = dir
	return path
}

// withOutput adds a program's standard error to its error.
func withOutput(err error) error {
	if exit, ok := err.(*exec.ExitError); ok { //nolint:errorlint // as os/exec returns it
		return fmt.Errorf("%w\n%s", err, exit.Stderr)
	}
	return err
}

// cluster starts a PostgreSQL that is durable, and stops it after the test. It is for tests that
// stop or freeze PostgreSQL. All others share one in memory.
func cluster(t *testing.T) *modelstest.Cluster {
	t.Helper()
	c, err := modelstest.StartPostgres(t.Context(), modelstest.PostgresOptions{Durable: true, MaxConnections: 200})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func sharedCluster(t *testing.T) (*modelstest.Cluster, string) {
	t.Helper()
	made.Lock()
	defer made.Unlock()
	if made.cluster == nil {
		// The cluster outlives the first test.
		c, err := modelstest.StartPostgres(context.WithoutCancel(t.Context()), modelstest.PostgresOptions{MaxConnections: 400})
		if err != nil {
			t.Fatal(err)
		}
		made.cluster = c
	}
	made.databases++
	return made.cluster, fmt.Sprintf("e2e_%d", made.databases)
}
