//go:build linux

package e2e_test

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// haproxyLines are the lines that docs/deploy.md adds to haproxy's usual configuration. nginx's lines
// are in deploy/nginx.conf.
const haproxyLines = "option redispatch 1\n    retry-on conn-failure empty-response"

const (
	// rollingRate is how many calls per second start, however long earlier ones take.
	rollingRate, longRollingRate = 100, 1000
	// settled is how long calls go on before the first restart, between two and after the last.
	settled = time.Second
	// unprivileged is a user without rights. On newer kernels, a server that does not run as root may not
	// drop packets of new connections while it stops; see web/stop_linux.go.
	unprivileged = 65534
)

// Three processes are restarted one after another behind a load balancer. Calls start at a constant
// rate, and none fails.
func TestRollingRestart(t *testing.T) {
	if *soak == 0 {
		t.Parallel() // nothing else disturbs the measurements of a long run
	}
	var mu sync.Mutex
	var rows [][]string
	t.Run("all", func(t *testing.T) {
		for _, r := range []rolling{
			{proxy: "nginx", run: nginx}, {proxy: "nginx", run: nginx, user: unprivileged}, {proxy: "haproxy", run: haproxy, user: unprivileged},
		} {
			if os.Geteuid() != 0 {
				if r.user == 0 {
					continue // without root, every server is unprivileged
				}
				r.user = 0
			}
			if *soak == 0 && r.proxy == "nginx" && r.user != 0 {
				continue // TestRollingRestartOfTwoProcesses has this
			}
			t.Run(r.name(), func(t *testing.T) {
				r.rate = longRollingRate
				if *soak == 0 {
					t.Parallel()
					r.rate = rollingRate
				}
				row := r.restart(t)
				mu.Lock()
				defer mu.Unlock()
				rows = append(rows, row)
			})
		}
	})
	if *writeReliability && !t.Failed() {
		writeRolling(t, rows)
	}
}

// Two processes behind nginx are enough for a restart without a failed call: nginx uses a process
// again as soon as it accepts connections.
func TestRollingRestartOfTwoProcesses(t *testing.T) {
	t.Parallel()
	r := rolling{proxy: "nginx", run: nginx, rate: rollingRate, processes: 2}
	if os.Geteuid() == 0 {
		r.user = unprivileged
	}
	r.restart(t)
}

// rolling is a rolling restart behind one proxy.
type rolling struct {
	proxy string
	run   func(t *testing.T, listen string, servers []string) *exec.Cmd
	user  uint32 // of the servers
	rate  int
	// processes is the number of processes; 0 means three.
	processes int
}

func (r *rolling) name() string {
	if r.user != 0 || os.Geteuid() != 0 {
		return r.proxy + ", unprivileged servers"
	}
	return r.proxy + ", servers run as root"
}

// restart makes the calls and restarts the processes. It returns what was measured.
func (r *rolling) restart(t *testing.T) (row []string) {
	s := newSite(t, postgresDatabase(t), 0)
	for i := range cmp.Or(r.processes, 3) {
		p := newServer(t, fmt.Sprintf("process %d", i+1), s.database)
		p.args = append(p.args, "--drain", "5s") // the default, which the tests' environment changes
		if r.user != 0 {
			must(t, os.Chmod(filepath.Dir(p.path), 0o711)) // so that the user can run it
			p.user = &syscall.Credential{Uid: r.user, Gid: r.user}
		}
		s.servers = append(s.servers, p)
	}
	s.startAll()
	l := newLoad(s, "TROLL", 50)
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(freePort(t)))
	startProxy(t, r.proxy, r.run(t, address, s.addresses()), address)

	ctx, end := context.WithTimeout(t.Context(), 2*time.Minute)
	defer end()
	o := &openLoop{load: l, address: address, rate: r.rate}
	for n := range o.emails { // creates the records, for which all processes would otherwise wait at the start
		o.call(n, time.Now())
	}
	o.took = nil
	var calling sync.WaitGroup
	t.Cleanup(func() { end(); calling.Wait() })
	calling.Go(func() { o.run(ctx) })
	for _, p := range s.servers {
		wait(t, l.decided.more(r.rate*int(settled/time.Second)), "calls to be decided")
		if _, err := p.stop(); err != nil {
			t.Fatal(err)
		}
		s.restart(p)
	}
	wait(t, l.decided.more(r.rate*int(settled/time.Second)), "calls to be decided")
	end()
	calling.Wait()
	slices.Sort(o.took)
	n := len(o.took)
	row = []string{
		r.name(), strconv.Itoa(r.rate), strconv.Itoa(n), strconv.Itoa(o.failed),
		short(o.took[n/2]), short(o.took[n*99/100]), short(o.took[n-1]),
	}
	t.Logf("proxy, calls/s, answered, failed, p50, p99, slowest: %v", row)
	if recorded := l.settle(); recorded > 0 {
		t.Errorf("%d calls were recorded but not answered", recorded)
	}
	return row
}

