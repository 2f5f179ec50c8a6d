// Package modelstest starts the databases that tests and benchmarks run on.
//
// A test binary that needs PostgreSQL gets its own cluster, on a free port and in its own folder.
// So nothing has to be set up or cleaned up for a test run, and no existing database is ever
// touched.
package modelstest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	// startLimit bounds the wait until a server accepts connections, including recovery after a
	// Kill.
	startLimit = 30 * time.Second
	// stopLimit bounds the wait for a server that is being stopped. It is more than the 5 seconds
	// that an immediate shutdown gives child processes before it kills them.
	stopLimit = 30 * time.Second
)

// PostgresOptions describes a cluster. The zero value is a fast one for tests.
type PostgresOptions struct {
	// Durable leaves fsync, full_page_writes and synchronous_commit at their default, on.
	// Otherwise, they are off, and a Kill may lose the last commits. Use a durable cluster for
	// measurements and crash tests.
	Durable bool
	// MaxConnections is PostgreSQL's setting of that name; 0 means its default, 100.
	MaxConnections int
	// Settings are other settings, by their names in postgresql.conf. They come last and take
	// precedence.
	Settings map[string]string
}

// settings returns the settings in the order in which the server gets them, as name=value.
func (o PostgresOptions) settings() []string {
	var list []string
	if !o.Durable {
		// A short log, because it uses memory. Few buffers, because each new connection maps them. No
		// autovacuum, because it starts a process for each of many short-lived databases.
		list = append(list, "fsync=off", "full_page_writes=off", "synchronous_commit=off", "max_wal_size=64MB", "shared_buffers=16MB",
			"autovacuum=off")
	}
	if o.MaxConnections > 0 {
		list = append(list, "max_connections="+strconv.Itoa(o.MaxConnections))
	}
	for _, name := range slices.Sorted(maps.Keys(o.Settings)) {
		list = append(list, name+"="+o.Settings[name])
	}
	return list
}

// Cluster is a PostgreSQL cluster that this process started. Its methods are safe for concurrent
// use.
type Cluster struct {
	bin      string // folder of initdb and postgres
	dir      string // all files of the cluster
	port     int
	settings []string
	account  *syscall.Credential // nil means this process's own
	durable  bool

	mu     sync.Mutex // held during each start and stop
	server *server    // nil while stopped

	adminMu sync.Mutex
	admin   *pgx.Conn // stays open for exec, because a new connection can take 25 ms; nil without one
	major   int       // version of the server, such as 15
}

// StartPostgres creates and starts a new, empty cluster in a temporary folder, in memory unless it
// is durable. It listens on a free port of 127.0.0.1 and accepts all connections there without a
// password, as the superuser postgres. The caller must call Stop. If this process dies first, the
// server stops too (on Linux), but its folder remains.
//
// The context bounds only the start. If the server does not start, the error ends with the tail of
// its log.
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
	c := &Cluster{bin: bin, dir: dir, settings: o.settings(), account: account, durable: o.Durable}
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

	// Another process may take the port between choosing it and listening on it.
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

// URL returns the address of one of the cluster's databases. It stays the same after Restart.
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

// Program returns the path of another PostgreSQL program of the same version, such as pg_dump. PATH
// may contain links to only the server's programs.
func (c *Cluster) Program(name string) (string, error) {
	initdb, err := filepath.EvalSymlinks(filepath.Join(c.bin, "initdb"))
	if err != nil {
		return "", err
	}
	return exec.LookPath(filepath.Join(filepath.Dir(initdb), name))
}

// CreateDatabase creates an empty database.
func (c *Cluster) CreateDatabase(ctx context.Context, name string) error {
	// The template is not template1, PostgreSQL's default: a database cannot be copied while it has
	// connections, and template0 accepts none.
	return c.createDatabase(ctx, name, "template0")
}

func (c *Cluster) createDatabase(ctx context.Context, name, template string) (err error) {
	defer wrap(&err, "create database %q", name)
	statement := "CREATE DATABASE " + pgx.Identifier{name}.Sanitize() + " TEMPLATE " + pgx.Identifier{template}.Sanitize()
	if !c.durable && c.version() >= 15 {
		// Older versions always do this. Newer ones log each page of the copy by default, which takes
		// longer for a small database. Each copy comes after a checkpoint, which is slow only with fsync.
		statement += " STRATEGY file_copy"
	}
	return c.exec(ctx, statement)
}

// Stop shuts the server down, ends open connections, and deletes its folder. It may be called after
// Kill and StopKeep, and more than once.
func (c *Cluster) Stop() (err error) {
	defer wrap(&err, "stop PostgreSQL")
	return errors.Join(c.signal(syscall.SIGINT), os.RemoveAll(c.dir))
}

