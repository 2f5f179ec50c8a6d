//go:build unix

package client

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// lock makes sure that only one process uses a spool. The system releases the lock if the process is
// killed.
func lock(path string) (unlock func() error, err error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600) //nolint:gosec // the caller's own path
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		if errors.Is(err, syscall.EWOULDBLOCK) {
			err = errors.New("another client uses it; give each process its own spool")
		}
		return nil, errors.Join(fmt.Errorf("lock %q: %w", path, err), file.Close())
	}
	return file.Close, nil
}
