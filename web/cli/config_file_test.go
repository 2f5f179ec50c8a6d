package cli_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"

	"tollgate/web"
	"tollgate/web/cli"
)

// newParser returns the parser of main, the settings that it sets, and what it writes to standard
// error.
func newParser(t *testing.T) (*kong.Kong, *cli.Settings, *bytes.Buffer) {
	t.Helper()
	var c struct {
		cli.Settings
		cli.Commands
	}
	var stderr bytes.Buffer
	parser, err := kong.New(&c, kong.Vars{"listen": cli.DefaultListen, "slack": web.SlackIssuer}, cli.HelpTexts,
		kong.Writers(&bytes.Buffer{}, &stderr), kong.Resolvers(kong.ResolverFunc(cli.ReadSecretFile)))
	if err != nil {
		t.Fatal(err)
	}
	return parser, &c.Settings, &stderr
}

// parse parses a command line.
func parse(t *testing.T, args ...string) (_ *cli.Settings, stderr string, _ error) {
	t.Helper()
	parser, settings, output := newParser(t)
	_, err := parser.Parse(append(args, "version"))
	return settings, output.String(), err
}

func configFile(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "tollgate.yaml")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// A flag overrides its variable, which overrides the file, which overrides the default.
func TestConfigPrecedence(t *testing.T) {
	file := configFile(t, `# a comment
listen: 127.0.0.1:1001
base-url: https://file.example
metrics-listen: 127.0.0.1:1002
stripe-secret-key: sk_test_file
slack-bot-token: "xoxb-file"
database: postgres://tollgate@file.example/tollgate
report-every: 3m
rate-limit: 10
trusted-proxies: [10.0.0.0/8, "127.0.0.1"]
log-level: warn
`)
	secret := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(secret, []byte("xoxb-variable\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("TOLLGATE_CONFIG", file)
	t.Setenv("TOLLGATE_BASE_URL", "https://variable.example")
	t.Setenv("TOLLGATE_METRICS_LISTEN", "127.0.0.1:2002")
	t.Setenv("SLACK_BOT_TOKEN_FILE", secret)
	s, _, err := parse(t, "--metrics-listen", "127.0.0.1:3002", "--report-every=2m")
	if err != nil {
		t.Fatal(err)
	}
	for name, pair := range map[string][2]any{
		"file":                          {s.Listen, "127.0.0.1:1001"},
		"variable over file":            {s.BaseURL, web.BaseURL("https://variable.example")},
		"flag over variable and file":   {s.MetricsListen, "127.0.0.1:3002"},
		"flag over file":                {s.ReportEvery, 2 * time.Minute},
		"secret in the file":            {s.StripeSecretKey, "sk_test_file"},
		"secret's own file over file":   {s.SlackBotToken, "xoxb-variable"},
		"address in the file":           {s.Database, "postgres://tollgate@file.example/tollgate"},
		"number in the file":            {s.RateLimit, int64(10)},
		"list in the file":              {len(s.TrustedProxies), 2},
		"level in the file":             {s.LogLevel.String(), "WARN"},
		"default of what is not in it":  {s.Drain, 5 * time.Second},
		"default of what is not in it ": {s.OIDCIssuer, web.SlackIssuer},
	} {
		if pair[0] != pair[1] {
			t.Errorf("%s: got %v, want %v", name, pair[0], pair[1])
		}
	}
	if s, _, err = parse(t, "--config", configFile(t, "listen: 127.0.0.1:4001")); err != nil || s.Listen != "127.0.0.1:4001" {
		t.Errorf("--config over TOLLGATE_CONFIG: %q, %v", s.Listen, err)
	}
	if s, _, err = parse(t, "--config="); err != nil || s.Listen != cli.DefaultListen {
		t.Errorf("an empty --config: %q, %v", s.Listen, err)
	}
}

// Each error of the file is reported with its line, and no error shows a secret.
func TestConfigRefuses(t *testing.T) {
	for name, test := range map[string]struct {
		text  string
		wants []string // parts of the error, after the file's name
	}{
		"empty":                {"", []string{": the file is empty"}},
		"only comments":        {"# listen: 127.0.0.1:1\n", []string{": the file is empty"}},
		"not YAML":             {"listen: x\nplans: \"open\ndrain: 5s\n", []string{":2: invalid YAML: "}},
		"binary":               {"\x00\x01\x02", []string{":1: invalid YAML: "}},
		"text":                 {"127.0.0.1:8080", []string{":1: must have the names of flags"}},
		"a list":               {"- listen: 127.0.0.1:1", []string{":1: must have the names of flags"}},
		"two documents":        {"listen: x\n---\nlisten: y\n", []string{":2: a second YAML document"}},
		"nested":               {"serve:\n  listen: x\n", []string{`:1: unknown key "serve"`}},
		"a nested value":       {"drain: 1s\nlisten:\n  port: 1\n", []string{`:2: "listen" must have one value`}},
		"a list for one value": {"rate-limit: [1, 2]", []string{`:1: "rate-limit" must have one value`}},
		"a nested list":        {"trusted-proxies: [[10.0.0.0/8]]", []string{`:1: "trusted-proxies" must have one value or a list`}},
		"no value":             {"listen:\nplans: ~\n", []string{`:1: "listen" must have one value`, `:2: "plans" must have one value`}},
		"an alias":             {"listen: &a x\nplans: *a\n", []string{`:2: "plans" must have one value`}},
		"a merge key":          {"<<: {listen: x}", []string{`:1: unknown key "<<"`}},
		"an unknown key":       {"listen: x\ndatabse: y\n", []string{`:2: unknown key "databse", did you mean "database"?`}},
		"an underscore":        {"base_url: x", []string{`:1: unknown key "base_url", did you mean "base-url"?`}},
		"a variable": {"STRIPE_SECRET_KEY: hidden", []string{
			`:1: "STRIPE_SECRET_KEY" is an environment variable; the key in this file is "stripe-secret-key"`,
		}},
		"a variable with a file": {"DATABASE_URL_FILE: x", []string{
			`:1: "DATABASE_URL_FILE" is an environment variable; the key in this file is "database"`,
		}},
		"a flag of a command": {"scopes: check", []string{`:1: unknown key "scopes"`}},
		"another file":        {"config: other.yaml", []string{`:1: unknown key "config"`}},
		"a duplicate":         {"listen: x\ndrain: 1s\nlisten: x\n", []string{`:3: "listen" is given twice`}},
		"not a duration":      {"drain: 5", []string{`:1: "drain": expected duration but got "5"`}},
		"not a number":        {"rate-limit: many", []string{`:1: "rate-limit": expected a valid 64 bit int but got "many"`}},
		"not an address":      {"base-url: example.com", []string{`:1: "base-url": "example.com" is not an address such as https`}},
		"not a network":       {"trusted-proxies:\n- 10.0.0.0/8\n- x\n", []string{`:1: "trusted-proxies": "x" is neither a network`}},
		"not a level":         {"log-level: loud", []string{`:1: "log-level": `}},
		"a nested secret":     {"stripe-secret-key: {hidden: hidden}", []string{`:1: "stripe-secret-key" must have one value`}},
		"several":             {"a-key: x\ndrain: y\n", []string{`:1: unknown key "a-key"`, `:2: "drain": `}},
		"huge":                {"listen: " + strings.Repeat("x", 64<<10), []string{": larger than 64 KiB"}},
	} {
		t.Run(name, func(t *testing.T) {
			file := configFile(t, test.text)
			_, _, err := parse(t, "--config", file)
			if err == nil {
				t.Fatal("no error")
			}
			for _, want := range test.wants {
				if !strings.Contains(err.Error(), file+want) {
					t.Errorf("got %q, want %q", err, want)
				}
			}
			if strings.Contains(err.Error(), "hidden") || strings.Count(err.Error(), file) != len(test.wants) {
				t.Errorf("got %q", err)
			}
		})
	}

	missing := filepath.Join(t.TempDir(), "missing.yaml")
	if _, _, err := parse(t, "--config", missing); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), missing) {
		t.Errorf("a missing file: %v", err)
	}
	if _, _, err := parse(t, "--config", t.TempDir()); err == nil || !strings.Contains(err.Error(), "is a directory") {
		t.Errorf("a folder: %v", err)
	}
	// A value that a variable overrides is checked too.
	t.Setenv("TOLLGATE_DRAIN", "1s")
	if _, _, err := parse(t, "--config", configFile(t, "drain: x")); err == nil {
		t.Error("an invalid value that a variable overrides is accepted")
	}
}

