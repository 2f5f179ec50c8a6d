package web

import (
	"context"
	"errors"
	"time"

	"github.com/labstack/echo/v4"

	"tollgate/models"
)

// fileCheckAge is how old the last look at the database's file may be when a request comes in. Whatever writes looks again.
const fileCheckAge = 10 * time.Millisecond

// checkFile answers 503 to every request that needs the database, once the SQLite file was replaced, moved or deleted: what
// the open file still holds is not what the next start will find. When the same file is back in its place, the server goes on.
func (s *Server) checkFile(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		switch c.Path() {
		case "", "/healthz", "/static/*", "/v1/openapi.json", "/docs":
			return next(c)
		}
		age, gone := fileCheckAge, s.fileGone.Load()
		if gone {
			age = 0
		}
		if err := s.db.CheckFile(age); err != nil {
			return models.Unavailable(err)
		}
		if gone && s.fileGone.CompareAndSwap(true, false) {
			s.log.Info("the database file can be used again")
		}
		return next(c)
	}
}

// watchFile looks at the file until ctx ends, so that the log tells of it even if no request comes.
func (s *Server) watchFile(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			s.noteFile(s.db.CheckFile(0))
		}
	}
}

// noteFile reports whether an error came of a file that is gone, and logs the first one.
func (s *Server) noteFile(err error) bool {
	if err == nil || !models.IsFileUnusable(err) {
		return false
	}
	if s.fileGone.CompareAndSwap(false, true) {
		if found := s.db.CheckFile(0); found != nil {
			err = found
		}
		action := "put the same file back, or stop the server, move FILE, FILE-wal and FILE-shm away together, restore a backup and start again"
		if errors.Is(err, models.ErrFileReadOnly) {
			action = "make the file writable again"
		}
		s.log.Error("every call is answered 503: the database file was replaced, moved, deleted or made read-only", "error", err, "action", action)
	}
	return true
}
