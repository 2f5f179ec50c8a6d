package modelstest

import "syscall"

// dieWithParent stops the server when this process dies without having stopped it: killed, or past `go test`'s
// time limit. SIGQUIT is PostgreSQL's immediate shutdown, which ends its child processes as well.
func dieWithParent(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGQUIT }
