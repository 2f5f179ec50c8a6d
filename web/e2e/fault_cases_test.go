//go:build linux

package e2e_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"tollgate/models/modelstest"
)

const (
	cuts   = 5
	slowBy = 100 * time.Millisecond // in each direction
	// connectionLimit is PostgreSQL's limit for the role of the server in the trial of its pool.
	connectionLimit = 80
	smallDiskSize   = "48m"
	slowReaders     = 60
	idleClients     = 1000
	halfSenders     = 300
	halfBody        = 48 << 10 // of a body that is twice as long
	csvEvents       = 2000
)

// failures returns the rows of the matrix.
func failures() []failure {
	inProcess := "does not apply: SQLite is a part of the server's process and has no network"
	crash := action{
		does:  "one process is killed (`kill -9`), and is started again after the span",
		shows: breaks, restarts: true, begin: func(o *trial) func() { return o.down((*server).crash) },
	}
	terminate := action{
		does:  "one process is stopped (`SIGTERM`), and is started again after the span",
		shows: breaks, restarts: true,
		begin: func(o *trial) func() {
			return o.down(func(p *server) error { _, err := p.stop(); return err })
		},
	}
	clock := func(does string, ahead time.Duration) action {
		var set func(time.Duration)
		return action{
			does: does, jumps: true,
			start: func(o *trial) (s *site) { s, set = o.clockSite(); return s },
			begin: func(o *trial) func() {
				set(ahead)
				o.wantClock(ahead)
				return func() { set(0); o.wantClock(0) }
			},
		}
	}
	hour := "the clock of one process is set back by an hour, and forward again after the span"
	day := "the clock of one process is set forward by a day, and back again after the span"
	reads := action{
		does:  fmt.Sprintf("%d clients request large answers, such as a CSV file, and read one byte per second", slowReaders),
		begin: (*trial).readSlowly, byClients: true,
	}
	idles := action{
		does:  fmt.Sprintf("%d clients keep a connection open after a call", idleClients),
		begin: (*trial).idle, byClients: true,
	}
	halves := action{
		does:  fmt.Sprintf("%d clients send only the first half of a call's body", halfSenders),
		begin: (*trial).sendHalves, byClients: true,
	}

	return []failure{
		{"server killed", crash, crash},
		{"server terminated", terminate, terminate},
		{
			"database killed",
			action{
				does: fmt.Sprintf("another process is killed after it has written %d MiB to the same file in a transaction that is not "+
					"committed", uncommitted),
				begin: (*trial).killNeighbor,
			},
			action{
				does: "PostgreSQL is killed, and is started again after the span", shows: refuses,
				start: (*trial).clusterSite,
				begin: func(o *trial) func() { return o.databaseDown((*modelstest.Cluster).Kill) },
			},
		},
		{
			"database restarted",
			action{does: inProcess + "; see the rows about the server"},
			action{
				does: "PostgreSQL is shut down cleanly, and is started again after the span", shows: refuses,
				start: (*trial).clusterSite,
				begin: func(o *trial) func() { return o.databaseDown((*modelstest.Cluster).StopKeep) },
			},
		},
		{
			"connection cut",
			action{does: inProcess},
			repeated(cuts, linked(
				fmt.Sprintf("all connections to PostgreSQL break, and each new one during the span, too; this happens %d times", cuts),
				refuses, (*modelstest.SlowLink).Cut)),
		},
		{
			"connection slowed",
			action{
				does: fmt.Sprintf("a slow disk cannot be imitated, so another process locks the file for writing for %d ms of each %d ms",
					lockedFor.Milliseconds(), lockedEvery.Milliseconds()),
				shows: delays,
				begin: func(o *trial) func() { end, _ := o.neighbor(neighborSlows); return end },
			},
			linked(fmt.Sprintf("each byte to and from PostgreSQL arrives %d ms later", slowBy.Milliseconds()), delays,
				func(l *modelstest.SlowLink) func() {
					l.SetDelay(slowBy)
					return func() { l.SetDelay(0) }
				}),
		},
		{
			"half open",
			action{does: inProcess},
			halfOpen(linked(
				"everything that is sent on old and new connections to PostgreSQL during the span is lost, and neither side learns of it",
				refuses, (*modelstest.SlowLink).Mute)),
		},
		{
			"disk full",
			action{
				does: "the file system of the database is full", shows: refuses, mounts: true,
				start: (*trial).smallSite, begin: (*trial).fill,
			},
			action{
				does: "the file system with the tables is full, but not the one with the write-ahead log", shows: refuses, mounts: true,
				start: (*trial).smallSite, begin: (*trial).fill,
			},
		},
		{
			"pool exhausted",
			action{
				does:  fmt.Sprintf("another process holds %d snapshots of the file open, so the file's log cannot be emptied", snapshots),
				begin: func(o *trial) func() { end, _ := o.neighbor(neighborReads); return end },
			},
			action{
				does: fmt.Sprintf("Tollgate's connections are ended, and then other clients use all %d connections that Tollgate's "+
					"database role may have", connectionLimit),
				shows: refuses, start: (*trial).limitedSite, begin: (*trial).useConnections,
			},
		},
		{
			"lock held",
			action{
				does: "another process locks the file for writing", shows: refuses,
				begin: func(o *trial) func() { end, _ := o.neighbor(neighborLocks); return end },
			},
			action{does: "another session locks the table of usage records (`ACCESS EXCLUSIVE`)", shows: refuses, begin: (*trial).lockTable},
		},
		{"clock an hour back", clock(hour, -time.Hour), clock(hour, -time.Hour)},
		{"clock a day forward", clock(day, 24*time.Hour), clock(day, 24*time.Hour)},
		{"slow reader", reads, reads},
		{"idle connections", idles, idles},
		{"half-sent bodies", halves, halves},
	}
}

