//go:build profile

package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime/pprof"
	"slices"
)

// StopProfile writes the rest of the server's CPU profile before the process exits.
var StopProfile = func() {}

// With the build tag profile, serve writes a CPU profile to a new file in the folder for temporary
// files. `make profile` merges such files into default.pgo, which the compiler uses to optimize.
// Source: https://go.dev/doc/pgo
func init() {
	if !slices.Contains(os.Args, "serve") {
		return
	}
	file, err := os.Create(filepath.Join(os.TempDir(), fmt.Sprintf("tollgate-%d.pprof", os.Getpid())))
	if err == nil {
		err = pprof.StartCPUProfile(file)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "start the CPU profile:", err)
		os.Exit(1)
	}
	StopProfile = func() {
		pprof.StopCPUProfile()
		if err := file.Close(); err != nil {
			fmt.Fprintln(os.Stderr, "write the CPU profile:", err)
		}
	}
}
