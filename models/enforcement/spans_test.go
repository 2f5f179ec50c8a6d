package enforcement

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"tollgate/models"
	"tollgate/models/modelstest"
)

// Without a tracer, a group allocates nothing for spans.
func TestNoSpansCostNothing(t *testing.T) {
	w := &worker{Gate: &Gate{}}
	calls := []*call{{ctx: t.Context()}}
	if n := testing.AllocsPerRun(100, func() {
		w.ctx = w.startGroup(calls, 1)
		w.startCommit()(nil)
		w.endGroup(calls)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// Each call is linked to exactly one group. A group is in the trace of its first sampled call.
func TestAGroupIsLinkedToItsCalls(t *testing.T) {
	modelstest.OnBoth(t, func(t *testing.T, address string) {
		spans := tracetest.NewSpanRecorder()
		tracer := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans)).Tracer("test")
		catalogue, err := models.LoadCatalogue("")
		if err != nil {
			t.Fatal(err)
		}
		db, err := models.Open(t.Context(), address)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = db.Close() }()
		g, err := Open(t.Context(), db, Options{
			Catalogue: catalogue, Now: time.Now, Log: slog.New(slog.DiscardHandler), QueueLimit: 100, Tracer: tracer,
		})
		if err != nil {
			t.Fatal(err)
		}
		var all sync.WaitGroup
		for i := range 40 {
			all.Go(func() {
				ctx, span := tracer.Start(context.WithoutCancel(t.Context()), "request")
				defer span.End()
				person := Person{Email: fmt.Sprintf("u%d@example.com", i%4)}
				if _, err := g.Consume(ctx, person, 1, fmt.Sprint(i)); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		g.Close()
		linked, commits := map[trace.SpanID]bool{}, 0
		for _, s := range spans.Ended() {
			switch s.Name() {
			case "commit":
				commits++
			case "group":
				if len(s.Links()) == 0 || s.Parent().SpanID() != s.Links()[0].SpanContext.SpanID() {
					t.Errorf("a group has the parent %s and the links %v", s.Parent().SpanID(), s.Links())
				}
				for _, l := range s.Links() {
					if linked[l.SpanContext.SpanID()] {
						t.Error("a call is in two groups")
					}
					linked[l.SpanContext.SpanID()] = true
				}
			}
		}
		if len(linked) != 40 || commits == 0 {
			t.Errorf("%d calls are linked, and there are %d commits", len(linked), commits)
		}
	})
}
