// Command tollgate meters and limits what the people of a Slack app may use. It is one binary: the server, and the
// commands of its operator. It exits with 0 when all went well, 1 when something failed or verify found a difference, and
// 2 when it was called in a way that makes no sense.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"syscall"
	"text/tabwriter"
	"time"
	"unicode/utf8"

	"github.com/alecthomas/kong"
	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/uptrace/bun"

	"tollgate/models"
	"tollgate/models/billing"
	"tollgate/models/enforcement"
	"tollgate/web"
	"tollgate/web/demo"
)

// command is the whole command line. Every flag may stand before or behind the command that it is meant for.
type command struct {
	Database       string        `env:"DATABASE_URL" secret:"" default:"sqlite:tollgate.db" help:"The database, sqlite:FILE or postgres://USER@HOST/NAME; or $$DATABASE_URL_FILE, a file with its address."`
	Listen         string        `env:"TOLLGATE_LISTEN" default:"${listen}" help:"Where the server listens; port 0 takes a free one."`
	BaseURL        web.BaseURL   `name:"base-url" env:"TOLLGATE_BASE_URL" placeholder:"URL" help:"Where people reach the server. Unless given, where it listens."`
	MetricsListen  string        `env:"TOLLGATE_METRICS_LISTEN" placeholder:"ADDRESS" help:"Where /metrics, /healthz and /readyz are served as well. Unless given, /metrics is off."`
	Plans          string        `env:"TOLLGATE_PLANS" placeholder:"FILE" help:"The plan catalogue. Unless given, the embedded one."`
	TrustedProxies []web.Network `env:"TOLLGATE_TRUSTED_PROXIES" placeholder:"NETWORK" help:"The proxies whose forwarded headers are believed. Unless given, none."`
	OIDCIssuer     string        `name:"oidc-issuer" env:"OIDC_ISSUER" default:"${slack}" help:"The OpenID issuer that signs people in, Slack or another one. It knows this server by $$SLACK_CLIENT_ID and $$SLACK_CLIENT_SECRET, or by the files that each of them with _FILE behind it names; without them only one-time links sign in."`
	StripeAPIBase  string        `name:"stripe-api-base" env:"STRIPE_API_BASE" placeholder:"URL" help:"A stand-in for Stripe on this machine, for tests. Stripe itself is reached by $$STRIPE_SECRET_KEY and heard by $$STRIPE_WEBHOOK_SECRET; without them usage is kept, and the pages say that Stripe is not connected."`

	ReportEvery time.Duration `env:"TOLLGATE_REPORT_EVERY" default:"1m" help:"How often usage is sealed into reports to Stripe; 0 sends nothing, as after a restore."`

	RateLimit int64 `env:"TOLLGATE_RATE_LIMIT" default:"0" placeholder:"N" help:"Calls per second that each API key may make in each process; 0 is no limit. With apikey create: the limit of the new key, which replaces this one for it."`

	LogLevel  slog.Level    `env:"TOLLGATE_LOG_LEVEL" default:"info" placeholder:"info" help:"Log lines of this level and above: debug, info, warn or error."`
	LogFormat web.LogFormat `env:"TOLLGATE_LOG_FORMAT" default:"json" placeholder:"json" help:"Log as json or as text."`
	Drain     time.Duration `env:"TOLLGATE_DRAIN" default:"5s" help:"How long serve goes on to serve after SIGTERM while /readyz answers 503, so that load balancers send no more calls to it. demo stops at once unless this is given."`

	// Variables and no flags to speak of: what stands in a command line, everybody on the machine can read.
	SlackClientID     string `hidden:"" name:"slack-client-id" env:"SLACK_CLIENT_ID" secret:""`
	SlackClientSecret string `hidden:"" env:"SLACK_CLIENT_SECRET" secret:""`

	StripeSecretKey     string `hidden:"" env:"STRIPE_SECRET_KEY" secret:""`
	StripeWebhookSecret string `hidden:"" env:"STRIPE_WEBHOOK_SECRET" secret:""`

	Serve   struct{} `cmd:"" help:"Serve the API and the pages."`
	Demo    struct{} `cmd:"" help:"Serve made-up people with half a year behind them, and traffic going on; in a database that is gone afterwards, unless --database is given."`
	Migrate struct{} `cmd:"" help:"Bring the database's tables up to date. Every other command does so too."`
	SignIn  struct {
		Email string `arg:"" help:"Who signs in with it; somebody who is known."`
	} `cmd:"" help:"Make a link that signs somebody in once, within ten minutes, and print it."`
	APIKey struct {
		Create struct {
			Name   string `required:"" help:"Whose key it is."`
			Scopes string `required:"" placeholder:"check,consume,read" help:"What it may do."`
		} `cmd:"" help:"Make a key of the HTTP API and print it, this once."`
		List   struct{} `cmd:"" help:"List the keys."`
		Revoke struct {
			ID uuid.UUID `arg:"" help:"The key's id, as listed."`
		} `cmd:"" help:"End a key, for good."`
	} `cmd:"" name:"apikey" help:"Keys of the HTTP API."`
	Organization struct {
		Create struct {
			Name      string   `arg:"" help:"What it is called."`
			SlackTeam []string `sep:"none" placeholder:"ID" help:"A Slack team of it; may be given several times. A team that is known already moves to it."`
		} `cmd:"" help:"Make an organization and print its id."`
		List struct{} `cmd:"" help:"List the organizations."`
	} `cmd:"" help:"Organizations and their Slack teams."`
	User struct {
		Set struct {
			Email          string       `arg:"" help:"Who it is; somebody unknown is made."`
			Organization   *uuid.UUID   `xor:"organization" placeholder:"ID" help:"Put them in this organization."`
			NoOrganization bool         `xor:"organization" help:"Take them out of their organization, once they left its Slack teams: the app puts back whom it names with the id of one."`
			Role           *models.Role `placeholder:"admin|member" help:"What they are in their organization."`
			Operator       *bool        `negatable:"" help:"Whether they run this installation."`
		} `cmd:"" help:"Change a person and print their id."`
	} `cmd:"" help:"People."`
	Subscribe struct {
		Email        string        `xor:"subscriber" help:"The person who gets the plan. Give either --email or --organization."`
		Organization *uuid.UUID    `xor:"subscriber" placeholder:"ID" help:"The organization that gets the plan. Give either --email or --organization."`
		Plan         models.PlanID `required:"" help:"A plan of the catalogue; free ends what was given before."`
	} `cmd:"" help:"Give a plan by hand, to a trial or a customer who is invoiced, and print the subscription's id."`
	Stripe struct {
		Setup struct {
			DryRun bool `help:"Only list what would be made and what differs."`
		} `cmd:"" help:"Make at Stripe what the plan catalogue needs, or find it: meter, products, prices, webhook endpoint, portal. What differs is listed. A new endpoint's secret is printed, this once."`
		Reconcile struct {
			Restored bool `help:"The database came back from a backup and nothing is sent yet: settle first what Stripe has already."`
		} `cmd:"" help:"Compare what was used and sent with what Stripe has, by customer and billing period; exits 1 on any difference."`
	} `cmd:"" help:"What is set up at Stripe, and what was sent there."`
	Backup struct {
		File string `arg:"" help:"The file to create; one that exists is not overwritten."`
	} `cmd:"" help:"Write a consistent copy of a SQLite database to a new file, also while the server runs, and print its name."`
	Verify  struct{} `cmd:"" help:"Recount every record and report from its events, and print each difference."`
	Version struct{} `cmd:"" help:"Print the version."`
}

