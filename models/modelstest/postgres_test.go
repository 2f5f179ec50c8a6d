package modelstest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"
)

// orphanVariable makes the test binary a process that starts a cluster and waits to be killed.
const orphanVariable = "TOLLGATE_TEST_ORPHAN"

func TestMain(m *testing.M) {
	if os.Getenv(orphanVariable) != "" {
		orphan()
	}
	run(m, nil)
}

func TestClusterLifecycle(t *testing.T) {
	ctx := t.Context()
	c, err := StartPostgres(ctx, PostgresOptions{
		Durable:        true,
		MaxConnections: 37,
		Settings:       map[string]string{"work_mem": "5MB"},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
	})

	for _, name := range []string{"one", `another "one"`} {
		if err := c.CreateDatabase(ctx, name); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.CreateDatabase(ctx, "one"); err == nil {
		t.Error("a database was created twice")
	}
	query[string](t, c.URL("one"), "CREATE TABLE things (name text)")
	query[string](t, c.URL("one"), "INSERT INTO things VALUES ('stored')")
	if got := query[*string](t, c.URL(`another "one"`), "SELECT to_regclass('things')::text"); got[0] != nil {
		t.Error("the second database has the first one's table")
	}
	for setting, want := range map[string]string{
		"fsync": "on", "full_page_writes": "on", "synchronous_commit": "on",
		"max_connections": "37", "work_mem": "5MB", "TimeZone": "UTC", "server_encoding": "UTF8",
	} {
		if got := query[string](t, c.URL("one"), "SHOW "+setting); got[0] != want {
			t.Errorf("%s = %s, want %s", setting, got[0], want)
		}
	}
	if err := c.Restart(ctx); err == nil {
		t.Error("a running server was started")
	}

	url := c.URL("one")
	for _, end := range []struct {
		name string
		stop func() error
	}{{"Kill", c.Kill}, {"StopKeep", c.StopKeep}} {
		processes := running(t, c)
		if err := end.stop(); err != nil {
			t.Fatalf("%s: %v", end.name, err)
		}
		wantGone(t, processes)
		if conn, err := pgx.Connect(ctx, url); err == nil {
			t.Errorf("a connection was accepted after %s", end.name)
			_ = conn.Close(ctx)
		}
		if err := end.stop(); err != nil {
			t.Errorf("%s again: %v", end.name, err)
		}
		if err := c.Restart(ctx); err != nil {
			t.Fatalf("after %s: %v", end.name, err)
		}
		if got := query[string](t, url, "SELECT name FROM things"); len(got) != 1 || got[0] != "stored" {
			t.Errorf("after %s and Restart, things has %q, want the stored row", end.name, got)
		}
	}

	processes := running(t, c)
	if err := c.Stop(); err != nil {
		t.Fatal(err)
	}
	wantGone(t, processes)
	if _, err := os.Stat(c.dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after Stop, its folder still exists: %v", err)
	}
	if err := c.Stop(); err != nil {
		t.Errorf("Stop again: %v", err)
	}
}

func TestStopAfterKillRemovesTheFolder(t *testing.T) {
	c, err := StartPostgres(t.Context(), PostgresOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(c.Kill(), c.Stop()); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(c.dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("its folder still exists: %v", err)
	}
}

func TestFailedStartShowsTheLogAndLeavesNothing(t *testing.T) {
	t.Setenv("TMPDIR", reachable(t))
	_, err := StartPostgres(t.Context(), PostgresOptions{Settings: map[string]string{"no_such_setting": "1"}})
	if err == nil || !strings.Contains(err.Error(), `unrecognized configuration parameter "no_such_setting"`) {
		t.Errorf("error = %v; want the server's message", err)
	}
	wantEmpty(t, os.TempDir())
}

func TestStartEndsWithItsContext(t *testing.T) {
	t.Setenv("TMPDIR", reachable(t))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := StartPostgres(ctx, PostgresOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("error = %v, want %v", err, context.Canceled)
	}
	wantEmpty(t, os.TempDir())
}

func TestServerThatEndedUnexpectedlyIsReported(t *testing.T) {
	c, err := StartPostgres(t.Context(), PostgresOptions{})
	if err != nil {
		t.Fatal(err)
	}
	// As an operator would stop it, not with our own methods.
	if err := c.server.process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	<-c.server.exited
	if err := c.Stop(); err == nil || !strings.Contains(err.Error(), "ended unexpectedly") {
		t.Errorf("Stop = %v, want an error that the server had ended unexpectedly", err)
	}
	if _, err := os.Stat(c.dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("its folder still exists: %v", err)
	}
}

func TestFindPrograms(t *testing.T) {
	install := func(t *testing.T, bin string) {
		t.Helper()
		if err := os.MkdirAll(bin, 0o755); err != nil {
			t.Fatal(err)
		}
		for _, program := range []string{"initdb", "postgres"} {
			if err := os.WriteFile(filepath.Join(bin, program), []byte("#!/bin/sh\n"), 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Run("missing", func(t *testing.T) {
		t.Setenv("PATH", t.TempDir())
		for _, debian := range []string{t.TempDir(), filepath.Join(t.TempDir(), "nothing")} {
			if _, err := findPrograms(debian); err == nil || !strings.Contains(err.Error(), "apt-get install postgresql") {
				t.Errorf("error = %v, want the package to install", err)
			}
		}
	})
	t.Run("newest of Debian's versions", func(t *testing.T) {
		t.Setenv("PATH", t.TempDir())
		debian := t.TempDir()
		for _, version := range []string{"9", "15", "common"} {
			install(t, filepath.Join(debian, version, "bin"))
		}
		if err := os.MkdirAll(filepath.Join(debian, "17", "bin"), 0o755); err != nil { // only a client
			t.Fatal(err)
		}
		if got, err := findPrograms(debian); err != nil || got != filepath.Join(debian, "15", "bin") {
			t.Errorf("findPrograms = %q, %v; want 15's", got, err)
		}
	})
	t.Run("PATH before Debian's folder", func(t *testing.T) {
		bin, debian := t.TempDir(), t.TempDir()
		t.Setenv("PATH", bin)
		install(t, bin)
		install(t, filepath.Join(debian, "15", "bin"))
		if got, err := findPrograms(debian); err != nil || got != bin {
			t.Errorf("findPrograms = %q, %v; want %q", got, err, bin)
		}
	})
}

func TestPostgresIsNewForEachTest(t *testing.T) {
	var urls []string
	for _, name := range []string{"first", "second"} {
		t.Run(name, func(t *testing.T) {
			url := Postgres(t)
			query[string](t, url, "CREATE TABLE things (name text)") // fails if it exists
			if got := query[string](t, url, "SHOW fsync"); got[0] != "off" {
				t.Errorf("fsync = %s, want off", got[0])
			}
			urls = append(urls, url)
		})
	}
	for _, url := range urls {
		if conn, err := pgx.Connect(t.Context(), url); err == nil {
			t.Errorf("%s still exists after its test", url)
			_ = conn.Close(t.Context())
		}
	}
}

func TestPostgresForParallelTests(t *testing.T) {
	for i := range 8 {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			query[string](t, Postgres(t), "CREATE TABLE things (name text)")
		})
	}
}

func TestSQLiteIsNewForEachCall(t *testing.T) {
	one, two := SQLite(t), SQLite(t)
	if one == two {
		t.Errorf("both are %s", one)
	}
	for _, url := range []string{one, two} {
		path, ok := strings.CutPrefix(url, "sqlite:")
		if !ok || !filepath.IsAbs(path) {
			t.Errorf("%q is not sqlite: and an absolute path", url)
		}
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s exists already: %v", path, err)
		}
	}
}

// A killed test, for example after the time limit of `go test`, cannot stop its server.
func TestServerDiesWithItsProcess(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Logf("%s does not end a child with its parent", runtime.GOOS)
		return
	}
	executable, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("TMPDIR", reachable(t)) // also for the other process, whose folder remains
	cmd := exec.CommandContext(t.Context(), executable)
	cmd.Env = append(os.Environ(), orphanVariable+"=1")
	cmd.Stderr = os.Stderr
	output, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	url, err := bufio.NewReader(output).ReadString('\n')
	if err != nil {
		t.Fatalf("the other process did not print its server's address: %v", err)
	}
	url = strings.TrimSpace(url)
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("the other process ended on its own")
	}

	// Its connections are closed first. Its port is closed when its last process has ended.
	ctx, cancel := context.WithTimeout(t.Context(), stopLimit)
	defer cancel()
	if _, err := conn.WaitForNotification(ctx); err == nil || ctx.Err() != nil {
		t.Fatalf("%s after its process was killed, the server still runs: %v", stopLimit, err)
	}
	_ = conn.Close(ctx)
	for {
		conn, err := pgx.Connect(ctx, url)
		if errors.Is(err, syscall.ECONNREFUSED) {
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("%s after its process was killed, the server still listens: %v", stopLimit, err)
		}
		if err == nil {
			_ = conn.Close(ctx)
		}
	}
}

