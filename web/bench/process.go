//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// How long a server may take to start and to stop.
const (
	startPatience = 20 * time.Second
	stopPatience  = 20 * time.Second
)

// process is a program that the benchmark started and stops.
type process struct {
	name string
	cmd  *exec.Cmd
	log  string
	// exited is closed when the program has ended. Then err is the program's error.
	exited chan struct{}
	err    error
}

// start runs cmd in its own directory, with its output in a file there. The program runs until it
// is stopped.
func start(home, name string, cmd *exec.Cmd) (*process, error) {
	if err := os.MkdirAll(home, 0o700); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	out, err := os.OpenFile(filepath.Join(home, name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600) //nolint:gosec // a fixed name
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	defer out.Close() //nolint:errcheck // the program has its own descriptor
	cmd.Stderr = out
	if cmd.Stdout == nil {
		cmd.Stdout = out
	}
	cmd.Dir = home
	// Nothing else of the caller's environment reaches a server: no DATABASE_URL, no Stripe key.
	cmd.Env = append(cmd.Env, "PATH="+os.Getenv("PATH"), "HOME="+home, "TMPDIR="+os.TempDir())
	// An interrupt at the terminal reaches only the benchmark, which stops its servers in order. If
	// the benchmark is killed, they end with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	p := &process{name: name, cmd: cmd, log: out.Name(), exited: make(chan struct{})}
	go func() {
		p.err = cmd.Wait()
		close(p.exited)
	}()
	return p, nil
}

// waitUntil calls ready until it returns nil. It fails if the program ends or after startPatience.
func (p *process) waitUntil(ctx context.Context, ready func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	for {
		err := ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-p.exited:
			return fmt.Errorf("%s ended while starting: %w\n%s", p.name, p.err, p.tail())
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("%s did not answer in %s: %w\n%s", p.name, startPatience, err, p.tail()), p.stop())
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// stop ends the program with SIGTERM. If the program ended before, or fails, it returns an error.
func (p *process) stop() error {
	select {
	case <-p.exited:
		return fmt.Errorf("%s ended before it was stopped: %w\n%s", p.name, p.err, p.tail())
	default:
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return fmt.Errorf("stop %s: %w", p.name, err)
	}
	select {
	case <-p.exited:
	case <-time.After(stopPatience):
		err := p.cmd.Process.Kill()
		<-p.exited
		return errors.Join(fmt.Errorf("%s did not stop within %s of SIGTERM\n%s", p.name, stopPatience, p.tail()), err)
	}
	if p.err != nil {
		return fmt.Errorf("stop %s: %w\n%s", p.name, p.err, p.tail())
	}
	return nil
}

// tail returns the last lines that the program printed.
func (p *process) tail() string {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(text[max(0, len(text)-2000):]))
}

func freePort(ctx context.Context) (int, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	return port, l.Close()
}
