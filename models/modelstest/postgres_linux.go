package modelstest

import "syscall"

// dieWithParent stops the server when this process dies without having stopped it: killed, or past `go test`'s
// time limit. SIGQUIT is PostgreSQL's immediate shutdown, which ends its child processes as well.
func dieWithParent(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGQUIT }

// roomy is how much memory must be free for databases to be made in memory, in bytes.
const roomy = 3 << 30

// memory returns a folder in memory, or "" if there is none with enough room. It saves time because a database consists of 300
// files; docs/decisions.md has the figures.
func memory() string {
	const folder = "/dev/shm"
	var s syscall.Statfs_t
	if err := syscall.Statfs(folder, &s); err != nil || s.Bavail*uint64(s.Bsize) < roomy { //nolint:gosec // a block has a positive size
		return ""
	}
	return folder
}