// openLoop starts calls on schedule.
type openLoop struct {
	*load
	address string
	rate    int

	results sync.Mutex
	took    []time.Duration // from the time at which each answered call was due
	failed  int
}

// run starts calls until ctx ends, and waits for their answers.
func (o *openLoop) run(ctx context.Context) {
	var all sync.WaitGroup
	begun := time.Now()
	for n := len(o.emails); ; n++ { // the calls before were made one after another
		due := begun.Add(time.Duration(n-len(o.emails)) * time.Second / time.Duration(o.rate))
		if !pause(ctx, time.Until(due)) {
			break
		}
		all.Go(func() { o.call(n, due) })
	}
	all.Wait()
}

func (o *openLoop) call(n int, due time.Time) {
	t, who := o.site.t, n%len(o.emails)
	key, j := strconv.Itoa(n), job{o.emails[who], fmt.Sprintf("U%d", who), 1}
	r := o.site.client.call(t.Context(), o.address, http.MethodPost, "/v1/consume", o.request(key, j))
	o.results.Lock()
	defer o.results.Unlock()
	d, err := r.decision()
	if err != nil || d.EventID == nil {
		if o.failed++; o.failed <= 10 {
			t.Errorf("a call got %d, %v %s", r.status, r.err, r.body)
		}
		o.note(key, j, r)
		return
	}
	o.took = append(o.took, time.Since(due))
	o.mu.Lock()
	o.answers[key] = grant{*d.EventID, j.email, 1} // nginx may have repeated the call, so it may be a replay
	o.mu.Unlock()
	o.decided.add()
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

// nginx returns a command with deploy/nginx.conf, without TLS.
func nginx(t *testing.T, listen string, servers []string) *exec.Cmd {
	t.Helper()
	dir := t.TempDir()
	const files = "/etc/letsencrypt/live/tollgate.example.com/"
	site := writeConfig(t, dir, "tollgate", deployed(t, "nginx.conf",
		"    listen 80;\n    listen [::]:80;\n", "    listen 127.0.0.1:"+strconv.Itoa(freePort(t))+";\n", "    listen [::]:443 ssl http2;\n", "",
		"listen 443 ssl http2;", "listen "+listen+";",
		"    ssl_certificate "+files+"fullchain.pem;\n", "", "    ssl_certificate_key "+files+"privkey.pem;\n", "",
		"server 127.0.0.1:8080 ", "server "+strings.Join(servers, " max_fails=0;\n    server ")+" "))
	return nginxWith(t, dir, site)
}

// nginxWith puts a site into a configuration as Debian does.
func nginxWith(t *testing.T, dir, site string) *exec.Cmd {
	t.Helper()
	config := writeConfig(t, dir, "nginx.conf", `daemon off;
master_process off;
pid nginx.pid;
error_log stderr;
events { worker_connections 4096; }
http {
    access_log off;
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
    include `+site+`;
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
    `+haproxyLines+`
`+lines.String())
	return exec.CommandContext(context.WithoutCancel(t.Context()), installed(t, "haproxy"), "-db", "-f", config)
}
