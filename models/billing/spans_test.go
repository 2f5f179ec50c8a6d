package billing

import (
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
)

// The delivery of a report has a span, and the call to Stripe is its child. An error's text is not in a
// span.
func TestSpansOfADelivery(t *testing.T) {
	onBoth(t, nil, func(t *testing.T, d *reporterFixture) {
		spans := tracetest.NewSpanRecorder()
		d.options.Tracer = sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans)).Tracer("test")
		d.Reporter = NewReporter(d.options)
		d.use("cus_1", 3, d.now.Add(-2*time.Hour))
		d.seal()
		d.stripe.DeleteCustomer("cus_1") // the first attempt is refused
		d.deliver()
		ended := spans.Ended()
		if len(ended) != 2 || ended[0].Name() != "Stripe meter event" || ended[1].Name() != "report" ||
			ended[0].Parent().SpanID() != ended[1].SpanContext().SpanID() || ended[0].Status().Code != codes.Error ||
			ended[1].Status().Code != codes.Error {
			t.Fatalf("the spans are %v", tracetest.SpanStubsFromReadOnlySpans(ended))
		}
		for _, s := range ended {
			for _, a := range s.Attributes() {
				if strings.Contains(a.Value.String(), "cus_1") {
					t.Errorf("%s has %s = %s", s.Name(), a.Key, a.Value.String())
				}
			}
			if s.Status().Description != "" {
				t.Errorf("%s has the error %q", s.Name(), s.Status().Description)
			}
		}
	})
}
