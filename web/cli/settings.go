package cli

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"tollgate/models"
	"tollgate/models/billing"
	"tollgate/web"
)

// DefaultListen is where the server listens unless --listen says otherwise.
const DefaultListen = "127.0.0.1:8080"

// Settings are the flags that several commands share. A flag may stand before or after its command, and a flag on the command
// line overrides its environment variable.
type Settings struct {
	Database       string        `env:"DATABASE_URL" secret:"" default:"sqlite:tollgate.db" help:"The database: sqlite:FILE or postgres://USER@HOST/NAME. $$DATABASE_URL_FILE can name a file with its address instead."`
	Listen         string        `env:"TOLLGATE_LISTEN" default:"${listen}" help:"The address that the server listens on. Port 0 picks a free port."`
	BaseURL        web.BaseURL   `name:"base-url" env:"TOLLGATE_BASE_URL" placeholder:"URL" help:"The URL at which people reach the server. Default: the address that it listens on."`
	MetricsListen  string        `env:"TOLLGATE_METRICS_LISTEN" placeholder:"ADDRESS" help:"Also serve /metrics, /healthz and /readyz on this address. By default, /metrics is not served."`
	Plans          string        `env:"TOLLGATE_PLANS" placeholder:"FILE" help:"The plan catalog. Default: the embedded one."`
	TrustedProxies []web.Network `env:"TOLLGATE_TRUSTED_PROXIES" placeholder:"NETWORK" help:"Networks of proxies whose forwarded headers are trusted. Default: none."`
	OIDCIssuer     string        `name:"oidc-issuer" env:"OIDC_ISSUER" default:"${slack}" help:"The OpenID issuer for sign-in: Slack or another one. Set $$SLACK_CLIENT_ID and $$SLACK_CLIENT_SECRET to the client that it knows, or set each name with _FILE to a file. Without them, people sign in with one-time links only."`
	StripeAPIBase  string        `name:"stripe-api-base" env:"STRIPE_API_BASE" placeholder:"URL" help:"A stand-in for Stripe on this machine, for tests. To connect Stripe itself, set $$STRIPE_SECRET_KEY and $$STRIPE_WEBHOOK_SECRET. Without them, usage is recorded, and the pages say that Stripe is not connected."`

	ReportEvery time.Duration `env:"TOLLGATE_REPORT_EVERY" default:"1m" help:"How often usage is sealed into reports to Stripe. 0 sends nothing, for use after a restore."`

	RateLimit int64 `env:"TOLLGATE_RATE_LIMIT" default:"0" placeholder:"N" help:"Calls per second that each API key may make in each process. 0 means no limit. With apikey create: the limit of the new key, which overrides this one."`

	LogLevel  slog.Level    `env:"TOLLGATE_LOG_LEVEL" default:"info" placeholder:"info" help:"Log lines of this level and above: debug, info, warn or error."`
	LogFormat web.LogFormat `env:"TOLLGATE_LOG_FORMAT" default:"json" placeholder:"json" help:"Log as json or as text."`
	Drain     time.Duration `env:"TOLLGATE_DRAIN" default:"5s" help:"How long serve keeps serving after SIGTERM while /readyz answers 503, so that load balancers stop sending calls. demo stops immediately unless you set this."`

	// Secrets come from variables: everyone on the machine can read a command line.
	SlackClientID       string `hidden:"" name:"slack-client-id" env:"SLACK_CLIENT_ID" secret:""`
	SlackClientSecret   string `hidden:"" env:"SLACK_CLIENT_SECRET" secret:""`
	StripeSecretKey     string `hidden:"" env:"STRIPE_SECRET_KEY" secret:""`
	StripeWebhookSecret string `hidden:"" env:"STRIPE_WEBHOOK_SECRET" secret:""`
}

// AfterApply trims secrets, since a secret from a file ends with a line break, and refuses what the types of flags accept.
func (s *Settings) AfterApply() error {
	for _, secret := range []*string{&s.Database, &s.SlackClientID, &s.SlackClientSecret, &s.StripeSecretKey, &s.StripeWebhookSecret} {
		*secret = strings.TrimSpace(*secret)
	}
	if s.ReportEvery < 0 {
		return fmt.Errorf("--report-every must not be negative: %s", s.ReportEvery)
	}
	if s.Drain < 0 {
		return fmt.Errorf("--drain must not be negative: %s", s.Drain)
	}
	if err := models.CheckRateLimit(s.RateLimit); err != nil {
		return fmt.Errorf("--rate-limit: %w", err)
	}
	return nil
}

// CheckConnections returns an error if a setting that connects the server to Stripe or to the sign-in issuer is malformed or lacks
// its counterpart.
func (s *Settings) CheckConnections() error {
	if s.StripeSecretKey != "" {
		if err := billing.CheckKey(s.StripeSecretKey); err != nil {
			return fmt.Errorf("STRIPE_SECRET_KEY: %w", err)
		}
	}
	if s.StripeWebhookSecret != "" {
		if err := billing.CheckWebhookSecret(s.StripeWebhookSecret); err != nil {
			return fmt.Errorf("STRIPE_WEBHOOK_SECRET: %w", err)
		}
	}
	for _, pair := range [][2]struct{ name, value string }{
		{{"STRIPE_SECRET_KEY", s.StripeSecretKey}, {"STRIPE_WEBHOOK_SECRET", s.StripeWebhookSecret}},
		{{"SLACK_CLIENT_ID", s.SlackClientID}, {"SLACK_CLIENT_SECRET", s.SlackClientSecret}},
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

// serverURL returns the URL of the server that these settings start.
func (s *Settings) serverURL() (string, error) {
	if s.BaseURL != "" {
		return string(s.BaseURL), nil
	}
	address, err := net.ResolveTCPAddr("tcp", s.Listen)
	if err != nil {
		return "", fmt.Errorf("--listen: %w", err)
	}
	if address == nil || address.Port == 0 {
		return "", errors.New("--listen names no port to put into the link: give the server's address with --base-url")
	}
	return web.URLOf(address), nil
}

// ReadSecretFile is a resolver that reads a secret from the file that its variable with the suffix _FILE names.
func ReadSecretFile(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
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

// onCommandLine reports whether a flag was given on the command line.
func onCommandLine(parsed *kong.Context, name string) bool {
	return slices.ContainsFunc(parsed.Path, func(p *kong.Path) bool { return p.Flag != nil && p.Flag.Name == name && !p.Resolved })
}

// Given reports whether a flag was given on the command line, by its variable or by a secret's file.
func Given(parsed *kong.Context, name string) bool {
	for _, flag := range parsed.Flags() {
		if flag.Name != name {
			continue
		}
		return slices.ContainsFunc(parsed.Path, func(p *kong.Path) bool { return p.Flag == flag }) ||
			slices.ContainsFunc(flag.Envs, func(variable string) bool {
				_, ok := os.LookupEnv(variable)
				_, file := os.LookupEnv(variable + "_FILE")
				return ok || file && flag.Tag.Has("secret")
			})
	}
	return false
}