// AfterApply makes secrets fit, as one that comes from a file ends with a line, and refuses what no flag's type does.
func (c *command) AfterApply() error {
	for _, secret := range []*string{&c.Database, &c.SlackClientID, &c.SlackClientSecret, &c.StripeSecretKey, &c.StripeWebhookSecret} {
		*secret = strings.TrimSpace(*secret)
	}
	if c.ReportEvery < 0 {
		return fmt.Errorf("--report-every must not be negative: %s", c.ReportEvery)
	}
	if c.Drain < 0 {
		return fmt.Errorf("--drain must not be negative: %s", c.Drain)
	}
	if err := models.CheckRateLimit(c.RateLimit); err != nil {
		return fmt.Errorf("--rate-limit: %w", err)
	}
	return nil
}

const (
	defaultListen = "127.0.0.1:8080"
	queueLimit    = 8192
	gcPercent     = 200 // instead of Go's 100, unless GOGC is given: see docs/decisions.md
	// softMemoryLimit is the size in bytes from which garbage is collected more often, unless GOMEMLIMIT is given.
	softMemoryLimit = 128 << 20
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// The first signal ends all in order, a second one the process at once. One that comes with the first is its echo: what
	// runs a command may send a signal to it and to its group.
	context.AfterFunc(ctx, func() { time.AfterFunc(300*time.Millisecond, stop) })
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run is main for tests; it returns the exit status. --help alone ends the process.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	c := &command{}
	parser := kong.Must(c, kong.Name("tollgate"), kong.Description("Usage limits and metering for a Slack app: every unit counted once."),
		kong.Vars{"listen": defaultListen, "slack": web.SlackIssuer}, kong.Writers(stdout, stderr), kong.Resolvers(kong.ResolverFunc(secretFromFile)))
	parsed, err := parser.Parse(args)
	if i := slices.IndexFunc(args, func(arg string) bool { return !utf8.ValidString(arg) }); i >= 0 && err == nil {
		err = fmt.Errorf("argument %d is not UTF-8: %q", i+1, args[i])
	}
	if err == nil {
		err = (&app{command: c, parsed: parsed, stdout: stdout, stderr: stderr}).run(ctx)
	}
	if err == nil {
		return 0
	}
	text, status := strings.ReplaceAll(err.Error(), "\n", "; "), 1
	if usage := (*kong.ParseError)(nil); errors.As(err, &usage) {
		text, status = text+" (see tollgate --help)", 2
	}
	_, _ = fmt.Fprintln(stderr, "tollgate:", text)
	return status
}

