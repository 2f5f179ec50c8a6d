package models

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"
)

// ErrFileReplaced means that the SQLite file, or the -wal or -shm file next to it, was replaced,
// moved or deleted while it was open. Later writes would be missing for processes that open the
// path again, so no write is allowed.
var ErrFileReplaced = errors.New("the database file was replaced, moved or deleted while it was open")

// ErrFileReadOnly means that the SQLite file became read-only while it was open. SQLite still
// writes to it until it opens it again, so some calls would fail and others would not.
var ErrFileReadOnly = errors.New("the database file became read-only")

// sqliteFile is an open database file, identified by its device and inode.
type sqliteFile struct {
	main fileID
	// siblings are the -wal and -shm files, set once they exist. They stay the same as long as a
	// connection is open.
	siblings atomic.Pointer[[]fileID]
	// found is when the files were last checked, as time since began.
	found atomic.Int64
}

type fileID struct {
	path string
	info os.FileInfo
}

var began = time.Now()

// fileCheckAge is the maximum age of the last check when a commit begins.
const fileCheckAge = 10 * time.Millisecond

func newSQLiteFile(path string) (*sqliteFile, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	return &sqliteFile{main: fileID{path, info}}, nil
}

// keep records the files next to the database. SQLite puts them next to the target of a symbolic
// link.
func (f *sqliteFile) keep() error {
	target, err := filepath.EvalSymlinks(f.main.path)
	if err != nil {
		return err
	}
	var ids []fileID
	for _, suffix := range []string{"-wal", "-shm"} {
		info, err := os.Stat(target + suffix)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrFileReplaced, err)
		}
		ids = append(ids, fileID{target + suffix, info})
	}
	f.siblings.Store(&ids)
	return f.check()
}

// check returns ErrFileReplaced unless each path is still the open file, and ErrFileReadOnly if the
// file can no longer be written.
func (f *sqliteFile) check() error {
	if err := f.main.check(); err != nil {
		return err
	}
	if err := writable(f.main.path); err != nil {
		return fmt.Errorf("%w: %q: %w", ErrFileReadOnly, f.main.path, err)
	}
	if siblings := f.siblings.Load(); siblings != nil {
		for i := range *siblings {
			if err := (*siblings)[i].check(); err != nil {
				return err
			}
		}
	}
	f.found.Store(int64(time.Since(began)))
	return nil
}

// checkWithin reuses a result that is younger than maxAge. A check costs some microseconds.
func (f *sqliteFile) checkWithin(maxAge time.Duration) error {
	if found := f.found.Load(); maxAge > 0 && found > 0 && int64(time.Since(began))-found < int64(maxAge) {
		return nil
	}
	return f.check()
}

func (id *fileID) check() error {
	switch info, err := os.Stat(id.path); {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: %q is missing", ErrFileReplaced, id.path)
	case err != nil:
		return fmt.Errorf("%w: %w", ErrFileReplaced, err)
	case !os.SameFile(info, id.info):
		return fmt.Errorf("%w: %q is another file", ErrFileReplaced, id.path)
	}
	return nil
}

// CheckFile returns ErrFileReplaced if the SQLite file is no longer the one that was opened, and
// ErrFileReadOnly if it can no longer be written. It reuses a result that is younger than maxAge.
// It always succeeds for PostgreSQL.
func (db *DB) CheckFile(maxAge time.Duration) error {
	if db.file == nil {
		return nil
	}
	return db.file.checkWithin(maxAge)
}

// IsFileUnusable reports whether an error is or was caused by ErrFileReplaced or ErrFileReadOnly,
// or comes from a commit that was refused because of them.
func IsFileUnusable(err error) bool {
	return errors.Is(err, ErrFileReplaced) || errors.Is(err, ErrFileReadOnly) || sqliteFullCode(err) == sqliteCommitHook
}
