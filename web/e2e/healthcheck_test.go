//go:build linux

package e2e_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// healthcheck finds the server by the server's own settings, here in a file, and does not use the
// proxy of the environment.
func TestHealthcheck(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "tollgate.db")
	p := newServer(t, "serve", "")
	config := writeConfig(t, dir, "tollgate.yaml", "listen: "+p.addr+"\ndatabase: sqlite:"+file+"\n")
	p.args = []string{"serve", "--config", config}
	check := func(status int, says string, args ...string) {
		t.Helper()
		r := runIt(t, []string{"TOLLGATE_CONFIG=" + config, "HTTP_PROXY=http://127.0.0.1:1"}, append([]string{"healthcheck"}, args...)...)
		if r.status != status || r.stdout != "" || !strings.Contains(r.stderr, says) || strings.Count(r.stderr, "\n") != 1 {
			t.Errorf("healthcheck %q: %+v, want status %d and %q", args, r, status, says)
		}
	}
	check(1, "connection refused")
	if err := p.start(t.Context()); err != nil {
		t.Fatal(err)
	}
	check(0, "/healthz answered 200 OK")
	check(0, "/readyz answered 200 OK", "--ready")
	_, port, _ := strings.Cut(p.addr, ":")
	for _, listen := range []string{":" + port, "0.0.0.0:" + port, "[::]:" + port} {
		check(0, "/healthz answered 200 OK", "--listen", listen)
	}
	if err := os.Rename(file, file+".moved"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the server misses its database", func() bool {
		status, err := p.get(t.Context(), "/readyz")
		return err == nil && status == http.StatusServiceUnavailable
	})
	check(0, "/healthz answered 200 OK")
	check(1, "/readyz answered 503", "--ready")
	check(1, "must name the server's port", "--listen", "127.0.0.1:0")

	// A server that does not answer.
	if err := p.run.process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	check(1, "context deadline exceeded")
}

// An error in the file of --config is an invalid command line.
func TestConfigErrors(t *testing.T) {
	dir := t.TempDir()
	config := writeConfig(t, dir, "tollgate.yaml", "listen: 127.0.0.1:0\nsmpt: hidden\n")
	s := shell{t, "sqlite:" + filepath.Join(dir, "tollgate.db")}
	for _, command := range []string{"serve", "verify", "version"} {
		s.fails(2, config+`:2: unknown key "smpt", did you mean "smtp"?`, command, "--config", config)
	}
	s.fails(2, "--config or TOLLGATE_CONFIG: open "+dir+"/missing.yaml: no such file or directory", "serve", "--config", dir+"/missing.yaml")
}
