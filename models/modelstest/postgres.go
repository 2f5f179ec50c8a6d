// Package modelstest starts the databases that tests and benchmarks run on.
//
// A test binary that needs PostgreSQL gets a cluster of its own, on a free port and in a folder of its own, so that
// nothing has to be set up or cleaned before a test run, and a database that somebody else made is never touched.
package modelstest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	// startLimit bounds the wait for a server to take connections, recovery after a Kill included.
	startLimit = 30 * time.Second
	// stopLimit bounds the wait for a server that was told to stop. It is above the 5 seconds that an immediate
	// shutdown gives its children before it kills them.
	stopLimit = 30 * time.Second
)

// PostgresOptions says what kind of cluster to start. The zero value is a fast one for tests.
type PostgresOptions struct {
	// Durable leaves fsync, full_page_writes and synchronous_commit as PostgreSQL ships them: on. Without it all
	// three are off, and a Kill may lose the last commits: measure, and test crashes, with a durable one.
	Durable bool
	// MaxConnections is PostgreSQL's setting of that name; 0 leaves its default, 100.
	MaxConnections int
	// Settings are any others, by their names in postgresql.conf. They come last, so they win.
	Settings map[string]string
}

// settings in the order in which they are given to the server, as name=value.
func (o PostgresOptions) settings() []string {
	var list []string
	if !o.Durable {
		// The log is short, as it takes memory.
		list = append(list, "fsync=off", "full_page_writes=off", "synchronous_commit=off", "max_wal_size=64MB")
	}
	if o.MaxConnections > 0 {
		list = append(list, "max_connections="+strconv.Itoa(o.MaxConnections))
	}
	for _, name := range slices.Sorted(maps.Keys(o.Settings)) {
		list = append(list, name+"="+o.Settings[name])
	}
	return list
}

// Cluster is a PostgreSQL cluster that this process started. Its methods may be called from several goroutines.
type Cluster struct {
	bin      string // folder of initdb and postgres
	dir      string // everything that is ours on disk
	port     int
	settings []string
	account  *syscall.Credential // nil: this process's own

	mu     sync.Mutex // held through each start and stop
	server *server    // nil while stopped
}

// StartPostgres makes a new, empty cluster in a temporary folder, in memory unless it is durable,
// and starts it. It listens on a free port of
// 127.0.0.1 and lets in anybody who can connect there, as the superuser postgres and without a password. Stop must
// be called; should this process die before that, the server stops with it (on Linux), though its folder stays.
//
// The context bounds the start only. The error of a server that would not start ends with the tail of its log.
func StartPostgres(ctx context.Context, o PostgresOptions) (_ *Cluster, err error) {
	defer wrap(&err, "start PostgreSQL")

	bin, err := findPrograms("/usr/lib/postgresql")
	if err != nil {
		return nil, err
	}
	account, err := findAccount()
	if err != nil {
		return nil, err
	}
	parent := "" // the usual folder for temporary files
	if !o.Durable {
		parent = memory()
	}
	dir, err := os.MkdirTemp(parent, "tollgate-postgres-")
	if err != nil {
		return nil, err
	}
	c := &Cluster{bin: bin, dir: dir, settings: o.settings(), account: account}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(dir))
		}
	}()
	if account != nil {
		if err := os.Chown(dir, int(account.Uid), int(account.Gid)); err != nil {
			return nil, err
		}
	}
	if err := c.initialize(ctx); err != nil {
		return nil, err
	}

	// Between choosing a port and listening on it somebody else may take it.
	for attempt := 1; ; attempt++ {
		if c.port, err = freePort(ctx); err != nil {
			return nil, err
		}
		if err = c.start(ctx); err == nil {
			return c, nil
		}
		if attempt == 5 || !strings.Contains(err.Error(), "Address already in use") {
			return nil, err
		}
	}
}

// URL is the address of one of the cluster's databases. It stays the same through Restart.
func (c *Cluster) URL(db string) string {
	u := url.URL{
		Scheme:   "postgres",
		User:     url.User("postgres"),
		Host:     net.JoinHostPort("127.0.0.1", strconv.Itoa(c.port)),
		Path:     "/" + db,
		RawQuery: "sslmode=disable",
	}
	return u.String()
}

