//go:build linux

package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"tollgate/models/modelstest"
)

// recovers is how long a process may take to decide again after the database is back.
const recovers = 5 * time.Second

// An outage of the database only delays calls. One PostgreSQL is frozen, frozen under more calls
// than a process may queue, and restarted while there are no calls. TestFaults kills it.
func TestDatabaseOutage(t *testing.T) {
	t.Parallel()
	c := cluster(t)
	// A database that stops answering, for example because its disk hangs, must not block its callers.
	// It is frozen for longer than any caller may wait.
	t.Run("frozen", func(t *testing.T) {
		outage(t, c, "frozen", hangs+2*time.Second, func() (back func() error) {
			thaw := freezeTree(t, postmaster(t, c))
			return func() error { thaw(); return nil }
		})
	})
	t.Run("overloaded", func(t *testing.T) { overload(t, c) })
	t.Run("restarted unseen", func(t *testing.T) { restartUnseen(t, c) })
}

// restartUnseen restarts the database while there are no calls, so all connections of the process
// are broken.
func restartUnseen(t *testing.T, c *modelstest.Cluster) {
	if err := c.CreateDatabase(t.Context(), "unseen"); err != nil {
		t.Fatal(err)
	}
	s := newSite(t, c.URL("unseen"), 1)
	ask := func(round string) {
		t.Helper()
		for i := range 40 { // people in all shards of the gate
			email := fmt.Sprintf("u%d@example.com", i)
			for _, r := range []*reply{
				s.client.call(t.Context(), s.servers[0].addr, http.MethodPost, "/v1/consume",
					body{"email": email, "idempotency_key": round + email}),
				s.client.call(t.Context(), s.servers[0].addr, http.MethodPost, "/v1/check", body{"email": email}),
				s.client.call(t.Context(), s.servers[0].addr, http.MethodGet, "/v1/usage/"+email, nil),
			} {
				if r.err != nil || r.status != http.StatusOK {
					t.Fatalf("%s, call of %s: status %d, %v %s", round, email, r.status, r.err, r.body)
				}
			}
		}
	}
	ask("before")
	idle := time.Now()
	if err := errors.Join(c.StopKeep(), c.Restart(t.Context())); err != nil {
		t.Fatal(err)
	}
	// The gate checks a connection only if it was idle for a second.
	eventually(t, "the connections are idle for a second", func() bool { return time.Since(idle) > time.Second })
	ask("after")
	s.stopAll()
}

// outage makes the database unavailable under load for this long.
func outage(t *testing.T, c *modelstest.Cluster, name string, duration time.Duration, away func() (back func() error)) {
	t.Helper()
	if err := c.CreateDatabase(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	s := newSite(t, c.URL(name), 2)
	l := newLoad(s, "TAWAY", 50)
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	running, reading := l.start(ctx, 24), l.readers(ctx, 8)
	wait(t, l.decided.more(500), "calls to be decided")
	var pids []int
	for _, p := range s.servers {
		pids = append(pids, p.pid())
	}

	over := time.After(duration)
	back := away()
	// A process runs without a database, and reports it.
	for _, p := range s.servers {
		begun := time.Now()
		status, err := p.get(t.Context(), "/readyz")
		if err != nil || status != http.StatusServiceUnavailable {
			t.Errorf("/readyz without a database: status %d, %v; want 503", status, err)
		}
		if took := time.Since(begun); took > 5*time.Second {
			t.Errorf("/readyz without a database took %s", took)
		}
		if status, err := p.get(t.Context(), "/healthz"); err != nil || status != http.StatusOK {
			t.Errorf("/healthz without a database: status %d, %v; want 200", status, err)
		}
	}
	<-over
	refused := s.client.unavailable.Load()
	if refused == 0 {
		t.Error("without a database, no call was answered with 503")
	}
	decided := l.decided.more(1)
	if err := back(); err != nil {
		t.Fatal(err)
	}
	returned := time.Now()
	wait(t, decided, "the first decision after the database is back")
	first := time.Since(returned)
	// Both processes continue, each with all of its connections.
	for i, p := range s.servers {
		r := s.client.insist(t.Context(), []string{p.addr}, 0, http.MethodPost, "/v1/consume",
			body{"email": l.emails[i], "idempotency_key": p.name})
		d, err := r.decision()
		if err != nil || !d.Allowed {
			t.Fatalf("%s after the database is back: %+v, %v", p.name, d, err)
		}
		l.mu.Lock()
		l.answers[p.name] = grant{*d.EventID, l.emails[i], 1}
		l.mu.Unlock()
	}
	all := time.Since(returned)
	wait(t, l.decided.more(500), "calls to be decided")
	t.Logf("outage of %s: %d calls answered with 503; afterward, the first call was decided after %s, and one by each process after %s",
		duration, refused, first.Round(time.Millisecond), all.Round(time.Millisecond))
	if all > recovers {
		t.Errorf("a process took %s to decide again, want at most %s", all, recovers)
	}
	stop()
	running.Wait()
	reading.Wait()
	for i, p := range s.servers {
		if err := p.alive(); err != nil || p.pid() != pids[i] {
			t.Errorf("%s did not survive: %v", p.name, err)
		}
	}
	if broken := s.client.broken.Load(); broken > 0 {
		t.Errorf("%d calls had no answer; each must be answered", broken)
	}
	l.settle()
}

// postmaster returns the process ID of the cluster's server.
func postmaster(t *testing.T, c *modelstest.Cluster) int {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), c.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	var dir string
	if err := errors.Join(conn.QueryRow(t.Context(), "SHOW data_directory").Scan(&dir), conn.Close(t.Context())); err != nil {
		t.Fatal(err)
	}
	lines, err := os.ReadFile(filepath.Join(dir, "postmaster.pid"))
	if err != nil {
		t.Fatal(err)
	}
	first, _, _ := strings.Cut(string(lines), "\n")
	pid, err := strconv.Atoi(first)
	if err != nil {
		t.Fatalf("postmaster.pid: %v", err)
	}
	return pid
}

// freezeTree freezes a process and its children.
func freezeTree(t *testing.T, parent int) (thaw func()) {
	t.Helper()
	// The parent is first, so that it starts no further children.
	thawParent := freeze(t, parent)
	thawChildren := freeze(t, children(t, parent)...)
	return func() { thawParent(); thawChildren() }
}

// freeze stops processes. thaw lets them continue, at the latest at the end of the test. If the
// test is killed, the kernel lets them continue, because they have no parent then.
func freeze(t *testing.T, pids ...int) (thaw func()) {
	t.Helper()
	signal := func(s syscall.Signal) {
		for _, pid := range pids {
			if err := syscall.Kill(pid, s); err != nil && !errors.Is(err, syscall.ESRCH) { // it has just ended
				t.Errorf("%s to process %d: %v", s, pid, err)
			}
		}
	}
	thaw = sync.OnceFunc(func() { signal(syscall.SIGCONT) })
	t.Cleanup(thaw)
	signal(syscall.SIGSTOP)
	return thaw
}

// children returns the process IDs of a process's children.
func children(t *testing.T, parent int) []int {
	t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	var found []int
	for _, path := range stats {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it has just ended
		}
		// "pid (name) state parent …". The name may contain anything.
		var state string
		var of, pid int
		_, rest, _ := strings.Cut(string(text), " (")
		if _, err := fmt.Sscan(rest[strings.LastIndex(rest, ")")+1:], &state, &of); err != nil || of != parent {
			continue
		}
		if _, err := fmt.Sscan(string(text), &pid); err != nil {
			t.Fatal(err)
		}
		found = append(found, pid)
	}
	return found
}
