// Package shiftedclock is the clock of a server whose machine's clock is set. Only tests build it
// into a server; see web/e2e/clock_test.go.
package shiftedclock

import (
	"bufio"
	"os"
	"sync/atomic"
	"time"
	"unsafe"
)

// seconds is how far the clock is ahead of the machine's.
var seconds atomic.Int64

// Each line of the named pipe is a duration by which the clock is ahead from then on.
func init() {
	path := os.Getenv("TOLLGATE_TEST_CLOCK")
	if path == "" {
		return
	}
	pipe, err := os.OpenFile(path, os.O_RDWR, 0) // for writing too, so that there is no end
	if err != nil {
		panic(err)
	}
	go func() {
		for lines := bufio.NewScanner(pipe); lines.Scan(); {
			ahead, err := time.ParseDuration(lines.Text())
			if err != nil {
				panic(err)
			}
			seconds.Store(int64(ahead / time.Second))
		}
	}()
}

// Now returns the time of the shifted clock. As after a change of the machine's clock, the
// monotonic time does not change, so durations stay right. The seconds of a time with a monotonic
// part are in the bits of its first word above 30 bits of nanoseconds. Source: time.go of Go.
func Now() time.Time {
	t := time.Now()
	*(*uint64)(unsafe.Pointer(&t)) += uint64(seconds.Load()) << 30
	return t
}