// orphan starts a cluster, prints its address, and waits to be killed.
func orphan() {
	c, err := StartPostgres(context.Background(), PostgresOptions{})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(c.URL("postgres"))
	select {}
}

// query runs one statement on a new connection and returns the rows' only column.
func query[T any](t *testing.T, url, statement string) []T {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := conn.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}()
	rows, err := conn.Query(t.Context(), statement)
	if err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
	values, err := pgx.CollectRows(rows, pgx.RowTo[T])
	if err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
	return values
}

// running returns the IDs of the server's process and its child processes.
func running(t *testing.T, c *Cluster) []int {
	t.Helper()
	processes := query[int](t, c.URL("postgres"), "SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
	if len(processes) < 3 {
		t.Fatalf("the server has the processes %v, want also its background processes", processes)
	}
	return append(processes, c.server.process.Pid)
}

// wantGone reports each process that still exists.
func wantGone(t *testing.T, processes []int) {
	t.Helper()
	for _, pid := range processes {
		if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
			t.Errorf("process %d still exists: %v", pid, err)
		}
	}
}

// reachable returns a new folder for temporary files that PostgreSQL's account can access.
// t.TempDir is private to this process's account.
func reachable(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "tollgate-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	return dir
}

func wantEmpty(t *testing.T, dir string) {
	t.Helper()
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if names, err := f.Readdirnames(-1); err != nil && !errors.Is(err, io.EOF) || len(names) > 0 {
		t.Errorf("%s contains %q, want nothing: %v", dir, names, err)
	}
}