// newSite starts one process on SQLite, which allows no more, or two on PostgreSQL.
func (o *trial) newSite() *site {
	o.t.Helper()
	if o.kind == "SQLite" {
		return newSite(o.t, sqliteDatabase(o.t), 1)
	}
	return newSite(o.t, postgresDatabase(o.t), 2)
}

// down ends the first process. The end of the failure starts it again.
func (o *trial) down(end func(*server) error) (start func()) {
	o.t.Helper()
	must(o.t, end(o.servers[0]))
	return func() { o.restart(o.servers[0]) }
}

// killNeighbor kills the other process at the end of the failure. Until then, it blocks all calls
// that record, so it must end soon.
func (o *trial) killNeighbor() func() {
	_, kill := o.neighbor(neighborWrites)
	kill()
	return func() {
		var tables int
		db := o.open()
		must(o.t, db.QueryRowContext(o.t.Context(), "SELECT COUNT(*) FROM sqlite_master WHERE name = 'neighbor'").Scan(&tables), db.Close())
		if tables > 0 {
			o.t.Error("a transaction of the killed process was committed")
		}
		o.wantIntegrity()
	}
}

// clusterSite starts the processes on a PostgreSQL of their own.
func (o *trial) clusterSite() *site {
	o.cluster = cluster(o.t)
	must(o.t, o.cluster.CreateDatabase(o.t.Context(), "trial"))
	return newSite(o.t, o.cluster.URL("trial"), 2)
}

// databaseDown ends the database. The processes run on and say that they are not ready.
func (o *trial) databaseDown(end func(*modelstest.Cluster) error) (start func()) {
	o.t.Helper()
	must(o.t, end(o.cluster))
	for _, p := range o.servers {
		for path, want := range map[string]int{"/readyz": http.StatusServiceUnavailable, "/healthz": http.StatusOK} {
			begun := time.Now()
			status, err := p.get(o.t.Context(), path)
			if took := time.Since(begun); err != nil || status != want || took > 5*time.Second {
				o.t.Errorf("%s without a database: status %d after %s, %v; want %d", path, status, took, err, want)
			}
		}
	}
	return func() { must(o.t, o.cluster.Restart(o.t.Context())) }
}

