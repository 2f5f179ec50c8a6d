package enforcement

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
)

// startGroup returns the context of a group. With a tracer, the context has the group's span, which has
// a link to the span of each call and is in the trace of the first call that is sampled.
func (w *worker) startGroup(calls []*call, ops int) context.Context {
	ctx := context.Background()
	if w.tracer == nil || len(calls) == 0 {
		return ctx
	}
	links := make([]trace.Link, 0, len(calls))
	var parent trace.SpanContext
	for _, c := range calls {
		of := trace.SpanContextFromContext(c.ctx)
		if !of.IsValid() {
			continue
		}
		links = append(links, trace.Link{SpanContext: of})
		if !parent.IsValid() || of.IsSampled() && !parent.IsSampled() {
			parent = of
		}
	}
	database := semconv.DBSystemNameSQLite
	if w.db.Postgres {
		database = semconv.DBSystemNamePostgreSQL
	}
	ctx, _ = w.tracer.Start(trace.ContextWithSpanContext(ctx, parent), "group", trace.WithLinks(links...),
		trace.WithAttributes(attribute.Int("tollgate.group.size", ops), database))
	return ctx
}

// endGroup ends the span of a group.
func (w *worker) endGroup(calls []*call) {
	if w.tracer == nil {
		return
	}
	span := trace.SpanFromContext(w.ctx)
	for _, c := range calls {
		if c.err != nil {
			span.SetStatus(codes.Error, "") // without the error, which may contain SQL
			break
		}
	}
	span.End()
}

// startCommit starts the span of a commit. end ends it.
func (w *worker) startCommit() (end func(error)) {
	if w.tracer == nil {
		return func(error) {}
	}
	_, span := w.tracer.Start(w.ctx, "commit", trace.WithSpanKind(trace.SpanKindClient))
	return func(err error) {
		if err != nil && !isStale(err) { // a stale record only causes a second try
			span.SetStatus(codes.Error, "")
		}
		span.End()
	}
}
