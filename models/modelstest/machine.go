//go:build linux

package modelstest

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// MachineFacts describe the machine of a measurement.
type MachineFacts struct{ Processor, Cores, Memory, Kernel string }

// Machine describes this machine.
func Machine() (m MachineFacts, err error) {
	defer wrap(&err, "describe the machine")
	if m.Processor, err = ProcField("/proc/cpuinfo", "model name"); err != nil {
		return m, err
	}
	memory, err := ProcField("/proc/meminfo", "MemTotal")
	if err != nil {
		return m, err
	}
	kib, err := strconv.ParseFloat(strings.TrimSuffix(memory, " kB"), 64)
	if err != nil {
		return m, fmt.Errorf("/proc/meminfo: MemTotal %q: %w", memory, err)
	}
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return m, fmt.Errorf("read the kernel's version: %w", err)
	}
	m.Cores, m.Memory = strconv.Itoa(runtime.NumCPU()), fmt.Sprintf("%.1f GiB", kib/1024/1024)
	m.Kernel = unix.ByteSliceToString(name.Sysname[:]) + " " + unix.ByteSliceToString(name.Release[:])
	return m, nil
}

// BusyShare returns how much of the processors is in use during the next second. Other work affects
// every measurement, so nothing of the caller's must run.
func BusyShare(ctx context.Context) (float64, error) {
	idle, total, err := processorTimes()
	if err != nil {
		return 0, err
	}
	select {
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-time.After(time.Second):
	}
	idleAfter, totalAfter, err := processorTimes()
	if err != nil {
		return 0, err
	}
	return 1 - (idleAfter-idle)/max(1, totalAfter-total), nil
}

// processorTimes returns the ticks of all processors since the machine started.
func processorTimes() (idle, total float64, err error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, 0, err
	}
	line, _, _ := strings.Cut(string(text), "\n")
	for i, ticks := range strings.Fields(line)[1:] {
		n, err := strconv.ParseFloat(ticks, 64)
		if err != nil {
			return 0, 0, fmt.Errorf("/proc/stat: %q: %w", line, err)
		}
		// user, nice, system, idle, iowait, irq, softirq, steal; then guest times, which user and nice
		// include.
		if i == 3 || i == 4 {
			idle += n
		}
		if i < 8 {
			total += n
		}
	}
	return idle, total, nil
}

// ProcField returns the value of a "name : value" line of a file in /proc.
func ProcField(file, name string) (string, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	for lines := bufio.NewScanner(strings.NewReader(string(text))); lines.Scan(); {
		key, value, found := strings.Cut(lines.Text(), ":")
		if found && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value), nil
		}
	}
	return "", fmt.Errorf("%s has no %q", file, name)
}

// Revision returns the commit of the sources in root, and says if files other than the report
// differ from it.
func Revision(ctx context.Context, root, report string) string {
	git := func(args ...string) (string, error) {
		out, err := exec.CommandContext(ctx, "git", append([]string{"-C", root}, args...)...).Output()
		return strings.TrimSpace(string(out)), err
	}
	commit, err := git("rev-parse", "--short=12", "HEAD")
	if err != nil {
		return "not committed"
	}
	changes, err := git("status", "--porcelain", "--", ".", ":!"+report)
	if err != nil || changes != "" {
		return commit + " with changes"
	}
	return commit
}