// Program returns the path of another one of PostgreSQL's programs, such as pg_dump, of the same version. What PATH names
// may be links to the server's programs alone.
func (c *Cluster) Program(name string) (string, error) {
	initdb, err := filepath.EvalSymlinks(filepath.Join(c.bin, "initdb"))
	if err != nil {
		return "", err
	}
	return exec.LookPath(filepath.Join(filepath.Dir(initdb), name))
}

// CreateDatabase makes an empty database.
func (c *Cluster) CreateDatabase(ctx context.Context, name string) error {
	// Not template1, PostgreSQL's default: a database cannot be copied while somebody is connected to it, and nobody can
	// connect to template0.
	return c.createDatabase(ctx, name, "template0")
}

func (c *Cluster) createDatabase(ctx context.Context, name, template string) (err error) {
	defer wrap(&err, "create database %q", name)
	return c.exec(ctx, "CREATE DATABASE "+pgx.Identifier{name}.Sanitize()+" TEMPLATE "+pgx.Identifier{template}.Sanitize())
}

// Stop ends the server in order, cutting the connections that are left, and removes its folder. It may be called
// after Kill and StopKeep, and again.
func (c *Cluster) Stop() (err error) {
	defer wrap(&err, "stop PostgreSQL")
	return errors.Join(c.signal(syscall.SIGINT), os.RemoveAll(c.dir))
}

// StopKeep ends the server in order, cutting the connections that are left, and keeps its folder for Restart.
func (c *Cluster) StopKeep() (err error) {
	defer wrap(&err, "stop PostgreSQL")
	return c.signal(syscall.SIGINT)
}

// Kill ends the server as a crash would: at once, without a checkpoint, in the middle of whatever it does. Its
// folder stays for Restart, which has to recover.
func (c *Cluster) Kill() (err error) {
	defer wrap(&err, "kill PostgreSQL")
	return c.signal(syscall.SIGQUIT)
}

// Restart starts the server again after Kill or StopKeep, with the same data on the same port.
func (c *Cluster) Restart(ctx context.Context) (err error) {
	defer wrap(&err, "restart PostgreSQL")
	return c.start(ctx)
}

// initialize makes the data folder.
func (c *Cluster) initialize(ctx context.Context) error {
	cmd := c.command(ctx, "initdb",
		"--pgdata", c.dataDir(), "--username", "postgres", "--auth", "trust",
		// The same order and the same texts on every machine.
		"--encoding", "UTF8", "--locale", "C",
		// Nothing is lost with a folder that is made anew each time; this saves a second.
		"--no-sync")
	if output, err := cmd.CombinedOutput(); err != nil {
		// Without the account, a folder that it may not enter would be a bare "permission denied".
		return fmt.Errorf("initdb in %s%s: %w\n%s", c.dir, c.runsAs(), err, bytes.TrimSpace(output))
	}
	return nil
}

// start runs the server and returns when it takes connections.
func (c *Cluster) start(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.server != nil {
		return errors.New("it is running")
	}

	args := []string{
		"-D", c.dataDir(), "-p", strconv.Itoa(c.port),
		"-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=" + c.dir,
	}
	for _, setting := range c.settings {
		args = append(args, "-c", setting)
	}
	logged, err := os.OpenFile(c.logFile(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = logged.Close() }() // nothing was written through it: the server has its own handle

	// The context bounds the start; the server lives on after it.
	cmd := c.command(context.WithoutCancel(ctx), "postgres", args...)
	cmd.Stdout, cmd.Stderr = logged, logged
	s, err := startServer(cmd)
	if err != nil {
		return err
	}
	if err := c.ready(ctx, s); err != nil {
		return fmt.Errorf("%w\n%s", errors.Join(err, s.stop(syscall.SIGQUIT)), c.logTail())
	}
	c.server = s
	return nil
}

// ready returns when the server takes connections.
func (c *Cluster) ready(ctx context.Context, s *server) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startLimit,
		fmt.Errorf("it took no connection within %s", startLimit))
	defer cancel()
	// It tells nobody when it is ready, so it has to be asked.
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for {
		err := c.exec(ctx, "SELECT 1")
		if err == nil {
			return nil
		}
		select {
		case <-s.exited:
			return fmt.Errorf("it ended by itself: %w", s.outcome())
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", context.Cause(ctx), err)
		case <-again.C:
		}
	}
}

