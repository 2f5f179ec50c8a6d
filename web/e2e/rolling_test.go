//go:build linux

package e2e_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// The two configurations are those of docs/deploy.md: the servers, and one more line.
const (
	nginxLine   = "proxy_next_upstream error timeout non_idempotent;"
	haproxyLine = "option redispatch 1"
)

const (
	rollingClients = 16
	rollingPause   = 250 * time.Millisecond // between two calls of a client; together, the clients make 64 calls per second
)

// Three processes are restarted one after another behind a load balancer, and no call fails.
func TestRollingRestart(t *testing.T) {
	t.Parallel()
	for _, proxy := range []struct {
		name string
		run  func(t *testing.T, listen string, servers []string) *exec.Cmd
	}{{"nginx", nginx}, {"haproxy", haproxy}} {
		t.Run(proxy.name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, postgresDatabase(t), 3)
			for _, p := range s.servers {
				p.args = append(p.args, "--drain", "5s") // the default, which the tests' environment changes
			}
			s.stopAll()
			s.startAll()
			l := newLoad(s, "TROLL"+strings.ToUpper(proxy.name), 50)
			address := net.JoinHostPort("127.0.0.1", strconv.Itoa(freePort(t)))
			startProxy(t, proxy.name, proxy.run(t, address, s.addresses()), address)

			ctx, end := context.WithTimeout(t.Context(), 2*time.Minute)
			defer end()
			var answered, failed atomic.Int64
			var clients sync.WaitGroup
			t.Cleanup(func() { end(); clients.Wait() })
			for i := range rollingClients {
				clients.Go(func() {
					for n := 0; pause(ctx, rollingPause); n++ {
						key, j := fmt.Sprintf("%d-%d", i, n), job{l.emails[i%len(l.emails)], fmt.Sprintf("U%d", i%len(l.emails)), 1}
						r := s.client.call(t.Context(), address, http.MethodPost, "/v1/consume", l.request(key, j))
						if r.err != nil || r.status != http.StatusOK {
							failed.Add(1)
							t.Errorf("a call got %d, %v %s", r.status, r.err, r.body)
							continue
						}
						answered.Add(1)
						d, err := r.decision()
						if err != nil || d.EventID == nil {
							t.Errorf("%s was answered with %+v, %v", key, d, err)
							continue
						}
						l.mu.Lock()
						l.answers[key] = grant{*d.EventID, j.email, 1}
						l.mu.Unlock()
						l.decided.add()
					}
				})
			}
			for _, p := range s.servers {
				wait(t, l.decided.more(100), "calls to be decided")
				if _, err := p.stop(); err != nil {
					t.Fatal(err)
				}
				s.restart(p)
			}
			wait(t, l.decided.more(100), "calls to be decided")
			end()
			clients.Wait()
			t.Logf("%d calls were answered, %d failed; the slowest took %s",
				answered.Load(), failed.Load(), s.client.slowest.Round(time.Millisecond))
			l.settle()
		})
	}
}

// startProxy runs a proxy and returns when it listens on the address.
func startProxy(t *testing.T, name string, cmd *exec.Cmd, address string) {
	t.Helper()
	var log tail
	cmd.Stdout, cmd.Stderr = &log, &log
	r, err := launch(cmd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = r.process.Kill() // it may have ended
		<-r.exited
		if t.Failed() {
			t.Logf("the last output of %s:\n%s", name, &log)
		}
	})
	eventually(t, name+" listens", func() bool {
		c, err := new(net.Dialer).DialContext(t.Context(), "tcp", address)
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
}

// installed returns the path of a program that may be only in root's PATH.
func installed(t *testing.T, name string) string {
	t.Helper()
	for _, path := range []string{name, "/usr/sbin/" + name, "/usr/local/sbin/" + name} {
		if found, err := exec.LookPath(path); err == nil {
			return found
		}
	}
	t.Fatalf("%s is not installed; run make deps", name)
	return ""
}

func writeConfig(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func nginx(t *testing.T, listen string, servers []string) *exec.Cmd {
	t.Helper()
	dir := t.TempDir()
	config := writeConfig(t, dir, "nginx.conf", `daemon off;
master_process off;
pid nginx.pid;
error_log stderr;
events {}
http {
    access_log off;
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
    upstream tollgate {
        server `+strings.Join(servers, ";\n        server ")+`;
    }
    server {
        listen `+listen+`;
        location / {
            proxy_pass http://tollgate;
            `+nginxLine+`
        }
    }
}
`)
	return exec.CommandContext(context.WithoutCancel(t.Context()), installed(t, "nginx"), "-p", dir, "-e", "stderr", "-c", config)
}

// haproxy returns a command with the defaults section of Debian's configuration.
func haproxy(t *testing.T, listen string, servers []string) *exec.Cmd {
	t.Helper()
	var lines strings.Builder
	for i, address := range servers {
		fmt.Fprintf(&lines, "    server tollgate%d %s check\n", i+1, address)
	}
	config := writeConfig(t, t.TempDir(), "haproxy.cfg", `defaults
    mode http
    timeout connect 5000
    timeout client 50000
    timeout server 50000

listen tollgate
    bind `+listen+`
    `+haproxyLine+`
`+lines.String())
	return exec.CommandContext(context.WithoutCancel(t.Context()), installed(t, "haproxy"), "-db", "-f", config)
}
