//go:build linux

package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// clockTick is the unit of the processor times in /proc: USER_HZ, which Linux fixes at 100 for every program.
const clockTick = 10 * time.Millisecond

// cpuTime is the processor time that a process has used, in user and kernel mode.
func cpuTime(pid int) (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, fmt.Errorf("processor time: %w", err)
	}
	// The program's name, in brackets, may hold blanks; utime and stime are the 12th and 13th field after it.
	_, rest, _ := strings.Cut(string(text), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return 0, fmt.Errorf("processor time: /proc/%d/stat is %q", pid, text)
	}
	user, err := strconv.ParseInt(fields[11], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("processor time: /proc/%d/stat: %w", pid, err)
	}
	kernel, err := strconv.ParseInt(fields[12], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("processor time: /proc/%d/stat: %w", pid, err)
	}
	return time.Duration(user+kernel) * clockTick, nil
}

// resident is the memory of a process that lies in RAM, in bytes: now (VmRSS) and at most so far (VmHWM).
func resident(pid int) (now, peak int64, err error) {
	file := fmt.Sprintf("/proc/%d/status", pid)
	bytes := func(name string) int64 {
		value, fieldErr := field(file, name)
		if fieldErr == nil {
			var kib int64
			if kib, fieldErr = strconv.ParseInt(strings.TrimSuffix(value, " kB"), 10, 64); fieldErr == nil {
				return kib << 10
			}
		}
		err = fmt.Errorf("resident memory: %s: %w", name, fieldErr)
		return 0
	}
	return bytes("VmRSS"), bytes("VmHWM"), err
}
