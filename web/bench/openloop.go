//go:build linux

package main

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// openLoop sends each call at its own time, Rate a second, evenly spaced. A call that finds every connection busy
// waits for one, and its latency counts from the time it was to be sent at: a server that stalls cannot hide the calls
// that came meanwhile (no coordinated omission).
func (c *client) openLoop() error {
	timer, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK)
	if err != nil {
		return fmt.Errorf("timer: %w", err)
	}
	defer unix.Close(timer) //nolint:errcheck // a timer
	// A timer in the same epoll, as the runtime's own timers may be a millisecond late.
	if err := c.watch(timer, len(c.conns)); err != nil {
		return err
	}
	// The longest idle connection is the next, so that none stays unused for as long as a server puts up with.
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

// arm lets the timer fire after d, or at once.
func arm(timer int, d time.Duration) error {
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(max(1, d.Nanoseconds()))}
	if err := unix.TimerfdSettime(timer, 0, &spec, nil); err != nil {
		return fmt.Errorf("timer: %w", err)
	}
	return nil
}

// disarm takes the timer's expiry, which would otherwise stand as readable for ever.
func disarm(timer int) error {
	var expirations [8]byte
	if _, err := unix.Read(timer, expirations[:]); err != nil && err != unix.EAGAIN {
		return fmt.Errorf("timer: %w", err)
	}
	return nil
}
