package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/time/rate"

	"tollgate/models"
)

const (
	// tracesPatience is how long a stopping server waits until the collector has the last spans.
	tracesPatience = time.Second
	// traceErrorsEvery is how often an error of the export is logged at most.
	traceErrorsEvery = time.Minute
	// longestTraceError is how much of such an error is logged, in bytes.
	longestTraceError = 300
)

// tracesEndpoint returns the URL that spans are sent to, and the variable that sets it. Both are empty
// if traces are off.
func tracesEndpoint() (variable, endpoint string) {
	if strings.EqualFold(os.Getenv("OTEL_SDK_DISABLED"), "true") || os.Getenv("OTEL_TRACES_EXPORTER") == "none" {
		return "", ""
	}
	return firstVariable("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
}

// firstVariable returns the first variable that is not empty. OpenTelemetry treats an empty variable as
// one that is not set.
func firstVariable(names ...string) (name, value string) {
	for _, name := range names {
		if value := strings.TrimSpace(os.Getenv(name)); value != "" {
			return name, value
		}
	}
	return "", ""
}

// secretHeader matches names of headers whose value is a secret.
var secretHeader = regexp.MustCompile(`(?i)auth|cookie|credential|dsn|key|pass|secret|token`)

// tracesSecrets returns the secrets in the headers for the collector, as written and as sent. Another
// header, such as one with a tenant's name, may have a value that is a usual word of the log. It counts
// as a secret only if it is longer than any word.
func tracesSecrets() (all []string) {
	_, general := firstVariable("OTEL_EXPORTER_OTLP_HEADERS")
	_, special := firstVariable("OTEL_EXPORTER_OTLP_TRACES_HEADERS")
	for pair := range strings.SplitSeq(general+","+special, ",") {
		name, value, _ := strings.Cut(pair, "=")
		if !secretHeader.MatchString(name) && len(strings.TrimSpace(value)) <= models.LongestWord {
			continue
		}
		all = append(all, strings.TrimSpace(value))
		if sent, err := url.PathUnescape(value); err == nil {
			all = append(all, strings.TrimSpace(sent))
		}
	}
	return all
}

// StartTraces starts the export of spans as OpenTelemetry's standard variables say. Without an endpoint,
// it starts nothing, and the tracer is nil. stop waits at most a second for the collector.
// Source: https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
func StartTraces(ctx context.Context, log *slog.Logger) (tracer trace.Tracer, stop func(), err error) {
	variable, endpoint := tracesEndpoint()
	if endpoint == "" {
		return nil, func() {}, nil
	}
	if err := checkTracesEndpoint(endpoint); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", variable, err)
	}
	if name, protocol := firstVariable("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"); protocol != "" &&
		protocol != "http/protobuf" {
		return nil, nil, fmt.Errorf("%s: %q is not supported; use http/protobuf", name, protocol)
	}
	if name, exporter := firstVariable("OTEL_TRACES_EXPORTER"); exporter != "" && exporter != "otlp" {
		return nil, nil, fmt.Errorf("%s: %q is not supported; use otlp or none", name, exporter)
	}
	problems := &traceProblems{log: log, often: rate.Sometimes{Interval: traceErrorsEvery}}
	otel.SetLogger(logr.New(problems))
	otel.SetErrorHandler(problems)
	described, err := resource.New(ctx, resource.WithTelemetrySDK(), resource.WithHost(),
		resource.WithAttributes(semconv.ServiceName("tollgate"), semconv.ServiceVersion(Version())), resource.WithFromEnv())
	if err != nil {
		return nil, nil, fmt.Errorf("OTEL_RESOURCE_ATTRIBUTES: %w", err)
	}
	exporter, err := otlptracehttp.New(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("export traces: %w", err)
	}
	limits := sdktrace.NewSpanLimits()
	if _, set := firstVariable("OTEL_SPAN_LINK_COUNT_LIMIT"); set == "" {
		limits.LinkCountLimit = -1 // a group's span has a link to each call; the size of a group is limited
	}
	provider := sdktrace.NewTracerProvider(sdktrace.WithResource(described), sdktrace.WithRawSpanLimits(limits),
		sdktrace.WithBatcher(quietExporter{exporter, problems}))
	stop = func() {
		ctx, cancel := context.WithTimeout(context.Background(), tracesPatience)
		defer cancel()
		if err := provider.Shutdown(ctx); err != nil {
			log.Warn("the last traces were not exported", "error", err)
		}
	}
	if err := problems.started(); err != nil {
		stop()
		return nil, nil, fmt.Errorf("configure traces from the OTEL variables: %w", err)
	}
	return provider.Tracer("tollgate"), stop, nil
}

// checkTracesEndpoint returns an error unless the endpoint is an HTTP URL. The SDK would ignore an
// invalid one, and the user, password and query of a valid one.
func checkTracesEndpoint(endpoint string) error {
	u, err := url.Parse(endpoint)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "":
		return errors.New("this is not a URL such as http://127.0.0.1:4318")
	case u.User != nil || u.RawQuery != "":
		return errors.New("the URL has a user or a query; use OTEL_EXPORTER_OTLP_HEADERS for credentials")
	}
	return nil
}

// quietExporter reports its errors to problems instead of its caller, which would log each of them.
type quietExporter struct {
	sdktrace.SpanExporter
	problems *traceProblems
}

// ExportSpans sends spans to the collector. Spans that it does not accept are lost.
func (e quietExporter) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	if err := e.SpanExporter.ExportSpans(ctx, spans); err != nil {
		e.problems.Handle(err)
	}
	return nil
}

// traceProblems gets the SDK's errors. Those of the start are about the variables: they prevent the
// start. Later ones are logged, at most one in a while.
type traceProblems struct {
	log   *slog.Logger
	often rate.Sometimes

	mu      sync.Mutex
	running bool
	atStart []error
}

// Handle implements otel.ErrorHandler.
func (p *traceProblems) Handle(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.running {
		p.atStart = append(p.atStart, err)
		return
	}
	p.often.Do(func() {
		text := err.Error() // it may have the response of a server that is no collector
		if len(text) > longestTraceError {
			text = strings.ToValidUTF8(text[:longestTraceError], "") + "…"
		}
		p.log.Warn("could not export traces", "error", text)
	})
}

// started ends the start, and returns its errors.
func (p *traceProblems) started() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.running = true
	return errors.Join(p.atStart...)
}

// The other methods implement logr.LogSink, which the SDK calls for some of its errors. Their values may
// have secrets, such as a header.

// Init does nothing.
func (p *traceProblems) Init(logr.RuntimeInfo) {}

// Enabled reports that only errors are wanted.
func (p *traceProblems) Enabled(int) bool { return false }

// Info does nothing.
func (p *traceProblems) Info(int, string, ...any) {}

// Error handles an error without its values.
func (p *traceProblems) Error(err error, what string, _ ...any) {
	p.Handle(fmt.Errorf("%s: %w", what, err))
}

// WithValues ignores the values.
func (p *traceProblems) WithValues(...any) logr.LogSink { return p }

// WithName ignores the name.
func (p *traceProblems) WithName(string) logr.LogSink { return p }
