//go:build linux

package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"tollgate/models/modelstest"
)

// clockTick is the unit of the processor times in /proc: USER_HZ, which is always 100 on Linux.
const clockTick = 10 * time.Millisecond

// cpuTime returns the processor time of a process, in user and kernel mode.
func cpuTime(pid int) (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, fmt.Errorf("read the processor time: %w", err)
	}
	// The program's name, in parentheses, may contain spaces. utime and stime are the 12th and 13th
	// fields after it.
	_, rest, _ := strings.Cut(string(text), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return 0, fmt.Errorf("read the processor time: /proc/%d/stat is %q", pid, text)
	}
	user, err := strconv.ParseInt(fields[11], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read the processor time: /proc/%d/stat: %w", pid, err)
	}
	kernel, err := strconv.ParseInt(fields[12], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read the processor time: /proc/%d/stat: %w", pid, err)
	}
	return time.Duration(user+kernel) * clockTick, nil
}

// resident returns the resident memory of a process in bytes: the current value (VmRSS) and the
// maximum until now (VmHWM).
func resident(pid int) (now, peak int64, err error) {
	file := fmt.Sprintf("/proc/%d/status", pid)
	bytes := func(name string) int64 {
		value, fieldErr := modelstest.ProcField(file, name)
		if fieldErr == nil {
			var kib int64
			if kib, fieldErr = strconv.ParseInt(strings.TrimSuffix(value, " kB"), 10, 64); fieldErr == nil {
				return kib << 10
			}
		}
		err = fmt.Errorf("read the resident memory: %s: %w", name, fieldErr)
		return 0
	}
	return bytes("VmRSS"), bytes("VmHWM"), err
}