// StopKeep shuts the server down, ends open connections, and keeps its folder for Restart.
func (c *Cluster) StopKeep() (err error) {
	defer wrap(&err, "stop PostgreSQL")
	return c.signal(syscall.SIGINT)
}

// Kill ends the server like a crash: immediately and without a checkpoint. Its folder remains for
// Restart, which recovers.
func (c *Cluster) Kill() (err error) {
	defer wrap(&err, "kill PostgreSQL")
	return c.signal(syscall.SIGQUIT)
}

// Restart starts the server again after Kill or StopKeep, with the same data on the same port.
func (c *Cluster) Restart(ctx context.Context) (err error) {
	defer wrap(&err, "restart PostgreSQL")
	return c.start(ctx)
}

// initialize creates the data folder.
func (c *Cluster) initialize(ctx context.Context) error {
	cmd := c.command(ctx, "initdb",
		"--pgdata", c.dataDir(), "--username", "postgres", "--auth", "trust",
		// The same sort order and messages on every machine.
		"--encoding", "UTF8", "--locale", "C",
		// The folder is new, so nothing can be lost; this saves a second.
		"--no-sync")
	if output, err := cmd.CombinedOutput(); err != nil {
		// Without the account, an unreadable folder would be just "permission denied".
		return fmt.Errorf("initdb in %s%s: %w\n%s", c.dir, c.runsAs(), err, bytes.TrimSpace(output))
	}
	return nil
}

// start runs the server and returns when it accepts connections.
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
	defer func() { _ = logged.Close() }() // the server writes with its own handle

	// The context bounds only the start; the server continues to run.
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

// ready waits until the server accepts connections.
func (c *Cluster) ready(ctx context.Context, s *server) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startLimit,
		fmt.Errorf("it accepted no connection within %s", startLimit))
	defer cancel()
	// The server does not report when it is ready, so try to connect.
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for {
		err := c.exec(ctx, "SELECT 1")
		if err == nil {
			return nil
		}
		select {
		case <-s.exited:
			return fmt.Errorf("it ended unexpectedly: %w", s.outcome())
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", context.Cause(ctx), err)
		case <-again.C:
		}
	}
}

// signal stops the server, if it runs, with a signal of PostgreSQL's: SIGINT is a fast shutdown,
// and SIGQUIT an immediate one.
func (c *Cluster) signal(how syscall.Signal) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.server == nil {
		return nil
	}
	c.disconnect()
	err := c.server.stop(how)
	c.server = nil
	if err != nil {
		return fmt.Errorf("%w\n%s", err, c.logTail())
	}
	return nil
}

// exec runs statements in the database that each cluster has. Only one exec runs at a time.
func (c *Cluster) exec(ctx context.Context, statements string) (err error) {
	c.adminMu.Lock()
	defer c.adminMu.Unlock()
	if c.admin == nil {
		if c.admin, err = pgx.Connect(ctx, c.URL("postgres")); err != nil {
			return err
		}
		_, _ = fmt.Sscanf(c.admin.PgConn().ParameterStatus("server_version"), "%d", &c.major)
	}
	if _, err = c.admin.Exec(ctx, statements); c.admin.IsClosed() {
		c.admin = nil // the server was stopped, or the context ended
	}
	return err
}

// version returns the major version of a server that has been running.
func (c *Cluster) version() int {
	c.adminMu.Lock()
	defer c.adminMu.Unlock()
	return c.major
}

// disconnect closes the connection of exec.
func (c *Cluster) disconnect() {
	c.adminMu.Lock()
	defer c.adminMu.Unlock()
	if c.admin != nil {
		_ = c.admin.Close(context.Background()) // the server may be gone
		c.admin = nil
	}
}

// command returns a command for one of PostgreSQL's programs, under the account that it may run as.
func (c *Cluster) command(ctx context.Context, program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(c.bin, program), args...)
	cmd.Dir = c.dir // PostgreSQL exits if it may not read its working directory
	// A clean environment: the developer's PGDATA, PGPORT, PGOPTIONS or locale would change the
	// server.
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C", "TZ=UTC"}
	// A process group of its own, so that Ctrl-C in the terminal stops only the test, which then
	// stops the server.
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: c.account, Setpgid: true}
	dieWithParent(cmd.SysProcAttr)
	return cmd
}

// runsAs returns the account for an error message.
func (c *Cluster) runsAs() string {
	if c.account == nil {
		return ""
	}
	return fmt.Sprintf(" as user %d", c.account.Uid)
}

func (c *Cluster) dataDir() string { return filepath.Join(c.dir, "data") }
func (c *Cluster) logFile() string { return filepath.Join(c.dir, "server.log") }

// logTail returns the end of the server's log for an error message.
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

// wrap puts the action that failed before an error.
func wrap(err *error, format string, args ...any) {
	if *err != nil {
		*err = fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), *err)
	}
}
