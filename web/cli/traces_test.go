package cli

import (
	"log/slog"
	"runtime"
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
