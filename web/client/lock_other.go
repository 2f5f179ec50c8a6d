//go:build !unix

package client

// lock does nothing: on this system, make sure that each process has its own spool.
func lock(string) (unlock func() error, err error) { return func() error { return nil }, nil }
