//go:build linux

package main

import "time"

// closedLoop calls again on each connection as soon as it gets an answer. After the measured time,
// it sends no more calls and waits for the remaining answers, so that the calls, the answers and
// the ledger can be compared. If there were hardly any answers because the machine is busy, it
// continues until there are some.
func (c *client) closedLoop() error {
	begin := time.Now()
	from := begin.Add(c.Warm)
	until := from.Add(c.Measure)
	for i := range c.conns {
		if err := c.send(&c.conns[i], time.Now()); err != nil {
			return err
		}
	}
	return c.eachAnswer(func(k *conn, now time.Time) error {
		if now.After(until) && len(c.latencies) >= len(c.conns) {
			return nil
		}
		if now.After(from) {
			c.latencies = append(c.latencies, now.Sub(k.sentAt))
			c.measured = now.Sub(from)
		}
		return c.send(k, now)
	})
}

// introduce makes one call for each person.
func (c *client) introduce() error {
	next := 0
	call := func(k *conn, now time.Time) error {
		if next == c.People {
			return nil
		}
		next++
		return c.sendFor(k, c.FirstPerson+next-1, now)
	}
	for i := range c.conns {
		if err := call(&c.conns[i], time.Now()); err != nil {
			return err
		}
	}
	return c.eachAnswer(call)
}

// eachAnswer calls then for each connection that got an answer, until no call is in progress.
func (c *client) eachAnswer(then func(*conn, time.Time) error) error {
	for c.answers < c.calls {
		events, err := c.wait()
		if err != nil {
			return err
		}
		for _, event := range events {
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
			if err := then(k, time.Now()); err != nil {
				return err
			}
		}
	}
	return nil
}