// secretFromFile reads a secret from the file that its variable's name with _FILE behind it names.
func secretFromFile(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
	if !flag.Tag.Has("secret") {
		return nil, nil
	}
	variable := flag.Envs[0]
	file, ok := os.LookupEnv(variable + "_FILE")
	if !ok {
		return nil, nil
	}
	if _, both := os.LookupEnv(variable); both {
		return nil, fmt.Errorf("%[1]s and %[1]s_FILE are both set", variable)
	}
	content, err := os.ReadFile(file) //nolint:gosec // the operator names the file
	if err != nil {
		return nil, fmt.Errorf("%s_FILE: %w", variable, err)
	}
	return string(content), nil
}

// app is one run of a command.
type app struct {
	*command
	parsed         *kong.Context
	stdout, stderr io.Writer
	db             *models.DB
}

func (a *app) run(ctx context.Context) (err error) {
	name := a.parsed.Command()
	switch name {
	case "version":
		return a.print(version())
	case "demo":
		return a.demo(ctx)
	case "backup <file>":
		return a.backup(ctx)
	}
	if a.db, err = models.Open(ctx, a.Database); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.db.Close()) }()
	switch name {
	case "serve":
		return a.serve(ctx)
	case "migrate":
		a.say("the database is up to date; migrations applied now: %d", len(a.db.Applied))
		return nil
	case "sign-in <email>":
		return a.signIn(ctx)
	case "apikey create":
		return a.createKey(ctx)
	case "apikey list":
		return a.listKeys(ctx)
	case "apikey revoke <id>":
		return a.revokeKey(ctx, a.APIKey.Revoke.ID)
	case "organization create <name>":
		o, err := models.CreateOrganization(ctx, a.db, now(), a.Organization.Create.Name, a.Organization.Create.SlackTeam)
		return a.made(o.ID, err)
	case "organization list":
		return a.listOrganizations(ctx)
	case "user set <email>":
		return a.setUser(ctx)
	case "subscribe":
		return a.subscribe(ctx)
	case "stripe setup":
		return a.setUpStripe(ctx)
	case "verify":
		return a.verify(ctx)
	case "stripe reconcile":
		return a.reconcile(ctx)
	}
	return fmt.Errorf("the command %q is not wired", name)
}

