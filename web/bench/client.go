//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// connections is how many clients call at once.
const connections = 256

// load is one measurement: who is called, with what, for how long. The client runs it in a process of its own.
type load struct {
	// Name stands in error messages.
	Name string
	Addr string
	Path string
	// Token is the API key; empty where no server asks for one.
	Token string
	// Series keeps the idempotency keys of this load apart from those of every other load of the run.
	Series uint32
	// FirstPerson and People name the people called for; each call picks one at random.
	FirstPerson, People int
	// Keyed calls carry an idempotency key each.
	Keyed bool
	// Introduce makes one call for each person in turn, with the Slack ids that link the person to the organization.
	Introduce bool
	// Warm is how long calls are made before the measuring begins, Measure how long it goes on.
	Warm, Measure time.Duration
	// Rate is the calls a second of an open loop: each is sent at its time, however late the answers to others are.
	// 0 is a closed loop: each connection calls again as soon as it is answered.
	Rate int
}

// outcome is what came of a load. Every answer was a 200 with "allowed":true, or there is no outcome.
type outcome struct {
	// Answers counts all of them, those before and after the measuring too: this many events must be in the ledger.
	Answers int64
	// Measured counts those within the measured time, PerSecond is their rate.
	Measured  int64
	PerSecond float64
	// The latencies of the measured calls; in an open loop from the time a call was to be sent at.
	P50, P99, P999, Max time.Duration
	// AnswerBytes is the size of the last answer's body.
	AnswerBytes int
	// CPU is what the client itself used, in user and kernel mode.
	CPU time.Duration
}

// runLoad runs the load in a process of its own, as clients of a service do.
func runLoad(ctx context.Context, l load) (outcome, error) {
	self, err := os.Executable()
	if err != nil {
		return outcome{}, fmt.Errorf("load %s: %w", l.Name, err)
	}
	config, err := json.Marshal(roleConfig{Load: l})
	if err != nil {
		return outcome{}, fmt.Errorf("load %s: %w", l.Name, err)
	}
	cmd := exec.CommandContext(ctx, self, roleClient) //nolint:gosec // this program itself
	cmd.Stdin = bytes.NewReader(config)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return outcome{}, fmt.Errorf("load %s: %w: %s", l.Name, err, bytes.TrimSpace(stderr.Bytes()))
	}
	var o outcome
	if err := json.Unmarshal(out, &o); err != nil {
		return outcome{}, fmt.Errorf("load %s: answer of the client: %w", l.Name, err)
	}
	return o, nil
}

// run makes the calls. It is one thread on one epoll, as a client with a goroutine for each connection would take a
// good part of the processors that the server is measured on.
func (l load) run() (outcome, error) {
	c, err := l.connect()
	if err != nil {
		return outcome{}, fmt.Errorf("%s: %w", l.Name, err)
	}
	defer c.close()
	switch {
	case l.Introduce:
		err = c.introduce()
	case l.Rate > 0:
		err = c.openLoop()
	default:
		err = c.closedLoop()
	}
	if err != nil {
		return outcome{}, fmt.Errorf("%s: %w", l.Name, err)
	}
	return c.outcome()
}

// client is the state of a load while it runs.
type client struct {
	load
	epoll  int
	events []unix.EpollEvent
	conns  []conn
	// calls counts the requests sent, answers those answered.
	calls, answers int64
	random         uint64
	latencies      []time.Duration
	measured       time.Duration
	answerBytes    int
}

func (l load) connect() (*client, error) {
	count := connections
	if l.Rate > 0 {
		// A few calls a second on many connections would leave most of them without a first call for longer than a
		// server waits for it.
		count = min(count, max(1, l.Rate/5))
	}
	c := &client{
		load: l, events: make([]unix.EpollEvent, count+1), conns: make([]conn, count),
		random: uint64(l.Series)*0x9E3779B97F4A7C15 + 1,
		// Enough for the fastest server, so that the measuring makes no garbage.
		latencies: make([]time.Duration, 0, 100_000*int64(l.Measure/time.Second+1)),
	}
	var err error
	if c.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	for i := range c.conns {
		if err := c.conns[i].dial(l); err != nil {
			return nil, fmt.Errorf("connection %d to %s: %w", i+1, l.Addr, err)
		}
		if err := c.watch(c.conns[i].fd, i); err != nil {
			return nil, err
		}
	}
	return c, nil
}

func (c *client) watch(fd, index int) error {
	event := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(index)} //nolint:gosec // at most connections
	if err := unix.EpollCtl(c.epoll, unix.EPOLL_CTL_ADD, fd, &event); err != nil {
		return fmt.Errorf("epoll: %w", err)
	}
	return nil
}

func (c *client) close() {
	for i := range c.conns {
		unix.Close(c.conns[i].fd) //nolint:errcheck // everything is read
	}
	unix.Close(c.epoll) //nolint:errcheck // everything is read
}

// patience is how long the client waits for the next answer of any connection before it gives up.
const patience = 15 * time.Second

// wait returns the connections that have something to read.
func (c *client) wait() ([]unix.EpollEvent, error) {
	for {
		n, err := unix.EpollWait(c.epoll, c.events, int(patience/time.Millisecond))
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return nil, fmt.Errorf("epoll: %w", err)
		case n == 0:
			return nil, fmt.Errorf("no answer in %s, with %d of %d calls answered", patience, c.answers, c.calls)
		}
		return c.events[:n], nil
	}
}

// send makes the next call on a connection, for some person, under a key that no other call has.
func (c *client) send(k *conn, at time.Time) error {
	person := c.FirstPerson
	if c.People > 1 {
		// xorshift64: who calls is to be random, but not to cost anything.
		c.random ^= c.random << 13
		c.random ^= c.random >> 7
		c.random ^= c.random << 17
		person += int(c.random % uint64(c.People)) //nolint:gosec // People is positive
	}
	return c.sendFor(k, person, at)
}

// sendFor makes the next call for this person. Its latency counts from at.
func (c *client) sendFor(k *conn, person int, at time.Time) error {
	c.calls++
	k.sentAt = at
	return k.send(person, scramble(uint64(c.calls)), c.Series) //nolint:gosec // calls is positive
}

// scramble is a bijection that looks random (splitmix64's last steps): keys differ, and arrive in no order, as the
// random ids of real clients do, which is the hard case for an index.
func scramble(n uint64) uint64 {
	n *= 0x9E3779B97F4A7C15
	n = (n ^ n>>30) * 0xBF58476D1CE4E5B9
	n = (n ^ n>>27) * 0x94D049BB133111EB
	return n ^ n>>31
}

// outcome sums up.
func (c *client) outcome() (outcome, error) {
	var used unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &used); err != nil {
		return outcome{}, fmt.Errorf("%s: processor time: %w", c.Name, err)
	}
	o := outcome{
		Answers: c.answers, Measured: int64(len(c.latencies)), AnswerBytes: c.answerBytes,
		CPU: time.Duration(used.Utime.Nano() + used.Stime.Nano()),
	}
	if c.Introduce {
		return o, nil
	}
	if len(c.latencies) == 0 {
		return outcome{}, fmt.Errorf("%s: no call was answered in the measured %s", c.Name, c.Measure)
	}
	slices.Sort(c.latencies)
	at := func(perMille int) time.Duration { return c.latencies[(len(c.latencies)-1)*perMille/1000] }
	o.P50, o.P99, o.P999, o.Max = at(500), at(990), at(999), at(1000)
	o.PerSecond = float64(o.Measured) / c.measured.Seconds()
	return o, nil
}
