package modelstest

import "syscall"

// dieWithParent stops the server when this process dies without stopping it: killed, or past the
// time limit of `go test`. SIGQUIT is PostgreSQL's immediate shutdown, which also ends its child
// processes.
func dieWithParent(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGQUIT }

// roomy is the free memory that databases in memory require, in bytes.
const roomy = 3 << 30

// memory returns a folder in memory, or "" if none has enough room. It saves time because a
// database has about 300 files; docs/decisions.md has the figures.
func memory() string {
	const folder = "/dev/shm"
	var s syscall.Statfs_t
	if err := syscall.Statfs(folder, &s); err != nil || s.Bavail*uint64(s.Bsize) < roomy { //nolint:gosec // a block has a positive size
		return ""
	}
	return folder
}
