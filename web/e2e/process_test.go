//go:build linux

package e2e_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	// startPatience is how long a process may take until it is ready, on a busy machine.
	startPatience = 20 * time.Second
	// stopPatience is how long a process may take to stop in order.
	stopPatience = 15 * time.Second
)

// tail stores the last part of a process's output.
type tail struct {
	mu   sync.Mutex
	text []byte
	all  bool // store everything
}

const tailSize = 4 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, p...)
	if cut := len(t.text) - tailSize; cut > 0 && !t.all {
		t.text = append(t.text[:0], t.text[cut:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(bytes.TrimSpace(t.text[max(0, len(t.text)-tailSize):]))
}

// count returns how often the stored output contains a text.
func (t *tail) count(text string) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return bytes.Count(t.text, []byte(text))
}

// run is one run of the program.
type run struct {
	process *os.Process
	exited  chan struct{} // closed after the end
	err     error         // the result; read it after exited is closed
}

// launch starts the program. With Pdeathsig, a process dies with the thread that started it, so
// that thread waits for the process to end.
func launch(cmd *exec.Cmd) (*run, error) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid, cmd.SysProcAttr.Pdeathsig = true, syscall.SIGKILL
	r := &run{exited: make(chan struct{})}
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		r.process = cmd.Process
		started <- err
		if err != nil {
			return
		}
		r.err = cmd.Wait()
		close(r.exited)
	}()
	return r, <-started
}

// noDrain lets a process stop without a drain, unless a test sets one.
const noDrain = "TOLLGATE_DRAIN=0s"

// environment returns the variables of a process. It has none of the developer's settings, such as
// DATABASE_URL or a Stripe key.
func environment(t *testing.T) []string {
	t.Helper()
	return []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "TMPDIR=" + os.TempDir(), noDrain}
}

// server is `tollgate serve` on one port. It may be killed and started again, so it has one process
// after another.
type server struct {
	name string
	addr string
	path string
	args []string
	env  []string
	log  *tail
	user *syscall.Credential // nil means this process's own
	// command returns the command to start. By default, it has the path, the arguments and the
	// variables above.
	command func() *exec.Cmd

	mu  sync.Mutex // held during each start and stop
	run *run       // nil while stopped
}

func newServer(t *testing.T, name, database string) *server {
	t.Helper()
	s := &server{
		name: name, addr: net.JoinHostPort("127.0.0.1", strconv.Itoa(freePort(t))),
		path: program(t), env: environment(t), log: &tail{},
	}
	s.args = []string{"serve", "--database", database, "--listen", s.addr}
	t.Cleanup(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.run != nil {
			_ = s.run.process.Kill() // it may have ended
			<-s.run.exited
			s.run = nil
		}
		if t.Failed() {
			t.Logf("the last output of %s (%s):\n%s", s.name, s.addr, s.log)
		}
	})
	return s
}

// start runs the program and returns when it is ready.
func (s *server) start(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.run != nil {
		return fmt.Errorf("start %s: it is running already", s.name)
	}
	cmd := exec.CommandContext(context.WithoutCancel(ctx), s.path, s.args...)
	cmd.Env = s.env
	if s.user != nil {
		cmd.Dir = "/" // the user may not read this one
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.user}
	}
	if s.command != nil {
		cmd = s.command()
	}
	cmd.Stdout, cmd.Stderr = s.log, s.log
	r, err := launch(cmd)
	if err != nil {
		return fmt.Errorf("start %s: %w", s.name, err)
	}
	s.run = r
	if err := s.ready(ctx, r); err != nil {
		return fmt.Errorf("start %s: %w", s.name, err)
	}
	return nil
}

