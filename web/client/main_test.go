package client_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"tollgate/web/client"
)

// childVariable makes the test binary run as an app; see TestKilled.
const childVariable = "TOLLGATE_CLIENT_CHILD"

var built struct {
	sync.Once
	path string
	err  error
}

func TestMain(m *testing.M) {
	if job := os.Getenv(childVariable); job != "" {
		if err := runChild(job); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	code := m.Run()
	if built.path != "" {
		_ = os.RemoveAll(filepath.Dir(built.path)) // a leftover does not fail the tests
	}
	os.Exit(code)
}

// program builds tollgate for the first test and returns its path.
func program(t *testing.T) string {
	t.Helper()
	built.Do(func() {
		dir, err := os.MkdirTemp("", "tollgate-clients-")
		if err != nil {
			built.err = err
			return
		}
		built.path = filepath.Join(dir, "tollgate")
		build := exec.CommandContext(context.WithoutCancel(t.Context()), "go", "build", "-race=false", "-pgo=off", "-o", built.path, "tollgate")
		if out, err := build.CombinedOutput(); err != nil {
			built.err = fmt.Errorf("build tollgate: %w\n%s", err, out)
		}
	})
	must(t, built.err)
	return built.path
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// server is `tollgate serve` with a SQLite database, on one port. It may be killed and started
// again.
type server struct {
	url, key string
	path     string
	env      []string
	process  *exec.Cmd // nil while stopped
}

func newServer(t *testing.T) *server {
	t.Helper()
	dir := t.TempDir()
	s := &server{path: program(t), env: []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "TOLLGATE_DRAIN=0s", "DATABASE_URL=sqlite:" + filepath.Join(dir, "tollgate.db"),
		"TOLLGATE_LISTEN=" + freeAddress(t),
	}}
	s.url = "http://" + strings.TrimPrefix(s.env[4], "TOLLGATE_LISTEN=")
	s.key = s.command(t, "apikey", "create", "--name", "test", "--scopes", "check,consume,read,manage")
	t.Cleanup(func() { s.kill(t) })
	s.start(t)
	return s
}

// given are the addresses that freeAddress returned.
var given sync.Map

// freeAddress returns an unused address below the ports of outgoing connections. It returns no address
// twice: while a test's server is killed, its address must not belong to the server of another test.
func freeAddress(t *testing.T) string {
	t.Helper()
	for {
		address := "127.0.0.1:" + strconv.Itoa(20_000+rand.IntN(12_000))
		l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", address)
		if err != nil {
			continue
		}
		must(t, l.Close())
		if _, again := given.LoadOrStore(address, true); !again {
			return address
		}
	}
}

// command runs one of the operator's commands and returns its output.
func (s *server) command(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), s.path, args...)
	cmd.Env = s.env
	out, err := cmd.Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		t.Fatalf("tollgate %q: %v\n%s", args, err, exit.Stderr)
	}
	must(t, err)
	return strings.TrimSpace(string(out))
}

// start runs the server and returns when it listens.
func (s *server) start(t *testing.T) {
	t.Helper()
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), s.path, "serve")
	var log bytes.Buffer
	cmd.Env, cmd.Stderr = s.env, &log
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	s.process = cmd
	text := make([]byte, 256)
	n, err := out.Read(text)
	if !strings.HasPrefix(string(text[:n]), "listening on") {
		_ = cmd.Wait() // the log has the reason
		s.process = nil
		t.Fatalf("start tollgate: %q, %v\n%s", text[:n], err, &log)
	}
}

// kill ends the server with kill -9.
func (s *server) kill(t *testing.T) {
	t.Helper()
	if s.process == nil {
		return
	}
	must(t, s.process.Process.Kill())
	_ = s.process.Wait() // it was killed
	s.process = nil
}

func (s *server) get(t *testing.T, path string, into any) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url+path, http.NoBody)
	must(t, err)
	request.Header.Set("Authorization", "Bearer "+s.key)
	response, err := http.DefaultClient.Do(request)
	must(t, err)
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	must(t, err)
	if response.StatusCode != http.StatusOK {
		t.Fatalf("GET %s: %s\n%s", path, response.Status, content)
	}
	must(t, json.Unmarshal(content, into))
}

// used checks how many units Tollgate has recorded for ada.
func (s *server) used(t *testing.T, want int64) {
	t.Helper()
	var d client.Decision
	s.get(t, "/v1/usage/"+ada.Email, &d)
	if d.Used != want {
		t.Errorf("%d units are recorded, not %d", d.Used, want)
	}
}

// keys returns the idempotency keys of ada's events that have one.
func (s *server) keys(t *testing.T) (keys []string) {
	t.Helper()
	for query := ""; ; {
		var page struct {
			Events []struct {
				Key *string `json:"idempotency_key"`
			} `json:"events"`
			Next *string `json:"next_cursor"`
		}
		s.get(t, "/v1/usage/"+ada.Email+"/events"+query, &page)
		for _, e := range page.Events {
			if e.Key != nil {
				keys = append(keys, *e.Key)
			}
		}
		if page.Next == nil {
			slices.Sort(keys)
			return keys
		}
		query = "?cursor=" + url.QueryEscape(*page.Next)
	}
}

// proxy forwards requests to a server, and can lose answers, as a bad network does.
type proxy struct {
	*httptest.Server
	// mode returns what to do with the nth request: forward it, lose its answer, or answer with a
	// status.
	mode     atomic.Pointer[func(n int) int]
	requests atomic.Int64
	events   atomic.Int64 // requests to /v1/events
}

const (
	forward = 0
	lose    = 1
)

func newProxy(t *testing.T, s *server) *proxy {
	t.Helper()
	target, err := url.Parse(s.url)
	must(t, err)
	p := &proxy{}
	onward := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) }}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/events" {
			p.events.Add(1)
		}
		n, mode := int(p.requests.Add(1)), forward
		if f := p.mode.Load(); f != nil {
			mode = (*f)(n)
		}
		switch mode {
		case forward:
			onward.ServeHTTP(w, r)
		case lose:
			onward.ServeHTTP(httptest.NewRecorder(), r)
			panic(http.ErrAbortHandler)
		default:
			w.WriteHeader(mode)
		}
	}))
	t.Cleanup(p.Close)
	return p
}

func (p *proxy) set(mode func(n int) int) { p.mode.Store(&mode) }