// linked is a failure of the network between the processes and PostgreSQL.
func linked(does string, shows effect, begin func(*modelstest.SlowLink) (end func())) action {
	return action{
		does: does, shows: shows,
		start: func(o *trial) *site {
			direct := postgresDatabase(o.t)
			link, address := modelstest.NewSlowLink(o.t, direct, 0)
			s := newSite(o.t, address, 2)
			o.link, s.database = link, direct
			return s
		},
		begin: func(o *trial) func() { return begin(o.link) },
	}
}

// halfOpen gives the processes more time. Only a call that runs out of time finds out that its
// connection is lost, and the next call may use another one that is lost too.
func halfOpen(a action) action {
	a.recovers = 2 * recovers
	return a
}

// repeated lets a failure begin several times, twice in the short form. Between two of them, the
// processes decide calls on new connections. So connections that are not closed add up.
func repeated(times int, a action) action {
	if *soak == 0 {
		times = 2
	}
	once := a.begin
	a.begin = func(o *trial) (end func()) {
		for range times - 1 {
			before := o.client.traffic()
			end := once(o)
			o.wantEffect(a.shows, before)
			end()
			o.recovery(time.Now(), recovers)
		}
		return once(o)
	}
	return a
}

// smallSite starts the processes on a small file system. PostgreSQL has only the tables there, in a
// tablespace.
func (o *trial) smallSite() *site {
	o.t.Helper()
	o.disk = smallDisk(o.t, smallDiskSize)
	if o.kind == "SQLite" {
		return newSite(o.t, "sqlite:"+filepath.Join(o.disk, "tollgate.db"), 1)
	}
	c, name := sharedCluster(o.t)
	conn, err := pgx.Connect(o.t.Context(), c.URL("postgres"))
	must(o.t, err)
	o.t.Cleanup(func() { must(o.t, conn.Close(context.WithoutCancel(o.t.Context()))) })
	run := func(statement string) {
		_, err := conn.Exec(context.WithoutCancel(o.t.Context()), statement)
		must(o.t, err)
	}
	var data string
	must(o.t, conn.QueryRow(o.t.Context(), "SHOW data_directory").Scan(&data))
	owner, err := os.Stat(data)
	must(o.t, err)
	stat := owner.Sys().(*syscall.Stat_t)
	folder := filepath.Join(o.disk, "tablespace")
	must(o.t, os.Mkdir(folder, 0o700), os.Chown(folder, int(stat.Uid), int(stat.Gid)))
	run("CREATE TABLESPACE " + name + " LOCATION '" + folder + "'")
	o.t.Cleanup(func() { run("DROP TABLESPACE " + name) })
	run("CREATE DATABASE " + name + " TEMPLATE template0 TABLESPACE " + name)
	o.t.Cleanup(func() { run("DROP DATABASE " + name + " WITH (FORCE)") })
	return newSite(o.t, c.URL(name), 2)
}

// fill fills the file system with a file, until the end of the failure.
func (o *trial) fill() func() {
	o.t.Helper()
	path := filepath.Join(o.disk, "filler")
	f, err := os.Create(path)
	must(o.t, err)
	for page := make([]byte, 4<<10); err == nil; {
		_, err = f.Write(page)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		o.t.Fatal(err)
	}
	must(o.t, f.Close())
	return func() { must(o.t, os.Remove(path)) }
}

// limitedSite starts the processes with a role of PostgreSQL that has a limit of connections.
func (o *trial) limitedSite() *site {
	o.t.Helper()
	c, name := sharedCluster(o.t)
	conn, err := pgx.Connect(o.t.Context(), c.URL("postgres"))
	must(o.t, err)
	for _, statement := range []string{
		fmt.Sprintf("CREATE ROLE %s LOGIN CONNECTION LIMIT %d", name, connectionLimit),
		fmt.Sprintf("CREATE DATABASE %s TEMPLATE template0 OWNER %s", name, name),
	} {
		_, err := conn.Exec(o.t.Context(), statement)
		must(o.t, err)
	}
	must(o.t, conn.Close(o.t.Context()))
	u, err := url.Parse(c.URL(name))
	must(o.t, err)
	u.User = url.User(name)
	return newSite(o.t, u.String(), 2)
}

