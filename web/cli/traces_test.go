package cli

import (
	"bytes"
	"log/slog"
	"runtime"
	"strings"
	"testing"
)

// Without a collector, nothing of the SDK is created, so a request costs nothing.
func TestTracesAreOff(t *testing.T) {
	for name, variables := range map[string]map[string]string{
		"no endpoint": {}, "an empty endpoint": {"OTEL_EXPORTER_OTLP_ENDPOINT": " "},
		"disabled":    {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_SDK_DISABLED": "True"},
		"no exporter": {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:1", "OTEL_TRACES_EXPORTER": "none"},
	} {
		t.Run(name, func(t *testing.T) {
			for variable, value := range variables {
				t.Setenv(variable, value)
			}
			before := runtime.NumGoroutine()
			tracer, stop, err := StartTraces(t.Context(), slog.New(slog.DiscardHandler))
			if err != nil || tracer != nil || runtime.NumGoroutine() > before {
				t.Errorf("tracer %v, %v, with %d more goroutines", tracer, err, runtime.NumGoroutine()-before)
			}
			stop()
		})
	}
}

// The log has no secret of the settings. A header's value that may be a usual word is not one.
func TestTheLogHasNoSecretOfTheSettings(t *testing.T) {
	t.Setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-scope-orgid=tenant,api-key=k3y,x-honeycomb-team=abcdefghijklmnop")
	t.Setenv("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "Authorization=Bearer%20x1")
	s := Settings{
		Database: "postgres://ada:db1@db.internal/tollgate", SMTP: "smtp://ada:pw1@mail.example.com?from=a@example.com", SlackClientSecret: "c1",
		LogFormat: "json",
	}
	var out bytes.Buffer
	s.Logger(&out).Error("a tenant of db12", "error", "db1 pw1 c1 k3y (Bearer x1) abcdefghijklmnop")
	got := out.String()
	if !strings.Contains(got, `"msg":"a tenant of db12","error":"[secret] [secret] [secret] [secret] ([secret]) [secret]"`) {
		t.Errorf("the line is %s", got)
	}
}
