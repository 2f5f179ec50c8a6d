//go:build linux

package e2e_test

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestRefusesUnusableSettings starts the server with invalid settings. The error names the variable
// and says what to do. It never shows the value.
func TestRefusesUnusableSettings(t *testing.T) {
	const (
		key    = "STRIPE_SECRET_KEY=sk_test_1"
		secret = "STRIPE_WEBHOOK_SECRET=whsec_1"

		notKey    = "STRIPE_SECRET_KEY: this is not a Stripe API key"
		notSecret = "STRIPE_WEBHOOK_SECRET: this is not the signing secret"
	)
	file := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(file, []byte("pk_test_hidden\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	database := sqliteDatabase(t)
	for name, test := range map[string]struct {
		variables []string
		says      string
	}{
		"a publishable key": {
			[]string{"STRIPE_SECRET_KEY=pk_live_hidden", secret},
			"STRIPE_SECRET_KEY: this is a publishable key (pk_…): set the secret key",
		},
		"a publishable key in a file": {[]string{"STRIPE_SECRET_KEY_FILE=" + file, secret}, "STRIPE_SECRET_KEY: this is a publishable key"},
		"a webhook secret as key":     {[]string{"STRIPE_SECRET_KEY=whsec_hidden", secret}, "STRIPE_SECRET_KEY: this is a webhook secret"},
		"a malformed key":             {[]string{"STRIPE_SECRET_KEY=hidden", secret}, notKey},
		"a key with a space in it":    {[]string{"STRIPE_SECRET_KEY=sk_test_hid den", secret}, notKey},
		"the beginning of a key":      {[]string{"STRIPE_SECRET_KEY=sk_live_", secret}, notKey},
		"a malformed webhook secret":  {[]string{key, "STRIPE_WEBHOOK_SECRET=hidden"}, notSecret},
		"a key as webhook secret":     {[]string{key, "STRIPE_WEBHOOK_SECRET=sk_test_hidden"}, notSecret},
		"one of two is malformed":     {[]string{key, "STRIPE_WEBHOOK_SECRET=whsec_1,hidden"}, notSecret},
		"only commas":                 {[]string{key, "STRIPE_WEBHOOK_SECRET=, ,"}, notSecret},
		"a webhook secret without a key": {
			[]string{secret}, "STRIPE_WEBHOOK_SECRET is set but STRIPE_SECRET_KEY is not; set both or neither",
		},
		"a key without a webhook secret": {
			[]string{key}, "STRIPE_SECRET_KEY is set but STRIPE_WEBHOOK_SECRET is not; set both or neither",
		},
		"a client ID without a secret": {
			[]string{"SLACK_CLIENT_ID=1.2"}, "SLACK_CLIENT_ID is set but SLACK_CLIENT_SECRET is not; set both or neither",
		},
		"a malformed signing secret": {
			[]string{"SLACK_SIGNING_SECRET=hidden"}, "SLACK_SIGNING_SECRET: this is not a signing secret",
		},
		"a user token as bot token": {[]string{"SLACK_BOT_TOKEN=xoxp-123456-hidden"}, "SLACK_BOT_TOKEN: this is not a bot token"},
		"a malformed bot token in a file": {
			[]string{"SLACK_BOT_TOKEN_FILE=" + file}, "SLACK_BOT_TOKEN: this is not a bot token (xoxb-…)",
		},
		"a bot token that expires": {[]string{"SLACK_BOT_TOKEN=xoxe.xoxb-1-hidden"}, "SLACK_BOT_TOKEN: this token expires"},
		"a stand-in for Slack on another machine": {
			[]string{"SLACK_API_BASE=https://slack.example.com"}, "--slack-api-base: slack.example.com is not on this machine",
		},
		"a mail server without a sender": {
			[]string{"TOLLGATE_SMTP=smtp://ada:hidden@mail.example.com"}, `--smtp (TOLLGATE_SMTP): "from" is missing`,
		},
		"a mail server of another kind": {
			[]string{"TOLLGATE_SMTP=http://hidden.example.com"}, "--smtp (TOLLGATE_SMTP): must be smtp://USER:PASSWORD@HOST:PORT?from=ADDRESS",
		},
		"a collector that is no URL": {
			[]string{"OTEL_EXPORTER_OTLP_ENDPOINT=hidden:4318"}, "OTEL_EXPORTER_OTLP_ENDPOINT: this is not a URL such as http://127.0.0.1:4318",
		},
		"a collector with a password": {
			[]string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=http://ada:hidden@127.0.0.1:4318/v1/traces"},
			"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: the URL has a user or a query; use OTEL_EXPORTER_OTLP_HEADERS",
		},
		"another protocol for traces": {
			[]string{"OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:1", "OTEL_EXPORTER_OTLP_PROTOCOL=grpc"},
			`OTEL_EXPORTER_OTLP_PROTOCOL: "grpc" is not supported; use http/protobuf`,
		},
		"another exporter for traces": {
			[]string{"OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:1", "OTEL_TRACES_EXPORTER=zipkin"},
			`OTEL_TRACES_EXPORTER: "zipkin" is not supported; use otlp or none`,
		},
		"malformed headers for the collector": {
			[]string{"OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:1", "OTEL_EXPORTER_OTLP_HEADERS=hidden"},
			"configure traces from the OTEL variables: parse headers",
		},
		"an unknown sampler": {
			[]string{"OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:1", "OTEL_TRACES_SAMPLER=some"},
			"configure traces from the OTEL variables: unsupported sampler: some",
		},
		"a client secret without an ID": {
			[]string{"SLACK_CLIENT_SECRET=hidden"}, "SLACK_CLIENT_SECRET is set but SLACK_CLIENT_ID is not; set both or neither",
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := runIt(t, append(test.variables, "DATABASE_URL="+database), "serve", "--listen", "127.0.0.1:0")
			if r.status != 1 || r.stdout != "" || strings.Count(r.stderr, "\n") != 1 ||
				!strings.HasPrefix(r.stderr, "tollgate: "+test.says) || strings.Contains(r.stderr, "hidden") {
				t.Errorf("got %+v, want %q", r, test.says)
			}
		})
	}
	shell{t, database}.fails(1, "Stripe is not connected", "stripe", "reconcile")
	r := runIt(t, []string{"DATABASE_URL=" + database, "STRIPE_SECRET_KEY=pk_test_hidden"}, "stripe", "setup")
	if r.status != 1 || !strings.Contains(r.stderr, "publishable") {
		t.Errorf("setup with a publishable key: %+v", r)
	}
}

// TestStartLine checks the log line of a start, in both formats, and that --log-level removes it.
func TestStartLine(t *testing.T) {
	database := postgresDatabase(t)
	withPassword := strings.Replace(database, "postgres@", "postgres:hidden@", 1)
	if withPassword == database {
		t.Fatalf("no user in %s", database)
	}
	s := startWith(t, []string{
		"STRIPE_SECRET_KEY=sk_test_1", "STRIPE_WEBHOOK_SECRET=whsec_1", "STRIPE_API_BASE=http://127.0.0.1:1",
		"SLACK_CLIENT_ID=1.2", "SLACK_CLIENT_SECRET=hidden", "SLACK_BOT_TOKEN=xoxb-hidden",
		"SLACK_SIGNING_SECRET=hiddenhiddenhiddenhiddenhidden00",
	}, "serve", "--database", withPassword, "--listen", "127.0.0.1:0", "--base-url", "https://tollgate.example.com/", "--report-every", "0")
	s.stop(t, syscall.SIGTERM)
	if strings.Contains(s.stderr.String(), "hidden") {
		t.Errorf("a secret is in the log:\n%s", s.stderr.String())
	}
	line := map[string]string{}
	for text := range strings.Lines(s.stderr.String()) {
		if strings.Contains(text, `"msg":"started"`) {
			if err := json.Unmarshal([]byte(text), &line); err != nil {
				t.Fatalf("%v: %s", err, text)
			}
		}
	}
	for name, want := range map[string]string{
		"database": database, "listen": strings.TrimPrefix(s.url, "http://"), "base_url": "https://tollgate.example.com",
		"stripe": "test", "sign_in": "https://slack.com",
		"slack": "slash command and App Home",
	} {
		if line[name] != want {
			t.Errorf("%s is %q, want %q", name, line[name], want)
		}
	}
	if line["version"] == "" {
		t.Error("no version")
	}

	s = startWith(t, nil, "serve", "--database", sqliteDatabase(t), "--listen", "127.0.0.1:0", "--log-format", "text")
	s.stop(t, syscall.SIGTERM)
	if text := s.stderr.String(); !strings.Contains(text, "msg=started") || !strings.Contains(text, `stripe="not connected"`) ||
		!strings.Contains(text, `sign_in="one-time links only"`) {
		t.Errorf("as text:\n%s", text)
	}

	s = startWith(t, []string{"TOLLGATE_LOG_LEVEL=error"}, "serve", "--database", sqliteDatabase(t), "--listen", "127.0.0.1:0")
	s.stop(t, syscall.SIGTERM)
	if text := s.stderr.String(); text != "" {
		t.Errorf("at level error:\n%s", text)
	}
}

// TestDurationsHaveUnits checks the log line of a request.
func TestDurationsHaveUnits(t *testing.T) {
	s := startWith(t, nil, "serve", "--database", sqliteDatabase(t), "--listen", "127.0.0.1:0")
	// The request is refused, so it is logged.
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url+"/v1/usage/ada@example.com", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	s.stop(t, syscall.SIGTERM)
	found := false
	for text := range strings.Lines(s.stderr.String()) {
		var line struct {
			Message string `json:"msg"`
			Route   string `json:"route"`
			Took    string `json:"took"`
		}
		if json.Unmarshal([]byte(text), &line) == nil && line.Message == "request" && line.Route == "/v1/usage/:email" {
			found = true
			if took, err := time.ParseDuration(line.Took); err != nil || took <= 0 {
				t.Errorf("took %q: %v", line.Took, err)
			}
		}
	}
	if !found {
		t.Errorf("no line for the request in\n%s", s.stderr.String())
	}
}
