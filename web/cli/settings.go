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
	"tollgate/models/notify"
	"tollgate/web"
)

// DefaultListen is the default of --listen, and DefaultDatabase that of --database.
const (
	DefaultListen   = "127.0.0.1:8080"
	DefaultDatabase = "sqlite:tollgate.db"
)

// Settings has the flags that all commands share. A flag may be before or after the command. A flag
// on the command line overrides its environment variable, which overrides the file of --config.
// HelpTexts has the longer help texts.
type Settings struct {
	Config string `env:"TOLLGATE_CONFIG" placeholder:"FILE" help:"${help_config}"`

	Database       string        `env:"DATABASE_URL" secret:"" default:"${database}" help:"${help_database}"`
	Listen         string        `env:"TOLLGATE_LISTEN" default:"${listen}" help:"${help_listen}"`
	BaseURL        web.BaseURL   `name:"base-url" env:"TOLLGATE_BASE_URL" placeholder:"URL" help:"${help_base_url}"`
	MetricsListen  string        `env:"TOLLGATE_METRICS_LISTEN" placeholder:"ADDRESS" help:"${help_metrics_listen}"`
	Plans          string        `env:"TOLLGATE_PLANS" placeholder:"FILE" help:"The plan catalog, a YAML file. Default: the embedded one."`
	TrustedProxies []web.Network `env:"TOLLGATE_TRUSTED_PROXIES" placeholder:"NETWORK" help:"${help_trusted_proxies}"`
	OIDCIssuer     string        `name:"oidc-issuer" env:"OIDC_ISSUER" default:"${slack}" help:"${help_oidc_issuer}"`
	StripeAPIBase  string        `name:"stripe-api-base" env:"STRIPE_API_BASE" placeholder:"URL" help:"${help_stripe_api_base}"`
	SlackAPIBase   string        `name:"slack-api-base" env:"SLACK_API_BASE" placeholder:"URL" help:"${help_slack_api_base}"`

	SMTP string `name:"smtp" env:"TOLLGATE_SMTP" secret:"" placeholder:"URL" help:"${help_smtp}"`

	ReportEvery time.Duration `env:"TOLLGATE_REPORT_EVERY" default:"1m" help:"${help_report_every}"`

	KeepEvents models.KeepEvents `env:"TOLLGATE_KEEP_EVENTS" default:"18mo" placeholder:"18mo" help:"${help_keep_events}"`

	RateLimit int64 `env:"TOLLGATE_RATE_LIMIT" default:"0" placeholder:"N" help:"${help_rate_limit}"`

	LogLevel  slog.Level    `env:"TOLLGATE_LOG_LEVEL" default:"info" placeholder:"info" help:"${help_log_level}"`
	LogFormat web.LogFormat `env:"TOLLGATE_LOG_FORMAT" default:"json" placeholder:"json" help:"The format of log lines: json or text."`
	Drain     time.Duration `env:"TOLLGATE_DRAIN" default:"5s" help:"${help_drain}"`

	// Secrets have no flags, since every user of the machine can read a command line.
	SlackClientID       string `hidden:"" name:"slack-client-id" env:"SLACK_CLIENT_ID" secret:""`
	SlackClientSecret   string `hidden:"" env:"SLACK_CLIENT_SECRET" secret:""`
	SlackSigningSecret  string `hidden:"" env:"SLACK_SIGNING_SECRET" secret:""`
	SlackBotToken       string `hidden:"" env:"SLACK_BOT_TOKEN" secret:""`
	StripeSecretKey     string `hidden:"" env:"STRIPE_SECRET_KEY" secret:""`
	StripeWebhookSecret string `hidden:"" env:"STRIPE_WEBHOOK_SECRET" secret:""`

	// secretsOpen means that every user of the machine can read the secrets in the file of --config.
	secretsOpen bool
}

// AfterApply trims secrets, since a secret from a file ends with a line break, and validates what
// the flags' types do not.
func (s *Settings) AfterApply(parser *kong.Kong) error {
	if s.secretsOpen {
		slog.New(web.NewLogHandler(parser.Stderr, s.LogLevel, s.LogFormat)).
			Warn("every user of this machine can read the secrets in the file of --config; run chmod o-r", "file", s.Config)
	}
	for _, secret := range []*string{
		&s.Database, &s.SMTP, &s.SlackClientID, &s.SlackClientSecret, &s.SlackSigningSecret, &s.SlackBotToken,
		&s.StripeSecretKey, &s.StripeWebhookSecret,
	} {
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

// CheckConnections returns an error if a setting for Stripe, Slack, mail or the sign-in issuer is malformed,
// or if only one of two settings that belong together is set.
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
	if s.SlackSigningSecret != "" {
		if err := web.CheckSigningSecret(s.SlackSigningSecret); err != nil {
			return fmt.Errorf("SLACK_SIGNING_SECRET: %w", err)
		}
	}
	if s.SlackBotToken != "" {
		if err := web.CheckBotToken(s.SlackBotToken); err != nil {
			return fmt.Errorf("SLACK_BOT_TOKEN: %w", err)
		}
	}
	if s.SlackAPIBase != "" {
		if err := models.CheckStandIn(s.SlackAPIBase); err != nil {
			return fmt.Errorf("--slack-api-base: %w", err)
		}
	}
	if s.SMTP != "" {
		if _, err := notify.ParseSMTP(s.SMTP); err != nil {
			return fmt.Errorf("--smtp (TOLLGATE_SMTP): %w", err)
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
			return fmt.Errorf("%s is set but %s is not; set both or neither", given.name, missing.name)
		}
	}
	return nil
}

// slackAPI returns the address of Slack's API, ending with a slash; empty for Slack's own.
func (s *Settings) slackAPI() string {
	if s.SlackAPIBase == "" {
		return ""
	}
	return strings.TrimRight(s.SlackAPIBase, "/") + "/"
}

// serverURL returns the URL of the server that has these settings.
func (s *Settings) serverURL() (string, error) {
	if s.BaseURL != "" {
		return string(s.BaseURL), nil
	}
	address, err := net.ResolveTCPAddr("tcp", s.Listen)
	if err != nil {
		return "", fmt.Errorf("--listen: %w", err)
	}
	if address == nil || address.Port == 0 {
		return "", errors.New("cannot make the link: --listen does not name a fixed port; set --base-url to the server's address")
	}
	return web.URLOf(address), nil
}

// ReadSecretFile is a kong resolver. It reads a secret from the file that the variable with the
// suffix _FILE names.
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

// Given reports whether a flag was given on the command line, in its variable, in a secret's file or
// in the file of --config.
func Given(parsed *kong.Context, name string) bool {
	for _, flag := range parsed.Flags() {
		if flag.Name == name {
			return slices.ContainsFunc(parsed.Path, func(p *kong.Path) bool { return p.Flag == flag }) || inEnvironment(flag)
		}
	}
	return false
}

// inEnvironment reports whether a flag's variable is set, or the one that names a secret's file.
func inEnvironment(flag *kong.Flag) bool {
	return slices.ContainsFunc(flag.Envs, func(variable string) bool {
		_, ok := os.LookupEnv(variable)
		_, file := os.LookupEnv(variable + "_FILE")
		return ok || file && flag.Tag.Has("secret")
	})
}