// A warning says that every user of the machine can read a secret, but not which one.
func TestConfigWarnsOfReadableSecrets(t *testing.T) {
	for name, test := range map[string]struct {
		text string
		mode os.FileMode
		warn bool
	}{
		"a secret":                    {"stripe-secret-key: sk_test_hidden", 0o644, true},
		"a secret for the group":      {"stripe-secret-key: sk_test_hidden", 0o640, false},
		"an address with password":    {"database: postgres://tollgate:hidden@db.example/tollgate", 0o644, true},
		"a password as parameter":     {"database: postgres://db.example/tollgate?password=hidden", 0o644, true},
		"an address without password": {"database: postgres://tollgate@db.example/tollgate", 0o644, false},
		"no secret":                   {"listen: 127.0.0.1:8080", 0o644, false},
		"an empty secret":             {`smtp: ""`, 0o644, false},
	} {
		t.Run(name, func(t *testing.T) {
			file := configFile(t, test.text)
			if err := os.Chmod(file, test.mode); err != nil {
				t.Fatal(err)
			}
			_, stderr, err := parse(t, "--config", file)
			if err != nil {
				t.Fatal(err)
			}
			warned := strings.Contains(stderr, `"level":"WARN"`) && strings.Contains(stderr, "run chmod o-r") && strings.Contains(stderr, file)
			if warned != test.warn || !test.warn && stderr != "" || strings.Contains(stderr, "hidden") {
				t.Errorf("got %q, want a warning: %t", stderr, test.warn)
			}
		})
	}
}