func now() time.Time { return models.Now(time.Now) }

// print writes what a command makes or lists.
func (a *app) print(lines ...any) error {
	_, err := fmt.Fprintln(a.stdout, lines...)
	return err
}

// made prints the id of what was made.
func (a *app) made(id uuid.UUID, err error) error {
	if err != nil {
		return err
	}
	return a.print(id)
}

// setUser says which identity the address belongs to before it grants a role: an API call may have claimed the address.
func (a *app) setUser(ctx context.Context) error {
	set := a.User.Set
	change := models.UserChange{OrganizationID: set.Organization, Leaves: set.NoOrganization, Role: set.Role, Operator: set.Operator}
	if change.Grants() {
		known, err := models.IdentitiesOf(ctx, a.db, set.Email)
		if err != nil {
			return err
		}
		a.say("%s", known.Describe())
		change.UserID = known.UserID
	}
	u, err := models.SetUser(ctx, a.db, now(), set.Email, change)
	return a.made(u.ID, err)
}

// say tells a person at the shell what a script need not read.
func (a *app) say(format string, args ...any) { _, _ = fmt.Fprintf(a.stderr, format+"\n", args...) }

// onCommandLine reports whether a flag was given there.
func (a *app) onCommandLine(name string) bool {
	return slices.ContainsFunc(a.parsed.Path, func(p *kong.Path) bool { return p.Flag != nil && p.Flag.Name == name && !p.Resolved })
}

// given says that a flag was, or its variable, or a secret's file.
func (a *app) given(name string) bool {
	for _, flag := range a.parsed.Flags() {
		if flag.Name == name {
			return slices.ContainsFunc(a.parsed.Path, func(p *kong.Path) bool { return p.Flag == flag }) ||
				slices.ContainsFunc(flag.Envs, func(variable string) bool {
					_, ok := os.LookupEnv(variable)
					_, file := os.LookupEnv(variable + "_FILE")
					return ok || file && flag.Tag.Has("secret")
				})
		}
	}
	return false
}

// signIn prints a one-time link to the server that this command line would start.
func (a *app) signIn(ctx context.Context) error {
	base := string(a.BaseURL)
	if base == "" {
		address, err := net.ResolveTCPAddr("tcp", a.Listen)
		if err != nil {
			return fmt.Errorf("--listen: %w", err)
		}
		if address == nil || address.Port == 0 {
			return errors.New("--listen names no port to put into the link: give the server's address with --base-url")
		}
		base = web.URLOf(address)
	}
	token, err := models.CreateSignInLink(ctx, a.db, now(), a.SignIn.Email)
	if err != nil {
		return err
	}
	a.say("This link works once, within ten minutes. Whoever opens it is %s.", a.SignIn.Email)
	return a.print(base + web.SignInLinkPath + token)
}

