//go:build !linux

package modelstest

import "syscall"

// dieWithParent does nothing here: only Linux ends a child with its parent. A killed test leaves
// its server running.
func dieWithParent(*syscall.SysProcAttr) {}

// memory returns "": only Linux has /dev/shm.
func memory() string { return "" }
