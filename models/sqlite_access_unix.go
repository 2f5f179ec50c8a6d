//go:build unix

package models

import "golang.org/x/sys/unix"

// writable returns the operating system's reason why this process may not write to a file or a directory. Opening the file
// to find out is no way: closing it again would release the locks that SQLite holds on it.
func writable(path string) error { return unix.Access(path, unix.W_OK) }
