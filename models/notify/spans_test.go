package notify

import (
	"slices"
	"testing"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
)

// The delivery of a notice has a span for each channel, and the call to the channel is its child.
func TestSpansOfADelivery(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		spans := tracetest.NewSpanRecorder()
		f.endpoint()
		f.notice(f.person("ada@example.com", "T1", "U1"))
		f.drain(f.worker(func(o *Options) {
			o.Tracer = sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans)).Tracer("test")
		}))
		notices := map[trace.SpanID]bool{}
		for _, s := range spans.Ended() {
			if s.Name() == "notice" {
				notices[s.SpanContext().SpanID()] = true
			}
		}
		var channels []string
		for _, s := range spans.Ended() {
			if notices[s.Parent().SpanID()] {
				channels = append(channels, s.Name()+" "+s.Attributes()[0].Value.AsString())
			}
		}
		slices.Sort(channels)
		want(t, "calls", channels, []string{"mail sent", "slack sent", "webhook sent"})
		want(t, "spans", len(spans.Ended()), 6)
	})
}
