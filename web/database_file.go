package web

import (
	"context"
	"errors"
	"time"

	"github.com/labstack/echo/v4"

	"tollgate/models"
)

// fileCheckAge is how old the last check of the database's file may be when a request arrives. Each
// write checks again.
const fileCheckAge = 10 * time.Millisecond

// checkFile answers 503 to every request that needs the database if the SQLite file was replaced,
// moved or deleted. The open file's data would be missing at the next start. When the same file is
// back, the server works again.
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

// watchFile checks the file until ctx ends, so that the log reports a problem even without
// requests.
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

// noteFile reports whether an error means that the file is unusable, and logs the first such error.
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
		s.log.Error("every call gets 503: the database file was replaced, moved, deleted or made read-only",
			"error", err, "action", action)
	}
	return true
}
