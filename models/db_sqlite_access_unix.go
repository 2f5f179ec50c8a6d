//go:build unix

package models

import (
	"os"

	"golang.org/x/sys/unix"
)

// writable returns the operating system's reason why this process may not write to a file or a
// directory. It does not open the file, because closing it would release SQLite's locks on it. A
// file without write permission counts as read-only for root too, although root could write to it.
func writable(path string) error {
	if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o222 == 0 {
		return unix.EACCES
	}
	return unix.Access(path, unix.W_OK)
}