func (a *app) createKey(ctx context.Context) error {
	create := a.APIKey.Create
	scopes, err := models.ParseScopes(create.Scopes)
	if err != nil {
		return err
	}
	var limit *int64
	if a.onCommandLine("rate-limit") { // the variable is the server's default, and stays that
		limit = &a.RateLimit
	}
	var key string
	err = a.db.InTx(ctx, func(ctx context.Context, tx bun.Tx) (err error) {
		if key, err = models.CreateLimitedAPIKey(ctx, tx, now(), create.Name, scopes, limit); err != nil {
			return err
		}
		return models.Audit(ctx, tx, now(), models.ActorShell, "apikey.create", create.Name, create.Scopes+models.RateLimitNote(limit))
	})
	if err != nil {
		return err
	}
	a.say("This key is shown once; only its hash is kept.")
	return a.print(key)
}

func (a *app) revokeKey(ctx context.Context, id uuid.UUID) error {
	return a.db.InTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		if err := models.RevokeAPIKey(ctx, tx, now(), id); err != nil {
			return err
		}
		return models.Audit(ctx, tx, now(), models.ActorShell, "apikey.revoke", id.String(), "")
	})
}

func (a *app) listKeys(ctx context.Context) error {
	keys, err := models.ListAPIKeys(ctx, a.db)
	if err != nil {
		return err
	}
	date := func(t *time.Time) string {
		if t == nil {
			return "never"
		}
		return t.UTC().Format(time.RFC3339)
	}
	return a.table("ID\tNAME\tKEY\tSCOPES\tRATE LIMIT\tCREATED\tLAST USED\tREVOKED", len(keys), func(i int) string {
		k := &keys[i]
		return strings.Join([]string{k.ID.String(), k.Name, k.Hint + "…", k.Scopes, k.RateLimitText(), date(&k.CreatedAt), date(k.LastUsedAt), date(k.RevokedAt)}, "\t")
	})
}

func (a *app) listOrganizations(ctx context.Context) error {
	catalogue, err := models.LoadCatalogue(a.Plans)
	if err != nil {
		return err
	}
	entries, err := models.ListOrganizations(ctx, a.db, catalogue)
	if err != nil {
		return err
	}
	return a.table("ID\tNAME\tPLAN\tTEAMS\tMEMBERS", len(entries), func(i int) string {
		e := &entries[i]
		return fmt.Sprintf("%s\t%s\t%s\t%d\t%d", e.ID, e.Name, e.PlanID, e.Teams, e.Members)
	})
}

func (a *app) table(head string, rows int, row func(int) string) error {
	w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, head)
	for i := range rows {
		_, _ = fmt.Fprintln(w, row(i))
	}
	return w.Flush()
}

func (a *app) subscribe(ctx context.Context) error {
	s := a.Subscribe
	if s.Email == "" && s.Organization == nil {
		return errors.New("missing --email or --organization: name who gets the plan")
	}
	catalogue, err := models.LoadCatalogue(a.Plans)
	if err != nil {
		return err
	}
	made, err := models.Subscribe(ctx, a.db, catalogue, now(), models.Subscriber{Email: s.Email, OrganizationID: s.Organization}, s.Plan)
	if err != nil || made == nil {
		return err
	}
	return a.print(made.ID)
}

func (a *app) setUpStripe(ctx context.Context) error {
	catalogue, err := models.LoadCatalogue(a.Plans)
	if err != nil {
		return err
	}
	client, err := a.stripeClient()
	if err != nil {
		return err
	}
	report, err := billing.Setup(ctx, billing.SetupOptions{
		DB: a.db, Client: client, Catalogue: catalogue, Now: time.Now, BaseURL: string(a.BaseURL), DryRun: a.Stripe.Setup.DryRun,
	})
	for _, line := range report.Lines() {
		a.say("%s", line)
	}
	if report.WebhookSecret != "" {
		a.say("This is the endpoint's secret, for STRIPE_WEBHOOK_SECRET. Stripe tells it this once.")
		return errors.Join(err, a.print(report.WebhookSecret))
	}
	return err
}

