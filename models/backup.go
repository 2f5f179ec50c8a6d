package models

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// Backup writes a consistent copy of the SQLite database at an address to a new file, and returns
// its size. The server may be running. The copy gets its name only after it is complete and on
// disk. It never overwrites a file. For PostgreSQL, use its own programs.
func Backup(ctx context.Context, address, file string) (size int64, err error) {
	if !strings.HasPrefix(address, "sqlite:") {
		return 0, errors.New(`backup copies SQLite databases only; for PostgreSQL run: pg_dump --format=custom --file=FILE "$DATABASE_URL"`)
	}
	size, err = backup(ctx, address, file)
	if err != nil {
		return 0, fmt.Errorf("back up to %q: %w", file, err)
	}
	return size, nil
}

func backup(ctx context.Context, address, file string) (size int64, err error) {
	target, err := filepath.Abs(file)
	if err != nil {
		return 0, err
	}
	if err := vacant(target); err != nil {
		return 0, err
	}
	source, err := sqlitePath(address)
	if err != nil {
		return 0, err
	}
	if _, err := os.Stat(source); err != nil {
		return 0, fmt.Errorf("open database %q: %w", address, inWords(err))
	}
	// Do not use Open, which migrates the database. The copy is of the database as it is, for
	// instance before an upgrade.
	db := &DB{URL: address}
	if err := db.openSQLite(ctx); err != nil {
		return 0, fmt.Errorf("open database %q: %w", address, err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()

	partial := fmt.Sprintf("%s.%08x.partial", target, rand.Uint32())       //nolint:gosec // O_EXCL refuses one that exists
	f, err := os.OpenFile(partial, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600) //nolint:gosec // the operator names the file
	if err != nil {
		return 0, inTargetWords(err)
	}
	defer func() {
		removed := os.Remove(partial) // it has its other name by now, or is of no use
		err = errors.Join(err, f.Close(), removed)
	}()
	// VACUUM INTO writes to an existing file if it is empty, and does not change its mode.
	if _, err := db.DB.DB.ExecContext(ctx, "VACUUM INTO ?", partial); err != nil {
		if sqliteCode(err) == sqliteFull {
			return 0, errors.New("the disk is full")
		}
		return 0, err
	}
	if err := db.CheckFile(0); err != nil {
		return 0, err
	}
	if err := f.Sync(); err != nil {
		return 0, inTargetWords(err)
	}
	info, err := f.Stat()
	if err != nil {
		return 0, inTargetWords(err)
	}
	// Unlike a rename, a link does not replace a file that was created in the meantime.
	if err := os.Link(partial, target); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return 0, errExists
		}
		return 0, fmt.Errorf("the file system has no hard links (%w); choose a directory on another file system", cause(err))
	}
	return info.Size(), syncDir(filepath.Dir(target))
}

var errExists = errors.New("the file exists; choose another name")

// vacant returns an error unless a new file can have this name: it does not exist, and there is no
// file that SQLite would treat as a part of it.
func vacant(target string) error {
	for _, suffix := range []string{"-wal", "-shm", "-journal"} {
		if strings.HasSuffix(target, suffix) {
			return fmt.Errorf("SQLite uses names that end in %q for parts of a database; choose another name", suffix)
		}
	}
	switch info, err := os.Lstat(target); {
	case err == nil && info.IsDir():
		return errors.New("is a directory; name a file in it")
	case err == nil:
		return errExists
	case !errors.Is(err, fs.ErrNotExist):
		return inTargetWords(err)
	}
	if left := leftover(target, true); left != "" {
		return fmt.Errorf("%q is left over from another database; move it away or choose another name", left)
	}
	return nil
}

// syncDir makes the names in a directory durable.
func syncDir(dir string) error {
	d, err := os.Open(dir) //nolint:gosec // the operator names it
	if err != nil {
		return inTargetWords(err)
	}
	return errors.Join(d.Sync(), d.Close())
}

// inTargetWords returns an error about the target with advice on what to do.
func inTargetWords(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		return errors.New("no such directory; create it or choose another one")
	case errors.Is(err, fs.ErrPermission):
		return errors.New("permission denied; choose a directory that you may write to")
	case errors.Is(err, syscall.ENOSPC):
		return errors.New("the disk is full")
	}
	return cause(err)
}

// cause returns an error of the operating system without the path.
func cause(err error) error {
	var path *fs.PathError
	var link *os.LinkError
	switch {
	case errors.As(err, &path):
		return path.Err
	case errors.As(err, &link):
		return link.Err
	}
	return err
}
