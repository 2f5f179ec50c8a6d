// Command tollgate meters and limits the usage of a Slack app. One binary has the server and the
// operator's commands. It exits with 0 on success, with 1 on an error or if verify found a
// difference, and with 2 if the command line is invalid.
package main

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/alecthomas/kong"
	"golang.org/x/sync/errgroup"

	"tollgate/models"
	"tollgate/models/enforcement"
	"tollgate/web"
	"tollgate/web/cli"
)

// command has all flags and commands.
type command struct {
	cli.Settings

	Serve serveCommand `cmd:"" help:"Serve the API and the pages."`
	cli.Commands
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// The first signal stops everything in order, and a second one ends the process immediately. For
	// 300 ms, a second one is ignored: a parent may signal the process and its group.
	context.AfterFunc(ctx, func() { time.AfterFunc(300*time.Millisecond, stop) })
	status := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	cli.StopProfile()
	os.Exit(status)
}

// run parses the command line, runs the command and returns the exit status. --help exits here.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	c := &command{}
	parser := kong.Must(c, kong.Name("tollgate"), kong.Description("Usage limits and metering for a Slack app: every unit counted once."),
		kong.Vars{"listen": cli.DefaultListen, "slack": web.SlackIssuer}, cli.HelpTexts, kong.Writers(stdout, stderr),
		kong.Resolvers(kong.ResolverFunc(cli.ReadSecretFile)))
	o := &cli.Output{Stdout: stdout, Stderr: stderr}
	parsed, err := parser.Parse(args)
	if err == nil {
		err = cli.CheckUTF8(args)
	}
	if err == nil {
		err = c.run(ctx, parsed, o)
	}
	return o.Exit(err)
}

// run calls the command's Run method, and closes the database if that opened it.
func (c *command) run(ctx context.Context, parsed *kong.Context, o *cli.Output) (err error) {
	var db *models.DB
	defer func() {
		if db != nil {
			err = errors.Join(err, db.Close())
		}
	}()
	parsed.BindTo(ctx, (*context.Context)(nil))
	parsed.Bind(&c.Settings, o, cli.Serve(func(ctx context.Context, d cli.Deployment) error { return serve(ctx, parsed, &c.Settings, o, d) }))
	if err := errors.Join(
		parsed.BindSingletonProvider(func() (*models.Catalogue, error) { return models.LoadCatalogue(c.Plans) }),
		parsed.BindSingletonProvider(func() (_ *models.DB, err error) { db, err = cli.Open(ctx, parsed, c.Database); return db, err }),
	); err != nil {
		return err
	}
	return parsed.Run()
}

type serveCommand struct{}

// Run runs the server until ctx ends.
func (serveCommand) Run(ctx context.Context, s *cli.Settings, db *models.DB, catalogue *models.Catalogue, serve cli.Serve) error {
	if err := s.CheckConnections(); err != nil {
		return err
	}
	l, err := web.Listen(ctx, "--listen", s.Listen)
	if err != nil {
		return err
	}
	defer func() { _ = l.Close() }() // closed already, unless the start failed
	return serve(ctx, cli.Deployment{DB: db, Catalogue: catalogue, Listener: l})
}

// serve runs a server until ctx ends. It stops in this order: requests, notices, webhooks, the gate, the
// traces, the metrics. The caller closes the database.
func serve(ctx context.Context, parsed *kong.Context, s *cli.Settings, out *cli.Output, d cli.Deployment) error {
	log, registry := s.Logger(out.Stderr), cli.NewRegistry()
	var server *web.Server
	stopMetrics := func() {} // runs last
	defer func() {
		stopMetrics()
		if server != nil {
			server.LogStop()
		}
	}()
	if err := d.Prepare(ctx); err != nil {
		return err
	}
	tracer, stopTraces, err := cli.StartTraces(ctx, log)
	if err != nil {
		return err
	}
	defer stopTraces()
	gate, err := enforcement.Open(ctx, d.DB, enforcement.Options{
		Catalogue: d.Catalogue, Now: time.Now, Log: log, Metrics: registry, Tracer: tracer, QueueLimit: 8192, // calls that may wait
	})
	if err != nil {
		return err
	}
	defer gate.Close()
	o := s.ServerOptions(parsed, d)
	o.Gate, o.Log, o.Metrics, o.Tracer = gate, log, registry, tracer
	stop, err := s.StartWorkers(ctx, d, &o)
	if err != nil {
		return err
	}
	defer stop()
	if server, err = web.New(o); err != nil {
		return err
	}
	tasks, ctx := errgroup.WithContext(ctx)
	if s.MetricsListen != "" {
		failed, stop, err := s.StartMetrics(ctx, server, log)
		if err != nil {
			return err
		}
		stopMetrics = stop
		tasks.Go(func() error { return failed(ctx) })
	}
	log.Info("started", "version", o.Version, "database", d.DB.Address(), "listen", d.Listener.Addr().String(), "base_url", o.BaseURL,
		"stripe", o.StripeMode(), "sign_in", o.SignIn.Mode(), "slack", o.Slack.Mode())
	_ = out.Print("listening on", web.URLOf(d.Listener.Addr())) // if this fails, the server still serves
	tasks.Go(func() error { return server.Serve(ctx, d.Listener) })
	tasks.Go(func() error { s.Housekeeping(ctx, d, log, registry); return nil })
	if d.Background != nil {
		tasks.Go(func() error { return d.Background(ctx, log) })
	}
	return tasks.Wait()
}
