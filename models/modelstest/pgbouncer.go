package modelstest

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// PgBouncer starts a PgBouncer in front of the database at a URL, with its default settings and the
// given ones. It returns the URL to use instead. PgBouncer stops after the test.
func PgBouncer(t testing.TB, address, settings string) string {
	t.Helper()
	program, err := exec.LookPath("pgbouncer")
	if err != nil {
		if program, err = exec.LookPath("/usr/sbin/pgbouncer"); err != nil {
			t.Fatalf("%v: on Debian, apt-get install pgbouncer", err)
		}
	}
	config, err := pgx.ParseConfig(address)
	if err != nil {
		t.Fatal(err)
	}
	account, err := findAccount()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "tollgate-pgbouncer-")
	if err != nil {
		t.Fatal(err)
	}
	port, err := freePort(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	users, file := filepath.Join(dir, "users.txt"), filepath.Join(dir, "pgbouncer.ini")
	for name, text := range map[string]string{
		users: `"postgres" ""`,
		file: fmt.Sprintf("[databases]\n%s = host=%s port=%d\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = %d\nunix_socket_dir "+
			"=\nauth_type = trust\nauth_file = %s\n%s\n",
			config.Database, config.Host, config.Port, port, users, settings),
	} {
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil { //nolint:gosec // another account reads it, and nothing in it is secret
			t.Fatal(err)
		}
	}
	if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // as above
		t.Fatal(err)
	}
	var log bytes.Buffer
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), program, file)
	cmd.Stdout, cmd.Stderr = &log, &log
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: account}
	s, err := startServer(cmd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.stop(syscall.SIGQUIT); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("PgBouncer's log:\n%s", log.String())
		}
		_ = os.RemoveAll(dir)
	})
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	u.Host = net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	// PgBouncer does not report when it is ready, so connect until it accepts a connection.
	for until := time.Now().Add(startLimit); ; {
		conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", u.Host)
		if err == nil {
			_ = conn.Close()
			return u.String()
		}
		select {
		case <-s.exited:
			t.Fatalf("PgBouncer ended unexpectedly: %v\n%s", s.outcome(), log.String())
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(until) {
			t.Fatalf("PgBouncer accepted no connection within %s: %v", startLimit, err)
		}
	}
}