// ready polls /readyz until the process is ready.
func (s *server) ready(ctx context.Context, r *run) error {
	ctx, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	again := time.NewTicker(5 * time.Millisecond)
	defer again.Stop()
	for {
		status, err := s.get(ctx, "/readyz")
		if err == nil && status == http.StatusOK {
			return nil
		}
		select {
		case <-r.exited:
			return fmt.Errorf("it ended: %w\n%s", r.outcome(), s.log)
		case <-ctx.Done():
			return fmt.Errorf("not ready within %s: status %d, %w\n%s", startPatience, status, errors.Join(err, ctx.Err()), s.log)
		case <-again.C:
		}
	}
}

// get requests a page without a key, on its own connection, and returns the status.
func (s *server) get(ctx context.Context, path string) (status int, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.addr+path, http.NoBody)
	if err != nil {
		return 0, err
	}
	request.Close = true
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, err
	}
	return response.StatusCode, response.Body.Close()
}

// crash kills the process with kill -9.
func (s *server) crash() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.run.running(); err != nil {
		return fmt.Errorf("kill %s: %w\n%s", s.name, err, s.log)
	}
	if err := s.run.process.Kill(); err != nil {
		return fmt.Errorf("kill %s: %w", s.name, err)
	}
	<-s.run.exited
	s.run = nil
	return nil
}

// stop ends the process with SIGTERM and returns how long it took. The process must exit with
// status 0.
func (s *server) stop() (time.Duration, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.run.running(); err != nil {
		return 0, fmt.Errorf("stop %s: %w\n%s", s.name, err, s.log)
	}
	begun := time.Now()
	if err := s.run.process.Signal(syscall.SIGTERM); err != nil {
		return 0, fmt.Errorf("stop %s: %w", s.name, err)
	}
	r := s.run
	select {
	case <-r.exited:
	case <-time.After(stopPatience):
		return 0, fmt.Errorf("%s did not stop within %s of SIGTERM\n%s", s.name, stopPatience, s.log)
	}
	s.run = nil
	if r.err != nil {
		return 0, fmt.Errorf("stop %s: %w\n%s", s.name, r.err, s.log)
	}
	return time.Since(begun), nil
}

// alive returns nil if the started process is running, or the reason why it is not.
func (s *server) alive() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.run.running(); err != nil {
		return fmt.Errorf("%s: %w\n%s", s.name, err, s.log)
	}
	return nil
}

func (s *server) pid() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.run.process.Pid
}

// peakMemory returns the most resident memory that the process has used, in bytes.
func (s *server) peakMemory() (int64, error) { return s.memory("VmHWM") }

// memory returns a field of /proc/PID/status, in bytes. See proc_pid_status(5).
func (s *server) memory(field string) (int64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.pid()))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		if kib, ok := strings.CutPrefix(line, field+":"); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(kib), "kB")), 10, 64)
			return n << 10, err
		}
	}
	return 0, fmt.Errorf("no %s in /proc", field)
}

// descriptors returns the number of files and connections that the process has open.
func (s *server) descriptors() (int, error) {
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", s.pid()))
	return len(open), err
}

func (r *run) running() error {
	if r == nil {
		return errors.New("it was not started")
	}
	select {
	case <-r.exited:
		return fmt.Errorf("it ended unexpectedly: %w", r.outcome())
	default:
		return nil
	}
}

// outcome returns the error of a process that ended unexpectedly.
func (r *run) outcome() error {
	if r.err == nil {
		return errors.New("exit status 0")
	}
	return r.err
}

// freePort returns an unused port of 127.0.0.1, and never the same port twice. It is below the
// ports of outgoing connections, so none of them uses it while its process restarts.
func freePort(t *testing.T) int {
	t.Helper()
	made.Lock()
	defer made.Unlock()
	if made.ports == nil {
		made.ports = map[int]bool{}
	}
	var err error
	for range 100 {
		port := 20_000 + rand.IntN(12_000)
		if made.ports[port] {
			continue
		}
		var l net.Listener
		if l, err = (&net.ListenConfig{}).Listen(t.Context(), "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port))); err == nil {
			made.ports[port] = true
			if err = l.Close(); err == nil {
				return port
			}
		}
	}
	t.Fatalf("find a free port: %v", err)
	return 0
}
