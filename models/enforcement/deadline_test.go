package enforcement_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"tollgate/models"
	"tollgate/models/enforcement"
	"tollgate/models/modelstest"
)

// promised is how long any call may take, whatever the database does.
const promised = 5 * time.Second

// mixed makes concurrent calls of all kinds, for people who are known, linked or new. It returns
// how many were refused because the database is unavailable, and how many of those may have been
// recorded. It fails the test if a call took longer than promised.
func (f *fixture) mixed(t *testing.T, round string, calls int) (unavailable, unconfirmed int) {
	t.Helper()
	var mu sync.Mutex
	var all sync.WaitGroup
	var slowest time.Duration
	for i := range calls {
		all.Go(func() {
			time.Sleep(time.Duration(i) * 20 * time.Millisecond) // staggered, so that they form several groups
			key, known := fmt.Sprint(round, i), by(fmt.Sprintf("known%d@example.com", i%8))
			fresh := by(fmt.Sprintf("new%d-%s@example.com", i, round))
			fresh.Slack = models.SlackIdentity{TeamID: "T1", UserID: fmt.Sprintf("U%d%s", i, round)}
			begun := time.Now()
			var err error
			switch i % 5 {
			case 0:
				_, err = f.Consume(context.Background(), known, 1, key)
			case 1:
				_, err = f.Consume(context.Background(), fresh, 1, key)
			case 2:
				_, err = f.Hold(context.Background(), known, 1, key, time.Minute)
			case 3:
				_, err = f.Record(context.Background(), []enforcement.PastEvent{{Person: known, Quantity: 1, IdempotencyKey: key, OccurredAt: f.now}})
			case 4:
				_, err = f.Consume(context.Background(), enforcement.Person{Slack: models.SlackIdentity{TeamID: "T1", UserID: "UKNOWN"}}, 1, key)
			}
			took := time.Since(begun)
			mu.Lock()
			defer mu.Unlock()
			slowest = max(slowest, took)
			if took > promised {
				t.Errorf("call %d took %s, want at most %s", i, took.Round(time.Millisecond), promised)
			}
			if e := (*models.Error)(nil); errors.As(err, &e) && e.Code == models.CodeUnavailable {
				unavailable++
				if strings.Contains(e.Detail, "may have been recorded") {
					unconfirmed++
				}
			} else if err != nil {
				t.Errorf("call %d: %v", i, err)
			}
		})
	}
	all.Wait()
	t.Logf("the slowest of %d calls took %s", calls, slowest.Round(time.Millisecond))
	return unavailable, unconfirmed
}

// knowPeople creates the known people of mixed.
func (f *fixture) knowPeople(t *testing.T) {
	t.Helper()
	for i := range 8 {
		email := fmt.Sprintf("known%d@example.com", i)
		if _, err := models.Subscribe(f.ctx, f.db, f.catalogue, f.now, models.Subscriber{Email: email}, "pro"); err != nil {
			t.Fatal(err)
		}
		f.consume(t, email, 1, "first"+email)
	}
	linked := by("linked@example.com")
	linked.Slack = models.SlackIdentity{TeamID: "T1", UserID: "UKNOWN"}
	if _, err := f.Consume(f.ctx, linked, 1, "first"); err != nil {
		t.Fatal(err)
	}
}

