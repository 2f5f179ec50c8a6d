//go:build linux

package e2e_test

import (
	"bufio"
	"context"
	"database/sql"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"
)

// neighborVariable makes the test binary a neighbor: another process that uses the server's SQLite
// file. Its value is what the neighbor does, and the file.
const neighborVariable = "TOLLGATE_TEST_NEIGHBOR"

const (
	// The neighbor locks the file for writing.
	neighborLocks = "locks"
	// The neighbor locks the file for most of the time: lockedFor of each lockedEvery.
	neighborSlows          = "slows"
	lockedFor, lockedEvery = 200 * time.Millisecond, 250 * time.Millisecond
	// The neighbor begins snapshots transactions that read, so that the write-ahead log grows.
	neighborReads = "reads"
	snapshots     = 64
	// The neighbor writes neighborWrites MiB in a transaction that it does not commit.
	neighborWrites, uncommitted = "writes", 8
)

// neighbor starts a neighbor and returns when it has begun. end ends it in order, and kill with
// kill -9.
func (s *site) neighbor(does string) (end, kill func()) {
	s.t.Helper()
	file, ok := strings.CutPrefix(s.database, "sqlite:")
	if !ok {
		s.t.Fatalf("%s is no SQLite file", s.database)
	}
	executable, err := os.Executable()
	must(s.t, err)
	cmd := exec.CommandContext(context.WithoutCancel(s.t.Context()), executable)
	cmd.Env = append(environment(s.t), neighborVariable+"="+does+" "+file)
	var log tail
	cmd.Stderr = &log
	stdin, err := cmd.StdinPipe()
	must(s.t, err)
	// Not StdoutPipe, because launch waits for the process before its output is read.
	out, in, err := os.Pipe()
	must(s.t, err)
	cmd.Stdout = in
	r, err := launch(cmd)
	must(s.t, err, in.Close())
	s.t.Cleanup(func() {
		_ = r.process.Kill() // it may have ended
		<-r.exited
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "begun\n" {
		s.t.Fatalf("the neighbor printed %q, %v\n%s", line, err, &log)
	}
	must(s.t, out.Close())
	end = func() {
		s.t.Helper()
		_ = stdin.Close()
		<-r.exited
		if r.err != nil {
			s.t.Errorf("the neighbor: %v\n%s", r.err, &log)
		}
	}
	kill = func() {
		s.t.Helper()
		must(s.t, r.process.Kill())
		<-r.exited
	}
	return end, kill
}

// beNeighbor is the neighbor. It ends with its standard input.
func beNeighbor(task string) {
	does, file, _ := strings.Cut(task, " ")
	ended := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(ended)
	}()
	if err := neighborTask(does, "file:"+file+"?_pragma=busy_timeout(30000)", ended); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func neighborTask(does, address string, ended <-chan struct{}) error {
	ctx := context.Background()
	db, err := sql.Open("sqlite", address)
	if err != nil {
		return err
	}
	run := func(conn *sql.Conn, statements ...string) error {
		for _, statement := range statements {
			if _, err := conn.ExecContext(ctx, statement); err != nil {
				return fmt.Errorf("%s: %w", statement, err)
			}
		}
		return nil
	}
	conn, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	begin := []string{"BEGIN IMMEDIATE"}
	switch does {
	case neighborReads:
		begin = []string{"BEGIN", "SELECT COUNT(*) FROM usage_events"}
		for range snapshots - 1 {
			other, err := db.Conn(ctx)
			if err != nil {
				return err
			}
			if err := run(other, begin...); err != nil {
				return err
			}
		}
	case neighborWrites:
		begin = []string{"PRAGMA cache_size = 10", "BEGIN IMMEDIATE", "CREATE TABLE neighbor (bytes BLOB)"}
		for range uncommitted {
			begin = append(begin, "INSERT INTO neighbor VALUES (zeroblob(1048576))")
		}
	}
	if err := run(conn, begin...); err != nil {
		return err
	}
	fmt.Println("begun")
	for does == neighborSlows {
		select {
		case <-ended:
			return nil
		case <-time.After(lockedFor):
		}
		if err := run(conn, "ROLLBACK"); err != nil {
			return err
		}
		time.Sleep(lockedEvery - lockedFor) // the server's turn
		if err := run(conn, "BEGIN IMMEDIATE"); err != nil {
			return err
		}
	}
	<-ended
	return nil
}
