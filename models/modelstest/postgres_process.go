package modelstest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"time"
)

// server is one run of the postgres program.
type server struct {
	process *os.Process
	exited  chan struct{} // closed after the end
	err     error         // how it ended; read it after exited
}

// startServer runs the command and waits for its end on a thread that does nothing else. On Linux,
// a child that dies with its parent dies with the thread that started it, and Go ends idle threads.
func startServer(cmd *exec.Cmd) (*server, error) {
	s := &server{exited: make(chan struct{})}
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		s.process = cmd.Process
		started <- err
		if err != nil {
			return
		}
		s.err = cmd.Wait()
		close(s.exited)
	}()
	return s, <-started
}

// stop sends the signal and waits for the end. A server that does not react is killed, which is an
// error.
func (s *server) stop(how syscall.Signal) error {
	select {
	case <-s.exited:
		if how == syscall.SIGQUIT {
			return nil
		}
		return fmt.Errorf("it had ended unexpectedly: %w", s.outcome())
	default:
	}
	if err := s.process.Signal(how); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-s.exited:
	case <-time.After(stopLimit):
		if err := s.process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return err
		}
		<-s.exited
		return fmt.Errorf("it did not stop within %s of %s", stopLimit, how)
	}
	if how == syscall.SIGQUIT {
		return nil // it exits as after a crash, as requested
	}
	return s.err
}

// outcome returns how a server ended that was not stopped.
func (s *server) outcome() error {
	if s.err == nil {
		return errors.New("exit status 0")
	}
	return s.err
}

// findPrograms returns the folder that contains initdb and postgres: the one in PATH, or otherwise
// the newest version below Debian's folder, which is not in PATH.
func findPrograms(debian string) (string, error) {
	if initdb, err := exec.LookPath("initdb"); err == nil {
		if bin := filepath.Dir(initdb); hasPrograms(bin) {
			return bin, nil
		}
	}
	versions, err := os.ReadDir(debian)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	var newest int
	for _, entry := range versions {
		version, err := strconv.Atoi(entry.Name())
		if err == nil && version > newest && hasPrograms(filepath.Join(debian, entry.Name(), "bin")) {
			newest = version
		}
	}
	if newest == 0 {
		return "", fmt.Errorf("its server programs (initdb, postgres) are neither in PATH nor in %s: "+
			"on Debian, apt-get install postgresql", debian)
	}
	return filepath.Join(debian, strconv.Itoa(newest), "bin"), nil
}

func hasPrograms(bin string) bool {
	for _, program := range []string{"initdb", "postgres"} {
		if _, err := exec.LookPath(filepath.Join(bin, program)); err != nil {
			return false
		}
	}
	return true
}

// findAccount returns the account to run PostgreSQL as. PostgreSQL refuses root, so root uses the
// account of Debian's package, or otherwise an unprivileged one. For other users it returns nil,
// their own account.
func findAccount() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	account, err := user.Lookup("postgres")
	if err != nil {
		account, err = user.Lookup("nobody")
	}
	if err != nil {
		return nil, fmt.Errorf("it refuses to run as root: %w", err)
	}
	uid, err := strconv.ParseUint(account.Uid, 10, 32)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.ParseUint(account.Gid, 10, 32)
	if err != nil {
		return nil, err
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
}

// freePort returns a free port of 127.0.0.1. It is below the range of the ports of outgoing
// connections. In that range, a client that reconnects to a stopped server could get the server's
// own port, be connected to itself, and prevent the server from starting again.
func freePort(ctx context.Context) (int, error) {
	const lowest, highest = 16_384, 32_767
	var err error
	for range 100 {
		port := lowest + rand.IntN(highest-lowest+1) //nolint:gosec // a port is not secret
		var listener net.Listener
		listener, err = (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err == nil {
			return port, listener.Close()
		}
	}
	return 0, fmt.Errorf("find a free port: %w", err)
}