// signal stops the server, if it runs, with one of the signals that PostgreSQL gives a meaning: SIGINT is a fast
// shutdown, SIGQUIT an immediate one.
func (c *Cluster) signal(how syscall.Signal) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.server == nil {
		return nil
	}
	err := c.server.stop(how)
	c.server = nil
	if err != nil {
		return fmt.Errorf("%w\n%s", err, c.logTail())
	}
	return nil
}

// exec runs one statement on a connection of its own, in the database that every cluster has.
func (c *Cluster) exec(ctx context.Context, statement string) (err error) {
	conn, err := pgx.Connect(ctx, c.URL("postgres"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	_, err = conn.Exec(ctx, statement)
	return err
}

// command is one of PostgreSQL's programs, under the account it may run as.
func (c *Cluster) command(ctx context.Context, program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(c.bin, program), args...)
	cmd.Dir = c.dir // PostgreSQL gives up when it may not read the folder it is started in
	// A clean environment: PGDATA, PGPORT, PGOPTIONS and a locale of the developer's would change what is started.
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C", "TZ=UTC"}
	// A process group of its own: Ctrl-C in the terminal is for the test, which then stops its server.
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: c.account, Setpgid: true}
	dieWithParent(cmd.SysProcAttr)
	return cmd
}

// runsAs names the account, for an error.
func (c *Cluster) runsAs() string {
	if c.account == nil {
		return ""
	}
	return fmt.Sprintf(" as user %d", c.account.Uid)
}

func (c *Cluster) dataDir() string { return filepath.Join(c.dir, "data") }
func (c *Cluster) logFile() string { return filepath.Join(c.dir, "server.log") }

// logTail is the end of the server's log, for an error.
func (c *Cluster) logTail() string {
	const limit = 4096
	f, err := os.Open(c.logFile())
	if err != nil {
		return err.Error()
	}
	defer func() { _ = f.Close() }() // it was only read
	if size, err := f.Seek(0, io.SeekEnd); err == nil {
		_, err = f.Seek(max(0, size-limit), io.SeekStart)
		if err != nil {
			return err.Error()
		}
	}
	tail, err := io.ReadAll(f)
	if err != nil {
		return err.Error()
	}
	return "the end of its log:\n" + string(bytes.TrimSpace(tail))
}

// server is one run of the postgres program.
type server struct {
	process *os.Process
	exited  chan struct{} // closed after the end
	err     error         // how it ended; read it after exited
}

// startServer runs the command and waits for its end on one thread that does nothing else: on Linux a child that
// is to die with its parent dies with the thread that started it, and Go ends idle threads.
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

// stop sends the signal and waits for the end. A server that does not heed it is killed, and that is an error.
func (s *server) stop(how syscall.Signal) error {
	select {
	case <-s.exited:
		if how == syscall.SIGQUIT {
			return nil
		}
		return fmt.Errorf("it had ended by itself: %w", s.outcome())
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
		return nil // it exits as it would after a crash, which is what was asked for
	}
	return s.err
}

// outcome is how a server ended that nobody stopped.
func (s *server) outcome() error {
	if s.err == nil {
		return errors.New("exit status 0")
	}
	return s.err
}

// findPrograms returns the folder that holds initdb and postgres: from PATH, or else the newest version's below
// Debian's folder, which Debian keeps out of PATH.
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

// findAccount returns whom to run PostgreSQL as: it refuses root, so root runs it as the account that Debian's
// package makes, or else as nobody. Everybody else runs it as themselves: nil.
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

// freePort returns a port of 127.0.0.1 on which nobody listens. It chooses below the range from which systems take
// the ports of outgoing connections. Inside it, a client that tries to reconnect to a stopped server can be given
// the server's own port, be connected with itself, and keep the server from coming back.
func freePort(ctx context.Context) (int, error) {
	const lowest, highest = 16_384, 32_767
	var err error
	for range 100 {
		port := lowest + rand.IntN(highest-lowest+1) //nolint:gosec // a port is no secret
		var listener net.Listener
		listener, err = (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err == nil {
			return port, listener.Close()
		}
	}
	return 0, fmt.Errorf("find a free port: %w", err)
}

// wrap puts what was being done before an error.
func wrap(err *error, format string, args ...any) {
	if *err != nil {
		*err = fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), *err)
	}
}
