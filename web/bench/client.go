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

// connections is the number of simultaneous clients.
const connections = 256

// load is one measurement: the server, the calls and their duration. The client runs it in its own
// process.
type load struct {
	// Name is the load's name in error messages.
	Name string
	Addr string
	Path string
	// Token is the API key. It is empty if the server needs none.
	Token string
	// Series is part of the idempotency keys, so that no two loads of a run have the same key.
	Series uint32
	// FirstPerson and People are the range of people. Each call selects one at random.
	FirstPerson, People int
	// Keyed means that each call has an idempotency key. The keys are random, or Timed: they grow with
	// time, like UUIDs of version 7.
	Keyed, Timed bool
	// Each makes one call for each person. Introduce does so with Slack IDs that link the person to
	// the organization.
	Each, Introduce bool
	// Warm is how long calls are made before the measurement, and Measure is the length of the
	// measurement.
	Warm, Measure time.Duration
	// Rate is the number of calls per second of an open loop: each call is sent at its time, however
	// late other answers are. 0 means a closed loop: each connection calls again as soon as it gets an
	// answer.
	Rate int
}

// outcome is the result of a load. There is none unless every answer was a 200 with "allowed":true.
type outcome struct {
	// Answers is the number of all answers, including those before and after the measurement. The
	// ledger must have as many events.
	Answers int64
	// Measured is the number of answers during the measurement, and PerSecond is their rate.
	Measured  int64
	PerSecond float64
	// The latencies of the measured calls. In an open loop, a latency starts at the time at which the
	// call was due.
	P50, P99, P999, Max time.Duration
	// AnswerBytes is the size of the last answer's body.
	AnswerBytes int
	// CPU is the processor time of the client, in user and kernel mode.
	CPU time.Duration
}

// runLoad runs the load in its own process.
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
		return outcome{}, fmt.Errorf("load %s: read the client's result: %w", l.Name, err)
	}
	return o, nil
}

// run makes the calls. It uses one thread and one epoll: a client with a goroutine for each
// connection would use a large part of the processors that the server needs.
func (l load) run() (outcome, error) {
	c, err := l.connect()
	if err != nil {
		return outcome{}, fmt.Errorf("%s: %w", l.Name, err)
	}
	defer c.close()
	switch {
	case l.Introduce, l.Each:
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
	// calls is the number of requests sent, and answers the number of answers received.
	calls, answers int64
	random         uint64
	firstKey       int64 // of Timed
	latencies      []time.Duration
	measured       time.Duration
	answerBytes    int
}

func (l load) connect() (*client, error) {
	count := connections
	if l.Rate > 0 {
		// With few calls per second and many connections, the server would close most connections before
		// their first call.
		count = min(count, max(1, l.Rate/5))
	}
	c := &client{
		load: l, events: make([]unix.EpollEvent, count+1), conns: make([]conn, count),
		random: uint64(l.Series)*0x9E3779B97F4A7C15 + 1, firstKey: time.Now().UnixMicro(),
		// Enough for the fastest server, so that the measurement allocates nothing.
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

// patience is how long the client waits for the next answer on any connection before it fails.
const patience = 15 * time.Second

// wait returns the connections that are ready to be read.
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

// send makes the next call on a connection, for a random person and with a unique key.
func (c *client) send(k *conn, at time.Time) error {
	person := c.FirstPerson
	if c.People > 1 {
		// xorshift64: a random person at almost no cost.
		c.random ^= c.random << 13
		c.random ^= c.random >> 7
		c.random ^= c.random << 17
		person += int(c.random % uint64(c.People)) //nolint:gosec // People is positive
	}
	return c.sendFor(k, person, at)
}

// sendFor makes the next call for this person. Its latency starts at at.
func (c *client) sendFor(k *conn, person int, at time.Time) error {
	c.calls++
	k.sentAt = at
	number := scramble(uint64(c.calls)) //nolint:gosec // calls is positive
	if c.Timed {
		number = uint64(c.firstKey + c.calls) //nolint:gosec // both are positive
	}
	return k.send(person, number, c.Series)
}

// scramble is a bijection that looks random (the last steps of splitmix64). Keys are unique and in
// no order, like the random IDs of real clients, which is the hard case for an index.
func scramble(n uint64) uint64 {
	n *= 0x9E3779B97F4A7C15
	n = (n ^ n>>30) * 0xBF58476D1CE4E5B9
	n = (n ^ n>>27) * 0x94D049BB133111EB
	return n ^ n>>31
}

// outcome returns the load's result.
func (c *client) outcome() (outcome, error) {
	var used unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &used); err != nil {
		return outcome{}, fmt.Errorf("%s: read the processor time: %w", c.Name, err)
	}
	o := outcome{
		Answers: c.answers, Measured: int64(len(c.latencies)), AnswerBytes: c.answerBytes,
		CPU: time.Duration(used.Utime.Nano() + used.Stime.Nano()),
	}
	if c.Introduce || c.Each {
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
