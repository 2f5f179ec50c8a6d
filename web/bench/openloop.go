//go:build linux

package main

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// openLoop sends Rate calls per second, evenly spaced. If all connections are busy, a call waits
// for one. Its latency starts at the time at which it was due, so a server that stalls cannot hide
// the calls that came in the meantime (no coordinated omission).
func (c *client) openLoop() error {
	timer, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK)
	if err != nil {
		return fmt.Errorf("timer: %w", err)
	}
	defer unix.Close(timer) //nolint:errcheck // a timer
	// The timer is in the same epoll, because the runtime's own timers may be a millisecond late.
	if err := c.watch(timer, len(c.conns)); err != nil {
		return err
	}
	// The connection that is idle for longest is used next, so that the server closes none.
	idle := make(chan *conn, len(c.conns))
	for i := range c.conns {
		idle <- &c.conns[i]
	}
	begin := time.Now()
	from, interval := begin.Add(c.Warm), time.Second/time.Duration(c.Rate)
	total := int64((c.Warm + c.Measure) / interval)
	due := func() time.Time { return begin.Add(time.Duration(c.calls) * interval) }
	for c.answers < total {
		for c.calls < total && len(idle) > 0 && !due().After(time.Now()) {
			if err := c.send(<-idle, due()); err != nil {
				return err
			}
		}
		if c.calls < total && len(idle) > 0 {
			if err := arm(timer, time.Until(due())); err != nil {
				return err
			}
		}
		events, err := c.wait()
		if err != nil {
			return err
		}
		for _, event := range events {
			if int(event.Fd) == len(c.conns) {
				if err := disarm(timer); err != nil {
					return err
				}
				continue
			}
			k := &c.conns[event.Fd]
			size, err := k.receive()
			if err != nil {
				return err
			}
			if size < 0 {
				continue
			}
			c.answers++
			c.answerBytes = size
			idle <- k
			if !k.sentAt.Before(from) {
				now := time.Now()
				c.latencies = append(c.latencies, now.Sub(k.sentAt))
				c.measured = now.Sub(from)
			}
		}
	}
	return nil
}

// arm starts the timer. It fires after d, or immediately if d is not positive.
func arm(timer int, d time.Duration) error {
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(max(1, d.Nanoseconds()))}
	if err := unix.TimerfdSettime(timer, 0, &spec, nil); err != nil {
		return fmt.Errorf("timer: %w", err)
	}
	return nil
}

// disarm reads the timer's expiry. Otherwise, the timer would stay readable.
func disarm(timer int) error {
	var expirations [8]byte
	if _, err := unix.Read(timer, expirations[:]); err != nil && err != unix.EAGAIN {
		return fmt.Errorf("timer: %w", err)
	}
	return nil
}