// TestLockedFileIsAnsweredInTime checks that each call is answered within five seconds, even if its
// group waits for another group, and that calls that get a 503 record nothing.
func TestLockedFileIsAnsweredInTime(t *testing.T) {
	t.Parallel()
	address := modelstest.SQLite(t)
	f := newFixture(t, address)
	f.knowPeople(t)
	before := f.clean(t)
	other, err := sql.Open("sqlite", strings.TrimPrefix(address, "sqlite:"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Close() }()
	lock, err := other.Conn(f.ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lock.ExecContext(f.ctx, "BEGIN EXCLUSIVE"); err != nil {
		t.Fatal(err)
	}
	unavailable, unconfirmed := f.mixed(t, "locked", 64)
	if unavailable != 64 || unconfirmed != 0 {
		t.Errorf("%d of 64 calls got a 503, %d of them unconfirmed; want 64 and 0", unavailable, unconfirmed)
	}
	if err := f.Ready(f.ctx); err == nil {
		t.Error("a gate with a locked file is ready")
	}
	if _, err := lock.ExecContext(f.ctx, "ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	if events := f.clean(t); events != before {
		t.Errorf("%d events were recorded by calls that got a 503", events-before)
	}
	f.recovers(t)
}

// TestLockedTableIsAnsweredInTime checks the same with a table that another program has locked.
func TestLockedTableIsAnsweredInTime(t *testing.T) {
	t.Parallel()
	f := newFixture(t, modelstest.Postgres(t))
	f.knowPeople(t)
	before := f.clean(t)
	tx, err := f.db.BeginTx(f.ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback() }() // already rolled back unless the test failed
	if _, err := tx.ExecContext(f.ctx, "SET LOCAL idle_in_transaction_session_timeout = 0"); err != nil {
		t.Fatal(err)
	}
	if _, err := tx.ExecContext(f.ctx, "LOCK TABLE usage_records"); err != nil {
		t.Fatal(err)
	}
	unavailable, unconfirmed := f.mixed(t, "locked", 64)
	if unavailable != 64 || unconfirmed != 0 {
		t.Errorf("%d of 64 calls got a 503, %d of them unconfirmed; want 64 and 0", unavailable, unconfirmed)
	}
	if err := f.Ready(f.ctx); err == nil {
		t.Error("a gate with a locked table is ready")
	}
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	if events := f.clean(t); events != before {
		t.Errorf("%d events were recorded by calls that got a 503", events-before)
	}
	f.recovers(t)
}

// TestSilentDatabaseIsAnsweredInTime checks that calls are answered in time if the database stops
// responding. Calls that may have been recorded say so.
func TestSilentDatabaseIsAnsweredInTime(t *testing.T) {
	t.Parallel()
	address := modelstest.Postgres(t)
	p := newProxy(t, address)
	f := newFixture(t, p.address)
	f.knowPeople(t)
	p.silent.Store(true)
	if unavailable, _ := f.mixed(t, "silent", 64); unavailable != 64 {
		t.Errorf("%d of 64 calls got a 503, want all", unavailable)
	}
	if err := f.Ready(f.ctx); err == nil {
		t.Error("a gate with a silent database is ready")
	}
	p.silent.Store(false)
	p.cut()
	f.recovers(t)
	f.clean(t)
}

// recovers waits until the gate is ready again, without a call, and then makes a call.
func (f *fixture) recovers(t *testing.T) {
	t.Helper()
	for end := time.Now().Add(15 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		err := f.Ready(f.ctx)
		if err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("the gate is not ready again: %v", err)
		}
	}
	f.consume(t, "known0@example.com", 1, "after")
}

// proxy forwards between the gate and PostgreSQL, and can stop forwarding.
type proxy struct {
	address string
	silent  atomic.Bool

	mu    sync.Mutex
	conns []net.Conn
}

func newProxy(t *testing.T, address string) *proxy {
	t.Helper()
	_, rest, _ := strings.Cut(address, "@")
	target, _, _ := strings.Cut(rest, "/")
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{address: strings.Replace(address, target, l.Addr().String(), 1)}
	t.Cleanup(func() { _ = l.Close(); p.cut() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			server, err := new(net.Dialer).DialContext(context.Background(), "tcp", target)
			if err != nil {
				_ = c.Close()
				continue
			}
			p.mu.Lock()
			p.conns = append(p.conns, c, server)
			p.mu.Unlock()
			go p.forward(c, server)
			go p.forward(server, c)
		}
	}()
	return p
}

func (p *proxy) forward(from, to net.Conn) {
	defer func() { _ = to.Close() }()
	b := make([]byte, 64<<10)
	for {
		n, err := from.Read(b)
		if err != nil {
			return
		}
		if p.silent.Load() {
			continue
		}
		if _, err := to.Write(b[:n]); err != nil {
			return
		}
	}
}

// cut closes all connections.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		_ = c.Close()
	}
	p.conns = nil
}

// After packets were lost on all connections, only the first call runs out of time. The others find
// out soon that their connections are lost too. On a busy machine, PostgreSQL itself may take longer
// than a call waits, so the test is repeated.
func TestLostConnectionsAreReplaced(t *testing.T) {
	t.Parallel()
	var failed error
	for range 3 {
		if failed = callsAfterLostConnections(t); failed == nil {
			return
		}
	}
	t.Error(failed)
}

// callsAfterLostConnections returns the errors of calls after one that ran out of time.
func callsAfterLostConnections(t *testing.T) error {
	t.Helper()
	link, address := modelstest.NewSlowLink(t, modelstest.Postgres(t), 0)
	f := newFixture(t, address)
	f.knowPeople(t)
	link.Mute()()
	_, err := f.Consume(f.ctx, by("known0@example.com"), 1, "lost")
	if e := (*models.Error)(nil); !errors.As(err, &e) || e.Code != models.CodeUnavailable {
		t.Fatalf("a call on a lost connection ended with %v", err)
	}
	var all errgroup.Group
	for i := range 8 {
		all.Go(func() error {
			email := fmt.Sprintf("known%d@example.com", i)
			if _, err := f.Consume(f.ctx, by(email), 1, "found"); err != nil {
				return fmt.Errorf("%s: %w", email, err)
			}
			if _, err := f.Check(f.ctx, by(email), 1); err != nil {
				return fmt.Errorf("a check for %s: %w", email, err)
			}
			return nil
		})
	}
	return all.Wait()
}