// useConnections takes every connection that the role may have, until the end of the failure. It
// ends the server's own, so that the server has to connect again.
func (o *trial) useConnections() func() {
	o.t.Helper()
	ctx, cancel := context.WithCancel(o.t.Context())
	var taken []*pgx.Conn
	take := func() bool {
		conn, err := pgx.Connect(ctx, o.database)
		var refused *pgconn.PgError
		switch {
		case err == nil:
			taken = append(taken, conn)
			return true
		case ctx.Err() == nil && (!errors.As(err, &refused) || refused.Code != "53300"): // too_many_connections
			o.t.Error(err)
		}
		return false
	}
	for take() {
	}
	if len(taken) == 0 {
		o.t.Fatal("the role has no free connection")
	}
	var taking sync.WaitGroup
	taking.Go(func() {
		for ctx.Err() == nil {
			// The one that is free now is the server's or ours, whoever connects first.
			_, err := taken[0].Exec(ctx, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
				WHERE usename = current_user AND application_name LIKE 'tollgate%'`)
			if err != nil && ctx.Err() == nil {
				o.t.Error(err)
				return
			}
			for take() {
			}
		}
	})
	return func() {
		cancel()
		taking.Wait()
		for _, conn := range taken {
			_ = conn.Close(context.WithoutCancel(ctx)) // the canceled one is closed already
		}
	}
}

// lockTable locks the table of usage records until the end of the failure.
func (o *trial) lockTable() func() {
	o.t.Helper()
	db := o.open()
	tx, err := db.BeginTx(o.t.Context(), nil)
	must(o.t, err)
	_, err = tx.ExecContext(o.t.Context(), "LOCK TABLE usage_records IN ACCESS EXCLUSIVE MODE")
	must(o.t, err)
	return func() { must(o.t, tx.Rollback(), db.Close()) }
}

// clockSite starts the processes, the first one with a clock that can be set.
func (o *trial) clockSite() (s *site, set func(time.Duration)) {
	o.t.Helper()
	s = o.newSite()
	p := s.servers[0]
	if _, err := p.stop(); err != nil {
		o.t.Fatal(err)
	}
	set = withClock(o.t, p)
	s.restart(p)
	return s, set
}

// wantClock waits until the first process's clock is ahead by this much.
func (o *trial) wantClock(ahead time.Duration) {
	o.t.Helper()
	n := 0
	eventually(o.t, fmt.Sprintf("the clock is ahead by %s", ahead), func() bool {
		n++
		return o.clockAhead(o.servers[0], fmt.Sprintf("clock-%s-%d", ahead, n)) == ahead
	})
}

// connections opens connections to the first process, in parallel, and returns when do has begun on
// each. The end of the failure closes them.
func (o *trial) connections(n int, do func(i int, c *net.TCPConn) error) (closeAll func()) {
	o.t.Helper()
	before, err := o.servers[0].descriptors()
	must(o.t, err)
	all := make([]net.Conn, n)
	spread(o.t.Context(), 64, n, func(i int) {
		conn, err := new(net.Dialer).DialContext(o.t.Context(), "tcp", o.servers[0].addr)
		if err == nil {
			all[i] = conn
			err = do(i, conn.(*net.TCPConn))
		}
		if err != nil {
			o.t.Error(err)
		}
	})
	eventually(o.t, "the process has all connections open", func() bool {
		now, err := o.servers[0].descriptors()
		must(o.t, err)
		return now > before+n*9/10 // a few of the callers' connections may have been closed
	})
	return func() {
		for _, conn := range all {
			if conn != nil {
				_ = conn.Close()
			}
		}
	}
}

// idle opens connections that are idle after a call.
func (o *trial) idle() func() {
	check := o.httpCall("POST", "/v1/check", body{"email": o.members[0].email})
	return o.connections(idleClients, func(_ int, c *net.TCPConn) error {
		if _, err := c.Write(check); err != nil {
			return err
		}
		answer := make([]byte, len("HTTP/1.1 200"))
		if _, err := io.ReadFull(c, answer); err != nil || string(answer) != "HTTP/1.1 200" {
			return fmt.Errorf("a check got %q, %w", answer, err)
		}
		return nil
	})
}

// httpCall returns a call as it is sent.
func (o *trial) httpCall(method, path string, content body) []byte {
	var encoded []byte
	if content != nil {
		encoded = encode(o.t, content)
	}
	return append(o.head(method, path, len(encoded)), encoded...)
}

func (o *trial) head(method, path string, length int) []byte {
	return fmt.Appendf(nil, "%s %s HTTP/1.1\r\nHost: tollgate\r\nAuthorization: Bearer %s\r\n"+
		"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n", method, path, o.client.key, length)
}

// sendHalves sends half of a call on each connection.
func (o *trial) sendHalves() func() {
	half := append(o.head("POST", "/v1/events", 2*halfBody), bytes.Repeat([]byte(" "), halfBody)...)
	return o.connections(halfSenders, func(_ int, c *net.TCPConn) error {
		_, err := c.Write(half)
		return err
	})
}

// readSlowly requests more than the buffers of a connection hold, and reads one byte per second.
func (o *trial) readSlowly() func() {
	o.t.Helper()
	email := o.members[0].email
	cookie := o.manyEvents(email)
	requests := [][]byte{
		bytes.Repeat(o.httpCall("GET", "/v1/usage/"+email+"/events", nil), 100),
		bytes.Repeat(o.httpCall("GET", "/v1/openapi.json", nil), 100),
		fmt.Appendf(nil, "GET /usage/activity.csv HTTP/1.1\r\nHost: tollgate\r\nCookie: %s\r\n\r\n", cookie),
	}
	ctx, cancel := context.WithCancel(o.t.Context())
	var reading sync.WaitGroup
	closeAll := o.connections(slowReaders, func(i int, c *net.TCPConn) error {
		if err := c.SetReadBuffer(4 << 10); err != nil {
			return err
		}
		if _, err := c.Write(requests[i%len(requests)]); err != nil {
			return err
		}
		status := make([]byte, len("HTTP/1.1 200"))
		if _, err := io.ReadFull(c, status); err != nil || string(status) != "HTTP/1.1 200" {
			return fmt.Errorf("a request got %q, %w", status, err)
		}
		reading.Go(func() {
			for one := make([]byte, 1); pause(ctx, time.Second); {
				_, _ = c.Read(one) // the server ends the connection after a while
			}
		})
		return nil
	})
	return func() { cancel(); closeAll(); reading.Wait() }
}

// manyEvents records events of a person, and returns the cookie of the person's session.
func (o *trial) manyEvents(email string) (cookie string) {
	o.t.Helper()
	const batch = 1000
	at := time.Now().UTC().Format(time.RFC3339)
	var mu sync.Mutex
	spread(o.t.Context(), 2, csvEvents/batch, func(n int) {
		events := make([]body, batch)
		for i := range events {
			events[i] = body{"email": email, "quantity": 1, "idempotency_key": fmt.Sprintf("many-%d-%d", n, i), "occurred_at": at}
		}
		o.members[0].atMost.Add(batch)
		r := o.client.insist(o.t.Context(), o.addresses(), n, http.MethodPost, "/v1/events", body{"events": events})
		var answer struct {
			Results []struct {
				Key string `json:"idempotency_key"`
				ID  string `json:"event_id"`
			}
		}
		if err := r.read(http.StatusOK, &answer); err != nil {
			o.t.Error(err)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		for _, e := range answer.Results {
			o.members[0].atLeast.Add(1)
			o.record(e.Key, grant{e.ID, email, 1}, false)
		}
	})
	browser := signedIn(o.t, o.site, email)
	u, err := url.Parse("http://" + o.servers[0].addr)
	must(o.t, err)
	var cookies []string
	for _, c := range browser.Jar.Cookies(u) {
		cookies = append(cookies, c.Name+"="+c.Value)
	}
	return strings.Join(cookies, "; ")
}
