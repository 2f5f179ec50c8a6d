package cli

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"syscall"
	"time"

	"github.com/alecthomas/kong"

	"tollgate/models"
	"tollgate/web"
	"tollgate/web/demo"
)

type demoCommand struct{}

// Run serves a made-up organization. The database is temporary unless one is given.
func (demoCommand) Run(
	ctx context.Context, o *Output, s *Settings, parsed *kong.Context, catalogue *models.Catalogue, serve Serve,
) (err error) {
	l, err := web.Listen(ctx, "--listen", s.Listen)
	if errors.Is(err, syscall.EADDRINUSE) && !Given(parsed, "listen") {
		if l, err = web.Listen(ctx, "--listen", "127.0.0.1:0"); err == nil {
			o.Note("%s is in use, so the demo listens on %s", DefaultListen, l.Addr())
		}
	}
	if err != nil {
		return err
	}
	defer func() { _ = l.Close() }() // closed already, unless the start failed
	address := s.Database
	if !Given(parsed, "database") {
		dir, failed := os.MkdirTemp("", "tollgate-demo-")
		if failed != nil {
			return failed
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
		address = "sqlite:" + dir + "/demo.db"
	}
	db, err := models.Open(ctx, address)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	made, err := demo.Seed(ctx, db, catalogue, now())
	if err != nil {
		return err
	}
	if !made {
		o.Note("The database already has the demo's people and history. They are unchanged.")
	}
	traffic := func(ctx context.Context, log *slog.Logger) error {
		return demo.Run(ctx, demo.Options{
			DB: db, Catalogue: catalogue, Now: time.Now, Log: log, URL: web.URLOf(l.Addr()), Program: os.Args[0], Out: o.Stdout,
		})
	}
	return serve(ctx, Deployment{DB: db, Catalogue: catalogue, Listener: l, Background: traffic})
}