func (a *app) verify(ctx context.Context) error {
	differences := 0
	counted, err := models.Recount(ctx, a.db, func(d models.Difference) {
		differences++
		_ = a.print(d)
	})
	if err != nil {
		return err
	}
	a.say("%s", counted)
	if differences > 0 {
		return fmt.Errorf("verify: %d differences", differences)
	}
	a.say("every record and report is what its events add up to")
	return nil
}

// backup copies a database that exists: it is not opened as the other commands do, which create a missing one.
func (a *app) backup(ctx context.Context) error {
	size, err := models.Backup(ctx, a.Database, a.Backup.File)
	if err != nil {
		return err
	}
	a.say("wrote %d bytes; check them with: tollgate verify --database sqlite:%s", size, a.Backup.File)
	return a.print(a.Backup.File)
}

// startStripe gives the server its part of Stripe, if it is connected, and sets it to work until stop.
// Reports stop as soon as ctx ends; webhooks are applied until the drain is over, as Stripe still sends them until then.
func (a *app) startStripe(ctx context.Context, o *web.Options) (stop func(), err error) {
	if a.StripeSecretKey == "" {
		return func() {}, nil
	}
	client, err := a.stripeClient()
	if err != nil {
		return nil, err
	}
	o.Reporter, o.StripeLive = a.reporter(client, o.Catalogue, o.Log), client.Live
	if err := billing.RegisterMetrics(o.Metrics, a.db, o.Reporter.Sends, time.Now, o.Log); err != nil {
		return nil, err
	}
	var stops []func()
	if a.ReportEvery > 0 {
		o.Reporter.Start(ctx)
		stops = append(stops, o.Reporter.Stop)
	} else {
		o.Log.Warn("nothing is sent to Stripe: --report-every is 0")
	}
	o.Shop = billing.NewShop(billing.ShopOptions{DB: a.db, Client: client, Catalogue: o.Catalogue, Now: time.Now, BaseURL: o.BaseURL, Log: o.Log})
	o.Webhooks = billing.NewWebhooks(billing.WebhookOptions{
		DB: a.db, Client: client, Catalogue: o.Catalogue, Secret: a.StripeWebhookSecret, Now: time.Now, Random: rand.Float64, Log: o.Log,
	})
	applying, end := context.WithCancel(context.WithoutCancel(ctx))
	context.AfterFunc(ctx, func() { time.AfterFunc(o.Drain, end) })
	o.Webhooks.Start(applying)
	stops = append(stops, o.Webhooks.Stop)
	return func() {
		end()
		for _, stop := range stops {
			stop()
		}
	}, nil
}

// stripeClient is Stripe by the key of this command line.
func (a *app) stripeClient() (*billing.Client, error) {
	if a.StripeSecretKey == "" {
		return nil, errors.New("Stripe is not connected: set STRIPE_SECRET_KEY or STRIPE_SECRET_KEY_FILE") //nolint:staticcheck // Stripe is a name
	}
	if err := billing.CheckKey(a.StripeSecretKey); err != nil {
		return nil, fmt.Errorf("STRIPE_SECRET_KEY: %w", err)
	}
	return billing.NewClient(billing.ClientOptions{Key: a.StripeSecretKey, APIBase: a.StripeAPIBase})
}

func (a *app) reporter(client *billing.Client, catalogue *models.Catalogue, log *slog.Logger) *billing.Reporter {
	return billing.NewReporter(billing.Options{DB: a.db, Client: client, Catalogue: catalogue, Now: time.Now, Log: log, Every: a.ReportEvery})
}

func (a *app) reconcile(ctx context.Context) error {
	catalogue, err := models.LoadCatalogue(a.Plans)
	if err != nil {
		return err
	}
	client, err := a.stripeClient()
	if err != nil {
		return err
	}
	return a.reporter(client, catalogue, slog.New(slog.DiscardHandler)).PrintReconciliation(ctx, a.stdout, a.stderr, a.Stripe.Reconcile.Restored)
}

// checkConnections returns an error if a setting that connects this server to Stripe or to the sign-in issuer is malformed or
// lacks its counterpart.
func (a *app) checkConnections() error {
	if a.StripeSecretKey != "" {
		if err := billing.CheckKey(a.StripeSecretKey); err != nil {
			return fmt.Errorf("STRIPE_SECRET_KEY: %w", err)
		}
	}
	if a.StripeWebhookSecret != "" {
		if err := billing.CheckWebhookSecret(a.StripeWebhookSecret); err != nil {
			return fmt.Errorf("STRIPE_WEBHOOK_SECRET: %w", err)
		}
	}
	for _, pair := range [][2]struct{ name, value string }{
		{{"STRIPE_SECRET_KEY", a.StripeSecretKey}, {"STRIPE_WEBHOOK_SECRET", a.StripeWebhookSecret}},
		{{"SLACK_CLIENT_ID", a.SlackClientID}, {"SLACK_CLIENT_SECRET", a.SlackClientSecret}},
	} {
		given, missing := pair[0], pair[1]
		if given.value == "" {
			given, missing = missing, given
		}
		if given.value != "" && missing.value == "" {
			return fmt.Errorf("%s is set but %s is not: set both or neither", given.name, missing.name)
		}
	}
	return nil
}

func (a *app) serve(ctx context.Context) error {
	if err := a.checkConnections(); err != nil {
		return err
	}
	catalogue, err := models.LoadCatalogue(a.Plans)
	if err != nil {
		return err
	}
	l, err := web.Listen(ctx, "--listen", a.Listen)
	if err != nil {
		return err
	}
	defer func() { _ = l.Close() }() // already closed, unless the start failed
	return a.serveOn(ctx, l, catalogue, nil)
}

// demo serves a made-up organization, in a database of its own unless one was given.
func (a *app) demo(ctx context.Context) (err error) {
	l, err := web.Listen(ctx, "--listen", a.Listen)
	if errors.Is(err, syscall.EADDRINUSE) && !a.given("listen") {
		if l, err = web.Listen(ctx, "--listen", "127.0.0.1:0"); err == nil {
			a.say("%s is taken, so the demo listens on %s", defaultListen, l.Addr())
		}
	}
	if err != nil {
		return err
	}
	defer func() { _ = l.Close() }() // already closed, unless the start failed
	catalogue, err := models.LoadCatalogue(a.Plans)
	if err != nil {
		return err
	}
	address := a.Database
	if !a.given("database") {
		dir, failed := os.MkdirTemp("", "tollgate-demo-")
		if failed != nil {
			return failed
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
		address = "sqlite:" + dir + "/demo.db"
	}
	if a.db, err = models.Open(ctx, address); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.db.Close()) }()
	made, err := demo.Seed(ctx, a.db, catalogue, now())
	if err != nil {
		return err
	}
	if !made {
		a.say("The database has the demo's people and history already; they stay as they are.")
	}
	return a.serveOn(ctx, l, catalogue, func(ctx context.Context, log *slog.Logger) error {
		return demo.Run(ctx, demo.Options{DB: a.db, Catalogue: catalogue, Now: time.Now, Log: log, URL: web.URLOf(l.Addr()), Program: os.Args[0], Out: a.stdout})
	})
}

// serveOn serves on l until ctx ends, and runs beside while it does; beside may be nil. It stops in order: requests, then what
// applies webhooks, the gate and the metrics, and the caller closes the database.
func (a *app) serveOn(ctx context.Context, l net.Listener, catalogue *models.Catalogue, beside func(context.Context, *slog.Logger) error) error {
	log := slog.New(web.WithoutEmails(web.NewLogHandler(a.stderr, a.LogLevel, a.LogFormat)))
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(softMemoryLimit)
	}
	var server *web.Server
	var metrics sync.WaitGroup
	whole, end := context.WithCancel(context.WithoutCancel(ctx)) // until the very end
	defer func() {
		end()
		metrics.Wait()
		if server != nil {
			server.LogStop()
		}
	}()
	if err := catalogue.ReadMeters(ctx, a.db); err != nil {
		return err
	}
	gate, err := enforcement.Open(ctx, a.db, enforcement.Options{Catalogue: catalogue, Now: time.Now, Log: log, Metrics: registry, QueueLimit: queueLimit})
	if err != nil {
		return err
	}
	defer gate.Close()
	o := web.Options{
		DB: a.db, Gate: gate, Catalogue: catalogue, Now: time.Now, Log: log, Metrics: registry, BaseURL: string(a.BaseURL), Version: version(),
		RateLimit: a.RateLimit, SignIn: web.SignIn{Issuer: a.OIDCIssuer, ClientID: a.SlackClientID, ClientSecret: a.SlackClientSecret}, Drain: a.Drain,
	}
	if beside != nil && !a.given("drain") {
		o.Drain = 0 // a person at a terminal should not have to wait
	}
	if o.BaseURL == "" {
		o.BaseURL = web.URLOf(l.Addr())
	}
	for _, n := range a.TrustedProxies {
		o.TrustedProxies = append(o.TrustedProxies, (*net.IPNet)(&n))
	}
	if beside == nil { // made-up usage is nobody's bill
		stop, err := a.startStripe(ctx, &o)
		if err != nil {
			return err
		}
		defer stop()
	}
	if server, err = web.New(o); err != nil {
		return err
	}
	tasks := []func(context.Context) error{
		func(ctx context.Context) error { return server.Serve(ctx, l) },
		func(ctx context.Context) error { a.tellOfPlans(ctx, catalogue, log); return nil },
	}
	if a.MetricsListen != "" {
		m, err := web.Listen(ctx, "--metrics-listen", a.MetricsListen)
		if err != nil {
			return err
		}
		log.Info("metrics are served", "url", web.URLOf(m.Addr())+"/metrics")
		failed := make(chan error, 1)
		metrics.Go(func() { failed <- server.ServeMetrics(whole, m) })
		tasks = append(tasks, func(ctx context.Context) error {
			select {
			case err := <-failed:
				return err
			case <-ctx.Done():
				return nil
			}
		})
	}
	if beside != nil {
		tasks = append(tasks, func(ctx context.Context) error { return beside(ctx, log) })
	}
	log.Info("started", "version", o.Version, "database", a.db.Address(), "listen", l.Addr().String(), "base_url", o.BaseURL,
		"stripe", o.StripeMode(), "sign_in", o.SignIn.Mode())
	_ = a.print("listening on", web.URLOf(l.Addr())) // a server whose output nobody reads serves all the same
	return together(ctx, tasks)
}

// tellOfPlans warns of subscriptions to what the catalogue lacks: their people get what free gives.
func (a *app) tellOfPlans(ctx context.Context, catalogue *models.Catalogue, log *slog.Logger) {
	lacking, err := models.LackingPlans(ctx, a.db, catalogue)
	if err != nil && ctx.Err() == nil {
		log.Warn("which plans are subscribed to is not known", "error", err)
	}
	for _, p := range lacking {
		log.Warn("the catalogue lacks a plan that people are subscribed to, so it gives them what free gives", "plan", p.ID, "subscriptions", p.Subscriptions)
	}
}

// together runs all tasks until they end; the first that fails ends the others.
func together(ctx context.Context, tasks []func(context.Context) error) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	faults := make([]error, len(tasks))
	var wg sync.WaitGroup
	for i, task := range tasks {
		wg.Go(func() {
			if faults[i] = task(ctx); faults[i] != nil {
				stop()
			}
		})
	}
	wg.Wait()
	return errors.Join(faults...)
}

// version is the module's, as the Go toolchain noted it at build time.
func version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "unknown"
}
